"""Onto which weights an adapter is merged: those it was trained on, rounded to NF4, or the base's own.

In:  the base's weights, an adapter, held-out rows as token ids
Out: KL divergence (nats a token) from the model as it was trained, adapter beside the weights, to each of the two merged ones

After QLoRA the trained model is the adapter on NF4 weights. Merged onto those weights it is the same function but for rounding; merged
onto the base's own weights it is another one, closer to the base. How far, this says. Three models run side by side, layer by layer: a
layer of one of them, the hidden states of all rows and some rows of the vocabulary are all that is in memory, and the divergence is exact,
over the whole vocabulary. On a GPU the rounding is done by bitsandbytes' kernels there; sums are in float32 everywhere, since the 16-bit
sums of its layers would cover what is to be measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from core.nf4 import as_trained
from core.progress import track
from phase3_quantize.architecture import Architecture
from phase3_quantize.forward import layer, normed, rotations
from phase3_quantize.lora import Delta
from phase3_quantize.weights import Weights, row_blocks

Onto = Literal["nf4", "full"]
ONTO: tuple[Onto, ...] = ("nf4", "full")
TOKENS = 1024  # that are computed together
LOGITS = 1 << 21  # elements of one block of logits: 8 MB


class HeldRow(NamedTuple):
    """Token ids of a held-out row, and where its middle begins."""

    ids: list[int]
    middle: int


class _Sums:
    """Running sums over the vocabulary of one model for each token: the largest logit, and the sum of exp(logit - largest)."""

    def __init__(self, tokens: int, device: torch.device) -> None:
        self.largest = torch.full((tokens,), -torch.inf, dtype=torch.float64, device=device)
        self.total = torch.zeros(tokens, dtype=torch.float64, device=device)

    def add(self, at: slice, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Take in logits (T, V'); return exp(logits - largest) (T, V') and what earlier sums were scaled by (T,)."""
        largest = torch.maximum(self.largest[at], logits.amax(-1).double())
        scale = torch.exp(self.largest[at] - largest)
        weights = torch.exp(logits - largest.float()[:, None])
        self.total[at] = self.total[at] * scale + weights.sum(-1).double()
        self.largest[at] = largest
        return weights, scale

    def log(self) -> Tensor:
        return self.largest + self.total.log()


def matrix(weights: Weights, name: str, rounded: bool, device: torch.device) -> Tensor:
    """A matrix in float32, rounded to NF4 and back if asked."""
    found = torch.from_numpy(weights.array(name)).to(device)
    return as_trained(found) if rounded else found


def added(delta: Delta, device: torch.device) -> Tensor:
    """What a delta adds, (out, in); peft's order of operations (tuners/lora/layer.py, get_delta_weight)."""
    return (torch.from_numpy(delta.b).to(device) @ torch.from_numpy(delta.a).to(device)) * delta.scale


class _Linear:
    """The matrices of one layer of one model."""

    def __init__(
        self,
        weights: Weights,
        prefix: str,
        model: Architecture,
        deltas: Mapping[str, Delta],
        rounded: bool,
        merged: bool,
        device: torch.device,
    ) -> None:
        self.matrices: dict[str, Tensor] = {}
        self.biases: dict[str, Tensor] = {}
        self.beside: dict[str, tuple[Tensor, Tensor, float]] = {}
        for name in model.layer_tensors():
            module, kind = name.rsplit(".", 1)
            if kind == "bias":
                self.biases[module] = torch.from_numpy(weights.array(prefix + name)).to(device)
            elif module.endswith("_proj"):
                found = matrix(weights, prefix + name, rounded, device)
                delta = deltas.get(prefix + name)
                if delta is not None and merged:
                    found = found + added(delta, device)
                elif delta is not None:
                    self.beside[module] = (torch.from_numpy(delta.a).to(device), torch.from_numpy(delta.b).to(device), delta.scale)
                self.matrices[module] = found

    def __call__(self, name: str, states: Tensor) -> Tensor:
        out = torch.nn.functional.linear(states, self.matrices[name], self.biases.get(name))
        if name in self.beside:
            a, b, scale = self.beside[name]
            out = out + (states @ a.T @ b.T) * scale
        return out


@torch.inference_mode()
def measure(
    weights: Weights, model: Architecture, deltas: Mapping[str, Delta], rows: Sequence[HeldRow], rounded: bool, device: torch.device
) -> dict[str, Any]:
    """Mean KL of both merged models from the trained one, over every next token of the rows and over those of the middles apart.

    Args:
        rounded: the adapter was trained on NF4 weights.
    """
    final = _final_states(weights, model, deltas, [row.ids[:-1] for row in rows], rounded, device)
    found = _divergences(weights, model, deltas, final, device)
    middle = torch.cat([torch.arange(len(row.ids) - 1) >= row.middle - 1 for row in rows])
    figures: dict[str, Any] = {onto: {"kl_mean": _mean(kl), "kl_middle": _mean(kl[middle])} for onto, kl in found.items()}
    return {**figures, "rows": len(rows), "tokens": len(middle), "middle_tokens": int(middle.sum())}


def _mean(divergences: Tensor) -> float:
    """To a millionth of a nat: what lies below is rounding, and not the same on every processor."""
    return round(max(float(divergences.mean()), 0.0), 6)


def _final_states(
    weights: Weights, model: Architecture, deltas: Mapping[str, Delta], rows: Sequence[list[int]], rounded: bool, device: torch.device
) -> dict[str, Tensor]:
    """Hidden states (tokens, hidden) before the output matrix: of the trained model ("trained") and of the merged ones."""
    wanted = torch.tensor(sorted({token for row in rows for token in row}))
    embedded = torch.from_numpy(weights.picked("model.embed_tokens.weight", wanted.numpy()))
    groups = _groups(rows)
    start = [torch.cat([embedded[torch.searchsorted(wanted, torch.tensor(row))] for row in group]).to(device) for group in groups]
    lengths = [[len(row) for row in group] for group in groups]
    turn = rotations(model, max(map(len, rows)), device)
    kinds = {"trained": (rounded, False), "nf4": (True, True), "full": (False, True)}
    states = {kind: list(start) for kind in kinds}
    for number in track(range(model.layers), "merge onto", unit="layers"):
        prefix = f"model.layers.{number}."
        norms = {name: torch.from_numpy(weights.array(prefix + name)).to(device) for name in model.layer_tensors() if "layernorm" in name}
        for kind, (to_nf4, merged) in kinds.items():
            linear = _Linear(weights, prefix, model, deltas, to_nf4, merged, device)
            states[kind] = [layer(model, *group, norms, linear, turn) for group in zip(states[kind], lengths, strict=True)]
    norm = torch.from_numpy(weights.array("model.norm.weight")).to(device)
    return {kind: torch.cat([normed(hidden, norm, model.rms_eps) for hidden in found]) for kind, found in states.items()}


def _groups(rows: Sequence[list[int]]) -> list[list[list[int]]]:
    """Neighbouring rows that go through a matrix together, about TOKENS tokens."""
    found: list[list[list[int]]] = []
    for row in rows:
        if not found or sum(map(len, found[-1])) + len(row) > TOKENS:
            found.append([])
        found[-1].append(row)
    return found


def _divergences(
    weights: Weights, model: Architecture, deltas: Mapping[str, Delta], final: Mapping[str, Tensor], device: torch.device
) -> dict[Onto, Tensor]:
    """KL (tokens,) from the trained model to each merged one, summed over the vocabulary block by block.

    With p and q as softmax of the logits a and b: KL = sum p (a - b) - log sum exp a + log sum exp b. The output matrix is never rounded,
    so that it is the same in all three.
    """
    output = "model.embed_tokens.weight" if model.tied else "lm_head.weight"
    tokens = len(final["trained"])
    sums = {kind: _Sums(tokens, device) for kind in final}
    difference = {onto: torch.zeros(tokens, dtype=torch.float64, device=device) for onto in ONTO}
    blocks = list(row_blocks((model.vocab, 1), LOGITS // min(TOKENS, tokens)))
    for first, last in track(blocks, "divergence", unit="blocks"):
        vectors = torch.from_numpy(weights.array(output, first, last)).to(device)
        if output in deltas:
            vectors = vectors + added(deltas[output]._replace(b=deltas[output].b[first:last]), device)
        for begin in range(0, tokens, TOKENS):
            at = slice(begin, begin + TOKENS)
            logits = final["trained"][at] @ vectors.T
            likely, scale = sums["trained"].add(at, logits)
            for onto in ONTO:
                other = final[onto][at] @ vectors.T
                sums[onto].add(at, other)
                difference[onto][at] = difference[onto][at] * scale + (likely * (logits - other)).sum(-1).double()
    trained = sums["trained"]
    return {onto: (difference[onto] / trained.total - trained.log() + sums[onto].log()).cpu() for onto in ONTO}
