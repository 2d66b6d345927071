"""One layer of a Qwen2 or Llama at a time, so that a model can be asked without ever being in memory.

In:  hidden states of some rows, the weights of one layer
Out: the hidden states after it

The arithmetic is transformers' (modeling_qwen2.py, modeling_llama.py) in float32; a test compares the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from phase3_quantize.architecture import Architecture

Linear = Callable[[str, Tensor], Tensor]  # name inside the layer, such as mlp.up_proj, and (T, in) to (T, out)


def normed(hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Root-mean-square normalization of (T, hidden)."""
    return hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + epsilon) * weight


def rotations(model: Architecture, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine (length, head_dim) of every position's rotation."""
    frequencies = 1.0 / (model.rope_theta ** (torch.arange(0, model.head_dim, 2, dtype=torch.float32, device=device) / model.head_dim))
    factors = model.rope_factors()
    if factors is not None:
        frequencies = frequencies / torch.from_numpy(factors).to(device)
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device=device), frequencies).repeat(1, 2)
    return angles.cos(), angles.sin()


def _rotated(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """(heads, T, head_dim) with its first half turned against its second."""
    half = heads.shape[-1] // 2
    return heads * cosine + torch.cat((-heads[..., half:], heads[..., :half]), -1) * sine


def layer(
    model: Architecture,
    hidden: Tensor,
    lengths: Sequence[int],
    norms: Mapping[str, Tensor],
    linear: Linear,
    turn: tuple[Tensor, Tensor],
) -> Tensor:
    """(T, hidden) through one layer, where T is rows of `lengths` tokens end to end; every token sees those before it in its row.

    Args:
        norms: the layer's two norm weights by name inside the layer.
        linear: applies a matrix of the layer, and its bias.
        turn: `rotations` of as many positions as the longest row has, or more.
    """
    states = normed(hidden, norms["input_layernorm.weight"], model.rms_eps)
    heads = [linear(f"self_attn.{name}_proj", states).view(len(hidden), -1, model.head_dim).transpose(0, 1) for name in "qkv"]
    attended = []
    for query, key, value in zip(*(part.split(list(lengths), 1) for part in heads), strict=True):
        cosine, sine = (part[: query.shape[1]] for part in turn)
        query, key = _rotated(query, cosine, sine), _rotated(key, cosine, sine)
        found = functional.scaled_dot_product_attention(query[None], key[None], value[None], is_causal=True, enable_gqa=True)[0]
        attended.append(found.transpose(0, 1).reshape(query.shape[1], -1))
    hidden = hidden + linear("self_attn.o_proj", torch.cat(attended))
    states = normed(hidden, norms["post_attention_layernorm.weight"], model.rms_eps)
    gate, up = linear("mlp.gate_proj", states), linear("mlp.up_proj", states)
    return hidden + linear("mlp.down_proj", functional.silu(gate) * up)
