"""Remembered answers: found while somebody types along them, never anywhere else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from hypothesis import given, settings
from hypothesis import strategies as st

from core.stops import Place
from phase4_serve.backend import Event
from phase4_serve.typed import ANSWERS, LOOK_BACK, PLACES, Answer, Generation, Showing, Typed

TEXT = st.text("ab \n(", max_size=40)


def answer(text: str, size: int = 1, end: str = "eos") -> Answer:
    """An answer of `size` characters a token."""
    made = Answer([1, 2, 3], "s1")
    for at in range(0, len(text), size):
        made.grow(Event(text[at : at + size], False, "", {}, (at,)))
    made.end = end
    return made


@settings(max_examples=300, deadline=None)
@given(TEXT, TEXT, TEXT, st.integers(0, 40))
def test_what_is_found_goes_on_from_exactly_what_was_typed(prefix: str, text: str, other: str, typed: int) -> None:
    known = Typed()
    known.put("key", prefix, answer(text))
    hit = known.find("key", prefix + text[:typed])
    assert hit is not None and hit.tail == text[typed:]
    assert known.find("another key", prefix + text[:typed]) is None
    if (hit := known.find("key", prefix + other)) is not None:
        assert (prefix + text).startswith(prefix + other) or prefix + other == prefix
        assert prefix + other + hit.tail == prefix + text


def test_backspace_finds_what_was_answered_before() -> None:
    known = Typed()
    known.put("key", "x = ", answer("value"))
    known.put("key", "x = w", answer("idth"))
    assert known.find("key", "x = wi").tail == "dth"  # type: ignore[union-attr]
    assert known.find("key", "x = ").tail == "value"  # type: ignore[union-attr]


def test_it_looks_back_so_far_and_keeps_so_many() -> None:
    known, long = Typed(), "y" * 300
    known.put("key", "x", answer(long))
    assert known.find("key", "x" + long[:LOOK_BACK]) is not None
    assert known.find("key", "x" + long[: LOOK_BACK + 1]) is None
    for place in range(PLACES + 3):
        for number in range(ANSWERS + 3):
            known.put(place, str(number), answer("z"))
    assert len(known) == PLACES * ANSWERS and known.find("key", "x") is None and known.find(PLACES, "1") is None


def test_a_line_of_an_answer_is_remembered_where_it_begins() -> None:
    known, made = Typed(), answer("one\ntwo\n")
    known.put("key", "prefix\none\n", made, offset=4)
    assert known.find("key", "prefix\none\ntw").tail == "o\n"  # type: ignore[union-attr]


@settings(max_examples=100, deadline=None)
@given(st.text("ab()= ", min_size=1, max_size=30), st.integers(1, 4), st.integers(0, 12), st.integers(1, 40))
def test_what_is_shown_does_not_depend_on_how_fast_the_tokens_came(text: str, size: int, offset: int, cap: int) -> None:
    place = Place.of("x = ", "\n", "python")
    at_once = Showing(answer(text, size), min(offset, len(text)), place, cap, (), 0.0)
    whole = at_once.take() + at_once.finish()
    made = Answer([1], "s1")
    slow = Showing(made, min(offset, len(text)), place, cap, (), 0.0)
    pieces = []
    for at in range(0, len(text), size):
        made.grow(Event(text[at : at + size], False, "", {}, (at,)))
        if len(made.text) >= slow.offset:
            pieces.append(slow.take())
    made.end = "eos"
    pieces.append(slow.take())
    assert "".join(pieces) + slow.finish() == whole
    assert (slow.ended, slow.tokens) == (at_once.ended, at_once.tokens)


def test_a_doubtful_token_ends_it_and_nothing_is_shown() -> None:
    made = Answer([1], "s1")
    made.grow(Event("maybe", False, "", {}, (1,), 0.1))
    showing = Showing(made, 0, Place.of("x = ", "\n", "python"), 9, (), 0.5)
    assert showing.take() + showing.finish() == "" and showing.unsure and showing.ended == "rule"


def test_healing_hides_the_word_that_was_typed() -> None:
    made = Answer([1], "s1", typed="pri")
    known = Typed()
    known.put("key", "pri", made)
    assert known.find("key", "pri") is None  # the word is not written again yet: the grammar is needed for it
    for text in ("print", "(x)"):
        made.grow(Event(text, False, "", {}, (1,)))
    assert made.text == "nt(x)" and known.find("key", "prin").tail == "t(x)"  # type: ignore[union-attr]


def test_a_generation_tells_whoever_listens_and_stops_when_told() -> None:
    async def endless() -> AsyncGenerator[Event, None]:
        while True:
            await asyncio.sleep(0)
            yield Event("a", False, "", {}, (1,))

    async def failing() -> AsyncGenerator[Event, None]:
        yield Event("a", False, "", {}, (1,))
        raise KeyError

    async def main() -> None:
        made = Answer([1], "s1")
        generation = Generation(made, endless, ())
        while len(made.text) < 5:
            await generation.more()
        generation.stop()
        length = len(made.text)
        await asyncio.sleep(0.01)
        assert generation.over and made.running is None and len(made.text) == length and made.end == ""
        broken = Generation(Answer([1], "s1"), failing, ())
        while not broken.over:
            await broken.more()
        assert isinstance(broken.error, KeyError)

    asyncio.run(main())
