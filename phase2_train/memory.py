"""Memory of a training step: estimated before it, and what is done when it was not enough.

In:  a model's config.json, the batch, the GPU memory that is free
Out: whether activations are recomputed (gradient checkpointing); one retry at half the rows per pass and twice the passes

The estimate, in bytes, for a frozen base under LoRA in 16-bit autocast, `h` hidden, `f` ffn, `k` the width of keys, `r` the rank:

    weights       2 per parameter; 0.52 per parameter of the layers' matrices in NF4 (4 bits, scales quantized again: QLoRA, 2305.14314)
    adapter       16 per trainable parameter: weight, gradient and Adam's two moments in float32
    activations   tokens * layers * (28 h + 8 f + 12 k + 14 r): what autograd keeps of a layer, counted with saved_tensors_hooks;
                  recomputed: tokens * (layers * 4 h) and one layer whole
    head          SFT: chunks of 256 labels (trl's chunked_nll), 16 per logit; DPO: every position of chosen and rejected, 10 per logit
    slack         15% for fragments and kernels' workspaces
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from accelerate.utils.memory import should_reduce_batch_size

from core.errors import MachineError
from phase2_train.machine import Choice, Machine, rows_per_step

Result = TypeVar("Result")
NF4_BYTES = 0.52
HEAD_CHUNK = 256  # labels, trl's default
SLACK = 1.15


class Estimate(NamedTuple):
    """Bytes that a step takes."""

    weights: float
    adapter: float
    activations: float
    recomputed: float  # activations under gradient checkpointing
    head: float

    @property
    def whole(self) -> float:
        """All of it, activations kept."""
        return SLACK * (self.weights + self.adapter + self.activations + self.head)


def matrices(config: Mapping[str, Any]) -> list[tuple[int, int]]:
    """(out, in) of the seven matrices of one layer."""
    h, f = config["hidden_size"], config["intermediate_size"]
    k = h // config["num_attention_heads"] * config["num_key_value_heads"]
    return [(h, h), (k, h), (k, h), (h, h), (f, h), (f, h), (h, f)]


def parameters(config: Mapping[str, Any]) -> tuple[int, int]:
    """Parameters of the layers' matrices, and of the embedding (and output, where it is not tied)."""
    layers = int(config["num_hidden_layers"]) * sum(out * inside for out, inside in matrices(config))
    copies = 1 if config.get("tie_word_embeddings", False) else 2
    return layers, copies * int(config["vocab_size"]) * int(config["hidden_size"])


def estimate(config: Mapping[str, Any], bits: int, rank: int, tokens: int, task: Literal["sft", "dpo"] = "sft") -> Estimate:
    """What a step takes on a GPU.

    Args:
        config: config.json of a Qwen2 model.
        tokens: of a forward pass, padding included; DPO passes chosen and rejected, so twice those of its rows.
    """
    h, f, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    k = h // config["num_attention_heads"] * config["num_key_value_heads"]
    linear, embedding = parameters(config)
    layer = tokens * (28 * h + 8 * f + 12 * k + 14 * rank)
    logits = 16 * HEAD_CHUNK if task == "sft" else 10 * tokens
    return Estimate(
        weights=linear * (NF4_BYTES if bits == 4 else 2) + embedding * 2,
        adapter=16 * layers * rank * sum(out + inside for out, inside in matrices(config)),
        activations=layers * layer,
        recomputed=layers * tokens * 4 * h + layer,
        head=logits * config["vocab_size"],
    )


def checkpointing(chosen: Machine, needed: Estimate) -> Choice:
    """Recompute activations (a third more arithmetic) only where they would not fit."""
    if chosen.device == "cpu":
        return Choice("off", "no GPU whose memory could run out")
    said = f"a step is estimated at {needed.whole / 1e9:.1f} GB and {chosen.free_bytes / 1e9:.1f} GB are free"
    return Choice("on" if needed.whole > chosen.free_bytes else "off", said)


def plan(
    chosen: Machine,
    config: Mapping[str, Any],
    bits: int,
    rank: int,
    batch: int,
    accumulate: int,
    row_tokens: int,
    task: Literal["sft", "dpo"] = "sft",
) -> dict[str, Choice]:
    """The machine's choices and those that depend on the model and the batch; `row_tokens` is the longest row."""
    needed = estimate(config, bits, rank, batch * row_tokens * (2 if task == "dpo" else 1), task)
    return chosen.choices | {"rows per step": rows_per_step(batch, accumulate, chosen), "checkpointing": checkpointing(chosen, needed)}


def halved_if_needed(
    train: Callable[[int, int], Result], batch: int, accumulate: int, section: str, processes: int = 1
) -> tuple[Result, Choice | None]:
    """Run `train(batch, accumulate)`; out of memory, run it once more with half the rows per pass and twice the passes.

    The rows of a step, and so what is learned, stay the same. `train` must make its model and trainer itself: what the
    first attempt held is freed before the second.

    Returns:
        what `train` returned, and the retry, None where there was none.

    Raises:
        MachineError: a second time out of memory, a batch that has no half, or several processes (one alone cannot go back).
    """
    try:
        return train(batch, accumulate), None
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        refuse_to_halve(batch, section, processes)
    _free()  # outside of `except`: the traceback held the model
    half, twice = batch // 2, accumulate * 2
    print(f"{section}: out of memory at {batch} rows x {accumulate} passes; once more at {half} x {twice}, the same step", flush=True)
    try:
        return train(half, twice), Choice(f"{half} x {twice}", f"out of memory at {batch} x {accumulate}")
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
    raise MachineError(
        f"out of memory at {section}.batch {batch} and at {half}: set {section}.batch to {max(1, half // 2)} and multiply "
        f"{section}.accumulate by as much, or shorten samples.row_tokens"
    )


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is torch's or the CPU allocator's way to say so."""
    return isinstance(error, torch.OutOfMemoryError) or (isinstance(error, Exception) and should_reduce_batch_size(error))


def refuse_to_halve(batch: int, section: str, processes: int) -> None:
    """Name what stands in the way of a half.

    Raises:
        MachineError: batch 1, an odd batch, or several processes.
    """
    if batch == 1:
        raise MachineError(f"out of memory with one row at a time: shorten samples.row_tokens, or set {section}.bits to 4") from None
    if batch % 2:
        raise MachineError(
            f"out of memory at {section}.batch {batch}, which has no half: set it to {batch - 1} or less, and {section}.accumulate to match"
        ) from None
    if processes > 1:
        raise MachineError(
            f"out of memory in one of {processes} processes: set {section}.batch to {batch // 2} and double {section}.accumulate"
        ) from None


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
