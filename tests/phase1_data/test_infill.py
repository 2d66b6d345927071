"""Promises of holes: windows tile the file, spans may be middles, rows fit their budget and are cut at lines."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.fim import CONTROL, Chunk, Hole
from core.syntax import parse_python
from phase1_data.budget import fit
from phase1_data.context import Neighbours, choose
from phase1_data.infill import DULL, Scene, Window, find_span, pick, windows

from .conftest import code

PIECES = st.sampled_from(
    [
        "x = 1\n",
        "\n",
        "    return foo(bar)\n",
        "日本 = 'é'\n",
        "a" * 400,
        "# " + "-" * 70 + "\n",
        CONTROL[0],
        "\t",
        "  ",
        "\x0c\n",
        "𝒳 = 2\n",
    ]
)
TEXTS = st.lists(PIECES, max_size=60).map("".join)


@settings(deadline=None, max_examples=150)
@given(text=TEXTS, budget=st.integers(16, 200))
def test_windows_tile_the_file_and_fit(ruler, text, budget):
    tiles = windows(text, ruler, budget)
    assert "".join(text[tile.start : tile.end] for tile in tiles) == text
    for tile in tiles:
        piece = text[tile.start : tile.end]
        assert len(ruler.token_starts(piece)) <= budget + 8  # a cut inside a word or a character costs a few tokens
        line = text[text.rfind("\n", 0, tile.start) + 1 :].split("\n", 1)[0]
        assert tile.start == 0 or text[tile.start - 1] == "\n" or len(ruler.token_starts(line)) > budget - 8


@settings(deadline=None, max_examples=150)
@given(text=TEXTS, at=st.tuples(st.floats(0, 1), st.integers(1, 30)), budget=st.integers(24, 300), order=st.sampled_from(["psm", "spm"]))
def test_a_row_never_exceeds_its_budget_and_is_cut_at_lines(ruler, text, at, budget, order):
    start = int(at[0] * len(text))
    middle = text[start : start + at[1]]
    prefix, suffix = text[:start], text[start + at[1] :]
    context = (Chunk("other.py", "y = 2"),) if budget > 150 else ()
    fitted = fit(Hole(prefix, suffix, middle, "a.py", "repo", context), order, ruler, budget)
    if fitted is None:
        return
    hole, n_tokens = fitted
    assert n_tokens == len(ruler.codec.row(hole, order)[0]) <= budget
    assert hole.middle == middle and prefix.endswith(hole.prefix) and suffix.startswith(hole.suffix)
    cut_at = len(prefix) - len(hole.prefix)
    assert cut_at == 0 or prefix[cut_at - 1] == "\n"
    assert len(hole.suffix) == len(suffix) or hole.suffix.endswith("\n") or suffix[len(hole.suffix)] == "\n"


def test_a_long_file_fills_the_budget_on_both_sides(ruler):
    text = code(1, functions=60)
    at = text.index("return", len(text) // 2)
    end = text.index("\n", at)
    fitted = fit(Hole(text[:at], text[end:], text[at:end]), "spm", ruler, 400)
    assert fitted is not None
    hole, n_tokens = fitted
    assert 340 <= n_tokens <= 400
    assert ruler.count(hole.prefix) > ruler.count(hole.suffix) > 80


def test_a_middle_that_cannot_fit_gives_no_row(ruler):
    assert fit(Hole("", "", "word " * 200), "psm", ruler, 100) is None
    assert fit(Hole("x" * 500, "", "y"), "psm", ruler, 60) is None  # its own line does not fit


@pytest.mark.parametrize("kind", ["line_rest", "lines", "node", "chars"])
def test_spans_are_what_they_are_called(kind):
    text = code(3)
    scene, window = Scene(text, "python", []), Window(0, len(text))
    for seed in range(200):
        span = pick(scene, window, kind, random.Random(seed))
        assert span is not None
        middle, after = text[span.start : span.end], text[span.end : span.end + 1]
        if kind == "line_rest":
            assert "\n" not in middle and after in ("\n", "")
        elif kind == "lines":
            assert middle.count("\n") <= 4 and after in ("\n", "") and not text[: span.start].rpartition("\n")[2].strip()
        elif kind == "node":
            assert span.kind.startswith("node:") and span.kind.removeprefix("node:") not in DULL
            if span.kind.removeprefix("node:") in ("Call", "BinOp", "List", "IfExp"):
                assert parse_python(middle) is not None
        else:
            assert 2 <= len(middle) <= 256


def test_a_span_never_touches_a_mask_nor_is_blank(ruler, samples_params):
    text = code(4).replace("\n    for", "\n\n\n    for")
    masks = [{"start": at, "end": at + 25} for at in range(0, len(text), 60)]
    scene, params = Scene(text, "python", masks), samples_params()
    found = 0
    for seed in range(300):
        span = find_span(scene, Window(0, len(text)), params, ruler, random.Random(seed))
        if span:
            found += 1
            assert text[span.start : span.end].strip() and ruler.count(text[span.start : span.end]) <= params.max_middle_tokens
            assert all(span.end < mask["start"] or span.start > mask["end"] for mask in masks)
    assert found > 50


def test_code_is_asked_more_than_prose(ruler, samples_params):
    text = '"""' + "some words of prose\n" * 30 + '"""\n' + "value = compute(table)\n" * 30
    scene, params = Scene(text, "python", []), samples_params(span_mix={"line_rest": 1.0})
    spans = [find_span(scene, Window(0, len(text)), params, ruler, random.Random(seed)) for seed in range(300)]
    prose = sum("prose" in text[span.start : span.end] for span in spans if span)
    assert 30 < prose < 110


def test_other_languages_get_every_kind_but_nodes(ruler, samples_params):
    text = "int add(int a, int b) {\n    return a + b;\n}\n" * 20
    kinds = set()
    for seed in range(100):
        span = find_span(Scene(text, "c", []), Window(0, len(text)), samples_params(), ruler, random.Random(seed))
        kinds.add(span.kind if span else None)
    assert kinds == {"line_rest", "lines", "chars"}


def test_context_is_what_the_file_imports_and_never_holds_the_middle(ruler):
    files = {
        "src/pkg/a.py": "from pkg.deep import thing\nimport pkg.other\nfrom . import near\n",
        "src/pkg/deep.py": "def thing(order):\n    return order_total(order)\n",
        "src/pkg/other.py": "def unrelated():\n    return 1\n",
        "src/pkg/near.py": "LIMIT = 3\n",
        "src/pkg/zzz.py": "ZZZ = 1\n",
        "elsewhere/far.py": "FAR = 1\n",
    }
    others = Neighbours(files).of("src/pkg/a.py", files["src/pkg/a.py"])
    assert [path for path, _ in others][:3] == ["src/pkg/deep.py", "src/pkg/other.py", "src/pkg/near.py"]
    assert "elsewhere/far.py" not in dict(others) and "src/pkg/a.py" not in dict(others)
    chosen = choose("order", "", "order_total(order)", others, "python", ruler, 200)
    assert chosen and all("order_total(order)" not in chunk.text for chunk in chosen)
    for budget in (0, 10, 30, 60):
        chosen = choose("order", "", "never there", others, "python", ruler, budget)
        assert sum(ruler.count(f"{chunk.path}\n{chunk.text}") + 1 for chunk in chosen) <= budget + 2 * len(chosen)


def test_nothing_inside_an_f_string_is_taken_for_a_node():
    text = 'def f(name):\n    return (f"one {name!r}"\n            f" two {name.upper()} {1 + 2}")\n\nx = name.upper()\n'
    scene = Scene(text, "python", [])
    for span in scene.nodes:
        middle = text[span.start : span.end]
        assert span.kind != "FormattedValue" and (span.kind != "Call" or (middle == "name.upper()" and span.start > text.index("x =")))
