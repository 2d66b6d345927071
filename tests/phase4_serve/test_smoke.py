"""The stage that measures: every figure is there, and what does not depend on the clock is right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from core.records import FILE, SAMPLE, write_parquet
from phase4_serve.cli import app
from tests.phase4_serve.conftest import HELPER, PARAMS

TEXT = "import math\n\n\ndef area(radius):\n    return math.pi * radius ** 2\n\n\ndef main():\n    print(area(2))\n"


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    folder = tmp_path / "samples"
    empty_file, empty_hole = {field.name: None for field in FILE}, {field.name: None for field in SAMPLE}
    contents = {"src/area.py": TEXT, "headers.py": HELPER, "../out.py": TEXT}
    files = [{**empty_file, "repo": "shapes", "path": path, "content": text} for path, text in contents.items()]
    write_parquet(folder / "files.parquet", [*files, {**empty_file, "repo": "other", "path": "x.py", "content": "x = 1\n"}], FILE)
    own = {**empty_hole, "repo": "shapes", "path": "src/area.py", "lang": "python"}
    cuts = [(60, 75), (42, 50), (80, 95)]
    holes = [{**own, "sample_id": str(a), "prefix": TEXT[:a], "middle": TEXT[a:b], "suffix": TEXT[b:]} for a, b in cuts]
    other = {**empty_hole, "repo": "other", "sample_id": "o", "prefix": "x", "middle": "", "suffix": ""}
    write_parquet(folder / "test_file.parquet", [*holes, other], SAMPLE)
    return folder


def params_file(folder: Path) -> Path:
    file = folder / "params.yaml"
    file.write_text(f"profile: t\nt:\n  serve: {PARAMS.model_dump_json()}\n")
    return file


def test_the_server_is_started_asked_measured_and_stopped(tiny: Path, samples: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["smoke", "--model", str(tiny), "--samples", str(samples), "--out", str(out), "--params", str(params_file(tmp_path))]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    figures = json.loads((out / "serve.json").read_text())
    assert figures["requests"]["errors"] == 0 and figures["requests"]["ok"] > 20 and figures["exit_code"] == 0
    assert figures["typing"]["spm"]["evaluated_per_key"] <= 2 < figures["typing"]["psm"]["evaluated_per_key"]
    assert figures["typed_through"]["keys"] > 0 and figures["typing"]["spm"]["evaluated_p95"] <= 3
    share = figures["gateway_share"]
    assert figures["seconds_to_ready"] > 0 and {way["n"] for way in share["one_token_ms"].values()} == {3 * 2 * 3}
    assert share["own_ms"] > 0 and share["ratio"] > 1 and "own_new_prompt_ms" in share
    assert all(way["n"] <= 3 * 2 for way in figures["first_token_ms"].values())  # an answer without text has no first one
    manifest = json.loads((out / "serve" / "manifest.json").read_text())
    assert manifest["counts"] == {"holes": 3, "repo": "shapes", "files": 2, "keys_typed": 8}
    assert (out / "runs" / "serve.json").is_file() and not (tmp_path / "out.py").exists()


def test_without_samples_the_command_that_makes_them_is_named(tiny: Path, tmp_path: Path) -> None:
    command = ["smoke", "--model", str(tiny), "--samples", str(tmp_path), "--out", str(tmp_path), "--params", str(params_file(tmp_path))]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2 and "phase1_data samples" in result.stderr
