"""A LoRA adapter as peft saves it, read and checked before anything is computed with it.

In:  adapter_config.json and adapter_model.safetensors
Out: per weight of the base the two small matrices and their scale, or an error that names what is no plain LoRA
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from core.errors import InputError
from core.manifest import MANIFEST, sha256_of
from core.records import read_json
from phase3_quantize.architecture import Architecture
from phase3_quantize.weights import open_weights

ADAPTER_BY = "python -m phase2_train dpo-gate"
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
    """The change of one matrix: A (r, in), B (out, r), float32; scale * B A is added."""

    a: np.ndarray
    b: np.ndarray
    scale: float


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
    halves: dict[str, dict[str, np.ndarray]] = {}
    with open_weights([weights], ADAPTER_BY) as stored:
        for name in sorted(stored.names()):
            match = KEY.fullmatch(name)
            if match is None:
                raise InputError(f"{weights}: {name} is no LoRA matrix of a linear layer: train adapters on linear layers only")
            tensor = stored.array(name)
            if not np.isfinite(tensor).all():
                raise InputError(f"{weights}: {name} has non-finite values: the training diverged, lower its learning rate and rerun")
            halves.setdefault(match["module"], {})[match["half"]] = tensor
    if not halves:
        raise InputError(f"{weights} holds no LoRA matrices: run `{ADAPTER_BY}` again")
    return {f"{module}.weight": _delta(module, pair, config, weights) for module, pair in halves.items()}


def _delta(module: str, pair: dict[str, np.ndarray], config: dict[str, Any], file: Path) -> Delta:
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


def trained_bits(adapter: Path | None) -> int:
    """4 or 16: the weights under an adapter when SFT trained it, as SFT's manifest beside it says; 4 where there is none."""
    if adapter is None:
        return 4
    for file in (adapter.parent / MANIFEST, adapter.parent.parent / "sft" / MANIFEST):
        section = read_json(file, ADAPTER_BY).get("params", {}).get("sft", {}) if file.is_file() else {}
        if "bits" in section:
            return int(section["bits"])
    return 4


def check_fits(deltas: dict[str, Delta], model: Architecture, adapter: Path) -> None:
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
