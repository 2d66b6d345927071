"""Promises of code sets: columns are probed, and a set that cannot be had is told in seconds with the next step."""

from __future__ import annotations

import gzip
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
        ("set.jsonl", b"[1]\n", "turned down as 'not_object' (1 of 1)"),
        ("set.jsonl", b'{"content": "x', "turned down as 'torn_line' (1 of 1)"),
        ("set.jsonl", b"\n \n", "the sources are empty"),
        ("set.jsonl.gz", gzip.compress(b'{"content": "x = 1"}\n' * 99, mtime=0)[:-9], "set.jsonl.gz is damaged after line"),
        ("set.jsonl", b"\x28\xb5\x2f\xfd0000", "set.jsonl is zstd, not JSONL: use zstd -dc"),
        ("set.jsonl", parquet([{"content": "x = 1"}]), "set.jsonl is Parquet, not JSONL"),
        ("set.parquet", parquet([{"id": "x", "body_text": "y"}]), "it has id, body_text"),
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


def counts(out: Path) -> dict:
    return json.loads((out / "ingest/manifest.json").read_text())["counts"]


def rejects(out: Path) -> set[tuple[str, str, str]]:
    return {(row["path"], row["reason"], row["value"]) for row in read_parquet(out / "ingest/rejects.parquet", "")}


def test_a_folder_is_read_past_what_is_damaged_in_it(tmp_path, params_file):
    folder = tmp_path / "set"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.parquet").write_bytes(parquet([{"content": code(1), **STACK}]))
    (folder / "b.parquet").write_bytes(parquet([{"content": code(2), **STACK}] * 50)[:-40])
    (folder / "c.parquet").write_bytes(parquet([{"name": "no code here"}]))
    (folder / "deep" / "d.json.gz").write_bytes(gzip.compress(json.dumps({"content": code(3), "path": "d.py"}).encode() + b"\n"))
    (folder / "e.jsonl.gz").write_bytes(gzip.compress(b"{}" * 9999)[:-20])
    (folder / "f.jsonl").write_bytes(b'{"text": "x = 1", "path": "f.py"}\n{oops\n\n[2]\n{"path": "n.py"}\n{"text": "y')
    os.mkfifo(folder / "g.jsonl")
    (folder / "h.parquet").symlink_to("nowhere")
    (folder / "dataset_info.json").write_text("{}")
    (folder / "loop").symlink_to(folder)
    done = ingest(params_file([hub(folder)]), tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert {row["path"] for row in read_parquet(tmp_path / "out/ingest/files.parquet", "")} == {"lib/a.py", "d.py", "f.py"}
    bad_line = "Expecting property name enclosed in double quotes (character 2 of 5)"
    torn = "Unterminated string starting at (character 10 of 11)"
    assert rejects(tmp_path / "out") == {
        ("hub:set/b.parquet", "damaged_parquet", "after row 0"),
        ("hub:set/c.parquet", "wrong_columns", "name"),
        ("hub:set/e.jsonl.gz", "damaged_jsonl", "after line 0"),
        ("hub:set/f.jsonl line 2", "bad_json", bad_line),
        ("hub:set/f.jsonl line 4", "not_object", "list"),
        ("hub:set/f.jsonl line 6", "torn_line", torn),
        ("unknown/n.py", "no_content", ""),
        ("hub:set/g.jsonl", "special_file", ""),
        ("hub:set/h.parquet", "unreadable", "No such file or directory"),
    }
    assert counts(tmp_path / "out")["files_seen"] == 12


def test_a_folder_in_which_nothing_can_be_read_is_refused_by_the_first_reason(tmp_path, params_file):
    (tmp_path / "set").mkdir()
    for name in ("a.parquet", "b.parquet"):
        (tmp_path / "set" / name).write_bytes(b"PAR1 no")
    done = ingest(params_file([hub(tmp_path / "set")]), tmp_path / "out")
    assert done.exit_code == 2 and "no file of" in done.stderr and "a.parquet is damaged" in done.stderr


def test_text_that_is_no_unicode_comes_through_or_is_refused_by_name(tmp_path, params_file):
    lines = [
        b'{"content": "x = 1 # \\ud800\\n", "path": "a.py"}',
        b'{"content": "x = \\u00002\\n", "path": "b.py"}',
        b'{"content": "x = 3\\n", "path": "\\ud800.py", "repo": "\\udfff\\n", "commit": "\\ud800", "license": [1, "MIT"], "size": '
        + b"9" * 5000
        + b"}",
        b'{"content": "# caf\xe9\\n", "path": "d.py"}',
        b'{"content": 5, "path": "e.py"}',
        b'{"content": "x = 6\\n", "path": "f\\n.py"}' + b" " * 70_000_000,
    ]
    (tmp_path / "set.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    done = ingest(params_file([hub(tmp_path / "set.jsonl")]), tmp_path / "out")
    assert done.exit_code == 0, done.output
    got = {(row["repo"], row["path"], row["content"], row["license"]) for row in read_parquet(tmp_path / "out/ingest/files.parquet", "")}
    assert got == {("\ufffd\ufffd", "\ufffd.py", "x = 3\n", "MIT"), ("unknown", "d.py", "# café\n", "unknown")}
    assert counts(tmp_path / "out")["decoded_cp1252"] == 1
    assert {(path, reason) for path, reason, _ in rejects(tmp_path / "out")} == {
        ("unknown/a.py", "undecodable"),
        ("unknown/b.py", "binary"),
        ("unknown/e.py", "no_content"),
        ("hub:set.jsonl/line 6", "row_bytes"),
    }


def test_parquet_whose_text_is_no_utf8_or_is_bytes_is_read(tmp_path, params_file):
    (tmp_path / "set").mkdir()
    torn = pa.array([b"# caf\xe9\n", b"x = 1\n", b"\x80\x81\x00"])
    text = pa.Array.from_buffers(pa.string(), 3, torn.buffers())  # nothing checks it
    names = pa.Array.from_buffers(pa.string(), 3, pa.array([b"a\xe9.py", b"b.py", b"c.py"]).buffers())
    pq.write_table(pa.table({"content": text, "path": names}), tmp_path / "set" / "a.parquet")
    pq.write_table(pa.table({"content": torn, "path": ["d.py", "e.py", "f.py"]}), tmp_path / "set" / "b.parquet")
    done = ingest(params_file([hub(tmp_path / "set")]), tmp_path / "out")
    assert done.exit_code == 0, done.output
    got = {row["path"]: row["content"] for row in read_parquet(tmp_path / "out/ingest/files.parquet", "")}
    assert got == {"a\ufffd.py": "# café\n", "b.py": "x = 1\n", "d.py": "# café\n", "e.py": "x = 1\n"}
    assert {(path, reason) for path, reason, _ in rejects(tmp_path / "out")} == {("unknown/c.py", "binary"), ("unknown/f.py", "binary")}


def hub_popen(tmp_path: Path, params: Path, **environment: str) -> subprocess.Popen[str]:
    """The command as people run it, because huggingface_hub reads its environment when it is imported."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    command = [sys.executable, "-m", "phase1_data", "ingest", "--params", str(params), "--out", str(tmp_path / "out")]
    home = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=clean | home | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def hub_process(tmp_path: Path, params: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    with hub_popen(tmp_path, params, **environment) as process:
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


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


def test_a_stream_that_was_killed_goes_on_where_it_was_and_ends_with_the_same_bytes(tmp_path, params_file):
    shards = {
        f"data/train-{part:05d}-of-00006.parquet": parquet(
            [{"content": f"x = {part * 450 + n}\n", **STACK, "max_stars_repo_path": f"m{part}_{n}.py"} for n in range(450)]
        )
        for part in range(6)
    }
    params = params_file([hub("some/set")])
    served: list[str] = []
    with fake_hub(shards) as endpoint:
        assert hub_process(tmp_path, params, HF_ENDPOINT=endpoint).returncode == 0
    (tmp_path / "out").rename(tmp_path / "whole")
    with fake_hub(shards, stuck=list(shards)[5]) as endpoint, hub_popen(tmp_path, params, HF_ENDPOINT=endpoint) as process:
        for _ in range(300):
            if len(list((tmp_path / "out" / ".work").glob("hub-*/part-*.json"))) == 2:
                break
            time.sleep(0.1)
        process.kill()
    with fake_hub(shards, served=served) as endpoint:
        done = hub_process(tmp_path, params, HF_ENDPOINT=endpoint)
    assert done.returncode == 0 and "some/set: continues after 2,000 rows" in done.stderr, done.stderr
    for name in ("files.parquet", "rejects.parquet", "manifest.json"):
        assert (tmp_path / "out/ingest" / name).read_bytes() == (tmp_path / "whole/ingest" / name).read_bytes()
    assert not set(list(shards)[1:3]) & set(served)  # the first tells the columns, the one before the position is read again
    assert not (tmp_path / "out" / ".work").exists()
