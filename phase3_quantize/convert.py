"""Write a merged model as GGUF, without a llama.cpp checkout.

In:  phase3_quantize/out/merge (or any Qwen2 or Llama folder of Hugging Face)
Out: a GGUF in f32, f16 or bf16, tensor for tensor what llama.cpp's convert_hf_to_gguf.py writes, with FIM ids and provenance added

`python -m eval convert-bench` holds the two together, tensor by tensor and key by key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np

from core.manifest import MANIFEST
from core.records import read_json
from phase3_quantize.architecture import ROPE_FREQS, Architecture, Shape, architecture_of, gguf_names, read_config
from phase3_quantize.gguf_read import Contents, inspect
from phase3_quantize.gguf_write import FTYPES, Rows, entries_of, plan, write_gguf
from phase3_quantize.model_card import add_general
from phase3_quantize.params import OutType
from phase3_quantize.vocab import Vocab, add_vocab, read_vocab
from phase3_quantize.weights import Weights, check_tensors, model_files, open_weights

MERGED_BY = "python -m phase3_quantize merge"


def provenance(folder: Path) -> dict[str, str]:
    """What the manifest of `merge` says about where the model comes from; nothing for another folder."""
    manifest = read_json(folder / MANIFEST, MERGED_BY) if (folder / MANIFEST).is_file() else {}
    if manifest.get("stage") != "merge":
        return {}
    said: dict[str, str] = {**manifest["counts"]["provenance"], "base_sha256": manifest["parent"]}
    return {"name": f"tabsmith {Path(said.get('base_model', 'model')).name}", **said}


def gguf_shapes(model: Architecture) -> dict[str, Shape]:
    """GGUF name to shape of every tensor that a model's file holds."""
    names = gguf_names(model)
    factors = {} if model.rope is None else {ROPE_FREQS: (model.head_dim // 2,)}
    return {**factors, **{names[name]: shape for name, shape in model.tensors().items()}}


def metadata(model: Architecture, vocab: Vocab, outtype: OutType, folder: Path | None, said: Mapping[str, str]) -> dict[str, bytes]:
    """Everything llama.cpp's converter writes, FIM ids, and where the model comes from; see gguf_write.entries_of.

    Args:
        folder: the model's, for its card and generation_config.json; None for a model without one.
    """
    writer = gguf.GGUFWriter(None, model.name)
    parameters = sum(int(np.prod(shape)) for shape in gguf_shapes(model).values())
    writer.add_type(gguf.GGUFType.MODEL)
    add_general(writer, folder, parameters, said)
    add_dimensions(writer, model)
    writer.add_file_type(FTYPES[outtype])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_vocab(writer, vocab)
    if model.name == "llama":
        writer.add_vocab_size(model.vocab)
        writer.add_rope_dimension_count(model.head_dim)
        if vocab.prefix_space is not None:
            writer.add_add_space_prefix(vocab.prefix_space)
    return entries_of(writer)


def add_dimensions(writer: gguf.GGUFWriter, model: Architecture) -> None:
    """The numbers of the architecture."""
    writer.add_block_count(model.layers)
    writer.add_context_length(model.context)
    writer.add_embedding_length(model.hidden)
    writer.add_feed_forward_length(model.ffn)
    writer.add_head_count(model.heads)
    writer.add_head_count_kv(model.kv_heads)
    writer.add_key_length(model.head_dim)
    writer.add_value_length(model.head_dim)
    writer.add_rope_freq_base(model.rope_theta)
    writer.add_layer_norm_rms_eps(model.rms_eps)


def rows_of(model: Architecture, weights: Weights) -> Rows:
    """Rows of a tensor by its GGUF name, in the GGUF's order."""
    originals = {name: original for original, name in gguf_names(model).items()}

    def rows(name: str, start: int, stop: int) -> np.ndarray:
        if name == ROPE_FREQS:
            factors = model.rope_factors()
            assert factors is not None
            return factors[start:stop]
        order = model.row_order(originals[name])
        if order is None:
            return weights.rows(originals[name], start, stop)
        wanted = order[start:stop]  # a head's rows change places among themselves, so what is wanted lies close together
        first = int(wanted.min())
        return weights.rows(originals[name], first, int(wanted.max()) + 1)[wanted - first]

    return rows


def run(folder: Path, out: Path, outtype: OutType) -> Contents:
    """Convert, then open the file again and look at what it holds.

    Raises:
        InputError: a file or tensor missing, another architecture or tokenizer, values too large for f16.
        MachineError: no space.
    """
    model = architecture_of(read_config(folder, MERGED_BY), folder)
    vocab = read_vocab(folder, model.vocab)
    with open_weights(model_files(folder), MERGED_BY) as weights:
        check_tensors(weights, model, folder)
        entries = metadata(model, vocab, outtype, folder, provenance(folder))
        write_gguf(out, entries, plan(gguf_shapes(model), outtype), rows_of(model, weights))
    return inspect(out, "python -m phase3_quantize convert")
