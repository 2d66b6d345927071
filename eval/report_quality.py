"""Quality in tables and charts: every model, every step, every part of the holes.

In:  Summary
Out: blocks
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from core.statistics import Interval
from eval.document import Block, Chart, Folded, Heading, Mark, Table, Text
from eval.measures import BY_NAME, Metric
from eval.report_words import DASH, NAMES, number, order_name, p_value, with_range
from eval.summary import COMPARED, Scope, Summary
from eval.verdict import DECISIVE, tells

QUALITY = ("exact_match", "first_line_match", "edit_similarity", "loss", "bits_per_byte")
BEHAVIOUR = ("exact_match_stripped", "parse_rate", "ended_rate", "overrun_rate", "suffix_repeat_rate")


def quality(summary: Summary) -> Iterator[Block]:
    """Charts and tables of every model in the leading scope."""
    leading = summary.scopes[0]
    yield Heading("Quality")
    for name in ("exact_match", "loss"):
        yield chart(summary, name)
    n = summary.cells[summary.models[0], leading]["exact_match"].n
    yield Text(
        f"{order_name(leading.order)} prompts, all splits, {n:,} holes each ({summary.files:,} files, {summary.repos:,} repositories)."
    )
    yield models_table(summary, leading, QUALITY)
    yield Heading("Behaviour", 3)
    judged = summary.cells[summary.models[0], leading]["parse_rate"].n
    yield Text(
        f"Whether the code still parses is judged on {judged:,} holes, where the window with the truth in it does. "
        "Ran past the hole: wrote the truth and went on, or wrote again what stands after it."
    )
    yield models_table(summary, leading, BEHAVIOUR)


def chart(summary: Summary, name: str) -> Chart:
    """One metric of every model, an interval per order."""
    metric = BY_NAME[name]
    orders = [scope for scope in summary.scopes if scope.split == "all" and scope.span == "all"]
    rows = []
    for model in summary.models:
        cells = [(order_name(scope.order), summary.cells[model, scope][name]) for scope in orders]
        marks = [_mark(order, cell, metric) for order, cell in cells]
        rows.append((NAMES[model], marks))
    better = "Right is better." if metric.better > 0 else "Left is better."
    return Chart(metric.label.capitalize(), rows, f"Dots are values, bars their 95% intervals. {better}")


def _mark(order: str, cell: Interval, metric: Metric) -> Mark:
    value, low, high = (part * metric.scale for part in (cell.value, cell.low, cell.high))
    return Mark(order, value, low, high, f"{number(cell.value, metric)}{metric.unit}")


def models_table(summary: Summary, scope: Scope, names: Sequence[str]) -> Table:
    """Models by metrics in one scope."""
    head = ["", *(f"{BY_NAME[name].label}{', %' if BY_NAME[name].unit else ''}" for name in names)]
    rows = [[NAMES[m], *(with_range(summary.cells[m, scope][name], BY_NAME[name]) for name in names)] for m in summary.models]
    return Table(head, rows)


def steps_table(summary: Summary) -> Iterator[Block]:
    """Every step against its parent, all compared metrics, in every order."""
    yield Heading("Each step against the one before")
    for scope in (scope for scope in summary.scopes if scope.split == "all" and scope.span == "all"):
        rows = []
        for step in (step for step in summary.steps if step.scope == scope):
            for name in COMPARED:
                metric, d = BY_NAME[name], step.differences[name]
                if not d.n:
                    continue
                moved = f"+{d.gained} −{d.lost}" if d.gained is not None else DASH
                good = {1: "better", -1: "worse"}.get(tells(name, d, step.p.get(name)), "")
                label = f"{NAMES[step.parent]} → {NAMES[step.child]}"
                decides = f"{p_value(step.p[name])}" if name in DECISIVE else ""
                visible = number(d.smallest_visible, metric)
                rows.append([label, metric.label, with_range(d, metric, True), moved, p_value(d.p), decides, visible, f"{d.n:,}", good])
        head = ["step", "metric", "difference", "holes", "McNemar p", "Holm p", "smallest visible", "n", ""]
        table, title = Table(head, rows, words=(1, 8)), f"{order_name(scope.order)} prompts"
        if scope == summary.scopes[0]:
            yield Heading(title, 3)
            yield table
        else:
            yield Folded(title, table)
    yield Text(
        "Differences of rates are in points of percent. Those with a Holm p decide the verdict and are called better or worse where it is "
        "under 0.05; the others where McNemar's exact test has p < 0.05 (rates) or the bootstrap interval leaves out 0 (means, drawn by "
        "file), one by one, so that about one in twenty shows something by chance. What rounds to nothing is nothing."
    )


def parts(summary: Summary) -> Iterator[Block]:
    """By split, order and kind of span."""
    yield Heading("By split, order and span")
    names = ("exact_match", "edit_similarity", "overrun_rate", "loss")
    rows = []
    for scope in (scope for scope in summary.scopes if scope.span == "all" and scope.split != "all"):
        for model in summary.models:
            cell = summary.cells[model, scope]
            values = [with_range(cell[name], BY_NAME[name]) for name in names]
            rows.append([NAMES[model], scope.split, order_name(scope.order), *values, f"{cell['exact_match'].n:,}"])
    yield Table(["", "split", "order", "exact match, %", "edit similarity", "ran past the hole, %", "loss", "n"], rows, words=(1, 2))
    leading = summary.scopes[0].order
    yield Heading(f"Exact match by kind of span, {order_name(leading)}", 3)
    spans = [scope for scope in summary.scopes if scope.span != "all" and scope.order == leading]
    head = ["", *(f"{scope.span}, n {summary.cells[summary.models[0], scope]['exact_match'].n:,}" for scope in spans)]
    metric = BY_NAME["exact_match"]
    yield Table(
        head, [[NAMES[m], *(with_range(summary.cells[m, scope]["exact_match"], metric) for scope in spans)] for m in summary.models]
    )
