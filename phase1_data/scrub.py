"""Replace secrets and personal data before anything else sees the files.

In:  clean/files.parquet
Out: files.parquet with `redactions`, rejects.parquet, manifest.json (counts by kind and rule, kinds per MB, never a value)

A file is dropped when too much of it was masked or when it no longer parses though it did. What was written of a shard is
read again from the disk and searched again; anything found fails the stage. A text in which nothing had been found and that
comes back unchanged, by its sha256, is not searched twice: the answer would be the same.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import CheckFailed
from core.manifest import Run
from core.records import FILE, REJECT, Row, partial, write_table
from core.scrub import Finding, find, mask
from core.syntax import line_of, parses
from phase1_data.engine import Engine, Shard, join_parts, pending_bytes, remove_work, run_shards, shards_of, work_folder
from phase1_data.params import ScrubParams
from phase1_data.quality import measure

MADE_BY = "python -m phase1_data clean"
SHOWN = 5  # leaks named in the error


class Scrubbed(NamedTuple):
    """A file without secrets, or why it goes."""

    row: Row
    reason: str = ""
    value: str = ""
    clean: bool = False  # nothing was found in it, so it was not touched


def scrub(row: Row, max_masked_share: float) -> Scrubbed:
    """Mask one file; a pure function of it, so it runs anywhere."""
    before = row["content"]
    if not find(before):
        return Scrubbed({**row, "redactions": []}, clean=True)
    content, redactions = mask(before)
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


def scrub_shard(shard: Shard, params: ScrubParams) -> Row:
    """Mask the files of a row group, write those that stay, and search what was written."""
    kept: list[Row] = []
    rejects: list[Row] = []
    counts: Counter[str] = Counter()
    clean: set[bytes] = set()
    for row in shard.table().to_pylist():
        done = scrub(row, params.max_masked_share)
        if done.clean:
            clean.add(digest(done.row["content"]))
        counts["files_in"] += 1
        counts["bytes_in"] += row["n_bytes"]
        for redaction in done.row["redactions"]:
            counts[f"kind_{redaction['kind']}"] += 1
            counts[f"rule_{redaction['rule']}"] += 1
        counts["files_masked"] += bool(done.row["redactions"])
        if done.reason:
            counts[f"dropped_{done.reason}"] += 1
            path = f"{row['repo']}/{row['path']}"
            rejects.append({"path": path, "stage": "scrub", "reason": done.reason, "value": done.value})
        else:
            counts["files"] += 1
            counts["bytes"] += len(done.row["content"].encode())
            kept.append(done.row)
    write_table(shard.part(), pa.Table.from_pylist(kept, FILE))
    write_table(shard.part(".rejects.parquet"), pa.Table.from_pylist(rejects, REJECT))
    return {"counts": counts, "left": check(shard.part(), clean)}


def digest(text: str) -> bytes:
    """sha256 of a text."""
    return hashlib.sha256(text.encode()).digest()


def check(written: Path, clean: Collection[bytes] = ()) -> list[str]:
    """Where something is left in a written part, and of which kind and rule; never the value.

    Args:
        clean: digests of texts that were searched, and nothing was found.
    """
    found = []
    for row in pq.read_table(written, columns=["repo", "path", "content"]).to_pylist():
        if digest(row["content"]) in clean:
            continue
        found += [f"{where}:{line} ({finding.kind}, {finding.rule})" for where, line, finding in leaks(row)]
    return found


def per_mb(counts: Counter[str]) -> dict[str, float]:
    """Redactions of each kind per MB of text that came in."""
    kinds = {name.removeprefix("kind_"): count for name, count in sorted(counts.items()) if name.startswith("kind_")}
    return {kind: round(count / max(counts["bytes_in"], 1) * 1e6, 3) for kind, count in kinds.items()}


def run(source: Path, out: Path, params: ScrubParams) -> Counter[str]:
    """Write files.parquet, rejects.parquet and manifest.json under `out`; `source` is the folder that clean wrote.

    Raises:
        InputError: source/files.parquet is missing or damaged.
        CheckFailed: a finding in the output; no files.parquet is left behind.
    """
    run = Run("scrub", out)
    files = source / "files.parquet"
    work = work_folder(out, "scrub", params, [files])
    shards = shards_of(files, work / "mask", MADE_BY)
    counts: Counter[str] = Counter()
    left: list[str] = []
    with run.step("mask") as step:
        step.bytes = pending_bytes(shards)
        for summary in run_shards(functools.partial(scrub_shard, params=params), shards, Engine.of(params), "scrub: mask"):
            counts.update(summary["counts"])
            left += summary["left"]
    if left:
        remove_work(work)
        named = ", ".join(left[:SHOWN])
        raise CheckFailed(f"{len(left)} left after masking: {named}: a fault of core/scrub.py; exclude the file and report its rule")
    with contextlib.ExitStack() as together:
        for name, suffix, schema in (("files", ".parquet", FILE), ("rejects", ".rejects.parquet", REJECT)):
            join_parts(together.enter_context(partial(out / f"{name}.parquet")), [shard.part(suffix) for shard in shards], schema)
    said = dict(sorted(counts.items())) | {"residual": 0, "per_mb": per_mb(counts)}
    run.finish({"scrub": params}, [files], said, ["detect-secrets", "pyarrow"])
    remove_work(work)
    return counts
