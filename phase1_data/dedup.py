"""Find near-duplicates: MinHash to propose, true Jaccard to decide, union-find to group.

In:  one set of token 5-gram hashes per file (phase1_data.shingles)
Out: components of files whose similarity reaches the threshold, and which of each to keep

Banding is chosen so that a pair exactly at the threshold is proposed with a probability of at least RECALL (bigcode-
dataset's 25 bands of 10 find half of those). Components are transitive: a chain of neighbours is one component.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from core.records import Row
from phase1_data.license import PERMISSIVE
from phase1_data.shingles import Hashes, jaccard

RECALL = 0.99
SIGNATURE_SEED = 42  # of the permutations; any will do, but always the same
Signature = NDArray[np.uint32]
_TOP = re.compile(r"\A(?:[ \t]*(?:#|//)[^\n]*\n|[ \t]*\n)+|\A\s*/\*.*?\*/\s*", re.DOTALL)


def normalised(text: str) -> str:
    """The text without its leading comments and blank lines, trailing spaces, and repeated blank lines."""
    previous = None
    while previous != text:
        previous, text = text, _TOP.sub("", text, count=1)
    return "\n".join(line.rstrip() for line in text.split("\n") if line.strip())


def signature(shingles: Hashes, permutations: int) -> Signature:
    """MinHash of a set (permutations,), by rensa."""
    digest = RMinHash.digest_matrix_from_flat_token_hashes(shingles, [0, shingles.size], permutations, SIGNATURE_SEED)
    return np.asarray(digest.to_rows()[0], np.uint32)


def rows_per_band(threshold: float, permutations: int) -> int:
    """The most rows a band may have for RECALL at the threshold: fewer propose more pairs in vain."""
    fits = [rows for rows in range(1, 33) if 1 - (1 - threshold**rows) ** (permutations // rows) >= RECALL]
    return max(fits, default=1)


def candidates(signatures: NDArray[np.uint32], rows: int) -> Iterator[list[int]]:
    """Groups of indices that agree in a band, each group sorted; a pair may come more than once."""
    for band in range(signatures.shape[1] // rows):
        buckets: dict[bytes, list[int]] = defaultdict(list)
        for index, key in enumerate(np.ascontiguousarray(signatures[:, band * rows : (band + 1) * rows])):
            buckets[key.tobytes()].append(index)
        yield from (group for group in buckets.values() if len(group) > 1)


class Components:
    """Union-find over indices; the root of a component is its smallest index."""

    def __init__(self, size: int) -> None:
        self.parent = list(range(size))

    def root(self, index: int) -> int:
        while self.parent[index] != index:
            self.parent[index] = self.parent[self.parent[index]]
            index = self.parent[index]
        return index

    def join(self, a: int, b: int) -> None:
        a, b = sorted((self.root(a), self.root(b)))
        self.parent[b] = a


def components(groups: Iterable[list[int]], shingles_of: Callable[[int], Hashes], size: int, threshold: float) -> Components:
    """Join the pairs of the groups whose true Jaccard similarity is at least `threshold`."""
    found, checked = Components(size), set()
    for group in groups:
        for i, a in enumerate(group):
            if len({found.root(b) for b in group[i:]}) == 1:
                break  # the rest is one component already
            for b in group[i + 1 :]:
                if found.root(a) == found.root(b) or (a, b) in checked:
                    continue
                checked.add((a, b))
                if jaccard(shingles_of(a), shingles_of(b)) >= threshold:
                    found.join(a, b)
    return found


def keep_best(rows: Sequence[Row]) -> Row:
    """The file of a component that stays.

    A permissive licence first, then your own folder before a package before a code set, then the longest, then the
    smallest file_id (bigcode-dataset: licence, stars, forks, date; we have no stars).
    """
    origin = {"folder": 0, "environment": 1}
    return min(rows, key=lambda row: (row["license"] not in PERMISSIVE, origin.get(row["source"], 2), -row["n_bytes"], row["file_id"]))
