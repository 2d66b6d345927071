"""The two architectures that are merged and converted, Qwen2 and Llama, as their config.json states them.

In:  config.json of a Hugging Face folder
Out: Architecture: the numbers a GGUF needs, and every tensor with its shape, its name in a GGUF and how its rows are ordered there

Llama's query and key rows are stored in another order: transformers rotates the first half of a head against the second, llama.cpp's
llama graph neighbouring pairs (llama.cpp, conversion/llama.py, `permute`). Qwen2's graph rotates halves and keeps the order.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from core.errors import InputError

Shape = tuple[int, ...]
ARCHITECTURES = ("qwen2", "llama")  # by config.json's model_type, which are llama.cpp's names too
ROPE_FREQS = "rope_freqs.weight"  # of the GGUF only: what Llama 3 divides its frequencies by

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TOP_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


class Llama3Rope(NamedTuple):
    """Llama 3's stretching of the slow rotations to a longer context (transformers, modeling_rope_utils.py, `llama3`)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int  # tokens


class Architecture(NamedTuple):
    """Dimensions of a model; `head_dim` times `heads` need not equal `hidden`."""

    name: Literal["qwen2", "llama"]
    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int  # tokens
    rope_theta: float
    rms_eps: float
    tied: bool  # the output matrix is the embedding
    qkv_bias: bool
    o_bias: bool = False
    mlp_bias: bool = False
    rope: Llama3Rope | None = None

    def layer_tensors(self) -> dict[str, Shape]:
        """Name inside a layer to shape, in the order of the forward pass."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        matrices: dict[str, tuple[int, int, bool]] = {
            "self_attn.q_proj": (q, self.hidden, self.qkv_bias),
            "self_attn.k_proj": (kv, self.hidden, self.qkv_bias),
            "self_attn.v_proj": (kv, self.hidden, self.qkv_bias),
            "self_attn.o_proj": (self.hidden, q, self.o_bias),
            "mlp.gate_proj": (self.ffn, self.hidden, self.mlp_bias),
            "mlp.up_proj": (self.ffn, self.hidden, self.mlp_bias),
            "mlp.down_proj": (self.hidden, self.ffn, self.mlp_bias),
        }
        found: dict[str, Shape] = {"input_layernorm.weight": (self.hidden,)}
        for name, (rows, columns, bias) in matrices.items():
            if name == "mlp.gate_proj":
                found["post_attention_layernorm.weight"] = (self.hidden,)
            found[f"{name}.weight"] = (rows, columns)
            if bias:
                found[f"{name}.bias"] = (rows,)
        return found

    def tensors(self) -> dict[str, Shape]:
        """Hugging Face name to shape of every tensor, in the order of the forward pass."""
        layer = self.layer_tensors()
        return {
            "model.embed_tokens.weight": (self.vocab, self.hidden),
            **{f"model.layers.{i}.{name}": shape for i in range(self.layers) for name, shape in layer.items()},
            "model.norm.weight": (self.hidden,),
            **({} if self.tied else {"lm_head.weight": (self.vocab, self.hidden)}),
        }

    def row_order(self, name: str) -> np.ndarray | None:
        """Which row of a tensor stands at each place in the GGUF; None where the order stays."""
        heads = {"q_proj": self.heads, "k_proj": self.kv_heads}.get(name.split(".")[-2])
        if self.name != "llama" or heads is None:
            return None
        return np.arange(heads * self.head_dim).reshape(heads, 2, self.head_dim // 2).swapaxes(1, 2).reshape(-1)

    def rope_factors(self) -> np.ndarray | None:
        """What each rotation's frequency is divided by, (head_dim / 2,) float32; None where none is.

        In torch's float32 as the peer computes it, so that the bytes are the same.
        """
        if self.rope is None:
            return None
        import torch

        frequencies = 1.0 / (self.rope_theta ** (torch.arange(0, self.head_dim, 2, dtype=torch.float32) / self.head_dim))
        rope = self.rope
        slow, fast = rope.original_context / rope.low_freq_factor, rope.original_context / rope.high_freq_factor

        def divisor(frequency: torch.Tensor) -> torch.Tensor | float:
            length = 2 * math.pi / frequency  # tokens of one turn
            if length < fast:
                return 1.0
            if length > slow:
                return rope.factor
            smooth = (rope.original_context / length - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
            return 1 / ((1 - smooth) / rope.factor + smooth)

        return torch.tensor([divisor(frequency) for frequency in frequencies], dtype=torch.float32).numpy()


def gguf_name(name: str) -> str:
    """GGUF name of a tensor by its Hugging Face name."""
    module, kind = name.rsplit(".", 1)
    if module in TOP_NAMES:
        return f"{TOP_NAMES[module]}.{kind}"
    _, _, layer, inside = module.split(".", 3)
    return f"blk.{layer}.{NAMES[inside]}.{kind}"


def gguf_names(model: Architecture) -> dict[str, str]:
    """Hugging Face name to GGUF name of every tensor of a model folder."""
    return {name: gguf_name(name) for name in model.tensors()}


def read_config(folder: Path, made_by: str) -> dict[str, Any]:
    """config.json of a model folder.

    Raises:
        InputError: missing (names `made_by`, the command that makes it) or not JSON.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise InputError(f"{file} is missing: run `{made_by}` first, or name another folder")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not valid JSON ({error}): run `{made_by}` again") from None
    if not isinstance(config, dict):
        raise InputError(f"{file} is not a JSON object: run `{made_by}` again")
    return config


def architecture_of(config: dict[str, Any], where: Path) -> Architecture:
    """The dimensions a config.json states.

    Raises:
        InputError: another architecture, a variant that llama.cpp's graph does not compute, quantized weights, or a number is
            missing or no number; names it.
    """
    name = config.get("model_type")
    if name not in ARCHITECTURES:
        raise InputError(f"{where} holds a {name!r} model: only {' and '.join(ARCHITECTURES)} models are converted here")
    try:
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        _check_variant(config, rope, where)
        heads, qwen2 = int(config["num_attention_heads"]), name == "qwen2"
        return Architecture(
            name=name,
            hidden=int(config["hidden_size"]),
            ffn=int(config["intermediate_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
            vocab=int(config["vocab_size"]),
            context=int(config["max_position_embeddings"]),
            rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
            rms_eps=float(config["rms_norm_eps"]),
            tied=bool(config.get("tie_word_embeddings", False)),
            qkv_bias=qwen2 or bool(config.get("attention_bias")),
            o_bias=not qwen2 and bool(config.get("attention_bias")),
            mlp_bias=not qwen2 and bool(config.get("mlp_bias")),
            rope=_llama3(rope) if _rope_type(rope) == "llama3" else None,
        )
    except KeyError as error:
        raise InputError(f"{where}/config.json has no {error}: use the folder as it was published") from None
    except (TypeError, ValueError, ZeroDivisionError, AttributeError) as error:
        raise InputError(f"{where}/config.json has a value of the wrong kind ({error}): use the folder as it was published") from None


def _check_variant(config: dict[str, Any], rope: dict[str, Any], where: Path) -> None:
    kind = _rope_type(rope)
    unlike = {
        "quantized weights": bool(config.get("quantization_config")),
        "sliding-window attention": bool(config.get("use_sliding_window")),
        f"rope type {kind!r}": kind not in (("default",) if config["model_type"] == "qwen2" else ("default", "llama3")),
        "rotations of a part of each head": (rope.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1) != 1,
        f"activation {config.get('hidden_act')!r}": config.get("hidden_act", "silu") != "silu",
    }
    for what, present in unlike.items():
        if present:
            raise InputError(f"{where} has {what}, which is not converted here: use the full-precision base as published")


def _rope_type(rope: dict[str, Any]) -> str:
    return str(rope.get("rope_type", rope.get("type", "default")))


def _llama3(rope: dict[str, Any]) -> Llama3Rope:
    return Llama3Rope(
        float(rope["factor"]),
        float(rope["low_freq_factor"]),
        float(rope["high_freq_factor"]),
        int(rope["original_max_position_embeddings"]),
    )
