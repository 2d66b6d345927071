"""A Llama is converted like a Qwen2: llama.cpp computes from the file what transformers computes from the folder."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from core.errors import InputError
from core.records import read_json, write_json
from phase3_quantize import convert, merge
from phase3_quantize.architecture import Architecture, architecture_of, gguf_names, read_config
from phase3_quantize.engine import GgufModel
from phase3_quantize.forward import layer, normed, rotations
from phase3_quantize.params import MergeParams
from phase3_quantize.weights import model_files, open_weights
from tests.phase3_quantize.conftest import LLAMAS, make_llama, make_model

IDS = [5, 80, 81, 200, 7, 7, 250, 33, 190, 18, 61, 62] * 12  # long enough for Llama 3's stretched rotations to matter


def logits_of(folder: Path) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.inference_mode():
        return model(torch.tensor([IDS])).logits[0].numpy()


@pytest.mark.parametrize("kind", LLAMAS)
def test_llama_cpp_computes_what_transformers_computes(tmp_path: Path, kind: str) -> None:
    folder = make_llama(tmp_path / "llama", kind)
    contents = convert.run(folder, tmp_path / "model.gguf", "f32")
    assert contents.metadata["general.architecture"] == "llama"
    assert {t.name for t in contents.tensors} == convert.gguf_shapes(shape_of(folder)).keys()
    assert ("rope_freqs.weight" in {t.name for t in contents.tensors}) == (kind == "llama3")
    expected = logits_of(folder)
    with GgufModel(tmp_path / "model.gguf", 256, 1) as model:
        found = model.extend(IDS, len(IDS))
    assert np.abs(found - expected).max() < 2e-3
    assert (found.argmax(-1) == expected.argmax(-1)).mean() > 0.98


def shape_of(folder: Path) -> Architecture:
    return architecture_of(read_config(folder, ""), folder)


@pytest.mark.parametrize("kind", [*LLAMAS, "qwen2"])
def test_a_layer_at_a_time_is_the_whole_model(tmp_path: Path, kind: str) -> None:
    folder = make_model(tmp_path / "m") if kind == "qwen2" else make_llama(tmp_path / "m", kind)
    model, tensors = shape_of(folder), load_file(folder / "model.safetensors")
    turn, rows = rotations(model, len(IDS), torch.device("cpu")), [IDS[:50], IDS]
    hidden = torch.cat([tensors["model.embed_tokens.weight"][row] for row in rows])
    for number in range(model.layers):

        def inside(name: str, at: str = f"model.layers.{number}.") -> torch.Tensor | None:
            return tensors.get(at + name)

        def linear(name: str, states: torch.Tensor, of=inside) -> torch.Tensor:
            return torch.nn.functional.linear(states, of(f"{name}.weight"), of(f"{name}.bias"))

        norms = {name: inside(name) for name in ("input_layernorm.weight", "post_attention_layernorm.weight")}
        hidden = layer(model, hidden, [50, len(IDS)], norms, linear, turn)
    output = tensors.get("lm_head.weight", tensors["model.embed_tokens.weight"])
    found = (normed(hidden, tensors["model.norm.weight"], model.rms_eps) @ output.T).numpy()
    expected = logits_of(folder)
    assert np.abs(found[50:] - expected).max() < 1e-3
    assert np.abs(found[:50] - expected[:50]).max() < 1e-3  # a row sees nothing of its neighbour


def test_query_and_key_rows_change_places_within_heads_and_nothing_else_does(tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "llama", "biased")
    model, original = shape_of(folder), load_file(folder / "model.safetensors")
    for outtype in ("f32", "bf16"):
        convert.run(folder, tmp_path / "model.gguf", outtype)
        stored = {t.name: t for t in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
        for name, mapped in gguf_names(model).items():
            order = model.row_order(name)
            assert (order is not None) == any(part in name for part in ("q_proj", "k_proj"))
            expected = original[name] if order is None else original[name][torch.from_numpy(order)]
            half = expected if expected.ndim == 1 or outtype == "f32" else expected.to(torch.bfloat16)
            assert stored[mapped].data.tobytes() == half.contiguous().view(torch.uint8).numpy().tobytes(), name
    heads = model.row_order("model.layers.0.self_attn.q_proj.weight").reshape(4, 40)
    assert (heads[0, :4] == [0, 20, 1, 21]).all() and (heads // 40 == np.arange(4)[:, None]).all()


def test_a_llama_merges_and_its_folder_loads(tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "llama", "llama3")
    merge.run(folder, None, tmp_path / "out" / "merge", MergeParams(adapter="none", onto="measured", rows=4))
    assert np.array_equal(logits_of(tmp_path / "out" / "merge"), logits_of(folder))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "rope type 'linear'"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": "x"}}, "no 'low_freq_factor'|wrong kind"),
        ({"partial_rotary_factor": 0.5}, "part of each head"),
        ({"hidden_size": "wide"}, "wrong kind"),
        ({"num_attention_heads": 0}, "do not belong together"),
        ({"model_type": ["llama"]}, "only qwen2 and llama"),
    ],
)
def test_variants_that_are_not_computed_are_refused_by_name(tmp_path: Path, change: dict[str, object], says: str) -> None:
    folder = make_llama(tmp_path / "llama", "tied")
    write_json(folder / "config.json", {**read_json(folder / "config.json", ""), **change})
    with pytest.raises(InputError, match=says):
        convert.run(folder, tmp_path / "out" / "model.gguf", "f32")
    assert not (tmp_path / "out").exists()


def test_rows_are_read_where_they_stand(model_256: Path) -> None:
    original = load_file(model_256 / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    with open_weights(model_files(model_256), "") as weights:
        assert np.array_equal(weights.array(name, 7, 19), original[name][7:19].numpy())
        assert np.array_equal(weights.picked(name, np.array([3, 500, 3])), original[name][[3, 500, 3]].numpy())
