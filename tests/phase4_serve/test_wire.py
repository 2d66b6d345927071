"""What comes in is text that a model was trained on; what goes out breaks its lines as the file does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.fim import MIDDLE, PREFIX, SUFFIX
from phase4_serve.engine import Done
from phase4_serve.gateway import with_crlf
from phase4_serve.wire import ApiError, CompletionRequest, InfillRequest, mend, parse_body, place

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


def test_the_answer_breaks_lines_as_the_file_does() -> None:
    async def pieces() -> AsyncGenerator[str | Done, None]:
        for piece in ("a\n", "\n", "b"):
            yield piece

    async def joined() -> str:
        return "".join([str(piece) async for piece in with_crlf(pieces())])

    assert asyncio.run(joined()) == "a\r\n\r\nb"


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
