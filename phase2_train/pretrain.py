"""Train the small base from scratch: Qwen2 shape, FIM in both orders and left-to-right code.

In:  samples/{train,valid}.parquet of phase 1 (profile `base`), tokenizer.json
Out: a model in memory, for phase2_train.card to write; checkpoints and log in the run folder

Muon on the hidden matrices, AdamW on embedding and norms, and a warm-up / constant / linear-decay schedule, so that a run
can be made longer: what was reached before the decay is kept, and a larger `steps` goes on from there. Forward and
backward run in bfloat16 throughout, on a copy of float32 weights; under autocast on two cores casts took a third of a step.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from transformers import Qwen2Config, Qwen2ForCausalLM

from core.errors import CheckFailed, InputError
from core.fim import FimTokens
from core.manifest import sha256_of
from core.records import partial
from phase2_train.muon import Muon
from phase2_train.packed import IGNORE, Packed, batches, pack, tensors
from phase2_train.params import PretrainParams
from phase2_train.rows import load_codec, load_tokenizer

CHUNK = 1024  # tokens whose logits are in memory at once
VALID_ROWS = 256
LOG_EVERY = 20  # steps
FIRST = 50  # steps whose losses are all logged: a rebuilt base must show the same


def shape(params: PretrainParams, vocab: int, tokens: FimTokens) -> Qwen2Config:
    """The Qwen2 configuration of the small base; embeddings are tied, as in Qwen2.5-Coder-0.5B."""
    return Qwen2Config(
        vocab_size=vocab,
        hidden_size=params.hidden,
        intermediate_size=params.ffn,
        num_hidden_layers=params.layers,
        num_attention_heads=params.heads,
        num_key_value_heads=params.kv_heads,
        max_position_embeddings=params.context,
        tie_word_embeddings=True,
        rms_norm_eps=1e-6,
        bos_token_id=None,
        eos_token_id=tokens.end,
        pad_token_id=tokens.pad,
        use_sliding_window=False,
    )


def token_losses(model: Qwen2ForCausalLM, inputs: Tensor, targets: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Cross-entropy in nats of every token, CHUNK tokens at a time: where the chunk begins in (B x T), and its losses."""
    hidden = model.model(input_ids=inputs, use_cache=False).last_hidden_state.flatten(0, 1)
    for at in range(0, len(hidden), CHUNK):
        logits = F.linear(hidden[at : at + CHUNK], model.lm_head.weight).float()
        yield at, F.cross_entropy(logits, targets.flatten()[at : at + CHUNK], ignore_index=IGNORE, reduction="none")


def weighted_loss(model: Qwen2ForCausalLM, inputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean cross-entropy in nats, weighted per token."""
    flat = weights.flatten()
    total = sum((losses * flat[at : at + CHUNK]).sum() for at, losses in token_losses(model, inputs, targets))
    return torch.as_tensor(total) / flat.sum()


def learning_rate(step: int, params: PretrainParams) -> float:
    """Share of the peak: linear warm-up, constant, linear decay to 0 over the last `decay_share` of the steps."""
    decay = params.steps * params.decay_share
    return min(1.0, (step + 1) / max(1, params.warmup), max(0.0, (params.steps - step) / max(1.0, decay)))


def decay_begins(params: PretrainParams) -> int:
    """The first step at less than the peak rate."""
    return int(params.steps * (1 - params.decay_share))


@torch.inference_mode()
def evaluate(model: Qwen2ForCausalLM, rows: Packed, batch: int) -> dict[str, float]:
    """Loss in nats per token over everything, and over middles and end tokens only."""
    total = {"all": [0.0, 0.0], "middle": [0.0, 0.0]}
    device = model.lm_head.weight.device
    for first in range(0, len(rows.ids), batch):
        inputs, targets, marks = (t.to(device) for t in tensors(rows, np.arange(first, min(first + batch, len(rows.ids))), 2.0))
        for at, losses in token_losses(model, inputs, targets):
            part = marks.flatten()[at : at + CHUNK]
            for name, chosen in (("all", part > 0), ("middle", part == 2.0)):
                total[name][0] += float(losses[chosen].sum())
                total[name][1] += int(chosen.sum())
    return {name: round(loss / max(1, count), 4) for name, (loss, count) in total.items()}


def begun(folder: Path, config: Qwen2Config) -> dict[str, Tensor]:
    """Weights to begin from instead of random ones, in float32.

    Raises:
        InputError: none there, or of another shape or vocabulary.
    """
    if not (folder / "model.safetensors").is_file():
        raise InputError(f"{folder} has no model.safetensors: mend pretrain.start in params.yaml, or set it to null")
    held = Qwen2Config.from_pretrained(folder)
    for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"):
        if getattr(held, key) != getattr(config, key):
            raise InputError(f"{folder} has {key} {getattr(held, key)} and pretrain asks for {getattr(config, key)}: make them agree")
    return {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}


class Learner:
    """Float32 weights with their optimizers, and the bfloat16 copy that is run."""

    def __init__(self, config: Qwen2Config, params: PretrainParams, device: str) -> None:
        torch.manual_seed(params.seed)
        self.params = params
        self.exact = Qwen2ForCausalLM(config).to(device)  # type: ignore[arg-type]
        if params.start:
            self.exact.load_state_dict(begun(Path(params.start), config), strict=False)  # the head is the embedding
        self.quick = Qwen2ForCausalLM(config).to(torch.device(device), torch.bfloat16)  # type: ignore[arg-type, call-overload]
        named = list(self.exact.named_parameters())
        inner = [p for name, p in named if p.ndim == 2 and "embed" not in name]
        rest = [p for name, p in named if p.ndim != 2 or "embed" in name]
        self.optims: list[torch.optim.Optimizer] = [
            Muon(inner, params.muon_lr, params.weight_decay),
            torch.optim.AdamW(rest, lr=params.adamw_lr, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self.peak = (params.muon_lr, params.adamw_lr)
        loss: Callable[..., Tensor] = torch.compile(weighted_loss) if params.compile else weighted_loss
        self.loss = loss
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the exact weights into the quick ones."""
        for quick, exact in zip(self.quick.parameters(), self.exact.parameters(), strict=True):
            quick.copy_(exact)

    def step(self, batch: tuple[Tensor, Tensor, Tensor], share: float) -> float:
        """One update at `share` of the peak rates; return the loss before it."""
        loss = self.loss(self.quick, *batch)
        loss.backward()
        for quick, exact in zip(self.quick.parameters(), self.exact.parameters(), strict=True):
            exact.grad = quick.grad.float() if quick.grad is not None else None
            quick.grad = None
        torch.nn.utils.clip_grad_norm_(self.exact.parameters(), 1.0)
        for optim, peak in zip(self.optims, self.peak, strict=True):
            optim.param_groups[0]["lr"] = peak * share
            optim.step()
        self.refresh()
        return float(loss.detach())


class Progress(NamedTuple):
    """How far a run has come."""

    step: int
    tokens: int  # seen, padding left out


def identity(params: PretrainParams, samples: Path, folder: Path) -> dict[str, Any]:
    """What must be the same for a checkpoint to be continued; the length of the run and the intervals may change."""
    fixed = params.model_dump(exclude={"steps", "decay_share", "eval_every", "save_every", "compile"})
    if params.start:
        fixed["start"] = sha256_of(Path(params.start) / "model.safetensors")
    return fixed | {"samples": sha256_of(samples), "tokenizer": sha256_of(folder / "tokenizer.json")}


def save(file: Path, learner: Learner, at: Progress, known: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all."""
    state = {
        "model": learner.exact.state_dict(),
        "optims": [optim.state_dict() for optim in learner.optims],
        "progress": tuple(at),
        "schedule": (learner.params.steps, learner.params.decay_share),
        "identity": known,
    }
    with partial(file) as unfinished:
        torch.save(state, unfinished)


def resume(run_folder: Path, learner: Learner, known: dict[str, Any], device: str) -> Progress:
    """Go on from the newest checkpoint that fits the schedule.

    Raises:
        InputError: a checkpoint of other params, samples or another tokenizer; names them.
    """
    for name in ("checkpoint.pt", "stable.pt"):
        if not (run_folder / name).is_file():
            continue
        state = torch.load(run_folder / name, weights_only=True, map_location=device)
        changed = sorted(key for key in known.keys() | state["identity"].keys() if known.get(key) != state["identity"].get(key))
        if changed:
            raise InputError(f"{run_folder / name} was made with other {', '.join(changed)}: set them back, or add --fresh to start over")
        at = Progress(*state["progress"])
        steps, decay_share = state["schedule"]
        other_end = (steps, decay_share) != (learner.params.steps, learner.params.decay_share)
        if other_end and at.step > min(decay_begins(learner.params), int(steps * (1 - decay_share))):
            continue  # its rate fell towards another end
        learner.exact.load_state_dict(state["model"])
        for optim, saved in zip(learner.optims, state["optims"], strict=True):
            optim.load_state_dict(saved)
        learner.refresh()
        return at
    return Progress(0, 0)


def train(samples: Path, folder: Path, run_folder: Path, params: PretrainParams, fresh: bool) -> tuple[Qwen2ForCausalLM, int]:
    """Train or go on training; return the model and the number of tokens it has seen.

    Raises:
        InputError: a checkpoint of other params, samples or another tokenizer lies in the run folder.
        CheckFailed: the loss is not finite.
    """
    if fresh:
        shutil.rmtree(run_folder, ignore_errors=True)
    run_folder.mkdir(parents=True, exist_ok=True)
    rows = pack(samples / "train.parquet", folder, run_folder, params.row_tokens)
    valid = pack(samples / "valid.parquet", folder, run_folder, params.row_tokens)
    valid = Packed(valid.ids[:VALID_ROWS], valid.role[:VALID_ROWS])
    device, counts = "cuda" if torch.cuda.is_available() else "cpu", rows.tokens
    learner = Learner(shape(params, load_tokenizer(folder).get_vocab_size(), load_codec(folder).tokens), params, device)
    known = identity(params, samples / "train.parquet", folder)
    at = resume(run_folder, learner, known, device)
    parameters = sum(p.numel() for p in learner.exact.parameters())
    print(f"pretrain: {len(counts):,} rows, {counts.sum():,} tokens, {parameters:,} parameters, {device}, from step {at.step}", flush=True)
    started, before = time.monotonic(), at.tokens
    with (run_folder / "log.jsonl").open("a") as log:
        for index in batches(len(counts), params.batch, params.seed, at.step):
            if at.step >= params.steps:
                break
            share = learning_rate(at.step, params)
            batch = tensors(rows, index, params.middle_weight)
            loss = learner.step((batch[0].to(device), batch[1].to(device), batch[2].to(device)), share)
            if not np.isfinite(loss):
                raise CheckFailed(f"pretrain: the loss is {loss} at step {at.step}: lower pretrain.muon_lr and start over with --fresh")
            at = Progress(at.step + 1, at.tokens + int(counts[index].sum()))
            if at.step % LOG_EVERY == 0 or at.step <= FIRST:
                line: dict[str, Any] = {"step": at.step, "loss": round(loss, 4), "tokens": at.tokens}
                rate = (at.tokens - before) / (time.monotonic() - started)
                line |= {"tokens_per_s": round(rate), "lr": round(share, 3)}
                if at.step % params.eval_every == 0:
                    line["valid"] = evaluate(learner.quick, valid, params.batch)
                log.write(json.dumps(line) + "\n")
                log.flush()
                if at.step % LOG_EVERY == 0:
                    left = (params.steps - at.step) * params.batch * float(counts.mean()) / rate
                    print(f"pretrain: {line}, {left:,.0f} s left", file=sys.stderr, flush=True)
            if at.step % params.save_every == 0:
                save(run_folder / "checkpoint.pt", learner, at, known)
            if at.step == decay_begins(params):
                save(run_folder / "stable.pt", learner, at, known)
    save(run_folder / "checkpoint.pt", learner, at, known)
    return learner.exact, at.tokens
