"""The models of the chain: where each lies, what it came from, and how it is asked.

In:  the folders and files that phases 2 and 3 wrote
Out: Model (name, parent, hash), and a function from questions to answers

    base --SFT--> sft --DPO--> dpo --gates--> merged --quantize--> q4_k_m

sft and dpo are the base under an adapter as it was trained, whether its gate let it through or not; merged comes from the one that
ships. On a CPU an adapter is asked merged into the float32 base, rounded to NF4 where it was trained on that.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.utils import logging as transformers_log

from core import decode, nf4
from core.decode import Answer, Question, TorchBatch
from core.errors import InputError, MachineError
from core.manifest import MANIFEST, sha256_of
from core.records import read_json
from eval.gguf_model import SEQUENCES, GgufBatch, GgufModel
from eval.params import ModelName

Ask = Callable[[Sequence[Question]], list[Answer]]
NAMES_ONLY = ("_name_or_path", "architectures", "dtype", "transformers_version", "quantization_config")  # of a configuration
MADE_BY = {
    "base": "python -m phase2_train base",
    "sft": "python -m phase2_train sft",
    "dpo": "python -m phase2_train dpo",
    "merged": "python -m phase3_quantize merge",
    "q4_k_m": "python -m phase3_quantize quantize",
}


class Places(NamedTuple):
    """Where the other phases left their models."""

    base: Path
    sft: Path  # folder with adapter/ and manifest.json
    dpo: Path
    merged: Path
    gguf: Path


class Model(NamedTuple):
    """One model of the chain."""

    name: ModelName
    parent: ModelName | None
    files: tuple[Path, ...]  # all that it is made of
    bits: int  # of the base under an adapter: 4 is NF4; else 16

    @property
    def sha256(self) -> str:
        """Of everything it is made of, and how it is loaded."""
        parts = [sha256_of(path) for path in self.files]
        return hashlib.sha256("\n".join([self.name, str(self.bits), *parts]).encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of weights on disk."""
        files = [file for path in self.files for file in ([path] if path.is_file() else path.rglob("*"))]
        return sum(file.stat().st_size for file in files if file.suffix in (".safetensors", ".gguf"))


def chain(names: Sequence[ModelName], places: Places) -> list[Model]:
    """The models asked for, each with the nearest of its ancestors that is asked for too.

    Raises:
        InputError: one is missing; names the command that makes it.
    """
    came_from: dict[ModelName, ModelName] = {
        "sft": "base",
        "dpo": _dpo_from(places),
        "merged": _merged_from(places),
        "q4_k_m": "merged",
    }
    files: dict[ModelName, tuple[Path, ...]] = {
        "base": (places.base,),
        "sft": (places.base, places.sft / "adapter"),
        "dpo": (places.base, places.dpo / "adapter"),
        "merged": (places.merged,),
        "q4_k_m": (places.gguf,),
    }
    for name in names:
        for path in files[name]:
            if not (path.is_file() or list(path.glob("*.safetensors"))):
                by = MADE_BY["base" if path == places.base else name]
                raise InputError(f"{path} is missing: run `{by}` first, or take {name} out of evaluate.models")
    bits = _bits(places)
    return [Model(name, _ancestor(name, came_from, names), files[name], bits if name in ("sft", "dpo") else 16) for name in names]


def _ancestor(name: ModelName, came_from: dict[ModelName, ModelName], among: Sequence[ModelName]) -> ModelName | None:
    parent = came_from.get(name)
    while parent is not None and parent not in among:
        parent = came_from.get(parent)
    return parent


def _bits(places: Places) -> int:
    """Bits of the base that the adapters were trained on, from the manifest beside them; 16 where it does not say."""
    if not (places.sft / MANIFEST).is_file():
        return 16
    return int(read_json(places.sft / MANIFEST, MADE_BY["sft"]).get("params", {}).get("sft", {}).get("bits", 16))


def _dpo_from(places: Places) -> ModelName:
    """What DPO started from: the SFT adapter, or the bare base where the gate after SFT shipped that."""
    manifest, sft = places.dpo / MANIFEST, places.sft / "adapter"
    parent = read_json(manifest, MADE_BY["dpo"]).get("parent") if manifest.is_file() else None
    return "base" if parent is not None and sft.is_dir() and parent != sha256_of(sft) else "sft"


def _merged_from(places: Places) -> ModelName:
    """The model whose adapter was merged, as the merge's manifest says; dpo where it does not."""
    if not (places.merged / MANIFEST).is_file():
        return "dpo"
    step = read_json(places.merged / MANIFEST, MADE_BY["merged"]).get("counts", {}).get("shipped")
    return step if step in ("base", "sft") else "dpo"


class Opened(NamedTuple):
    """A model that is loaded: how it is asked, and the sha256 of its weights where equal weights give equal answers (None on a GPU)."""

    ask: Ask
    weights: str | None


class Machine(NamedTuple):
    """Where the models run, in which precision, and why."""

    device: str
    dtype: torch.dtype
    reason: str


def machine(wanted: str) -> Machine:
    """Probe the machine.

    Raises:
        MachineError: CUDA is wanted and there is none.
    """
    if torch.cuda.is_available():
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        name = torch.cuda.get_device_name()
        return Machine("cuda", torch.bfloat16 if bf16 else torch.float16, f"{name}, {'bfloat16' if bf16 else 'float16: no bfloat16 here'}")
    if wanted == "cuda":
        raise MachineError("evaluate.device is cuda and no CUDA was found: set it to any, or run on a GPU machine")
    return Machine("cpu", torch.float32, "no CUDA found: float32 on the CPU")


def load(folder: Path, adapter: Path | None, bits: int, where: Machine) -> Any:
    """A transformers model with its adapter, if it has one.

    bits 4: the base as QLoRA trains on it (NF4 with double quantization, Dettmers et al. 2023). On a CPU the rounded weights stand in
    float32 and the adapter is merged in; a GPU runs bitsandbytes' layers under the adapter.
    """
    transformers_log.set_verbosity_error()
    transformers_log.disable_progress_bar()
    packed = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=where.dtype
    )
    on_gpu = where.device != "cpu"
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=where.dtype, quantization_config=packed if bits == 4 and on_gpu else None, device_map={"": where.device}
    )
    if bits == 4 and not on_gpu:
        nf4.round_layers(model)
    if adapter is None:
        return model
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(model, adapter)
    return adapted if on_gpu else adapted.merge_and_unload()


def weights_of(model: Any) -> str:
    """sha256 of a model's configuration and weights, whatever files they came from."""
    said = {key: value for key, value in model.config.to_dict().items() if key not in NAMES_ONLY}
    total = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.contiguous().numpy())
    return total.hexdigest()


@contextlib.contextmanager
def opened(model: Model, where: Machine, end: int, stops: Container[int], limit: int, room: int) -> Iterator[Opened]:
    """Load a model and hand out the function that asks it; `room` is the most tokens a row takes, answer included."""
    if model.name == "q4_k_m":
        with GgufModel(model.files[0], room) as gguf:
            yield Opened(lambda questions: _in_groups(gguf, questions, end, stops, limit), None)
        return
    loaded = load(model.files[0], model.files[1] if len(model.files) > 1 else None, model.bits, where)
    weights = weights_of(loaded) if where.device == "cpu" else None
    network = decode.Network.of(loaded)
    yield Opened(lambda questions: decode.answer(TorchBatch(network, questions, limit), questions, end, stops, limit), weights)


def _in_groups(gguf: GgufModel, questions: Sequence[Question], end: int, stops: Container[int], limit: int) -> list[Answer]:
    groups = [questions[start : start + SEQUENCES] for start in range(0, len(questions), SEQUENCES)]
    return [one for group in groups for one in decode.answer(GgufBatch(gguf, group), group, end, stops, limit)]
