"""Which part of a file stands in the prompt, chosen so that typing changes nothing before the cursor's line.

In:  text before and after the cursor, budgets in tokens, a function that counts tokens
Out: offset at which the prefix window begins; the suffix window

The prefix window begins at a line start and keeps its beginning while it grows to SLACK times its budget, then jumps
back to the budget: between two jumps every prompt is the last one plus what was typed. The suffix begins at the cursor,
so typing does not change it; it ends at a line end.
"""

from __future__ import annotations

from collections.abc import Callable

from phase4_serve.params import SLACK

Count = Callable[[str], int]
LONGEST = 16  # characters per token at most, so that a huge file is never tokenized whole
START = 160  # characters by which a window's beginning is known again
TRIES = 8


def begin(prefix: str, budget: int, count: Count, known_start: str = "") -> int:
    """Offset in the prefix at which its window begins.

    Args:
        known_start: first characters of the window of the request before; "" if there was none.
    """
    at = find_line(prefix, known_start)
    if at is not None and len(prefix) - at <= budget * SLACK * LONGEST and count(prefix[at:]) <= budget * SLACK:
        return at
    return _fresh(prefix, budget, count)


def start_of(text: str) -> str:
    """What a window is known by: its first lines, without the cursor's, which changes with every key."""
    whole = text[: text.rfind("\n") + 1]
    return whole if len(whole) <= START else whole[:START]


def find_line(prefix: str, start: str) -> int | None:
    """Where a known beginning stands at the start of a line: the last place that leaves most of it to come."""
    if not start:
        return None
    if prefix.startswith(start):
        return 0
    at = prefix.find("\n" + start)
    return None if at == -1 else at + 1


def _fresh(prefix: str, budget: int, count: Count) -> int:
    lowest = max(0, len(prefix) - budget * LONGEST)
    at, size = lowest, count(prefix[lowest:])
    for _ in range(TRIES):
        if size <= budget:
            break
        keep = max(1, int((len(prefix) - at) * budget / size * 0.95))
        at = _next_line(prefix, len(prefix) - keep)
        size = count(prefix[at:])
    return _next_line(prefix, at) if at else 0


def _next_line(text: str, at: int) -> int:
    """The first line start from an offset on; the offset itself where the line is the last and holds all there is."""
    if at == 0 or text[at - 1] == "\n":
        return at
    newline = text.find("\n", at)
    return at if newline == -1 else newline + 1


def head(suffix: str, budget: int, count: Count) -> str:
    """The beginning of the suffix that fits the budget, whole lines if it holds one."""
    if not budget:
        return ""
    text = suffix[: budget * LONGEST]
    size, whole = count(text), len(text) == len(suffix)
    for _ in range(TRIES):
        if size <= budget:
            break
        text, whole = text[: max(1, int(len(text) * budget / size * 0.95))], False
        size = count(text)
    newline = text.rfind("\n")
    return text if whole or newline == -1 else text[: newline + 1]
