"""The sections of params.yaml that phase 2 reads; every value stands in the file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from core.params import StageParams

Kind = Literal["overrun", "suffix_repeat", "prefix_repeat", "underrun", "syntax", "undefined_name", "test_fail", "near_miss", "wrong"]


class PretrainParams(StageParams):
    """Profile `base`: a byte-level BPE and a Qwen2-shape model from scratch."""

    start: str | None  # folder of weights to begin from; null: random ones
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


class FilterParams(StageParams):
    """Which files are left out of training by the loss that the base has on them; nothing is scored where all three are 0."""

    top_share: float  # of the scored files, those the base finds hardest: noise
    bottom_share: float  # of the scored files, those the base finds easiest: it has them by heart
    max_nats: float  # mean loss per token from which a file is noise whatever its rank; 0: no bound
    rows_per_file: int  # scored at most, chosen by hash


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
    patience: int  # evaluations without a better loss before training stops; 0: never
    save_steps: int  # steps between checkpoints; no part of a run's identity
    filter: FilterParams
    max_row_tokens: int  # longer rows are refused, never cut
    seed: int


class GateParams(StageParams):
    """How a freshly trained adapter is compared with the one it came from, after SFT and after DPO alike."""

    rows: int = Field(ge=1)  # held-out holes of samples/valid.parquet, chosen by hash
    order: Literal["spm", "psm"]  # in which all of them are asked: the one that is served
    max_new_tokens: int = Field(ge=1)  # greedy decoding stops here
    batch: int = Field(ge=1)  # rows decoded together
    max_loss_rise: float = Field(ge=0)  # nats per token of the truth that the loss must visibly exceed to refuse a child
    confidence: float = Field(gt=0.5, lt=1)  # of every test and interval, each by itself
    bootstrap: int = Field(ge=100)  # resamples
    seed: int


class PairsParams(StageParams):
    """Preference pairs from the SFT model's own mistakes."""

    prompts: int = Field(ge=1)
    spm_share: float = Field(ge=0, le=1)  # of the prompts, from rows in the served order
    samples: int = Field(ge=0)  # per prompt, at temperature
    temperature: float = Field(gt=0)
    top_p: float = Field(gt=0, le=1)
    max_new_tokens: int = Field(ge=1)
    extra_tokens: int = Field(ge=1)  # past the length of the truth at which a sample has overrun
    continue_below: float = Field(ge=0, le=1)  # probability of the end behind the truth under which the model goes on from there
    batch: int = Field(ge=1)  # prompts decoded together
    per_prompt: int = Field(ge=1)  # pairs of a prompt at most, each of another kind
    kinds: dict[Kind, float]  # the largest share of the pairs that a kind may have; 0 or absent: none of it
    tests: Literal["auto", "off"]  # auto: run the doctests of files that need only the standard library, confined, where that is possible
    min_similarity: float  # drop pairs that are easier than this (0-1)
    max_similarity: float  # drop pairs that are noise above this
    max_length_ratio: float = Field(ge=1)  # of the longer to the shorter in characters, against "shorter wins"
    seed: int


class MonitorParams(StageParams):
    """When preference training has collapsed (collapse.py)."""

    every: int = Field(ge=1)  # steps between looks at held-out completions; each healthy one is kept
    holes: int = Field(ge=0)  # of samples/valid.parquet; 0: no look
    max_new_tokens: int = Field(ge=1)  # of a completion
    patience: int = Field(ge=1)  # log events (of 5 steps) in a row that the two signs below need
    max_chosen_fall: float = Field(gt=0)  # share of its log-probability that the chosen answer may lose
    max_accuracy: float = Field(gt=0)  # of rewards; 1 switches it off
    length_ratio: tuple[float, float]  # of completions to truth, in tokens


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
    save_steps: int  # steps between checkpoints; no part of a run's identity
    monitor: MonitorParams
    seed: int
