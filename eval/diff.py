"""What a completion has that the truth lacks, and the other way round.

In:  two texts
Out: pieces in reading order: kept, missing (in the truth only), added (in the completion only); and both as one line of text

Words are compared first; a word that was only misspelt is then compared character by character.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

_PIECE = re.compile(r"\w+|[^\S\n]+|\n|[^\w\s]")
ALIKE = 0.6  # ratio from which two words are one with a slip
LONGEST = 4000  # characters of either text that are compared; the comparison takes the square of them

Kind = Literal["kept", "missing", "added"]


class Piece(NamedTuple):
    """A run of text that is in both, or in one of them."""

    kind: Kind
    text: str


def diff(truth: str, completion: str) -> list[Piece]:
    """The two woven into one: what is kept and missing is the truth, what is kept and added the completion, both cut to LONGEST."""
    a, b = _PIECE.findall(truth[:LONGEST]), _PIECE.findall(completion[:LONGEST])
    return list(_joined(_pieces(a, b, words=True)))


def _pieces(a: Sequence[str], b: Sequence[str], words: bool) -> Iterator[Piece]:
    for tag, a0, a1, b0, b1 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag == "equal":
            yield Piece("kept", "".join(a[a0:a1]))
        elif words and a1 - a0 == b1 - b0 == 1 and SequenceMatcher(None, a[a0], b[b0], autojunk=False).ratio() >= ALIKE:
            yield from _pieces(a[a0], b[b0], words=False)
        else:
            yield Piece("missing", "".join(a[a0:a1]))
            yield Piece("added", "".join(b[b0:b1]))


def _joined(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Neighbours of one kind as one, empty ones left out; of a change the missing part first."""
    kept, missing, added = "", "", ""
    for kind, text in pieces:
        if kind == "kept" and text:
            if missing or added:
                yield from (piece for piece in (Piece("kept", kept), Piece("missing", missing), Piece("added", added)) if piece.text)
                kept, missing, added = "", "", ""
            kept += text
        elif kind == "missing":
            missing += text
        elif kind == "added":
            added += text
    yield from (piece for piece in (Piece("kept", kept), Piece("missing", missing), Piece("added", added)) if piece.text)


def in_text(pieces: Sequence[Piece]) -> str:
    """As wdiff writes it: [-missing-]{+added+}."""
    marks = {"kept": ("", ""), "missing": ("[-", "-]"), "added": ("{+", "+}")}
    return "".join(f"{marks[kind][0]}{text}{marks[kind][1]}" for kind, text in pieces)
