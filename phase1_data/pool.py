"""Texts that context is read from, one at a time, however many there are.

In:  the files of repositories that have more than one on a side: trained on, or held out with their repository
Out: per row group a blob of texts; an index of them by repository, on disk; per repository a mapping from path to text

A file looks for its neighbours among at most MOST files of its repository, those next to it by path.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from core.records import partial
from phase1_data.context import Neighbours
from phase1_data.dedup import Places
from phase1_data.engine import Shard

MOST = 20_000  # files of a repository that are searched together: 30 MB of names
OPEN = 8  # repositories whose names a process remembers
TEXTS, PLACES = ".texts", ".places.npy"
INDEX = pa.schema([("path", pa.large_string()), ("shard", pa.int32()), ("start", pa.int64()), ("length", pa.int64())])


def write_texts(shard: Shard, texts: pa.ChunkedArray, pooled: NDArray[np.bool_]) -> None:
    """Write the texts of a row group's files that are in a pool, and where each lies: (files, 2), start and length in bytes."""
    places = np.zeros((len(texts), 2), np.int64)
    with shard.part(TEXTS).open("wb") as sink:
        for at in np.flatnonzero(pooled).tolist():
            data = texts[at].as_buffer()
            places[at] = sink.tell(), data.size
            sink.write(data)
    np.save(shard.part(PLACES), places)


def groups_of(repos: Places, sides: Places) -> Places:
    """The pool of every file (files,): files of one repository on one side, at most MOST of them; -1 for those alone or in none.

    Args:
        repos: number of each file's repository.
        sides: 0 for files trained on, 1 for those held out with their repository, -1 for others.
    """
    keys = np.where(sides >= 0, repos * 2 + sides, -1)
    _, group, count = np.unique(keys, return_inverse=True, return_counts=True)
    return np.where((keys >= 0) & (count[group] > 1), group, -1)


def write_index(groups: Places, paths: pa.ChunkedArray, shards: Sequence[Shard], folder: Path) -> None:
    """Write pool.arrow, the pooled files by group and path, and where each file stands in it (pool.npy)."""
    number = np.repeat(np.arange(len(shards)), [shard.rows for shard in shards])
    places = np.concatenate([np.load(shard.part(PLACES)) for shard in shards])
    table = pa.table([paths.cast(pa.large_string()), number.astype(np.int32), places[:, 0], places[:, 1]], schema=INDEX)
    keyed = pa.table({"group": groups, "path": table["path"]})
    order = pc.sort_indices(keyed, sort_keys=[("group", "ascending"), ("path", "ascending")]).to_numpy().astype(np.int64)
    order = order[groups[order] >= 0]
    rows = np.full(groups.size, -1)
    rows[order] = np.arange(order.size)
    ordered = groups[order]
    first = np.searchsorted(ordered, ordered)
    first += (np.arange(order.size) - first) // MOST * MOST  # a large repository is searched in parts
    last = np.minimum(np.searchsorted(ordered, ordered, side="right"), first + MOST)
    bounds = np.full((groups.size, 2), -1)
    bounds[order] = np.stack([first, last], axis=1)
    with partial(folder / "pool.npy") as unfinished, unfinished.open("wb") as sink:
        np.save(sink, bounds)
    with partial(folder / "pool.arrow") as unfinished, pa.ipc.new_file(unfinished, INDEX) as sink:
        sink.write_table(table.take(order).combine_chunks())


class Texts(Mapping[str, str]):
    """The files of a pool by path; a text is read when it is asked for."""

    def __init__(self, folder: Path, first: int, last: int) -> None:
        self.folder = folder
        index = _index(folder).slice(first, last - first)
        self.place = {path: at for at, path in enumerate(index["path"].to_pylist(), first)}

    def __iter__(self) -> Iterator[str]:
        return iter(self.place)

    def __len__(self) -> int:
        return len(self.place)

    def __getitem__(self, path: str) -> str:
        (row,) = _index(self.folder).slice(self.place[path], 1).to_pylist()
        with (self.folder / f"part-{row['shard']:05d}{TEXTS}").open("rb") as texts:
            texts.seek(row["start"])
            return texts.read(row["length"]).decode()


@functools.cache
def _index(folder: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(folder / "pool.arrow"))).read_all()


@functools.cache
def _bounds(folder: Path) -> Places:
    return np.load(folder / "pool.npy", mmap_mode="r")  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=OPEN)
def _neighbours(folder: Path, first: int, last: int) -> Neighbours:
    return Neighbours(Texts(folder, first, last))


def others_of(folder: Path, index: int, path: str, text: str) -> list[tuple[str, str]]:
    """Files that the file with this place in the input may be shown, nearest first."""
    first, last = _bounds(folder)[index].tolist()
    return _neighbours(folder, first, last).of(path, text) if last > first else []
