"""Importance of columns is llama-imatrix's on the same tokens, and files of it are read with care."""

from __future__ import annotations

import subprocess
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from core.errors import InputError
from core.fim import MIDDLE, PREFIX, SUFFIX
from phase3_quantize import convert, imatrix
from phase3_quantize.imatrix_file import read_importance
from tests.phase3_quantize.peers import tool

WINDOW = 64  # tokens
TEXT = f"{PREFIX}def add(a, b):\n    {SUFFIX}\n\nprint(add(1, 2))\n{MIDDLE}return a + b\n" * 12


@pytest.fixture(scope="module")
def written(model_224: Path, samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("imatrix") / "imatrix.gguf"
    assert imatrix.run(model_224, samples, file, 4) == {"rows": 4, "too_long": 0, "tokens": pytest.approx(150, abs=100), "matrices": 14}
    return file


def test_sums_are_llama_imatrixes_on_the_same_tokens(model_224: Path, tmp_path: Path) -> None:
    convert.run(model_224, tmp_path / "full.gguf", "f32")
    (tmp_path / "text.txt").write_text(TEXT)
    command = [tool("llama-imatrix"), "-m", "full.gguf", "-f", "text.txt", "-o", "theirs.gguf", "--parse-special"]
    settings_ = ["-c", str(WINDOW), "-t", "1", "-ngl", "0", "-fa", "off", "-ctk", "f32", "-ctv", "f32"]
    subprocess.run([*command, *settings_], cwd=tmp_path, capture_output=True, check=True)
    theirs = {tensor.name: np.array(tensor.data).reshape(-1) for tensor in gguf.GGUFReader(tmp_path / "theirs.gguf").tensors}
    ids = Tokenizer.from_file(str(model_224 / "tokenizer.json")).encode(TEXT, add_special_tokens=False).ids
    windows = [ids[start : start + WINDOW] for start in range(0, len(ids) - WINDOW + 1, WINDOW)]
    sums, tokens = imatrix.squared_inputs(AutoModelForCausalLM.from_pretrained(model_224, dtype=torch.float32).eval(), windows)
    assert {f"{name}.in_sum2" for name in sums} == {name for name in theirs if name.endswith(".in_sum2")}
    for name, values in sums.items():
        assert theirs[f"{name}.counts"] == tokens
        np.testing.assert_allclose(values, theirs[f"{name}.in_sum2"], rtol=2e-4)


def test_rows_are_holes_with_their_markers(model_224: Path, samples: Path) -> None:
    tokenizer = Tokenizer.from_file(str(model_224 / "tokenizer.json"))
    rows, too_long = imatrix.training_rows(samples, tokenizer, 4, 512)
    assert too_long == 0
    markers = {tokenizer.token_to_id(marker) for marker in (PREFIX, SUFFIX, MIDDLE)}
    assert len(rows) == 4
    assert all(markers <= set(row) for row in rows)


def test_what_was_written_is_read_as_means(written: Path) -> None:
    columns = {f"blk.{i}.{what}.weight": 512 if what == "ffn_down" else 224 for i in range(2) for what in
               ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}  # fmt: skip
    found = read_importance(written, columns)
    assert found.columns.keys() == columns.keys()
    assert found.chunks == 4
    assert all((values >= 0).all() and values.max() > 0 for values in found.columns.values())
    assert found.described()["quantize.imatrix.entries_count"] == 14


def test_importance_of_another_model_is_refused(written: Path) -> None:
    with pytest.raises(InputError, match="of another model"):
        read_importance(written, {"blk.0.attn_q.weight": 256})


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.99))
def test_a_file_cut_anywhere_is_refused(written: Path, tmp_path: Path, share: float) -> None:
    whole = written.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match="cut short or no importance matrix"):
        read_importance(tmp_path / "cut.gguf", {})


def test_a_missing_file_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="phase3_quantize imatrix"):
        read_importance(tmp_path / "no.gguf", {})
