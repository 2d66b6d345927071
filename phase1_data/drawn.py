"""Draw holes until every split has the rows it should, and choose among the rows.

In:  windows per file, the split of each, and the parts that phase1_data.cut wrote for the tickets asked for
Out: which tickets to cut next; the rows of a split, those with the smallest tickets where there are more than enough
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from phase1_data.cut import suffix_of
from phase1_data.dedup import Places
from phase1_data.engine import Shard, tables_of
from phase1_data.params import SamplesParams
from phase1_data.rows import LAST_TICKET, MOST_PER_WINDOW, ROUND, TEST_SPLITS
from phase1_data.split import SPLITS

SPARE = 1.25  # times as many holes are cut as are asked for, because some come to nothing; if too few are left, more follow


class Drawn:
    """The rows that were cut, in rounds, and how far the drawing has come."""

    def __init__(self, params: SamplesParams, shards: Sequence[Shard], windows: Places, sides: NDArray[np.int8]) -> None:
        self.params, self.shards = params, shards
        self.rounds: list[Path] = []
        self.reached = dict.fromkeys(SPLITS, -1)  # the last ticket that was cut
        self.windows = {split: windows[sides == number] for number, split in enumerate(SPLITS)}

    def planned(self, split: str) -> int:
        """Holes that the windows of a split offer."""
        per_window = MOST_PER_WINDOW if split in TEST_SPLITS else self.params.holes_per_window
        return int(self.windows[split].sum()) * per_window

    def wanted(self) -> dict[str, tuple[int, int]]:
        """The tickets to cut next, by split; empty when every split has what it should."""
        found = {}
        for split in SPLITS:
            low, enough = self.reached[split], self._asked(split)
            if low < LAST_TICKET and self.planned(split) and (low < 0 or self.tickets(split).size < enough):
                found[split] = low, self._next(split, enough)
        return found

    def add(self, folder: Path, done: dict[str, tuple[int, int]]) -> None:
        """Note a round as done."""
        for split, (_, high) in done.items():
            self.reached[split] = high
        self.rounds.append(folder)

    def _asked(self, split: str) -> float:
        if split in TEST_SPLITS:
            return self.params.test_holes
        return self.params.max_train if split == "train" and self.params.max_train else np.inf

    def _next(self, split: str, enough: float) -> int:
        """The last ticket of the next round: each round goes twice as far as the one before."""
        aim = SPARE * enough * 2 ** len(self.rounds) + 16
        if aim >= self.planned(split):
            return LAST_TICKET
        if split not in TEST_SPLITS:
            return int(LAST_TICKET * (aim / self.planned(split)))
        offered = np.minimum(self.windows[split] * MOST_PER_WINDOW, 1 << 23)
        turns = next(turns for turns in range(1, 1 << 23) if np.minimum(offered, turns).sum() >= aim)
        return turns * ROUND - 1

    def tables(self, split: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The rows of a split, a row group at a time: by file, and of equal ones in two rounds the first."""
        for shard in self.shards:
            ids: set[str] = set()
            for part in (folder / shard.part(suffix_of(split)).name for folder in self.rounds):
                for table in tables_of(part, columns) if part.is_file() else ():
                    if len(self.rounds) > 1:
                        names = table["sample_id"].to_pylist()
                        table = table.filter(pa.array([name not in ids for name in names], pa.bool_()))
                        ids.update(names)
                    yield table

    def tickets(self, split: str) -> NDArray[np.uint64]:
        """Tickets of the rows of a split."""
        found = [table["ticket"].to_numpy() for table in self.tables(split, ["sample_id", "ticket"])]
        return np.concatenate(found) if found else np.empty(0, np.uint64)

    def chosen(self, split: str) -> Iterator[pa.Table]:
        """The rows of a split that are asked for: those with the smallest tickets."""
        enough = self._asked(split)
        if enough == np.inf:
            yield from (table.drop_columns(["ticket"]) for table in self.tables(split))
            return
        tickets = np.sort(self.tickets(split))[: int(enough)]
        if not tickets.size:
            return
        left = int(tickets.size)
        for table in self.tables(split):
            table = table.filter(pc.less_equal(table["ticket"], pa.scalar(int(tickets[-1]), pa.uint64()))).slice(0, left)
            left -= len(table)
            yield table.drop_columns(["ticket"])
