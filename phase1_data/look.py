"""Read every file once and note what the split and the cutting need of it.

In:  a row group of scrub/files.parquet
Out: parts per row group: LOOK (no content), band hashes, signatures and shingles; `Seen`, all files by their place in the
     input, some 150 bytes each: what is large stays in the parts
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from core.records import Row, partial, write_table
from phase1_data.decontaminate import matches, opened
from phase1_data.dedup import Places, band_keys, normalised, signatures
from phase1_data.engine import Shard
from phase1_data.infill import windows
from phase1_data.join import IDENTITY, Corpus
from phase1_data.rows import MARKER_TOKENS
from phase1_data.shingles import Hashes, grams, shingle_set
from phase1_data.split import BAND_ROWS, PERMUTATIONS
from phase1_data.tokenizer import Ruler

LOOK = pa.schema(
    [
        ("file_id", pa.string()),
        ("repo", pa.string()),
        ("path", pa.string()),
        ("n_bytes", pa.int64()),
        ("benchmarks", pa.list_(pa.string())),  # those it shares an n-gram with
        ("edges", pa.list_(pa.int32())),  # of its windows, in characters: one more than there are windows, none for no text
    ]
)


class Looking(NamedTuple):
    """What `look` needs beside the file."""

    tokenizer: Path
    row_tokens: int
    ngram: int
    suites: tuple[tuple[str, Path], ...]  # benchmarks and their indexes


@functools.cache
def ruler_of(tokenizer: Path) -> Ruler:
    """One per process: a tokenizer is dear to load, and remembers words."""
    return Ruler(tokenizer)


@functools.cache
def _index(path: Path) -> Hashes:
    return opened(path)


def look(shard: Shard, how: Looking) -> Row:
    """Write the parts of a shard; return how many files and bytes it holds."""
    rows = shard.table(["file_id", "repo", "path", "n_bytes", "content"]).to_pylist()
    sets = [shingle_set(normalised(row["content"])) for row in rows]
    found = signatures(sets, PERMUTATIONS)
    np.save(shard.part(".signatures.npy"), found)
    np.save(shard.part(".bands.npy"), band_keys(found, BAND_ROWS))
    np.save(shard.part(".identities.npy"), np.zeros(len(rows), IDENTITY))  # of files that broke no rule
    np.save(shard.part(".sizes.npy"), np.array([shingles.size for shingles in sets], np.int64))
    with shard.part(".shingles").open("wb") as sink:
        for shingles in sets:
            shingles.tofile(sink)
    write_table(shard.part(), pa.Table.from_pylist([_seen(row, how) for row in rows], LOOK))
    return {"files": len(rows), "bytes": sum(row["n_bytes"] for row in rows)}


def _seen(row: Row, how: Looking) -> Row:
    text = row["content"]
    hashes = grams(text.lower(), how.ngram) if how.suites else np.empty(0, np.uint64)
    tiles = windows(text, ruler_of(how.tokenizer), how.row_tokens - MARKER_TOKENS)
    return {name: row[name] for name in ("file_id", "repo", "path", "n_bytes")} | {
        "benchmarks": [name for name, path in how.suites if matches(hashes, _index(path))],
        "edges": [0, *(tile.end for tile in tiles)] if tiles else [],
    }


class Seen(Corpus):
    """What is known of every file, by its place in the input.

    Attributes:
        heads: file_id, repo (as a dictionary), path, n_bytes and benchmarks.
        windows: how many each file has (files,).
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        super().__init__(shards)
        tables = [pq.read_table(shard.part(), schema=LOOK) for shard in shards]
        self.windows: Places = np.concatenate([_windows(table) for table in tables])
        heads = pa.concat_tables([table.drop_columns(["edges"]) for table in tables]).combine_chunks()
        self.heads = heads.set_column(1, "repo", pc.dictionary_encode(heads["repo"]).combine_chunks())

    def __len__(self) -> int:
        return int(self.first[-1])

    @property
    def repos(self) -> NDArray[np.int32]:
        """Number of each file's repository, in the order of `repo_names`."""
        return self.heads["repo"].chunk(0).indices.to_numpy()  # type: ignore[no-any-return]

    @property
    def repo_names(self) -> list[str]:
        return self.heads["repo"].chunk(0).dictionary.to_pylist()  # type: ignore[no-any-return]

    def name(self, index: int) -> str:
        return f"{self.heads['repo'][index].as_py()}/{self.heads['path'][index].as_py()}"

    def signatures(self, folder: Path) -> NDArray[np.uint32]:
        """(files, PERMUTATIONS), on disk."""
        path = folder / "signatures.u32"
        with partial(path) as unfinished, unfinished.open("wb") as sink:
            for shard in self.shards:
                np.load(shard.part(".signatures.npy")).tofile(sink)
        return np.memmap(path, np.uint32, "r", shape=(len(self), PERMUTATIONS))


def _windows(looked: pa.Table) -> Places:
    lengths: Places = pc.list_value_length(looked["edges"]).to_numpy().astype(np.int64)
    return np.maximum(lengths - 1, 0)
