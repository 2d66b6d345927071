"""The comparison of converters sees a difference where there is one."""

from __future__ import annotations

import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from typer.testing import CliRunner

from core.errors import CheckFailed, InputError
from core.fim import CONTROL
from eval.bench.convert_bench import check, compared, lines, measured, peer_folder
from eval.bench.random_models import SHAPES, make, make_adapter
from phase3_quantize.cli import app


def small_file(path: Path, value: float = 1.0, name: str = "a", **metadata: int) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    for key, number in metadata.items():
        writer.add_uint32(key, number)
    writer.add_array("texts", ["a", "b"])
    writer.add_tensor(name, np.full((2, 32), value, np.float32))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        write()
    return path


def test_a_byte_or_a_key_that_differs_is_seen_and_fails(tmp_path: Path) -> None:
    pairs = [
        ({}, {}, None),
        ({"more": 1}, {}, None),
        ({"value": 1.0000001}, {}, "identical"),
        ({"name": "b"}, {}, "identical"),
        ({}, {"key": 1}, "missing"),
        ({"key": 2}, {"key": 1}, "different"),
    ]
    for mine, other, what in pairs:
        row = {"model": "m", "outtype": "f32", **compared(small_file(tmp_path / "a", **mine), small_file(tmp_path / "b", **other))}
        assert (row["identical"] < 1, bool(row["missing"]), bool(row["different"])) == tuple(
            what == w for w in ("identical", "missing", "different")
        )
        figures = {"models": [row], "cost": [], "merge": None, "versions": {}, "cpus": 2, "rounds": 1}
        assert any("| m | f32 | 1 |" in line for line in lines(figures))
        if what is None:
            check(figures)
        else:
            with pytest.raises(CheckFailed, match="m as f32"):
                check(figures)


@pytest.mark.parametrize("name", [name for name in SHAPES if "0.5B" not in name])
def test_every_made_model_converts(tmp_path: Path, name: str) -> None:
    folder = make(tmp_path / name, SHAPES[name])
    adapter = make_adapter(tmp_path / "adapter", SHAPES[name].config)
    for command in (["convert", "--model", str(folder)], ["convert-lora", "--adapter", str(adapter), "--base", str(folder)]):
        done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / f"{command[0]}.gguf"), "--outtype", "bf16"])
        assert done.exit_code == 0, done.stderr
    tokens = gguf.GGUFReader(tmp_path / "convert.gguf").fields["tokenizer.ggml.tokens"].contents()
    assert set(CONTROL) <= set(tokens)


def test_what_fails_is_named(tmp_path: Path) -> None:
    held = b"x" * 300_000_000  # by this process, and no business of the other
    assert 50 < measured([sys.executable, "-c", "hold = b'x' * 50_000_000"]).peak_mb < 200 < len(held)
    with pytest.raises(CheckFailed, match=r"ended with 3 .*out of luck"):
        measured([sys.executable, "-c", "print('out of luck'); raise SystemExit(3)"])
    with pytest.raises(InputError, match="--llama-cpp"):
        peer_folder(tmp_path, tmp_path / "cache")
