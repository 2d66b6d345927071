"""Vectors of texts from the token embeddings of the model that is served: nothing is downloaded, nothing is run.

In:  a GGUF with `token_embd.weight`, a function that turns text into token ids
Out: `TextVectors.embed`: (n, dim) float32, unit rows; `Rows`: the nearest of many packed vectors

A text is the mean of its distinct words' tokens, weighted by how rare a token is, less what all texts share (Arora et al. 2017,
"A simple but tough-to-beat baseline for sentence embeddings"). How rare a token is, its id tells: byte-pair
merges are numbered in the order of their frequency, and frequency falls with rank (Zipf). So a vector depends on the
model and the text only, and two processes agree on it.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import gguf
import numpy as np
from numpy.typing import NDArray

from core.errors import InputError
from phase4_serve import gguf_head

TABLE = "token_embd.weight"
DIM = 256  # of a vector at most; the directions in which the model's tokens differ most
SAMPLE = 4096  # tokens from which those directions are found
SHARED = 1  # directions that all texts share, removed
SMOOTHING = 1e-3  # a of a / (a + p(token)), Arora et al.'s value
WORD = re.compile(r"[^\W\d_]+|\d+")
WORDS, TOKENS = 32_768, 16_384  # whose vectors are remembered
MOST_WORDS, LONGEST_WORD = 4096, 256  # of a text; characters
NEAREST = 16  # times as many are looked at exactly as are asked for
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class Embedding(Protocol):
    """Makes vectors of texts."""

    @property
    def dim(self) -> int: ...
    def embed(self, texts: Sequence[str]) -> Floats: ...
    def pack(self, texts: Sequence[str]) -> list[bytes]: ...
    def query(self, text: str) -> Floats: ...


class TextVectors:
    """Vectors of texts by the token embeddings of a GGUF.

    Args:
        path: a GGUF file; its table is read row by row where it lies (mmap).
        ids: text to token ids of the file's vocabulary.
        ids_of: words to the ids of all, each behind a blank, and how many each has; None: `ids` is asked for one after the other.

    Raises:
        InputError: the file has no such table or it is in a format that cannot be read by rows.
    """

    def __init__(
        self, path: Path, ids: Callable[[str], list[int]], ids_of: Callable[[Sequence[str]], tuple[Ints, Ints]] | None = None
    ) -> None:
        try:
            table = gguf_head.read(path).tensors.get(TABLE)
        except (OSError, gguf_head.Damaged) as error:
            raise InputError(f"{path} cannot be read ({type(error).__name__}): name another with --model") from None
        if table is None or len(table.shape) != 2:
            raise InputError(f"{path} holds no {TABLE}: name a text model with --model")
        self.path, self._type, self.n_vocab = path, table.kind, table.shape[1]
        self._data = np.memmap(path, np.uint8, "r", table.start, (self.n_vocab, table.n_bytes // self.n_vocab))
        self._ids_of = ids_of or (lambda words: flat([ids(f" {word}") for word in words]))
        self._mean, axes = self._directions()
        self._axes = axes.astype(np.float64)
        self._weight = _rarity(self.n_vocab)
        self._slot: dict[str, int] = {}
        self._rows = np.zeros((1024, self.dim), np.float32)  # of words: the weighted sum of their tokens
        self._row_of = np.full(self.n_vocab, -1, np.int32)  # of a token
        self._tokens = np.zeros((0, self.dim), np.float32)
        self._used = 0
        self._lock = threading.Lock()

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._axes.shape[1])

    def embed(self, texts: Sequence[str]) -> Floats:
        """(n, dim) unit rows; a text without words is the first axis."""
        words = [list(dict.fromkeys(WORD.findall(text)))[:MOST_WORDS] or [text[:LONGEST_WORD]] for text in texts]
        with self._lock:
            self._learn(words)
            sums = [self._rows.take([self._slot[word] for word in one], axis=0).sum(0) for one in words]
        found: Floats = np.stack(sums) if sums else np.zeros((0, self.dim), np.float32)
        sizes = np.linalg.norm(found, axis=1, keepdims=True)
        found[sizes[:, 0] < 1e-6] = np.eye(1, self.dim, dtype=np.float32)
        unit: Floats = (found / np.where(sizes < 1e-6, 1, sizes)).astype(np.float32)
        return unit

    def pack(self, texts: Sequence[str]) -> list[bytes]:
        """Vectors as `Rows` keeps them."""
        return packed(self.embed(texts))

    def query(self, text: str) -> Floats:
        """(dim,) of one text."""
        return self.embed([text])[0]

    def _learn(self, texts: Sequence[Sequence[str]]) -> None:
        """Remember the vectors of the words that are new, each as it stands after a blank; only of these when they are too many."""
        new = list(dict.fromkeys(word for words in texts for word in words if word not in self._slot))
        if len(self._slot) + len(new) > WORDS:
            self._slot.clear()
            new = list(dict.fromkeys(word for words in texts for word in words))
        if not new:
            return
        used = len(self._slot)
        if used + len(new) > len(self._rows):
            grown = np.zeros((max(2 * len(self._rows), used + len(new)), self.dim), np.float32)
            grown[:used] = self._rows[:used]
            self._rows = grown
        tokens, sizes = self._ids_of([word[:LONGEST_WORD] for word in new])
        valid = (tokens >= 0) & (tokens < self.n_vocab)
        known = self._weighted(np.where(valid, tokens, 0))
        known[~valid] = 0
        begins = np.cumsum(sizes) - sizes
        sums = np.zeros((len(new), self.dim), np.float32)
        for place in range(int(sizes.max())):  # the first token of all, the second of those that have one: reduceat takes ten times as long
            rows = np.flatnonzero(sizes > place)
            sums[rows] += known[begins[rows] + place]
        self._rows[used : used + len(new)] = sums
        self._slot.update(zip(new, range(used, used + len(new)), strict=True))

    def _weighted(self, tokens: Ints) -> Floats:
        """Vectors of tokens: a product for each the first time, looked up after that."""
        new = np.unique(tokens[self._row_of[tokens] < 0])
        if self._used + len(new) > TOKENS:
            self._row_of[:], self._used, new = -1, 0, np.unique(tokens)
        if self._used + len(new) > len(self._tokens):
            grown = np.zeros((max(2 * len(self._tokens), self._used + len(new)), self.dim), np.float32)
            grown[: self._used] = self._tokens[: self._used]
            self._tokens = grown
        if len(new):
            at = slice(self._used, self._used + len(new))
            # In doubles, rounded: the last bits of a product depend on the rows beside it, and no vector may depend on its company
            self._tokens[at] = self._weight[new, None] * ((self._table(new) - self._mean).astype(np.float64) @ self._axes)
            self._row_of[new] = np.arange(at.start, at.stop)
            self._used = at.stop
        found: Floats = self._tokens[self._row_of[tokens]]
        return found

    def _table(self, tokens: Ints) -> Floats:
        try:
            rows: Floats = gguf.quants.dequantize(self._data[tokens], self._type).reshape(len(tokens), -1).astype(np.float32)
        except NotImplementedError:
            raise InputError(f"{TABLE} in {self._type.name} cannot be read by rows: quantize it as q8_0 or q6_k") from None
        return rows

    def _directions(self) -> tuple[Floats, Floats]:
        """The mean of the tokens, and the directions in which they differ most but for the first, which all texts share."""
        step = max(1, self.n_vocab // SAMPLE)
        sample = self._table(np.arange(0, self.n_vocab, step))
        mean = sample.mean(0)
        _, vectors = np.linalg.eigh((sample - mean).T @ (sample - mean))
        return mean, np.ascontiguousarray(vectors[:, ::-1][:, SHARED : SHARED + DIM], np.float32)


def _rarity(n_vocab: int) -> Floats:
    """SIF's weight of every token id, its probability being Zipf's."""
    probability = 1 / (np.arange(n_vocab) + 2.7)  # Mandelbrot's offset
    probability /= probability.sum()
    weight: Floats = (SMOOTHING / (SMOOTHING + probability)).astype(np.float32)
    return weight


def flat(lists: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
    """All numbers of several lists, and how many each has."""
    return np.array(list(itertools.chain.from_iterable(lists)), np.int64), np.array([len(one) for one in lists], np.int64)


def of_model(path: Path) -> TextVectors:
    """Vectors by a GGUF's own tokens, with its vocabulary read in this process.

    Raises:
        InputError: see TextVectors; or the vocabulary cannot be read.
    """
    from phase4_serve.vocabulary import Vocabulary

    try:
        vocabulary = Vocabulary(path)
        return TextVectors(path, vocabulary.ids, vocabulary.ids_of)
    except (ImportError, OSError, RuntimeError) as error:
        raise InputError(f"{path}: its vocabulary cannot be read ({type(error).__name__}): set serve.retrieval to definitions") from None


def packed(vectors: Floats) -> list[bytes]:
    """One byte per number, scaled so that the largest is 127."""
    largest = np.maximum(np.abs(vectors).max(1, keepdims=True), 1e-9) if len(vectors) else vectors
    return [row.tobytes() for row in np.round(vectors / largest * 127).astype(np.int8)]


class Rows:
    """Packed vectors, and which are nearest to a question.

    All are compared by the signs of their numbers (one bit each), the best of those exactly.
    """

    def __init__(self, dim: int) -> None:
        self.dim, self.words = dim, -(-dim // 64)
        self._codes = np.zeros((1024, dim), np.int8)
        self._signs = np.zeros((self.words, 1024), np.uint64)  # by column: it is summed along the rows
        self._file = np.zeros(1024, np.int64)  # 0: a free row
        self._number = np.zeros(1024, np.int64)
        self._used = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int((self._file[: self._used] > 0).sum())

    def add(self, file: int, numbers: Sequence[int], rows: Sequence[bytes]) -> None:
        """Keep the vectors of a file's pieces."""
        codes = np.frombuffer(b"".join(rows), np.int8).reshape(len(rows), self.dim)
        with self._lock:
            if self._used + len(rows) > len(self._file):
                self._make_room(len(rows))
            at = slice(self._used, self._used + len(rows))
            self._codes[at], self._signs[:, at], self._number[at], self._file[at] = codes, signs(codes).T, numbers, file
            self._used += len(rows)

    def remove(self, file: int) -> None:
        """Forget a file's vectors."""
        with self._lock:
            self._file[: self._used][self._file[: self._used] == file] = 0

    def nearest(self, query: Floats, limit: int, without: int = 0) -> list[tuple[int, float]]:
        """Numbers of the nearest pieces with their cosine, best first; none of the file `without`."""
        with self._lock:
            used, codes, bits, files, numbers = self._used, self._codes, self._signs, self._file, self._number
        if not used or not limit:
            return []
        apart = np.zeros(used, np.uint16)
        for column, bit in zip(bits, signs(query[None, :])[0], strict=True):
            apart += np.bitwise_count(column[:used] ^ bit)
        apart[(files[:used] == 0) | (files[:used] == without)] = 65_535
        many = min(used, NEAREST * limit)
        best = np.argpartition(apart, many - 1)[:many]
        rows = codes[best].astype(np.float32)
        # einsum, not @: a BLAS with threads keeps a second core busy for a while after each product, which llama-server needs
        cosine = np.einsum("nd,d->n", rows, query) / np.maximum(np.sqrt(np.einsum("nd,nd->n", rows, rows)), 1e-9)
        cosine[apart[best] == 65_535] = -2
        order = np.argsort(-cosine, kind="stable")[:limit]
        return [(int(numbers[best[i]]), float(cosine[i])) for i in order if files[best[i]] not in (0, without)]

    def _make_room(self, more: int) -> None:
        """Drop free rows; larger arrays if that is not enough. New arrays: somebody may be reading the old ones."""
        kept = np.flatnonzero(self._file[: self._used])
        size = len(self._file)
        while len(kept) + more > size * 3 // 4:
            size = size * 3 // 2
        bits = np.zeros((self.words, size), np.uint64)
        bits[:, : len(kept)] = self._signs[:, kept]
        self._signs = bits
        for name in ("_codes", "_file", "_number"):
            old = getattr(self, name)
            new = np.zeros((size, *old.shape[1:]), old.dtype)
            new[: len(kept)] = old[kept]
            setattr(self, name, new)
        self._used = len(kept)


def signs(vectors: NDArray[np.int8] | Floats) -> NDArray[np.uint64]:
    """(n, words): one bit per number, set where it is above 0."""
    bits = np.packbits(vectors > 0, axis=1)
    padding = -bits.shape[1] % 8
    return np.ascontiguousarray(np.pad(bits, ((0, 0), (0, padding)))).view(np.uint64)
