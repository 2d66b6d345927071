"""Promises of samples at scale: killed, on more processes or on a cluster, the bytes are the same; memory is not its input."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core import canary
from core.records import read_parquet
from phase1_data import samples
from phase1_data.engine import Shard
from phase1_data.params import SamplesParams
from phase1_data.pool import groups_of, others_of, write_index, write_texts
from phase1_data.split import SPLITS, heldout_repos

from .conftest import SAMPLES
from .test_engine import bytes_of, finish, installed, kill_when, start  # noqa: F401  # a fixture
from .test_engine_ray import cluster  # noqa: F401
from .test_samples import command

CHANGED = {"heldout_repos": ["second"], "max_train": 150, "test_holes": 40, "workers": 1}


def regroup(file: Path, rows: int) -> None:
    """Write the file again in small row groups, each of which is a shard."""
    pq.write_table(pq.read_table(file), file, row_group_size=rows)


@pytest.fixture
def scrubbed(tmp_path: Path, repo, params_file) -> tuple[Path, Path]:
    """A folder where samples can start, canaries in it, in 14 shards, and the params file."""
    first, second = repo("first", 60), repo("second", 12, 200)
    near = (first / "pkg/mod1.py").read_text()
    (second / "pkg/near.py").write_text(near + "\nLIMIT = 3\n")
    params = params_file(
        [{"kind": "folder", "paths": [str(first), str(second)], "license": None}],
        ingest={"canaries": 6},
        clean={"dedup_threshold": 1.0},
        samples=CHANGED,
    )
    out = tmp_path / "whole"
    for step in ("ingest", "clean", "scrub"):
        done = command(step, params, out)
        assert done.exit_code == 0, done.output
    regroup(out / "scrub/files.parquet", 6)
    return out, params


def run(root: Path, to: Path, tokenizer: Path, **changed: Any) -> Path:
    """samples on a copy of root."""
    shutil.copytree(root, to)
    params = SamplesParams.model_validate(SAMPLES | {"tokenizer": str(tokenizer)} | CHANGED | changed)
    samples.run(to / "scrub", to / "samples", params, to / "reports")
    assert not (to / ".work").exists()
    return to / "samples"


def test_a_run_that_was_killed_at_every_step_goes_on_to_the_same_bytes(tmp_path: Path, scrubbed):
    whole, params = scrubbed
    broken = tmp_path / "broken"
    shutil.copytree(whole, broken)
    assert "continues" not in finish("samples", whole, params)
    for pattern, count in (("look/part-*.json", 4), ("place/part-*.json", 2), ("cut-0/part-*.json", 3)):
        kill_when(start("samples", broken, params), broken / ".work", f"samples-*/{pattern}", count)
        assert not list((broken / "samples").glob("*.parquet"))
    assert "continues" in finish("samples", broken, params)
    assert bytes_of(broken / "samples") == bytes_of(whole / "samples") and len(bytes_of(whole / "samples")) == 6
    card = "data_card.json"
    assert (broken / "reports" / card).read_bytes() == (whole / "reports" / card).read_bytes()
    assert not (broken / ".work").exists()


def test_neither_processes_nor_row_groups_of_the_input_change_a_row(tmp_path: Path, scrubbed, tokenizer_file):
    out, _ = scrubbed
    made = {}
    for rows, workers in ((6, 1), (6, 2), (11, 1)):
        regroup(out / "scrub/files.parquet", rows)
        made[rows, workers] = run(out, tmp_path / f"{rows}-{workers}", tokenizer_file, workers=workers)
    assert bytes_of(made[6, 1]) == bytes_of(made[6, 2])
    for name in ("train", "valid", "test_file", "test_repo"):
        assert list(read_parquet(made[6, 1] / f"{name}.parquet", "")) == list(read_parquet(made[11, 1] / f"{name}.parquet", ""))


def test_every_canary_is_trained_on_and_none_is_held_out(tmp_path: Path, scrubbed, tokenizer_file):
    made = run(scrubbed[0], tmp_path / "made", tokenizer_file, max_train=60, heldout_file_share=0.5)
    assert heldout_repos([canary.REPO, "a"], SamplesParams.model_validate(SAMPLES | {"heldout_repo_share": 1.0})) == {"a"}
    planted = canary.plant(6, 17)
    rows = {name: [row for row in read_parquet(made / f"{name}.parquet", "") if row["repo"] == canary.REPO] for name in SPLITS}
    assert {row["path"] for row in rows["train"]} == {one.path for one in planted} and not any(rows[name] for name in SPLITS[1:])
    text = "".join(row["prefix"] + row["middle"] + row["suffix"] for row in rows["train"])
    assert not any(one.value in text for one in planted) and "<SECRET_1>" in text


def test_two_nodes_of_a_cluster_write_the_same_bytes(tmp_path: Path, scrubbed, tokenizer_file, cluster):  # noqa: F811
    out, _ = scrubbed
    made = {kind: run(out, tmp_path / kind, tokenizer_file, engine=kind) for kind in ("local", "ray")}
    assert bytes_of(made["ray"]) == bytes_of(made["local"])
    rejects = list(read_parquet(made["ray"] / "rejects.parquet", ""))
    assert [(row["path"], row["reason"]) for row in rejects] == [("first/pkg/mod1.py", "near_heldout_repo")]


def test_rounds_go_on_until_there_are_enough_rows_or_no_more_holes(tmp_path: Path, scrubbed, tokenizer_file, monkeypatch):
    out, _ = scrubbed
    one = run(out, tmp_path / "one", tokenizer_file, workers=1)
    monkeypatch.setattr("phase1_data.drawn.SPARE", 0.01)
    many = run(out, tmp_path / "many", tokenizer_file, workers=1)
    for name in ("train", "valid", "test_file", "test_repo"):
        rows = [sorted(row["sample_id"] for row in read_parquet(folder / f"{name}.parquet", "")) for folder in (one, many)]
        assert rows[0] == rows[1] and len(rows[0]) == {"train": 150, "test_file": 40, "test_repo": 40}.get(name, len(rows[0]))


def test_texts_of_a_pool_are_read_one_by_one_and_a_large_repository_in_parts(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("phase1_data.pool.MOST", 3)
    texts = [f"é{number}" * number for number in range(10)]
    repos = np.array([0, 0, 0, 0, 1, 0, 2, 2, 0, 0])
    sides = np.array([0, 0, 0, 0, 0, 0, 0, 1, -1, 0])
    groups = groups_of(repos, sides)
    assert (groups >= 0).tolist() == [True, True, True, True, False, True, False, False, False, True]
    shards = [Shard(tmp_path, "", number, 5, 0, tmp_path) for number in range(2)]
    for shard in shards:
        part = slice(5 * shard.number, 5 * shard.number + 5)
        write_texts(shard, pa.chunked_array([texts[part]]), groups[part] >= 0)
    write_index(groups, pa.chunked_array([[f"pkg/{number}.py" for number in range(10)]]), shards, tmp_path)
    found = {number: dict(others_of(tmp_path, number, f"pkg/{number}.py", "")) for number in range(10)}
    assert all(text == texts[int(path[4:-3])] for others in found.values() for path, text in others.items())
    assert set(found[0]) == {"pkg/1.py", "pkg/2.py"} and set(found[9]) == {"pkg/3.py", "pkg/5.py"} and not found[4] and not found[8]
