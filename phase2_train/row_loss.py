"""Loss of a model on rows, row by row, so that it can be summed by kind of hole, by order, or by file.

In:  a model (with or without adapter), rows of token ids
Out: nats and tokens of every row, in the order given
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from core.fim import FimTokens
from phase2_train.rows import TokenRow

LOGITS = 2048  # positions whose logits are held at a time: 1.2 GB in float32 at Qwen's 151,936 entries


class Loss(NamedTuple):
    """Sum of a row's losses in nats, over how many tokens."""

    nats: float
    tokens: int


@torch.no_grad()
def row_losses(model: Any, rows: Sequence[TokenRow], tokens: FimTokens, batch: int, whole: bool = False) -> list[Loss]:
    """Loss on each row's middle and end token, or, where `whole`, on all text of its own file without the markers.

    Rows of like length share a batch (B, T), padded on the right; logits are made only where there is a target.
    """
    was_training = model.training
    model.eval()
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    device = next(core.parameters()).device
    by_length = sorted(range(len(rows)), key=lambda index: (len(rows[index].ids), index))
    losses = [Loss(0.0, 0)] * len(rows)
    for at in range(0, len(rows), batch):
        chosen = by_length[at : at + batch]
        ids = torch.full((len(chosen), max(len(rows[index].ids) for index in chosen)), tokens.pad)
        target = torch.zeros_like(ids, dtype=torch.bool)
        for place, index in enumerate(chosen):
            row = rows[index]
            ids[place, : len(row.ids)] = torch.tensor(row.ids)
            own = row.ids.index(tokens.prefix) if tokens.prefix in row.ids else 0  # before it: context from other files
            target[place, own if whole else row.start : len(row.ids)] = True
        target[:, 0] = False  # nothing comes before it
        if whole:
            target &= ~torch.isin(ids, torch.tensor(tokens))
        sums = _summed(core, ids.to(device), target.to(device), device.type)
        for place, index in enumerate(chosen):
            losses[index] = Loss(sums[place], int(target[place].sum()))
    model.train(was_training)
    return losses


def _summed(core: Any, ids: torch.Tensor, target: torch.Tensor, device: str) -> list[float]:
    half = torch.bfloat16 if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    with torch.autocast(device, half, enabled=device == "cuda"):
        hidden = core.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).last_hidden_state
        row, place = target.nonzero(as_tuple=True)
        sums = torch.zeros(len(ids), dtype=torch.float64, device=ids.device)
        for part in torch.arange(len(row), device=ids.device).split(LOGITS):
            logits = core.get_output_embeddings()(hidden[row[part], place[part] - 1])
            sums.index_add_(0, row[part], F.cross_entropy(logits.float(), ids[row[part], place[part]], reduction="none").double())
    return sums.tolist()


def breakdown(rows: Sequence[TokenRow], losses: Sequence[Loss], prefix: str) -> dict[str, float]:
    """Mean loss in nats per token: `<prefix>loss` over all, then `<prefix>loss_<order>` and `<prefix>loss_<kind of hole>`.

    A row in plain left-to-right order has no hole and counts by its order only.
    """
    parts: dict[str, list[Loss]] = {}
    for row, loss in zip(rows, losses, strict=True):
        kind = row.span_kind.partition(":")[0]
        for name in {"loss", f"loss_{row.order}"} | ({f"loss_{kind}"} if row.order != "ltr" else set()):
            parts.setdefault(name, []).append(loss)
    return {f"{prefix}{name}": mean(parts[name]) for name in sorted(parts)}


def mean(losses: Sequence[Loss]) -> float:
    """Mean over tokens, in nats."""
    return sum(loss.nats for loss in losses) / max(1, sum(loss.tokens for loss in losses))


def differences(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """`loss 2.488 -> 2.241, loss_spm ...` for the keys both have."""
    return ", ".join(f"{key.removeprefix('eval_')} {before[key]:.3f} -> {after[key]:.3f}" for key in after if key in before)
