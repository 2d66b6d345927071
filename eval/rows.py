"""Answers of one model as rows, kept so that an interrupted or repeated evaluation does no work twice.

In:  answers, batch by batch
Out: <out>/<model>.parquet, its key in the file's metadata; while under way <out>/<model>.<key>.jsonl, a batch per write

The key is a hash of everything that shapes a row: model, prompts, params, code, library versions, device. A row with
another key is never used.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from core.records import Row, write_parquet

ROW = pa.schema(
    [
        ("sample_id", pa.string()),
        ("file_id", pa.string()),
        ("repo", pa.string()),
        ("path", pa.string()),
        ("split", pa.string()),
        ("order", pa.string()),  # in which it was asked: psm | spm
        ("span_kind", pa.string()),
        ("completion", pa.string()),  # spans shaped like secrets or personal data replaced by <kind>
        ("stop", pa.string()),  # end | marker | limit
        ("n_written", pa.int64()),  # tokens, without the one that ended it
        ("nats", pa.float64()),  # of the truth and its end token
        ("n_tokens", pa.int64()),  # of the truth and its end token
        ("n_bytes", pa.int64()),  # of the truth in UTF-8
        ("exact", pa.bool_()),
        ("exact_stripped", pa.bool_()),
        ("first_line", pa.bool_()),
        ("similarity", pa.float64()),
        ("parses", pa.bool_()),
        ("overrun", pa.bool_()),
        ("suffix_repeat", pa.bool_()),
        ("leaks", pa.list_(pa.string())),  # kinds
    ]
)
KEY = b"tabsmith.key"


def stored_key(file: Path) -> str | None:
    """The key of a finished file; None if there is no such file or it is damaged."""
    try:
        found = pq.read_schema(file).metadata or {}
    except (OSError, pa.ArrowInvalid):
        return None
    return found.get(KEY, b"").decode() or None


class Ledger:
    """The rows of one model under one key."""

    def __init__(self, out: Path, model: str, key: str) -> None:
        self.file, self.key = out / f"{model}.parquet", key
        self.log = out / f"{model}.{key[:16]}.jsonl"

    @property
    def finished(self) -> bool:
        """Whether every row is there."""
        return stored_key(self.file) == self.key

    def started(self) -> list[Row]:
        """Rows of an interrupted run; what follows a torn line is cut off."""
        if not self.log.is_file():
            return []
        rows, whole = [], 0
        with self.log.open("rb") as lines:
            for line in lines:
                try:
                    rows.append(json.loads(line))
                except ValueError:
                    break
                whole += len(line)
        with self.log.open("r+b") as log:
            log.truncate(whole)
        return rows

    def add(self, rows: list[Row]) -> None:
        """Put a batch on disk."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a", encoding="utf-8") as log:
            log.writelines(json.dumps(row, sort_keys=True) + "\n" for row in rows)

    def finish(self, rows: list[Row]) -> None:
        """Write the finished file; forget the log of this and of any older key."""
        write_parquet(self.file, rows, ROW.with_metadata({KEY: self.key.encode()}))
        for log in self.file.parent.glob(f"{self.file.stem}.*.jsonl"):
            log.unlink()
