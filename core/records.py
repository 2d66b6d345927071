"""The records that pass between phases, and the atomic files they pass in.

Bulk goes as Parquet, small and human-read files as JSONL. Every writer fills a `.partial` file and renames it at the
end: a killed run leaves no file that looks whole. The same rows give the same bytes.

In:  rows as plain dicts
Out: Parquet or JSONL files; rows again
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import InputError

Row = dict[str, Any]

REDACTION = pa.struct([("kind", pa.string()), ("start", pa.int64()), ("end", pa.int64()), ("rule", pa.string())])

FILE = pa.schema(
    [
        ("file_id", pa.string()),  # sha256 of the content as ingested
        ("content", pa.string()),
        ("path", pa.string()),  # relative to the root of the repo, with forward slashes
        ("repo", pa.string()),
        ("repo_rev", pa.string()),  # commit or package version
        ("source", pa.string()),  # environment | folder | hub, with its id
        ("source_rev", pa.string()),
        ("license", pa.string()),  # SPDX expression, or "unknown"
        ("license_how", pa.string()),  # metadata | spdx_header | license_file | column | none
        ("lang", pa.string()),
        ("n_bytes", pa.int64()),
        ("n_lines", pa.int64()),
        ("max_line", pa.int64()),  # characters
        ("mean_line", pa.float64()),  # characters
        ("alnum", pa.float64()),  # share of characters that are letters or digits
        ("parses", pa.bool_()),  # None for a language without a parser here
        ("generated", pa.bool_()),
        ("split", pa.string()),  # train | valid | test_file | test_repo, "" before the split
        ("dup_cluster", pa.string()),  # smallest file_id of its near-duplicate component, "" before dedup
        ("redactions", pa.list_(REDACTION)),  # offsets in the redacted content
    ]
)

CHUNK = pa.struct([("path", pa.string()), ("text", pa.string())])

SAMPLE = pa.schema(
    [
        ("sample_id", pa.string()),
        ("file_id", pa.string()),
        ("repo", pa.string()),
        ("path", pa.string()),
        ("lang", pa.string()),
        ("split", pa.string()),
        ("order", pa.string()),  # psm | spm | ltr
        ("span_kind", pa.string()),  # line_rest | lines | node:<type> | chars | none (ltr)
        ("prefix", pa.string()),
        ("middle", pa.string()),
        ("suffix", pa.string()),
        ("context", pa.list_(CHUNK)),  # other files of the repo, never holding the middle
        ("n_tokens", pa.int64()),  # of the whole row, markers included
    ]
)

REJECT = pa.schema([("path", pa.string()), ("stage", pa.string()), ("reason", pa.string()), ("value", pa.string())])

PAIR_KEYS = ("pair_id", "prefix", "suffix", "chosen", "rejected", "kind", "similarity", "evidence", "origin")


@contextlib.contextmanager
def partial(path: Path) -> Iterator[Path]:
    """A path to fill that takes the final name only if the block ends without an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".partial")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a small text file whole or not at all."""
    with partial(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write JSON with sorted keys, so that equal values are equal files."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path, made_by: str) -> Any:
    """A JSON file that an earlier command wrote.

    Raises:
        InputError: missing (names `made_by`, the command that makes it) or not JSON.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: run `{made_by}` first")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}): run `{made_by}` again") from None


GROUP_ROWS = 500
GROUP_BYTES = 4_000_000  # of text: what one worker holds at a time


def write_parquet(path: Path, rows: Iterable[Row], schema: pa.Schema) -> int:
    """Write rows, holding one row group in memory; return how many there were.

    A group ends at GROUP_ROWS rows or before its text exceeds GROUP_BYTES (counted as characters), so the same rows give
    the same groups; one longer row is a group of its own.
    """
    count = 0
    with partial(path) as unfinished, pq.ParquetWriter(unfinished, schema, compression="zstd") as sink:
        batch: list[Row] = []
        size = 0
        for row in rows:
            text = sum(len(value) for value in row.values() if isinstance(value, str))
            if batch and (len(batch) == GROUP_ROWS or size + text > GROUP_BYTES):
                sink.write_table(pa.Table.from_pylist(batch, schema))
                batch, size = [], 0
            batch.append(row)
            size += text
            count += 1
        if batch:
            sink.write_table(pa.Table.from_pylist(batch, schema))
    return count


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as one row group."""
    with partial(path) as unfinished:
        pq.write_table(table, unfinished, compression="zstd", row_group_size=max(table.num_rows, 1))


def groups_of(path: Path, made_by: str) -> list[int]:
    """The number of rows of each row group.

    Raises:
        InputError: missing or damaged; names `made_by`, the command that makes it.
    """
    with _readable(path, made_by), pq.ParquetFile(path) as file:
        return [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]


def read_groups(path: Path, made_by: str, columns: list[str]) -> Iterator[pa.Table]:
    """Some columns of every row group.

    Raises:
        InputError: missing or damaged; names `made_by`, the command that makes it.
    """
    with _readable(path, made_by), pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number, columns)


def read_group(path: Path, number: int, made_by: str, columns: list[str] | None = None) -> pa.Table:
    """One row group.

    Raises:
        InputError: missing or damaged; names `made_by`, the command that makes it.
    """
    with _readable(path, made_by), pq.ParquetFile(path) as file:
        return file.read_row_group(number, columns)


@contextlib.contextmanager
def _readable(path: Path, made_by: str) -> Iterator[None]:
    if not path.is_file():
        raise InputError(f"{path} is missing: run `{made_by}` first")
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:  # Arrow reports a page that does not decompress as an OSError
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(f"{path} is damaged ({error}): run `{made_by}` again") from None


def read_parquet(path: Path, made_by: str, columns: list[str] | None = None) -> Iterator[Row]:
    """Rows of a Parquet file, a few hundred in memory at a time.

    Raises:
        InputError: missing or damaged; names `made_by`, the command that makes it.
    """
    with _readable(path, made_by), pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):  # asked for as a whole, the bytes of every group read so far are kept
            for batch in file.iter_batches(batch_size=256, row_groups=[number], columns=columns):
                yield from batch.to_pylist()


def write_jsonl(path: Path, rows: Iterable[Row]) -> int:
    """Write one JSON object per line; return how many there were."""
    count = 0
    with partial(path) as unfinished, unfinished.open("w", encoding="utf-8") as sink:
        for row in rows:
            sink.write(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n")
            count += 1
    return count


def read_jsonl(path: Path, made_by: str) -> Iterator[Row]:
    """Objects of a JSONL file; blank lines are passed over.

    Raises:
        InputError: missing, or a line that is no JSON object; names file and line.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: {made_by if ' ' not in made_by else f'run `{made_by}` first'}")
    with path.open(encoding="utf-8", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                raise InputError(f"{path}:{number}: not JSON: mend or delete that line") from None
            if not isinstance(row, dict):
                raise InputError(f"{path}:{number}: not a JSON object: mend or delete that line")
            yield row
