"""The model that is adapted: found, checked, and loaded for the machine at hand.

In:  a folder, a Hub id with its revision, or `random`
Out: phase2_train/out/base, a Hugging Face folder that every later step reads; models in memory, 4-bit or not
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Qwen2Config, Qwen2ForCausalLM

from core.errors import AccessError, InputError
from core.manifest import MANIFEST, Run, sha256_of
from core.records import read_json
from phase2_train.machine import Machine, machine
from phase2_train.model_folder import BASE_MADE_BY, check
from phase2_train.params import BaseParams
from phase2_train.rows import load_codec, load_tokenizer

SHIPPED = Path("phase2_train/tiny_base")
MODEL_FILES = ("config.json", "generation_config.json", "*.safetensors", "model.safetensors.index.json", "tokenizer*.json", "LICENSE")


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


def wanted_device(folder: Path) -> str:
    """The device that the profile asked for when this base was resolved; `any` where nothing is known."""
    if not (folder / MANIFEST).is_file():
        return "any"
    return str(read_json(folder / MANIFEST, BASE_MADE_BY).get("params", {}).get("base", {}).get("device", "any"))


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
        folder,
        dtype=chosen.dtype,
        quantization_config=quantization,
        device_map={"": chosen.place},
        attn_implementation=chosen.attention,
    )
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False  # its first evaluation would repack the weights into a form without backward
    return model
