"""Put a LoRA adapter into the weights of its base: W + scale * B A, a few rows at a time, in float32.

In:  phase2_train/out/base (Hugging Face folder), phase2_train/out/{dpo_gate,dpo,sft}/adapter (peft), or no adapter;
     phase1_data/out/samples/valid.parquet for `merge.onto: measured`
Out: phase3_quantize/out/merge: config, tokenizer files, model.safetensors (float32, embeddings tied as in the base), manifest.json

A QLoRA adapter was trained on NF4 weights. `nf4` adds it to those, rounded as in training and dequantized again (the merged model is then
the trained one); `full` adds it to the weights as they were before rounding, which is closer to the base and further from what was
trained. `measured` asks on held-out rows how far each of the two is from the trained model (onto.py), merges onto the closer one and keeps
both figures. Where the gates let neither SFT nor DPO through (gate.json beside the adapter says so), the base is written as it is. The
arithmetic is peft's (tuners/lora/layer.py, get_delta_weight); a test compares.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from core.errors import CheckFailed, InputError
from core.fim import codec_of
from core.manifest import MANIFEST, Run, sha256_of
from core.progress import track
from core.records import read_json, write_json
from phase3_quantize.architecture import Architecture, architecture_of, read_config
from phase3_quantize.holes import hole_of, read_rows
from phase3_quantize.lora import ADAPTER_BY, Delta, check_belongs, check_fits, read_adapter, trained_bits
from phase3_quantize.onto import HeldRow, Onto, added, matrix, measure
from phase3_quantize.params import MergeParams
from phase3_quantize.weights import Weights, check_tensors, model_files, open_weights, row_blocks, write_f32

BASE_BY = "python -m phase2_train base"
VALID = Path("phase1_data/out/samples/valid.parquet")
VERDICT = "gate.json"  # what the gate that shipped an adapter left beside it
COPIED = ("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "generation_config.json",
          "chat_template.jinja", "LICENSE*", "README.md")  # fmt: skip
CPU = torch.device("cpu")


def merged_rows(weights: Weights, name: str, delta: Delta | None, rounded: bool) -> Iterator[np.ndarray]:
    """A tensor in blocks of rows, its delta, if it has one, added; rounded to NF4 first if asked.

    Raises:
        CheckFailed: a sum is not finite.
    """
    if delta is not None or rounded:
        whole = matrix(weights, name, rounded, CPU)
        blocks = iter([(whole + added(delta, CPU) if delta is not None else whole).numpy()])
    else:
        blocks = (weights.array(name, start, stop) for start, stop in row_blocks(weights.shape(name)))
    for block in blocks:
        if not np.isfinite(block).all():
            raise CheckFailed(f"{name} is not finite after the merge: the base is damaged or the adapter diverged")
        yield block


def held_rows(samples: Path, base: Path, vocab: int, count: int) -> list[HeldRow]:
    """`count` rows spread evenly over a file of samples, each in the order it was made for.

    Raises:
        InputError: the file is missing or damaged, or holds no middles; the tokenizer has no FIM markers, or is of another model.
    """
    rows = read_rows(samples, count)
    try:
        codec = codec_of(Tokenizer.from_file(str(base / "tokenizer.json")))
    except Exception as error:  # noqa: BLE001  # tokenizers raises nothing narrower for a damaged file
        raise InputError(f"{base / 'tokenizer.json'}: {error}: fetch the model again") from None
    found = [HeldRow(*codec.row(hole_of(row), row["order"])) for row in rows]
    if max(max(row.ids) for row in found) >= vocab:
        raise InputError(f"{base}: the tokenizer has ids beyond the model's {vocab} rows: they do not belong together")
    return found


def closer(found: Mapping[str, Any], rounded: bool) -> Onto:
    """The merged model that is closer to the trained one; of equals, the one on the weights that were trained on."""
    trained: Onto = "nf4" if rounded else "full"
    other: Onto = "full" if rounded else "nf4"
    return other if found[other]["kl_mean"] < found[trained]["kl_mean"] else trained


def shipped(adapter: Path | None, named: str) -> str:
    """Which training step an adapter is of: base, sft or dpo; as its gate says, else as the params name it (dpo where they do not)."""
    if adapter is None:
        return "base"
    verdict = adapter.parent / VERDICT
    if verdict.is_file():
        return str(read_json(verdict, ADAPTER_BY).get("ships"))
    return "sft" if named == "sft" else "dpo"


def write_folder(base: Path, out: Path, model: Architecture, weights: Weights, deltas: dict[str, Delta], onto: Onto | None) -> None:
    """Write a model folder that transformers loads: config, tokenizer files and float32 weights."""
    out.mkdir(parents=True)
    for pattern in COPIED:
        for file in sorted(base.glob(pattern)):
            shutil.copyfile(file, out / file.name)
    config = {key: value for key, value in read_config(base, BASE_BY).items() if key not in ("dtype", "torch_dtype")}
    write_json(out / "config.json", {**config, "dtype": "float32"})
    progress = iter(track(model.tensors(), "merge", unit="tensors"))

    def load(name: str) -> Iterator[np.ndarray]:
        next(progress)
        return merged_rows(weights, name, deltas.get(name), onto == "nf4" and name.endswith("_proj.weight"))

    write_f32(out / "model.safetensors", model.tensors(), load)
    next(progress, None)  # lets the progress end


def license_of(folder: Path) -> str | None:
    """SPDX id of a model folder: its card's front matter, else the licence text; None if it says nothing."""
    card = folder / "README.md"
    stated = re.search(r"\A---\n.*?^license:\s*(\S+)\s*$.*?^---", card.read_text(encoding="utf-8"), re.M | re.S) if card.is_file() else None
    if stated:
        return stated[1]
    for file in sorted(folder.glob("LICENSE*")):
        start = file.read_text(encoding="utf-8", errors="replace")[:2000]
        if "Apache License" in start and "Version 2.0" in start:
            return "apache-2.0"
        if "MIT License" in start:
            return "mit"
        return "other"
    return None


def provenance(base: Path, adapter: Path | None) -> dict[str, str]:
    """What the GGUF will say about where it comes from: base model and revision, licence, sha256 of data and params."""
    said: dict[str, str | None] = {"license": license_of(base)}
    if (base / MANIFEST).is_file():
        section = read_json(base / MANIFEST, BASE_BY).get("params", {}).get("base", {})
        said |= {"base_model": section.get("model"), "base_revision": section.get("revision")}
    if adapter is not None and (adapter.parent / MANIFEST).is_file():
        said["training_sha256"] = sha256_of(adapter.parent / MANIFEST)  # names params and sha256 of the data in turn
    return {key: value for key, value in said.items() if value}


def run(base: Path, adapter: Path | None, out: Path, params: MergeParams, samples: Path = VALID) -> dict[str, Any]:
    """Merge into a new folder that appears whole or not at all; return the counts of its manifest.

    Args:
        samples: held-out rows, read only if `merge.onto` is `measured` and there is something to merge.

    Raises:
        InputError: base, adapter or samples missing, damaged, of another kind, or not belonging together.
        CheckFailed: the merged weights are not finite.
        MachineError: no space.
    """
    started = Run("merge", out)
    model = architecture_of(read_config(base, BASE_BY), base)
    if not (base / "tokenizer.json").is_file():
        raise InputError(f"{base / 'tokenizer.json'} is missing: run `{BASE_BY}` again")
    deltas = read_adapter(adapter) if adapter is not None else {}
    base_sha, step = sha256_of(base), shipped(adapter, params.adapter)
    if adapter is not None:
        check_belongs(adapter, base, base_sha)
        check_fits(deltas, model, adapter)
    if step == "base":
        deltas = {}  # nothing trained ships, and the base was not trained on rounded weights
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with open_weights(model_files(base), BASE_BY) as weights:
            check_tensors(weights, model, base)
            onto, measured = choose(
                weights, model, deltas, trained_bits(adapter), lambda: held_rows(samples, base, model.vocab, params.rows), params
            )
            write_folder(base, partial, model, weights, deltas, onto)
        shutil.rmtree(out, ignore_errors=True)
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    counts = {
        "tensors": len(model.tensors()),
        "merged": len(deltas),
        "parameters": sum(math.prod(shape) for shape in model.tensors().values()),
        "tied": model.tied,
        "shipped": step,
        "onto": onto,
        "measured": measured,
        "provenance": provenance(base, adapter if deltas else None),
    }
    inputs = [base, *([adapter] if adapter else []), *([samples] if measured else [])]
    started.finish({"merge": params}, inputs, counts, ("torch", "bitsandbytes"), parent=base_sha)
    return counts


def choose(
    weights: Weights, model: Architecture, deltas: Mapping[str, Delta], bits: int, rows: Callable[[], list[HeldRow]], params: MergeParams
) -> tuple[Onto | None, dict[str, Any] | None]:
    """Onto which weights to merge, and what was measured for that; (None, None) where there is nothing to merge."""
    if not deltas:
        return None, None
    if params.onto != "measured":
        return params.onto, None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = {"bits": bits, **measure(weights, model, deltas, rows(), bits == 4, device)}
    return closer(found, bits == 4), found
