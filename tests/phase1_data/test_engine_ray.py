"""Promises of `engine: ray`: on a real cluster of two machines' worth of processes, the same bytes as on one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import InputError
from phase1_data import clean, engine, scrub
from phase1_data.params import CleanParams, ScrubParams

from .conftest import CLEAN
from .test_engine import bytes_of, fail, files_in_groups

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that does no work and two workers of one core; commands find it by RAY_ADDRESS."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1)
    made.wait_for_nodes()
    os.environ["RAY_ADDRESS"] = made.address
    yield made
    ray.shutdown()
    made.shutdown()
    del os.environ["RAY_ADDRESS"]


def test_two_nodes_write_the_same_bytes_as_one_process(tmp_path: Path, cluster: Any):
    for kind in ("local", "ray"):
        out = tmp_path / kind
        files_in_groups(out / "ingest", 8, 15)
        clean.run(out / "ingest", out / "clean", CleanParams.model_validate(CLEAN | {"engine": kind}))
        files_in_groups(out / "masked/clean", 6, 10)  # what clean writes of so little is one shard
        scrub.run(out / "masked/clean", out / "masked/scrub", ScrubParams(max_masked_share=0.05, engine=kind, workers=1))
    for step in ("clean", "masked/scrub"):
        assert bytes_of(tmp_path / "ray" / step) == bytes_of(tmp_path / "local" / step)
    assert len(bytes_of(tmp_path / "ray/clean")) == 3
    assert sum(node["Resources"].get("CPU", 0) for node in ray.nodes()) == 2 and len(ray.nodes()) == 3


def test_a_failure_on_a_node_arrives_as_itself(tmp_path: Path, cluster: Any):
    folder = files_in_groups(tmp_path / "ingest", 4, 2)
    shards = engine.shards_of(folder / "files.parquet", tmp_path / "work", "make it")
    with pytest.raises(InputError, match="shard 2 is bad"):
        list(engine.run_shards(fail, shards, engine.Engine("ray", 1), "test"))
    assert [shard.done.exists() for shard in shards[:2]] == [True, True]
