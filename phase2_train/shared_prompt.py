"""Both answers of a pair in one row, so that their prompt is read once: half the work of DPO, the same sums.

In:  rows of prompt_ids, chosen_ids, rejected_ids; a causal language model
Out: a batch as trl's DPO wants it, but from the last token of the prompt on; logits for just those places

    row        | prompt | chosen | rejected | padding |
    positions    0 .. p   p .. p+c  p .. p+r             the rejected answer does not see the chosen one

trl is shown (2 B, L) ids: the last token of the prompt, then an answer; the chosen ones first. Needs an attention that takes
a mask per row (sdpa, eager).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import CausalLMOutputWithPast

ATTENTIONS = ("sdpa", "eager")  # those that take a mask per row
PADDING, PROMPT, CHOSEN, REJECTED = range(4)
OWN = ("row_ids", "row_positions", "row_parts", "row_places")  # what the model gets beside trl's tensors

Example = dict[str, list[int]]


class Collator:
    """Batches of pairs; `pad` fills rows on the right."""

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """trl's tensors (2 B, L), and the rows (B, T) that the model reads, with the places (2 B, L) of trl's tokens in them."""
        rows = [[*one["prompt_ids"], *one["chosen_ids"], *one["rejected_ids"]] for one in examples]
        prompts, chosen, rejected = ([len(one[f"{part}_ids"]) for one in examples] for part in ("prompt", "chosen", "rejected"))
        lengths = list(zip(prompts, chosen, rejected, strict=True))
        parts = [[PROMPT] * p + [CHOSEN] * c + [REJECTED] * r for p, c, r in lengths]
        positions = [[*range(p + c), *range(p, p + r)] for p, c, r in lengths]
        first = [[p - 1, *range(p, p + c)] for p, c, _ in lengths]
        second = [[p - 1, *range(p + c, p + c + r)] for p, c, r in lengths]
        answers = [[*one["prompt_ids"][-1:], *one[f"{part}_ids"]] for part in ("chosen", "rejected") for one in examples]
        return {
            "input_ids": _padded(answers, self.pad),
            "attention_mask": _padded([[1] * len(answer) for answer in answers], 0),
            "completion_mask": _padded([[0] + [1] * (len(answer) - 1) for answer in answers], 0),
            "row_ids": _padded(rows, self.pad),
            "row_positions": _padded(positions, 0),
            "row_parts": _padded(parts, PADDING),
            "row_places": _padded(first + second, 0),
        }


def _padded(rows: Sequence[list[int]], value: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def row_mask(parts: Tensor) -> Tensor:
    """(B, 1, T, T), True where a token may look: back in its own answer and to the prompt; padding sees itself, so that nothing is NaN."""
    tokens = parts.shape[1]
    causal = torch.ones(tokens, tokens, dtype=torch.bool, device=parts.device).tril()
    seen, looks = parts[:, None, :], parts[:, :, None]
    mine = (seen == PROMPT) | ((seen == looks) & (looks != PADDING))
    return ((mine & causal) | torch.eye(tokens, dtype=torch.bool, device=parts.device))[:, None]


def share_prompts(model: Any) -> None:
    """Teach a causal language model (inside a peft model) to read batches of `Collator`; others go the usual way."""
    inner = model.get_base_model()
    inner.forward = functools.partial(_forward, inner, inner.forward)


def _forward(inner: Any, usual: Any, *args: Any, **kwargs: Any) -> Any:
    if "row_ids" not in kwargs:
        return usual(*args, **kwargs)
    ids, positions, parts, places = (kwargs[name] for name in OWN)
    hidden = inner.model(input_ids=ids, attention_mask=row_mask(parts), position_ids=positions, use_cache=False).last_hidden_state
    rows = torch.arange(len(ids), device=ids.device).repeat(2)[:, None]
    return CausalLMOutputWithPast(logits=inner.lm_head(hidden[rows, places]))
