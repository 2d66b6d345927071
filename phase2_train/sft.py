"""Supervised fine-tuning on middles: LoRA over an NF4 or 16-bit base, loss on the middle and its end token only.

In:  samples/{train,valid}.parquet, the base folder
Out: <out>/adapter (peft), metrics.json, dvclive plots, manifest.json
"""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, PrinterCallback
from trl import SFTConfig, SFTTrainer

from core.errors import InputError, MachineError
from core.fim import labels
from core.manifest import Run, sha256_of
from core.records import write_json
from phase2_train import base as base_model
from phase2_train.params import LoraParams, SftParams
from phase2_train.rows import TokenRow, load_codec, read_rows
from phase2_train.watch import Watch


def lora_config(params: LoraParams) -> LoraConfig:
    """LoRA on every matrix inside the layers; never on the tied embedding, which would untie it in the GGUF."""
    return LoraConfig(r=params.r, lora_alpha=params.alpha, lora_dropout=params.dropout, target_modules="all-linear", task_type="CAUSAL_LM")


def dataset(rows: list[TokenRow]) -> Dataset:
    """Pre-tokenized rows: `input_ids`, and `labels` that are -100 up to the middle."""
    return Dataset.from_dict({"input_ids": [row.ids for row in rows], "labels": [labels(row.ids, row.start) for row in rows]})


def precision(chosen: base_model.Machine) -> dict[str, Any]:
    """Trainer flags of the machine: autocast on a GPU, float32 on a CPU."""
    return {"bf16": chosen.dtype == torch.bfloat16, "fp16": chosen.dtype == torch.float16, "use_cpu": chosen.device == "cpu"}


@contextlib.contextmanager
def adapter_in_float32(model: torch.nn.Module) -> Iterator[None]:
    """Undo what trl does to a QLoRA adapter while a trainer is made: cast to bfloat16.

    The cast rounds the weights once (DPO would not start at the SFT adapter), and later every update of DPO's size away.
    """
    exact = {name: parameter.detach().float().clone() for name, parameter in model.named_parameters() if parameter.requires_grad}
    yield
    for name, parameter in model.named_parameters():
        if name in exact:
            parameter.data = exact[name]


def load_trainable(folder: Path, params: SftParams, chosen: base_model.Machine) -> Any:
    """The base with a fresh adapter, by trl's engine or by unsloth.

    Raises:
        MachineError: unsloth asked for and not installed, or without CUDA.
    """
    if params.engine == "unsloth":
        if chosen.device != "cuda" or importlib.util.find_spec("unsloth") is None:
            raise MachineError("sft.engine is unsloth, which needs CUDA and `pip install tabsmith[gpu]`: set sft.engine to trl")
        return _load_unsloth(folder, params)
    torch.manual_seed(params.seed)
    return get_peft_model(base_model.load(folder, params.bits, chosen), lora_config(params.lora))


def _load_unsloth(folder: Path, params: SftParams) -> Any:
    from unsloth import FastLanguageModel

    model, _ = FastLanguageModel.from_pretrained(str(folder), max_seq_length=params.max_row_tokens, load_in_4bit=params.bits == 4)
    return FastLanguageModel.get_peft_model(
        model, r=params.lora.r, lora_alpha=params.lora.alpha, lora_dropout=params.lora.dropout, random_state=params.seed
    )


def trainer_config(params: SftParams, scratch: Path, chosen: base_model.Machine) -> SFTConfig:
    """Trainer settings; what is not here is trl's default."""
    return SFTConfig(
        output_dir=str(scratch),
        per_device_train_batch_size=params.batch,
        per_device_eval_batch_size=params.batch,
        gradient_accumulation_steps=params.accumulate,
        learning_rate=params.lr,
        lr_scheduler_type="cosine",
        warmup_steps=params.warmup_share,
        num_train_epochs=params.epochs,
        max_steps=params.max_steps,
        max_length=None,
        packing=False,
        gradient_checkpointing=False,
        logging_steps=params.eval_steps,
        eval_strategy="steps",
        eval_steps=params.eval_steps,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=params.seed,
        data_seed=params.seed,
        dataloader_pin_memory=chosen.device == "cuda",
        train_sampling_strategy="group_by_length",
        **precision(chosen),
    )


def run(samples: Path, base: Path, out: Path, params: SftParams) -> dict[str, float]:
    """Fine-tune and write the adapter; return the metrics.

    Raises:
        InputError: samples missing, empty, or with rows the model cannot take.
    """
    started, chosen = Run("sft", out), base_model.machine()
    print(f"sft: {chosen.reason}; base in {'NF4 (4 bits)' if params.bits == 4 else '16 bits or more'}, engine {params.engine}", flush=True)
    codec = load_codec(base)
    train = read_rows(samples / "train.parquet", codec, params.max_row_tokens)
    valid = read_rows(samples / "valid.parquet", codec, params.max_row_tokens, params.eval_rows)
    if len(train) < params.batch:
        raise InputError(
            f"{samples}/train.parquet has {len(train)} rows, fewer than one batch of {params.batch}: lower sft.batch or add code"
        )
    model = load_trainable(base, params, chosen)
    mean_tokens = sum(len(row.ids) for row in train) / len(train)
    watch = Watch("sft", out, mean_tokens * params.batch * params.accumulate)
    with tempfile.TemporaryDirectory() as scratch, adapter_in_float32(model):  # nothing is saved there
        trainer = SFTTrainer(
            model=model,
            args=trainer_config(params, Path(scratch), chosen),
            train_dataset=dataset(train),
            eval_dataset=dataset(valid),
            processing_class=AutoTokenizer.from_pretrained(base),
            callbacks=[watch],
        )
    trainer.remove_callback(PrinterCallback)  # Watch prints
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    metrics = {"valid_loss_before": before, "valid_loss": trainer.evaluate()["eval_loss"], "train_rows": len(train)}
    model.save_pretrained(out / "adapter")
    write_json(out / "metrics.json", metrics)
    steps = trainer.state.global_step
    started.finish(
        {"sft": params},
        [samples / "train.parquet", samples / "valid.parquet"],
        {"train_rows": len(train), "valid_rows": len(valid), "steps": steps},
        ("torch", "transformers", "trl", "peft", "bitsandbytes"),
        seed=params.seed,
        device=chosen.reason,
        parent=sha256_of(base),
        measured={"tokens_per_s": round(steps * watch.tokens_per_step / watch.seconds, 1)},
    )
    return metrics
