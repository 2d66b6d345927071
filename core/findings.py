"""What the scrubber's rules share: a place in a text, and cheap views of the text to look for candidates in.

In:  text
Out: `Finding`s; `Source` with byte views that have the text's own offsets
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from typing import NamedTuple

import ahocorasick

BEFORE, AFTER = 512, 1536  # characters of a line seen around a candidate: whole lines of hand-written code, a bound for the rest
LONG_RUN = 16  # characters; no vendor's token has a shorter run of letters, digits, `_` and `-`
_TOKEN_CHARS = bytes(c for c in range(128) if chr(c).isalnum() or chr(c) in "_-")
_RUN_OR_NOT = bytes(0x61 if c in _TOKEN_CHARS else 0x20 for c in range(256))


class Finding(NamedTuple):
    """Characters [start, end) of a text that must not be passed on."""

    start: int
    end: int
    kind: str  # secret | key_bytes | email | ipv4 | ipv6 | user_path | person | phone
    rule: str


class Stayed(NamedTuple):
    """Characters [start, end) that a rule looked at and left, and why."""

    start: int
    end: int
    rule: str
    why: str


class _Hits(NamedTuple):
    """Offsets by literal, in one view of one text, of the literals that were known then."""

    known: set[bytes]
    places: dict[bytes, list[int]]


class _Literals:
    """All the literals that rules look for, in one Aho-Corasick automaton: one pass over a text instead of 400.

    A literal that is asked for is in it from the next text on, so that no rule has to declare what it looks for.
    """

    def __init__(self) -> None:
        self.known: set[bytes] = set()
        self.wanted: set[bytes] = set()
        self.automaton = ahocorasick.Automaton()

    def hits(self, view: bytes) -> _Hits:
        """Offsets of every known literal that occurs."""
        if self.wanted:
            known = self.known | self.wanted
            automaton = ahocorasick.Automaton()
            for literal in known:
                automaton.add_word(literal.decode("latin-1"), literal)
            automaton.make_automaton()
            self.automaton, self.known, self.wanted = automaton, known, set()
        found: dict[bytes, list[int]] = {}
        if self.known:
            for last, literal in self.automaton.iter(view.decode("latin-1")):
                found.setdefault(literal, []).append(last - len(literal) + 1)
        return _Hits(self.known, found)

    def of(self, hits: _Hits, view: bytes, literal: bytes) -> Iterator[int]:
        """Offsets of one literal, from what `hits` found in the same view."""
        if literal in hits.known:
            return iter(hits.places.get(literal, ()))
        if len(literal) >= _SHORT:
            self.wanted.add(literal)
        return _find_all(view, literal)


_SHORT = 2  # characters; a shorter literal is everywhere, and `find` is as good
_ANYWHERE, _IN_RUNS = _Literals(), _Literals()


def learn(anywhere: Iterable[bytes], in_runs: Iterable[bytes]) -> None:
    """Make literals known from the first text on, so that `Source.present` can be asked for them."""
    _ANYWHERE.wanted.update(literal.lower() for literal in anywhere)
    _IN_RUNS.wanted.update(in_runs)


class Source:
    """A text with one-byte-per-character views: `find` on bytes is many times faster than a regular expression.

    Characters outside Latin-1 stand as `?`, so an offset means the same place in every view.

    Args:
        explain: keep what the rules look at and leave, in `stayed`.
    """

    def __init__(self, text: str, explain: bool = False) -> None:
        self.text = text
        self.raw = text.encode("latin-1", "replace")
        self.stayed: list[Stayed] | None = [] if explain else None

    def stay(self, start: int, end: int, rule: str, why: str) -> None:
        """Note a candidate that a rule leaves."""
        if self.stayed is not None:
            self.stayed.append(Stayed(start, end, rule, why))

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

    @cached_property
    def _hits(self) -> _Hits:
        return _ANYWHERE.hits(self.low)

    @cached_property
    def _run_hits(self) -> _Hits:
        return _IN_RUNS.hits(self.run_text)

    def in_runs(self, literal: bytes) -> Iterator[int]:
        """Offsets in the text of a literal that stands in a long run."""
        for at in _IN_RUNS.of(self._run_hits, self.run_text, literal):
            run = bisect_right(self._run_starts, at) - 1
            yield self.runs[run][0] + at - self._run_starts[run]

    def present(self, anywhere: Collection[bytes], in_runs: Collection[bytes]) -> Iterator[bytes]:
        """Of the literals (lower case the first, both learnt before), those that occur: most texts hold few of many."""
        yield from self._hits.places.keys() & anywhere
        yield from self._run_hits.places.keys() & in_runs

    def everywhere(self, literal: bytes) -> Iterator[int]:
        """Offsets of a literal."""
        if len(literal) < _SHORT:
            return _find_all(self.raw, literal)
        size = len(literal)
        return (at for at in self.any_case(literal.lower()) if self.raw[at : at + size] == literal)

    def any_case(self, literal: bytes) -> Iterator[int]:
        """Offsets of a lower-case literal, whatever its case in the text."""
        return _ANYWHERE.of(self._hits, self.low, literal)

    def line_around(self, at: int) -> tuple[int, int]:
        """The line that holds an offset, cut to BEFORE characters on its left and AFTER on its right."""
        left, right = max(0, at - BEFORE), min(len(self.raw), at + AFTER)
        start, end = self.raw.rfind(b"\n", left, at), self.raw.find(b"\n", at, right)
        return (left if start == -1 else start + 1), (right if end == -1 else end)


def _find_all(view: bytes, literal: bytes) -> Iterator[int]:
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
