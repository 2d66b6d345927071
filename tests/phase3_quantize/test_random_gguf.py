"""A random model of a real shape loads, runs, and has Qwen's markers at Qwen's ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from core.fim import QWEN
from phase3_quantize import random_gguf
from phase3_quantize.cli import app
from phase3_quantize.engine import GgufModel
from phase3_quantize.gguf_read import inspect

NARROW = random_gguf.SHAPES["qwen2.5-coder-0.5b"]._replace(hidden=32, ffn=64, layers=1, heads=2, kv_heads=1, head_dim=16)


def test_vocabulary_of_the_real_size_loads_and_cuts_text(tmp_path: Path) -> None:
    random_gguf.write_random(NARROW, tmp_path / "r.gguf", "f16", "narrow", 17)
    metadata = inspect(tmp_path / "r.gguf", "").metadata
    assert metadata["tokenizer.ggml.tokens"] == 151936
    assert [metadata[f"tokenizer.ggml.fim_{name}_token_id"] for name in ("pre", "mid", "suf", "pad", "rep", "sep")] == list(QWEN[1:])
    assert metadata["tokenizer.ggml.eos_token_id"] == QWEN.end
    text = "def add(a, b):\n    return a + b  # naïve 你好\n" * 5
    with GgufModel(tmp_path / "r.gguf", 512, 1) as model:
        ids = model.encode(text)
        assert len(text.encode()) / 4 < len(ids) < len(text.encode()) / 1.5
        assert max(ids) < QWEN.end
        assert np.isfinite(model.extend([QWEN.prefix, *ids, QWEN.suffix, QWEN.middle])).all()
        assert all(model.ends(token) for token in (QWEN.end, QWEN.pad, QWEN.repo_name, QWEN.file_sep))


def test_tensors_depend_on_seed_and_place_only() -> None:
    first = random_gguf.random_rows("a.weight", 0, 8, 8, 3, 17)
    assert np.array_equal(first, random_gguf.random_rows("b.weight", 0, 8, 8, 3, 17))
    assert not np.array_equal(first, random_gguf.random_rows("a.weight", 0, 8, 8, 4, 17))
    assert not np.array_equal(first, random_gguf.random_rows("a.weight", 8, 16, 8, 3, 17))
    assert (random_gguf.random_rows("attn_norm.weight", 0, 8, 8, 0, 17) == 1).all()


@pytest.mark.parametrize(("arguments", "says"), [(["--shape", "gpt-5"], "qwen2.5-coder-0.5b"), (["--type", "Q4"], "Q4_K_M")])
def test_unknown_shape_and_type_list_the_known(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = CliRunner().invoke(app, ["random-gguf", "--out", str(tmp_path / "r.gguf"), *arguments])
    assert done.exit_code == 2
    assert says in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_whole_half_billion_has_the_published_mix(tmp_path: Path) -> None:
    """398 MB on the Hub with tied embeddings; 6.345 bits per weight by llama.cpp's rules."""
    figures = random_gguf.run("qwen2.5-coder-0.5b", "Q4_K_M", tmp_path / "r.gguf", 17, 2)
    assert figures["bits_per_weight"] == pytest.approx(6.345, abs=0.01)
    assert figures["bytes"] == pytest.approx(398e6, rel=0.01)
    assert figures["tensors"] == {"F32": 121, "Q4_K": 12, "Q5_0": 132, "Q6_K": 12, "Q8_0": 13}
    assert [file.name for file in tmp_path.iterdir()] == ["r.gguf"]
