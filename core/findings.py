"""What the scrubber's rules share: a place in a text, and cheap views of the text to look for candidates in.

In:  text
Out: `Finding`s; `Source` with byte views that have the text's own offsets
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

BEFORE, AFTER = 512, 1536  # characters of a line seen around a candidate: whole lines of hand-written code, a bound for the rest
LONG_RUN = 16  # characters; no vendor's token has a shorter run of letters, digits, `_` and `-`
_TOKEN_CHARS = bytes(c for c in range(128) if chr(c).isalnum() or chr(c) in "_-")
_RUN_OR_NOT = bytes(0x61 if c in _TOKEN_CHARS else 0x20 for c in range(256))


class Finding(NamedTuple):
    """Characters [start, end) of a text that must not be passed on."""

    start: int
    end: int
    kind: str  # secret | email | ipv4 | ipv6 | user_path | person
    rule: str


class Source:
    """A text with one-byte-per-character views: `find` on bytes is many times faster than a regular expression.

    Characters outside Latin-1 stand as `?`, so an offset means the same place in every view.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.raw = text.encode("latin-1", "replace")

    @cached_property
    def low(self) -> bytes:
        """The text in lower case (ASCII letters only, so that lengths stay)."""
        return self.raw.lower()

    @cached_property
    def runs(self) -> list[tuple[int, int]]:
        """Every maximal run of at least LONG_RUN letters, digits, `_` and `-`."""
        classes = self.raw.translate(_RUN_OR_NOT)
        spans, needle, at = [], b"a" * LONG_RUN, 0
        while (start := classes.find(needle, at)) != -1:
            end = classes.find(b" ", start)
            at = len(classes) if end == -1 else end
            spans.append((start, at))
        return spans

    @cached_property
    def run_text(self) -> bytes:
        """The long runs alone, one per line: a few percent of the text, and all of it that a token can stand in."""
        return b"\n".join([self.raw[start:end] for start, end in self.runs])

    @cached_property
    def _run_starts(self) -> list[int]:
        starts, at = [], 0
        for start, end in self.runs:
            starts.append(at)
            at += end - start + 1
        return starts

    def in_runs(self, literal: bytes) -> Iterator[int]:
        """Offsets in the text of a literal that stands in a long run."""
        at = self.run_text.find(literal)
        while at != -1:
            run = bisect_right(self._run_starts, at) - 1
            yield self.runs[run][0] + at - self._run_starts[run]
            at = self.run_text.find(literal, at + len(literal))

    def everywhere(self, literal: bytes) -> Iterator[int]:
        """Offsets of a literal."""
        return _hits(self.raw, literal)

    def any_case(self, literal: bytes) -> Iterator[int]:
        """Offsets of a lower-case literal, whatever its case in the text."""
        return _hits(self.low, literal)

    def line_around(self, at: int) -> tuple[int, int]:
        """The line that holds an offset, cut to BEFORE characters on its left and AFTER on its right."""
        left, right = max(0, at - BEFORE), min(len(self.raw), at + AFTER)
        start, end = self.raw.rfind(b"\n", left, at), self.raw.find(b"\n", at, right)
        return (left if start == -1 else start + 1), (right if end == -1 else end)


def _hits(view: bytes, literal: bytes) -> Iterator[int]:
    at = view.find(literal)
    while at != -1:
        yield at
        at = view.find(literal, at + len(literal))


def words(text: str) -> frozenset[str]:
    """The words of a text, for tables that are easier to read as one."""
    return frozenset(text.split())


def entropy(value: str) -> float:
    """Shannon entropy of the characters, in bits per character."""
    size = len(value)
    return math.log2(size) - sum(n * math.log2(n) for n in Counter(value).values() if n > 1) / size if size else 0.0
