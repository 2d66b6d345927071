"""Which pieces of other files stand in the prompt.

In:  text around the cursor, the path being edited, an index, a budget in tokens
Out: chunks in the order of path and line, which does not depend on scores: the same set is the same prompt
"""

from __future__ import annotations

import itertools
import keyword
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from core.fim import Chunk
from phase4_serve.index import Hit, Index, Piece, terms

LINES_BEFORE, LINES_AFTER = 24, 8  # around the cursor: what a question is made of
MAX_TERMS = 48  # nearest to the cursor first
COMMON = frozenset([*keyword.kwlist, "self", "cls", "print", "int", "str", "null", "true", "false", "const", "let", "var", "function"])
MIN_SHARE = 0.4  # of the best score; a piece below it is there by accident
COPY = 0.5  # share of lines that also stand around the cursor: the model would write the piece again (llama.vim evicts above it)
TWIN = 0.9  # share of lines of another chosen piece: nothing new
FEWEST_LINES = 3  # of a piece that is cut to fit
CANDIDATES = 24


class Around(NamedTuple):
    """The text around a cursor."""

    prefix: str
    suffix: str
    path: str


def words_around(around: Around) -> list[str]:
    """Terms of the lines around the cursor, nearest first, each once."""
    before = around.prefix.split("\n")[-LINES_BEFORE:]
    after = around.suffix.split("\n", LINES_AFTER)[:LINES_AFTER]
    near_first = itertools.chain.from_iterable(itertools.zip_longest(reversed(before), after[:LINES_AFTER], fillvalue=""))
    found = dict.fromkeys(word for line in near_first for word in terms(line) if word not in COMMON)
    return list(found)[:MAX_TERMS]


def line_set(text: str) -> frozenset[str]:
    """The lines that say something."""
    return frozenset(line.strip() for line in text.split("\n") if len(line.strip()) > 2)


def share(lines: frozenset[str], other: frozenset[str]) -> float:
    """Share of the first set's lines that are in the second."""
    return len(lines & other) / len(lines) if lines else 1.0


def candidates(index: Index, around: Around) -> Iterator[Piece]:
    """Pieces worth showing, best first."""
    near = line_set(around.prefix) | line_set(around.suffix)
    hits = index.search(words_around(around), CANDIDATES)
    chosen: list[frozenset[str]] = []
    for piece in _strong(hits):
        lines = line_set(piece.text)
        if piece.path == around.path or share(lines, near) > COPY or any(share(lines, other) > TWIN for other in chosen):
            continue
        chosen.append(lines)
        yield piece


def _strong(hits: list[Hit]) -> Iterator[Piece]:
    yield from (hit.piece for hit in hits if hit.score >= MIN_SHARE * hits[0].score)


def fill(wanted: Iterable[Piece], budget: int, limit: int, count: Callable[[str], int]) -> list[Piece]:
    """The first pieces that fit a budget, the last of them cut at a line end, by path and line."""
    taken: list[Piece] = []
    for piece in wanted:
        if len(taken) == limit:
            break
        fitting = _cut(piece, budget, count)
        if fitting is None:
            continue
        taken.append(fitting)
        budget -= cost(fitting, count)
    return sorted(taken)


def cost(piece: Piece, count: Callable[[str], int]) -> int:
    """Tokens of a piece in a prompt: the separator, its path, its text."""
    return 1 + count(f"{piece.path}\n{piece.text}")


def _cut(piece: Piece, budget: int, count: Callable[[str], int]) -> Piece | None:
    """The piece, or its first lines if those are all that fits."""
    size = cost(piece, count)
    if size <= budget:
        return piece
    lines = piece.text.splitlines(keepends=True)
    while len(lines) > FEWEST_LINES:
        lines = lines[: min(len(lines) - 1, int(len(lines) * max(0, budget) / size))]
        shorter = piece._replace(text="".join(lines))
        size = cost(shorter, count)
        if size <= budget and len(lines) >= FEWEST_LINES:
            return shorter
    return None


def as_chunks(pieces: Iterable[Piece]) -> list[Chunk]:
    """Pieces as core.fim writes them."""
    return [Chunk(piece.path, piece.text) for piece in pieces]
