"""What a floor hides: nothing at 0, all of an answer that begins below it, the later lines that do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase4_serve.confidence import Gate

TOKENS = [("x", 0.9), (" = 1", 0.1), ("\n", 0.5), ("y", 0.2), ("\n", 0.9), ("z", 0.01), ("!", 0.9)]


def seen(floor: float, tokens: list[tuple[str, float | None]]) -> str:
    gate, text = Gate(floor), ""
    for content, probability in tokens:
        if not gate.sure(content, probability):
            break
        text += content
    return text


@pytest.mark.parametrize(
    ("floor", "text"),
    [
        (0.0, "x = 1\ny\nz!"),
        (0.05, "x = 1\ny\nz!"),  # the mean over all so far
        (0.3, "x = 1\ny\n"),
        (0.35, "x = 1\n"),  # a line that is begun is not broken off, however unsure it becomes
        (0.95, ""),
    ],
)
def test_the_first_token_decides_and_then_each_line(floor: float, text: str) -> None:
    assert seen(floor, list(TOKENS)) == text


def test_what_has_no_probability_is_shown() -> None:
    assert seen(0.9, [("a", None), ("b", None)]) == "ab"


@given(st.lists(st.tuples(st.sampled_from(["a", "\n", "b\n", ""]), st.floats(0, 1)), max_size=20), st.floats(0, 0.5), st.floats(0, 0.49))
def test_a_higher_floor_never_shows_more(tokens: list[tuple[str, float]], low: float, more: float) -> None:
    assert seen(low, list(tokens)).startswith(seen(low + more, list(tokens)))
