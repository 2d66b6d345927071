"""The Qwen2 architecture as its config.json states it: the numbers a GGUF needs and the tensors a model must have.

In:  config.json of a Hugging Face folder
Out: Qwen2, with the name and shape of every tensor
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import InputError

Shape = tuple[int, ...]


class Qwen2(NamedTuple):
    """Dimensions of a model; `head_dim` times `heads` need not equal `hidden`."""

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

    def tensors(self) -> dict[str, Shape]:
        """Hugging Face name to shape, in the order of the forward pass."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        layer: dict[str, Shape] = {
            "input_layernorm.weight": (self.hidden,),
            "self_attn.q_proj.weight": (q, self.hidden),
            "self_attn.q_proj.bias": (q,),
            "self_attn.k_proj.weight": (kv, self.hidden),
            "self_attn.k_proj.bias": (kv,),
            "self_attn.v_proj.weight": (kv, self.hidden),
            "self_attn.v_proj.bias": (kv,),
            "self_attn.o_proj.weight": (self.hidden, q),
            "post_attention_layernorm.weight": (self.hidden,),
            "mlp.gate_proj.weight": (self.ffn, self.hidden),
            "mlp.up_proj.weight": (self.ffn, self.hidden),
            "mlp.down_proj.weight": (self.hidden, self.ffn),
        }
        return {
            "model.embed_tokens.weight": (self.vocab, self.hidden),
            **{f"model.layers.{i}.{name}": shape for i in range(self.layers) for name, shape in layer.items()},
            "model.norm.weight": (self.hidden,),
            **({} if self.tied else {"lm_head.weight": (self.vocab, self.hidden)}),
        }


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


def qwen2_of(config: dict[str, Any], where: Path) -> Qwen2:
    """The dimensions a config.json states.

    Raises:
        InputError: another architecture, a variant that llama.cpp's qwen2 does not compute, quantized weights, or a
            number is missing; names it.
    """
    if config.get("model_type") != "qwen2":
        raise InputError(
            f"{where} holds a {config.get('model_type')!r} model: only the Qwen2 architecture (Qwen2.5-Coder) is converted here"
        )
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    unlike = {
        "quantized weights": bool(config.get("quantization_config")),
        "sliding-window attention": bool(config.get("use_sliding_window")),
        f"rope type {kind!r}": kind != "default",
        f"activation {config.get('hidden_act')!r}": config.get("hidden_act", "silu") != "silu",
    }
    for what, present in unlike.items():
        if present:
            raise InputError(f"{where} has {what}, which is not converted here: use the full-precision Qwen2.5-Coder base as published")
    try:
        heads = int(config["num_attention_heads"])
        return Qwen2(
            hidden=int(config["hidden_size"]),
            ffn=int(config["intermediate_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
            vocab=int(config["vocab_size"]),
            context=int(config["max_position_embeddings"]),
            rope_theta=float(rope.get("rope_theta") or config["rope_theta"]),
            rms_eps=float(config["rms_norm_eps"]),
            tied=bool(config.get("tie_word_embeddings", False)),
        )
    except KeyError as error:
        raise InputError(f"{where}/config.json has no {error}: use the folder as it was published") from None
