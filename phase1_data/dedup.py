"""Find near-duplicates: MinHash to propose, true Jaccard to decide, union-find to group.

In:  sets of token 5-gram hashes (phase1_data.shingles), one band of their signatures at a time
Out: pairs worth comparing, components of files whose similarity reaches the threshold, and which of each to keep

Banding is chosen so that a pair exactly at the threshold is proposed with a probability of at least RECALL (bigcode-
dataset's 25 bands of 10 find half of those). Components are transitive: a chain of neighbours is one component.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from phase1_data.license import PERMISSIVE
from phase1_data.shingles import BASE, Hashes

RECALL = 0.99
ALL_PAIRS = 64  # files that agree in a band: up to so many, each pair is compared
NEIGHBOURS = 4  # in a larger group, each with so many that follow it in size: a group costs no more than linear time
SIGNATURE_SEED = 42  # of the permutations; any will do, but always the same
Signature = NDArray[np.uint32]
Places = NDArray[np.int64]  # indices of files
_TOP = re.compile(r"\A(?:[ \t]*(?:#|//)[^\n]*\n|[ \t]*\n)+|\A\s*/\*.*?\*/\s*", re.DOTALL)


def normalised(text: str) -> str:
    """The text without its leading comments and blank lines, trailing spaces, and repeated blank lines."""
    previous = None
    while previous != text:
        previous, text = text, _TOP.sub("", text, count=1)
    return "\n".join(line.rstrip() for line in text.split("\n") if line.strip())


def signature(shingles: Hashes, permutations: int) -> Signature:
    """MinHash of a set (permutations,), by rensa."""
    return signatures([shingles], permutations)[0]


def signatures(sets: Sequence[Hashes], permutations: int) -> NDArray[np.uint32]:
    """MinHash of every set (sets, permutations)."""
    if not sets:
        return np.empty((0, permutations), np.uint32)
    ends = np.cumsum([0, *(shingles.size for shingles in sets)])
    digest = RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(sets), ends.tolist(), permutations, SIGNATURE_SEED)
    return np.asarray(digest.to_rows(), np.uint32)


def band_keys(signatures: NDArray[np.uint32], rows: int) -> NDArray[np.uint64]:
    """One hash per band and file (bands, files): equal where all `rows` values of the band are; no two bands share one."""
    bands = signatures.shape[1] // rows
    values = signatures[:, : bands * rows].reshape(len(signatures), bands, rows).astype(np.uint64)
    keys = np.broadcast_to(np.arange(1, bands + 1, dtype=np.uint64), values.shape[:2]).copy()
    for row in range(rows):
        keys = (keys ^ values[:, :, row]) * BASE
        keys ^= keys >> np.uint64(29)
    return np.ascontiguousarray(keys.T)


def pairs_of_band(keys: NDArray[np.uint64], sizes: NDArray[np.int64], threshold: float) -> Iterator[tuple[Places, Places]]:
    """Pairs (smaller, larger) of files that agree in a band and whose sizes let them reach the threshold.

    Args:
        keys: one per file, of one band or of several.
        sizes: of the files' sets.

    Yields:
        At most one pair per file at a time: neighbours in a group ordered by size, then those next but one, and so on.
    """
    order = np.lexsort((sizes, keys))
    ordered = keys[order]
    group = np.cumsum(np.concatenate([[False], ordered[1:] != ordered[:-1]])) if order.size else order
    count = np.bincount(group)[group] if order.size else order
    order, group, count = order[count > 1], group[count > 1], count[count > 1]
    for distance in range(1, ALL_PAIRS):
        if distance == NEIGHBOURS + 1:
            order, group = order[count <= ALL_PAIRS], group[count <= ALL_PAIRS]
        together = group[distance:] == group[:-distance]
        if not together.any():
            return
        left, right = order[:-distance][together], order[distance:][together]
        near = sizes[left] >= threshold * sizes[right]
        near &= sizes[left] > 0
        if near.any():
            yield np.minimum(left[near], right[near]), np.maximum(left[near], right[near])


def rows_per_band(threshold: float, permutations: int) -> int:
    """The most rows a band may have for RECALL at the threshold: fewer propose more pairs in vain."""
    fits = [rows for rows in range(1, 33) if 1 - (1 - threshold**rows) ** (permutations // rows) >= RECALL]
    return max(fits, default=1)


class Components:
    """Union-find over indices; the root of a component is its smallest index."""

    def __init__(self, size: int) -> None:
        self.parent = np.arange(size)

    def root(self, index: int) -> int:
        while self.parent[index] != index:
            self.parent[index] = self.parent[self.parent[index]]
            index = self.parent[index]
        return int(index)

    def roots(self) -> Places:
        """The root of every index."""
        while True:
            above = self.parent[self.parent]
            if np.array_equal(above, self.parent):
                return self.parent
            self.parent = above

    def join(self, a: int, b: int) -> None:
        a, b = sorted((self.root(a), self.root(b)))
        self.parent[b] = a


def preference(license_id: str, source: str) -> int:
    """Which of equal files stays, the smaller the rather: a permissive licence first, then your own folder before a package
    before a code set (bigcode-dataset: licence, stars, forks, date; we have no stars). The longest follows, then file_id.
    """
    return 3 * (license_id not in PERMISSIVE) + {"folder": 0, "environment": 1}.get(source, 2)
