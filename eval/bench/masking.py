"""A scrubber seen from outside: what it finds in a file and what it makes of it, so that several can be compared.

In:  a text and the file on disk that holds it (some scrubbers read nothing else)
Out: findings, and the text without them
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from core.findings import Finding


class Case(NamedTuple):
    """A text, and the file that holds it under the name it came with."""

    text: str
    file: Path


def write(case: Case) -> None:
    """Make the file hold the text."""
    case.file.write_bytes(case.text.encode("utf-8", "replace"))


class Masked(NamedTuple):
    """A text without what was found, and how many places that were."""

    text: str
    places: int


class System(NamedTuple):
    """A scrubber under test. `find` and `mask` are called inside `ready()`, which sets up what is set up once."""

    name: str
    ready: Callable[[], AbstractContextManager[object]]
    find: Callable[[Case], list[Finding]]
    mask: Callable[[Case], Masked]


def everywhere(text: str, value: str, kind: str, rule: str) -> Iterator[Finding]:
    """Every place of a value, for a scrubber that tells values and no places."""
    at = text.find(value) if value else -1
    while at != -1:
        yield Finding(at, at + len(value), kind, rule)
        at = text.find(value, at + len(value))


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """The findings in order; those that overlap as one, under the name of the first."""
    joined: list[Finding] = []
    for finding in sorted(findings):
        if joined and finding.start < joined[-1].end:
            joined[-1] = joined[-1]._replace(end=max(joined[-1].end, finding.end))
        else:
            joined.append(finding)
    return joined


def replaced(text: str, findings: list[Finding], placeholder: Callable[[str, int], str]) -> Masked:
    """The text with `placeholder(kind, number)` for every finding (merged, in order); equal values have equal numbers."""
    numbers: dict[str, int] = {}
    pieces, at = [], 0
    for finding in findings:
        number = numbers.setdefault(text[finding.start : finding.end], len(numbers) + 1)
        pieces += [text[at : finding.start], placeholder(finding.kind, number)]
        at = finding.end
    return Masked("".join([*pieces, text[at:]]), len(findings))


def covered(text: str, value: str, findings: Iterable[Finding]) -> float:
    """Least share of a value that is inside findings (merged), over its places in the text."""
    spans = [(finding.start, finding.end) for finding in findings]
    places = everywhere(text, value, "", "")
    shares = (sum(max(0, min(place.end, end) - max(place.start, start)) for start, end in spans) / len(value) for place in places)
    return min(shares, default=0.0)
