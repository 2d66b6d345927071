"""A permuted model computes the same in other blocks, and the bench asks for what it needs."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from typer.testing import CliRunner

from core.errors import InputError
from eval.bench import quant_bench
from eval.bench.permuted_gguf import write_f32
from eval.bench.random_models import SHAPES, make
from eval.cli import app
from phase3_quantize import quantize


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with three query heads to a key-value head, quantized."""
    folder = tmp_path_factory.mktemp("bench")
    make(folder / "model", SHAPES["llama-576-tied"])
    quantize.run(folder / "model", folder / "q.gguf", "Q4_0", 1)
    return folder / "q.gguf"


def test_a_permuted_model_computes_the_same_from_other_blocks(quantized: Path, tmp_path: Path) -> None:
    write_f32(quantized, tmp_path / "plain.gguf", None)
    write_f32(quantized, tmp_path / "permuted.gguf", 17)
    ids = list(range(40, 60))
    plain, permuted = (quant_bench.last_logits(tmp_path / f"{name}.gguf", ids) for name in ("plain", "permuted"))
    np.testing.assert_allclose(permuted, plain, atol=1e-4 * np.abs(plain).max())
    a, b = ({t.name: t.data for t in gguf.GGUFReader(tmp_path / f"{name}.gguf").tensors} for name in ("plain", "permuted"))
    for name in ("blk.1.attn_q.weight", "blk.1.attn_output.weight", "blk.1.ffn_down.weight", "token_embd.weight"):
        assert not np.array_equal(a[name], b[name])
        np.testing.assert_array_equal(np.sort(a[name], axis=None), np.sort(b[name], axis=None))


def test_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "gemma")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(InputError, match="'gemma'"):
        write_f32(tmp_path / "other.gguf", tmp_path / "f32.gguf", 17)
    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError, match="no GGUF"):
        write_f32(tmp_path / "other.gguf", tmp_path / "f32.gguf", 17)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "--gguf or --hf"), (["--gguf", "a.gguf"], "two files of --text"), (["--gguf", "a.gguf", "--hf", "b"], "--gguf or --hf")],
)
def test_what_is_missing_is_said(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["quant-bench", *arguments])
    assert result.exit_code == 2
    assert said in result.stderr


def test_windows_are_spread_over_the_text() -> None:
    rows = quant_bench.windows(range(1000), 3)
    assert [row["ids"][0] for row in rows] == [0, 256, 512]
    assert all(len(row["ids"]) == 128 and row["start"] == 64 for row in rows)
    with pytest.raises(InputError, match="a row needs 128"):
        quant_bench.windows(range(100), 3)
