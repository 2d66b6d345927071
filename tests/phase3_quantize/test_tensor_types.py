"""The types of every tensor are those llama-quantize plans, for deep and shallow, grouped and ungrouped, tied and untied models."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Ggml

from phase3_quantize.source import Matrix, Shape, open_gguf
from phase3_quantize.tensor_types import MOST, choose_types, fallen
from tests.phase3_quantize.peers import tool

PLANNED = re.compile(r"\] +(\S+) +- \[.*type = +(\S+), size = .*?(?:\((\w+)\))?$", re.M)


def hollow(file: Path, arch: str, layers: int, heads: int, kv_heads: int, hidden: int, tied: bool) -> Path:
    """A GGUF with all its tensors, which are holes in the file: the rules look at names and shapes."""
    writer = gguf.GGUFWriter(file, arch)
    for add, value in (
        (writer.add_block_count, layers), (writer.add_context_length, 64), (writer.add_embedding_length, hidden),
        (writer.add_feed_forward_length, 256), (writer.add_head_count, heads), (writer.add_head_count_kv, kv_heads),
        (writer.add_layer_norm_rms_eps, 1e-6), (writer.add_rope_dimension_count, hidden // heads), (writer.add_vocab_size, 64),
    ):  # fmt: skip
        add(value)  # type: ignore[operator]
    kv = hidden // heads * kv_heads
    layer = {
        "attn_norm": (hidden,), "attn_q": (hidden, hidden), "attn_k": (kv, hidden), "attn_v": (kv, hidden), "attn_output": (hidden, hidden),
        "ffn_norm": (hidden,), "ffn_gate": (256, hidden), "ffn_up": (256, hidden), "ffn_down": (hidden, 256),
    }  # fmt: skip
    shapes = {"token_embd": (64, hidden), "output_norm": (hidden,), **({} if tied else {"output": (64, hidden)})}
    shapes |= {f"blk.{i}.{name}": shape for i in range(layers) for name, shape in layer.items()}
    for name, shape in shapes.items():
        size = int(np.prod(shape)) * (4 if len(shape) == 1 else 2)
        kind = np.dtype(np.float32 if len(shape) == 1 else np.float16)
        writer.add_tensor_info(f"{name}.weight", shape, kind, size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with file.open("ab") as sink:
        sink.truncate(file.stat().st_size + sum(-(-int(np.prod(s)) * (4 if len(s) == 1 else 2) // 32) * 32 for s in shapes.values()) + 32)
    return file


@pytest.mark.parametrize(
    ("arch", "layers", "heads", "kv_heads", "hidden", "tied"),
    [
        ("qwen2", 24, 14, 2, 896, True),  # the 0.5B
        ("llama", 30, 9, 3, 576, True),  # SmolLM2-135M
        ("qwen2", 28, 8, 1, 256, False),  # eight query heads to a key-value head: values get more bits
        ("llama", 80, 8, 8, 256, False),
        ("llama", 80, 8, 2, 256, True),  # what llama.cpp takes for the 70B
        ("qwen2", 80, 4, 4, 256, False),
        ("qwen2", 5, 2, 2, 48, True),  # no multiple of 32: float16
    ],
)
def test_types_are_llama_quantizes(tmp_path: Path, arch: str, layers: int, heads: int, kv_heads: int, hidden: int, tied: bool) -> None:
    file = hollow(tmp_path / "hollow.gguf", arch, layers, heads, kv_heads, hidden, tied)
    with open_gguf(file) as source:
        for kind in MOST:
            done = subprocess.run([tool("llama-quantize"), "--dry-run", file, kind], capture_output=True, text=True, check=True)
            theirs = {name: (after or before).upper() for name, before, after in PLANNED.findall(done.stdout + done.stderr)}
            assert len(theirs) == len(source.matrices)
            chosen = choose_types(source.matrices, kind, source.shape, weighed=False)
            ours = {m.name: (chosen[m.name].type if m.name in chosen else m.type).name.upper() for m in source.matrices}
            assert ours == theirs, kind


def test_fallbacks_name_what_was_wanted() -> None:
    matrices = [Matrix("blk.0.attn_q.weight", (896, 896), Ggml.F16), Matrix("token_embd.weight", (896, 100), Ggml.F16)]
    chosen = choose_types(matrices, "Q4_K_M", Shape("qwen2", 1, 14, 2), weighed=False)
    assert chosen["blk.0.attn_q.weight"] == (Ggml.Q5_0, Ggml.Q4_K)
    assert chosen["token_embd.weight"] == (Ggml.Q8_0, Ggml.Q6_K)


@pytest.mark.parametrize("wanted", [Ggml.IQ4_XS, Ggml.Q3_K, Ggml.Q4_K, Ggml.Q5_K, Ggml.Q6_K, Ggml.Q4_0, Ggml.Q8_0])
def test_what_no_block_fits_stays_in_half_precision(wanted: Ggml) -> None:
    assert fallen(wanted, 33) == Ggml.F16
