"""Write a LoRA adapter as GGUF, so that one base serves several adapters: `llama-server -m base.gguf --lora one.gguf`.

In:  an adapter folder of peft, its base's config.json
Out: a GGUF with A and B of every matrix and the adapter's alpha, tensor for tensor what llama.cpp's convert_lora_to_gguf.py writes

llama.cpp adds alpha / r * B A. A rank-stabilized adapter (alpha / sqrt(r)) has sqrt(r) put into B, which the peer leaves out. An adapter of
a 4-bit training was trained on rounded weights; beside the base's own it computes what `merge.onto: full` does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np

from core.manifest import MANIFEST, sha256_of
from core.records import read_json
from phase3_quantize.architecture import Architecture, Shape, architecture_of, gguf_name, read_config
from phase3_quantize.gguf_read import Contents, inspect
from phase3_quantize.gguf_write import entries_of, plan, write_gguf
from phase3_quantize.lora import ADAPTER_BY, Delta, check_fits, read_adapter
from phase3_quantize.model_card import add_general
from phase3_quantize.params import OutType

BASE_BY = "python -m phase2_train base"


def halves(model: Architecture, deltas: Mapping[str, Delta], alpha: float) -> dict[str, np.ndarray]:
    """A (r, in) and B (out, r) of every matrix by GGUF name, B's rows in the GGUF's order."""
    found: dict[str, np.ndarray] = {}
    for name, delta in deltas.items():
        order = model.row_order(name)
        b = delta.b if order is None else delta.b[order]
        scale = delta.scale * len(delta.a) / alpha if alpha else 1.0  # what llama.cpp's alpha / r leaves out: 1, or sqrt(r)
        if not math.isclose(scale, 1.0):
            b = b * np.float32(scale)
        found[f"{gguf_name(name)}.lora_a"], found[f"{gguf_name(name)}.lora_b"] = delta.a, b
    return found


def metadata(model: Architecture, folder: Path, alpha: float, parameters: int) -> dict[str, bytes]:
    """What llama.cpp's converter writes for an adapter, and the hash of its training."""
    writer = gguf.GGUFWriter(None, model.name)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    trained = folder.parent / MANIFEST
    add_general(writer, folder, -parameters, {"training_sha256": sha256_of(trained)} if trained.is_file() else {})
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    return entries_of(writer)


def run(adapter: Path, base: Path, out: Path, outtype: OutType) -> Contents:
    """Convert, then open the file again and look at what it holds.

    Raises:
        InputError: base or adapter missing, damaged, no plain LoRA, or not belonging together.
        MachineError: no space.
    """
    model = architecture_of(read_config(base, BASE_BY), base)
    deltas = read_adapter(adapter)
    check_fits(deltas, model, adapter)
    alpha = float(read_json(adapter / "adapter_config.json", ADAPTER_BY)["lora_alpha"])
    found = halves(model, deltas, alpha)
    shapes: dict[str, Shape] = {name: half.shape for name, half in found.items()}
    parameters = sum(len(delta.b) * delta.a.shape[1] for delta in deltas.values())
    entries = metadata(model, adapter, alpha, parameters)
    write_gguf(out, entries, plan(shapes, outtype), lambda name, start, stop: found[name][start:stop])
    return inspect(out, "python -m phase3_quantize convert-lora")
