"""Write a GGUF, one tensor in memory at a time.

In:  dimensions, vocabulary, provenance and a function that gives each tensor
Out: a GGUF that llama.cpp loads
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Ggml

from core.errors import InputError
from core.fim import FimTokens
from core.progress import track
from core.records import partial
from phase3_quantize.gguf_read import ARCH
from phase3_quantize.params import OutType
from phase3_quantize.qwen2 import Qwen2
from phase3_quantize.space import need_space
from phase3_quantize.vocab import Vocab

FTYPES = {"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16, "bf16": gguf.LlamaFileType.MOSTLY_BF16}
GGML_TYPES = {"f32": Ggml.F32, "f16": Ggml.F16, "bf16": Ggml.BF16}
WIDTH = {Ggml.F32: 4, Ggml.F16: 2, Ggml.BF16: 2}  # bytes
F16_MAX = 65504.0
CHUNK = 1 << 22  # elements encoded at once


class _Block:
    """A tensor as GGUFWriter takes it: encoded while it is written, a few rows at a time.

    Written through the file object, so that a full disk is an OSError with its errno; numpy's `tofile` loses it.
    """

    def __init__(self, data: np.ndarray, kind: Ggml, name: str) -> None:
        self.data, self.kind, self.name = data, kind, name
        self.nbytes = data.size * WIDTH[kind]

    def tofile(self, sink: BinaryIO) -> None:
        rows = max(1, CHUNK // max(1, self.data[0].size))
        for start in range(0, len(self.data), rows):
            sink.write(np.ascontiguousarray(encoded(self.data[start : start + rows], self.kind, self.name)).data.cast("B"))


def type_of(name: str, shape: tuple[int, ...], outtype: OutType) -> Ggml:
    """Vectors and norms stay float32, as in llama.cpp's converter: most kernels take nothing else for them."""
    return Ggml.F32 if len(shape) == 1 or name.endswith("_norm.weight") else GGML_TYPES[outtype]


def gguf_names(model: Qwen2) -> dict[str, str]:
    """Hugging Face name to GGUF name of every tensor."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, model.layers)
    found = {name: names.get_name(name, try_suffixes=(".weight", ".bias")) for name in model.tensors()}
    return {name: mapped for name, mapped in found.items() if mapped is not None}


def add_metadata(writer: gguf.GGUFWriter, model: Qwen2, outtype: OutType, provenance: Mapping[str, str]) -> None:
    """Everything llama.cpp's converter writes for Qwen2, and where the model comes from."""
    parameters = sum(math.prod(shape) for shape in model.tensors().values())
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(provenance.get("name", "tabsmith"))
    writer.add_size_label(gguf.size_label(parameters, 0, 0, 0))
    if "license" in provenance:
        writer.add_license(provenance["license"])
    if "base_model" in provenance:
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, provenance["base_model"])
        writer.add_base_model_version(0, provenance.get("base_revision", ""))
    for key, value in sorted(provenance.items()):
        if key.endswith("_sha256"):
            writer.add_string(f"tabsmith.{key}", value)
    writer.add_block_count(model.layers)
    writer.add_context_length(model.context)
    writer.add_embedding_length(model.hidden)
    writer.add_feed_forward_length(model.ffn)
    writer.add_head_count(model.heads)
    writer.add_head_count_kv(model.kv_heads)
    if model.head_dim * model.heads != model.hidden:
        writer.add_key_length(model.head_dim)
        writer.add_value_length(model.head_dim)
    writer.add_rope_freq_base(model.rope_theta)
    writer.add_layer_norm_rms_eps(model.rms_eps)
    writer.add_file_type(FTYPES[outtype])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def add_vocab(writer: gguf.GGUFWriter, vocab: Vocab) -> None:
    """Tokens, merges and ids; the FIM ids too, which the converter leaves llama.cpp to guess from the texts.

    llama.cpp ends generation at eos, eot, <|im_end|>, and at the pad, repo and file-separator ids.
    """
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(vocab.tokens)
    writer.add_token_types(vocab.types)
    writer.add_token_merges(vocab.merges)
    if vocab.bos is not None:
        writer.add_bos_token_id(vocab.bos)
    writer.add_eos_token_id(vocab.fim.end)
    writer.add_eot_token_id(vocab.fim.end)
    writer.add_pad_token_id(vocab.pad)
    for key, token in fim_keys(vocab.fim).items():
        writer.add_uint32(key, token)
    writer.add_add_bos_token(False)
    if vocab.chat_template:
        writer.add_chat_template(vocab.chat_template)


def fim_keys(fim: FimTokens) -> dict[str, int]:
    """GGUF key to id of the six markers it has a place for."""
    keys = gguf.Keys.Tokenizer
    return {
        keys.FIM_PRE_ID: fim.prefix,
        keys.FIM_SUF_ID: fim.suffix,
        keys.FIM_MID_ID: fim.middle,
        keys.FIM_PAD_ID: fim.pad,
        keys.FIM_REP_ID: fim.repo_name,
        keys.FIM_SEP_ID: fim.file_sep,
    }


def encoded(data: np.ndarray, kind: Ggml, name: str) -> np.ndarray:
    """A float32 tensor as it stands in the file.

    Raises:
        InputError: a value is too large for float16.
    """
    if kind == Ggml.F32:
        return data.astype(np.float32, copy=False)
    if kind == Ggml.BF16:
        return gguf.quants.quantize(data, kind)
    over = int((np.abs(data) > F16_MAX).sum())
    if over:
        raise InputError(f"{name} has {over} values beyond float16's {F16_MAX:.0f}: convert with --outtype bf16 or f32")
    return data.astype(np.float16)


def write_gguf(
    path: Path, model: Qwen2, vocab: Vocab, outtype: OutType, provenance: Mapping[str, str], load: Callable[[str], np.ndarray]
) -> None:
    """Write a GGUF whole or not at all, holding one tensor in memory.

    Args:
        load: float32 tensor by its Hugging Face name.
    """
    writer = gguf.GGUFWriter(None, ARCH)
    add_metadata(writer, model, outtype, provenance)
    add_vocab(writer, vocab)
    names, shapes = gguf_names(model), model.tensors()
    kinds = {name: type_of(names[name], shapes[name], outtype) for name in shapes}
    sizes = {name: math.prod(shape) * WIDTH[kinds[name]] for name, shape in shapes.items()}
    need_space(path.parent, sum(sizes.values()))
    for name, shape in shapes.items():
        writer.add_tensor_info(names[name], shape, np.dtype(np.float32), sizes[name], raw_dtype=kinds[name])
    with partial(path) as unfinished:
        try:
            writer.write_header_to_file(unfinished)
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for name in track(list(shapes), path.name, unit="tensors"):
                writer.write_tensor_data(_Block(load(name), kinds[name], name))  # type: ignore[arg-type]  # takes anything with nbytes and tofile
        finally:
            writer.close()
