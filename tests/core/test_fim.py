"""The format of a hole: golden prompts that training, evaluation and serving all have to produce."""

import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.fim import CONTROL, MARKERS, MIDDLE, PREFIX, SUFFIX, Chunk, Codec, FimTokens, Hole, encode_plain, labels, parse

TOKENS = FimTokens(*range(1000, 1007))
GOLDEN = json.loads((Path(__file__).parent / "golden_prompts.json").read_text())


def by_bytes(text: str) -> list[int]:
    """One id per byte, and a marker's id where its text stands whole, as Qwen's tokenizer does."""
    for marker, token in zip(MARKERS, TOKENS, strict=True):
        if marker in text:
            left, right = text.split(marker, 1)
            return [*by_bytes(left), token, *by_bytes(right)]
    return list(text.encode("utf-8", "surrogatepass"))


CODEC = Codec(by_bytes, TOKENS)


def shown(ids: list[int]) -> str:
    """Ids as text, markers spelled out, for golden rows a person can read."""
    out, plain = "", b""
    for token in [*ids, None]:
        if token is not None and token < 256:
            plain += bytes([token])
            continue
        out, plain = out + plain.decode("utf-8", "surrogatepass"), b""
        out += "" if token is None else MARKERS[TOKENS.index(token)]
    return out


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_a_hole_is_written_as_the_golden_prompt(case):
    hole = Hole(**{**case["hole"], "context": tuple(Chunk(*chunk) for chunk in case["hole"].get("context", ()))})
    for order, prompt in case["prompts"].items():
        assert shown(CODEC.prompt(hole, order)) == prompt
        ids, start = CODEC.row(hole, order)
        rest = hole.suffix if order == "ltr" else ""
        assert shown(ids) == prompt + hole.middle + rest + "<|endoftext|>"
        assert shown(ids[:start]) == prompt


def test_loss_is_on_the_middle_and_its_end_only():
    ids, start = CODEC.row(Hole("a = ", "\n", "1"), "spm")
    marked = labels(ids, start)
    assert len(marked) == len(ids)
    assert [token for token in marked if token != -100] == [ord("1"), TOKENS.end]


def test_in_spm_a_typed_character_changes_only_the_end():
    before = CODEC.prompt(Hole("x = fo", ")\n"), "spm")
    after = CODEC.prompt(Hole("x = foo", ")\n"), "spm")
    assert after[: len(before)] == before


@pytest.mark.parametrize("control", CONTROL)
def test_a_control_token_written_in_code_stays_text(control):
    text = f'x = "{control}"  # {control}{control}'
    assert shown(encode_plain(by_bytes, text)) == text
    assert max(encode_plain(by_bytes, text)) < 256


@given(st.text(), st.text(), st.text(), st.sampled_from(["psm", "spm"]))
def test_every_row_has_each_marker_once_and_ends_in_the_end_token(prefix, suffix, middle, order):
    ids, start = CODEC.row(Hole(prefix, suffix, middle), order)
    assert [ids.count(token) for token in (TOKENS.prefix, TOKENS.suffix, TOKENS.middle, TOKENS.end)] == [1, 1, 1, 1]
    assert ids[-1] == TOKENS.end
    assert shown(ids[start:-1]) == middle


@given(st.text(alphabet=st.characters(exclude_characters="<|>"), min_size=0), st.text(alphabet=st.characters(exclude_characters="<|>")))
def test_parse_takes_apart_what_was_joined(prefix, suffix):
    psm = f"<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>"
    spm = f"<|fim_prefix|><|fim_suffix|>{suffix}<|fim_middle|>{prefix}"
    assert parse(psm) == (prefix, suffix) or prefix == ""
    assert parse(spm) == (prefix, suffix)


def test_parse_of_a_prompt_without_markers_is_none():
    assert parse("def f():\n    return") is None


def test_a_vocabulary_without_markers_is_refused_by_name():
    with pytest.raises(ValueError, match=r"fim_middle.*Qwen2\.5-Coder"):
        FimTokens.of(lambda marker: None if marker == "<|fim_middle|>" else 1)


def as_the_grammar_says(prompt: str) -> tuple[str, str] | None:
    """The two orders as expressions: clear, and cubic."""
    prefix, suffix, middle = map(re.escape, (PREFIX, SUFFIX, MIDDLE))
    if spm := re.search(rf"{prefix}{suffix}(.*){middle}(.*)\Z", prompt, re.DOTALL):
        return spm[2], spm[1]
    psm = re.search(rf"{prefix}(.*){suffix}(.*){middle}\s*\Z", prompt, re.DOTALL)
    return (psm[1], psm[2]) if psm else None


@given(st.lists(st.sampled_from([PREFIX, SUFFIX, MIDDLE, "a", "\n", " ", "\u2003"]), max_size=12).map("".join))
def test_a_prompt_is_taken_apart_as_its_grammar_says(prompt):
    assert parse(prompt) == as_the_grammar_says(prompt)


@pytest.mark.parametrize("end", ["", MIDDLE, MIDDLE + "x"])
def test_a_prompt_of_thousands_of_markers_is_taken_apart_at_once(end):
    started = time.process_time()
    parse((PREFIX + " ") * 70_000 + (SUFFIX + " ") * 70_000 + (MIDDLE + " ") * 70_000 + end)
    assert time.process_time() - started < 0.2
