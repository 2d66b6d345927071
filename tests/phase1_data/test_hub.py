"""Promises of code sets: columns are probed, and a set that cannot be had is told in seconds with the next step."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from core.records import read_parquet
from phase1_data.cli import app

from .conftest import code
from .fake_hub import SHA, fake_hub

ROOT = Path(__file__).parents[2]
STACK = {"max_stars_repo_name": "ann/lib", "max_stars_repo_path": "lib/a.py", "max_stars_repo_licenses": ["MIT", "ISC"], "lang": "Python"}


def hub(where: object, **changed: object) -> dict:
    return {"kind": "hub", "id": str(where), "revision": None, "data_dir": None, "split": "train"} | changed


def ingest(params: Path, out: Path):
    return CliRunner().invoke(app, ["ingest", "--params", str(params), "--out", str(out)])


def parquet(rows: list[dict]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("row", "want"),
    [
        ({"content": code(1), **STACK}, ("lib/a.py", "ann/lib", "MIT AND ISC", "column", "python")),
        ({"code": code(1), "repo_name": "x", "path": "a.py", "license": "apache-2.0"}, ("a.py", "x", "Apache-2.0", "column", "python")),
        ({"text": code(1), "repository_name": "x", "path": "a.py", "licenses": []}, ("a.py", "x", "unknown", "none", "python")),
        ({"content": code(1), "lang": "python"}, ("row0", "unknown", "unknown", "none", "python")),
        ({"content": code(1), **STACK, "max_stars_repo_path": None}, ("row0", "ann/lib", "MIT AND ISC", "column", "python")),
    ],
)
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_columns_are_found_under_the_names_that_sets_use(tmp_path, params_file, row, want, kind):
    file = tmp_path / f"set.{kind}"
    file.write_bytes(parquet([row]) if kind == "parquet" else json.dumps(row).encode() + b"\n")
    done = ingest(params_file([hub(file)]), tmp_path / "out")
    assert done.exit_code == 0, done.output
    (got,) = read_parquet(tmp_path / "out/ingest/files.parquet", "")
    assert tuple(got[key] for key in ("path", "repo", "license", "license_how", "lang")) == want


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("set.jsonl", b'{"content": "x = 1"}\n{oops\n', "set.jsonl:2: not JSON"),
        ("set.jsonl", b"[1]\n", "set.jsonl:1: not a JSON object"),
        ("set.jsonl", b'{"blob_id": "a", "path": "b"}\n', "it has blob_id, path; this set holds ids only"),
        ("set.parquet", parquet([{"content": "x = 1\n" * 2000}])[:-30], "set.parquet is damaged"),
        ("set.parquet", b"", "set.parquet is damaged"),
        ("set.parquet", None, "set.parquet is missing"),
        ("folder", None, "folder holds no .parquet file"),
        ("set.parquet", parquet([{"content": None, "path": "a.py"}]), "no_content"),
        ("set.jsonl", b"", "the sources are empty"),
    ],
)
def test_a_bad_local_set_is_one_line_that_names_the_file(tmp_path, params_file, name, data, says):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    elif name == "folder":
        (tmp_path / name).mkdir()
    done = ingest(params_file([hub(tmp_path / name)]), tmp_path / "out")
    assert done.exit_code == 2 and says in done.stderr and done.stderr.count("error:") == 1
    assert not list((tmp_path / "out").rglob("*.parquet*"))


def hub_process(tmp_path: Path, params: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as people run it, because huggingface_hub reads its environment when it is imported."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    command = [sys.executable, "-m", "phase1_data", "ingest", "--params", str(params), "--out", str(tmp_path / "out")]
    home = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    return subprocess.run(command, cwd=ROOT, env=clean | home | environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("refuse", "says"),
    [
        ((403, "GatedRepo"), "is gated: accept its terms at http"),
        ((404, "RepoNotFound"), "is not on the Hub, or private"),
        ((404, "RevisionNotFound"), "has no revision"),
        ((503, ""), "the Hub answered 503"),
    ],
)
def test_a_set_that_is_refused_is_told_in_seconds(tmp_path, params_file, refuse, says):
    started = time.monotonic()
    with fake_hub({}, refuse) as endpoint:
        done = hub_process(tmp_path, params_file([hub("some/set", revision="v1")]), HF_ENDPOINT=endpoint)
    assert done.returncode == 3 and says in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert time.monotonic() - started < 15


@pytest.mark.parametrize(
    ("environment", "says"),
    [({"HF_ENDPOINT": "http://127.0.0.1:9"}, "out of reach"), ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set")],
)
def test_offline_is_told_in_seconds(tmp_path, params_file, environment, says):
    started = time.monotonic()
    done = hub_process(tmp_path, params_file([hub("some/set")]), **environment)
    assert done.returncode == 3 and says in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert time.monotonic() - started < 15


def test_a_loading_script_is_refused_with_the_way_round_it(tmp_path, params_file):
    with fake_hub({"set.py": b"raise SystemExit('ran')"}) as endpoint:
        done = hub_process(tmp_path, params_file([hub("some/set")]), HF_ENDPOINT=endpoint)
    assert done.returncode == 2 and "refs/convert/parquet" in done.stderr and "ran" not in done.stderr, done.stderr


def test_a_set_is_streamed_and_its_commit_recorded(tmp_path, params_file):
    rows = [{"content": code(seed), **STACK, "max_stars_repo_path": f"m{seed}.py"} for seed in range(8)]
    params = params_file([hub("some/set")], ingest={"max_files": 3})
    with fake_hub({"data/train-00000-of-00001.parquet": parquet(rows)}) as endpoint:
        done = hub_process(tmp_path, params, HF_ENDPOINT=endpoint)
    assert done.returncode == 0, done.stderr
    got = list(read_parquet(tmp_path / "out/ingest/files.parquet", ""))
    assert [row["path"] for row in got] == ["m0.py", "m1.py", "m2.py"]  # the stream is left before its end
    assert {(row["source"], row["source_rev"]) for row in got} == {("hub:some/set", SHA)}
    assert yaml.safe_load(params.read_text())  # the params file is as it was
