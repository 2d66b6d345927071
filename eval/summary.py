"""Rows turned into figures: every model by scope, every step against its parent, and what follows from it.

In:  rows.ROW of every model
Out: Summary: cells with 95% intervals, steps with paired differences and a verdict, the flat metrics of metrics.json
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from core.records import Row
from core.statistics import Difference, Interval, difference_of_rates, difference_of_ratios, holm, p_of_ratio, ratio, wilson
from eval.measures import BY_NAME, METRICS, RATES, Metric
from eval.models import Model
from eval.params import EvaluateParams
from eval.verdict import DECISIVE, Verdict, verdict_of

COMPARED = ("exact_match", "first_line_match", "edit_similarity", "loss", "parse_rate", "ended_rate", "overrun_rate", "suffix_repeat_rate")
TOLD = (*DECISIVE, "loss")  # in metrics.json for every step and kind of span


class Draws(Protocol):
    """How bootstraps are drawn."""

    @property
    def bootstrap(self) -> int: ...
    @property
    def seed(self) -> int: ...


class Scope(NamedTuple):
    """A part of the rows: one order, one split or all, one kind of span or all."""

    order: str
    split: str = "all"
    span: str = "all"

    def holds(self, row: Row) -> bool:
        """Whether the row belongs to it."""
        return row["order"] == self.order and self.split in ("all", row["split"]) and self.span in ("all", span_family(row["span_kind"]))


class Step(NamedTuple):
    """A model against the one it came from, on the same holes."""

    child: str
    parent: str
    scope: Scope
    differences: dict[str, Difference]
    p: dict[str, float]  # of the metrics that decide, adjusted for their number
    verdict: Verdict


class Summary(NamedTuple):
    """All figures of one evaluation."""

    models: list[str]
    scopes: list[Scope]
    cells: dict[tuple[str, Scope], dict[str, Interval]]
    steps: list[Step]
    leaks: dict[str, Counter[str]]  # model -> kind -> spans
    files: int  # that the holes come from
    repos: int

    @property
    def way(self) -> list[str]:
        """The last model and those it came from, last first: what ships. A step that its gate refused is not on it."""
        parents = {step.child: step.parent for step in reversed(self.steps) if step.scope == self.scopes[0]}  # a model's own stands first
        found = [self.models[-1]]
        while found[-1] in parents:
            found.append(parents[found[-1]])
        return found

    def step(self, child: str, parent: str | None = None, scope: Scope | None = None) -> Step | None:
        """The comparison of a model (with its parent, in the first scope, unless told otherwise)."""
        wanted = scope or self.scopes[0]
        return next((s for s in self.steps if s.child == child and s.scope == wanted and parent in (None, s.parent)), None)


def span_family(kind: str) -> str:
    """`node:Call` -> `node`."""
    return kind.split(":")[0]


def values(row: Row, metric: Metric) -> float | None:
    """What a row adds to a metric; None where it cannot be judged."""
    if metric.column == "ended":
        return float(row["stop"] != "limit")
    found = row[metric.column]
    return None if found is None else float(found)


def measure(rows: Sequence[Row], metric: Metric, params: Draws) -> Interval:
    """One metric over some rows: Wilson's interval for a rate, a bootstrap over files else (unscaled)."""
    judged = [(value, row) for row in rows if (value := values(row, metric)) is not None]
    if metric.column in RATES:
        return wilson(int(sum(value for value, _ in judged)), len(judged))
    under = [float(row[metric.per]) if metric.per else 1.0 for _, row in judged]
    return ratio([value for value, _ in judged], under, [row["file_id"] for _, row in judged], params.bootstrap, params.seed)


def compare(child: Sequence[Row], parent: Sequence[Row], metric: Metric, params: Draws) -> Difference:
    """Child minus parent in one metric (unscaled); both hold the same holes in the same order.

    Raises:
        ValueError: they do not.
    """
    if [(row["sample_id"], row["order"]) for row in child] != [(row["sample_id"], row["order"]) for row in parent]:
        raise ValueError("the rows are not of the same holes")
    both = [(a, b, row) for row, other in zip(child, parent, strict=True) if (a := values(row, metric)) is not None
            and (b := values(other, metric)) is not None]  # fmt: skip
    if metric.column in RATES:
        return difference_of_rates([a > 0 for a, _, _ in both], [b > 0 for _, b, _ in both])
    under = [float(row[metric.per]) if metric.per else 1.0 for _, _, row in both]
    files = [row["file_id"] for _, _, row in both]
    return difference_of_ratios([a for a, _, _ in both], [b for _, b, _ in both], under, files, params.bootstrap, params.seed)


def p_of(child: Sequence[Row], parent: Sequence[Row], found: Difference, metric: Metric, params: Draws) -> float:
    """p-value that two models do not differ in a metric: McNemar's for a rate, else the bootstrap's."""
    if found.p is not None:
        return found.p
    gap = [(values(row, metric) or 0.0) - (values(other, metric) or 0.0) for row, other in zip(child, parent, strict=True)]
    return p_of_ratio(gap, [1.0] * len(gap), [row["file_id"] for row in child], params.bootstrap, params.seed)


def scopes_of(rows: Sequence[Row], params: EvaluateParams) -> list[Scope]:
    """All splits together first, then each split, then each kind of span; the first order of the params leads."""
    spans = sorted({span_family(row["span_kind"]) for row in rows})
    return [
        *(Scope(order) for order in params.orders),
        *(Scope(order, split) for split in params.splits for order in params.orders),
        *(Scope(order, "all", span) for span in spans for order in params.orders),
    ]


def summarize(chain: Sequence[Model], rows: dict[str, list[Row]], params: EvaluateParams) -> Summary:
    """All figures. Steps are parent to child along the chain, and last the whole way from the first model to the last."""
    any_rows = rows[chain[0].name]
    scopes = scopes_of(any_rows, params)
    cells, steps = {}, []
    pairs = [(model.name, model.parent) for model in chain if model.parent]
    if len(chain) > 2 and (chain[-1].name, chain[0].name) not in pairs:
        pairs.append((chain[-1].name, chain[0].name))
    for scope in scopes:
        inside = {name: [row for row in rows[name] if scope.holds(row)] for name in rows}
        for name, some in inside.items():
            cells[name, scope] = {metric.name: measure(some, metric, params) for metric in METRICS}
        for child, parent in pairs:
            found = {name: compare(inside[child], inside[parent], BY_NAME[name], params) for name in COMPARED}
            p = holm({name: p_of(inside[child], inside[parent], found[name], BY_NAME[name], params) for name in DECISIVE})
            steps.append(Step(child, parent, scope, found, p, verdict_of(found, p)))
    return Summary(
        [model.name for model in chain],
        scopes,
        cells,
        steps,
        {name: Counter(kind for row in some for kind in row["leaks"]) for name, some in rows.items()},
        len({row["file_id"] for row in any_rows}),
        len({row["repo"] for row in any_rows}),
    )


def flat(summary: Summary) -> dict[str, float | int | str | None]:
    """metrics.json: `model.split.order.metric`, `model.span.kind.order.metric`, `step.child_vs_parent.order.metric.*`."""
    found: dict[str, float | int | str | None] = {}
    for (model, scope), cell in summary.cells.items():
        where = f"{scope.split}.{scope.order}" if scope.span == "all" else f"span.{scope.span}.{scope.order}"
        for name, interval in cell.items():
            if scope.span == "all" or name in TOLD:
                found[f"{model}.{where}.{name}"] = _number(interval.value * _unit(name))
        found[f"{model}.{where}.n"] = cell["exact_match"].n
        if scope.span == "all":
            found[f"{model}.{where}.parse_rate_n"] = cell["parse_rate"].n
    for step in summary.steps:
        if step.scope.split == "all" and step.scope.span == "all":
            leading = f"step.{step.child}_vs_{step.parent}.{step.scope.order}"
            found[f"{leading}.verdict"] = step.verdict
            for name in TOLD:
                d, where = step.differences[name], f"{leading}.{name}"
                found |= {f"{where}.{end}": _number(getattr(d, end) * _unit(name)) for end in ("value", "low", "high")}
                if name in step.p:
                    found[f"{where}.p_adjusted"] = _number(step.p[name])
    for model, kinds in summary.leaks.items():
        found[f"{model}.leaks"] = sum(kinds.values())
    return found


def _unit(name: str) -> float:
    """Rates stay between 0 and 1 in metrics.json; only bits per byte are converted."""
    return BY_NAME[name].scale if name == "bits_per_byte" else 1.0


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
