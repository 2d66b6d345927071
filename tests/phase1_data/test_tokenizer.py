"""Promises of the ruler: however it counts, it counts what core.fim encodes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from core.fim import CONTROL, Chunk, Hole
from phase1_data.tokenizer import QWEN, Ruler

from .conftest import code

PIECES = st.sampled_from(
    [
        "x = foo.bar(12, 'it''s')\n",
        "\n",
        "    \n",
        "\t\tDON'T'LL we're\n",
        "  return  x  \n",
        "日本 = 'é'\n",
        "e\u0301 # composed\n",
        "\u0301\n",
        "a" * 90,
        "# " + "-" * 70 + "\n",
        CONTROL[0],
        CONTROL[1] + "\n",
        "<tool>",
        "\r",
        "\x0c",
        "\x1c\n",
        "\x85",
        "\u2028 \u00a0",
        " ",
        "\n\n   \n",
        "ſ's 'ſ",
        "٣4５\n",
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=12), max_size=30).map("".join)


def qwen_like(folder: Path, normalizer: normalizers.Normalizer | None) -> Ruler:
    tokenizer = Tokenizer(models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    split = pre_tokenizers.Split(Regex(QWEN), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator([code(seed) for seed in range(900, 910)] + ["日本 é" * 9], trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in (*CONTROL, "<tool>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    return Ruler(folder / "tokenizer.json")


@pytest.fixture(scope="module", params=["plain", "nfc"])
def quick(request, tmp_path_factory) -> Ruler:
    ruler = qwen_like(tmp_path_factory.mktemp("qwen"), normalizers.NFC() if request.param == "nfc" else None)
    assert ruler.cuts_words
    return ruler


@settings(deadline=None, max_examples=400)
@given(text=TEXTS)
def test_words_cut_here_give_the_tokens_of_the_tokenizer(quick, text):
    assert quick.count(text) == len(quick.codec.plain(text))
    offsets = [start for start, _ in quick.tokenizer.encode(text, add_special_tokens=False).offsets]
    starts = quick.token_starts(text)
    assert starts.size == len(offsets) and (starts[1:] >= starts[:-1]).all() and all(0 <= at < len(text) for at in starts.tolist())
    if text.isascii() and not any(marker in text for marker in (*CONTROL, "<tool>")):
        lines = [at for at, character in enumerate(text) if character == "\n"]
        assert [sum(start < at for start in starts) for at in lines] == [sum(start < at for start in offsets) for at in lines]


@settings(deadline=None, max_examples=100)
@given(parts=st.tuples(TEXTS, TEXTS, TEXTS, TEXTS), order=st.sampled_from(["psm", "spm", "ltr"]))
def test_a_row_is_as_long_as_core_fim_makes_it(quick, ruler, parts, order):
    prefix, middle, suffix, other = parts
    for measure in (quick, ruler):
        for context in ((), (Chunk("other.py", other),)):
            hole = Hole(prefix, suffix, middle, "a.py", "repo", context)
            assert measure.row_length(hole, order) == len(measure.codec.row(hole, order)[0])


def test_words_that_are_forgotten_are_counted_again(quick, monkeypatch):
    monkeypatch.setattr("phase1_data.tokenizer.MOST_WORDS", 50)
    for seed in range(20):
        assert quick.count(code(seed)) == len(quick.codec.plain(code(seed)))


@pytest.mark.parametrize(
    "change",
    [
        {"truncation": {"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0}},
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": {"type": "Whitespace"}},
    ],
)
def test_a_tokenizer_of_another_kind_is_asked_itself(tmp_path, quick, change):
    made = json.loads(quick.tokenizer.to_str()) | change
    (tmp_path / "other.json").write_text(json.dumps(made))
    other = Ruler(tmp_path / "other.json")
    assert not other.cuts_words and other.count(code(1)) == len(other.codec.plain(code(1)))
