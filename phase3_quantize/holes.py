"""Held-out holes of phase 1, as this phase asks a model for them.

In:  a Parquet file of core.records.SAMPLE
Out: holes
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.errors import InputError
from core.fim import Chunk, Hole
from core.records import Row, read_parquet

SAMPLES_BY = "python -m phase1_data samples"


def hole_of(row: dict[str, Any]) -> Hole:
    """The hole of a row of core.records.SAMPLE."""
    context = [Chunk(chunk["path"], chunk["text"]) for chunk in row["context"] or []]
    return Hole(row["prefix"], row["suffix"], row["middle"], row["path"], row["repo"], context)


def read_rows(file: Path, count: int) -> list[Row]:
    """`count` rows with a middle, spread evenly over a file of samples.

    Raises:
        InputError: the file is missing, damaged or empty.
    """
    rows = [row for row in read_parquet(file, SAMPLES_BY) if row["middle"]]
    if not rows:
        raise InputError(f"{file} holds no holes to complete: raise samples.heldout_file_share and run `{SAMPLES_BY}` again")
    count = min(count, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]


def read_holes(file: Path, count: int) -> list[Hole]:
    """The holes of `read_rows`."""
    return [hole_of(row) for row in read_rows(file, count)]
