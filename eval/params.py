"""The section `evaluate` of params.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from core.params import StageParams

ModelName = Literal["base", "sft", "dpo", "merged", "q4_k_m"]


class EvaluateParams(StageParams):
    """What is asked of every model, and how sure the answer must be."""

    models: list[ModelName] = Field(min_length=1)  # in the order of the chain
    splits: list[Literal["test_file", "test_repo"]] = Field(min_length=1)
    orders: list[Literal["spm", "psm"]] = Field(min_length=1)  # the verdict is read from the first
    holes: int = Field(ge=0)  # per split; 0: all of them
    max_new_tokens: int = Field(ge=1)  # greedy decoding stops here
    batch: int = Field(ge=1)  # rows decoded together
    device: Literal["any", "cuda"]  # cuda: refuse a machine without it
    bootstrap: int = Field(ge=100)  # resamples; 10,000 holds the ends of a 95% interval to about 2% of its width
    seed: int
    gate: Literal["warn", "fail"]  # fail: exit 4 where a model that ships is visibly worse than its parent
    max_gguf_loss_points: float = Field(ge=0)  # points of exact match the quantized file may lose and still be recommended
    examples: int = Field(ge=0)  # completions shown per group in the report
