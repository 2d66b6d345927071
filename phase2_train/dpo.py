"""Direct preference optimization, from the SFT adapter, which is its own reference.

In:  pairs.jsonl, the base folder, the SFT adapter, samples/valid.parquet to see a collapse by
Out: <out>/adapter, metrics.json (`stopped_by` is null unless it collapsed), dvclive plots, manifest.json

trl copies a trainable PeftModel's adapter into a frozen one named `ref`: no second model, and step 0 has a sigmoid
loss of ln 2. The default loss is RPO (sigmoid + sft, arXiv 2404.19733), because plain DPO collapses on FIM (trl#2382).
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoTokenizer, PrinterCallback
from trl import DPOConfig, DPOTrainer

from core.errors import InputError
from core.fim import Codec
from core.manifest import Run, sha256_of
from core.records import Row, read_json, read_jsonl, read_parquet, write_json
from phase2_train import base as base_model
from phase2_train import memory
from phase2_train.collapse import Collapse, Holes
from phase2_train.machine import Choice, Machine, as_record, machine, peak_gpu, say
from phase2_train.model_folder import ADAPTER_MADE_BY, check_adapter, save_adapter
from phase2_train.params import DpoParams, SftParams
from phase2_train.resume import STOP, Checkpoints, Resumable, identity
from phase2_train.rows import SAMPLES_MADE_BY, hole_of, load_codec, load_tokenizer
from phase2_train.sft import adapter_in_float32
from phase2_train.shared_prompt import ATTENTIONS, Collator, share_prompts
from phase2_train.watch import Watch

PAIRS_MADE_BY = "python -m phase2_train pairs"
TEXTS = ("prefix", "suffix", "chosen", "rejected")
MAX_LEFT_OUT = 0.2  # share of the pairs that may be left out before something is wrong with the file


class TokenizedDPO(Resumable, DPOTrainer):  # type: ignore[misc]
    """DPOTrainer on rows that are token ids already: P, S and M are encoded apart, which its own tokenizing would undo."""

    monitor: Collapse | None = None

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """trl's figures, and: log-probabilities as differences to the reference, what the monitor saw since the last time."""
        averages = {key: sum(values) / len(values) for key, values in self._metrics["train"].items() if values}
        for side in ("chosen", "rejected"):
            if f"rewards/{side}" in averages and "loss" in logs:
                logs[f"logps_to_reference/{side}"] = averages[f"rewards/{side}"] / self.beta
        if self.monitor is not None:
            logs |= self.monitor.unlogged
            self.monitor.unlogged = {}
        super().log(logs, start_time)


def preference_ids(pair: Row, codec: Codec) -> dict[str, list[int]]:
    """Ids of the prompt and of both answers; an answer that ended by itself, as the truth does, closes with the end token.

    What goes on behind the truth is encoded apart from it: both answers then differ from the end token on and nowhere before.
    """
    ended, chosen, rejected = pair["evidence"].get("ended", True), pair["chosen"], pair["rejected"]
    shared = chosen if rejected.startswith(chosen) else ""
    return {
        "prompt_ids": codec.prompt(hole_of({**pair, "middle": ""}), pair["order"]),
        "chosen_ids": [*codec.plain(chosen), codec.tokens.end],
        "rejected_ids": codec.plain(shared) + codec.plain(rejected[len(shared) :]) + ([codec.tokens.end] if ended else []),
    }


def left_out(pair: Row, ids: dict[str, list[int]], room: int) -> str | None:
    """Why a pair has nothing to teach, or cannot be trained on; None where it can."""
    if not pair["chosen"].strip():
        return "empty_chosen"
    if ids["chosen_ids"] == ids["rejected_ids"]:
        return "same_answers"
    longest = len(ids["prompt_ids"]) + max(len(ids["chosen_ids"]), len(ids["rejected_ids"]))
    return "too_long" if room and longest > room else None


def read_pairs(file: Path, codec: Codec, batch: int, room: int = 0, dropped: Counter[str] | None = None) -> list[dict[str, list[int]]]:
    """The pairs of a file as token ids.

    Args:
        room: tokens that prompt and answer may have together; longer pairs are left out, never cut; 0: any number.
        dropped: gets the number of pairs left out by reason.

    Raises:
        InputError: missing, not pairs, fewer than one batch of usable ones, or more than MAX_LEFT_OUT of them unusable.
    """
    rows, dropped = list[dict[str, list[int]]](), Counter[str]() if dropped is None else dropped
    for number, given in enumerate(read_jsonl(file, PAIRS_MADE_BY), 1):
        pair = {"order": "spm", "path": "", "repo": "", "context": [], "evidence": {}, **given}
        if missing := set(TEXTS) - given.keys():
            raise InputError(f"{file}: pair {number} lacks {', '.join(sorted(missing))}: run `{PAIRS_MADE_BY}` again")
        if (
            not all(isinstance(pair[name], str) for name in TEXTS)
            or pair["order"] not in ("psm", "spm")
            or not isinstance(pair["evidence"], dict)
        ):
            raise InputError(f"{file}: pair {number} is no pair (texts, an order psm or spm, evidence): run `{PAIRS_MADE_BY}` again")
        ids = preference_ids(pair, codec)
        if reason := left_out(pair, ids, room):
            dropped[reason] += 1
        else:
            rows.append(ids)
    why = f" ({', '.join(f'{count} left out as {reason}' for reason, count in sorted(dropped.items()))})" if dropped else ""
    if len(rows) < batch:
        raise InputError(f"{file} holds {len(rows)} pairs{why}, fewer than one batch of {batch}: lower dpo.batch or raise pairs.prompts")
    if dropped.total() > MAX_LEFT_OUT * (len(rows) + dropped.total()):
        raise InputError(f"{file}: too few of its pairs can be used{why}: mend it, or run `{PAIRS_MADE_BY}` again")
    return rows


def trainer_config(params: DpoParams, scratch: Path, chosen: Machine, recompute: bool = False) -> DPOConfig:
    """Trainer settings; what is not here is trl's default.

    Args:
        recompute: activations in the backward pass, instead of keeping them (gradient checkpointing).
    """
    return DPOConfig(
        output_dir=str(scratch),
        beta=params.beta,
        loss_type=params.loss,
        loss_weights=params.loss_weights,
        per_device_train_batch_size=params.batch,
        gradient_accumulation_steps=params.accumulate,
        learning_rate=params.lr,
        lr_scheduler_type="cosine",
        warmup_steps=params.warmup_share,
        num_train_epochs=params.epochs,
        max_steps=params.max_steps,
        max_length=None,
        gradient_checkpointing=recompute,
        logging_steps=5,
        logging_nan_inf_filter=False,  # it would put the mean of earlier losses in the place of a NaN
        save_strategy="no",  # Checkpoints decides
        report_to="none",
        disable_tqdm=True,
        seed=params.seed,
        data_seed=params.seed,
        **chosen.flags,
    )


def held_out(samples: Path | None, base: Path, params: DpoParams, room: int) -> Holes | None:
    """The holes that the monitor completes; None where it is told of none."""
    if samples is None or params.monitor.holes == 0:
        return None
    decode, monitor = load_tokenizer(base).decode, params.monitor
    rows = list(read_parquet(samples / "valid.parquet", SAMPLES_MADE_BY))
    texts = lambda ids: decode(ids, skip_special_tokens=False)  # noqa: E731
    return Holes(rows, load_codec(base), texts, monitor.holes, monitor.max_new_tokens, room)


class Fitted(NamedTuple):
    """What a training run ends with."""

    model: Any
    steps: int
    watch: Watch
    monitor: Collapse
    checkpoints: Checkpoints


def fit(
    rows: list[dict[str, list[int]]],
    base: Path,
    adapter: Path,
    out: Path,
    params: DpoParams,
    bits: int,
    chosen: Machine,
    holes: Holes | None,
    run_of: dict[str, Any],
    recompute: bool,
    fresh: bool,
) -> Fitted:
    """Train from `adapter`, or from a checkpoint where there is one.

    Args:
        bits: of the base under the adapter.
        holes: what the monitor completes.
        run_of: what this run is made of (see resume.identity).
        recompute: see `trainer_config`.
        fresh: forget the checkpoints.

    Raises:
        Stopped, MachineError, CheckFailed, InputError: see Checkpoints.train.
    """
    monitor, codec = Collapse(params.monitor, params.beta, holes), load_codec(base)
    torch.manual_seed(params.seed)
    model = PeftModel.from_pretrained(base_model.load(base, bits, chosen), adapter, is_trainable=True)
    shared = chosen.attention in ATTENTIONS
    tokens = sum(2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows) / len(rows)
    watch = Watch("dpo", out, tokens * params.batch * params.accumulate * chosen.processes)
    with tempfile.TemporaryDirectory() as scratch, adapter_in_float32(model):  # nothing is saved there
        trainer = TokenizedDPO(
            model=model,
            args=trainer_config(params, Path(scratch), chosen, recompute),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(base),
            callbacks=[watch, monitor],
            data_collator=Collator(codec.tokens.pad) if shared else None,
        )
    trainer.monitor = monitor
    if shared:
        share_prompts(model)
    trainer.remove_callback(PrinterCallback)  # Watch prints
    checkpoints = Checkpoints("dpo", out / "checkpoints", run_of, params.save_steps, fresh)
    checkpoints.train(trainer)
    return Fitted(model, trainer.state.global_step, watch, monitor, checkpoints)


@STOP
def run(
    pairs: Path,
    base: Path,
    adapter: Path,
    out: Path,
    params: DpoParams,
    sft: SftParams,
    fresh: bool = False,
    samples: Path | None = None,
) -> dict[str, Any]:
    """Optimize and write the adapter; return the last logged metrics.

    Args:
        samples: folder whose valid.parquet has the holes that the collapse monitor completes; None: it goes without.

    Raises:
        InputError: pairs or adapter missing or too few, of another base, or of another run than the checkpoint.
    """
    started, chosen = Run("dpo", out), machine(base_model.wanted_device(base))
    check_adapter(adapter, base, "python -m phase2_train sft-gate")
    config, dropped = base_model.check(base), Counter[str]()
    room = int(config["max_position_embeddings"])
    rows = read_pairs(pairs, load_codec(base), params.batch, room, dropped)
    longest = max(len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in rows)
    rank = int(read_json(adapter / "adapter_config.json", ADAPTER_MADE_BY)["r"])
    choices = memory.plan(chosen, config, sft.bits, rank, params.batch, params.accumulate, longest, "dpo")
    choices |= {"reference": Choice("adapter", "the one that went in, frozen"), "loss": Choice(" + ".join(params.loss), "dpo.loss")}
    say("dpo", chosen, choices)
    run_of = identity({"dpo": params}, {"pairs": pairs, "base model": base, "adapter that went in": adapter}, **{"sft.bits": sft.bits})
    holes = held_out(samples, base, params, room)

    def attempt(batch: int, accumulate: int) -> Fitted:
        cut, recompute = params.model_copy(update={"batch": batch, "accumulate": accumulate}), choices["checkpointing"].value == "on"
        return fit(rows, base, adapter, out, cut, sft.bits, chosen, holes, run_of, recompute, fresh)

    fitted, retry = memory.halved_if_needed(attempt, params.batch, params.accumulate, "dpo", chosen.processes)
    metrics = _metrics(fitted, len(rows))
    if chosen.leads:
        choices |= {"retry": retry} if retry else {}
        write(fitted, metrics, dropped, pairs, base, adapter, out, params, started, chosen, choices)
    return metrics


def _metrics(fitted: Fitted, pairs: int) -> dict[str, Any]:
    logged = [entry for entry in fitted.watch.history if "rewards/accuracies" in entry]
    recent = logged[-3:] if len(logged) > 3 else logged  # a last batch may hold a pair or two
    keys = [key for key in logged[-1] if key.startswith(("rewards", "logps"))]
    metrics = {key.replace("/", "_"): sum(entry[key] for entry in recent) / len(recent) for key in keys}
    metrics |= {"pairs": pairs, "first_loss": logged[0]["loss"], "first_logps_chosen": logged[0]["logps/chosen"]}
    return metrics | fitted.monitor.figures()


def write(
    fitted: Fitted,
    metrics: dict[str, Any],
    dropped: Counter[str],
    pairs: Path,
    base: Path,
    adapter: Path,
    out: Path,
    params: DpoParams,
    started: Run,
    chosen: Machine,
    choices: dict[str, Choice],
) -> None:
    """Everything that stays; the checkpoints go last, so that a kill before that costs steps, not the run."""
    monitor = fitted.monitor
    save_adapter(fitted.model, out / "adapter", sha256_of(base))
    write_json(out / "metrics.json", metrics)
    started.finish(
        {"dpo": params},
        [pairs],
        {"pairs": metrics["pairs"], "steps": fitted.steps, "kept_step": monitor.kept_step, "stopped_by": monitor.stopped_by or None}
        | {f"dropped_{reason}": count for reason, count in sorted(dropped.items())},
        ("torch", "transformers", "trl", "peft", "bitsandbytes"),
        seed=params.seed,
        device=chosen.reason,
        parent=sha256_of(adapter),
        measured={"tokens_per_s": round(fitted.watch.tokens_per_s(fitted.steps), 1), **peak_gpu(), "choices": as_record(choices)},
    )
    fitted.checkpoints.clear(steps=fitted.steps)
