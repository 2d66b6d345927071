"""Supervised fine-tuning on middles: LoRA over an NF4 or 16-bit base, loss on the middle and its end token only.

In:  samples/{train,valid}.parquet, the base folder
Out: <out>/adapter (peft; of the step with the best loss on held-out middles), metrics.json, rejects.parquet (files left out by
     their loss), dvclive plots, manifest.json; <out>/checkpoints while it runs
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from huggingface_hub import constants
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTConfig, SFTTrainer

from core.errors import InputError
from core.fim import CONTROL, FimTokens, labels
from core.manifest import Run, sha256_of
from core.records import REJECT, Row, read_parquet, write_json, write_parquet
from phase2_train import base as base_model
from phase2_train import loss_filter, memory
from phase2_train.machine import Choice, Machine, as_record, engine_choice, load_engine, machine, peak_gpu, say
from phase2_train.model_folder import save_adapter
from phase2_train.params import LoraParams, SftParams
from phase2_train.resume import STOP, Checkpoints, Resumable, identity, trained
from phase2_train.row_loss import breakdown, row_losses
from phase2_train.rows import SAMPLES_MADE_BY, TokenRow, load_codec, load_tokenizer, read_rows, token_rows
from phase2_train.watch import Sight, Watch

LOG_STEPS = 5  # between points of the loss curve

constants.HF_HUB_DISABLE_TELEMETRY = True  # trl reports every trainer that is made to the Hub; nothing leaves this machine


def lora_config(params: LoraParams) -> LoraConfig:
    """LoRA on every matrix inside the layers; never on the tied embedding, which would untie it in the GGUF."""
    return LoraConfig(r=params.r, lora_alpha=params.alpha, lora_dropout=params.dropout, target_modules="all-linear", task_type="CAUSAL_LM")


def dataset(rows: list[TokenRow]) -> Dataset:
    """Pre-tokenized rows: `input_ids`, and `labels` that are -100 up to the middle."""
    return Dataset.from_dict({"input_ids": [row.ids for row in rows], "labels": [labels(row.ids, row.start) for row in rows]})


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


def load_trainable(folder: Path, params: SftParams, chosen: Machine) -> Any:
    """The base with a fresh adapter, by trl's engine or by unsloth.

    Raises:
        MachineError: unsloth is asked for and cannot train here.
    """
    if engine_choice(params.engine, chosen).value == "unsloth":
        return _load_unsloth(folder, params)
    torch.manual_seed(params.seed)
    return get_peft_model(base_model.load(folder, params.bits, chosen), lora_config(params.lora))


def _load_unsloth(folder: Path, params: SftParams) -> Any:
    from unsloth import FastLanguageModel

    model, _ = FastLanguageModel.from_pretrained(str(folder), max_seq_length=params.max_row_tokens, load_in_4bit=params.bits == 4)
    return FastLanguageModel.get_peft_model(
        model, r=params.lora.r, lora_alpha=params.lora.alpha, lora_dropout=params.lora.dropout, random_state=params.seed
    )


def trainer_config(params: SftParams, scratch: Path, chosen: Machine, recompute: bool = False) -> SFTConfig:
    """Trainer settings; what is not here is trl's default.

    Args:
        recompute: activations in the backward pass, instead of keeping them (gradient checkpointing).
    """
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
        padding_free=chosen.packing,  # and not trl's packing: that would change how many rows a step takes, from machine to machine
        gradient_checkpointing=recompute,
        logging_steps=LOG_STEPS,
        logging_nan_inf_filter=False,  # it would put the mean of earlier losses in the place of a NaN
        eval_strategy="steps",
        eval_steps=params.eval_steps,
        eval_on_start=True,
        save_strategy="no",  # Checkpoints decides
        report_to="none",
        disable_tqdm=True,
        seed=params.seed,
        data_seed=params.seed,
        train_sampling_strategy="group_by_length",
        **chosen.flags,
    )


class MiddleTrainer(Resumable, SFTTrainer):  # type: ignore[misc]
    """SFTTrainer whose evaluation sums the loss by order and kind of hole, draws no random number, and never holds all logits."""

    held_out: list[TokenRow]
    tokens: FimTokens

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Mean loss per token of `held_out`: `eval_loss`, `eval_loss_spm`, `eval_loss_line_rest`, ..."""
        losses = row_losses(self.model, self.held_out, self.tokens, self.args.per_device_eval_batch_size)
        metrics = breakdown(self.held_out, losses, "eval_")
        if self.args.world_size > 1:  # what is best, and when to stop, must be the same to the last digit in every process
            metrics = broadcast_object_list([metrics])[0]
        model: Any = self.model
        training = model.training
        model.eval()  # trl files what is logged by this
        self.log(metrics)
        model.train(training)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class Best(TrainerCallback):  # type: ignore[misc]
    """Keeps the weights of the lowest loss on held-out rows, and stops when it has not fallen for a while.

    The untrained adapter is a candidate too: where training only hurts, it is what remains.

    Args:
        patience: evaluations without a better loss; 0: never stop.
    """

    def __init__(self, patience: int) -> None:
        self.patience, self.since, self.step = patience, 0, 0
        self.before: dict[str, float] = {}
        self.metrics: dict[str, float] = {}
        self.weights: dict[str, torch.Tensor] = {}

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> TrainerControl:
        """Compare with the best so far."""
        metrics = {key: value for key, value in kwargs["metrics"].items() if key.startswith("eval_loss")}
        self.before = self.before or metrics
        if not self.metrics or metrics["eval_loss"] < self.metrics["eval_loss"]:
            self.since, self.step, self.metrics = 0, state.global_step, metrics
            self.weights = {name: weight.detach().cpu().clone() for name, weight in trained(kwargs["model"]).items()}
        else:
            self.since += 1
            if self.patience and self.since >= self.patience:
                control.should_training_stop = True
        return control

    def restore(self, model: torch.nn.Module) -> None:
        """Put the best weights into the model."""
        with torch.no_grad():
            for name, weight in trained(model).items():
                weight.copy_(self.weights[name])

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {key: getattr(self, key) for key in ("since", "step", "before", "metrics", "weights")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it up again."""
        vars(self).update(state)


class Data(NamedTuple):
    """Rows to train on, with the file each comes from, rows to judge by, and the samples they are."""

    train: list[TokenRow]
    places: list[Row]  # file_id, repo, path
    valid: list[TokenRow]
    valid_samples: list[Row]


def read(samples: Path, base: Path, params: SftParams) -> Data:
    """All rows to train on; of the validation split `eval_rows`, chosen by hash, so that they come from many files.

    Raises:
        InputError: samples missing, empty, or with rows the model cannot take.
    """
    codec, tokenizer = load_codec(base), load_tokenizer(base)
    train = read_rows(samples / "train.parquet", codec, params.max_row_tokens)
    places = list(read_parquet(samples / "train.parquet", SAMPLES_MADE_BY, ["file_id", "repo", "path"]))
    valid = list(read_parquet(samples / "valid.parquet", SAMPLES_MADE_BY))
    if not valid:
        raise InputError(f"{samples}/valid.parquet holds no samples: raise samples.valid_share and run `{SAMPLES_MADE_BY}`")
    valid = sorted(valid, key=lambda sample: hashlib.sha256(sample["sample_id"].encode()).digest())[: params.eval_rows]
    judged = list(token_rows(valid, codec, params.max_row_tokens))
    control = {token for text in CONTROL if (token := tokenizer.token_to_id(text)) is not None}
    for row in (*train, *judged):
        if not control.isdisjoint(row.ids[row.start : -1]):
            raise InputError(f"sample {row.sample_id} has a control token inside its middle: run `{SAMPLES_MADE_BY}` again")
    enough(train, params, f"{samples}/train.parquet has")
    return Data(train, places, judged, valid)


def enough(rows: Sequence[TokenRow], params: SftParams, who: str) -> None:
    """Refuse fewer rows than one batch.

    Raises:
        InputError: says how many there are.
    """
    if len(rows) < params.batch:
        raise InputError(f"{who} {len(rows)} rows, fewer than one batch of {params.batch}: lower sft.batch or add code")


class Fitted(NamedTuple):
    """What a training run ends with."""

    model: Any
    best: Best
    steps: int
    train_rows: int
    valid_rows: int
    rejected: list[Row]
    tokens_per_s: float
    step_seconds: float
    checkpoints: Checkpoints


def without_rejects(
    data: Data, model: Any, tokens: FimTokens, params: SftParams, base: str, cache: Path
) -> tuple[list[TokenRow], list[Row]]:
    """The rows of files that pass the loss filter, and the files that do not.

    Raises:
        InputError: fewer rows than a batch are left.
    """
    if not loss_filter.wanted(params.filter):
        return data.train, []
    files = loss_filter.files_of(data.train, data.places, params.filter.rows_per_file)
    scores = loss_filter.score(files, model, tokens, params.batch, base, cache)
    reasons = loss_filter.verdicts(scores, params.filter)
    kept = [row for row, place in zip(data.train, data.places, strict=True) if place["file_id"] not in reasons]
    counted = ", ".join(f"{count} {reason}" for reason, count in sorted(Counter(reasons.values()).items())) or "none"
    print(f"sft: loss filter: {len(files)} files, left out: {counted}; {len(kept):,} of {len(data.train):,} rows stay", flush=True)
    enough(kept, params, "after sft.filter there are")
    return kept, loss_filter.rejects(files, scores, reasons)


def fit(
    data: Data, base: Path, out: Path, params: SftParams, chosen: Machine, run_of: dict[str, Any], recompute: bool, fresh: bool
) -> Fitted:
    """Train, from a checkpoint where there is one; the model ends at its best weights.

    Args:
        run_of: what this run is made of (see resume.identity).
        recompute: see `trainer_config`.
        fresh: forget the checkpoints.

    Raises:
        Stopped, MachineError, CheckFailed, InputError: see Checkpoints.train.
    """
    codec, model = load_codec(base), load_trainable(base, params, chosen)
    cache = out.parent / "cache" / "file_losses.jsonl"
    rows, rejected = without_rejects(data, model, codec.tokens, params, f"{run_of['base model']}, {params.bits} bits", cache)
    watch = Watch("sft", out, 0.0, Sight(data.valid_samples, codec, load_tokenizer(base).decode))
    best, checkpoints = Best(params.patience), Checkpoints("sft", out / "checkpoints", run_of, params.save_steps, fresh)
    with tempfile.TemporaryDirectory() as scratch, adapter_in_float32(model):  # nothing is saved there
        trainer = MiddleTrainer(
            model=model,
            args=trainer_config(params, Path(scratch), chosen, recompute),
            train_dataset=dataset(rows),
            eval_dataset=dataset(data.valid),
            processing_class=AutoTokenizer.from_pretrained(base),
            callbacks=[watch, best],
        )
    trainer.held_out, trainer.tokens = data.valid, codec.tokens
    trainer.remove_callback(PrinterCallback)  # Watch prints
    per_step = params.batch * params.accumulate * chosen.processes
    watch.tokens_per_step = sum(len(row.ids) for row in rows) / len(rows) * per_step
    checkpoints.train(trainer)
    best.restore(model)
    steps = trainer.state.global_step
    return Fitted(model, best, steps, len(rows), len(data.valid), rejected, watch.tokens_per_s(steps), watch.step_seconds, checkpoints)


@STOP
def run(samples: Path, base: Path, out: Path, params: SftParams, fresh: bool = False) -> dict[str, float]:
    """Fine-tune and write the adapter; return the metrics. A run that was stopped or killed goes on where it was.

    Args:
        fresh: forget the checkpoints of a run that did not end.

    Raises:
        InputError: samples missing, empty, or with rows the model cannot take; checkpoints of another run.
        Stopped: a signal came; a checkpoint was written.
        MachineError: no room for checkpoints, or not enough memory.
        CheckFailed: the loss is not a number.
    """
    started, chosen = Run("sft", out), machine(base_model.wanted_device(base))
    engine = load_engine(params.engine, chosen)
    inputs = {"train rows": samples / "train.parquet", "valid rows": samples / "valid.parquet", "base model": base}
    data = read(samples, base, params)
    run_of = identity({"sft": params}, inputs, processes=chosen.processes)
    Checkpoints("sft", out / "checkpoints", run_of, params.save_steps, fresh).check()
    choices = {"engine": engine, "base": Choice(f"{params.bits} bits", "NF4 under the adapter" if params.bits == 4 else "as it is")}
    longest = max(len(row.ids) for row in data.train)
    choices |= memory.plan(chosen, base_model.check(base), params.bits, params.lora.r, params.batch, params.accumulate, longest)
    say("sft", chosen, choices)

    def attempt(batch: int, accumulate: int) -> Fitted:
        cut = params.model_copy(update={"batch": batch, "accumulate": accumulate})
        return fit(data, base, out, cut, chosen, run_of, choices["checkpointing"].value == "on", fresh)

    fitted, retry = memory.halved_if_needed(attempt, params.batch, params.accumulate, "sft", chosen.processes)
    metrics = _metrics(fitted)
    if chosen.leads:
        write(fitted, metrics, samples, base, out, params, started, chosen, choices | ({"retry": retry} if retry else {}))
    return metrics


def _metrics(fitted: Fitted) -> dict[str, float]:
    losses = {f"valid_{key.removeprefix('eval_')}": value for key, value in fitted.best.metrics.items()}
    return losses | {
        "valid_loss_before": fitted.best.before["eval_loss"],
        "train_rows": fitted.train_rows,
        "steps": fitted.steps,
        "best_step": fitted.best.step,
        "files_left_out": len(fitted.rejected),
    }


def write(
    fitted: Fitted,
    metrics: dict[str, float],
    samples: Path,
    base: Path,
    out: Path,
    params: SftParams,
    started: Run,
    chosen: Machine,
    choices: dict[str, Choice],
) -> None:
    """Everything that stays; the checkpoints go last, so that a kill before that costs steps, not the run."""
    partial = out / "adapter.partial"
    shutil.rmtree(partial, ignore_errors=True)
    save_adapter(fitted.model, partial, sha256_of(base))
    shutil.rmtree(out / "adapter", ignore_errors=True)
    partial.replace(out / "adapter")
    write_json(out / "metrics.json", metrics)
    write_parquet(out / "rejects.parquet", fitted.rejected, REJECT)
    print(f"sft: best at step {fitted.best.step} of {fitted.steps}", flush=True)
    reasons = Counter(row["reason"] for row in fitted.rejected)
    started.finish(
        {"sft": params},
        [samples / "train.parquet", samples / "valid.parquet"],
        {
            "train_rows": fitted.train_rows,
            "valid_rows": fitted.valid_rows,
            "steps": fitted.steps,
            "best_step": fitted.best.step,
            "files_left_out": dict(sorted(reasons.items())),
        },
        ("torch", "transformers", "trl", "peft", "bitsandbytes"),
        seed=params.seed,
        device=chosen.reason,
        parent=sha256_of(base),
        measured={
            "tokens_per_s": round(fitted.tokens_per_s, 1),
            "step_s": round(fitted.step_seconds, 5),
            **peak_gpu(),
            "choices": as_record(choices),
        },
    )
    fitted.checkpoints.clear(steps=fitted.steps)
