"""Direct preference optimization, from the SFT adapter, which is its own reference.

In:  pairs.jsonl, the base folder, the SFT adapter
Out: <out>/adapter, metrics.json, dvclive plots, manifest.json

trl copies a trainable PeftModel's adapter into a frozen one named `ref`: no second model, and step 0 has a sigmoid
loss of ln 2. The default loss is RPO (sigmoid + sft, arXiv 2404.19733), because plain DPO collapses on FIM (trl#2382).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoTokenizer, PrinterCallback
from trl import DPOConfig, DPOTrainer

from core.errors import InputError
from core.fim import Codec
from core.manifest import Run, sha256_of
from core.records import Row, read_jsonl, write_json
from phase2_train import base as base_model
from phase2_train.params import DpoParams, SftParams
from phase2_train.rows import hole_of, load_codec
from phase2_train.sft import adapter_in_float32, precision
from phase2_train.watch import Watch

PAIRS_MADE_BY = "python -m phase2_train pairs"


class TokenizedDPO(DPOTrainer):  # type: ignore[misc]
    """DPOTrainer on rows that are token ids already: P, S and M are encoded apart, which its own tokenizing would undo."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset


def preference_ids(pair: Row, codec: Codec) -> dict[str, list[int]]:
    """Ids of the prompt and of both answers; an answer that ended by itself, as the truth does, closes with the end token."""
    ended = pair["evidence"].get("ended", True)
    return {
        "prompt_ids": codec.prompt(hole_of({**pair, "middle": ""}), pair["order"]),
        "chosen_ids": [*codec.plain(pair["chosen"]), codec.tokens.end],
        "rejected_ids": codec.plain(pair["rejected"]) + ([codec.tokens.end] if ended else []),
    }


def read_pairs(file: Path, codec: Codec, batch: int) -> list[dict[str, list[int]]]:
    """The pairs of a file as token ids.

    Raises:
        InputError: missing, fewer than one batch, or a pair without prefix, suffix, chosen or rejected.
    """
    rows = []
    for number, pair in enumerate(read_jsonl(file, PAIRS_MADE_BY), 1):
        missing = {"prefix", "suffix", "chosen", "rejected"} - pair.keys()
        if missing:
            raise InputError(f"{file}: pair {number} lacks {', '.join(sorted(missing))}: run `{PAIRS_MADE_BY}` again")
        rows.append(preference_ids({"order": "spm", "path": "", "repo": "", "context": [], "evidence": {}, **pair}, codec))
    if len(rows) < batch:
        raise InputError(f"{file} holds {len(rows)} pairs, fewer than one batch of {batch}: lower dpo.batch or raise pairs.prompts")
    return rows


def trainer_config(params: DpoParams, scratch: Path, chosen: base_model.Machine) -> DPOConfig:
    """Trainer settings; what is not here is trl's default."""
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
        gradient_checkpointing=False,
        logging_steps=5,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=params.seed,
        data_seed=params.seed,
        dataloader_pin_memory=chosen.device == "cuda",
        **precision(chosen),
    )


def run(pairs: Path, base: Path, adapter: Path, out: Path, params: DpoParams, sft: SftParams) -> dict[str, float]:
    """Optimize and write the adapter; return the last logged metrics.

    Raises:
        InputError: pairs or adapter missing or too few.
    """
    started, chosen = Run("dpo", out), base_model.machine()
    if not (adapter / "adapter_config.json").is_file():
        raise InputError(f"{adapter} is missing: run `python -m phase2_train sft` first")
    print(f"dpo: {chosen.reason}; reference is the SFT adapter itself; loss {' + '.join(params.loss)}", flush=True)
    rows = read_pairs(pairs, load_codec(base), params.batch)
    torch.manual_seed(params.seed)
    model = PeftModel.from_pretrained(base_model.load(base, sft.bits, chosen), adapter, is_trainable=True)
    tokens = sum(2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows) / len(rows)
    watch = Watch("dpo", out, tokens * params.batch * params.accumulate)
    with tempfile.TemporaryDirectory() as scratch, adapter_in_float32(model):  # nothing is saved there
        trainer = TokenizedDPO(
            model=model,
            args=trainer_config(params, Path(scratch), chosen),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(base),
            callbacks=[watch],
        )
    trainer.remove_callback(PrinterCallback)  # Watch prints
    trainer.train()
    logged = [entry for entry in watch.history if "rewards/accuracies" in entry]
    recent = logged[-3:] if len(logged) > 3 else logged  # a last batch may hold a pair or two
    keys = [key for key in logged[-1] if key.startswith(("rewards", "logps"))]
    metrics = {key.replace("/", "_"): sum(entry[key] for entry in recent) / len(recent) for key in keys}
    metrics |= {"pairs": len(rows), "first_loss": logged[0]["loss"], "first_logps_chosen": logged[0]["logps/chosen"]}
    model.save_pretrained(str(out / "adapter"), selected_adapters=["default"])  # without the frozen copy `ref`
    write_json(out / "metrics.json", metrics)
    started.finish(
        {"dpo": params},
        [pairs],
        {"pairs": len(rows), "steps": trainer.state.global_step},
        ("torch", "transformers", "trl", "peft", "bitsandbytes"),
        seed=params.seed,
        device=chosen.reason,
        parent=sha256_of(adapter),
        measured={"tokens_per_s": round(trainer.state.global_step * watch.tokens_per_step / watch.seconds, 1)},
    )
    return metrics
