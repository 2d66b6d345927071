"""Words of code and hashes of their n-grams: what dedup and decontamination compare.

In:  text
Out: uint64 hashes, the same in every process and run

A word is a run of letters, digits and underscores, as in bigcode-dataset. Dedup hashes the words of whole texts at once, by
array operations on the bytes; there every character outside ASCII counts as a letter. A gram's hash is a polynomial in its
words' hashes.
"""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

WORD = re.compile(r"\w+")
BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, bits well mixed: 2^64 / golden ratio
SPREAD = np.uint64(0xFF51AFD7ED558CCD)  # a step of MurmurHash3's finalizer
PIECE = 1 << 20  # bytes hashed at once: 32 MB of arrays
IN_WORD = np.array([byte > 127 or chr(byte).isalnum() or chr(byte) == "_" for byte in range(256)])
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
    return _grams(single, n)


def _grams(words: Hashes, n: int) -> Hashes:
    count = words.size - n + 1
    total = words[:count].copy()
    for shift in range(1, n):
        total *= BASE
        total += words[shift : shift + count]
    return _mixed(total)


def _mixed(hashes: Hashes) -> Hashes:
    hashes = (hashes ^ (hashes >> np.uint64(33))) * SPREAD
    return hashes ^ (hashes >> np.uint64(33))


@functools.lru_cache(maxsize=2)
def _powers(base: int) -> Hashes:
    """base^0 ... base^PIECE, modulo 2^64."""
    powers = np.ones(PIECE + 1, np.uint64)
    done = 1
    while done <= PIECE:
        more = min(done, PIECE + 1 - done)
        powers[done : done + more] = powers[:more] * np.uint64(pow(base, done, 1 << 64))
        done += more
    return powers


def _word_hashes(data: bytes) -> Hashes:
    """A hash per word of at most PIECE bytes, in order: sum of byte[i] * BASE^i over the word, moved to the word's start."""
    text = np.frombuffer(data, np.uint8)
    inside = np.zeros(text.size + 2, np.int8)
    inside[1:-1] = IN_WORD[text]
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    starts, ends = edges[::2], edges[1::2]
    total = np.zeros(text.size + 1, np.uint64)
    np.cumsum(_powers(int(BASE))[: text.size] * text, out=total[1:])
    return _mixed((total[ends] - total[starts]) * _powers(pow(int(BASE), -1, 1 << 64))[starts])


def _pieces(data: bytes) -> Iterator[bytes]:
    """The bytes in pieces of at most PIECE, cut beside a word where there is a gap between words at all."""
    start = 0
    while len(data) - start > PIECE:
        gap = next((at for at in range(start + PIECE - 1, start, -1) if not IN_WORD[data[at]]), start + PIECE - 1)
        yield data[start : gap + 1]
        start = gap + 1
    yield data[start:]


def shingle_set(text: str, n: int = 5) -> Hashes:
    """The text's different n-grams, sorted; a text of fewer words is one gram of them all."""
    words = np.concatenate([_word_hashes(piece) for piece in _pieces(text.encode())])
    if not words.size:
        return words
    grams = np.sort(_grams(words, min(n, words.size)))  # np.unique hashes first, which takes twice as long
    return grams[np.append(True, grams[1:] != grams[:-1])]


def jaccard(a: Hashes, b: Hashes) -> float:
    """Shared over all, of two sorted sets; 0 where both are empty."""
    shared = np.intersect1d(a, b, assume_unique=True).size
    union = a.size + b.size - shared
    return shared / union if union else 0.0


def grams(text: str, n: int) -> Hashes:
    """Hash of every n-gram of the text, in order; none where it has fewer words."""
    words = np.concatenate([_word_hashes(piece) for piece in _pieces(text.encode())])
    return _grams(words, n) if words.size >= n else np.empty(0, np.uint64)
