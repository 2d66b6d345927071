"""The GGUF holds the model's own bytes and everything llama.cpp needs; what it cannot hold is refused by name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import TokenType
from safetensors.torch import load_file, save_file

from core.errors import InputError
from core.fim import CONTROL
from core.records import write_json
from phase3_quantize import convert, gguf_write, merge
from phase3_quantize.architecture import architecture_of, gguf_names, read_config
from phase3_quantize.params import MergeParams
from phase3_quantize.vocab import kind_of, read_vocab
from tests.phase3_quantize.conftest import make_model, make_tokenizer


def edit(file: Path, **values: Any) -> None:
    write_json(file, {**json.loads(file.read_text()), **values})


@pytest.mark.parametrize("outtype", ["f32", "f16", "bf16"])
def test_every_tensor_is_the_models_own(model_224: Path, tmp_path: Path, outtype: Any) -> None:
    out = tmp_path / "model.gguf"
    convert.run(model_224, out, outtype)
    original = load_file(model_224 / "model.safetensors")
    names = gguf_names(architecture_of(read_config(model_224, ""), model_224))
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(out).tensors}
    assert stored.keys() == set(names.values())
    for name, tensor in original.items():
        found, kind = stored[names[name]], gguf_write.GGML_TYPES[outtype]
        if tensor.ndim == 1:
            assert found.tensor_type.name == "F32"
            assert torch.equal(torch.from_numpy(found.data.copy()), tensor)
        else:
            half = tensor.to({"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[outtype])
            assert found.tensor_type == kind
            assert bytes(found.data.tobytes()) == half.contiguous().view(torch.uint8).numpy().tobytes()


def test_metadata_is_what_the_converter_writes_and_the_fim_ids_besides(model_256: Path, tmp_path: Path) -> None:
    contents = convert.run(model_256, tmp_path / "model.gguf", "f16")
    size = json.loads((model_256 / "config.json").read_text())["vocab_size"]
    first = size - 5 - len(CONTROL)  # five rows of padding; the markers come before it
    expected = {
        "general.architecture": "qwen2",
        "general.type": "model",
        "general.file_type": 1,
        "general.quantization_version": 2,
        "qwen2.block_count": 2,
        "qwen2.context_length": 512,
        "qwen2.embedding_length": 256,
        "qwen2.feed_forward_length": 512,
        "qwen2.attention.head_count": 4,
        "qwen2.attention.head_count_kv": 2,
        "qwen2.rope.freq_base": 10000.0,
        "qwen2.attention.layer_norm_rms_epsilon": pytest.approx(1e-6),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": size,
        "tokenizer.ggml.token_type": size,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.eos_token_id": first,
        "tokenizer.ggml.eot_token_id": first,
        "tokenizer.ggml.fim_pre_token_id": first + 1,
        "tokenizer.ggml.fim_mid_token_id": first + 2,
        "tokenizer.ggml.fim_suf_token_id": first + 3,
        "tokenizer.ggml.fim_pad_token_id": first + 4,
        "tokenizer.ggml.padding_token_id": first + 4,
        "tokenizer.ggml.fim_rep_token_id": first + 5,
        "tokenizer.ggml.fim_sep_token_id": first + 6,
    }
    assert {key: contents.metadata.get(key) for key in expected} == expected


def test_provenance_of_the_merge_reaches_the_gguf(base: Path, tmp_path: Path) -> None:
    write_json(base / "manifest.json", {"params": {"base": {"model": "Qwen/Qwen2.5-Coder-0.5B", "revision": "abc123"}}})
    merge.run(base, None, tmp_path / "out" / "merge", MergeParams(adapter="none", onto="full", rows=4))
    found = convert.run(tmp_path / "out" / "merge", tmp_path / "model.gguf", "f32").metadata
    assert found["general.name"] == "tabsmith Qwen2.5-Coder-0.5B"
    assert found["general.license"] == "apache-2.0"
    assert (found["general.base_model.0.name"], found["general.base_model.0.version"]) == ("Qwen/Qwen2.5-Coder-0.5B", "abc123")
    assert len(found["tabsmith.base_sha256"]) == 64


def test_folder_that_merge_did_not_make_gives_its_name_only(base: Path, tmp_path: Path) -> None:
    write_json(base / "manifest.json", {"stage": "base", "parent": "Qwen/Qwen2.5-Coder-0.5B@abc", "counts": {}})
    found = convert.run(base, tmp_path / "model.gguf", "f32").metadata
    assert found["general.name"] == "Base"  # as the peer writes a folder's name
    assert not [key for key in found if key.startswith("tabsmith.")]


def test_rows_past_the_tokenizer_are_unused_padding(model_256: Path) -> None:
    size = json.loads((model_256 / "config.json").read_text())["vocab_size"]
    vocab = read_vocab(model_256, size)
    assert vocab.tokens[-5:] == [f"[PAD{i}]" for i in range(size - 5, size)]
    assert vocab.types[-6:] == [TokenType.CONTROL, *[TokenType.UNUSED] * 5]
    assert vocab.types[0] == TokenType.NORMAL
    assert len(set(vocab.tokens)) == size


def test_markers_that_the_tokenizer_calls_ordinary_are_control_tokens_all_the_same(tmp_path: Path) -> None:
    size = make_tokenizer(tmp_path, special=False)  # as Qwen2.5-Coder has its FIM markers
    vocab = read_vocab(tmp_path, size)
    assert all(vocab.types[token] == TokenType.CONTROL for token in vocab.fim)
    assert kind_of("<tool_call>", {"special": False}) == TokenType.USER_DEFINED


def test_untied_model_keeps_its_output_matrix(tmp_path: Path) -> None:
    untied = make_model(tmp_path / "untied", tied=False)
    names = {tensor.name for tensor in convert.run(untied, tmp_path / "model.gguf", "f32").tensors}
    assert {"output.weight", "token_embd.weight"} <= names


def test_same_model_gives_the_same_bytes(model_256: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        convert.run(model_256, tmp_path / name, "bf16")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def drop(name: str) -> Any:
    def change(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        del tensors[name]
        save_file(tensors, folder / "model.safetensors")

    return change


def large(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, :2] = torch.tensor([70000.0, -1e9])
    save_file(tensors, folder / "model.safetensors")


def cut(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-1000])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (drop("model.layers.1.self_attn.k_proj.bias"), "model.layers.1.self_attn.k_proj.bias"),
        (lambda folder: edit(folder / "config.json", model_type="mamba"), "'mamba'"),
        (lambda folder: edit(folder / "config.json", num_hidden_layers=3), "model.layers.2.input_layernorm.weight"),
        (lambda folder: edit(folder / "config.json", vocab_size=100), "do not belong together"),
        (lambda folder: make_tokenizer(folder, control=("<|endoftext|>", "<|fim_prefix|>")), "fim_middle"),
        (lambda folder: make_tokenizer(folder, split=r"\s+|\w+|."), "cuts text by .*none of .*qwen2"),
        (lambda folder: (folder / "tokenizer.json").write_text('{"model": 3}'), "damaged"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "config.json").unlink(), "phase3_quantize merge"),
        (cut, "cut short"),
        (large, "2 values beyond float16"),
    ],
)
def test_what_cannot_be_converted_is_refused_by_name_and_nothing_is_written(base: Path, tmp_path: Path, damage: Any, says: str) -> None:
    damage(base)
    with pytest.raises(InputError, match=says):
        convert.run(base, tmp_path / "out" / "model.gguf", "f16")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_large_values_fit_bf16(base: Path, tmp_path: Path) -> None:
    large(base)
    convert.run(base, tmp_path / "model.gguf", "bf16")


def test_full_disk_is_one_line_and_leaves_nothing(model_256: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o size=1m none {small} && "$@"; code=$?; ls {small}; exit $code', "-"]
    if not shutil.which("unshare") or subprocess.run([*mount, "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here to mount a small disk in")
    command = [sys.executable, "-m", "phase3_quantize", "convert", "--model", str(model_256), "--out", str(small / "model.gguf")]
    done = subprocess.run([*mount, *command], capture_output=True, text=True)
    assert done.returncode == 5
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and "free" in done.stderr
    assert done.stdout == ""


def test_blocks_of_rows_are_written_like_the_whole(monkeypatch: pytest.MonkeyPatch, model_256: Path, tmp_path: Path) -> None:
    convert.run(model_256, tmp_path / "a", "f16")
    monkeypatch.setattr(gguf_write, "BLOCK", 1000)
    convert.run(model_256, tmp_path / "b", "f16")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert np.float16(gguf_write.F16_MAX) == np.finfo(np.float16).max
