"""Pairs that a person made: taken without their secrets, cut to the budget, bad lines counted."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import scrub
from core.errors import InputError
from core.records import PAIR_KEYS
from phase2_train import editor_pairs
from phase2_train.rows import load_codec

ROW = {
    "prefix": "def area(r):\n    return ", "suffix": "\n", "chosen": "math.pi * r**2", "rejected": "r * r",
    "path": "src/shapes.py", "repo": "shapes", "kind": "user_reject", "origin": "editor",
}  # fmt: skip
TOKEN = "gh" + "p_" + "k3Jd82mQpL0vXr7TzB1nWc5YhS9uEaFg4Ri6"


def write(tmp_path, *rows):
    file = tmp_path / "editor.jsonl"
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return file


def read(tmp_path, base, *rows, max_tokens=200, ratio=50.0):
    return editor_pairs.read(write(tmp_path, *rows), load_codec(base), max_tokens, ratio)


def test_a_row_becomes_a_pair(tmp_path, base):
    (pair,), bad = read(tmp_path, base, ROW)
    assert not bad and set(PAIR_KEYS) <= pair.keys()
    assert {name: pair[name] for name in ROW} == ROW
    assert pair["lang"] == "python" and pair["order"] == "spm" and pair["context"] == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"prefix": 1', "not_json"),
        ("[1]", "not_an_object"),
        ("\x00", "not_json"),
        ({**ROW, "prefix": None}, "prefix_is_no_text"),
        ({key: ROW[key] for key in ROW if key != "rejected"}, "lacks_rejected"),
        ({**ROW, "origin": "sample"}, "not_from_an_editor"),
        ({**ROW, "path": 3}, "path_is_no_text"),
        ({**ROW, "context": "text"}, "context_is_no_list_of_chunks"),
        ({**ROW, "chosen": " \n"}, "empty_chosen"),
        ({**ROW, "rejected": ""}, "empty_rejected"),
        ({**ROW, "rejected": ROW["chosen"] + " "}, "same"),
        ({**ROW, "chosen": "\ud800"}, "lone_surrogate"),
        ({**ROW, "rejected": "x" * 2000}, "length_ratio"),
        ({**ROW, "chosen": "number + " * 300, "rejected": "another + " * 300}, "too_long"),
        ({**ROW, "chosen": f'"{TOKEN}"'}, "secret"),
        ({**ROW, "rejected": f"login({TOKEN!r})"}, "secret"),
        ({**ROW, "prefix": f'token = "{TOKEN[:12]}', "chosen": TOKEN[12:], "suffix": '"\n'}, "secret"),  # completes one
        (ROW, "duplicate"),
    ],
)
def test_bad_lines_are_counted_by_reason(line, reason, tmp_path, base, capsys):
    pairs, bad = read(tmp_path, base, ROW, "", line)
    assert len(pairs) == 1 and bad == [(3, reason)]
    assert editor_pairs.report(tmp_path / "editor.jsonl", bad) == Counter({reason: 1})
    shown = capsys.readouterr().out
    assert f"editor.jsonl:3: left out: {reason}" in shown and TOKEN not in shown


def test_nothing_usable_is_refused_with_the_first_reason(tmp_path, base):
    with pytest.raises(InputError, match="line 1: not_json"):
        read(tmp_path, base, "{")
    with pytest.raises(InputError, match="is missing"):
        editor_pairs.read(tmp_path / "none.jsonl", load_codec(base), 100, 4.0)


def test_no_secret_reaches_a_pair(tmp_path, base):
    secret = f'key = "{TOKEN}"\nmail = "jane.roe' + '@corp-mail.net"\n'
    row = {**ROW, "prefix": secret + ROW["prefix"], "suffix": "\n" + secret, "path": "/home/janeroe/x.py",
           "context": [{"path": "a.py", "text": secret}]}  # fmt: skip
    (pair,), _ = read(tmp_path, base, row, max_tokens=400)
    text = json.dumps(pair)
    assert TOKEN not in text and "jane.roe" not in text and "janeroe" not in text
    assert pair["chosen"] == ROW["chosen"] and not scrub.find(pair["prefix"] + pair["chosen"] + pair["suffix"])


def test_long_sides_are_cut_where_they_are_furthest_from_the_hole(tmp_path, base):
    row = {
        **ROW,
        "prefix": "é = 1\n" * 200 + ROW["prefix"],
        "suffix": "\n" + "b = 2\n" * 200,
        "context": [{"path": "c.py", "text": "c\n" * 400}],
    }
    (pair,), _ = read(tmp_path, base, row)
    codec = load_codec(base)
    assert row["prefix"].endswith(pair["prefix"]) and row["suffix"].startswith(pair["suffix"]) and pair["context"] == []
    used = sum(len(codec.plain(pair[name])) for name in ("prefix", "suffix")) + len(codec.plain(ROW["chosen"])) + editor_pairs.MARKERS
    assert 180 <= used <= 200
    assert len(codec.plain(pair["prefix"])) > 2 * len(codec.plain(pair["suffix"]))


@given(st.text(max_size=60), st.integers(0, 30), st.booleans())
def test_a_cut_text_fits_and_is_a_piece_of_it(base, text, tokens, left):
    codec = load_codec(base)
    kept = editor_pairs.cut(text, tokens, codec, left)
    assert len(codec.plain(kept)) <= tokens
    assert text.endswith(kept) if left else text.startswith(kept)
