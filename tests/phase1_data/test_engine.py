"""Promises of the engine: a killed run goes on where it was, to the same bytes; nothing is left behind; failures are one line."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import InputError
from core.records import FILE, write_parquet
from phase1_data import clean, engine, scrub
from phase1_data.params import CleanParams, ScrubParams

from .conftest import CLEAN, code

ROOT = Path(__file__).parents[2]
SECRET = "gh" + "p_" + "aB3dE5fG7hI9jK1lM2nO4pQ6rS8tU0vW1xY2"


def a_file(number: int, content: str) -> dict:
    return {
        "file_id": hashlib.sha256(content.encode()).hexdigest(), "content": content, "path": f"pkg/mod{number}.py",
        "repo": f"lib{number % 3}", "repo_rev": "1", "source": "folder", "source_rev": "1", "license": "MIT",
        "license_how": "license_file", "lang": "python",
        "n_bytes": len(content.encode()), "split": "", "dup_cluster": "", "redactions": [],
    }  # fmt: skip


def files_in_groups(folder: Path, groups: int, files: int) -> Path:
    """files.parquet in many small row groups, which are shards: files of their own, copies, near copies, names, secrets."""
    rng = random.Random(3)
    texts: list[str] = []
    for number in range(groups * files):
        text = code(number, 12)
        if number % 10 == 3:
            text += f"# maintained by joe{number}@acme.org\nTOKEN = '{SECRET}'\n"
        if number % 10 == 7:
            text = rng.choice(texts) + ("" if number % 20 == 7 else f"\nlast_line_{number} = 1\n")
        texts.append(text)
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([a_file(*each) for each in enumerate(texts)], FILE), folder / "files.parquet", row_group_size=files)
    return folder


def bytes_of(folder: Path) -> dict[str, str]:
    """sha256 of every Parquet file of a step; its manifest names the folder it read."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob("*.parquet"))}


@pytest.fixture(scope="session", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The commands run from a copy of the code: a run goes on only if the code is the same, and somebody may be editing it."""
    global _code
    _code = tmp_path_factory.mktemp("code")
    for package in ("core", "phase1_data"):
        shutil.copytree(ROOT / package, _code / package, ignore=shutil.ignore_patterns("out*", "__pycache__", "notebooks"))


_code = ROOT


def start(step: str, out: Path, params: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "phase1_data", step, "--out", str(out), "--params", str(params)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(_code)}
    return subprocess.Popen(
        command, cwd=_code, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listen_to_ctrl_c
    )


def listen_to_ctrl_c() -> None:
    """What runs in the background of a shell inherits that Ctrl-C is ignored, and would hand it on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finish(step: str, out: Path, params: Path) -> str:
    child = start(step, out, params)
    _, said = child.communicate(timeout=120)
    assert child.returncode == 0, said
    return said


def kill_when(child: subprocess.Popen[str], work: Path, pattern: str, count: int) -> dict[Path, int]:
    """SIGKILL the command as soon as so many files match; when each part that was done was written."""
    deadline = time.monotonic() + 60
    while len(list(work.glob(pattern))) < count:
        assert child.poll() is None and time.monotonic() < deadline, (child.returncode, child.communicate()[1])
        time.sleep(0.001)
    family = psutil.Process(child.pid).children(recursive=True)
    child.kill()
    child.communicate()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive, "a worker outlives its parent"
    return {done: done.stat().st_mtime_ns for done in work.glob("*/*/part-*.json")}


@pytest.fixture
def many(tmp_path: Path) -> Path:
    return files_in_groups(tmp_path / "whole" / "ingest", 16, 12).parent


@pytest.mark.parametrize(
    ("step", "before", "moments"),
    [
        ("clean", "ingest", [("measure/part-*.json", 5), ("survive/part-*.json", 3)]),
        ("scrub", "clean", [("mask/part-*.json", 4)]),
    ],
)
def test_a_run_that_was_killed_again_and_again_goes_on_to_the_same_bytes(tmp_path: Path, params_file, step, before, moments):
    params = params_file([{"kind": "folder", "paths": ["x"], "license": None}], clean={"workers": 2}, scrub={"workers": 2})
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for out in (whole, broken):
        files_in_groups(out / before, 16, 12)
    if step == "clean":
        clean.run(whole / before, whole / step, CleanParams.model_validate(CLEAN))
    else:
        scrub.run(whole / before, whole / step, ScrubParams(max_masked_share=0.05, engine="local", workers=1))
    done: dict[Path, int] = {}
    for pattern, count in moments:
        now = kill_when(start(step, broken, params), broken / ".work", f"{step}-*/{pattern}", count)
        assert done.items() <= now.items(), "a part that was done was done again"
        assert not (broken / step / "files.parquet").exists()
        done = now
    last = sum(part.parent.name in ("survive", "mask") for part in done)
    assert f"continues: {last} of 16 shards done" in finish(step, broken, params) and 0 < last < 16
    assert bytes_of(broken / step) == bytes_of(whole / step)
    assert not (broken / ".work").exists()


def test_the_memory_of_a_stage_is_not_its_input(tmp_path: Path, many: Path):
    shards = engine.shards_of(many / "ingest/files.parquet", tmp_path / "work", "make it")
    assert [shard.rows for shard in shards] == [12] * 16
    assert shards[3].table(["path"]).to_pylist()[0] == {"path": "pkg/mod36.py"}
    assert sum(shard.size for shard in shards) == engine.pending_bytes(shards) > 0


def test_other_params_or_input_do_not_go_on_from_old_parts(tmp_path: Path, many: Path, params_file):
    sources = [{"kind": "folder", "paths": ["x"], "license": None}]
    loose, strict = (params_file(sources, clean={"min_lines": lines}).rename(tmp_path / f"{lines}.yaml") for lines in (3, 4))
    kill_when(start("clean", many, loose), many / ".work", "clean-*/measure/part-*.json", 3)
    assert "continues" not in finish("clean", many, strict)
    assert not (many / ".work").exists()


def test_ctrl_c_is_one_line_and_leaves_no_process(many: Path, params_file):
    child = start("clean", many, params_file([{"kind": "folder", "paths": ["x"], "license": None}], clean={"workers": 2}))
    while not list((many / ".work").glob("clean-*/measure/part-*.json")):
        time.sleep(0.01)
    family = psutil.Process(child.pid).children(recursive=True)
    for process in (psutil.Process(child.pid), *family):  # as a terminal does
        if process.is_running():
            process.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert child.returncode == 75 and "Traceback" not in said and said.splitlines()[-1] == "stopped; run the same command to go on"
    assert not psutil.wait_procs(family, timeout=10)[1]


def fail(shard: engine.Shard) -> dict:
    if shard.number == 2:
        raise InputError("shard 2 is bad: mend it")
    return {"rows": shard.rows}


def die(shard: engine.Shard) -> dict:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_in_a_worker_arrives_as_itself_after_the_results_before_it(tmp_path: Path, many: Path, workers: int):
    shards = engine.shards_of(many / "ingest/files.parquet", tmp_path / "work", "make it")[:5]
    results = engine.run_shards(fail, shards, engine.Engine("local", workers), "test")
    assert [next(results), next(results)] == [{"rows": 12}] * 2
    with pytest.raises(InputError, match="shard 2 is bad"):
        next(results)


def test_a_worker_that_is_killed_is_told_in_one_line(tmp_path: Path, many: Path):
    shards = engine.shards_of(many / "ingest/files.parquet", tmp_path / "work", "make it")
    with pytest.raises(engine.MachineError, match="lower `workers`"):
        list(engine.run_shards(die, shards, engine.Engine("local", 2), "test"))


def test_without_ray_the_way_to_it_is_named(tmp_path: Path, many: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    shards = engine.shards_of(many / "ingest/files.parquet", tmp_path / "work", "make it")
    with pytest.raises(engine.MachineError, match=r"pip install 'tabsmith\[ray\]'"):
        list(engine.run_shards(fail, shards, engine.Engine("ray", 2), "test"))


def test_a_full_disk_is_one_line(many: Path, params_file):
    (many / "clean").mkdir()
    (many / "clean/files.parquet.partial.partial").symlink_to("/dev/full")
    child = start("clean", many, params_file([{"kind": "folder", "paths": ["x"], "license": None}]))
    _, said = child.communicate(timeout=60)
    assert child.returncode == 5 and said.splitlines()[-1] == "error: no space left while writing a file: free some and rerun", said
    (many / "clean/files.parquet.partial.partial").unlink(missing_ok=True)
    assert "continues: 16 of 16" in finish("clean", many, params_file([{"kind": "folder", "paths": ["x"], "license": None}]))


def test_parts_are_joined_without_their_small_groups(tmp_path: Path):
    def rows(first: int, count: int, size: int) -> list[dict]:
        return [a_file(number, f"{number} " + "x" * size) for number in range(first, first + count)]

    parts = [tmp_path / f"{name}.parquet" for name in range(5)]
    for part, (count, size) in zip(parts, [(200, 10), (0, 0), (250, 10), (100, 10), (3, 3_000_000)], strict=True):
        write_parquet(part, rows(int(part.stem) * 1000, count, size), FILE)
    assert engine.join_parts(tmp_path / "whole.parquet", parts, FILE) == 553
    with pq.ParquetFile(tmp_path / "whole.parquet") as file:
        assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [450, 101, 1, 1]
        assert [table["path"] for table in file.read(["path"]).to_pylist()][449:451] == ["pkg/mod2249.py", "pkg/mod3000.py"]
