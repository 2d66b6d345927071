"""A word that is being typed: cut back where it began, written again by the model, and the prompt the same with every key."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase4_serve.heal import LONGEST, Healer, Strip, grammar

PIECES = [
    b"",
    b"x",
    b" =",
    b" ",
    b" pri",
    b"nt",
    b"pri",
    b"p",
    b"(",
    b"\n",
    b"    ",
    b"1",
    b"2",
    b"caf",
    b"\xc3",
    b"\xa9",
    b"foo_",
    b"bar",
    b"\xf0\x9f",
    b"\x98\x80",
]
ID = {piece: number for number, piece in enumerate(PIECES)}
HEALER = Healer(PIECES.__getitem__)


def ids(*pieces: bytes) -> list[int]:
    return [ID[piece] for piece in pieces]


@pytest.mark.parametrize(
    ("pieces", "left", "typed"),
    [
        ((b"", b"x", b" =", b" pri"), 3, " pri"),  # a token that begins before the word goes as a whole
        ((b"", b"x", b" =", b" ", b"pri"), 4, "pri"),
        ((b"", b"x", b" =", b" pri", b"nt"), 3, " print"),
        ((b"", b"foo_", b"bar"), 1, "foo_bar"),  # at the start of the file
        ((b"", b"x", b"\n", b"    ", b"p"), 4, "p"),
        ((b"", b"(", b"caf", b"\xc3", b"\xa9"), 2, "café"),  # a character of two tokens
    ],
)
def test_a_word_is_taken_back_to_where_it_began(pieces: tuple[bytes, ...], left: int, typed: str) -> None:
    healed = HEALER.heal(ids(*pieces), b"".join(pieces).decode())
    assert healed is not None
    assert (healed.ids, healed.typed) == (ids(*pieces)[:left], typed)
    assert healed.settings == {"grammar": grammar(typed)} and healed.tokens >= len(pieces) - left


@pytest.mark.parametrize(
    "pieces",
    [
        (b"", b"x", b" ="),  # no word
        (b"", b"x", b"\n", b"    "),  # indentation
        (b"", b"x", b" =", b" ", b"1", b"2"),  # digits: nobody knows the rest of a number
        (b"", b"(", b"\xf0\x9f", b"\x98\x80"),  # an emoji
        (b"",),
    ],
)
def test_what_is_no_word_is_left_alone(pieces: tuple[bytes, ...]) -> None:
    assert HEALER.heal(ids(*pieces), b"".join(pieces).decode()) is None


def test_a_prompt_that_does_not_end_in_the_text_is_left_alone() -> None:
    assert HEALER.heal([*ids(b"", b" pri"), 0], "x pri") is None  # psm: a marker stands last
    assert HEALER.heal(ids(b"", b"x"), "pri") is None
    assert HEALER.heal(ids(b"", b"p"), "a" * (LONGEST + 1)) is None


def test_while_a_word_is_typed_the_prompt_stays() -> None:
    prompts = [
        HEALER.heal(ids(b"", b"x", b" =", b" ", *pieces), f"x = {b''.join(pieces).decode()}")
        for pieces in ((b"p",), (b"pri",), (b"pri", b"nt"))
    ]
    assert {tuple(prompt.ids) for prompt in prompts if prompt} == {tuple(ids(b"", b"x", b" =", b" "))}


@given(st.text(min_size=1, max_size=12), st.text(max_size=12), st.lists(st.integers(0, 24), max_size=4))
def test_what_was_typed_is_taken_off_whatever_the_pieces(typed: str, rest: str, cuts: list[int]) -> None:
    text, strip = typed + rest, Strip(typed)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert "".join(strip.feed(text[a:b]) for a, b in itertools.pairwise(edges)) == rest


def test_an_answer_that_does_not_begin_with_what_was_typed_shows_nothing() -> None:
    strip = Strip("pri")
    assert strip.feed("pu") + strip.feed("t(1)") == ""
