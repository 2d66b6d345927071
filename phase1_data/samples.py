"""Decontaminate, split, and cut the rows that models are trained and tested on.

In:  scrub/files.parquet, a tokenizer, benchmarks that must not be trained on
Out: train, valid, test_file and test_repo.parquet (core.records.SAMPLE), files.parquet with `split`, rejects.parquet,
     manifest.json, and the data card

Three passes over the input: signatures and benchmark hits, the held-out text, the rows.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from core.errors import CheckFailed, InputError
from core.manifest import Run
from core.progress import track
from core.records import FILE, REJECT, SAMPLE, Row, partial, read_parquet, write_parquet
from phase1_data import card
from phase1_data.context import Neighbours
from phase1_data.decontaminate import benchmark_texts, heldout_index, index_of, shared
from phase1_data.dedup import Signature, normalised, signature
from phase1_data.params import SamplesParams
from phase1_data.rows import TEST_SPLITS, Cutter, Made
from phase1_data.shingles import Hashes, shingle_set
from phase1_data.split import NEAR, PERMUTATIONS, SPLITS, Pair, assign, crossing, near_components, similar_pairs
from phase1_data.tokenizer import Ruler, locate
from phase1_data.workers import in_order

MADE_BY = "python -m phase1_data scrub"
SPARE = 4  # times as many holes are cut per test file as its even share, because some files are short


class Seen(NamedTuple):
    """What the first pass keeps of a file."""

    head: Row
    signature: Signature
    benchmark: str  # the benchmark it shares an n-gram with, "" if none


class Task(NamedTuple):
    """A file to cut, with what its worker needs of the others."""

    file: Row
    others: list[tuple[str, str]]
    test_holes: int


_benchmarks: dict[str, Hashes] = {}  # of this process
_ngram = 0
_cutter: Cutter | None = None  # of this process: the tokenizer is dear to load


def _load_benchmarks(indexes: dict[str, Hashes], ngram: int) -> None:
    global _ngram
    _benchmarks.clear()
    _benchmarks.update(indexes)
    _ngram = ngram


def _look(row: Row) -> Seen:
    hit = next((name for name, index in _benchmarks.items() if shared(row["content"], index, _ngram)), "")
    head = {key: row[key] for key in ("file_id", "repo", "path", "n_bytes", "lang")}
    return Seen(head, signature(shingle_set(normalised(row["content"])), PERMUTATIONS), hit)


def _load_cutter(params: SamplesParams, tokenizer: Path, heldout: Hashes) -> None:
    global _cutter
    _cutter = Cutter(params, Ruler(tokenizer), heldout)


def _cut(task: Task) -> tuple[Row, Made]:
    assert _cutter is not None
    return task.file, _cutter.make(task.file, task.others, task.test_holes)


class Sampling:
    """State of one run."""

    def __init__(self, source: Path, params: SamplesParams) -> None:
        self.file, self.params = source / "files.parquet", params
        self.tokenizer = locate(params.tokenizer, params.tokenizer_revision)
        Ruler(self.tokenizer)  # a tokenizer without markers is told now, not by a worker
        self.rejects: list[Row] = []
        self.dropped: Counter[str] = Counter()  # files
        self.lost: Counter[str] = Counter()  # holes
        self.split_of: dict[tuple[str, str, str], str] = {}
        self.split_files: Counter[str] = Counter()
        self.split_bytes: Counter[str] = Counter()
        self.kinds: dict[str, Counter[str]] = defaultdict(Counter)  # split to span kind
        self.orders: dict[str, Counter[str]] = defaultdict(Counter)
        self.rows: Counter[str] = Counter()
        self.with_context: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        self.middles: dict[str, list[int]] = defaultdict(list)  # characters
        self.largest: dict[str, dict[str, Any]] = {}
        self.hits: Counter[str] = Counter()
        self.files_in = self.bytes_in = 0

    def reject(self, head: Row, reason: str, value: str) -> None:
        self.dropped[reason] += 1
        self.rejects.append({"path": f"{head['repo']}/{head['path']}", "stage": "samples", "reason": reason, "value": value})

    def read(self) -> Iterator[Row]:
        return read_parquet(self.file, MADE_BY)

    def look(self) -> list[Seen]:
        """First pass: every file that shares nothing with a benchmark."""
        indexes = {name: index_of(benchmark_texts(Path(name)), self.params.ngram) for name in self.params.decontaminate}
        kept = []
        for seen in track(in_order(_look, self.read(), self.params.workers, _load_benchmarks, indexes, self.params.ngram), "samples: look"):
            self.files_in += 1
            self.bytes_in += seen.head["n_bytes"]
            if seen.benchmark:
                self.hits[seen.benchmark] += 1
                self.reject(seen.head, "benchmark", seen.benchmark)
            else:
                kept.append(seen)
        if not kept:
            why = "all share text with a benchmark" if self.files_in else "it is empty"
            raise InputError(f"{self.file} leaves no files ({why}): run `{MADE_BY}` again after a larger ingest")
        return kept

    def divide(self, kept: list[Seen]) -> None:
        """Give every file its split; a near-duplicate of a held-out repository's file is left out."""

        def shingles_of(wanted: Iterable[int]) -> dict[int, Hashes]:
            ids = {kept[index].head["file_id"]: index for index in wanted}
            return {ids[row["file_id"]]: shingle_set(normalised(row["content"])) for row in self.read() if row["file_id"] in ids}

        pairs = similar_pairs(np.stack([seen.signature for seen in kept]), shingles_of)
        near = near_components(len(kept), pairs)
        splits = assign([(seen.head["file_id"], seen.head["repo"]) for seen in kept], near, self.params)
        self._check(crossing(pairs, splits), kept)
        for seen, split in zip(kept, splits, strict=True):
            if split:
                self.split_of[_key(seen.head)] = split
                self.split_files[split] += 1
                self.split_bytes[split] += seen.head["n_bytes"]
            else:
                self.reject(seen.head, "near_heldout_repo", "")

    def _check(self, largest: dict[str, Pair], kept: list[Seen]) -> None:
        """Raises:
        CheckFailed: a near-duplicate pair stands in two splits.
        """
        for sides, pair in largest.items():
            names = [f"{kept[index].head['repo']}/{kept[index].head['path']}" for index in (pair.a, pair.b)]
            self.largest[sides] = {"similarity": round(pair.similarity, 4), "files": names}
            if pair.similarity >= NEAR:
                raise CheckFailed(f"{names[0]} and {names[1]} are near-duplicates in {sides}: run `python -m phase1_data clean` again")

    def heldout(self) -> Hashes:
        """Second pass: runs of words of every file that is not trained on."""
        return heldout_index(row["content"] for row in self.read() if self.split_of.get(_key(row), "train") != "train")

    def tasks(self) -> Iterator[Task]:
        """Third pass: the files with what their workers need."""
        neighbours = self._neighbours() if self.params.context_rate else {}
        shares = {split: SPARE * math.ceil(self.params.test_holes / max(self.split_files[split], 1)) for split in TEST_SPLITS}
        for row in self.read():
            split = self.split_of.get(_key(row))
            if split is not None:
                near = neighbours.get((row["repo"], split == "test_repo"))
                others = near.of(row["path"], row["content"]) if near else []
                yield Task(row | {"split": split}, others, shares.get(split, 0))

    def _neighbours(self) -> dict[tuple[str, bool], Neighbours]:
        """Per repository, the files that context may come from: those trained on, or the held-out repository's own."""
        contents: dict[tuple[str, bool], dict[str, str]] = defaultdict(dict)
        for row in self.read():
            split = self.split_of.get(_key(row))
            if split in ("train", "test_repo"):
                contents[row["repo"], split == "test_repo"][row["path"]] = row["content"]
        return {key: Neighbours(files) for key, files in contents.items()}

    def made(self) -> Iterator[tuple[Row, list[Row]]]:
        """Files and their rows."""
        setup = (self.params, self.tokenizer, self.heldout())
        work = in_order(_cut, self.tasks(), self.params.workers, _load_cutter, *setup)
        for file, made in track(work, "samples: cut", total=len(self.split_of)):
            self.lost.update({f"{file['split']}: {reason}": count for reason, count in made.lost.items()})
            yield file, made.rows

    def count(self, row: Row) -> Row:
        """Note a row that is written; return it."""
        split = row["split"]
        self.rows[split] += 1
        self.kinds[split][row["span_kind"]] += 1
        self.orders[split][row["order"]] += 1
        self.with_context[split] += bool(row["context"])
        self.tokens[split] += row["n_tokens"]
        if row["order"] != "ltr":
            self.middles[split].append(len(row["middle"]))
        return row


def _key(row: Row) -> tuple[str, str, str]:
    return row["repo"], row["path"], row["file_id"]


def _lottery(seed: int, row: Row) -> str:
    return sha256(f"{seed}:{row['sample_id']}".encode()).hexdigest()


def evenly(by_file: list[list[Row]], wanted: int) -> list[Row]:
    """Up to `wanted` rows, one of each file in turn."""
    rounds = (rows[turn] for turn in range(max(map(len, by_file), default=0)) for rows in by_file if turn < len(rows))
    return [row for _, row in zip(range(wanted), rounds, strict=False)]


def write_rows(state: Sampling, out: Path) -> None:
    """Write the four row files and files.parquet; all take their names at the end, or none does."""
    seed, limit = state.params.seed, state.params.max_train
    held: dict[str, list[list[Row]]] = defaultdict(list)
    tickets: list[str] = []
    with contextlib.ExitStack() as finish:
        path = {name: finish.enter_context(partial(out / f"{name}.parquet")) for name in (*SPLITS, "files")}
        drawn = path["train"].with_name("drawn.parquet")
        finish.callback(drawn.unlink, missing_ok=True)

        def train() -> Iterator[Row]:
            for file, rows in state.made():
                if file["split"] == "train":
                    tickets.extend(_lottery(seed, row) for row in rows if limit)
                    yield from rows if limit else map(state.count, rows)
                else:
                    held[file["split"]].append(rows)

        write_parquet(drawn if limit else path["train"], train(), SAMPLE)
        if limit:
            last = sorted(tickets)[:limit][-1:] or [""]
            state.lost["train: max_train"] = max(len(tickets) - limit, 0)
            chosen = (row for row in read_parquet(drawn, MADE_BY) if _lottery(seed, row) <= last[0])
            write_parquet(path["train"], map(state.count, chosen), SAMPLE)
        if not state.rows["train"]:
            most = state.lost.most_common(1)
            raise InputError(
                f"no row to train on (most holes lost as {most[0][0] if most else 'nothing'!r}): raise samples.row_tokens or ingest more"
            )
        write_parquet(path["valid"], map(state.count, (row for rows in held["valid"] for row in rows)), SAMPLE)
        for split in TEST_SPLITS:
            chosen_rows = evenly(held[split], state.params.test_holes)
            write_parquet(path[split], map(state.count, chosen_rows), SAMPLE)
        write_parquet(
            path["files"], (row | {"split": state.split_of[_key(row)]} for row in state.read() if _key(row) in state.split_of), FILE
        )


def counts_of(state: Sampling) -> Row:
    """What the manifest and the card say of this step."""
    short = {split: state.params.test_holes - state.rows[split] for split in TEST_SPLITS if state.split_files[split]}
    return {
        "files_in": state.files_in,
        "bytes_in": state.bytes_in,
        "files": sum(state.split_files.values()),
        "bytes": sum(state.split_bytes.values()),
        "dropped": dict(sorted(state.dropped.items())),
        "holes_lost": dict(sorted(state.lost.items())),
        "test_holes_short": {split: missing for split, missing in short.items() if missing > 0},
        "benchmark_hits": {name: state.hits[name] for name in state.params.decontaminate},
        "largest_similarity": state.largest,
        "splits": {
            split: {
                "files": state.split_files[split],
                "bytes": state.split_bytes[split],
                "rows": state.rows[split],
                "tokens": state.tokens[split],
                "with_context": state.with_context[split],
                "orders": dict(sorted(state.orders[split].items())),
                "span_kinds": dict(sorted(state.kinds[split].items())),
                "middle_characters": percentiles(state.middles[split]),
            }
            for split in SPLITS
        },
    }


def percentiles(values: list[int]) -> dict[str, int]:
    """Median, 90th and 99th percentile and maximum; empty for no values."""
    if not values:
        return {}
    ranked = sorted(values)
    return {
        name: ranked[min(int(len(ranked) * share), len(ranked) - 1)]
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1))
    }


def run(source: Path, out: Path, params: SamplesParams, reports: Path) -> Row:
    """Write the rows under `out` and the card under `reports`; return the counts."""
    run = Run("samples", out)
    state = Sampling(source, params)
    kept = state.look()
    state.divide(kept)
    write_rows(state, out)
    write_parquet(out / "rejects.parquet", state.rejects, REJECT)
    counts = counts_of(state)
    run.finish({"samples": params}, [state.file, state.tokenizer], counts, ["tokenizers", "rensa", "numpy", "pyarrow"], seed=params.seed)
    card.run(out.parent, reports)
    return counts
