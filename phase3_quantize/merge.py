"""Put a LoRA adapter into the weights of its base: W + scale * B A, tensor by tensor, in float32.

In:  phase2_train/out/base (Hugging Face folder), phase2_train/out/{dpo_gate,dpo,sft}/adapter (peft), or no adapter
Out: phase3_quantize/out/merge: config, tokenizer files, model.safetensors (float32, embeddings tied as in the base), manifest.json

A QLoRA adapter was trained on NF4 weights. `merge.onto: nf4` adds it to those, rounded as in training and dequantized again
(the merged model is then the trained one); `onto: full` adds it to the weights as they were before rounding, which is closer to
the base and further from what was trained. Where the gates let neither SFT nor DPO through (gate.json beside the adapter says so),
the base is written as it is. The arithmetic is peft's (tuners/lora/layer.py, get_delta_weight); a test compares.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from core.errors import CheckFailed, InputError
from core.manifest import MANIFEST, Run, sha256_of
from core.nf4 import as_trained
from core.progress import track
from core.records import read_json, write_json
from phase3_quantize.params import MergeParams
from phase3_quantize.qwen2 import Qwen2, qwen2_of, read_config
from phase3_quantize.weights import Weights, check_tensors, model_files, open_weights, write_f32

BASE_BY, ADAPTER_BY = "python -m phase2_train base", "python -m phase2_train dpo-gate"
VERDICT = "gate.json"  # what the gate that shipped an adapter left beside it
COPIED = ("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "generation_config.json",
          "chat_template.jinja", "LICENSE*", "README.md")  # fmt: skip
KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])\.weight")

# Settings of peft's LoraConfig that make the delta something other than scale * B A on the stored base
UNLIKE_LORA = ("use_dora", "use_qalora", "use_bdlora", "lora_bias", "alora_invocation_tokens", "layer_replication", "target_parameters",
               "trainable_token_indices", "modules_to_save", "alpha_pattern", "fan_in_fan_out", "arrow_config", "kasa_config",
               "monteclora_config", "megatron_config")  # fmt: skip
KEEPS_BASE = (
    True,
    False,
    None,
    "gaussian",
    "orthogonal",
    "eva",
)  # other initializations (pissa, olora, corda, loftq) change the base weights


class Delta(NamedTuple):
    """The change of one matrix: A (r, in), B (out, r)."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float

    def full(self) -> torch.Tensor:
        """The (out, in) matrix that is added."""
        return (self.b @ self.a) * self.scale


def check_config(config: dict[str, Any], file: Path) -> None:
    """Refuse by name what is not a plain LoRA.

    Raises:
        InputError: another adapter type, or a setting this merge does not compute.
    """
    if config.get("peft_type") != "LORA":
        raise InputError(f"{file}: peft_type is {config.get('peft_type')!r}: only LORA adapters are merged here")
    for key in UNLIKE_LORA:
        if config.get(key):
            raise InputError(f"{file}: {key} is set, which this merge does not compute: train without it, or merge with peft")
    if config.get("bias", "none") != "none":
        raise InputError(f"{file}: bias is {config['bias']!r}, which this merge does not compute: train with bias none")
    if config.get("init_lora_weights", True) not in KEEPS_BASE:
        raise InputError(f"{file}: init_lora_weights {config['init_lora_weights']!r} changed the base weights: merge with peft")


def read_adapter(folder: Path) -> dict[str, Delta]:
    """Weight name of the base to its delta.

    Raises:
        InputError: files missing or damaged, not a plain LoRA, or non-finite values; names file and tensor.
    """
    file, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    config = read_json(file, ADAPTER_BY)
    check_config(config, file)
    halves: dict[str, dict[str, torch.Tensor]] = {}
    with open_weights([weights], ADAPTER_BY) as stored:
        for name in sorted(stored.names()):
            match = KEY.fullmatch(name)
            if match is None:
                raise InputError(f"{weights}: {name} is no LoRA matrix of a linear layer: train adapters on linear layers only")
            tensor = stored.tensor(name)
            if not torch.isfinite(tensor).all():
                raise InputError(f"{weights}: {name} has non-finite values: the training diverged, lower its learning rate and rerun")
            halves.setdefault(match["module"], {})[match["half"]] = tensor
    if not halves:
        raise InputError(f"{weights} holds no LoRA matrices: run `{ADAPTER_BY}` again")
    return {f"{module}.weight": _delta(module, pair, config, weights) for module, pair in halves.items()}


def _delta(module: str, pair: dict[str, torch.Tensor], config: dict[str, Any], file: Path) -> Delta:
    if pair.keys() != {"A", "B"} or pair["A"].shape[0] != pair["B"].shape[1]:
        raise InputError(f"{file}: {module} lacks a matching lora_A and lora_B: run `{ADAPTER_BY}` again")
    r = pair["A"].shape[0]  # a rank_pattern may give each module its own
    scale = config["lora_alpha"] / (math.sqrt(r) if config.get("use_rslora") else r)  # Kalajdzievski 2023 (arXiv 2312.03732) for rslora
    return Delta(pair["A"], pair["B"], scale)


def check_belongs(adapter: Path, base: Path, base_sha: str) -> None:
    """Refuse an adapter whose manifest leads to another base; one without a manifest is taken at its shapes.

    SFT's manifest names the base as its parent, DPO's the SFT adapter, which is looked for beside it.

    Raises:
        InputError: the manifests do not lead to `base_sha`.
    """
    seen: set[Path] = set()
    current: Path | None = adapter
    while current is not None and (current.parent / MANIFEST).is_file():
        seen.add(current.resolve())
        parent = read_json(current.parent / MANIFEST, ADAPTER_BY).get("parent")
        if parent in (base_sha, None):
            return
        others = [other for other in sorted(current.parent.parent.glob("*/adapter")) if other.resolve() not in seen]
        current = next((other for other in others if sha256_of(other) == parent), None)
    if seen and current is None:
        raise InputError(f"{adapter} was trained on another base than {base}, as the manifests tell: train it again, or name its base")


def merged_tensors(weights: Weights, model: Qwen2, deltas: dict[str, Delta], onto: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of the model with its delta, if it has one, added; in `nf4` the layers' matrices are rounded first.

    Raises:
        CheckFailed: a sum is not finite.
    """
    for name in model.tensors():
        tensor = weights.tensor(name)
        if onto == "nf4" and deltas and name.endswith("_proj.weight"):
            tensor = as_trained(tensor)
        if name in deltas:
            tensor = tensor + deltas[name].full()
        if not torch.isfinite(tensor).all():
            raise CheckFailed(f"{name} is not finite after the merge: the base is damaged or the adapter diverged")
        yield name, tensor


def shipped(adapter: Path | None, named: str) -> str:
    """Which training step an adapter is of: base, sft or dpo; as its gate says, else as the params name it (dpo where they do not)."""
    if adapter is None:
        return "base"
    verdict = adapter.parent / VERDICT
    if verdict.is_file():
        return str(read_json(verdict, ADAPTER_BY).get("ships"))
    return "sft" if named == "sft" else "dpo"


def check_fits(deltas: dict[str, Delta], model: Qwen2, adapter: Path) -> None:
    """Every delta has a matrix of its shape to go to.

    Raises:
        InputError: names the first that has none.
    """
    shapes = model.tensors()
    for name, delta in deltas.items():
        shape = (delta.b.shape[0], delta.a.shape[1])
        if name in ("lm_head.weight", "model.embed_tokens.weight") and model.tied:
            raise InputError(f"{adapter} changes {name}, which would untie the embeddings: train adapters on linear layers only")
        if shapes.get(name) != shape:
            raise InputError(f"{adapter} changes {name} as {shape}, the base has {shapes.get(name)}: it was trained on another base")


def write_folder(base: Path, out: Path, model: Qwen2, weights: Weights, deltas: dict[str, Delta], onto: str) -> None:
    """Write a model folder that transformers loads: config, tokenizer files and float32 weights."""
    out.mkdir(parents=True)
    for pattern in COPIED:
        for file in sorted(base.glob(pattern)):
            shutil.copyfile(file, out / file.name)
    config = {key: value for key, value in read_config(base, BASE_BY).items() if key not in ("dtype", "torch_dtype")}
    write_json(out / "config.json", {**config, "dtype": "float32"})
    tensors = merged_tensors(weights, model, deltas, onto)
    progress = track(tensors, "merge", total=len(model.tensors()), unit="tensors")

    def load(wanted: str) -> torch.Tensor:
        name, tensor = next(progress)
        assert name == wanted
        return tensor

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


def run(base: Path, adapter: Path | None, out: Path, params: MergeParams) -> dict[str, Any]:
    """Merge into a new folder that appears whole or not at all; return the counts of its manifest.

    Raises:
        InputError: base or adapter missing, damaged, of another kind, or not belonging together.
        CheckFailed: the merged weights are not finite.
    """
    started = Run("merge", out)
    model = qwen2_of(read_config(base, BASE_BY), base)
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
            write_folder(base, partial, model, weights, deltas, params.onto)
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
        "provenance": provenance(base, adapter if deltas else None),
    }
    started.finish({"merge": params}, [base, *([adapter] if adapter else [])], counts, ("torch", "safetensors"), parent=base_sha)
    return counts
