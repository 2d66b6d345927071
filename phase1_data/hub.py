"""A code set on the Hub, or local Parquet or JSONL of the same shape: a file, or a folder of them.

In:  a HubSource
Out: RawFiles, in the order of the set

Columns are probed, because every set names them differently.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import InputError
from core.records import Row
from core.syntax import lang_of
from phase1_data.jsonl import BLANK, BadLine, lines, row_of
from phase1_data.license import UNKNOWN, of_column
from phase1_data.params import HubSource
from phase1_data.sources import RawFile, clean_path
from phase1_data.stream import kept_rows, preflight

COLUMNS = {  # ours: theirs, first come first
    "content": ("content", "code", "text", "body"),
    "repo": ("max_stars_repo_name", "repo_name", "repository_name", "repo"),
    "path": ("max_stars_repo_path", "path", "file_path", "filename"),
    "license": ("max_stars_repo_licenses", "licenses", "license", "detected_licenses"),
    "lang": ("lang", "language", "programming_language"),
    "revision": ("max_stars_repo_head_hexsha", "revision_id", "commit", "hexsha"),
}
LANGS = {"c++": "cpp", "c#": "csharp", "bash": "shell"}
PARQUET = (".parquet",)
IN_FOLDER = (".jsonl", ".jsonl.gz", ".json.gz", ".ndjson", ".ndjson.gz")
JSONL = (*IN_FOLDER, ".json")  # a bare .json in a folder is mostly its description
LONGEST_LINE = 64_000_000  # bytes
PARQUET_ROWS = 64  # in memory at a time


class Unusable(Exception):
    """A file of a set, or one of its rows, that gives nothing: reason and value for rejects.parquet, and a sentence for the user."""

    def __init__(self, reason: str, value: str, says: str = "") -> None:
        self.reason, self.value, self.says = reason, value, says


def raw_files(source: HubSource, max_file_bytes: int, work: Path) -> Iterator[RawFile]:
    """Every row of the set; text longer than the limit is carried as its size only.

    Args:
        work: folder in which rows from the Hub are kept until the stage ends (phase1_data/stream.py).

    Of a folder, a damaged file or line and a file with other columns is one refused candidate, and the rest is read.

    Raises:
        InputError: nothing there, nothing readable, or columns that we do not know (lists them).
        AccessError: gated, no such set, or out of reach; says what to do.
    """
    local = Path(source.id)
    if local.exists() or local.is_absolute() or source.id.startswith(".") or local.name.endswith(PARQUET + JSONL):
        yield from _local(local, max_file_bytes)
        return
    revision = preflight(source)
    columns = frozenset(name for theirs in COLUMNS.values() for name in theirs)
    mapping: dict[str, str] = {}
    for number, row in enumerate(kept_rows(source, revision, work, columns)):
        mapping = mapping or probe(list(row), source.id)
        yield _raw(row, mapping, f"hub:{source.id}", revision, number, max_file_bytes)


def columns_of(columns: list[str]) -> dict[str, str]:
    """Our names to theirs, of those that are there."""
    return {ours: next(name for name in theirs if name in columns) for ours, theirs in COLUMNS.items() if set(theirs) & set(columns)}


def probe(columns: list[str], where: str) -> dict[str, str]:
    """Our names to the set's.

    Raises:
        InputError: no column holds code; lists what there is.
    """
    found = columns_of(columns)
    if "content" not in found:
        hint = "; this set holds ids only, its code is fetched elsewhere" if "blob_id" in columns else ""
        listed = ", ".join(columns)[:300]
        raise InputError(f"{where} has no column content, code or text (it has {listed}{hint}): choose another set in params.yaml")
    return found


def _raw(row: Row, mapping: dict[str, str], source: str, revision: str, number: int, max_bytes: int, read_as: str = "utf8") -> RawFile:
    def value(name: str) -> Any:
        return row.get(mapping.get(name, ""))

    def line(name: str, otherwise: str) -> str:
        return clean_path(str(value(name) or otherwise))

    content = value("content")
    text = content if isinstance(content, str | bytes) else ""
    stated = value("lang")
    path = line("path", f"row{number}")
    lang = LANGS.get(stated.lower(), stated.lower()) if isinstance(stated, str) else lang_of(path)
    license_id, how = of_column(value("license"))
    size = len(text.encode("utf-8", "replace") if isinstance(text, str) else text)
    text = text if size <= max_bytes else ""
    refuse = "" if isinstance(content, str | bytes) else "no_content"
    repo, rev = line("repo", "unknown"), line("revision", "")
    return RawFile(path, repo, rev, source, revision, license_id, how, lang, size, lambda: text, refuse, read_as=read_as)


def _refused(source: str, path: str, problem: Unusable) -> RawFile:
    return RawFile(clean_path(path), source, "", source, "", UNKNOWN, "none", None, 0, bytes, problem.reason, problem.value)


def _local(path: Path, max_bytes: int) -> Iterator[RawFile]:
    source = f"hub:{clean_path(path.name)}"
    files = local_files(path)
    number, usable = 0, False
    first: Unusable | None = None
    for file in files:
        inner = "" if file == path else file.relative_to(path).as_posix()
        columns = _Columns(file)
        try:
            for row in local_rows(file, max(LONGEST_LINE, 8 * max_bytes)):
                if isinstance(row, Unusable):
                    yield _refused(source, f"{inner} {row.says}".strip(), row)
                    continue
                values, read_as = row
                mapping = columns.of(values)
                usable = True
                yield _raw(values, mapping, source, "", number, max_bytes, read_as)
                number += 1
        except Unusable as problem:
            if file == path:
                raise InputError(f"{problem.says}: fetch it again, or name another in ingest.sources of params.yaml") from None
            first = first or problem
            yield _refused(source, inner, problem)
    if first and not usable:
        raise InputError(f"no file of {path} can be read; the first: {first.says}: mend ingest.sources in params.yaml")


class _Columns:
    """Finds the columns of each row of a file; the rows of JSONL need not have the same."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.names: list[str] = []
        self.mapping: dict[str, str] = {}

    def of(self, row: Row) -> dict[str, str]:
        """Raises:
        Unusable: the first row has no code, so the file is none of ours; later ones may lack what they like.
        """
        names = list(row)
        if names != self.names:
            try:
                self.mapping = probe(names, str(self.file))
            except InputError as error:
                if not self.names:
                    raise Unusable("wrong_columns", ", ".join(names)[:200], str(error)) from None
                self.mapping = {**self.mapping, **columns_of(names)}
            self.names = names
        return self.mapping


def local_files(path: Path) -> list[Path]:
    """The file, or the files of the set under the folder, sorted.

    Raises:
        InputError: missing, or a folder without any.
    """
    if not path.exists():
        raise InputError(f"{path} is missing: mend ingest.sources in params.yaml")
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.name.endswith(PARQUET + IN_FOLDER))
    if not files:
        raise InputError(f"{path} holds no .parquet file and no JSONL ({', '.join(IN_FOLDER)}): mend ingest.sources in params.yaml")
    return files


def local_rows(file: Path, longest: int) -> Iterator[tuple[Row, str] | Unusable]:
    """Rows of a Parquet or JSONL file and how they were read, a few in memory at a time; a line that is no row comes as what is wrong.

    Args:
        longest: bytes of a JSONL line that is read.

    Raises:
        Unusable: damaged, or no plain file.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # a pipe would block for ever
            raise Unusable("special_file", "", f"{file} is no plain file")
        yield from _jsonl_rows(file, longest) if file.name.endswith(JSONL) else _parquet_rows(file)
    except OSError as error:
        raise Unusable("unreadable", error.strerror or "", f"{file}: {error.strerror}") from None


def _jsonl_rows(file: Path, longest: int) -> Iterator[tuple[Row, str] | Unusable]:
    read = 0
    with file.open("rb") as stream:
        try:
            for line in lines(stream, str(file), longest):
                read = line.number
                if not line.data.strip(BLANK) and not line.too_long:
                    continue
                try:
                    yield row_of(line)
                except BadLine as bad:
                    yield Unusable(bad.reason, bad.value, f"line {line.number}")
        except InputError as error:
            raise Unusable("damaged_jsonl", f"after line {read}", str(error)) from None


def _parquet_rows(file: Path) -> Iterator[tuple[Row, str]]:
    read = 0
    try:
        with pq.ParquetFile(file, buffer_size=1 << 20) as table:
            names = table.schema_arrow.names
            known = [name for name in names if any(name in theirs for theirs in COLUMNS.values())]
            if not set(known) & set(COLUMNS["content"]):
                _Columns(file).of(dict.fromkeys(names))
            for number in range(table.num_row_groups):  # asked for as a whole, the bytes of every group read so far are kept
                for batch in table.iter_batches(PARQUET_ROWS, row_groups=[number], columns=known):
                    for row in _python(batch):
                        yield row, "utf8"
                        read += 1
    except (pa.ArrowException, OSError) as error:
        why = f"{file} is damaged or no Parquet ({str(error)[:80]})"
        raise Unusable("damaged_parquet", f"after row {read}", why) from None


def _python(batch: pa.RecordBatch) -> list[Row]:
    """Rows of a batch; code that is no UTF-8, which Parquet does not forbid, as bytes."""
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        columns = [_as_bytes(column) for column in batch.columns]
        rows = pa.RecordBatch.from_arrays(columns, batch.schema.names).to_pylist()
        return [{name: value if name in COLUMNS["content"] else _as_text(value) for name, value in row.items()} for row in rows]


def _as_bytes(column: pa.Array) -> pa.Array:
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    return column.cast(pa.large_binary()) if text else pa.nulls(len(column)) if pa.types.is_nested(column.type) else column


def _as_text(value: object) -> object:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
