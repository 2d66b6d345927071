"""What the model wrote, one line per prompt, appended as it is written, so that a killed run goes on where it was.

In:  batches of generate.Seen in a fixed order, what the run is made of
Out: <folder>/samples.jsonl: a line that says what the run is made of, then a line per prompt in the order of the batches

A batch is one write. What a kill left of it is cut off and written again from the same seeds: the same bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from core.errors import InputError
from core.records import Row
from phase2_train.generate import Seen, Written

NAME = "samples.jsonl"
START_OVER = "start over with --fresh"


def line_of(sample_id: str, seen: Seen) -> Row:
    """One prompt's line; probabilities are rounded to what a pair records."""
    return {
        "sample_id": sample_id,
        "end": round(seen.end, 4),
        "early": [seen.early[0], round(seen.early[1], 4)],
        "written": [list(written) for written in seen.written],
    }


def written_of(line: Row) -> list[Written]:
    """The completions of a line."""
    return [Written(ids, ended, at) for ids, ended, at in line["written"]]


class RawSamples:
    """The file of one run; `batches` are the sample ids of each batch, in the order in which they are written.

    Raises:
        InputError: the file belongs to another run (says in what) or is no file of ours.
    """

    def __init__(self, folder: Path, run: dict[str, Any], batches: Sequence[Sequence[str]], fresh: bool) -> None:
        self.file, self.run, self.batches = folder / NAME, run, batches
        folder.mkdir(parents=True, exist_ok=True)
        if fresh:
            self.file.unlink(missing_ok=True)
        self.done = self._cut() if self.file.is_file() else self._begin()

    def _begin(self) -> int:
        self._append([{"run": self.run}])
        return 0

    def _append(self, lines: Sequence[Row]) -> None:
        with self.file.open("ab") as sink:
            sink.write("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines).encode())
            sink.flush()
            os.fsync(sink.fileno())

    def _cut(self) -> int:
        """Cut off what is not a whole batch; the number of batches that are there."""
        lines = self.file.read_bytes().split(b"\n")[:-1]  # what follows the last line break is torn
        if not lines:
            self.file.unlink()
            return self._begin()
        self._refuse_other(self._parsed(lines[0], 1).get("run"))
        kept, whole = len(lines[0]) + 1, 0
        at = 1
        for batch in self.batches:
            rows = [self._parsed(line, at + 1 + place) for place, line in enumerate(lines[at : at + len(batch)])]
            if [row.get("sample_id") for row in rows] != list(batch)[: len(rows)]:
                raise InputError(f"{self.file}:{at + 1}: other prompts than this run asks: {START_OVER}")
            if len(rows) < len(batch):
                break
            kept += sum(len(line) + 1 for line in lines[at : at + len(batch)])
            at, whole = at + len(batch), whole + 1
        os.truncate(self.file, kept)
        return whole

    def _parsed(self, line: bytes, number: int) -> Row:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise InputError(f"{self.file}:{number}: not a line of ours: {START_OVER}")
        return row

    def _refuse_other(self, theirs: Any) -> None:
        if not isinstance(theirs, dict):
            raise InputError(f"{self.file}:1: does not say which run it belongs to: {START_OVER}")
        keys = [key for key in {**theirs, **self.run} if theirs.get(key) != self.run.get(key)]
        if keys:
            changed = "; ".join(f"{key} was {theirs.get(key, 'absent')} and is {self.run.get(key, 'absent')}" for key in keys)
            raise InputError(f"{self.file} holds samples of another run ({changed}): change it back to go on, or {START_OVER}")

    def add(self, lines: Sequence[Row]) -> None:
        """Append the lines of the next batch."""
        self._append(lines)
        self.done += 1

    def lines(self) -> Iterator[Row]:
        """All prompts' lines."""
        with self.file.open(encoding="utf-8") as lines:
            next(lines)
            yield from map(json.loads, lines)

    def clear(self) -> None:
        """Remove the file of a finished run, so that the next one samples."""
        self.file.unlink()
