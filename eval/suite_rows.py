"""Holes of somebody's own: rows of a file as what a suite asks.

In:  JSONL, gz or not, in one of the forms below; or Parquet of phase 1's samples
Out: Held rows in the file's order; what was left out, by reason

    ours           prefix, middle, suffix; of use: id | sample_id | task_id, lang | language, path, repo, context [{path, text}]
    CrossCodeEval  prompt, groundtruth, right_context, crossfile_context {text, list [{retrieved_chunk, filename}]}, metadata
    infilling      prompt, suffix, canonical_solution, task_id (OpenAI's human-eval-infilling)
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import InputError
from core.fim import Chunk, Hole
from core.records import Row, read_parquet
from core.syntax import lang_of

FORMS = {  # by the keys that tell them apart: which holds the text before, the truth, the text after
    "CrossCodeEval": ("prompt", "groundtruth", "right_context"),
    "infilling": ("prompt", "canonical_solution", "suffix"),
    "ours": ("prefix", "middle", "suffix"),
}
MADE_BY = "python -m phase1_data samples"


class Held(NamedTuple):
    """One hole and where it comes from."""

    key: str
    hole: Hole
    lang: str
    group: str  # rows of one file are alike; intervals draw whole groups

    @property
    def alone(self) -> Hole:
        """The hole without what was retrieved for it."""
        return Hole(self.hole.prefix, self.hole.suffix, self.hole.middle, self.hole.path, self.hole.repo)


def read(file: Path, lang: str | None = None, limit: int = 0) -> tuple[list[Held], Counter[str]]:
    """Every row (the first `limit` by a hash of their id; 0: all), and how many were left out and why.

    Args:
        lang: of rows that do not say theirs and whose path does not tell; None: python.

    Raises:
        InputError: no such file, damaged, empty, or a row that is none; names file and line.
    """
    if file.suffix == ".parquet":
        found = [_sample(row) for row in read_parquet(file, MADE_BY) if row["order"] != "ltr"]
    else:
        found = [_held(file, number, row, lang or "python") for number, row in _rows(file)]
    if not found:
        raise InputError(f"{file} has no rows: give a file with one JSON object per line")
    _no_doubles(file, found)
    rows = [one for one in found if one.hole.middle.strip()]
    dropped = Counter({"no_middle": len(found) - len(rows)})
    if limit and len(rows) > limit:
        chosen = set(sorted((one.key for one in rows), key=lambda key: hashlib.sha256(key.encode()).digest())[:limit])
        dropped["over_limit"] = len(rows) - limit
        rows = [one for one in rows if one.key in chosen]
    if not rows:
        raise InputError(f"{file}: the truth of every row is blank: there is nothing to compare with")
    return rows, +dropped


def _rows(file: Path) -> Iterator[tuple[int, Row]]:
    """Line numbers and objects; blank lines are passed over."""
    if not file.is_file():
        raise InputError(f"{file} is missing: name a JSONL file with prefix, middle and suffix")
    number = 0
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _object(file, number, line)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{file} is torn after line {number} ({error}): fetch it again") from None


def _object(file: Path, number: int, line: bytes) -> Row:
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):  # also bytes that are no UTF-8
        raise InputError(f"{file}:{number}: not JSON in UTF-8: mend or delete that line") from None
    if not isinstance(row, dict):
        raise InputError(f"{file}:{number}: not a JSON object: mend or delete that line")
    return row


def _held(file: Path, number: int, row: Row, lang: str) -> Held:
    """One row of any of the forms."""
    where = f"{file}:{number}"
    form = next((keys for keys in FORMS.values() if keys[1] in row), FORMS["ours"])
    before, truth, after = (_text(where, row, key) for key in form)
    given = row.get("metadata")
    about: Row = given if isinstance(given, dict) else {}
    path = str(row.get("path") or about.get("file") or about.get("path") or "")
    repo = str(row.get("repo") or about.get("repository") or about.get("repo") or "")
    named = next((row[key] for key in ("id", "sample_id", "task_id") if row.get(key) is not None), about.get("task_id"))
    said = row.get("lang") or row.get("language") or lang_of(path) or lang
    key = str(number if named is None else named)
    for name, text in (("path", path), ("repo", repo), ("id", key)):
        _clean(where, name, text)
    return Held(key, Hole(before, after, truth, path, repo, _context(where, row)), str(said).lower(), f"{repo}\0{path}" if path else key)


def _text(where: str, row: Row, key: str) -> str:
    if key not in row:
        wanted = "; or ".join(", ".join(keys) for keys in FORMS.values())
        raise InputError(f"{where}: no {key!r}: a row needs {wanted}")
    value = row[key]
    if not isinstance(value, str):
        raise InputError(f"{where}: {key!r} is no text: mend or delete that line")
    return _clean(where, key, value)


def _clean(where: str, key: str, text: str) -> str:
    if "\0" in text:
        raise InputError(f"{where}: {key!r} holds a NUL: delete that line, source code has none")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise InputError(f"{where}: {key!r} holds half a surrogate pair: write the file again in valid UTF-8")
    return text


def _context(where: str, row: Row) -> list[Chunk]:
    """Pieces of other files, likeliest first as retrieval gave them."""
    given: Any = row.get("context") or row.get("crossfile_context") or []
    if isinstance(given, dict):
        given = given.get("list", given.get("text") or [])  # the text is the list again, as comments
    if isinstance(given, str):
        given = [{"path": "", "text": given}]
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise InputError(f"{where}: 'context' is no list of objects with path and text: mend or delete that line")
    chunks = []
    for one in given:
        path, text = one.get("path", one.get("filename", "")), one.get("text", one.get("retrieved_chunk"))
        if not isinstance(path, str) or not isinstance(text, str):
            raise InputError(f"{where}: a piece of context has no text: mend or delete that line")
        chunks.append(Chunk(_clean(where, "context", path), _clean(where, "context", text)))
    return chunks


def _sample(row: Row) -> Held:
    context = [Chunk(chunk["path"], chunk["text"]) for chunk in row["context"] or []]
    hole = Hole(row["prefix"], row["suffix"], row["middle"], row["path"], row["repo"], context)
    return Held(row["sample_id"], hole, row["lang"], row["file_id"])


def _no_doubles(file: Path, rows: list[Held]) -> None:
    double = next((key for key, count in Counter(one.key for one in rows).items() if count > 1), None)
    if double is not None:
        raise InputError(f"{file}: two rows are named {double!r}: make the ids differ, or leave them out")
