"""Choose what a row is shown of the other files of its repository.

In:  the files of a repository by path; text around a hole
Out: core.fim.Chunk, the best piece of the files it imports, then of its folder, within a budget of tokens

No chunk holds the middle, and none comes from a file that is held out.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import PurePosixPath
from typing import NamedTuple

from core.fim import Chunk
from core.syntax import chunks
from phase1_data.budget import first_tokens
from phase1_data.tokenizer import Ruler

FILES = 6  # looked at per file
NEAR_CHARS = 1200  # around the hole: whose names a chunk is compared with
LEAST = 16  # tokens; a smaller rest is not worth a chunk
NAME = re.compile(r"[A-Za-z_]\w{2,}")
IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+([.\w]+)[ \t]+import[ \t]+\(?([\w, \t]*)|import[ \t]+([.\w]+))", re.MULTILINE)


class Neighbours:
    """Which files of a repository stand near which."""

    def __init__(self, contents: Mapping[str, str]) -> None:
        self.contents = contents
        self.by_module: dict[str, str] = {}
        self.by_folder: dict[PurePosixPath, list[str]] = {}
        for path in sorted(contents):
            parts = PurePosixPath(path).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            for first in range(len(parts)):  # `src/pkg/mod.py` is imported as pkg.mod
                self.by_module.setdefault("/".join(parts[first:]), path)
            self.by_folder.setdefault(PurePosixPath(path).parent, []).append(path)

    def of(self, path: str, text: str) -> list[tuple[str, str]]:
        """(path, content) of up to FILES others: those imported, then those of the folder, in an order of no meaning."""
        folder = self.by_folder.get(PurePosixPath(path).parent, [])
        mixed = sorted(folder, key=lambda other: sha256(f"{path}>{other}".encode()).digest())
        ranked = dict.fromkeys([*self._imported(path, text), *mixed])
        return [(other, self.contents[other]) for other in ranked if other != path][:FILES]

    def _imported(self, path: str, text: str) -> Iterator[str]:
        for found in IMPORT.finditer(text):
            module = found[1] or found[3]
            dots = len(module) - len(module.lstrip("."))
            base = PurePosixPath(path).parts[:-dots] if dots else ()
            parts = [*base, *[part for part in module.lstrip(".").split(".") if part]]
            names = [name.strip() for name in (found[2] or "").split(",") if name.strip()]
            for tail in [*([name] for name in names), []]:
                if other := self.by_module.get("/".join([*parts, *tail])):
                    yield other


def choose(
    before: str, after: str, middle: str, others: Sequence[tuple[str, str]], lang: str, ruler: Ruler, budget: int
) -> tuple[Chunk, ...]:
    """The chunk of each file that shares most names with the text around the hole, as many as fit `budget` tokens."""
    names = set(NAME.findall(before[-NEAR_CHARS:] + " " + after[:NEAR_CHARS]))
    chosen: list[Chunk] = []
    for path, content in others:
        best = max(_pieces(content, lang), key=lambda piece: len(names & piece.names), default=None)
        if best is None:
            continue
        room = budget - ruler.count(f"{path}\n") - 1
        text = first_tokens(best.text, ruler.token_starts(best.text), room) or ""
        if text.strip() and middle.strip() not in text:
            chosen.append(Chunk(path, text))
            budget = room - ruler.count(text)
        if budget < LEAST:
            break
    return tuple(chosen)


class _Piece(NamedTuple):
    text: str
    names: frozenset[str]


@functools.lru_cache(maxsize=512)  # files of a folder are one another's context
def _pieces(content: str, lang: str) -> tuple[_Piece, ...]:
    texts = (content[span.start : span.end].rstrip("\n") for span in chunks(content, lang))
    return tuple(_Piece(text, frozenset(NAME.findall(text))) for text in texts)
