"""Whether a step made completions better: the rule that report, gate and metrics.json share.

In:  differences of a child and its parent on the same holes, p-values adjusted for their number
Out: one word

What a user sees decides: whether the completion is the truth (exact match), how far it is from it (edit similarity), and whether it ran
past the hole (overrun). Holm's method keeps the chance that any of the three shows a difference where there is none at 5% for a step.
Loss sees smaller changes than completions do, so it is told but never decides: a step that moved it alone is called better or worse by
loss only, and a loss that contradicts what is seen does not make a better step a mixed one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from core.statistics import ALPHA, Difference
from eval.measures import BY_NAME

Verdict = Literal["better", "worse", "mixed", "better by loss only", "worse by loss only", "no visible difference"]
DECISIVE = ("exact_match", "edit_similarity", "overrun_rate")


def tells(name: str, difference: Difference, p: float | None = None) -> int:
    """1 where the child is visibly better in a metric, -1 where visibly worse, 0 where no difference shows.

    A difference that a table shows as nothing is none, and neither is one whose interval begins there: the same sums in
    another order differ by that much, and consistently enough to be told apart from nothing.

    Args:
        p: adjusted; without it the difference speaks for itself.
    """
    if not difference.n or not (difference.visible if p is None else p < ALPHA):
        return 0
    metric = BY_NAME[name]
    least = 0.5 * 10**-metric.digits / metric.scale
    nearest = abs(difference.value) if difference.p is not None else min(abs(difference.low), abs(difference.high))
    return 0 if nearest < least else metric.better * (1 if difference.value > 0 else -1)


def verdict_of(differences: Mapping[str, Difference], p: Mapping[str, float]) -> Verdict:
    """Better or worse if a metric that decides shows it and none shows the contrary."""
    signs = {tells(name, differences[name], p[name]) for name in DECISIVE} - {0}
    if len(signs) > 1:
        return "mixed"
    if signs:
        return "better" if 1 in signs else "worse"
    by_loss = tells("loss", differences["loss"])
    return "better by loss only" if by_loss > 0 else "worse by loss only" if by_loss < 0 else "no visible difference"
