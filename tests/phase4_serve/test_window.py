"""Windows that stay where they are while somebody types."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phase4_serve import window
from phase4_serve.params import SLACK

LINES = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=30), max_size=60).map("\n".join)
BUDGET = 100


@settings(max_examples=200, deadline=None)
@given(LINES)
def test_a_new_window_fits_and_begins_a_line_if_it_can(prefix: str) -> None:
    at = window.begin(prefix, BUDGET, len)
    assert len(prefix) - at <= BUDGET
    assert at == 0 or prefix[at - 1] == "\n" or "\n" not in prefix[max(0, len(prefix) - BUDGET) :]


@settings(max_examples=200, deadline=None)
@given(LINES)
def test_a_suffix_fits_and_is_the_beginning(suffix: str) -> None:
    head = window.head(suffix, BUDGET, len)
    assert suffix.startswith(head) and len(head) <= BUDGET
    assert head == suffix or head.endswith("\n") or "\n" not in suffix[: BUDGET // 2]


def test_the_window_stays_until_it_is_half_again_as_long_then_jumps() -> None:
    text = "".join(f"line {i} = {i}\n" for i in range(80))
    start, jumps, before = "", [], None
    for size in range(200, len(text)):
        at = window.begin(text[:size], BUDGET, len, start)
        assert size - at <= BUDGET * SLACK and (at == 0 or text[at - 1] == "\n")
        start = window.start_of(text[at:size])
        if before is not None and at != before:
            jumps.append(size)
        before = at
    assert jumps and min(b - a for a, b in itertools.pairwise(jumps)) > BUDGET * (SLACK - 1) * 0.8


def test_a_window_is_found_again_when_the_client_slides_its_own() -> None:
    text = "".join(f"line {i} = {i}\n" for i in range(40))
    at = window.begin(text, BUDGET, len)
    start = window.start_of(text[at:])
    slid = text[200:] + "more"
    assert slid[window.begin(slid, BUDGET, len, start) :] == text[at:] + "more"


def test_a_line_without_end_is_cut_anywhere() -> None:
    text = "x" * 10_000
    assert 0 < len(text) - window.begin(text, BUDGET, len) <= BUDGET
    assert 0 < len(window.head(text, BUDGET, len)) <= BUDGET
    assert window.head(text, 0, len) == ""


def test_deleting_does_not_move_the_window() -> None:
    text = "".join(f"line {i} = {i}\n" for i in range(40)) + "some more text"
    at = window.begin(text, BUDGET, len)
    start = window.start_of(text[at:])
    grown = text + "\nanother line = 1\n"
    for shorter in (grown, text, text[:-3], text[:-14]):
        assert window.begin(shorter, BUDGET, len, start) == at


def test_a_new_window_begins_at_a_block_if_one_is_near() -> None:
    text = "".join(f"def f{i}():\n    return {i}\n\n\n" for i in range(40))
    at = window.begin(text + "x", BUDGET, len)
    assert text[at:].startswith("def f") and BUDGET * window.LEAST <= len(text) + 1 - at <= BUDGET


def test_of_two_places_that_begin_alike_the_known_one_is_taken() -> None:
    block = "".join(f"line {i} = {i}\n" for i in range(20))
    text = block + "other = 1\n" * 30 + block
    start, first, second = window.start_of(block), 0, text.rindex("line 0 =")
    assert window.find_line(text, start, len(text) - second) == second
    assert window.find_line(text, start, len(text) - first) == first


@pytest.mark.parametrize(
    ("known", "suffix", "stays"),
    [
        ("\na\nb\n", "\na\nb\nc\n", True),  # the client sends more than was shown
        ("\na\nb\nc\nd\n", "\na\nb\nc\n", True),  # or less: its window slid
        ("\na\nb\nc\nd\n", "\na\n", False),  # far less: the text was deleted
        ("\na\nb\n", ")\na\nb\n", True),  # the editor closed a bracket
        ('")\na\nb\n', "\na\nb\n", True),  # which was typed over
        ("\na\nb\n", "x)\na\nb\n", False),  # the cursor moved in its line
        ("\na\nb\n", "\na\nX\n", False),  # the document changed
        ("", "", True),
        ("", ")", True),
        ("", "\nx", False),
        ("x", "", False),
    ],
)
def test_when_a_suffix_stays(known: str, suffix: str, stays: bool) -> None:
    assert window.stays(known, suffix) is stays
