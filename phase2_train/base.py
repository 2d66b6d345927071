"""The model that is adapted: found, checked, and loaded for the machine at hand.

In:  a folder, a Hub id with its revision, or `random`
Out: phase2_train/out/base, a Hugging Face folder that every later step reads; models in memory, 4-bit or not
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from bitsandbytes.nn import Linear4bit
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Qwen2Config, Qwen2ForCausalLM

from core.errors import AccessError, InputError, MachineError
from core.manifest import Run, sha256_of
from phase2_train.params import BaseParams
from phase2_train.rows import load_codec, load_tokenizer

SHIPPED = Path("phase2_train/tiny_base")
MODEL_FILES = ("config.json", "generation_config.json", "*.safetensors", "model.safetensors.index.json", "tokenizer*.json", "LICENSE")


class Machine(NamedTuple):
    """Where and in which precision the work is done, and why."""

    device: str
    dtype: torch.dtype
    reason: str


def machine(wanted: str = "any") -> Machine:
    """Probe the machine.

    Raises:
        MachineError: CUDA is wanted and there is none.
    """
    if torch.cuda.is_available():
        name, bf16 = torch.cuda.get_device_name(), torch.cuda.is_bf16_supported(including_emulation=False)
        return Machine("cuda", torch.bfloat16 if bf16 else torch.float16, f"{name}, {'bfloat16' if bf16 else 'float16: no bfloat16 here'}")
    if wanted == "cuda":
        raise MachineError("this profile needs CUDA and none was found: set `profile: tiny` in params.yaml, or run it on a GPU machine")
    return Machine("cpu", torch.float32, "no CUDA found: float32 on the CPU")


def random_model(tokenizer_from: Path, out: Path, seed: int) -> None:
    """A 2-layer Qwen2 with random weights on the shipped tokenizer: every line of the path, no quality."""
    codec, torch_state = load_codec(tokenizer_from), torch.random.get_rng_state()
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=load_tokenizer(tokenizer_from).get_vocab_size(),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=codec.tokens.end,
        pad_token_id=codec.tokens.pad,
    )
    Qwen2ForCausalLM(config).save_pretrained(out)
    torch.random.set_rng_state(torch_state)
    for file in tokenizer_from.glob("tokenizer*.json"):
        shutil.copy(file, out)


def download(repo: str, revision: str | None, out: Path) -> None:
    """Fetch a model from the Hub at a pinned revision.

    Raises:
        AccessError: gated, unknown or unreachable; says what to do.
    """
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "20")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        snapshot_download(repo, revision=revision, local_dir=out, allow_patterns=list(MODEL_FILES))
    except GatedRepoError:
        raise AccessError(f"{repo} is gated: accept its terms at https://huggingface.co/{repo} and set HF_TOKEN") from None
    except RepositoryNotFoundError:
        raise AccessError(f"the Hub has no model {repo!r} (or no access to it): mend base.model in params.yaml") from None
    except Exception as error:  # noqa: BLE001  # every transport error of three libraries means the same here
        raise AccessError(f"cannot fetch {repo} ({type(error).__name__}): set base.model to a local folder, or go online") from None


def check(folder: Path) -> dict[str, Any]:
    """The configuration of a model folder that this pipeline can adapt.

    Raises:
        InputError: not a Qwen2 model, weights or tokenizer missing, or no FIM markers in the vocabulary.
    """
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise InputError(f"{folder} is no model folder (config.json and *.safetensors wanted): mend base.model in params.yaml")
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    if config.get("model_type") != "qwen2":
        raise InputError(f"{folder} holds a {config.get('model_type')!r} model: base.model must be of the Qwen2 architecture")
    tokens = load_codec(folder).tokens
    if max(tokens) >= config["vocab_size"]:
        raise InputError(f"{folder}: tokenizer and config.json disagree on the vocabulary: use the folder as it was published")
    return config


def fill(folder: Path, source: Path, params: BaseParams) -> None:
    """Put the model's files into a folder.

    Raises:
        InputError: `params.model` is meant as a folder and is none.
        AccessError: see `download`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if params.model == "random":
        random_model(SHIPPED, folder, params.seed)
    elif source.is_dir():
        for pattern in MODEL_FILES:
            for file in source.glob(pattern):
                shutil.copy(file, folder)
    elif params.model.count("/") != 1 or params.model.startswith((".", "/", "~")) or source.parent.is_dir():
        raise InputError(f"{params.model} is no folder: mend base.model in params.yaml (the shipped base is {SHIPPED})")
    else:
        download(params.model, params.revision, folder)


def run(out: Path, params: BaseParams) -> Machine:
    """Resolve `params.model` to a folder of its own that later steps read.

    Raises:
        InputError, AccessError, MachineError: see `check`, `download`, `machine`.
    """
    started, chosen = Run("base", out), machine(params.device)
    partial, source = out.with_name(out.name + ".partial"), Path(params.model)
    try:
        fill(partial, source, params)
        config = check(partial)
    except AccessError:
        raise  # what is there of a download stays: the next run goes on from it
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(out, ignore_errors=True)
    partial.replace(out)
    started.finish(
        {"base": params},
        [],
        {"vocab_size": config["vocab_size"], "layers": config["num_hidden_layers"], "hidden": config["hidden_size"]},
        ("torch", "transformers"),
        seed=params.seed,
        device=chosen.reason,
        parent=sha256_of(source) if source.is_dir() else f"{params.model}@{params.revision}",
    )
    return chosen


def load(folder: Path, bits: int, chosen: Machine) -> Any:
    """The base in memory: NF4 with double quantization (QLoRA, Dettmers et al. 2023) where `bits` is 4."""
    check(folder)
    quantization = None
    if bits == 4:
        compute = chosen.dtype
        quantization = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
        )
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=chosen.dtype, quantization_config=quantization, device_map={"": chosen.device}, attn_implementation="sdpa"
    )
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False  # its first evaluation would repack the weights into a form without backward
    return model
