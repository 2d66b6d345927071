"""Which pieces of other files stand in the prompt.

In:  text around the cursor, the path being edited, an index, a budget in tokens
Out: chunks in the order of path and line, which does not depend on scores: the same set is the same prompt

First the definition of the call that the cursor stands in; then in turn what words (BM25) and, where the index has vectors, likeness
find, fused by rank, and the definitions of other names near the cursor. Never the file itself, what stands at the cursor already,
copies of a chosen piece, more than two of a file.
"""

from __future__ import annotations

import itertools
import keyword
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from core.fim import Chunk
from core.syntax import lang_of
from phase4_serve import definitions
from phase4_serve.index import Hit, Index, Piece, terms

LINES_BEFORE, LINES_AFTER = 24, 8  # around the cursor: what a question is made of
NEAR_BEFORE, NEAR_AFTER = 4, 1  # of a question by likeness: 24 and 8 lines found half as many definitions
MAX_TERMS = 32  # nearest to the cursor first
COMMON = frozenset([*keyword.kwlist, "self", "cls", "print", "int", "str", "null", "true", "false", "const", "let", "var", "function"])
MIN_SHARE = 0.4  # of the best score; a piece below it is there by accident
COPY = 0.5  # share of lines that also stand around the cursor: the model would write the piece again (llama.vim evicts above it)
TWIN = 0.9  # share of lines of another chosen piece: nothing new
FEWEST_LINES = 3  # of a piece that is cut to fit
CANDIDATES = 24
RRF = 60  # Cormack, Clarke and Buettcher 2009
PER_FILE = 2
HOMONYMS = 4  # pieces that define a name; of one with more nobody can say which is meant
DEFINITIONS = 6  # pieces taken as definitions of names near the cursor
CALLED = 2  # of them before everything else: of the calls that are open at the cursor


class Around(NamedTuple):
    """The text around a cursor."""

    prefix: str
    suffix: str
    path: str


class Found(NamedTuple):
    """A piece that answers a search."""

    path: str
    line: int  # from 0
    text: str
    score: float  # of rank fusion: comparable within one answer only
    via: str  # definition | words | likeness: what put it there first


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
    lists = [strong(index.search(words_around(around), CANDIDATES, around.path))]
    if index.mode == "hybrid":
        lists.append(index.like(likeness_of(around), CANDIDATES, around.path))
    others = fused(lists)
    if index.mode != "bm25":
        # All definitions first stood in the way of pieces that share words: of 426 held-out holes whose answer needs a name that the
        # text around lacks, 46 were shown one so, 94 in turns, 120 by words alone (which rank the open call's definition low)
        opened = {hit.number for name in definitions.opened(around.prefix)[:CALLED] for hit in index.defining(name, HOMONYMS)}
        defining = by_definition(index, around)
        called = [hit for hit in defining if hit.number in opened][:CALLED]
        shown = {hit.number for hit in called}
        rest = [hit for hit in defining if hit.number not in shown][:DEFINITIONS]
        turns = itertools.zip_longest((hit for hit in others if hit.number not in shown), rest)
        others = [*called, *(hit for pair in turns for hit in pair if hit is not None)]
    yield from _distinct((hit.piece for hit in others), around.path, near)


def likeness_of(around: Around) -> str:
    """The text whose vector is asked for: fewer lines than words are taken from, since no place counts more in it than another."""
    return "\n".join((*around.prefix.split("\n")[-NEAR_BEFORE:], *around.suffix.split("\n", NEAR_AFTER)[:NEAR_AFTER]))


def _distinct(found: Iterable[Piece], path: str, near: frozenset[str]) -> Iterator[Piece]:
    """Without the file itself, look-alikes of the text at the cursor, copies of each other, and more than PER_FILE of a file."""
    chosen: list[frozenset[str]] = []
    seen: set[Piece] = set()
    of_file: Counter[str] = Counter()
    for piece in found:
        if piece.path == path or piece in seen or of_file[piece.path] == PER_FILE:
            continue
        seen.add(piece)
        lines = line_set(piece.text)
        if share(lines, near) > COPY or any(share(lines, other) > TWIN for other in chosen):
            continue
        chosen.append(lines)
        of_file[piece.path] += 1
        yield piece


def by_definition(index: Index, around: Around) -> list[Hit]:
    """Pieces of other files that define names used near the cursor, likeliest first."""
    lang = lang_of(around.path) or "python"
    imports = index.imports(around.path) | definitions.imported(around.prefix, lang)
    found: dict[int, Hit] = {}
    for usage in definitions.used(around.prefix, around.suffix, lang, imports):
        hits = [hit for hit in index.defining(usage.name, HOMONYMS) if hit.piece.path != around.path]
        fitting = [hit for hit in hits if comes_from(hit.piece.path, usage.module)] if usage.module else []
        for hit in fitting or (sorted(hits, key=lambda hit: -common_folders(hit.piece.path, around.path))):
            found.setdefault(hit.number, hit)
    return list(found.values())


def comes_from(path: str, module: str) -> bool:
    """Whether a file may be what an import names: the last part of the module is the file or its folder."""
    last = re.split(r"[./:]+", re.sub(r"\.(?:js|ts|mjs|jsx|tsx|h|hpp)$", "", module).strip("./"))[-1]
    stem, _, _ = path.rsplit("/", 1)[-1].partition(".")
    return bool(last) and (stem == last or f"/{last}/" in f"/{path}")


def common_folders(path: str, other: str) -> int:
    """How many folders two paths begin with alike."""
    pairs = zip(path.split("/")[:-1], other.split("/")[:-1], strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def strong(hits: list[Hit]) -> list[Hit]:
    """Without those far below the best."""
    return [hit for hit in hits if hit.score >= MIN_SHARE * hits[0].score]


def fused(lists: list[list[Hit]]) -> list[Hit]:
    """Several rankings as one: the sum of 1 / (RRF + rank), which is its score; with one list its order is kept."""
    scores: Counter[int] = Counter()
    hits: dict[int, Hit] = {}
    for found in lists:
        for rank, hit in enumerate(found, 1):
            scores[hit.number] += 1 / (RRF + rank)  # type: ignore[assignment]
            hits.setdefault(hit.number, hit)
    return [hits[number]._replace(score=score) for number, score in sorted(scores.items(), key=lambda item: -item[1])]


def search(index: Index, query: str, limit: int, path: str = "") -> list[Found]:
    """Pieces that answer a question in words or names, best first, PER_FILE of a file at most.

    Args:
        path: a file or folder to look in; "" is everywhere.
    """
    names = [name for name in dict.fromkeys(definitions.IDENTIFIER.findall(query)) if len(name) >= definitions.SHORTEST]
    defining = [hit for name in names[: definitions.NAMES] for hit in index.defining(name, HOMONYMS)]
    many = max(CANDIDATES, 2 * limit) * (8 if path else 1)
    words = list(dict.fromkeys(word for word in terms(query) if word not in COMMON))[:MAX_TERMS]
    lists = {"definition": defining, "words": index.search(sorted(words, key=len, reverse=True), many), "likeness": index.like(query, many)}
    via = {hit.number: name for name, hits in reversed(lists.items()) for hit in hits}
    found: list[Found] = []
    of_file: Counter[str] = Counter()
    for hit in fused(list(lists.values())):
        piece = hit.piece
        inside = not path or piece.path == path or piece.path.startswith(f"{path.rstrip('/')}/")
        if inside and (of_file[piece.path] < PER_FILE or piece.path == path) and len(found) < limit:
            of_file[piece.path] += 1
            found.append(Found(*piece, hit.score, via[hit.number]))
    return found


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
