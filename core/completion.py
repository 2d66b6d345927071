"""What is right or wrong about one completion as a piece of text: the one definition that pairs, gates and the evaluation share.

In:  the true middle, what stands behind the hole, and what a model wrote into it
Out: Comparison: equal, alike, run past the hole, the suffix written again

Nothing is cut from a completion before it is judged, but for the token that ended it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from rapidfuzz import fuzz

LEAD_CHARS = 8  # characters of suffix, blanks left out, that must stand in a completion to call it a repeat


class Comparison(NamedTuple):
    """A completion beside the truth."""

    exact: bool  # equal, character by character
    exact_stripped: bool  # equal but for blank space at either end
    first_line: bool  # first line that is not blank equal, its ends stripped (Qwen2.5-Coder's hm_fim)
    similarity: float  # 0 to 100, rapidfuzz.fuzz.ratio: 2 x common subsequence / both lengths
    overrun: bool  # wrote the truth and went on, or ran into what stands after the hole
    suffix_repeat: bool  # wrote again what stands after the hole


def compare(completion: str, middle: str, suffix: str) -> Comparison:
    """Judge one completion of one hole."""
    repeated = repeats_suffix(completion, middle, suffix)
    return Comparison(
        exact=completion == middle,
        exact_stripped=completion.strip() == middle.strip(),
        first_line=first_line(completion) == first_line(middle),
        similarity=round(fuzz.ratio(completion, middle), 4),
        overrun=repeated or overruns(completion, middle),
        suffix_repeat=repeated,
    )


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
