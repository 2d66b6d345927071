"""The sections of params.yaml that phase 3 reads; every value stands in the file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from core.params import StageParams

# llama.cpp's types that need no importance matrix, largest first (`llama-quantize --help` describes each), and our own mixes (mix.py)
QuantType = Literal[
    "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "IQ4_NL", "IQ4_XS", "Q4_1", "Q4_0",
    "Q3_K_L", "Q3_K_M", "Q3_K_S", "MIX32_M", "MIX32_S",
]  # fmt: skip
OutType = Literal["f32", "f16", "bf16"]  # of the GGUF before quantization


class MergeParams(StageParams):
    """Which adapter goes into the base."""

    adapter: Literal["shipped", "dpo", "sft", "none"]  # shipped: what the gate after DPO let through; none: the base as it is
    onto: Literal["measured", "nf4", "full"]  # the base's weights as a 4-bit adapter was trained on them, as they were, or the closer
    rows: int = Field(ge=1)  # held-out rows that `measured` asks


class QuantizeParams(StageParams):
    """How small, and how much is checked."""

    type: QuantType
    imatrix: bool  # weigh the columns by their importance
    imatrix_rows: int = Field(ge=1)  # training rows that the importance is measured on
    threads: int = Field(ge=1)
    verify_prompts: int = Field(ge=1)  # held-out holes; each is asked in both orders
    verify_tokens: int = Field(ge=1)  # greedy tokens compared between the merged model and its f32 GGUF
    stop_tokens: int = Field(ge=1)  # the quantized model should have stopped by itself after so many
    min_stop_share: float = Field(ge=0, le=1)  # of the prompts; fewer fail the check


class ChooseParams(StageParams):
    """Which quantizations are compared, and on how much."""

    types: list[QuantType] = Field(min_length=1)  # each with and without importance weights; Q4_K_M, the default, is always among them
    holes: int = Field(ge=1)  # held-out holes of the valid split that are read for KL and exact match
    rounds: int = Field(ge=1)  # times each file is timed
    threads: int = Field(ge=1)
