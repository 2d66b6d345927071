"""Choose what a row is shown of the other files of its repository.

In:  the files of a repository by path; text around a hole
Out: core.fim.Chunk, the best piece of the files it imports, then of its folder, within a budget of tokens

No chunk holds the middle or most of it, and none comes from a file that is held out.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import PurePosixPath
from typing import NamedTuple

from core.fim import Chunk
from core.syntax import chunks, lang_of
from phase1_data.budget import first_tokens
from phase1_data.imports import Modules
from phase1_data.tokenizer import Ruler

FILES = 6  # looked at per file
NEAR_CHARS = 1200  # around the hole: whose names a chunk is compared with
LEAST = 16  # tokens; a smaller rest is not worth a chunk
NAME = re.compile(r"[A-Za-z_]\w{2,}")
TELLING = 20  # characters of a line that is no everyday line


class Neighbours:
    """Which files of a repository stand near which."""

    def __init__(self, contents: Mapping[str, str]) -> None:
        self.contents, self.modules = contents, Modules(contents)

    def of(self, path: str, text: str) -> list[tuple[str, str]]:
        """(path, content) of up to FILES others: those imported, then those of the folder, in an order of no meaning."""
        folder = self.modules.by_folder.get(PurePosixPath(path).parent, [])
        mixed = sorted(folder, key=lambda other: sha256(f"{path}>{other}".encode()).digest())
        ranked = dict.fromkeys([*self.modules.imported(path, text), *mixed])
        return [(other, self.contents[other]) for other in itertools.islice((other for other in ranked if other != path), FILES)]


def holds(text: str, middle: str) -> bool:
    """Whether a text gives the middle away: whatever its blanks, or most of those lines of it that tell something."""
    bare = "".join(text.split())
    if "".join(middle.split()) in bare:
        return True
    lines = ["".join(line.split()) for line in middle.split("\n")]
    found = [line in bare for line in lines if len(line) >= TELLING]
    return 2 * sum(found) > len(found)


def choose(
    before: str, after: str, middle: str, others: Sequence[tuple[str, str]], lang: str, ruler: Ruler, budget: int
) -> tuple[Chunk, ...]:
    """The chunk of each file that shares most names with the text around the hole, as many as fit `budget` tokens."""
    names = set(NAME.findall(before[-NEAR_CHARS:] + " " + after[:NEAR_CHARS]))
    chosen: list[Chunk] = []
    for path, content in others:
        ranked = sorted(_pieces(content, lang_of(path) or lang), key=lambda piece: -len(names & piece.names))
        best = next((piece for piece in ranked if not holds(piece.text, middle)), None)
        if best is None:
            continue
        room = budget - ruler.count(f"{path}\n") - 1
        text = first_tokens(best.text, ruler.token_starts(best.text), room) or ""
        if text.strip():
            chosen.append(Chunk(path, text))
            budget = room - ruler.count(text)
        if budget < LEAST:
            break
    return tuple(chosen)


class _Piece(NamedTuple):
    text: str
    names: frozenset[str]


@functools.lru_cache(maxsize=64)  # files of a folder are one another's context
def _pieces(content: str, lang: str) -> tuple[_Piece, ...]:
    texts = (content[span.start : span.end].rstrip("\n") for span in chunks(content, lang))
    return tuple(_Piece(text, frozenset(NAME.findall(text))) for text in texts)
