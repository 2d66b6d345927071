"""The one step of clean that needs all files: which are copies of which.

In:  per shard, as `Measured` writes them: identities, band hashes and shingles of the files that broke no rule
Out: `Decided`: for every file the one that stays in its stead, and the name of its component

Memory is some 100 bytes per file in arrays: signatures and shingles stay on disk, one band is read at a time, and the sets of
a pair when it is compared. A pair is joined only after its true Jaccard similarity was computed. Which pairs are compared
depends on the bands alone; skipping one that is connected already changes no component, so the order of the work changes
nothing either.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from core.progress import track
from phase1_data.dedup import Components, Places, pairs_of_band
from phase1_data.engine import Shard
from phase1_data.shingles import Hashes, jaccard

KEEP, RULE, EXACT, NORMALISED, NEAR = range(5)
REASONS = ("", "", "exact_duplicate", "normalised_duplicate", "near_duplicate")  # a rule has its own name
IDENTITY = np.dtype(
    [
        ("file_id", "u8", 4),  # sha256, most significant first
        ("same", "u8", 2),  # half the sha256 of the normalised text
        ("n_bytes", "i8"),
        ("preference", "u1"),  # dedup.preference
        ("broken", "?"),
    ]
)
Identities = NDArray[np.void]


def save(path: Path, array: NDArray[np.generic]) -> None:
    """np.save through a file of Python's, which says so when the disk is full."""
    whole = io.BytesIO()
    np.save(whole, array)
    path.write_bytes(whole.getbuffer())


def words_of(hexadecimal: str) -> list[int]:
    """The digits of a hash as 64-bit numbers, most significant first: they compare as the text does."""
    return [int(hexadecimal[at : at + 16], 16) for at in range(0, len(hexadecimal), 16)]


def hex_of(words: NDArray[np.uint64]) -> str:
    """The text of a hash again."""
    return "".join(f"{int(word):016x}" for word in words)


class Corpus:
    """All files of a run by index, in the order of the input; what is large stays in the parts of the shards."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = shards
        self.identities: Identities = np.concatenate([np.load(shard.part(".identities.npy")) for shard in shards])
        self.sizes = np.zeros(len(self.identities), np.int64)  # of the shingle sets; 0 for a file that broke a rule
        self.sizes[self.whole] = np.concatenate([np.load(shard.part(".sizes.npy")) for shard in shards])
        self.first = np.cumsum([0, *(shard.rows for shard in shards)])  # index of each shard's first file

    @property
    def whole(self) -> Places:
        """The files that broke no rule."""
        return np.flatnonzero(~self.identities["broken"])

    def paths(self, wanted: Places) -> Places:
        """Rank of the files by repository and path."""
        tables = []
        for number, shard in enumerate(self.shards):
            here = wanted[(wanted >= self.first[number]) & (wanted < self.first[number + 1])]
            if here.size:
                tables.append(pq.read_table(shard.part(), columns=["repo", "path"]).take(here - self.first[number]))
        if not tables:
            return wanted
        order = pa.compute.sort_indices(pa.concat_tables(tables), sort_keys=[("repo", "ascending"), ("path", "ascending")])
        rank = np.empty(wanted.size, np.int64)
        rank[order.to_numpy()] = np.arange(wanted.size)
        return rank

    def band(self, number: int) -> NDArray[np.uint64]:
        """The band's hashes of the files that broke no rule."""
        return np.concatenate([read_band(shard, number) for shard in self.shards])


def read_band(shard: Shard, number: int) -> NDArray[np.uint64]:
    """One band's hashes of a shard's files that broke no rule."""
    return np.array(np.load(shard.part(".bands.npy"), mmap_mode="r")[number])


class ShingleSets:
    """Shingles of a file by its index, read when asked; the places of all are in files too, so that any machine can ask."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.starts = np.load(folder / "starts.npy", mmap_mode="r")
        self.sizes = np.load(folder / "sizes.npy", mmap_mode="r")
        self.first = np.load(folder / "first.npy")
        self._file = functools.lru_cache(maxsize=64)(self._opened)

    def _opened(self, shard: int) -> io.FileIO:
        return (self.folder / f"part-{shard:05d}.shingles").open("rb", buffering=0)

    def of(self, index: int) -> Hashes:
        shard = int(np.searchsorted(self.first, index, side="right")) - 1
        found = os.pread(self._file(shard).fileno(), 8 * int(self.sizes[index]), 8 * int(self.starts[index]))
        return np.frombuffer(found, np.uint64)

    def similar(self, a: int, others: Sequence[int]) -> Iterator[float]:
        """Jaccard similarity of one file with each of the others."""
        own = self.of(a)
        for b in others:
            yield jaccard(own, self.of(b))


def write_places(corpus: Corpus, folder: Path) -> ShingleSets:
    """Say where each file's shingles lie in the parts of its shard."""
    ends = np.cumsum(corpus.sizes)
    starts = ends - corpus.sizes
    starts -= np.repeat(np.concatenate([[0], ends])[corpus.first[:-1]], np.diff(corpus.first))
    for name, array in (("starts", starts), ("sizes", corpus.sizes), ("first", corpus.first)):
        save(folder / f"{name}.npy", array)
    return ShingleSets(folder)


def best_first(identities: Identities, group: NDArray[np.generic] | Sequence[NDArray[np.generic]], rank: Places | None = None) -> Places:
    """Places ordered by group, in each the file that stays first.

    dedup.preference decides, then the longest, then file_id, then `rank`, so that the order of the input does not.
    """
    keys = [group] if isinstance(group, np.ndarray) else list(group)
    ids = identities["file_id"]
    last = [rank] if rank is not None else []
    return np.lexsort([*last, ids[:, 3], ids[:, 2], ids[:, 1], ids[:, 0], -identities["n_bytes"], identities["preference"], *keys])


def _give(owner: Places, files: Places, order: Places, keys: Sequence[NDArray[np.generic]]) -> Places:
    """Make the first of each group own the others; return those that stay, in the order of the input."""
    new = np.zeros(order.size, bool)
    new[:1] = True
    for key in keys:
        new[1:] |= key[order][1:] != key[order][:-1]
    best = files[order[np.flatnonzero(new)]]
    owner[files[order]] = np.repeat(best, np.diff(np.append(np.flatnonzero(new), order.size)))
    return np.sort(best)


def exact_copies(corpus: Corpus, owner: Places) -> Places:
    """Equal bytes: the path decides which stays."""
    files = corpus.whole
    ids = corpus.identities["file_id"][files]
    order = np.lexsort((ids[:, 1], ids[:, 0]))
    equal = np.all(ids[order][1:] == ids[order][:-1], axis=1)
    again = np.zeros(files.size, bool)
    again[order[1:][equal]] = again[order[:-1][equal]] = True
    rank = np.zeros(files.size, np.int64)
    rank[again] = corpus.paths(files[again])
    words = [ids[:, 0], ids[:, 1]]
    return _give(owner, files, best_first(corpus.identities[files], words, rank), words)


def normalised_copies(corpus: Corpus, files: Places, owner: Places) -> Places:
    """Equal text but for comments at the top and white space."""
    same = corpus.identities["same"][files]
    words = [same[:, 0], same[:, 1]]
    return _give(owner, files, best_first(corpus.identities[files], words), words)


Edges = Callable[[Corpus, Places, int, float], Iterator[tuple[int, int]]]


def edges_here(corpus: Corpus, files: Places, bands: int, threshold: float) -> Iterator[tuple[int, int]]:
    """Pairs of places in `files` whose similarity reaches the threshold, enough of them to connect every component."""
    sets = ShingleSets(corpus.shards[0].folder)
    found = Components(files.size)
    sizes = corpus.sizes[files]
    among = np.searchsorted(corpus.whole, files)
    rejected = np.empty(0, np.int64)
    for band in track(range(bands), "compare", unit="bands"):
        for left, right in pairs_of_band(corpus.band(band)[among], sizes, threshold):
            roots = found.roots()
            codes = np.sort((left * files.size + right)[roots[left] != roots[right]])
            codes = codes[~_among(codes, rejected)]
            apart = []
            for a, b in zip((codes // files.size).tolist(), (codes % files.size).tolist(), strict=True):
                if found.root(a) == found.root(b):
                    continue
                if next(sets.similar(int(files[a]), [int(files[b])])) >= threshold:
                    found.join(a, b)
                    yield a, b
                else:
                    apart.append(a * files.size + b)
            rejected = np.sort(np.concatenate([rejected, np.array(apart, np.int64)]))


def _among(values: Places, known: Places) -> NDArray[np.bool_]:
    """Which values stand in a sorted array (np.isin and np.unique hash 64-bit codes, which can take hundreds of times as long)."""
    at = np.searchsorted(known, values)
    found = at < known.size
    found[found] = known[at[found]] == values[found]
    return found


def _less(files: Places, others: Places) -> Places:
    return files[~_among(files, others)]


class Decided:
    """What becomes of every file, by index."""

    ARRAYS = ("reason", "copy_of", "owner", "cluster", "file_id")

    def __init__(self, corpus: Corpus) -> None:
        size = len(corpus.identities)
        self.reason = np.where(corpus.identities["broken"], RULE, KEEP).astype(np.uint8)
        self.copy_of = np.arange(size)  # the file with the same normalised text that went on to the near duplicates
        self.owner = np.arange(size)  # the file that stays in this one's stead
        self.cluster = np.full(size, -1)  # the file whose file_id names the component; -1: none, a rule ended it
        self.file_id = corpus.identities["file_id"]

    def save(self, folder: Path) -> None:
        for name in self.ARRAYS:
            save(folder / f"{name}.npy", getattr(self, name))


def decide(corpus: Corpus, bands: int, threshold: float, edges: Edges) -> Decided:
    """Exact copies, then copies of the normalised text, then near-duplicates; of each group the best stays."""
    decided = Decided(corpus)
    files = exact_copies(corpus, decided.owner)
    decided.reason[_less(corpus.whole, files)] = EXACT
    rest = normalised_copies(corpus, files, decided.owner)
    decided.reason[_less(files, rest)] = NORMALISED
    decided.copy_of = decided.owner = decided.owner[decided.owner]
    found = Components(rest.size)
    for a, b in edges(corpus, rest, bands, threshold):
        found.join(a, b)
    root = found.roots()
    near = decided.copy_of.copy()
    kept = _give(near, rest, best_first(corpus.identities[rest], root), [root])
    decided.reason[_less(rest, kept)] = NEAR
    ids = corpus.identities["file_id"][rest]
    named = np.arange(len(near))
    _give(named, rest, np.lexsort((ids[:, 3], ids[:, 2], ids[:, 1], ids[:, 0], root)), [root])
    decided.owner = near[decided.copy_of]
    decided.cluster[corpus.whole] = named[decided.copy_of][corpus.whole]
    return decided
