"""Muon with all matrices of one shape updated at once.

In:  2-d parameters with gradients
Out: the parameters moved along the orthogonalized momentum (Jordan et al. 2024)

torch.optim.Muon makes fifteen small products per matrix, a third of a step of the small base on two cores. Stacked by
shape the same numbers are a few large ones; a test holds the two together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)  # a p + b p^3 + c p^5 drives singular values to about 1; Jordan et al. 2024
ITERATIONS = 5


def orthogonal(stack: Tensor) -> Tensor:
    """Nearest semi-orthogonal matrices of (N, rows, columns), by five Newton-Schulz iterations in bfloat16."""
    a, b, c = QUINTIC
    wide = stack.bfloat16() if stack.shape[1] <= stack.shape[2] else stack.bfloat16().mT
    wide = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = wide @ wide.mT
        wide = torch.baddbmm(wide, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return (wide if stack.shape[1] <= stack.shape[2] else wide.mT).to(stack.dtype)


class Muon(torch.optim.Optimizer):
    """Args as torch.optim.Muon: `lr` is multiplied by sqrt(max(1, rows / columns)), weight decay is decoupled."""

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for (rows, columns), alike in by_shape.items():
                step = orthogonal(torch.stack([self._direction(parameter, group["momentum"]) for parameter in alike]))
                for parameter, delta in zip(alike, step, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(delta, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)

    def _direction(self, parameter: Tensor, momentum: float) -> Tensor:
        """Nesterov momentum of the gradient."""
        assert parameter.grad is not None
        average = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
        average.lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(average, momentum)
