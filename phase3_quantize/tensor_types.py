"""Which type each tensor gets when a model is quantized to, say, Q4_K_M.

In:  the tensors of a GGUF, the name of a quantization, whether importance weights are at hand
Out: for each tensor the type that is wanted and the type it gets

A quantization's name is that of most of its tensors. Some get more bits: the output matrix, and in some layers the two matrices that
were found to matter most (values, and the way out of the feed-forward block). K-quants cut rows into blocks of 256; a matrix whose
columns are no multiple of that falls back to a type with blocks of 32.

The rules are those of llama.cpp's src/llama-quant.cpp (llama_tensor_get_type, llama_tensor_get_type_impl, tensor_type_fallback,
tensor_allows_quantization) for dense Qwen2 and Llama models, as vendored in llama-cpp-python 0.3.36. A test and
`python -m eval quant-identity` compare every type with llama-quantize, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Ggml

from phase3_quantize.mix import MIXES
from phase3_quantize.source import Matrix, Shape

MOST = {
    "F16": Ggml.F16, "BF16": Ggml.BF16, "Q8_0": Ggml.Q8_0, "Q6_K": Ggml.Q6_K, "Q5_K_M": Ggml.Q5_K, "Q5_K_S": Ggml.Q5_K,
    "Q5_1": Ggml.Q5_1, "Q5_0": Ggml.Q5_0, "Q4_K_M": Ggml.Q4_K, "Q4_K_S": Ggml.Q4_K, "IQ4_NL": Ggml.IQ4_NL, "IQ4_XS": Ggml.IQ4_XS,
    "Q4_1": Ggml.Q4_1, "Q4_0": Ggml.Q4_0, "Q3_K_L": Ggml.Q3_K, "Q3_K_M": Ggml.Q3_K, "Q3_K_S": Ggml.Q3_K,
}  # fmt: skip
FALLBACK = {Ggml.IQ4_XS: Ggml.IQ4_NL, Ggml.Q3_K: Ggml.Q4_0, Ggml.Q4_K: Ggml.Q5_0, Ggml.Q5_K: Ggml.Q5_1, Ggml.Q6_K: Ggml.Q8_0}
GROUPED = 4  # query heads for each key-value head from which the values, then few, get more bits


class Choice(NamedTuple):
    """What a tensor gets, and what it would get if its columns fitted."""

    type: Ggml
    wanted: Ggml


def in_llama_cpp_order(tensors: Iterable[Matrix]) -> list[Matrix]:
    """Tensors as llama.cpp passes over them and writes them: those outside the layers, then by layer, each by name."""

    def place(tensor: Matrix) -> tuple[int, str]:
        layer = re.match(r"blk\.(\d+)\.", tensor.name)
        return int(layer[1]) if layer else -1, tensor.name

    return sorted(tensors, key=place)


def is_quantized(tensor: Matrix) -> bool:
    """Matrices are; vectors and norms stay as they are."""
    return tensor.rows > 1 and tensor.name.endswith("weight") and not tensor.name.endswith("_norm.weight")


def fits(kind: Ggml, columns: int) -> bool:
    """Whether rows of so many columns can be cut into the type's blocks."""
    return columns % GGML_QUANT_SIZES[kind][0] == 0


def fallen(wanted: Ggml, columns: int) -> Ggml:
    """The type in place of one whose blocks do not fit; float16 where not even 32 fit."""
    if fits(wanted, columns):
        return wanted
    other = FALLBACK.get(wanted, wanted)
    return other if fits(other, columns) else Ggml.F16


def more_bits(layer: int, layers: int) -> bool:
    """The first and last eighth of the layers, and every third between them."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def output_type(most: Ggml) -> Ggml:
    """Of the matrix that makes the logits, which is the embedding where the two are tied."""
    return Ggml.Q8_0 if most == Ggml.Q8_0 else Ggml.Q6_K


def values_type(kind: str, most: Ggml, number: int, count: int, shape: Shape) -> Ggml:
    """Of a layer's value matrix."""
    found = most
    if kind == "Q3_K_M":
        found = Ggml.Q5_K if number < 2 else Ggml.Q4_K
    elif kind == "Q3_K_L" or (kind in ("IQ4_NL", "IQ4_XS") and shape.grouped >= GROUPED) or (kind == "Q4_K_S" and number < 4):
        found = Ggml.Q5_K
    elif kind in ("Q4_K_M", "Q5_K_M") and more_bits(number, count):
        found = Ggml.Q6_K
    return Ggml.Q5_K if shape.is_70b and found in (Ggml.Q3_K, Ggml.Q4_K) else found


def down_type(kind: str, most: Ggml, layer: int, layers: int, weighed: bool) -> Ggml:
    """Of a layer's matrix out of the feed-forward block; `weighed`: importance weights are at hand."""
    early = layer < layers // 8
    if kind == "Q3_K_M":
        return Ggml.Q5_K if layer < layers // 16 else Ggml.Q4_K
    if kind == "Q3_K_L" or (early and (kind == "Q4_K_S" or (kind in ("IQ4_NL", "IQ4_XS") and not weighed))):
        return Ggml.Q5_K
    if kind in ("Q4_K_M", "Q5_K_M") and more_bits(layer, layers):
        return Ggml.Q6_K
    if early and weighed and kind in ("Q4_0", "Q5_0"):
        return Ggml.Q4_1 if kind == "Q4_0" else Ggml.Q5_1
    return most


def attention_output_type(kind: str, most: Ggml) -> Ggml:
    """Of a layer's matrix out of the attention."""
    return {"Q3_K_M": Ggml.Q4_K, "Q3_K_L": Ggml.Q5_K}.get(kind, most)


def tensor_class(name: str) -> str:
    """What a matrix does: attn_q, attn_k, attn_v, attn_output, ffn_gate, ffn_up, ffn_down, token_embd or output."""
    return name.removesuffix(".weight").rpartition(".")[2]


def choose_types(tensors: Sequence[Matrix], kind: str | Mapping[str, str], shape: Shape, weighed: bool) -> dict[str, Choice]:
    """The type of every tensor that is quantized, by name.

    Args:
        kind: a name of MOST or of mix.MIXES, or the type of each class of tensors.
        weighed: importance weights are at hand.
    """
    if not isinstance(kind, str) or kind in MIXES:
        return mixed_types(tensors, MIXES[kind] if isinstance(kind, str) else kind)
    most, tied = MOST[kind], all(t.name != "output.weight" for t in tensors)
    count = sum(tensor_class(t.name) == "attn_v" for t in tensors)
    seen = {"attn_v": 0, "ffn_down": 0}
    chosen: dict[str, Choice] = {}
    for tensor in in_llama_cpp_order(tensors):
        if not is_quantized(tensor):
            continue
        what, wanted = tensor_class(tensor.name), most
        if GGML_QUANT_SIZES[most][0] > 1:
            if what == "output" or (what == "token_embd" and tied):
                wanted = output_type(most)
            elif what == "attn_v":
                wanted = values_type(kind, most, seen[what], count, shape)
            elif what == "ffn_down":
                wanted = down_type(kind, most, seen[what], shape.layers, weighed)
            elif what == "attn_output":
                wanted = attention_output_type(kind, most)
            if what in seen:
                seen[what] += 1
        chosen[tensor.name] = Choice(fallen(wanted, tensor.columns), wanted)
    return chosen


def mixed_types(tensors: Sequence[Matrix], mix: Mapping[str, str]) -> dict[str, Choice]:
    """The types of a mix, which names one for each class of tensors; classes that it leaves out stay as they are."""
    wanted = {t.name: (t.columns, Ggml[mix[tensor_class(t.name)]]) for t in tensors if is_quantized(t) and tensor_class(t.name) in mix}
    return {name: Choice(fallen(kind, columns), kind) for name, (columns, kind) in wanted.items()}
