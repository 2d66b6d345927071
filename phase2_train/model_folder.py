"""What a model folder and an adapter folder must hold, checked from their headers before a weight is loaded.

In:  a Hugging Face folder; a peft folder
Out: the configuration, or an error that names the file and the next command

transformers fills a tensor that is missing with random numbers and only warns; here it is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import Qwen2Config, Qwen2ForCausalLM

from core.errors import InputError
from core.manifest import sha256_of
from core.records import read_json, write_json
from phase2_train.rows import load_codec, load_tokenizer

Shapes = dict[str, tuple[int, ...]]

BASE_MADE_BY = "python -m phase2_train base"
ADAPTER_MADE_BY = "python -m phase2_train sft"
ORIGIN = "base.json"  # in an adapter's folder: the sha256 of the base it was trained on
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
MEND = "mend base.model in params.yaml"
FETCH = f"fetch the model again, or {MEND}"


def check(folder: Path) -> dict[str, Any]:
    """The configuration of a model folder that this pipeline can adapt.

    Raises:
        InputError: not a Qwen2 model; weights missing, cut off or of other shapes than config.json says; a shard missing;
            a tokenizer without FIM markers or with ids that the embedding has no row for.
    """
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise InputError(f"{folder} is no model folder (config.json and *.safetensors wanted): {MEND}")
    config: dict[str, Any] = read_json(folder / "config.json", BASE_MADE_BY)
    if config.get("model_type") != "qwen2":
        raise InputError(f"{folder} holds a {config.get('model_type')!r} model: base.model must be of the Qwen2 architecture")
    check_vocabulary(folder, int(config.get("vocab_size", 0)))
    check_shapes(stored_shapes(folder), expected_shapes(folder), folder)
    return config


def check_vocabulary(folder: Path, vocab_size: int) -> None:
    """Refuse a tokenizer that is none, lacks a control token, or gives ids beyond the embedding.

    Raises:
        InputError: names what is missing or the first id too many.
    """
    try:
        load_codec(folder)
        vocabulary = load_tokenizer(folder).get_vocab(with_added_tokens=True)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001  # the tokenizers library raises bare Exception
        raise InputError(f"{folder}/tokenizer.json cannot be read ({error}): {FETCH}") from None
    token, highest = max(vocabulary.items(), key=lambda entry: entry[1])
    if highest >= vocab_size:
        raise InputError(
            f"{folder}: tokenizer and config.json disagree on the vocabulary: {token!r} has id {highest} and the embedding has "
            f"{vocab_size} rows: use the folder as it was published"
        )


def header(file: Path) -> Shapes:
    """Names and shapes of a safetensors file.

    Raises:
        InputError: cut off or damaged.
    """
    try:
        with safe_open(file, "pt") as stored:
            return {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118  # it is no dict
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is cut off or damaged ({error}): {FETCH}") from None


def stored_shapes(folder: Path) -> Shapes:
    """Names and shapes of all tensors of a model, in one file or in shards.

    Raises:
        InputError: a shard missing or damaged, or an index that does not fit its shards; names the file.
    """
    if (folder / WEIGHTS).is_file():
        return header(folder / WEIGHTS)
    if not (folder / INDEX).is_file():
        raise InputError(f"{folder} has neither {WEIGHTS} nor {INDEX}: {MEND}")
    of: dict[str, str] = read_json(folder / INDEX, BASE_MADE_BY).get("weight_map", {})
    shards = sorted(set(of.values()))
    if absent := [shard for shard in shards if not (folder / shard).is_file()]:
        raise InputError(f"{folder} lacks {len(absent)} of {len(shards)} shards, the first is {absent[0]}: {FETCH}")
    shapes = {shard: header(folder / shard) for shard in shards}
    for name, shard in of.items():
        if name not in shapes[shard]:
            raise InputError(f"{folder}/{INDEX} looks for {name} in {shard}, which lacks it: {FETCH}")
    return {name: shapes[shard][name] for name, shard in of.items()}


def expected_shapes(folder: Path) -> Shapes:
    """Names and shapes of the tensors that config.json asks for.

    Raises:
        InputError: it describes no Qwen2 model.
    """
    try:
        config = Qwen2Config.from_pretrained(folder)
        with torch.device("meta"):
            model = Qwen2ForCausalLM(config)
    except Exception as error:  # noqa: BLE001  # as many kinds as there are ways to be wrong
        raise InputError(f"{folder}/config.json describes no Qwen2 model ({error}): {FETCH}") from None
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}


def check_shapes(stored: Shapes, expected: Shapes, folder: Path) -> None:
    """Every tensor of the model, in its shape, and no layer more.

    Raises:
        InputError: names the first that is missing, misshapen or unknown.
    """
    for name, shape in expected.items():
        if name not in stored:
            raise InputError(f"{folder} lacks the tensor {name}: {FETCH}")
        if stored[name] != shape:
            raise InputError(f"{folder}: {name} is {stored[name]} where config.json says {shape}: use the folder as it was published")
    unknown = sorted(name for name in stored.keys() - expected.keys() if name != "lm_head.weight" and not name.endswith("inv_freq"))
    if unknown:
        raise InputError(f"{folder} holds {unknown[0]}, which config.json knows nothing of: use the folder as it was published")


def write_origin(adapter: Path, base_sha256: str) -> None:
    """Say in an adapter's folder which base it was trained on."""
    write_json(adapter / ORIGIN, {"base_sha256": base_sha256})


def save_adapter(model: Any, adapter: Path, base_sha256: str) -> None:
    """Write the trained adapter (never the frozen `ref` of DPO) with its origin; equal adapters are equal files."""
    model.save_pretrained(str(adapter), selected_adapters=["default"])
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    if isinstance(config.get("target_modules"), list):
        config["target_modules"] = sorted(config["target_modules"])  # peft keeps a set, whose order changes from process to process
    write_json(file, config)
    write_origin(adapter, base_sha256)


def check_adapter(adapter: Path, base: Path, made_by: str = ADAPTER_MADE_BY) -> None:
    """Refuse an adapter that was not trained on this base: by the recorded sha256, and by its shapes in any case.

    Raises:
        InputError: missing, cut off, no LoRA, or of another base; names the command that makes the right one.
    """
    config = read_json(adapter / "adapter_config.json", made_by)
    if config.get("peft_type") != "LORA":
        raise InputError(f"{adapter} is a {config.get('peft_type')!r} adapter, not LORA: run `{made_by}`")
    weights = adapter / "adapter_model.safetensors"
    if not weights.is_file():
        raise InputError(f"{weights} is missing: run `{made_by}` again")
    _check_fit(header(weights), stored_shapes(base), adapter, base, made_by)
    if (adapter / ORIGIN).is_file():
        trained_on, here = read_json(adapter / ORIGIN, made_by).get("base_sha256"), sha256_of(base)
        if trained_on != here:
            raise InputError(
                f"{adapter} was trained on a base of sha256 {str(trained_on)[:12]} and {base} has {here[:12]} "
                f"(it says {config.get('base_model_name_or_path')}): run `{made_by}` on this base, or name the other with --base"
            )


def _check_fit(halves: Shapes, base_shapes: Shapes, adapter: Path, base: Path, made_by: str) -> None:
    if not halves:
        raise InputError(f"{adapter} holds no matrices: run `{made_by}` again")
    for name, shape in halves.items():
        module, _, half = name.removeprefix("base_model.model.").partition(".lora_")
        matrix = base_shapes.get(f"{module}.weight")
        mine, at = (shape[-1], 1) if half.startswith("A") else (shape[0], 0)
        if matrix is None or mine != matrix[at]:
            has = "has no such matrix" if matrix is None else f"has {matrix} there"
            raise InputError(f"{adapter} is for another base: {name} is {shape} and {base} {has}: run `{made_by}` on this base")
