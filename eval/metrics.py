"""How good one completion of one hole is: pure functions, for the stage and for a notebook alike.

In:  the hole with its truth, and what a model wrote into it
Out: Score: exactness, likeness, syntax, overrun, leaks

Nothing is cut from a completion before it is judged, but for the token that ended it.
"""

from __future__ import annotations

from typing import NamedTuple

from core import scrub
from core.completion import compare
from core.fim import Hole
from core.syntax import parses

MAX_CUT_LINES = 12  # lines of the window given up at either end in search of something that parses


class Frame(NamedTuple):
    """Text before and after a hole that, with the truth between, is a whole piece of the language."""

    head: str
    tail: str


class Score(NamedTuple):
    """One completion, judged: what core.completion says of its text, and what only this file looks at."""

    exact: bool
    exact_stripped: bool
    first_line: bool
    similarity: float
    parses: bool | None  # the file around it still parses; None where that cannot be judged
    overrun: bool
    suffix_repeat: bool
    leaks: list[str]  # kinds of the spans shaped like a secret or personal data


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _whole_lines(prefix: str) -> str:
    """The prefix from the first line start after which nothing is indented less than that line.

    A window starts anywhere in a file: without this, the rest of a function's body would be judged as a module.
    """
    lines = prefix.splitlines(keepends=True)
    least = min((_indent(line) for line in lines[1:] if line.strip()), default=0)
    for number, line in enumerate(lines):
        if line.strip() and _indent(line) <= least and (number > 0 or _indent(line) == 0):
            return "".join(lines[number:])
    return prefix


def frame(hole: Hole, lang: str) -> Frame | None:
    """The window around a hole, trimmed until it parses with the truth in it; None if no trimming helps.

    A window that starts inside an indented block is put under an `if`; broken lines at its far ends are left out. The
    lines next to the hole always stay.
    """
    if parses(hole.middle, lang) is None:
        return None
    heads = list(dict.fromkeys([hole.prefix, _whole_lines(hole.prefix)]))
    tails = _shortened(hole.suffix)
    for head in heads:
        shown = ("if 1:\n" + head) if head[:1] in " \t" and head.strip() else head
        for tail in [*tails, _until_dedent(hole.suffix, _indent(head))]:
            if parses(shown + hole.middle + tail, lang):
                return Frame(shown, tail)
    return None


def _shortened(suffix: str) -> list[str]:
    """The suffix, and the suffix with 1 to MAX_CUT_LINES lines off its end; the line of the hole stays."""
    lines = suffix.splitlines(keepends=True)
    least = max(1, len(lines) - MAX_CUT_LINES)
    return [suffix, *("".join(lines[:keep]) for keep in range(len(lines) - 1, least - 1, -1))]


def _until_dedent(suffix: str, indent: int) -> str:
    """The suffix up to the first later line that is indented less than the window it belongs to."""
    lines = suffix.splitlines(keepends=True)
    stop = next((n for n, line in enumerate(lines) if n > 0 and line.strip() and _indent(line) < indent), len(lines))
    return "".join(lines[:stop])


def score(hole: Hole, completion: str, lang: str, around: Frame | None) -> Score:
    """Judge one completion; `around` is `frame(hole, lang)`, computed once per hole."""
    text = compare(completion, hole.middle, hole.suffix)
    return Score(
        **text._asdict(),
        parses=None if around is None else text.exact or bool(parses(around.head + completion + around.tail, lang)),
        leaks=sorted(found.kind for found in scrub.find(completion)),
    )


def masked(text: str) -> str:
    """The text with every secret-shaped span replaced by <its kind>: what may be stored and shown."""
    for found in sorted(scrub.find(text), key=lambda found: found.start, reverse=True):
        text = f"{text[: found.start]}<{found.kind}>{text[found.end :]}"
    return text
