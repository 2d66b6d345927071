"""Cut the holes that were drawn of a row group's files.

In:  a row group of scrub/files.parquet, what `look` and `place` wrote of it, and which tickets are wanted
Out: a part per row group and split: core.records.SAMPLE with the ticket of each row
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from core.records import SAMPLE, Row, write_parquet
from phase1_data.decontaminate import opened
from phase1_data.engine import Shard
from phase1_data.infill import Window
from phase1_data.look import ruler_of
from phase1_data.params import SamplesParams
from phase1_data.place import SIDES, first_of, of_shard
from phase1_data.pool import others_of
from phase1_data.rows import Cutter, Pick, draw
from phase1_data.split import SPLITS

CUT = SAMPLE.append(pa.field("ticket", pa.uint64()))
NEEDED = ["file_id", "repo", "path", "lang", "content", "redactions"]


class Cutting(NamedTuple):
    """What `cut` needs beside the file."""

    params: SamplesParams
    tokenizer: Path
    work: Path  # with SIDES and FIRSTS
    looked: Path  # the folder of look's parts
    placed: Path  # and of place's
    heldout: Path
    tickets: dict[str, tuple[int, int]]  # per split: above the first, up to the second


class _Task(NamedTuple):
    place: int  # in the row group
    split: str
    tiles: list[Window]
    picks: list[Pick]


@functools.lru_cache(maxsize=1)
def _cutter(params: str, tokenizer: Path, heldout: Path) -> Cutter:
    """One per process."""
    return Cutter(SamplesParams.model_validate_json(params), ruler_of(tokenizer), opened(heldout))


def cut(shard: Shard, how: Cutting) -> Row:
    """Write the parts of a shard; return how many holes came to nothing, by split and reason."""
    lost: Counter[str] = Counter()
    for split, tasks in itertools.groupby(sorted(_tasks(shard, how), key=lambda task: task.split), lambda task: task.split):
        write_parquet(shard.part(suffix_of(split)), _rows(shard, how, list(tasks), lost), CUT)
    return dict(lost)


def suffix_of(split: str) -> str:
    """Of the part of a split; there is none where a shard has no hole of it."""
    return f".{split}.parquet"


def _tasks(shard: Shard, how: Cutting) -> Iterator[_Task]:
    looked = pq.read_table(how.looked / shard.part().name, columns=["file_id", "repo", "path", "edges"]).to_pylist()
    for index, (head, side) in enumerate(zip(looked, of_shard(how.work / SIDES, shard).tolist(), strict=True)):
        split = SPLITS[side] if side >= 0 else ""
        if split in how.tickets:
            key = f"{head['repo']}/{head['path']}:{head['file_id']}"
            picks = draw(split, key, max(len(head["edges"]) - 1, 0), how.params, *how.tickets[split])
            if picks:
                yield _Task(index, split, [Window(a, b) for a, b in itertools.pairwise(head["edges"])], picks)


def _rows(shard: Shard, how: Cutting, tasks: list[_Task], lost: Counter[str]) -> Iterator[Row]:
    cutter = _cutter(how.params.model_dump_json(), how.tokenizer, how.heldout)
    files = shard.table(NEEDED).take([task.place for task in tasks]).to_pylist()
    first = first_of(shard, how.work)
    for task, file in zip(tasks, files, strict=True):
        others = functools.cache(functools.partial(others_of, how.placed, first + task.place, file["path"], file["content"]))
        made = cutter.make(file | {"split": task.split}, task.tiles, task.picks, others)
        lost.update({f"{task.split}: {reason}": count for reason, count in made.lost.items()})
        yield from made.rows
