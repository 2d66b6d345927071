"""Problems and completions in human-eval-infilling's schema.

In:  JSONL, gzipped or not:  problems     task_id, entry_point, prompt, suffix, canonical_solution, test
                             completions  task_id, completion; several rows of one task are samples
Out: Problems by task; completions by task in the file's order

Whatever is wrong with a row is named with its file and line, before anything runs.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import InputError
from core.fim import Hole
from eval.sandbox.pool import Program

MAX_CHARS = 1_000_000  # of one text: no completion of a hole is this long, and 200 times the longest problem published
_LINE_BYTES = 16_000_000  # no row of allowed texts is longer, however it is escaped
_CHECK = re.compile(r"^def check\(", re.MULTILINE)
_GZIP = b"\x1f\x8b"


class Problem(NamedTuple):
    """One hole and the test of the function around it."""

    task_id: str
    entry_point: str  # the expression that the test is given
    prompt: str
    suffix: str
    canonical_solution: str
    test: str  # defines check(candidate)

    @property
    def hole(self) -> Hole:
        """The hole with its truth."""
        return Hole(self.prompt, self.suffix, self.canonical_solution, f"{self.entry_point}.py")

    def program(self, completion: str) -> Program:
        """The completion in its place, with its test."""
        return Program(self.prompt, completion, self.suffix, self.test, self.entry_point)


def read_problems(file: Path) -> dict[str, Problem]:
    """Problems by task id, in the file's order.

    Raises:
        InputError: the file is missing, empty, torn or not JSONL; a key is missing or no text; a task comes twice; a test defines no
            `check`. Names file and line.
    """
    found: dict[str, Problem] = {}
    for place, row in _rows(file):
        problem = Problem(*(_text(row, key, place) for key in Problem._fields))
        if problem.task_id in found:
            raise InputError(f"{place}: task {problem.task_id} is there already: remove one of the two")
        if not _CHECK.search(problem.test):
            raise InputError(f"{place}: the test of {problem.task_id} defines no check(candidate): mend it")
        if not problem.entry_point.strip():
            raise InputError(f"{place}: {problem.task_id} has no entry_point: name the function that the test is given")
        found[problem.task_id] = problem
    if not found:
        raise InputError(f"{file} holds no problems: give a file in human-eval-infilling's schema")
    return found


def read_completions(file: Path, problems: dict[str, Problem]) -> dict[str, list[str]]:
    """Completions of every problem, in the problems' order.

    Raises:
        InputError: as `read_problems`; a task is unknown, or has no completion.
    """
    found: dict[str, list[str]] = {task: [] for task in problems}
    for place, row in _rows(file):
        task, completion = _text(row, "task_id", place), _text(row, "completion", place)
        if task not in found:
            raise InputError(f"{place}: no problem has the task id {task[:80]!r}: give the completions of these problems")
        found[task].append(completion)
    missing = [task for task, completions in found.items() if not completions]
    if missing:
        more = f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
        raise InputError(f"{file} has no completion of {', '.join(missing[:3])}{more}: complete every problem, if only with an empty text")
    return found


def _rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """File and line, and the row there."""
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        place = f"{file}:{number}"
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise InputError(f"{place}: not UTF-8 ({error.reason} at byte {error.start}): write the file again") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{place}: not JSON ({str(error)[:80]}): write the file again") from None
        if not isinstance(row, dict):
            raise InputError(f"{place}: a row must be an object with the keys of the schema")
        yield place, row


def _lines(file: Path) -> Iterator[bytes]:
    if not file.is_file():
        raise InputError(f"{file} is missing: give the path of a JSONL file, gzipped or not")
    with file.open("rb") as raw:
        packed = raw.read(2) == _GZIP
    number = 0
    try:
        with gzip.open(file, "rb") if packed else file.open("rb") as lines:
            while line := lines.readline(_LINE_BYTES):
                number += 1
                if len(line) == _LINE_BYTES:
                    raise InputError(f"{file}:{number}: a row of more than {_LINE_BYTES:,} bytes: no problem or completion is so long")
                yield line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{file}:{number + 1}: the gzip stream is torn ({error}): fetch or write the file again") from None


def _text(row: dict[str, Any], key: str, place: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        what = f"{key} is {type(value).__name__}, not text" if key in row else f"no key {key!r} (it has {', '.join(sorted(row))[:120]})"
        raise InputError(f"{place}: {what}: mend that row")
    if len(value) > MAX_CHARS:
        raise InputError(f"{place}: {key} has {len(value):,} characters; {MAX_CHARS:,} is the limit: cut it")
    if "\0" in value:
        raise InputError(f"{place}: {key} holds a NUL at character {value.index(chr(0))}: no Python program does; remove it")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{place}: {key} holds half a surrogate pair at character {error.start}: write it as UTF-8") from None
    return value
