"""Words of code and hashes of their n-grams: what dedup and decontamination compare.

In:  text
Out: uint64 hashes, the same in every process and run

A word is a run of letters, digits and underscores, as in bigcode-dataset; a gram's hash is a polynomial in its words'.
"""

from __future__ import annotations

import re
import zlib

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

WORD = re.compile(r"\w+")
BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, bits well mixed: 2^64 / golden ratio
SPREAD = np.uint64(0xFF51AFD7ED558CCD)  # a step of MurmurHash3's finalizer
_known: dict[str, int] = {}  # word -> crc32; a corpus repeats its words


def _word_hash(word: str) -> int:
    found = _known.get(word)
    if found is None:
        if len(_known) > 500_000:
            _known.clear()
        found = _known[word] = zlib.crc32(word.encode())
    return found


def gram_hashes(words: list[str], n: int) -> Hashes:
    """Hash of every run of n words, in order: len(words) - n + 1 of them, none where there are fewer words."""
    count = len(words) - n + 1
    if count < 1:
        return np.empty(0, np.uint64)
    single = np.fromiter(map(_word_hash, words), np.uint64, len(words))
    total = np.zeros(count, np.uint64)
    for shift in range(n):
        total = total * BASE + single[shift : shift + count]
    total = (total ^ (total >> np.uint64(33))) * SPREAD
    return total ^ (total >> np.uint64(33))


def shingle_set(text: str, n: int = 5) -> Hashes:
    """The text's different n-grams, sorted; a text of fewer words is one gram of them all."""
    words = WORD.findall(text)
    return np.unique(gram_hashes(words, min(n, len(words)))) if words else np.empty(0, np.uint64)


def jaccard(a: Hashes, b: Hashes) -> float:
    """Shared over all, of two sorted sets; 0 where both are empty."""
    shared = np.intersect1d(a, b, assume_unique=True).size
    union = a.size + b.size - shared
    return shared / union if union else 0.0
