"""Write down what follows from the split, before rows are cut.

In:  a row group of scrub/files.parquet and the side of each of its files
Out: parts per row group: the files that stay with their split (core.records.FILE), the runs of words of those held out, and
     the texts that context may be read from
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core.records import FILE, Row, partial, write_table
from phase1_data import pool
from phase1_data.decontaminate import heldout_index
from phase1_data.engine import Shard
from phase1_data.split import SPLITS

RUNS = ".runs.npy"
SIDES, POOLS, FIRSTS = "sides.npy", "pools.npy", "firsts.npy"


def save(path: Path, array: NDArray[np.generic]) -> None:
    """Write an array whole or not at all."""
    with partial(path) as unfinished, unfinished.open("wb") as sink:
        np.save(sink, array)


def first_of(shard: Shard, work: Path) -> int:
    """Place in the input of a shard's first file."""
    return int(np.load(work / FIRSTS)[shard.number])


def of_shard(path: Path, shard: Shard) -> NDArray[np.integer]:
    """What an array of all files says of this shard's."""
    first = first_of(shard, path.parent)
    return np.array(np.load(path, mmap_mode="r")[first : first + shard.rows])


def place(shard: Shard, work: Path) -> Row:
    """Write the parts of a shard.

    Args:
        work: holds SIDES, the place of each file in SPLITS or -1; POOLS, -1 for a file in no pool; and FIRSTS.
    """
    sides, pools = of_shard(work / SIDES, shard), of_shard(work / POOLS, shard)
    table = shard.table()
    names = pa.array([SPLITS[side] if side >= 0 else "" for side in sides], pa.string())
    files = table.set_column(FILE.get_field_index("split"), FILE.field("split"), names).filter(pa.array(sides >= 0))
    write_table(shard.part(), files.cast(FILE))
    held = table["content"].filter(pa.array((sides >= 0) & (sides != SPLITS.index("train"))))
    np.save(shard.part(RUNS), heldout_index(held.to_pylist()))
    pool.write_texts(shard, table["content"], pools >= 0)
    return {"files": len(files)}
