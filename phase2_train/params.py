"""The sections of params.yaml that phase 2 reads; every value stands in the file."""

from __future__ import annotations

from typing import Literal

from core.params import StageParams


class PretrainParams(StageParams):
    """Profile `base`: a byte-level BPE and a Qwen2-shape model from scratch."""

    vocab: int  # entries, the nine control tokens included
    hidden: int  # multiple of 256: only then does Q4_K_M use K-quants
    ffn: int  # multiple of 256, for the same reason
    layers: int
    heads: int
    kv_heads: int
    context: int  # tokens the model is declared for
    row_tokens: int  # length of a training row
    batch: int  # rows per step
    steps: int
    warmup: int  # steps
    decay_share: float  # last share of the steps, learning rate falling linearly to 0; before it steps may be changed on resume
    muon_lr: float  # hidden matrices; Jordan et al. 2024, 0.02 at this width
    adamw_lr: float  # embedding and norms
    weight_decay: float
    middle_weight: float  # loss weight of middle and end tokens; the rest of the row weighs 1
    compile: bool
    eval_every: int  # steps
    save_every: int  # steps
    seed: int


class BaseParams(StageParams):
    """The model that is adapted."""

    model: str  # a folder, a Hub id, or `random` (a 2-layer model on the shipped tokenizer, for CI)
    revision: str | None  # commit on the Hub
    device: Literal["any", "cuda"]  # cuda: refuse a machine without it
    seed: int


class LoraParams(StageParams):
    """Which matrices get a low-rank delta, and how large."""

    r: int
    alpha: int
    dropout: float


class SftParams(StageParams):
    """Supervised fine-tuning on middles."""

    bits: Literal[4, 16]  # 4: NF4 by bitsandbytes under the adapter (QLoRA)
    engine: Literal["trl", "unsloth"]
    lora: LoraParams
    lr: float
    warmup_share: float
    epochs: float
    max_steps: int  # -1: by epochs
    batch: int  # rows per forward pass
    accumulate: int  # forward passes per step
    eval_rows: int
    eval_steps: int
    max_row_tokens: int  # longer rows are refused, never cut
    seed: int


class PairsParams(StageParams):
    """Preference pairs from the SFT model's own samples."""

    prompts: int
    samples: int  # per prompt
    temperature: float
    top_p: float
    max_new_tokens: int
    batch: int
    min_similarity: float  # drop pairs that are easier than this (0-1)
    max_similarity: float  # drop pairs that are noise above this
    max_length_ratio: float  # of the longer to the shorter in characters, against "shorter wins"
    seed: int


class DpoParams(StageParams):
    """Direct preference optimization from the SFT adapter, which is its own reference."""

    beta: float
    loss: list[str]  # trl names; ["sigmoid", "sft"] is RPO
    loss_weights: list[float]
    lr: float
    warmup_share: float
    epochs: float
    max_steps: int
    batch: int
    accumulate: int
    seed: int
