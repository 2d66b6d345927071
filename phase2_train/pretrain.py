"""Train the small base from scratch: Qwen2 shape, FIM in both orders and left-to-right code.

In:  samples/{train,valid}.parquet of phase 1 (profile `base`), tokenizer.json
Out: a Hugging Face folder (config, safetensors in bf16, tokenizer); checkpoint and log in the run folder

Muon on the hidden matrices (Jordan et al. 2024; torch.optim.Muon), AdamW on embedding and norms, and a
warm-up / constant / linear-decay schedule, so that a run can be made longer or shorter until the decay begins.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Qwen2Config, Qwen2ForCausalLM

from core.errors import InputError
from core.fim import FimTokens
from core.progress import track
from core.records import partial, read_parquet
from phase2_train.params import PretrainParams
from phase2_train.rows import SAMPLES_MADE_BY, load_codec, load_tokenizer, token_rows

IGNORE = -100


class Packed(NamedTuple):
    """Rows of one split, padded to one length.

    ids: (N, T) uint16; start: (N,) index of the first middle token; length: (N,) tokens before the padding.
    """

    ids: np.ndarray
    start: np.ndarray
    length: np.ndarray


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


def pack(samples: Path, folder: Path, cache: Path, row_tokens: int) -> Packed:
    """Encode a samples file once; the cache is reused while samples and tokenizer are the same files."""
    key = hashlib.sha256(f"{samples.stat().st_mtime_ns} {row_tokens}".encode() + (folder / "tokenizer.json").read_bytes()).hexdigest()[:16]
    file = cache / f"{samples.stem}-{key}.npz"
    if not file.exists():
        codec = load_codec(folder)
        rows = list(track(token_rows(read_parquet(samples, SAMPLES_MADE_BY), codec, row_tokens), f"encode {samples.stem}", unit="rows"))
        if not rows:
            raise InputError(f"{samples} holds no samples: run `{SAMPLES_MADE_BY} --profile base`")
        ids = np.full((len(rows), row_tokens), codec.tokens.pad, dtype=np.uint16)
        for index, row in enumerate(rows):
            ids[index, : len(row.ids)] = row.ids
        with partial(file) as unfinished, unfinished.open("wb") as sink:
            np.savez(sink, ids=ids, start=np.array([row.start for row in rows]), length=np.array([len(row.ids) for row in rows]))
    with np.load(file) as data:
        return Packed(data["ids"], data["start"], data["length"])


def batches(rows: Packed, size: int, seed: int, step: int) -> Iterator[np.ndarray]:
    """Row indices for every step from `step` on: a fresh permutation per epoch, the same for the same seed."""
    per_epoch = len(rows.ids) // size
    while True:
        order = np.random.default_rng([seed, step // per_epoch]).permutation(len(rows.ids))
        at = step % per_epoch
        yield order[at * size : (at + 1) * size]
        step += 1


def tensors(rows: Packed, index: np.ndarray, middle_weight: float) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs (B, T), targets (B, T) shifted by one with IGNORE in the padding, and loss weights (B, T)."""
    ids = torch.from_numpy(rows.ids[index].astype(np.int64))
    place = torch.arange(1, ids.shape[1])
    length, start = torch.from_numpy(rows.length[index])[:, None], torch.from_numpy(rows.start[index])[:, None]
    targets = ids[:, 1:].masked_fill(place >= length, IGNORE)
    weights = torch.where(place >= start, middle_weight, 1.0)
    return ids[:, :-1], targets, weights * (targets != IGNORE)


def weighted_loss(model: torch.nn.Module, inputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean cross-entropy in nats, weighted per token."""
    logits = model(input_ids=inputs, use_cache=False).logits
    losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE, reduction="none")
    return (losses * weights.flatten()).sum() / weights.sum()


def learning_rate(step: int, params: PretrainParams) -> float:
    """Share of the peak: linear warm-up, constant, linear decay to 0 over the last `decay_share` of the steps."""
    decay = params.steps * params.decay_share
    return min(1.0, (step + 1) / max(1, params.warmup), max(0.0, (params.steps - step) / max(1.0, decay)))


def optimizers(model: torch.nn.Module, params: PretrainParams) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the rest."""
    hidden = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(hidden, lr=params.muon_lr, weight_decay=params.weight_decay),
        torch.optim.AdamW(rest, lr=params.adamw_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


@torch.inference_mode()
def evaluate(model: torch.nn.Module, rows: Packed, batch: int) -> dict[str, float]:
    """Loss in nats per token over everything, and over middles and end tokens only."""
    total = {"all": [0.0, 0.0], "middle": [0.0, 0.0]}
    for at in range(0, len(rows.ids), batch):
        inputs, targets, marks = tensors(rows, np.arange(at, min(at + batch, len(rows.ids))), 2.0)
        logits = model(input_ids=inputs, use_cache=False).logits
        losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE, reduction="none")
        for name, chosen in (("all", marks.flatten() > 0), ("middle", marks.flatten() == 2.0)):
            total[name][0] += float(losses[chosen].sum())
            total[name][1] += int(chosen.sum())
    return {name: round(loss / max(1, count), 4) for name, (loss, count) in total.items()}


def _checkpoint(file: Path, model: torch.nn.Module, optims: list[torch.optim.Optimizer], step: int, tokens: int, identity: str) -> None:
    state = {"model": model.state_dict(), "optims": [o.state_dict() for o in optims], "step": step, "tokens": tokens, "identity": identity}
    with partial(file) as unfinished:
        torch.save(state, unfinished)


def _identity(params: PretrainParams, folder: Path) -> str:
    """What must be the same for a checkpoint to be continued; `steps` and intervals may change."""
    fixed = params.model_dump(exclude={"steps", "decay_share", "eval_every", "save_every", "compile"})
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode() + (folder / "tokenizer.json").read_bytes()).hexdigest()


def train(samples: Path, folder: Path, run_folder: Path, params: PretrainParams, fresh: bool) -> tuple[Qwen2ForCausalLM, int]:
    """Train or go on training; return the model and the number of tokens it has seen.

    Raises:
        InputError: a checkpoint of other params or another tokenizer lies in the run folder.
    """
    torch.manual_seed(params.seed)
    run_folder.mkdir(parents=True, exist_ok=True)
    rows = pack(samples / "train.parquet", folder, run_folder, params.row_tokens)
    valid = pack(samples / "valid.parquet", folder, run_folder, params.row_tokens)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    codec = load_codec(folder)
    model = Qwen2ForCausalLM(shape(params, load_tokenizer(folder).get_vocab_size(), codec.tokens))
    model.to(torch.device(device))  # type: ignore[arg-type]
    optims, file, identity = optimizers(model, params), run_folder / "checkpoint.pt", _identity(params, folder)
    step = seen = 0
    if file.exists() and not fresh:
        state = torch.load(file, weights_only=True, map_location=device)
        if state["identity"] != identity:
            raise InputError(f"{file} was made with other params or another tokenizer: add --fresh to start over")
        model.load_state_dict(state["model"])
        for optim, saved in zip(optims, state["optims"], strict=True):
            optim.load_state_dict(saved)
        step, seen = state["step"], state["tokens"]
    fast: Any = torch.compile(model) if params.compile else model
    print(
        f"pretrain: {len(rows.ids):,} rows, {sum(p.numel() for p in model.parameters()):,} parameters, {device}, from step {step}",
        flush=True,
    )
    peak = [[group["lr"] for group in optim.param_groups] for optim in optims] if step == 0 else [[params.muon_lr], [params.adamw_lr]]
    started, seen_before = time.monotonic(), seen
    with (run_folder / "log.jsonl").open("a") as log:
        for index in batches(rows, params.batch, params.seed, step):
            if step >= params.steps:
                break
            inputs, targets, weights = (t.to(device) for t in tensors(rows, index, params.middle_weight))
            share = learning_rate(step, params)
            for optim, rates in zip(optims, peak, strict=True):
                for group, rate in zip(optim.param_groups, rates, strict=True):
                    group["lr"] = rate * share
            with torch.autocast(device, torch.bfloat16):
                loss = weighted_loss(fast, inputs, targets, weights)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optim in optims:
                optim.step()
                optim.zero_grad(set_to_none=True)
            step, seen = step + 1, seen + int(rows.length[index].sum())
            if step % 20 == 0:
                rate = (seen - seen_before) / (time.monotonic() - started)
                left = (params.steps - step) * params.batch * float(rows.length.mean()) / rate
                line: dict[str, Any] = {
                    "step": step,
                    "loss": round(loss.item(), 4),
                    "tokens": seen,
                    "tokens_per_s": round(rate),
                    "lr": round(share, 3),
                }
                if step % params.eval_every == 0:
                    line["valid"] = evaluate(model, Packed(*(part[:256] for part in valid)), params.batch)
                log.write(json.dumps(line) + "\n")
                log.flush()
                print(f"pretrain: {line}, {left:,.0f} s left", file=sys.stderr, flush=True)
            if step % params.save_every == 0:
                _checkpoint(file, model, optims, step, seen, identity)
    _checkpoint(file, model, optims, step, seen, identity)
    return model, seen
