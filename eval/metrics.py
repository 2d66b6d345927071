"""How good one completion of one hole is: pure functions, for the stage and for a notebook alike.

In:  the hole with its truth, and what a model wrote into it
Out: Score: exactness, likeness, syntax, overrun, leaks

Nothing is cut from a completion before it is judged, but for the token that ended it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from rapidfuzz import fuzz

from core import scrub
from core.fim import Hole
from core.syntax import parses

LEAD_CHARS = 8  # characters of suffix, blanks left out, that must stand in a completion to call it a repeat
MAX_CUT_LINES = 12  # lines of the window given up at either end in search of something that parses


class Frame(NamedTuple):
    """Text before and after a hole that, with the truth between, is a whole piece of the language."""

    head: str
    tail: str


class Score(NamedTuple):
    """One completion, judged."""

    exact: bool  # equal to the truth, character by character
    exact_stripped: bool  # equal but for blank space at either end
    first_line: bool  # first line that is not blank equal, its ends stripped (Qwen2.5-Coder's hm_fim)
    similarity: float  # 0 to 100, rapidfuzz.fuzz.ratio: 2 x common subsequence / both lengths
    parses: bool | None  # the file around it still parses; None where that cannot be judged
    overrun: bool  # wrote the truth and went on, or ran into what stands after the hole
    suffix_repeat: bool  # wrote again what stands after the hole
    leaks: list[str]  # kinds of the spans shaped like a secret or personal data


def first_line(text: str) -> str:
    """The first line that is not blank, stripped; empty if there is none."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def squeeze(text: str) -> str:
    """The text without blank space."""
    return re.sub(r"\s+", "", text)


def suffix_lead(suffix: str) -> str:
    """The first whole lines of a suffix that hold LEAD_CHARS characters together, squeezed; empty if it is shorter."""
    lead = ""
    for line in suffix.splitlines():
        lead += squeeze(line)
        if len(lead) >= LEAD_CHARS:
            return lead
    return ""


def repeats_suffix(completion: str, middle: str, suffix: str) -> bool:
    """Whether the completion holds the start of the suffix, and more often than the truth does."""
    lead = suffix_lead(suffix)
    return bool(lead) and squeeze(completion).count(lead) > squeeze(middle).count(lead)


def overruns(completion: str, middle: str) -> bool:
    """Whether the completion is the truth and then something more than blank space."""
    truth = middle.rstrip()
    return bool(truth) and completion.startswith(truth) and bool(completion[len(truth) :].strip())


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
    repeated = repeats_suffix(completion, hole.middle, hole.suffix)
    exact = completion == hole.middle
    return Score(
        exact=exact,
        exact_stripped=completion.strip() == hole.middle.strip(),
        first_line=first_line(completion) == first_line(hole.middle),
        similarity=round(fuzz.ratio(completion, hole.middle), 4),
        parses=None if around is None else exact or bool(parses(around.head + completion + around.tail, lang)),
        overrun=repeated or overruns(completion, hole.middle),
        suffix_repeat=repeated,
        leaks=sorted(found.kind for found in scrub.find(completion)),
    )


def masked(text: str) -> str:
    """The text with every secret-shaped span replaced by <its kind>: what may be stored and shown."""
    for found in sorted(scrub.find(text), key=lambda found: found.start, reverse=True):
        text = f"{text[: found.start]}<{found.kind}>{text[found.end :]}"
    return text
