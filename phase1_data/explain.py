"""Why something in a file is masked, and why what looks like it stays; the values themselves are never shown.

In:  files of any encoding
Out: for each: what is masked (place, rule, placeholder, the line as it reads afterwards), what was looked at and left

Of a value that has 16 characters or more the first two are told, of a shorter one none. Lines are those of the masked text.
Dots stand over look-alikes that stay, and over a short secret where the scrubber leaves it because it could be a word there.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from core.errors import InputError
from core.records import Row
from core.scrub import Finding, Redaction, Stayed, explain, mask
from core.syntax import lang_of
from phase1_data.decode import text_of
from phase1_data.sources import Refused

STDIN = "-"
TELLING = 16  # characters; of a shorter value two would say too much
SHOWN = 100  # characters of a line
BEFORE = 40  # of them before the placeholder
DOT = "•"
MIN_DOTTED = 4  # characters; a shorter secret is a coincidence elsewhere


class Place(NamedTuple):
    """Where a redaction's original stands in the text."""

    start: int
    end: int
    redaction: Redaction


def read(name: str) -> str:
    """The text of a file, or of stdin; bytes that are no text in any encoding become U+FFFD.

    Raises:
        InputError: missing, a folder, binary, or not readable.
    """
    path = Path(name)
    try:
        if name != STDIN and not (path.is_file() or path.is_fifo()):
            there = "no plain file: name another" if path.exists() else "missing: check the path"
            raise InputError(f"{shown_path(name)} is {'a folder: name files' if path.is_dir() else there}")
        data = sys.stdin.buffer.read() if name == STDIN else path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise InputError(f"{shown_path(name)} cannot be read ({reason}): check its permissions") from None
    try:
        return text_of(data, lang_of(name))[0]
    except Refused:
        if b"\0" in data:
            raise InputError(f"{shown_path(name)} is binary: name a text file") from None
        return text_of(data.decode("utf-8", "replace"), None)[0]


def explained(name: str, text: str) -> Row:
    """What is masked in a text and what stays, with the values masked.

    Returns:
        path; found: line and column (from 1), kind, rule, starts, length (characters), placeholder, shown; stayed: line, column,
        rule, why, starts, length.
    """
    findings, stayed = explain(text)
    masked, redactions = mask(text)
    places = places_of(text, findings, masked, redactions)
    starts = [place.start for place in places]
    left = [note for note in stayed if not _overlaps(places, starts, note)]
    secrets = {text[place.start : place.end] for place in places if place.redaction.kind == "secret"}
    characters = list(_dotted(masked, secrets))
    for note in left:  # nor is a look-alike shown: it may be a secret after all
        at = _in_masked(places, starts, note.start)
        covered = slice(at, at + note.end - note.start)
        characters[covered] = [c if c == "\n" else DOT for c in characters[covered]]
    dotted = "".join(characters)
    lines = [0, *(line.end() for line in re.finditer("\n", text))]
    found = [
        {
            **_where(lines, place.start),
            "kind": place.redaction.kind,
            "rule": place.redaction.rule,
            **_told(text[place.start : place.end]),
            "placeholder": masked[place.redaction.start : place.redaction.end],
            "shown": line_of(dotted, place.redaction),
        }
        for place in places
    ]
    told = [{**_where(lines, note.start), "rule": note.rule, "why": note.why, **_told(text[note.start : note.end])} for note in left]
    return {"path": shown_path(name, secrets), "found": found, "stayed": told}


def places_of(text: str, findings: Sequence[Finding], masked: str, redactions: Sequence[Redaction]) -> list[Place]:
    """Where each redaction's original stands: between redactions, the masked text is the text's own.

    Masking goes on until nothing is found any more, so a redaction may be wider than a finding, or come from a later round.
    """
    ends = [finding.end for finding in findings]
    known = {finding.start: finding.end for finding in findings}
    places, at, done = [], 0, 0
    for redaction, following in zip_longest(redactions, redactions[1:]):
        start = at + redaction.start - done
        gap = masked[redaction.end : following.start if following else len(masked)]
        end = known.get(start, start + 1)
        while following and end < len(text):
            inside = bisect_right(ends, end)
            if inside < len(ends) and findings[inside].start < end + len(gap):
                end = ends[inside]  # what is found is not in a gap
            elif text.startswith(gap, end):
                break
            else:
                end += 1
        at, done = end if following else len(text) - len(gap), redaction.end
        places.append(Place(start, at, redaction))
    return places


def line_of(masked: str, redaction: Redaction) -> str:
    """The line around a placeholder in the masked text, cut to about SHOWN characters, control characters made visible."""
    start = masked.rfind("\n", 0, redaction.start) + 1
    end = masked.find("\n", redaction.end)
    end = len(masked) if end == -1 else end
    left = max(start, redaction.start - BEFORE)
    right = min(end, max(left + SHOWN, redaction.end))
    return ("…" if left > start else "") + visible(masked[left:right].strip()) + ("…" if right < end else "")


def visible(text: str) -> str:
    """The text with what does not print as itself written as an escape, so that it can neither move a cursor nor turn a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown_path(name: str, secrets: Iterable[str] = ()) -> str:
    """A path without secrets and personal data, and without the secrets of its file."""
    return visible(_dotted(mask(name)[0], secrets))


def _dotted(text: str, secrets: Iterable[str]) -> str:
    """The text, as long as it was, with dots over the secrets."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= MIN_DOTTED:
            text = text.replace(secret, DOT * len(secret))
    return text


def _where(lines: list[int], at: int) -> dict[str, int]:
    line = bisect_right(lines, at)
    return {"line": line, "column": at - lines[line - 1] + 1}


def _told(value: str) -> dict[str, str | int]:
    """What may be told of a value."""
    return {"starts": visible(value[:2]) if len(value) >= TELLING else "", "length": len(value)}


def _overlaps(places: list[Place], starts: list[int], note: Stayed) -> bool:
    before = bisect_left(starts, note.end) - 1
    return before >= 0 and places[before].end > note.start


def _in_masked(places: list[Place], starts: list[int], at: int) -> int:
    """Where in the masked text a character stands that is not masked."""
    before = bisect_right(starts, at) - 1
    return at if before < 0 else at + places[before].redaction.end - places[before].end


def run(names: Iterable[str]) -> Iterator[Row | InputError]:
    """Explain one file after the other; one that cannot be read does not end it."""
    for name in names:
        try:
            yield explained(name, read(name))
        except InputError as error:
            yield error
