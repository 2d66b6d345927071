"""Make a hole fit its budget of tokens by cutting at lines, never by cutting a row.

In:  a Hole with any amount of text around it
Out: the Hole with its prefix cut on the left at a line start and its suffix on the right at a line end

A row that is cut at its right end instead loses its middle, and training on it teaches nothing about holes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.fim import Hole, Order
from phase1_data.tokenizer import Ruler

SUFFIX_SHARE = 1 / 3  # of the room around a hole, where there is text for both sides
MOST_CHARS = 12  # per token: text beyond that many times the budget is not even encoded
LIKELY_CHARS = 4  # per token: text up to that many times the budget may fit as it is


def fit(hole: Hole, order: Order, ruler: Ruler, budget: int) -> tuple[Hole, int] | None:
    """The hole cut to at most `budget` tokens with all markers and context, and how many it has then.

    None where the middle, the line it stands in and the context alone are more.
    """
    if len(hole.prefix) + len(hole.suffix) <= budget * LIKELY_CHARS:
        n_tokens = ruler.row_length(hole, order)
        if n_tokens <= budget:
            return hole, n_tokens
    hole = dataclasses.replace(hole, prefix=_tail(hole.prefix, budget * MOST_CHARS), suffix=_head(hole.suffix, budget * MOST_CHARS))
    before, after = ruler.token_starts(hole.prefix), ruler.token_starts(hole.suffix)
    room = budget - ruler.row_length(dataclasses.replace(hole, prefix="", suffix=""), order)
    for _ in range(6):  # a cut text may encode to a little more than its share of the whole
        if room < 0:
            return None
        right = min(len(after), max(int(room * SUFFIX_SHARE), room - len(before)))
        prefix, suffix = last_tokens(hole.prefix, before, room - right), first_tokens(hole.suffix, after, right)
        if prefix is None or suffix is None:
            return None
        cut = dataclasses.replace(hole, prefix=prefix, suffix=suffix)
        n_tokens = ruler.row_length(cut, order)
        if n_tokens <= budget:
            return cut, n_tokens
        room -= n_tokens - budget
    return None


def _tail(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[text.rfind("\n", 0, len(text) - limit) + 1 :]


def _head(text: str, limit: int) -> str:
    at = text.find("\n", limit)
    return text if len(text) <= limit or at < 0 else text[: at + 1]


def last_tokens(text: str, starts: Sequence[int] | NDArray[np.int64], room: int) -> str | None:
    """The longest end of the text that begins at a line start and has at most `room` tokens; None if its last line has more.

    `starts` are the offsets at which the text's tokens begin.
    """
    if len(starts) <= room:
        return text
    if room <= 0:
        return "" if not text or text.endswith("\n") else None
    at = text.find("\n", max(int(starts[-room]) - 1, 0)) + 1
    return text[at:] if at else None


def first_tokens(text: str, starts: Sequence[int] | NDArray[np.int64], room: int) -> str | None:
    """The longest beginning of the text that ends at a line end and has at most `room` tokens; None if its first line has more."""
    if len(starts) <= room:
        return text
    if room <= 0:
        return "" if not text or text.startswith("\n") else None
    at = text.rfind("\n", 0, int(starts[room])) + 1
    return text[:at] if at else None
