"""A manifest is the same for the same work, however it was done; what differs stands beside it."""

import pytest

from core.manifest import Run
from core.params import StageParams
from core.records import read_json


class SomeParams(StageParams):
    limit: int
    workers: int
    engine: str


def test_a_manifest_does_not_say_how_many_did_it_and_the_run_does(tmp_path):
    manifests = []
    for workers, engine in ((1, "local"), (8, "ray")):
        Run("clean", tmp_path / "clean").finish({"clean": SomeParams(limit=3, workers=workers, engine=engine)}, [], {"files": 1})
        manifests.append((tmp_path / "clean/manifest.json").read_bytes())
        assert read_json(tmp_path / "runs/clean.json", "")["workers"] == workers
    assert manifests[0] == manifests[1] and b"limit" in manifests[0] and b"workers" not in manifests[0]


def test_steps_are_timed_and_add_up_also_when_they_fail(tmp_path):
    run = Run("clean", tmp_path / "clean")

    def fail() -> None:
        with run.step("measure") as step:
            step.bytes += 100
            raise RuntimeError

    for _ in range(2):
        with pytest.raises(RuntimeError):
            fail()
    run.finish({}, [], {})
    steps = read_json(tmp_path / "runs/clean.json", "")["steps"]
    assert steps["measure"]["bytes"] == 200 and steps["measure"]["seconds"] >= 0
