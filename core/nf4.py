"""What NF4 makes of a weight: the numbers that a QLoRA adapter was trained on, as plain matrices.

In:  a weight, or a causal language model in float32
Out: the same rounded to NF4 and back

bitsandbytes' own layers give other sums on other processors: where a CPU has AVX512-BF16, their evaluation (not their
training) runs in bfloat16. Rounded once and kept in float32, the model is the one that training saw, on every CPU.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn


def as_trained(tensor: Tensor) -> Tensor:
    """A matrix as QLoRA's forward pass sees it: NF4 in blocks of 64 with double quantization (bitsandbytes), dequantized."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it advises to fetch a kernel that is not wanted here
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(tensor, quant_type="nf4", compress_statistics=True)
    return dequantize_4bit(packed, state).to(torch.float32)


@torch.no_grad()
def round_layers(model: nn.Module) -> None:
    """Round every matrix that `BitsAndBytesConfig(load_in_4bit=True)` rounds: the linear layers, but for the one to the vocabulary."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and not name.endswith("lm_head"):
            module.weight.copy_(as_trained(module.weight))
