"""What this machine offers, and what is chosen for it: every choice with its reason, in one record.

In:  a probe of torch, the installed packages and the launcher's environment
Out: Machine (device, precision, attention, processes) and Choices, printed at the start of a stage and kept in its manifest

Choices follow from what was found; nothing is forced by an environment variable, so that a record tells the whole story.

    python -m phase2_train sft                            one process
    torchrun --nproc-per-node 2 -m phase2_train sft       two; so does `accelerate launch --num_processes 2 -m phase2_train sft`

`batch` and `accumulate` of params.yaml are those of one process: two processes take twice as many rows per step. On a machine
without a GPU accelerate wants `--multi_gpu` too: by itself it starts one process there.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Mapping
from importlib import metadata
from typing import Any, NamedTuple

import torch
from packaging.requirements import InvalidRequirement, Requirement

from core.errors import MachineError

BFLOAT16_FROM = (8, 0)  # compute capability (Ampere) from which bfloat16, TF32 and FlashAttention 2 are hardware
FLASH_3_FROM = (9, 0)  # Hopper
FLASH = {"flash_attention_3": ("flash_attn_interface", FLASH_3_FROM), "flash_attention_2": ("flash_attn", BFLOAT16_FROM)}
SHARDING = ("FSDP", "DEEPSPEED")  # of accelerate's configuration
UNSLOTH = "unsloth"
TRL_INSTEAD = "set sft.engine to trl"


class Found(NamedTuple):
    """What a probe finds; nothing is decided yet."""

    gpu: str | None  # its name, None without CUDA
    capability: tuple[int, int] = (0, 0)
    free_bytes: int = 0  # of GPU memory
    flash: tuple[str, ...] = ()  # FlashAttention variants that are installed, in transformers' names
    rank: int = 0  # of this process among all
    local_rank: int = 0  # among those of this machine
    processes: int = 1


class Choice(NamedTuple):
    """One decision and why."""

    value: str
    reason: str


class Machine(NamedTuple):
    """Where and how the work is done."""

    device: str  # cuda or cpu
    dtype: torch.dtype
    attention: str  # transformers' name
    packing: bool  # rows of a batch may be laid end to end
    tf32: bool
    free_bytes: int
    rank: int
    local_rank: int
    processes: int
    choices: dict[str, Choice]

    @property
    def reason(self) -> str:
        """Device and precision in a few words."""
        return self.choices["device"].reason

    @property
    def place(self) -> str:
        """The device of this process."""
        return f"cuda:{self.local_rank}" if self.device == "cuda" else "cpu"

    @property
    def leads(self) -> bool:
        """Whether this process prints and writes; the others only compute."""
        return self.rank == 0

    @property
    def flags(self) -> dict[str, Any]:
        """transformers' TrainingArguments that follow from the machine; float16 brings its GradScaler along."""
        return {
            "bf16": self.dtype == torch.bfloat16,
            "fp16": self.dtype == torch.float16,
            "tf32": True if self.tf32 else None,
            "use_cpu": self.device == "cpu",
            "ddp_find_unused_parameters": False if self.processes > 1 else None,  # every trained matrix gets a gradient at every step
            "dataloader_pin_memory": self.device == "cuda",
        }


def probe() -> Found:
    """Ask torch, the installed packages and the launcher (torchrun and accelerate set RANK, LOCAL_RANK and WORLD_SIZE)."""
    rank, local_rank, processes = (
        int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", 1))
    )
    if not torch.cuda.is_available():
        return Found(None, rank=rank, local_rank=local_rank, processes=processes)
    device = local_rank % torch.cuda.device_count()
    flash = tuple(name for name, (module, _) in FLASH.items() if importlib.util.find_spec(module) is not None)
    free, _ = torch.cuda.mem_get_info(device)
    return Found(
        torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device), free, flash, rank, local_rank, processes
    )  # fmt: skip


def machine(wanted: str = "any") -> Machine:
    """Probe and choose.

    Raises:
        MachineError: CUDA is wanted and there is none, fewer GPUs than processes, or a launcher set up for FSDP or DeepSpeed.
    """
    found = probe()
    for name in SHARDING:
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true":
            raise MachineError(
                f"{name} cuts the weights into pieces, and adapters are written whole here: launch plain data parallel (DDP)"
            )
    if wanted == "cuda" and found.gpu is None:
        raise MachineError("this profile needs CUDA and none was found: set `profile: tiny` in params.yaml, or run it on a GPU machine")
    if found.gpu is not None and found.local_rank >= torch.cuda.device_count():
        raise MachineError(f"{found.local_rank + 1} processes were launched and there are {torch.cuda.device_count()} GPUs: launch fewer")
    return choose(found)


def choose(found: Found) -> Machine:
    """Decide everything that the machine alone decides; pure."""
    dtype, precision = _precision(found)
    attention, why = _attention(found, dtype)
    packing = attention.startswith("flash")
    tf32 = found.gpu is not None and found.capability >= BFLOAT16_FROM
    device = "cpu" if found.gpu is None else "cuda"
    short = _name(dtype)
    choices = {
        "device": Choice(device, f"no CUDA found: {short} on the CPU" if found.gpu is None else f"{found.gpu}, {short}"),
        "dtype": Choice(short, precision),
        "tf32": Choice("on" if tf32 else "off", f"float32 products by TF32, {_capability(found)}" if tf32 else _capability(found)),
        "attention": Choice(attention, why),
        "packing": Choice("on", "rows of a batch end to end, no padding: FlashAttention keeps them apart by their lengths")
        if packing
        else Choice("off", f"{attention} lets rows laid end to end see each other (trl), so a batch is padded"),
        "processes": Choice(
            str(found.processes),
            "not launched by torchrun or accelerate" if found.processes == 1 else "WORLD_SIZE of the launcher; rank 0 prints and writes",
        ),
    }
    return Machine(
        device, dtype, attention, packing, tf32, found.free_bytes, found.rank, found.local_rank, found.processes, choices
    )  # fmt: skip


def _precision(found: Found) -> tuple[torch.dtype, str]:
    if found.gpu is None:
        return torch.float32, "a CPU run comes out the same bit for bit, resumed or not"
    if found.capability >= BFLOAT16_FROM:
        return torch.bfloat16, _capability(found)
    return torch.float16, f"{_capability(found)}, too old for bfloat16; gradients are scaled (GradScaler)"


def _attention(found: Found, dtype: torch.dtype) -> tuple[str, str]:
    if found.gpu is None:
        return "sdpa", "torch's own; FlashAttention needs CUDA"
    for name in FLASH:
        if name in found.flash and found.capability >= FLASH[name][1] and dtype != torch.float32:
            return name, f"installed, {_capability(found)}"
    if found.capability < BFLOAT16_FROM:
        return "sdpa", f"torch's own; FlashAttention needs capability 8.0, {_capability(found)}"
    return "sdpa", "torch's own; flash-attn is not installed" if not found.flash else f"torch's own; {_capability(found)}, too old"


def _capability(found: Found) -> str:
    return "no CUDA" if found.gpu is None else f"capability {found.capability[0]}.{found.capability[1]}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def unmet(requirements: list[str], installed: Mapping[str, str]) -> list[str]:
    """What of a package's requirements the installed versions do not meet; extras and absent packages are left out.

    Args:
        requirements: lines of its metadata, as `trl<=0.24.0,!=0.19.0`.
        installed: version by distribution name.
    """
    broken = []
    for line in requirements:
        try:
            wanted = Requirement(line)
        except InvalidRequirement:
            continue
        version = installed.get(wanted.name.lower().replace("_", "-"))
        applies = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        if version is not None and applies and not wanted.specifier.contains(version.split("+")[0], prereleases=True):
            broken.append(f"{wanted.name} {version} (it wants {wanted.specifier})")
    return broken


def engine_choice(engine: str, chosen: Machine) -> Choice:
    """Whether the engine that the params name can train here.

    Raises:
        MachineError: unsloth is asked for and cannot: no CUDA, not installed, or made for other versions of what is installed.
    """
    if engine != UNSLOTH:
        return Choice("trl", "sft.engine")
    if chosen.device != "cuda":
        raise MachineError(f"sft.engine is unsloth, which needs CUDA, and none was found: {TRL_INSTEAD}")
    return check_unsloth()


def check_unsloth() -> Choice:
    """Whether unsloth is installed, in a version whose pins fit what else is.

    Raises:
        MachineError: it is not, or they do not.
    """
    try:
        version, requirements = metadata.version(UNSLOTH), metadata.requires(UNSLOTH) or []
    except metadata.PackageNotFoundError:
        raise MachineError(f"sft.engine is unsloth, which is not installed: `pip install unsloth`, or {TRL_INSTEAD}") from None
    names = {"trl", "transformers", "peft", "torch", "datasets", "accelerate", "bitsandbytes", "unsloth-zoo"}
    installed = {name: found for name in names if (found := _version(name)) is not None}
    if broken := unmet(requirements, installed):
        raise MachineError(
            f"unsloth {version} does not fit the installed {', '.join(broken)}: install a version that does, or {TRL_INSTEAD}"
        )
    return Choice(UNSLOTH, f"sft.engine; version {version} fits trl {installed.get('trl')}, transformers {installed.get('transformers')}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def load_engine(engine: str, chosen: Machine) -> Choice:
    """As `engine_choice`, and import unsloth, which must come before trl, whose classes it replaces.

    Raises:
        MachineError: see `engine_choice`; or its import fails.
    """
    choice = engine_choice(engine, chosen)
    if choice.value == UNSLOTH:
        try:
            importlib.import_module(UNSLOTH)
        except Exception as error:  # noqa: BLE001  # whatever a package of kernels raises while it is imported means the same
            raise MachineError(f"unsloth cannot be imported ({type(error).__name__}: {error}): {TRL_INSTEAD}") from None
    return choice


def rows_per_step(batch: int, accumulate: int, chosen: Machine) -> Choice:
    """The effective batch, spelled out."""
    return Choice(
        str(batch * accumulate * chosen.processes), f"{batch} rows x {accumulate} passes x {chosen.processes} process(es)"
    )  # fmt: skip


def say(stage: str, chosen: Machine, choices: Mapping[str, Choice]) -> None:
    """Print the record, one choice a line; only the leading process does."""
    if chosen.leads:
        print(f"{stage}: chosen for this machine", flush=True)
        for name, choice in choices.items():
            print(f"  {name:<14} {choice.value:<12} {choice.reason}", flush=True)


def peak_gpu() -> dict[str, float]:
    """The most GPU memory that torch's allocator gave out, in MB; nothing without CUDA."""
    return {"peak_gpu_mb": round(torch.cuda.max_memory_allocated() / 1e6, 1)} if torch.cuda.is_available() else {}


def as_record(choices: Mapping[str, Choice]) -> dict[str, dict[str, str]]:
    """The record as JSON: name to value and reason."""
    return {name: choice._asdict() for name, choice in choices.items()}
