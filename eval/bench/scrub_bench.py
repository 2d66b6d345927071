"""Our scrubber against detect-secrets as it comes and against BigCode's rules: same rows, same files, one run.

In:  labelled rows (scrub_input.labelled) and real files (scrub_input.code)
Out: figures (scrub_table shows them): what is masked, what is changed for nothing, what is left, what it costs

A row counts as masked when more than 90% of its value is inside findings wherever the value stands. Times are CPU seconds of
one thread, the systems in turn on the same files, so that what else runs on the machine meets all of them; the ratio is what
counts. No value is kept or printed.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from core import scrub
from core.findings import Finding
from core.manifest import versions_of
from core.progress import track
from core.records import Row
from core.syntax import lang_of, parses
from eval.bench import bigcode_rules, detect_secrets_peer, scrub_input, scrub_scaling
from eval.bench.masking import Case, Masked, System, covered, merged, write
from eval.bench.scrub_input import Code, Labelled

ENOUGH = 0.9  # share of a value that must be masked
ROUNDS = 3
TURN = 40  # files that one system masks before the next one's turn
PREFIXED = "vendor_prefix"  # the family whose values anybody knows by their first letters


def _ours_find(case: Case) -> list[Finding]:
    return merged(scrub.find(case.text))


def _ours_mask(case: Case) -> Masked:
    text, redactions = scrub.mask(case.text)
    return Masked(text, len(redactions))


OURS = System("tabsmith", contextlib.nullcontext, _ours_find, _ours_mask)


def systems() -> list[System]:
    """Ours, then those it is held against."""
    return [OURS, detect_secrets_peer.system(), bigcode_rules.SYSTEM]


def run(rows: Path, files: Path | None, limit: int, every_file: bool = False) -> Row:
    """All figures, by system.

    Args:
        limit: bytes of real files.
        every_file: run ours on all there are besides.

    Raises:
        InputError: rows or files missing or without what is needed.
    """
    with tempfile.TemporaryDirectory(prefix="scrub-bench-") as scratch:
        given = scrub_input.labelled(rows, Path(scratch) / "rows")
        code = scrub_input.code(files, limit, Path(scratch) / "files")
        compared = systems()
        figures = {system.name: on_rows(system, given) for system in compared}
        for name, measured in on_files(compared, code).items():
            figures[name] |= measured
        for system in compared:
            figures[system.name] |= left_in_files(system, code)
        texts = [file.case.text for file in code]
    return ({"every_file": on_every_file(files)} if every_file else {}) | {
        "rows": dict(Counter(row.kind for row in given)),
        "files": {"count": len(code), "bytes": _size(code), "rounds": ROUNDS},
        "systems": figures,
        "scaling": scrub_scaling.measure(texts, ROUNDS),
        "machine": {"cores": os.cpu_count(), **versions_of(["detect-secrets"])},
    }


def on_rows(system: System, rows: Sequence[Labelled]) -> Row:
    """Rows right and rows in all, by kind and family; findings that the system still makes in its own output."""
    total: Counter[tuple[str, str]] = Counter()
    touched: Counter[tuple[str, str]] = Counter()
    left = 0
    with system.ready():
        for row in track(rows, f"{system.name}, rows", unit="rows"):
            findings = system.find(row.case)
            total[row.kind, row.family] += 1
            touched[row.kind, row.family] += covered(row.case.text, row.value, findings) > ENOUGH if row.value else bool(findings)
            left += _left(system, row.case) if findings else 0
    families = {kind: {f: [touched[kind, f], n] for (k, f), n in sorted(total.items()) if k == kind} for kind in scrub_input.KINDS}
    return {"families": families, "left_in_rows": left}


def _left(system: System, case: Case) -> int:
    """Findings in the system's own output."""
    masked = Case(system.mask(case).text, case.file)
    write(masked)  # under the same name, for what a scrubber finds may depend on it
    found = len(system.find(masked))
    write(case)
    return found


def on_files(compared: Sequence[System], code: Sequence[Code]) -> dict[str, Row]:
    """CPU seconds of each round, by system, each system a few files at a time."""
    seconds = {system.name: [0.0] * ROUNDS for system in compared}
    turns = [(number, at, system) for number in range(ROUNDS) for at in range(0, len(code), TURN) for system in compared]
    for number, at, system in track(turns, "masking files", unit=f"turns of {TURN} files"):
        with system.ready():
            started = time.thread_time()  # of this thread: not what a progress bar takes in another
            for file in code[at : at + TURN]:
                system.mask(file.case)
            seconds[system.name][number] += time.thread_time() - started
    size = _size(code)
    return {name: {"seconds": taken, "mb_per_s": size / 1e6 / statistics.median(taken)} for name, taken in seconds.items()}


def left_in_files(system: System, code: Sequence[Code]) -> Row:
    """Findings, files changed, findings in the system's own output, and Python files that parse before and after."""
    found = left = changed = 0
    parsed: Counter[str] = Counter()
    with system.ready():
        for file in track(code, f"{system.name}, its output again"):
            masked = system.mask(file.case)
            found += masked.places
            changed += masked.text != file.case.text
            left += _left(system, file.case) if masked.places else 0
            if file.lang == "python" and parses(file.case.text, "python"):
                parsed.update(before=1, after=bool(not masked.places or parses(masked.text, "python")))
    parse = [parsed["after"], parsed["before"]]
    return {"found_per_mb": found / _size(code) * 1e6, "changed": changed, "left_in_files": left, "parsed": parse}


def on_every_file(source: Path | None) -> Row:
    """What ours does to all the code at a source: what is rare shows only there."""
    counts: Counter[str] = Counter()
    for path, text in track(scrub_input.texts(source, sys.maxsize), "tabsmith, every file"):
        masked = scrub.mask(text)[0]
        counts.update(files=1, bytes=len(text.encode("utf-8", "replace")), changed=masked != text)
        if masked != text:
            counts["left"] += len(scrub.find(masked))
            lang = lang_of(path) or ""
            counts["broken"] += bool(parses(text, lang)) and parses(masked, lang) is False
    return {key: counts[key] for key in ("files", "bytes", "changed", "left", "broken")}


def _size(code: Sequence[Code]) -> int:
    return sum(len(file.case.text.encode("utf-8", "replace")) for file in code)
