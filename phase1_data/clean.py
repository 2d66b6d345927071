"""Keep the files that may be used, that people wrote, and one of each.

In:  ingest/files.parquet
Out: files.parquet with every quality property and dup_cluster, rejects.parquet, manifest.json

Order: licence, quality, exact duplicates, near duplicates; each drop is counted under the first rule that was broken,
and the manifest also says how many files each quality rule breaks by itself. Three passes over the input, so that no
more than a signature (1 kB) per file stays in memory.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from core.errors import InputError
from core.manifest import Run
from core.progress import track
from core.records import FILE, REJECT, Row, read_parquet, write_parquet
from phase1_data import dedup
from phase1_data.license import allowed
from phase1_data.params import CleanParams
from phase1_data.quality import Properties, broken_rules, measure
from phase1_data.shingles import Hashes, shingle_set
from phase1_data.workers import in_order

MADE_BY = "python -m phase1_data ingest"


class Measured(NamedTuple):
    """What the first pass keeps of a file; `broken` is empty for a file that goes on."""

    head: Row  # the record without content
    properties: Properties | None  # None: the licence ended it
    broken: list[tuple[str, str]]
    same: bytes  # sha256 of the normalised text
    signature: dedup.Signature | None


def judge(row: Row, params: CleanParams) -> Measured:
    """Measure one file; a pure function of it, so it runs anywhere."""
    head = {key: value for key, value in row.items() if key != "content"}
    policy = params.licenses if isinstance(params.licenses, str) else frozenset(params.licenses)
    if not allowed(row["license"], policy):
        return Measured(head, None, [("license", row["license"])], b"", None)
    properties = measure(row["content"], row["path"], row["lang"])
    broken = broken_rules(properties, params)
    if broken:
        return Measured(head, properties, broken, b"", None)
    text = dedup.normalised(row["content"])
    return Measured(
        head, properties, [], hashlib.sha256(text.encode()).digest(), dedup.signature(shingle_set(text), params.dedup_permutations)
    )


class Cleaning:
    """State of one run: what was measured, what was dropped and why."""

    def __init__(self, source: Path, params: CleanParams) -> None:
        self.source, self.params = source, params
        self.rejects: list[Row] = []
        self.dropped: Counter[str] = Counter()
        self.dropped_bytes: Counter[str] = Counter()
        self.rule_alone: Counter[str] = Counter()
        self.files_in = self.bytes_in = self.files = self.bytes = 0
        self.licenses: Counter[str] = Counter()

    def reject(self, head: Row, reason: str, value: str) -> None:
        self.dropped[reason] += 1
        self.dropped_bytes[reason] += head["n_bytes"]
        self.rejects.append({"path": f"{head['repo']}/{head['path']}", "stage": "clean", "reason": reason, "value": value})

    def rows(self, columns: list[str] | None = None) -> Iterator[Row]:
        return read_parquet(self.source / "files.parquet", MADE_BY, columns)

    def measured(self) -> list[Measured]:
        """First pass: files that broke no rule, in order."""
        kept = []
        work = functools.partial(judge, params=self.params)
        for found in track(in_order(work, self.rows(), self.params.workers), "clean: measure"):
            self.files_in += 1
            self.bytes_in += found.head["n_bytes"]
            self.rule_alone.update(rule for rule, _ in found.broken)
            if found.broken:
                self.reject(found.head, *found.broken[0])
            else:
                kept.append(found)
        return kept

    def without_copies(self, kept: list[Measured]) -> list[Measured]:
        """Exact duplicates go: equal bytes first, then equal normalised text; keep_best decides."""
        for reason, key in (("exact_duplicate", lambda m: m.head["file_id"]), ("normalised_duplicate", lambda m: m.same)):
            groups: dict[Any, list[Measured]] = defaultdict(list)
            for found in kept:
                groups[key(found)].append(found)
            kept = [self._best(group, reason) for group in groups.values()]
        return kept

    def _best(self, group: list[Measured], reason: str) -> Measured:
        if len(group) == 1:
            return group[0]
        # equal bytes leave the path to decide, so that the order of the input does not
        heads = sorted((found.head for found in group), key=lambda head: (head["repo"], head["path"]))
        best = dedup.keep_best(heads)
        for head in heads:
            if head is not best:
                self.reject(head, reason, best["file_id"])
        return next(found for found in group if found.head is best)

    def clusters(self, kept: list[Measured]) -> dict[tuple[str, str, str], str]:
        """Near duplicates: (repo, path, file_id) of the files that stay, and their component's name."""
        rows = dedup.rows_per_band(self.params.dedup_threshold, self.params.dedup_permutations)
        signatures = np.stack([found.signature for found in kept if found.signature is not None])
        groups = list(dedup.candidates(signatures, rows))
        shingles = self._shingles_of({kept[index].head["file_id"] for group in groups for index in group})
        found = dedup.components(groups, lambda index: shingles[kept[index].head["file_id"]], len(kept), self.params.dedup_threshold)
        members: dict[int, list[Measured]] = defaultdict(list)
        for index, file in enumerate(kept):
            members[found.root(index)].append(file)
        stay = {}
        for group in members.values():
            name = min(file.head["file_id"] for file in group)
            best = self._best(group, "near_duplicate").head
            stay[best["repo"], best["path"], best["file_id"]] = name
        return stay

    def _shingles_of(self, wanted: set[str]) -> dict[str, Hashes]:
        """Second pass: the shingles of the files that share a band with another."""
        chosen = ((row["file_id"], row["content"]) for row in self.rows(["file_id", "content"]) if row["file_id"] in wanted)
        return dict(track(in_order(_named_shingles, chosen, self.params.workers), "clean: compare"))

    def survivors(self, kept: list[Measured], stay: dict[tuple[str, str, str], str]) -> Iterator[Row]:
        """Third pass: the records that stay, complete."""
        properties = {(m.head["repo"], m.head["path"], m.head["file_id"]): m.properties for m in kept}
        for row in self.rows():
            key = row["repo"], row["path"], row["file_id"]
            found = properties.get(key)
            if key not in stay or found is None:
                continue
            self.files += 1
            self.bytes += row["n_bytes"]
            self.licenses[row["license"]] += 1
            yield row | found._asdict() | {"generated": found.generated != "", "dup_cluster": stay.pop(key)}
        if not self.files:
            self.fail()

    def fail(self) -> None:
        """Raises:
        InputError: nothing stayed; names the rule that took most.
        """
        if not self.files_in:
            raise InputError(f"{self.source / 'files.parquet'} holds no files: run `{MADE_BY}` again")
        (reason, count), *_ = self.dropped.most_common(1)
        hint = "set clean.licenses to any if the code is yours" if reason == "license" else f"loosen clean.{reason}"
        raise InputError(f"no file left: {count} of {self.files_in} broke the rule {reason!r}; {hint} in params.yaml, then rerun clean")


def _named_shingles(named: tuple[str, str]) -> tuple[str, Hashes]:
    return named[0], shingle_set(dedup.normalised(named[1]))


def run(source: Path, out: Path, params: CleanParams) -> Cleaning:
    """Write files.parquet, rejects.parquet and manifest.json under `out`; `source` is the folder that ingest wrote."""
    run = Run("clean", out)
    state = Cleaning(source, params)
    kept = state.without_copies(state.measured())
    if not kept:
        state.fail()
    stay = state.clusters(kept)
    write_parquet(out / "files.parquet", state.survivors(kept, stay), FILE)
    write_parquet(out / "rejects.parquet", state.rejects, REJECT)
    counts = {
        "files_in": state.files_in,
        "bytes_in": state.bytes_in,
        "files": state.files,
        "bytes": state.bytes,
        "dropped": dict(sorted(state.dropped.items())),
        "dropped_bytes": dict(sorted(state.dropped_bytes.items())),
        "rule_alone": dict(sorted(state.rule_alone.items())),
        "licenses": dict(sorted(state.licenses.items())),
    }
    run.finish({"clean": params}, [source / "files.parquet"], counts, ["rensa", "numpy", "license-expression", "pyarrow"])
    return state
