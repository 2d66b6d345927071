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
    other_holes: int = Field(ge=0)  # of these, in the orders after the first, which the verdict does not look at; 0: all of them
    max_new_tokens: int = Field(ge=1)  # greedy decoding stops here
    batch: int = Field(ge=1)  # rows decoded together
    device: Literal["any", "cuda"]  # cuda: refuse a machine without it
    bootstrap: int = Field(ge=100)  # resamples; 10,000 holds the ends of a 95% interval to about 2% of its width
    seed: int
    gate: Literal["warn", "fail"]  # fail: exit 4 where a model that ships is visibly worse than its parent
    max_gguf_loss_points: float = Field(ge=0)  # points of exact match the quantized file may lose and still be recommended
    examples: int = Field(ge=0)  # best and worst completions shown in the report
    leakage_prompts: int = Field(ge=0)  # places where something was masked, asked of the last model
    leakage_tries: int = Field(ge=0)  # sampled completions of each beside the greedy one
    leakage_tokens: int = Field(ge=1)  # of each completion
    leakage_values: int = Field(ge=1)  # of the same shape, among which a canary's value is ranked
