"""Keep the files that may be used, that people wrote, and one of each.

In:  ingest/files.parquet
Out: files.parquet with every quality property and dup_cluster, properties.parquet (every file that came in, measured and
     judged, without content), rejects.parquet, manifest.json

Every file is measured, thresholds are applied to what was measured. Order: licence, quality, exact duplicates, near
duplicates; a drop is counted under the first rule that was broken, and the manifest also says how many files each rule
breaks by itself. Two passes over the shards of the input with the comparison of all files between them (phase1_data.join).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import InputError
from core.manifest import Run
from core.records import FILE, REJECT, Row, partial, write_json, write_table
from phase1_data import dedup, join
from phase1_data.engine import Engine, Shard, join_parts, pending_bytes, remove_work, run_shards, shards_of, work_folder
from phase1_data.license import allowed
from phase1_data.params import CleanParams
from phase1_data.quality import Properties, broken_rules, measure
from phase1_data.shingles import shingle_set

MADE_BY = "python -m phase1_data ingest"
HEAD = ("file_id", "repo", "path", "lang", "source", "license", "n_bytes")
MEASURED = ("n_lines", "max_line", "mean_line", "alnum", "parses")
PROPERTIES = pa.schema(
    [
        *(FILE.field(name) for name in (*HEAD, *MEASURED)),
        ("generated", pa.string()),  # header | vendored | data, "" where people wrote it
        ("rule_breaks", pa.list_(pa.string())),  # every rule it breaks at the thresholds of params
        ("reason", pa.string()),  # why it was dropped, "" if it was kept
        ("value", pa.string()),  # what broke the rule
        ("dup_of", pa.string()),  # file_id of the file kept in its stead, "" if none
        ("similarity", pa.float64()),  # Jaccard to that file; None if there is none
        ("dup_cluster", pa.string()),  # as in FILE; "" if a rule ended it
    ]
)
_DECIDED_LATER = ("dup_of", "similarity", "dup_cluster")
JUDGED = pa.schema([field for field in PROPERTIES if field.name not in _DECIDED_LATER])


def all_broken(license_id: str, properties: Properties, params: CleanParams) -> list[tuple[str, str]]:
    """Every rule that a file breaks, the licence first, with the value that broke each."""
    policy = params.licenses if isinstance(params.licenses, str) else frozenset(params.licenses)
    broken = [] if allowed(license_id, policy) else [("license", license_id)]
    return broken + broken_rules(properties, params)


def judge(row: Row, params: CleanParams) -> Row:
    """Measure one file and name the rules that it breaks, the licence first; a pure function of it, so it runs anywhere."""
    properties = measure(row["content"], row["path"], row["lang"])
    broken = all_broken(row["license"], properties, params)
    reason, value = broken[0] if broken else ("", "")
    return {
        **{name: row[name] for name in HEAD},
        **properties._asdict(),
        "rule_breaks": [rule for rule, _ in broken],
        "reason": reason,
        "value": value,
    }


def measure_shard(shard: Shard, params: CleanParams) -> Row:
    """First pass: the properties of a row group's files, and for those that broke no rule what finds their copies."""
    table = shard.table([*HEAD, "content"])
    rows, sets = [], []
    identities = np.zeros(table.num_rows, join.IDENTITY)
    for number, row in enumerate(table.to_pylist()):
        judged = judge(row, params)
        rows.append(judged)
        same = b""
        if not judged["reason"]:
            text = dedup.normalised(row["content"])
            same = hashlib.sha256(text.encode()).digest()
            sets.append(shingle_set(text))
        identities[number] = (
            tuple(join.words_of(row["file_id"])),
            tuple(join.words_of(same.hex()[:32]) or (0, 0)),
            row["n_bytes"],
            dedup.preference(row["license"], row["source"]),
            bool(judged["reason"]),
        )
    write_table(shard.part(), pa.Table.from_pylist(rows, JUDGED))
    join.save(shard.part(".identities.npy"), identities)
    signatures = dedup.signatures(sets, params.dedup_permutations)
    join.save(shard.part(".bands.npy"), dedup.band_keys(signatures, band_rows(params)))
    join.save(shard.part(".sizes.npy"), np.array([shingles.size for shingles in sets], np.int64))
    with shard.part(".shingles").open("wb") as sink:
        for shingles in sets:
            sink.write(shingles.tobytes())
    return {
        "files": len(rows),
        "bytes": sum(row["n_bytes"] for row in rows),
        "kept": len(sets),
        "first": Counter(row["reason"] for row in rows if row["reason"]),
        "alone": Counter(rule for row in rows for rule in row["rule_breaks"]),
    }


def band_rows(params: CleanParams) -> int:
    """Values of a signature that a band holds."""
    return dedup.rows_per_band(params.dedup_threshold, params.dedup_permutations)


class _Decisions(NamedTuple):
    """The arrays of join.Decided, as another process reads them."""

    reason: Any
    copy_of: Any
    owner: Any
    cluster: Any
    file_id: Any

    @classmethod
    def load(cls, folder: Path) -> _Decisions:
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in join.Decided.ARRAYS))


def survive_shard(shard: Shard, measured: Path) -> Row:
    """Second pass: the row group's files that stay, complete, and what is said of all of them."""
    decisions, sets = _Decisions.load(measured), join.ShingleSets(measured)
    start = int(sets.first[shard.number])
    judged = pq.read_table(measured / shard.part().name).to_pylist()
    for index, row in enumerate(judged, start):
        owner, copy, cluster = (int(array[index]) for array in (decisions.owner, decisions.copy_of, decisions.cluster))
        copied = owner != index
        row["reason"] = row["reason"] or join.REASONS[decisions.reason[index]]
        row["dup_of"] = join.hex_of(decisions.file_id[owner]) if copied else ""
        row["similarity"] = None if not copied else 1.0 if copy == owner else round(next(sets.similar(copy, [owner])), 4)
        row["dup_cluster"] = join.hex_of(decisions.file_id[cluster]) if cluster >= 0 else ""
    said = pa.Table.from_pylist(judged, PROPERTIES)
    write_table(shard.part(".properties.parquet"), said)
    dropped = [row for row in judged if row["reason"]]
    rejects = [
        {"path": f"{row['repo']}/{row['path']}", "stage": "clean", "reason": row["reason"], "value": row["dup_of"] or row["value"]}
        for row in dropped
    ]
    write_table(shard.part(".rejects.parquet"), pa.Table.from_pylist(rejects, REJECT))
    kept = [row for row in judged if not row["reason"]]
    write_table(shard.part(), _complete(shard.table(), said))
    dropped_bytes: Counter[str] = Counter()
    for row in dropped:
        dropped_bytes[row["reason"]] += row["n_bytes"]
    return {
        "files": len(kept),
        "bytes": sum(row["n_bytes"] for row in kept),
        "dropped": Counter(row["reason"] for row in dropped),
        "dropped_bytes": dropped_bytes,
        "licenses": Counter(row["license"] for row in kept),
    }


def _complete(files: pa.Table, said: pa.Table) -> pa.Table:
    """The files that stay with their properties, as Arrow: their text is never a Python object."""
    columns = {name: said[name] for name in (*MEASURED, "dup_cluster")}
    columns["generated"] = pa.compute.not_equal(said["generated"], "")
    for name, column in columns.items():
        files = files.set_column(FILE.get_field_index(name), FILE.field(name), column)
    return files.filter(pa.compute.equal(said["reason"], "")).cast(FILE)


def decide(shards: Sequence[Shard], params: CleanParams) -> None:
    """Between the passes: compare all files, and leave the decisions beside the parts."""
    folder = shards[0].folder
    done = folder / "decided.json"
    if done.is_file():
        return
    corpus = join.Corpus(shards)
    join.write_places(corpus, folder)
    edges = join.edges_here
    if params.engine == "ray":
        from phase1_data.join_ray import edges_on_ray

        edges = functools.partial(edges_on_ray, workers=params.workers)
    bands = params.dedup_permutations // band_rows(params)
    join.decide(corpus, bands, params.dedup_threshold, edges).save(folder)
    write_json(done, {"files": len(corpus.identities)})


class Counts:
    """Summaries of shards, added up."""

    def __init__(self) -> None:
        self.numbers: Counter[str] = Counter()
        self.by_name: dict[str, Counter[str]] = {}

    def add(self, summary: Row) -> None:
        for name, value in summary.items():
            if isinstance(value, dict):
                self.by_name.setdefault(name, Counter()).update(value)
            else:
                self.numbers[name] += value

    def of(self, name: str) -> dict[str, int]:
        return dict(sorted(self.by_name.get(name, Counter()).items()))


def _nothing_left(source: Path, found: Counts) -> InputError:
    if not found.numbers["files"]:
        return InputError(f"{source} holds no files: run `{MADE_BY}` again")
    (reason, count), *_ = found.by_name["first"].most_common(1)
    hint = "set clean.licenses to any if the code is yours" if reason == "license" else f"loosen clean.{reason}"
    total = found.numbers["files"]
    return InputError(f"no file left: {count} of {total} broke the rule {reason!r}; {hint} in params.yaml, then rerun clean")


def run(source: Path, out: Path, params: CleanParams) -> Row:
    """Write the four files under `out` and return the counts; `source` is the folder that ingest wrote.

    Raises:
        InputError: source/files.parquet is missing or damaged, or no file stays; names the rule that took most.
    """
    run = Run("clean", out)
    files = source / "files.parquet"
    engine = Engine.of(params)
    work = work_folder(out, "clean", params, [files])
    shards = shards_of(files, work / "measure", MADE_BY)
    found, left = Counts(), Counts()
    with run.step("measure") as step:
        step.bytes = pending_bytes(shards)
        for summary in run_shards(functools.partial(measure_shard, params=params), shards, engine, "clean: measure"):
            found.add(summary)
    if not found.numbers["kept"]:
        remove_work(work)
        raise _nothing_left(files, found)
    with run.step("compare") as step:
        step.bytes = found.numbers["bytes"]
        decide(shards, params)
    last = shards_of(files, work / "survive", MADE_BY)
    with run.step("write") as step:
        step.bytes = pending_bytes(last)
        for summary in run_shards(functools.partial(survive_shard, measured=shards[0].folder), last, engine, "clean: write"):
            left.add(summary)
        with contextlib.ExitStack() as together:
            for name, suffix, schema in (
                ("files", ".parquet", FILE),
                ("properties", ".properties.parquet", PROPERTIES),
                ("rejects", ".rejects.parquet", REJECT),
            ):
                join_parts(together.enter_context(partial(out / f"{name}.parquet")), [shard.part(suffix) for shard in last], schema)
    counts = {
        "files_in": found.numbers["files"],
        "bytes_in": found.numbers["bytes"],
        "files": left.numbers["files"],
        "bytes": left.numbers["bytes"],
        "dropped": left.of("dropped"),
        "dropped_bytes": left.of("dropped_bytes"),
        "rule_alone": found.of("alone"),
        "licenses": left.of("licenses"),
    }
    run.finish({"clean": params}, [files], counts, ["rensa", "numpy", "license-expression", "pyarrow"])
    remove_work(work)
    return counts
