"""What is chosen for a machine, from what a probe finds; and a step that runs out of memory."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from core.errors import MachineError
from phase2_train import machine, memory
from phase2_train.cli import app
from phase2_train.machine import Found

H200 = Found("NVIDIA H200", (9, 0), 140_000_000_000, ("flash_attention_3", "flash_attention_2"))
A100 = Found("NVIDIA A100", (8, 0), 40_000_000_000, ("flash_attention_3", "flash_attention_2"))
T4 = Found("Tesla T4", (7, 5), 15_000_000_000, ("flash_attention_2",))
CPU = Found(None)
HALF_B = {  # Qwen2.5-Coder-0.5B
    "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
    "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("found", "dtype", "attention", "packing", "tf32"),
    [
        (H200, torch.bfloat16, "flash_attention_3", True, True),
        (A100, torch.bfloat16, "flash_attention_2", True, True),
        (H200._replace(flash=()), torch.bfloat16, "sdpa", False, True),
        (A100._replace(flash=("flash_attention_3",)), torch.bfloat16, "sdpa", False, True),
        (T4, torch.float16, "sdpa", False, False),
        (CPU, torch.float32, "sdpa", False, False),
    ],
)
def test_choices_follow_from_what_is_found(found, dtype, attention, packing, tf32):
    chosen = machine.choose(found)
    assert (chosen.dtype, chosen.attention, chosen.packing, chosen.tf32) == (dtype, attention, packing, tf32)
    assert all(choice.value and choice.reason for choice in chosen.choices.values())
    assert chosen.flags["fp16"] == (dtype == torch.float16) and chosen.flags["use_cpu"] == (found.gpu is None)


def test_the_launcher_decides_place_and_who_writes():
    second = machine.choose(H200._replace(rank=3, local_rank=1, processes=4))
    assert second.place == "cuda:1" and not second.leads
    assert machine.choose(CPU._replace(rank=1, local_rank=1, processes=2)).place == "cpu"
    assert machine.rows_per_step(4, 2, second).value == "32"


def test_only_the_leader_speaks(capsys):
    follower = machine.choose(CPU._replace(rank=1, processes=2))
    machine.say("sft", follower, follower.choices)
    assert not capsys.readouterr().out
    leader = machine.choose(CPU)
    machine.say("sft", leader, leader.choices)
    said = capsys.readouterr().out
    assert all(name in said for name in ("dtype", "tf32", "attention", "packing", "processes"))
    assert json.dumps(machine.as_record(leader.choices))


def test_flags_are_taken_by_the_trainer(tmp_path):
    from trl import SFTConfig

    assert SFTConfig(output_dir=str(tmp_path), **machine.choose(CPU).flags).fp16 is False


def planted(tmp_path, monkeypatch, version: str, *requirements: str) -> None:
    """A distribution named unsloth on the path, as pip would leave it."""
    info = tmp_path / f"unsloth-{version}.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", "Name: unsloth", f"Version: {version}", *(f"Requires-Dist: {line}" for line in requirements)]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    (tmp_path / "unsloth.py").write_text("raise ImportError('no kernels here')\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_unsloth_that_pins_other_versions_is_named(tmp_path, monkeypatch):
    planted(tmp_path, monkeypatch, "2025.1.1", "trl<=0.24.0,>=0.18.2", "transformers>=4", 'torch<2; extra == "old"')
    with pytest.raises(MachineError, match=r"unsloth 2025\.1\.1 does not fit the installed trl [\d.]+ \(it wants <=0\.24\.0,>=0\.18\.2\)"):
        machine.check_unsloth()


def test_unsloth_that_fits_is_taken_and_one_that_cannot_be_imported_is_named(tmp_path, monkeypatch):
    planted(tmp_path, monkeypatch, "2026.10.7", "trl>=1.0,<=1.15", "transformers<=5.17.0", "not installed here>=1")
    assert machine.engine_choice("unsloth", machine.choose(H200)).value == "unsloth"
    with pytest.raises(MachineError, match=r"no kernels here.*sft\.engine to trl"):
        machine.load_engine("unsloth", machine.choose(H200))
    sys.modules.pop("unsloth", None)


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED"])
def test_a_launcher_that_cuts_the_weights_into_pieces_is_refused(kind, monkeypatch):
    monkeypatch.setenv(f"ACCELERATE_USE_{kind}", "true")
    with pytest.raises(MachineError, match=f"{kind} .*DDP"):
        machine.machine()


@pytest.mark.skipif(importlib.util.find_spec("unsloth") is not None, reason="it is installed here")
def test_unsloth_without_cuda_or_not_installed_is_named():
    with pytest.raises(MachineError, match=r"needs CUDA.*sft\.engine to trl"):
        machine.engine_choice("unsloth", machine.choose(CPU))
    with pytest.raises(MachineError, match="not installed"):
        machine.engine_choice("unsloth", machine.choose(H200))
    assert machine.engine_choice("trl", machine.choose(CPU)).value == "trl"


def test_pins_read_as_pip_reads_them():
    installed = {"trl": "1.14.2", "torch": "2.13.0+cpu", "peft": "0.21.2"}
    assert machine.unmet(["torch<2.14,>=2.4", "trl!=1.14.0,<=1.15", "peft", "absent>5", "trl<1; python_version < '3'"], installed) == []
    assert machine.unmet(["torch<2.13", "trl==1.14.0"], installed) == [
        "torch 2.13.0+cpu (it wants <2.13)",
        "trl 1.14.2 (it wants ==1.14.0)",
    ]


def test_checkpointing_only_where_memory_needs_it():
    needed = memory.estimate(HALF_B, 16, 16, 16 * 1024)
    assert memory.checkpointing(machine.choose(H200), needed).value == "off"
    assert memory.checkpointing(machine.choose(T4), needed).value == "on"
    assert memory.checkpointing(machine.choose(T4), memory.estimate(HALF_B, 4, 16, 4 * 768)).value == "off"
    assert memory.checkpointing(machine.choose(CPU), needed).value == "off"


def test_the_estimate_counts_the_parameters_of_the_real_shape():
    linear, embedding = memory.parameters(HALF_B)
    assert embedding == 151936 * 896
    assert abs(linear + embedding - 494_032_768) < 100_000  # the hub's count; norms and biases are left out
    assert memory.estimate(HALF_B, 4, 16, 1).weights < 0.6 * memory.estimate(HALF_B, 16, 16, 1).weights


@pytest.mark.parametrize("tokens", [128, 256])
def test_the_estimate_of_activations_is_what_autograd_keeps(tokens):
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2Config, Qwen2ForCausalLM

    def kept(layers: int) -> int:
        config = Qwen2Config(
            vocab_size=64, hidden_size=256, intermediate_size=768, num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2
        )
        model = get_peft_model(Qwen2ForCausalLM(config).to(torch.bfloat16), LoraConfig(r=8, target_modules="all-linear"))
        own, seen = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}, {}
        held = []  # so that no address is used twice

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            held.append(tensor)
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
            model.base_model.model.model(input_ids=torch.zeros(1, tokens, dtype=torch.long))
        return sum(size for address, size in seen.items() if address not in own)

    shape = {**HALF_B, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 64}
    assert memory.estimate(shape, 16, 8, tokens).activations == pytest.approx(kept(2) - kept(1), rel=0.2)


class Attempts:
    """A `train` that runs out of memory above a number of rows, and remembers what it was asked."""

    def __init__(self, most: int) -> None:
        self.most, self.asked = most, []

    def __call__(self, batch: int, accumulate: int) -> str:
        self.asked.append((batch, accumulate))
        if batch > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return "trained"


def test_out_of_memory_is_retried_once_with_the_same_step(capsys):
    train = Attempts(4)
    result, retry = memory.halved_if_needed(train, 8, 3, "sft")
    assert result == "trained" and train.asked == [(8, 3), (4, 6)]
    assert retry is not None and retry.value == "4 x 6" and "8 x 3" in retry.reason
    assert capsys.readouterr().out.count("\n") == 1
    assert memory.halved_if_needed(Attempts(8), 8, 3, "sft") == ("trained", None)


@pytest.mark.parametrize(
    ("batch", "most", "processes", "words", "attempts"),
    [
        (8, 2, 1, r"sft\.batch to 2", 2),
        (7, 2, 1, "no half", 1),
        (1, 0, 1, "one row at a time", 1),
        (8, 4, 2, "one of 2 processes", 1),
    ],
)
def test_what_cannot_be_retried_is_named(batch, most, processes, words, attempts):
    train = Attempts(most)
    with pytest.raises(MachineError, match=words):
        memory.halved_if_needed(train, batch, 1, "sft", processes)
    assert len(train.asked) == attempts


def test_another_error_stays_what_it_is_and_the_cpu_allocator_counts():
    def broken(batch: int, accumulate: int) -> None:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        memory.halved_if_needed(broken, 8, 1, "sft")
    assert memory.out_of_memory(RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried"))


def test_the_first_attempt_is_freed_before_the_second():
    import weakref

    held: list[weakref.ref] = []

    def train(batch: int, accumulate: int) -> bool:
        if held:
            return held[0]() is None
        model = torch.nn.Linear(4, 4)
        held.append(weakref.ref(model))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried")

    assert memory.halved_if_needed(train, 2, 1, "dpo")[0] is True


@pytest.mark.skipif(torch.cuda.is_available(), reason="what is said of a machine without CUDA")
def test_doctor_prints_the_record_and_refuses_a_profile_of_another_machine(tmp_path, monkeypatch, base):
    params = str(Path("params.yaml").resolve())
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["doctor", "--params", params, "--profile", "tiny"])
    assert done.exit_code == 0 and "checkpointing" not in done.output
    assert all(f"\n  {name} " in done.output for name in ("device", "dtype", "tf32", "attention", "packing", "processes", "engine"))
    shutil.copytree(base, tmp_path / "phase2_train" / "out" / "base")
    done = CliRunner().invoke(app, ["doctor", "--params", params, "--profile", "tiny"])
    assert done.exit_code == 0 and "no GPU whose memory could run out" in done.output
    done = CliRunner().invoke(app, ["doctor", "--params", params, "--profile", "gpu"])
    assert done.exit_code == 5 and "profile: tiny" in done.stderr
