"""Decontaminate, split, and cut the rows that models are trained and tested on.

In:  scrub/files.parquet, a tokenizer, benchmarks that must not be trained on
Out: train, valid, test_file and test_repo.parquet (core.records.SAMPLE), files.parquet with `split`, rejects.parquet,
     manifest.json, and the data card

Three passes over the shards of the input: look (phase1_data.look), place (phase1_data.place), cut (phase1_data.cut). The
files are compared and split between the first two; the holes are drawn before they are cut.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from core.errors import CheckFailed, InputError
from core.manifest import Run
from core.records import FILE, REJECT, SAMPLE, Row, partial, read_groups, read_json, write_json, write_parquet
from phase1_data import card, pool
from phase1_data.cut import Cutting, cut
from phase1_data.decontaminate import benchmark_texts, index_of, merge, require
from phase1_data.dedup import Components, Places
from phase1_data.drawn import Drawn
from phase1_data.engine import Engine, join_parts, join_tables, pending_bytes, remove_work, run_shards, shards_of, work_folder
from phase1_data.join import edges_here, write_places
from phase1_data.look import Looking, Seen, look
from phase1_data.params import SamplesParams
from phase1_data.place import FIRSTS, POOLS, RUNS, SIDES, place, save
from phase1_data.rows import TEST_SPLITS
from phase1_data.shingles import jaccard
from phase1_data.split import BANDS, NEAR, SPLITS, Pair, assign, crossing, most_alike
from phase1_data.tokenizer import Ruler, locate

MADE_BY = "python -m phase1_data scrub"
TRAIN, TEST_REPO = SPLITS.index("train"), SPLITS.index("test_repo")


class Sampling:
    """One run: what stands where in the work folder, and what was counted."""

    def __init__(self, source: Path, out: Path, params: SamplesParams) -> None:
        require(params.decontaminate)
        self.file, self.params, self.engine = source / "files.parquet", params, Engine.of(params)
        self.named = locate(params.tokenizer, params.tokenizer_revision)  # as the manifest has it: the same in every checkout
        self.tokenizer = self.named.resolve()  # workers may stand elsewhere
        Ruler(self.tokenizer)  # a tokenizer without markers is told now, not by a worker
        inputs = [self.file, self.tokenizer, *map(Path, params.decontaminate)]
        self.work = work_folder(out, "samples", params, inputs)
        self.shards = {step: shards_of(self.file, self.work / step, MADE_BY) for step in ("look", "place")}
        self.rejects: list[Row] = []
        self.lost: Counter[str] = Counter()  # holes
        self.files_in = self.bytes_in = 0

    def look(self) -> Seen:
        """First pass."""
        suites = []
        for number, name in enumerate(self.params.decontaminate):
            path = self.work / f"suite-{number}.u64"
            if not path.is_file():
                with partial(path) as unfinished:
                    index_of(benchmark_texts(Path(name)), self.params.ngram).tofile(unfinished)
            suites.append((name, path))
        how = Looking(self.tokenizer, self.params.row_tokens, self.params.ngram, tuple(suites))
        for summary in run_shards(functools.partial(look, how=how), self.shards["look"], self.engine, "samples: look"):
            self.files_in += summary["files"]
            self.bytes_in += summary["bytes"]
        if not self.files_in:
            raise InputError(f"{self.file} leaves no files (it is empty): run `{MADE_BY}` again after a larger ingest")
        return Seen(self.shards["look"])

    def divide(self, seen: Seen) -> NDArray[np.int8]:
        """The side of every file: its place in SPLITS, or -1 for one that is left out and told in `rejects`."""
        hits = pc.list_value_length(seen.heads["benchmarks"]).to_numpy()
        if (hits > 0).all():
            raise InputError(f"{self.file} leaves no files (all share text with a benchmark): run `{MADE_BY}` again after a larger ingest")
        done = self.work / "split.json"
        if not done.is_file():
            sides, largest = self._divide(seen, np.flatnonzero(hits == 0))
            save(self.work / SIDES, sides)
            save(self.work / FIRSTS, seen.first)
            write_json(done, largest)
        sides = np.load(self.work / SIDES)
        for index in np.flatnonzero(sides < 0).tolist():
            suites = seen.heads["benchmarks"][index].as_py()
            reason = "benchmark" if suites else "near_heldout_repo"
            self.rejects.append({"path": seen.name(index), "stage": "samples", "reason": reason, "value": ", ".join(suites)})
        return sides  # type: ignore[no-any-return]

    def _divide(self, seen: Seen, kept: Places) -> tuple[NDArray[np.int8], Row]:
        """Sides, and the most alike pair across any two.

        Raises:
            CheckFailed: a near-duplicate pair stands on two sides.
        """
        sets = write_places(seen, self.shards["look"][0].folder)
        near = Components(kept.size)
        for a, b in self._edges(seen, kept):
            near.join(a, b)
        splits = assign(_Named(seen, kept), near, self.params)
        sides = np.full(len(seen), -1, np.int8)
        sides[kept] = [SPLITS.index(split) if split else -1 for split in splits]
        pairs = most_alike(seen.band, seen.sizes, seen.signatures(self.work), sides)
        ranked = sorted((Pair(jaccard(sets.of(a), sets.of(b)), a, b) for a, b in pairs), key=lambda pair: (-pair.similarity, *pair[1:]))
        largest = crossing(ranked, [SPLITS[side] if side >= 0 else "" for side in sides.tolist()])
        for between, pair in largest.items():
            if pair.similarity >= NEAR:
                what = f"{seen.name(pair.a)} and {seen.name(pair.b)} are near-duplicates in {between}"
                raise CheckFailed(f"{what}: run `python -m phase1_data clean` again")
        return sides, {
            between: {"similarity": round(pair.similarity, 4), "files": [seen.name(pair.a), seen.name(pair.b)]}
            for between, pair in largest.items()
        }

    def _edges(self, seen: Seen, kept: Places) -> Iterator[tuple[int, int]]:
        if self.engine.kind == "ray":
            from phase1_data.join_ray import edges_on_ray

            return edges_on_ray(seen, kept, BANDS, NEAR, workers=self.engine.workers)
        return edges_here(seen, kept, BANDS, NEAR)

    def place(self, seen: Seen, sides: NDArray[np.int8]) -> Path:
        """Second pass; returns the index of held-out runs."""
        pools = np.full(len(seen), -1)
        if self.params.context_rate and self.params.context_tokens:
            sources = np.select([sides == TRAIN, sides == TEST_REPO], [0, 1], -1)
            pools = pool.groups_of(seen.repos.astype(np.int64), sources)
        save(self.work / POOLS, pools)
        shards = self.shards["place"]
        for _ in run_shards(functools.partial(place, work=self.work), shards, self.engine, "samples: place"):
            pass
        heldout = self.work / "heldout.u64"
        if not heldout.is_file():
            merge([shard.part(RUNS) for shard in shards], heldout)
        if not (self.work / "place" / "pool.arrow").is_file():
            pool.write_index(pools, seen.heads["path"], shards, self.work / "place")
        return heldout

    def cut(self, seen: Seen, sides: NDArray[np.int8], heldout: Path) -> Drawn:
        """Third pass, again for more tickets while some split has too few rows."""
        drawn = Drawn(self.params, self.shards["look"], seen.windows, sides)
        while wanted := drawn.wanted():
            folder = self.work / f"cut-{len(drawn.rounds)}"
            how = Cutting(self.params, self.tokenizer, self.work, self.work / "look", self.work / "place", heldout, wanted)
            shards = shards_of(self.file, folder, MADE_BY)
            for summary in run_shards(functools.partial(cut, how=how), shards, self.engine, "samples: cut"):
                self.lost.update(summary)
            drawn.add(folder, wanted)
        return drawn


class _Named(Sequence[tuple[str, str]]):
    """(file_id, repo) of the files that were kept, read when asked for."""

    def __init__(self, seen: Seen, kept: Places) -> None:
        self.ids, self.repos, self.names, self.kept = seen.heads["file_id"].combine_chunks(), seen.repos, seen.repo_names, kept

    def __len__(self) -> int:
        return int(self.kept.size)

    def __getitem__(self, at: Any) -> Any:
        index = self.kept[at]
        return self.ids[index].as_py(), self.names[self.repos[index]]


def write_rows(state: Sampling, drawn: Drawn, out: Path) -> dict[str, Row]:
    """Write the four row files, files.parquet and rejects.parquet; all take their names at the end, or none does."""
    with contextlib.ExitStack() as finish:
        path = {name: finish.enter_context(partial(out / f"{name}.parquet")) for name in (*SPLITS, "files", "rejects")}
        for split in SPLITS:
            join_tables(path[split], drawn.chosen(split), SAMPLE)
        counts = {split: _rows_of(path[split]) for split in SPLITS}
        if not counts["train"]["rows"]:
            most = state.lost.most_common(1)
            why = f"most holes lost as {most[0][0] if most else 'nothing'!r}"
            raise InputError(f"no row to train on ({why}): raise samples.row_tokens or ingest more")
        join_parts(path["files"], [shard.part() for shard in state.shards["place"]], FILE)
        write_parquet(path["rejects"], state.rejects, REJECT)
    return counts


def _rows_of(path: Path) -> Row:
    """What a file of rows holds, in numbers."""
    kinds: Counter[str] = Counter()
    orders: Counter[str] = Counter()
    middles: Counter[int] = Counter()  # by characters
    total: Counter[str] = Counter(rows=0, tokens=0, with_context=0)
    for table in read_groups(path, MADE_BY, ["order", "span_kind", "middle", "context", "n_tokens"]):
        kinds.update(table["span_kind"].to_pylist())
        orders.update(table["order"].to_pylist())
        holes = table.filter(pc.not_equal(table["order"], "ltr"))
        middles.update(pc.utf8_length(holes["middle"]).to_pylist())
        context = pc.sum(pc.greater(pc.list_value_length(table["context"]), 0)).as_py() or 0
        total.update(rows=len(table), tokens=pc.sum(table["n_tokens"]).as_py() or 0, with_context=context)
    return {
        **total,
        "orders": dict(sorted(orders.items())),
        "span_kinds": dict(sorted(kinds.items())),
        "middle_characters": percentiles(middles),
    }


def counts_of(state: Sampling, seen: Seen, sides: NDArray[np.int8], drawn: Drawn, rows: dict[str, Row]) -> Row:
    """What the manifest and the card say of this step."""
    n_bytes = seen.heads["n_bytes"].to_numpy()
    files = {
        split: {"files": int((sides == number).sum()), "bytes": int(n_bytes[sides == number].sum())} for number, split in enumerate(SPLITS)
    }
    short = {split: state.params.test_holes - rows[split]["rows"] for split in TEST_SPLITS if files[split]["files"]}
    lost = state.lost.copy()
    if state.params.max_train:
        cut_in_vain = sum(count for reason, count in lost.items() if reason.startswith("train: "))
        lost["train: max_train"] = drawn.planned("train") - cut_in_vain - rows["train"]["rows"]
    hits: Counter[str] = Counter(pc.list_flatten(seen.heads["benchmarks"]).to_pylist())
    return {
        "files_in": state.files_in,
        "bytes_in": state.bytes_in,
        "files": sum(split["files"] for split in files.values()),
        "bytes": sum(split["bytes"] for split in files.values()),
        "dropped": dict(sorted(Counter(reject["reason"] for reject in state.rejects).items())),
        "holes_lost": {reason: count for reason, count in sorted(lost.items()) if count},
        "test_holes_short": {split: missing for split, missing in short.items() if missing > 0},
        "benchmark_hits": {name: hits[name] for name in state.params.decontaminate},
        "largest_similarity": read_json(state.work / "split.json", MADE_BY),
        "splits": {split: files[split] | rows[split] | {"holes": drawn.planned(split)} for split in SPLITS},
    }


def percentiles(counted: Counter[int]) -> dict[str, int]:
    """Median, 90th and 99th percentile and maximum of values with their number; empty for none."""
    if not counted:
        return {}
    values = sorted(counted)
    upto = np.cumsum([counted[value] for value in values])
    total = int(upto[-1])
    shares = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1))
    return {name: values[int(np.searchsorted(upto, min(int(total * share), total - 1), side="right"))] for name, share in shares}


def run(source: Path, out: Path, params: SamplesParams, reports: Path) -> Row:
    """Write the rows under `out` and the card under `reports`; return the counts."""
    run = Run("samples", out)
    state = Sampling(source, out, params)
    with run.step("look") as step:
        step.bytes = pending_bytes(state.shards["look"])
        seen = state.look()
    with run.step("split"):
        sides = state.divide(seen)
    with run.step("place") as step:
        step.bytes = pending_bytes(state.shards["place"])
        heldout = state.place(seen, sides)
    with run.step("cut") as step:
        drawn = state.cut(seen, sides, heldout)
        step.bytes = state.bytes_in
    with run.step("write"):
        counts = counts_of(state, seen, sides, drawn, write_rows(state, drawn, out))
    inputs = [state.file, state.named, *map(Path, params.decontaminate)]
    run.finish({"samples": params}, inputs, counts, ["tokenizers", "rensa", "numpy", "pyarrow"], seed=params.seed)
    remove_work(state.work)
    card.run(out.parent, reports)
    return counts
