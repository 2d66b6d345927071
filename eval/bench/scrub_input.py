"""What scrubbers are compared on: labelled rows, and real files in a fair order.

In:  rows as `python -m phase1_data labelled` writes them; a folder, a files.parquet of phase 1, or the Python code installed here
Out: cases in a folder of their own: each text in a file with the name it came with
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import InputError
from core.records import Row, read_jsonl, read_parquet
from core.syntax import lang_of
from eval.bench.masking import Case, write

KINDS = ("secret", "harmless", "personal", "impersonal")
KEYS = ("kind", "family", "text", "value", "path")
LARGEST = 1_000_000  # bytes of a file; larger ones are data, and phase 1 turns them down too
MADE_BY = "python -m phase1_data labelled --output {}"


class Labelled(NamedTuple):
    """A row that holds one value to mask, or none."""

    kind: str
    family: str
    value: str  # "" in a harmless or impersonal row
    case: Case


class Code(NamedTuple):
    """A real file and its language."""

    lang: str
    case: Case


def labelled(rows: Path, folder: Path) -> list[Labelled]:
    """The rows, each text in a file below `folder`.

    Raises:
        InputError: no such file (names the command that makes it), a row without its keys or of no known kind, no rows.
    """
    made_by = MADE_BY.format(rows)
    found = [_row(rows, number, row, folder) for number, row in enumerate(read_jsonl(rows, made_by), 1)]
    if not found:
        raise InputError(f"{rows} holds no rows: run `{made_by}`")
    return found


def _row(rows: Path, number: int, row: Row, folder: Path) -> Labelled:
    for key in KEYS:
        if not isinstance(row.get(key), str):
            raise InputError(f"{rows}, row {number}: no text under `{key}`: run `{MADE_BY.format(rows)}`")
    if row["kind"] not in KINDS:
        raise InputError(f"{rows}, row {number}: `kind` is none of {', '.join(KINDS)}: run `{MADE_BY.format(rows)}`")
    if row["kind"] in ("secret", "personal") and (not row["value"] or row["value"] not in row["text"]):
        raise InputError(f"{rows}, row {number}: `value` is not in `text`: run `{MADE_BY.format(rows)}`")
    return Labelled(row["kind"], row["family"], row["value"], placed(row["text"], row["path"], folder / str(number)))


def placed(text: str, path: str, folder: Path) -> Case:
    """The text in a file of the same name in a new folder."""
    name = PurePosixPath(path.replace("\0", "").encode("utf-8", "replace").decode()).name[-60:]  # 240 bytes at most
    name = "row.txt" if name in ("", "..") else name
    folder.mkdir(parents=True)
    case = Case(text, folder / name)
    write(case)
    return case


def code(source: Path | None, limit: int, folder: Path) -> list[Code]:
    """Files of `limit` bytes in all, or all there are, each in a file below `folder`.

    Args:
        source: a folder, a Parquet file, or None for the Python files installed here.

    Raises:
        InputError: nothing to read there.
    """
    found: list[Code] = []
    for path, text in texts(source, limit):
        if limit <= 0:
            break
        found.append(Code(lang_of(path) or "", placed(text, path, folder / str(len(found)))))
        limit -= len(text.encode("utf-8", "replace"))
    if not found:
        raise InputError(f"{source}: no code to read: give a folder of code or a files.parquet that phase 1 wrote")
    return found


def texts(source: Path | None, limit: int) -> Iterator[tuple[str, str]]:
    """(path, text) of the code at a source, in fair order; of a Parquet file only what `limit` bytes take.

    Raises:
        InputError: nothing there.
    """
    if source is not None and not source.exists():
        raise InputError(f"{source} is missing: give a folder of code or a files.parquet that phase 1 wrote")
    return _from_parquet(source, limit) if source and source.is_file() else _from_folders(_roots(source))


def _roots(source: Path | None) -> dict[Path, str]:
    """Folder to the pattern of its files."""
    return {source: "*"} if source else {Path(sysconfig.get_path(name)): "*.py" for name in ("stdlib", "purelib")}


def fair(path: str) -> bytes:
    """Sort key that is random but the same everywhere: a limit then takes a sample of all packages."""
    return hashlib.sha256(path.encode(errors="replace")).digest()


def _from_folders(roots: dict[Path, str]) -> Iterator[tuple[str, str]]:
    listed = ((root, file.relative_to(root)) for root, pattern in roots.items() for file in root.rglob(pattern))
    files = [(root, file) for root, file in listed if "site-packages" not in file.parts]  # they may lie below the standard library
    for root, path in sorted(files, key=lambda file: fair(file[1].as_posix())):
        if lang_of(path.as_posix()) is None or not (root / path).is_file():
            continue
        try:
            if 0 < (root / path).stat().st_size <= LARGEST:
                yield path.as_posix(), (root / path).read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError):
            continue  # no code that anybody trains on


def _from_parquet(file: Path, limit: int) -> Iterator[tuple[str, str]]:
    made_by = "python -m phase1_data ingest"
    try:
        missing = {"repo", "path", "n_bytes", "content"} - set(pq.read_schema(file).names)
    except pa.ArrowInvalid:
        raise InputError(f"{file} is no Parquet file: run `{made_by}`") from None
    if missing:
        raise InputError(f"{file} has no column {', '.join(sorted(missing))}: run `{made_by}`")
    chosen = _chosen(read_parquet(file, made_by, ["repo", "path", "n_bytes"]), limit)
    for number, row in enumerate(read_parquet(file, made_by, ["path", "content"])):
        if number in chosen:
            yield row["path"], row["content"]


def _chosen(rows: Iterable[Row], limit: int) -> set[int]:
    """Numbers of the rows to read, in fair order up to `limit` bytes."""
    sizes = [(fair(f"{row['repo']}/{row['path']}"), number, row["n_bytes"]) for number, row in enumerate(rows)]
    chosen: set[int] = set()
    for _, number, size in sorted(sizes):
        if limit > 0 and 0 < size <= LARGEST:
            chosen.add(number)
            limit -= size
    return chosen
