"""The peer of `sft_bench`: a plain TRL script, as one writes it from TRL's documentation, on rows that are token ids already.

    python -m eval.bench.plain_trl job.json

In:  job.json: base, train and valid (JSON lines of input_ids and labels), bits, LoRA, learning rate, batch, steps, seed
Out: <out>/result.json: loss of every logged step, median seconds per step, loss on the valid rows, peak memory

Nothing of phase 2 is imported. TRL's own defaults hold but for two, where they would only slow it down: gradient checkpointing
is off, and rows are grouped by length.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer

from core.manifest import peak_memory_mb
from core.records import Row, read_json, write_json


class StepEnds(TrainerCallback):  # type: ignore[misc]
    """When each step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Wait for the GPU, then look at the clock."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.monotonic())


def rows_of(file: str) -> list[Row]:
    """Rows of a JSON-lines file."""
    return [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]


def precision() -> tuple[torch.dtype, dict[str, Any]]:
    """dtype of the weights and the trainer's flags, as one would set them by hand for this machine."""
    if not torch.cuda.is_available():
        return torch.float32, {"use_cpu": True, "bf16": False}
    bf16 = torch.cuda.get_device_capability() >= (8, 0)
    return (torch.bfloat16, {"bf16": True}) if bf16 else (torch.float16, {"bf16": False, "fp16": True})


@torch.no_grad()
def mean_loss(model: Any, rows: list[Row]) -> float:
    """Nats per labelled token."""
    model.eval()
    total, count = 0.0, 0
    for row in rows:
        ids, labels = (torch.tensor([row[key]], device=model.device) for key in ("input_ids", "labels"))
        wanted = int((labels[:, 1:] != -100).sum())
        logits = type(model.base_model.model).forward(model.base_model.model, input_ids=ids).logits[:, :-1].float()
        total += torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100).item() * wanted
        count += wanted
    return total / count


def main(job: Row) -> None:
    """Train and write result.json."""
    set_seed(job["seed"])
    dtype, flags = precision()
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype)
    model = AutoModelForCausalLM.from_pretrained(
        job["base"],
        dtype=dtype,
        quantization_config=nf4 if job["bits"] == 4 else None,
        device_map={"": "cuda" if torch.cuda.is_available() else "cpu"},
    )
    for module in model.modules() if job["bits"] == 4 else ():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False  # bitsandbytes repacks the weights in an evaluation, and cannot train after it
    ends, lora = StepEnds(), job["lora"]
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=job["out"],
            per_device_train_batch_size=job["batch"],
            gradient_accumulation_steps=job["accumulate"],
            learning_rate=job["lr"],
            lr_scheduler_type="cosine",
            warmup_steps=job["warmup_share"],
            max_steps=job["steps"],
            num_train_epochs=job["epochs"],
            max_length=None,
            gradient_checkpointing=False,
            train_sampling_strategy="group_by_length",
            logging_steps=job["log_steps"],
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=job["seed"],
            data_seed=job["seed"],
            **flags,
        ),
        train_dataset=Dataset.from_list(rows_of(job["train"])),
        processing_class=AutoTokenizer.from_pretrained(job["base"]),
        peft_config=LoraConfig(
            r=lora["r"], lora_alpha=lora["alpha"], lora_dropout=lora["dropout"], target_modules="all-linear", task_type="CAUSAL_LM"
        ),
        callbacks=[ends],
    )
    trainer.train()
    peak = {"peak_gpu_mb": torch.cuda.max_memory_allocated() / 1e6} if torch.cuda.is_available() else {}
    result = {
        "losses": [[entry["step"], entry["loss"]] for entry in trainer.state.log_history if "loss" in entry],
        "step_s": statistics.median(after - before for before, after in itertools.pairwise(ends.times)),
        "peak_memory_mb": peak_memory_mb(),
        **peak,
    }
    write_json(Path(job["out"]) / "result.json", result | {"valid_loss": mean_loss(trainer.model, rows_of(job["valid"]))})


if __name__ == "__main__":
    main(read_json(Path(sys.argv[1]), "python -m eval sft-bench"))
