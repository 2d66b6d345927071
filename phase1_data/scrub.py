"""Replace secrets and personal data before anything else sees the files.

In:  clean/files.parquet
Out: files.parquet with `redactions`, rejects.parquet, manifest.json (counts by kind and rule, never a value)

A file is dropped when too much of it was masked or when it no longer parses though it did. What was written is read
again and searched again; anything found fails the stage.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from core.errors import CheckFailed
from core.manifest import Run
from core.progress import track
from core.records import FILE, REJECT, Row, partial, read_parquet, write_parquet
from core.scrub import Finding, find, mask
from core.syntax import line_of, parses
from phase1_data.params import ScrubParams
from phase1_data.quality import measure
from phase1_data.workers import in_order

MADE_BY = "python -m phase1_data clean"
SHOWN = 5  # leaks named in the error


class Scrubbed(NamedTuple):
    """A file without secrets, or why it goes."""

    row: Row
    reason: str = ""
    value: str = ""


def scrub(row: Row, max_masked_share: float) -> Scrubbed:
    """Mask one file; a pure function of it, so it runs anywhere."""
    before = row["content"]
    content, redactions = mask(before)
    if not redactions:
        return Scrubbed({**row, "redactions": []})
    kept = len(content) - sum(redaction.end - redaction.start for redaction in redactions)
    share = 1 - kept / len(before)
    scrubbed = {**row, "content": content, "redactions": [redaction._asdict() for redaction in redactions]}
    if share > max_masked_share:
        return Scrubbed(scrubbed, "masked_share", f"{share:.3f}")
    if row["parses"] and parses(content, row["lang"]) is False:
        return Scrubbed(scrubbed, "redaction_broke_syntax", ",".join(sorted({redaction.rule for redaction in redactions})))
    return Scrubbed(scrubbed | measured(content, row))


def measured(content: str, row: Row) -> Row:
    """The properties of the record that depend on its text."""
    return {key: value for key, value in measure(content, row["path"], row["lang"])._asdict().items() if key in row and key != "generated"}


def leaks(row: Row) -> list[tuple[str, int, Finding]]:
    """What is still in a written file: where (path, line from 1) and what."""
    where = f"{row['repo']}/{row['path']}"
    return [(where, line_of(row["content"], finding.start) + 1, finding) for finding in find(row["content"])]


class Scrubbing:
    """State of one run: counts, and rejects as they fall."""

    def __init__(self, params: ScrubParams) -> None:
        self.params = params
        self.counts: Counter[str] = Counter()
        self.rejects: list[Row] = []

    def rows(self, source: Path) -> Iterator[Row]:
        """The files that stay, masked, in the order they came."""
        work = functools.partial(scrub, max_masked_share=self.params.max_masked_share)
        for done in track(in_order(work, read_parquet(source / "files.parquet", MADE_BY), self.params.workers), "scrub: mask"):
            self.counts["files_in"] += 1
            for redaction in done.row["redactions"]:
                self.counts[f"kind_{redaction['kind']}"] += 1
                self.counts[f"rule_{redaction['rule']}"] += 1
            self.counts["files_masked"] += bool(done.row["redactions"])
            if done.reason:
                self.counts[f"dropped_{done.reason}"] += 1
                path = f"{done.row['repo']}/{done.row['path']}"
                self.rejects.append({"path": path, "stage": "scrub", "reason": done.reason, "value": done.value})
                continue
            self.counts["files"] += 1
            self.counts["bytes"] += len(done.row["content"].encode())
            yield done.row

    def check(self, written: Path) -> None:
        """Search the written file again.

        Raises:
            CheckFailed: something is left; names path, line and kind, never the value.
        """
        rows = read_parquet(written, "python -m phase1_data scrub", ["repo", "path", "content"])
        found = [leak for leaking in track(in_order(leaks, rows, self.params.workers), "scrub: check") for leak in leaking]
        if found:
            named = ", ".join(f"{where}:{line} ({finding.kind}, {finding.rule})" for where, line, finding in found[:SHOWN])
            raise CheckFailed(f"{len(found)} left after masking: {named}: a fault of core/scrub.py; exclude the file and report its rule")


def run(source: Path, out: Path, params: ScrubParams) -> Counter[str]:
    """Write files.parquet, rejects.parquet and manifest.json under `out`; `source` is the folder that clean wrote.

    Raises:
        InputError: source/files.parquet is missing or damaged.
        CheckFailed: a finding in the output; no files.parquet is left behind.
    """
    run = Run("scrub", out)
    state = Scrubbing(params)
    with partial(out / "files.parquet") as unchecked:
        write_parquet(unchecked, state.rows(source), FILE)
        state.check(unchecked)
    write_parquet(out / "rejects.parquet", state.rejects, REJECT)
    counts = dict(sorted(state.counts.items())) | {"residual": 0}
    run.finish({"scrub": params}, [source / "files.parquet"], counts, ["detect-secrets", "pyarrow"])
    return state.counts
