"""Which part of a file stands in the prompt, chosen so that typing changes nothing before the cursor's line.

In:  text before and after the cursor, budgets in tokens, a function that counts tokens, what the request before showed
Out: offset at which the prefix window begins; the suffix window

The prefix window begins where a top-level block does if one is near, and keeps its beginning while it grows to SLACK times
its budget, then jumps back to the budget: between two jumps every prompt is the last one plus what was typed. The suffix
stands before the prefix in the prompt (spm), so that any change of it costs everything: it stays as it was while the text below
the cursor agrees with it, though the client sends more or less of it or the editor closes a bracket by itself.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator

from phase4_serve.params import SLACK

Count = Callable[[str], int]
LONGEST = 16  # characters per token at most, so that a huge file is never tokenized whole
START = 160  # characters by which a window's beginning is known again
TRIES = 8
LITTLE_MORE = 1.3
LEAST = 0.6  # of the budget that a window holds when it begins at a block rather than at a line
PLACES = 16  # looked at where a beginning stands several times in a file
CUT = 0.5  # of a remembered suffix that must come again where a client sends less than before
_BLOCK = re.compile(r"(?:(?<=\n\n)|(?<=\n)(?=[@#/\w]))(?=\S)(?![)\]}])")  # a line at indentation 0 that begins something
_CLOSED = re.compile(r"[)\]}>\"'`]*[ \t]*[:;,{]?[ \t]*\Z")  # what editors write right of the cursor by themselves


def begin(prefix: str, budget: int, count: Count, known_start: str = "", known_length: int = 0) -> int:
    """Offset in the prefix at which its window begins.

    Args:
        known_start: first characters of the window of the request before; "" if there was none.
        known_length: how long that window was.
    """
    at = find_line(prefix, known_start, known_length)
    if at is not None and fits(prefix[at:], budget * SLACK, count):
        return at
    return fresh(prefix, budget, count)


def fits(text: str, budget: float, count: Count) -> bool:
    """Whether a text has so few tokens; a long one is not counted."""
    return len(text) <= budget * LONGEST and count(text) <= budget


def start_of(text: str) -> str:
    """What a window is known by: its first lines, without the cursor's, which changes with every key."""
    whole = text[: text.rfind("\n") + 1]
    return whole if len(whole) <= START else whole[:START]


def find_line(prefix: str, start: str, length: int = 0) -> int | None:
    """Where a known beginning stands at the start of a line: of several places the one that leaves about as much as before."""
    if not start:
        return None
    found = min(itertools.islice(_places(prefix, start), PLACES), key=lambda at: abs(len(prefix) - at - length), default=None)
    return found


def _places(prefix: str, start: str) -> Iterator[int]:
    if prefix.startswith(start):
        yield 0
    at = prefix.rfind("\n" + start)
    while at != -1:
        yield at + 1
        at = prefix.rfind("\n" + start, 0, at)


def fresh(prefix: str, budget: int, count: Count, at_block: bool = True) -> int:
    """Offset at which a window begins that was never shown: a top-level block's first line if one is near, else any line's."""
    lowest = max(0, len(prefix) - budget * LONGEST)
    at, size = lowest, count(prefix[lowest:])
    for _ in range(TRIES):
        if size <= budget:
            break
        keep = max(1, int((len(prefix) - at) * budget / size * 0.95))
        at = _next_line(prefix, len(prefix) - keep)
        size = count(prefix[at:])
    at = _next_line(prefix, at) if at else 0
    block = _BLOCK.search(prefix, at, len(prefix) - int((len(prefix) - at) * LEAST)) if at and at_block else None
    return block.start() if block else at


def nearest(prefix: str, budget: int, count: Count) -> int:
    """Offset at which the last lines begin that fit a small budget; a line more where that takes little more."""
    at = fresh(prefix, budget, count, at_block=False)
    before = prefix.rfind("\n", 0, max(0, at - 1)) + 1
    return before if fits(prefix[before:], budget * LITTLE_MORE, count) else at


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


def stays(known: str, suffix: str) -> bool:
    """Whether a remembered suffix window still says what stands below the cursor.

    It does where the text below begins with it; where a client sent less, the end of it being cut off; and where the two
    differ only in what an editor closes by itself right of the cursor, and takes away again.
    """
    if suffix.startswith(known) and (known or not suffix):
        return True
    before, after = known.partition("\n"), suffix.partition("\n")
    if before[0] != after[0] and not (_CLOSED.match(before[0]) and _CLOSED.match(after[0])):
        return False
    if not (before[1] and after[1]):
        return before[1] == after[1]  # the document ends, or goes on below, in both
    below, sent = before[2], after[2]
    return sent.startswith(below) or (below.startswith(sent) and len(sent) >= CUT * len(below) and bool(sent))
