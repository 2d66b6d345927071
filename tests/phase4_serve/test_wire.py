"""What comes in is text that a model was trained on; what goes out breaks its lines as the file does."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.fim import MIDDLE, PREFIX, SUFFIX
from phase4_serve.api_error import ApiError
from phase4_serve.wire import CompletionRequest, InfillRequest, RawRequest, mend, mended, parse_body, place

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40)


@given(ANY_TEXT)
def test_mended_text_is_utf8_and_proper_text_stays(text: str) -> None:
    mended = mend(text)
    mended.encode()
    assert mended == text or any("\ud800" <= character <= "\udfff" for character in text)


def test_a_pair_of_surrogates_is_the_character_it_means() -> None:
    assert mend("\ud83d\ude00") == "😀" and mend("a\ud800b") == "a�b"


@pytest.mark.parametrize(
    ("prefix", "suffix", "seen"),
    [
        ("a\r\nb", "c\r\nd", ("a\nb", "c\nd")),
        ("a\r", "\nb", ("a", "\nb")),  # the cursor between the two characters of a line's end
        ("a\nb", "\r\nc", ("a\nb", "\nc")),
        ("a\rb", None, ("a\rb", None)),
    ],
)
def test_the_model_sees_line_feeds_only(prefix: str, suffix: str | None, seen: tuple[str, str | None]) -> None:
    asked = place(prefix, suffix, None, None, (), None)
    assert (asked.prefix, asked.suffix) == seen


@pytest.mark.parametrize(
    ("prompt", "suffix", "hole"),
    [
        (f"{PREFIX}a{SUFFIX}b{MIDDLE}", None, ("a", "b")),
        (f"{PREFIX}{SUFFIX}b{MIDDLE}a", None, ("a", "b")),
        (f"x = '{MIDDLE}'", None, (f"x = '{MIDDLE}'", None)),  # a marker alone is code about markers
        (f"{PREFIX}a{SUFFIX}b{MIDDLE}", "", (f"{PREFIX}a{SUFFIX}b{MIDDLE}", "")),  # who sends a suffix has rendered nothing
    ],
)
def test_a_rendered_prompt_is_taken_apart_and_code_about_markers_is_not(
    prompt: str, suffix: str | None, hole: tuple[str, str | None]
) -> None:
    asked = CompletionRequest(prompt=prompt, suffix=suffix).ask()
    assert (asked.prefix, asked.suffix) == hole


def test_the_line_of_an_infill_belongs_to_its_prefix() -> None:
    asked = InfillRequest(input_prefix="a\n", prompt="b", input_suffix="c", n_predict=-1)
    assert asked.ask().prefix == "a\nb" and asked.max_tokens is None


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | ANY_TEXT, lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner), max_leaves=8
)


def answered(document: object) -> int:
    """The status that a body gets before anybody completes it."""
    try:
        request = parse_body(CompletionRequest, json.dumps(document).encode())
        request.ask()
        request.sampling(request.max_tokens)
    except ApiError as error:
        return error.status
    return 200


@given(JSON, st.sampled_from(["prompt", "suffix", "stop", "n", "stream", "temperature", "path", "seed"]))
def test_any_json_is_a_request_or_a_400(value: object, field: str) -> None:
    assert answered({"prompt": "a", field: value}) in (200, 400)
    assert answered(value) in (200, 400)


CONTINUE = {  # recorded: the llama.cpp provider of Continue's core 1.1.0
    "prompt": f"{PREFIX}\n# t.py\ndef add(a, b):\n    {SUFFIX}\n\nprint(add(1, 2))\n{MIDDLE}",
    "stream": True,
    "temperature": 0.01,
    "n_predict": 4096,
    "stop": ["<|endoftext|>", PREFIX, MIDDLE, SUFFIX, "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|im_start|>", "<|im_end|>",
             "/src/", "#- coding: utf-8", "```"],
}  # fmt: skip


def test_continues_request_is_a_hole_with_a_bound() -> None:
    asked = parse_body(RawRequest, json.dumps(CONTINUE).encode())
    ask, sampling = asked.ask("window 1"), asked.sampling(asked.max_tokens)
    assert (ask.prefix, ask.suffix) == ("\n# t.py\ndef add(a, b):\n    ", "\n\nprint(add(1, 2))\n")
    assert ask.client == "window 1" and ask.automatic and sampling.max_tokens == 4096 and len(sampling.stop) == 12


@pytest.mark.parametrize(
    "numbers",
    [
        {"max_tokens": 2**40},
        {"n": 4},
        {"n": 0},
        {"top_p": 0},
        {"top_p": 2},
        {"temperature": float("inf")},
        {"seed": -2},
        {"max_tokens": 1.5},
    ],
)
def test_a_number_out_of_bounds_is_named(numbers: dict[str, float]) -> None:
    with pytest.raises(ApiError) as refused:
        parse_body(CompletionRequest, json.dumps({"prompt": "a", **numbers}).encode())
    assert refused.value.status == 400
    assert "inf" in str(numbers) or refused.value.body["error"]["param"] == next(iter(numbers))


def test_numbers_that_cannot_hurt_are_cut_to_size() -> None:
    asked = parse_body(CompletionRequest, json.dumps({"prompt": "a", "top_k": 10**6, "seed": 2**40 + 5, "stop": ["x" * 999]}).encode())
    sampling = asked.sampling(asked.max_tokens)
    assert sampling.top_k == 1000 and sampling.seed == 5 and len(sampling.stop[0]) == 200
    assert InfillRequest(input_prefix="a", input_suffix="", n_cmpl=99).answers == 3


@given(JSON)
def test_mended_json_is_utf8_throughout(value: object) -> None:
    json.dumps(mended(value), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"prompt": ' * 5000, b'{"prompt": NaN}', b'{"prompt": "\xff"}', b"", b"\x00", b'"a"', b"1e999"]
)
def test_what_is_no_object_is_refused_at_once(body: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        parse_body(CompletionRequest, body)
    assert refused.value.status == 400
