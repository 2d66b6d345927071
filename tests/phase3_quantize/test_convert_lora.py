"""An adapter beside its base in llama.cpp is the merged model."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from core.errors import InputError
from core.records import read_json, write_json
from phase3_quantize import convert, convert_lora, merge
from phase3_quantize.cli import app
from phase3_quantize.engine import GgufModel
from phase3_quantize.params import MergeParams
from tests.phase3_quantize.conftest import make_llama, make_model
from tests.phase3_quantize.test_merge import make_adapter

IDS = [5, 80, 81, 200, 7, 7, 250, 33, 190, 18]


def logits(file: Path, adapter: Path | None = None) -> np.ndarray:
    with GgufModel(file, 64, 1) as model:
        if adapter is not None:
            loaded = llama_cpp.llama_adapter_lora_init(model._model, str(adapter).encode())
            assert loaded
            adapters, scales = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(loaded), (ctypes.c_float * 1)(1.0)
            assert llama_cpp.llama_set_adapters_lora(model._context, adapters, 1, scales) == 0
        return model.extend(IDS, len(IDS))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("qwen2", {}), ("qwen2", {"use_rslora": True, "rank_pattern": {"q_proj": 2}}), ("tied", {"lora_alpha": 3}), ("llama3", {})],
)
def test_the_adapter_beside_its_base_is_the_merged_model(tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    base = make_model(tmp_path / "base") if kind == "qwen2" else make_llama(tmp_path / "base", kind)
    adapter = make_adapter(base, tmp_path / "adapter", **settings)
    merge.run(base, adapter, tmp_path / "out" / "merge", MergeParams(adapter="dpo", onto="full", rows=4))
    convert.run(tmp_path / "out" / "merge", tmp_path / "merged.gguf", "f32")
    convert.run(base, tmp_path / "base.gguf", "f32")
    contents = convert_lora.run(adapter, base, tmp_path / "adapter.gguf", "f32")
    assert len(contents.tensors) == 28 and contents.metadata["general.type"] == "adapter"
    wanted, alone, found = (
        logits(tmp_path / "merged.gguf"),
        logits(tmp_path / "base.gguf"),
        logits(tmp_path / "base.gguf", tmp_path / "adapter.gguf"),
    )
    assert np.abs(found - wanted).max() < 2e-3 < 0.05 < np.abs(alone - wanted).max()


def test_a_plain_adapter_is_stored_as_it_is(model_256: Path, tmp_path: Path) -> None:
    adapter = make_adapter(model_256, tmp_path / "adapter")
    convert_lora.run(adapter, model_256, tmp_path / "adapter.gguf", "f32")
    stored = {t.name: t.data for t in gguf.GGUFReader(tmp_path / "adapter.gguf").tensors}
    original = load_file(adapter / "adapter_model.safetensors")
    at = "base_model.model.model.layers.1.self_attn.q_proj.lora_"
    for half in "AB":
        assert np.array_equal(stored[f"blk.1.attn_q.weight.lora_{half.lower()}"], original[f"{at}{half}.weight"].numpy())


def test_an_adapter_of_another_base_or_kind_is_refused_by_name(model_224: Path, model_256: Path, tmp_path: Path) -> None:
    adapter = make_adapter(model_256, tmp_path / "adapter")
    with pytest.raises(InputError, match="another base"):
        convert_lora.run(adapter, model_224, tmp_path / "out" / "adapter.gguf", "f32")
    write_json(adapter / "adapter_config.json", {**read_json(adapter / "adapter_config.json", ""), "use_dora": True})
    given = ["--adapter", str(adapter), "--base", str(model_256), "--out", str(tmp_path / "out" / "adapter.gguf")]
    refused = CliRunner().invoke(app, ["convert-lora", *given])
    assert refused.exit_code == 2 and "use_dora" in refused.stderr
    assert not (tmp_path / "out").exists()
