"""What each threshold of `clean` would take away, before it does.

In:  ingest/files.parquet, or clean/properties.parquet where that was measured on the very same files
Out: counts per rule, and per rule and other values of its threshold; nothing is written

The rules are those of clean, applied to what was measured; they do not depend on one another, so one set of params can hold
another value of every threshold at once. What stays in memory is a few numbers and three paths per rule.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import InputError
from core.manifest import sha256_of
from core.records import Row, groups_of, read_groups, read_json, write_table
from phase1_data.card_facts import DUPLICATES, EXAMPLES, shown
from phase1_data.clean import HEAD, JUDGED, MADE_BY, PROPERTIES, all_broken, judge
from phase1_data.engine import Engine, Shard, remove_work, run_shards, shards_of, work_folder
from phase1_data.params import CleanParams
from phase1_data.quality import Properties

THRESHOLDS = {  # rule and its key in params.yaml, in the order in which clean applies them
    "license": "licenses",
    "generated": "drop_generated",
    "min_lines": "min_lines",
    "max_line": "max_line",
    "mean_line": "mean_line",
    "min_alnum": "min_alnum",
    "unparsable": "drop_unparsable",
}
FACTORS = (0.5, 0.75, 1.0, 1.5, 2.0)  # of a threshold: what other values would take
COLUMNS = ["repo", "path", "license", "n_bytes", *Properties._fields]


class Amount:
    """Files and bytes that break a rule, and those of them that break no other."""

    def __init__(self) -> None:
        self.counts = Counter(files=0, bytes=0, only_files=0, only_bytes=0)

    def add(self, size: int, only: bool) -> None:
        self.counts.update(files=1, bytes=size, only_files=only, only_bytes=size * only)


class Example(NamedTuple):
    """A file that breaks a rule; the smallest are shown: taken by no other rule, and nearest to the threshold."""

    shared: bool  # with another rule
    distance: float  # from the threshold, in its unit
    path: str
    value: str


def values_of(key: str, params: CleanParams) -> list[Any]:
    """Values of a threshold to compare: the present one, and what lies to both sides of it."""
    now = getattr(params, key)
    if key == "licenses":
        return ["any", "permissive", *([now] if isinstance(now, list) else [])]
    if isinstance(now, bool):
        return [False, True]
    if isinstance(now, int):
        least = 0 if key == "min_lines" else 1
        return sorted({max(round(now * factor), least) for factor in FACTORS})
    return sorted({min(round(now * factor, 4), 1.0) for factor in FACTORS})


class Tally:
    """The counts of all files."""

    def __init__(self, params: CleanParams) -> None:
        self.params = params
        self.files = self.bytes = self.broken_files = self.broken_bytes = 0
        self.rules = {rule: Amount() for rule in THRESHOLDS}
        self.examples: dict[str, list[Example]] = {rule: [] for rule in THRESHOLDS}
        self.values = {rule: values_of(key, params) for rule, key in THRESHOLDS.items()}
        self.others = {rule: [Amount() for _ in values] for rule, values in self.values.items()}
        columns = zip_longest(*self.values.values())
        keys = THRESHOLDS.values()
        self.variants = [
            params.model_copy(update={key: value for key, value in zip(keys, column, strict=True) if value is not None})
            for column in columns
        ]

    def add(self, row: Row) -> None:
        """Count one file by its measured values."""
        found, size = Properties(*(row[name] for name in Properties._fields)), row["n_bytes"]
        broken = dict(all_broken(row["license"], found, self.params))
        self.files += 1
        self.bytes += size
        self.broken_files += bool(broken)
        self.broken_bytes += size * bool(broken)
        for rule, value in broken.items():
            self.rules[rule].add(size, len(broken) == 1)
            self._show(rule, Example(len(broken) > 1, self._distance(rule, value), f"{row['repo']}/{row['path']}", value))
        for number, variant in enumerate(self.variants):
            for rule, _ in all_broken(row["license"], found, variant):
                if number < len(self.values[rule]):
                    self.others[rule][number].add(size, not broken.keys() - {rule})

    def _distance(self, rule: str, value: str) -> float:
        limit = getattr(self.params, THRESHOLDS[rule])
        return 0.0 if isinstance(limit, bool | str | list) else abs(float(value) - limit)

    def _show(self, rule: str, example: Example) -> None:
        self.examples[rule] = sorted([*self.examples[rule], example])[:EXAMPLES]

    def facts(self) -> Row:
        """The counts as plain values, with the paths scrubbed."""
        return {
            "files": self.files,
            "bytes": self.bytes,
            "broken_files": self.broken_files,
            "broken_bytes": self.broken_bytes,
            "rules": [self._rule(rule, key) for rule, key in THRESHOLDS.items()],
        }

    def _rule(self, rule: str, key: str) -> Row:
        return {
            "rule": rule,
            "key": key,
            "value": getattr(self.params, key),
            **self.rules[rule].counts,
            "examples": [{"path": shown(example.path), "value": shown(example.value)} for example in self.examples[rule]],
            "values": [{"value": value, **other.counts} for value, other in zip(self.values[rule], self.others[rule], strict=True)],
        }


def measure_shard(shard: Shard, params: CleanParams) -> Row:
    """The properties of a row group's files, as the first pass of clean measures them."""
    rows = [judge(row, params) for row in shard.table([*HEAD, "content"]).to_pylist()]
    write_table(shard.part(), pa.Table.from_pylist(rows, JUDGED))
    return {"files": len(rows)}


def clean_of(root: Path) -> Row | None:
    """The manifest of the clean whose properties.parquet is about these very files, by hash; None if there is none."""
    files, properties = root / "ingest" / "files.parquet", root / "clean" / "properties.parquet"
    rows = sum(groups_of(files, MADE_BY))
    try:
        manifest: Row = read_json(root / "clean" / "manifest.json", "")
        same = pq.read_schema(properties).equals(PROPERTIES) and pq.read_metadata(properties).num_rows == rows
        return manifest if same and sha256_of(files) in manifest["inputs"].values() else None
    except (InputError, OSError, pa.ArrowInvalid, KeyError, TypeError, AttributeError):
        return None


def measured_now(root: Path, params: CleanParams) -> Iterator[pa.Table]:
    """Tables of measured values in the order of the files, with the engine and workers of params."""
    files = root / "ingest" / "files.parquet"
    work = work_folder(root / "preview", "preview", params, [files])
    shards = shards_of(files, work, MADE_BY)
    done = run_shards(functools.partial(measure_shard, params=params), shards, Engine.of(params), "preview: measure")
    for shard, _ in zip(shards, done, strict=True):
        yield pq.read_table(shard.part(), columns=COLUMNS)
    remove_work(work)


def run(root: Path, params: CleanParams) -> Row:
    """Count what clean would take from `root`/ingest, and what the last clean took as duplicates if it read these files.

    Raises:
        InputError: ingest's output is missing or damaged, or holds no files.
    """
    last, tally = clean_of(root), Tally(params)
    properties = root / "clean" / "properties.parquet"
    for table in read_groups(properties, "python -m phase1_data clean", COLUMNS) if last else measured_now(root, params):
        for row in table.to_pylist():
            tally.add(row)
    if not tally.files:
        raise InputError(f"{root / 'ingest' / 'files.parquet'} holds no files: run `{MADE_BY}` again")
    dropped = last["counts"]["dropped"] if last else {}
    return tally.facts() | {"duplicates": {name: dropped.get(name, 0) for name in DUPLICATES} if last else None}
