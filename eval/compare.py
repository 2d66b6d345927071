"""Two runs side by side: what was set differently, every model's figures, and whether they differ on the holes that both were asked.

In:  two run folders (eval.kept)
Out: compare.html; the same as Markdown

Rows are paired by sample and order: a sample's id is a hash of its text, so equal ids are equal holes. Where no hole is common, the
figures of both runs stand beside each other with the interval of their difference for independent samples, and no verdict is given.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import InputError
from core.records import Row, write_text
from core.statistics import Difference, Interval, holm
from eval import page
from eval.document import Block, Heading, StepRow, Table, Text, markdown
from eval.kept import Kept, read_run
from eval.measures import BY_NAME, Metric
from eval.report_verdict import TONES
from eval.report_words import DASH, NAMES, figure, number, order_name, p_value, shown, with_range
from eval.summary import COMPARED, compare, measure, p_of
from eval.verdict import DECISIVE, tells, verdict_of

SHOWN = (*COMPARED, "bits_per_byte")
FIGURES = [  # of other phases: label, file, keys, digits, factor
    ("quantized file, MB", "quantize", ("quantized", "bytes"), 1, 1e-6),
    ("bits per weight", "quantize", ("quantized", "bits_per_weight"), 2, 1),
    ("KL of the quantized file, mean", "quantize", ("verify", "quantization", "kl_mean"), 4, 1),
    ("first token, p50 ms", "serve", ("first_token_ms", "gateway_warm", "p50"), 1, 1),
    ("first token, p95 ms", "serve", ("first_token_ms", "gateway_warm", "p95"), 1, 1),
    ("written, tokens/s", "serve", ("generated_per_second", "gateway"), 0, 1),
    ("training rows", "data_card", ("splits", "train", "rows"), 0, 1),
    ("prompts with a secret-shaped string, at redactions", "leakage", ("redactions", "prompts_with_secret"), 0, 1),
    ("canaries given away", "leakage", ("canaries", "reproduced"), 0, 1),
]


class Draws(NamedTuple):
    """How bootstraps are drawn, from the first run's params."""

    bootstrap: int
    seed: int


class Pair(NamedTuple):
    """One model's rows in one order, of both runs; `common` holds those of the same holes, in one order."""

    model: str
    order: str
    a: list[Row]
    b: list[Row]
    common: tuple[list[Row], list[Row]]
    refused: dict[str, str]  # metric -> why it is not compared


def pairs(a: Kept, b: Kept) -> Iterator[Pair]:
    """Every model and order that both runs have."""
    for model in (model for model in a.rows if model in b.rows):
        for order in (order for order in _orders(a) if order in _orders(b)):
            left, right = ([row for row in run.rows[model] if row["order"] == order] for run in (a, b))
            others = {row["sample_id"]: row for row in right}
            both = [(row, others[row["sample_id"]]) for row in left if row["sample_id"] in others]
            refused = {}
            if any(one["n_tokens"] != other["n_tokens"] for one, other in both):
                refused["loss"] = "the runs cut the same truth into different tokens; bits per byte is compared"
            if any(one["n_bytes"] != other["n_bytes"] for one, other in both):
                raise InputError(f"{a.name} and {b.name} call different holes by the same id: one of them is damaged or of another version")
            yield Pair(model, order, left, right, ([one for one, _ in both], [other for _, other in both]), refused)


def _orders(run: Kept) -> list[str]:
    return [str(order) for order in run.manifest["params"]["evaluate"]["orders"]]


def independent(a: Interval, b: Interval) -> tuple[float, float, float]:
    """b - a of different holes with its 95% interval, from the intervals of both (Newcombe 1998, method 10; Zou and Donner 2008)."""
    gap = b.value - a.value
    return (
        gap,
        gap - math.hypot(b.value - b.low, a.high - a.value),
        gap + math.hypot(b.high - b.value, a.value - a.low),
    )


def flattened(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Plain values of nested mappings by dotted key; lists as they stand."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flattened(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, json.dumps(value, ensure_ascii=False)


def settings(run: Kept, stages: Sequence[str]) -> dict[str, str]:
    """What shaped some stages of a run and its evaluation, by name: params, hashes of inputs and models, versions."""
    found: dict[str, str] = {}
    for stage in [*(run.stages[name] for name in stages), run.manifest]:
        found |= {f"params.{key}": value for key, value in flattened(stage.get("params") or {})}
        found |= {f"sha256 of {key}": str(value)[:16] for key, value in (stage.get("inputs") or {}).items()}
        found |= {f"version of {key}": str(value) for key, value in (stage.get("versions") or {}).items()}
    return found | {f"weights of {one['name']}": str(one.get("sha256"))[:16] for one in run.manifest["counts"]["models"]}


def differing(a: Kept, b: Kept) -> Iterator[Block]:
    """What was set or given differently."""
    yield Heading("What differs")
    both = sorted({*a.stages} & {*b.stages})
    left, right = settings(a, both), settings(b, both)
    keys = [key for key in sorted({*left, *right}) if left.get(key) != right.get(key)]
    if keys:
        yield Table(["", a.name, b.name], [[key, left.get(key, DASH), right.get(key, DASH)] for key in keys], words=(1, 2))
    else:
        yield Text("Nothing: the same params, inputs, models and versions.")
    yield Text(f"{len({*left, *right}) - len(keys):,} other settings, hashes and versions are equal.")
    for run, other in ((a, b), (b, a)):
        if alone := sorted({*run.stages} - {*other.stages}):
            yield Text(f"{run.name} alone has what these stages noted: {', '.join(alone)}.")


def verdicts(found: Sequence[Pair], draws: Draws) -> Iterator[StepRow]:
    """B against A for every model in the leading order."""
    for pair in (pair for pair in found if pair.order == found[0].order):
        name = NAMES.get(pair.model, pair.model)
        if not pair.common[0]:
            yield StepRow(name, "B against A", "not compared", "even", [("exact match", DASH), ("ran past the hole", DASH)])
            continue
        differences, p = paired(pair, draws)
        word = verdict_of(differences, p)
        changes = [(BY_NAME[key].label, with_range(differences[key], BY_NAME[key], True)) for key in ("exact_match", "overrun_rate")]
        yield StepRow(name, f"B against A, {len(pair.common[0]):,} common holes", word, TONES.get(word, "even"), changes)


def paired(pair: Pair, draws: Draws) -> tuple[dict[str, Difference], dict[str, float]]:
    """B minus A on the common holes, and Holm's p of the metrics that decide; bits per byte stands in for a loss that is refused."""
    before, after = pair.common
    found = {name: compare(after, before, BY_NAME[name], draws) for name in SHOWN if name not in pair.refused}
    found.setdefault("loss", found["bits_per_byte"])
    return found, holm({name: p_of(after, before, found[name], BY_NAME[name], draws) for name in DECISIVE})


def figures(pair: Pair, draws: Draws) -> Table:
    """A model's metrics in both runs, each with its interval, and their difference."""
    rows = []
    differences, p = paired(pair, draws) if pair.common[0] else ({}, {})
    for name in (name for name in SHOWN if name not in pair.refused):
        metric = BY_NAME[name]
        one, other = (measure(rows, metric, draws) for rows in (pair.a, pair.b))
        label = metric.label + (", %" if metric.unit else "")
        if differences:
            d = differences[name]
            word = {1: "B better", -1: "B worse"}.get(tells(name, d, p.get(name)), "")
            moved = f"+{d.gained} −{d.lost}" if d.gained is not None else DASH
            last = [with_range(d, metric, True), moved, p_value(p.get(name, d.p)), number(d.smallest_visible, metric), word]
        else:
            last = [_apart(one, other, metric), DASH, DASH, DASH, "different holes"]
        rows.append([label, with_range(one, metric), with_range(other, metric), *last])
    return Table(["", "A", "B", "B − A", "holes", "p", "smallest visible", ""], rows, words=(7,))


def _apart(a: Interval, b: Interval, metric: Metric) -> str:
    gap = independent(a, b)
    return with_range(Interval(*gap, min(a.n, b.n)), metric, True)


def others(a: Kept, b: Kept) -> Iterator[Block]:
    """Figures of other phases, where a run has them."""
    yield Heading("Size, speed, leakage")
    rows = []
    for label, file, keys, digits, factor in FIGURES:
        values = [figure(run.figures.get(file), *keys) for run in (a, b)]
        if any(value is not None for value in values):
            rows.append([label, *(shown(None if value is None else value * factor, digits) for value in values)])
    yield Table(["", a.name, b.name], rows) if rows else Text("Neither run holds figures of the other phases.")
    yield Text("Speeds were measured in two runs, maybe on two machines or beside other work: they are no paired comparison.")


def left_out(a: Kept, b: Kept, found: Sequence[Pair]) -> Iterator[Block]:
    """What is not compared, by name, and why."""
    yield Heading("Not compared")
    told = [f"{NAMES.get(m, m)}: only in {run.name}." for run, other in ((a, b), (b, a)) for m in run.rows if m not in other.rows]
    told += [
        f"{order_name(o)} prompts: only in {run.name}." for run, other in ((a, b), (b, a)) for o in _orders(run) if o not in _orders(other)
    ]
    for pair in found:
        name = f"{NAMES.get(pair.model, pair.model)}, {order_name(pair.order)}"
        told += [f"{name}, {BY_NAME[metric].label}: {why}." for metric, why in pair.refused.items()]
        alone = [len(rows) - len(pair.common[0]) for rows in (pair.a, pair.b)]
        if any(alone) and pair.common[0]:
            told.append(f"{name}: {alone[0]:,} holes only in A and {alone[1]:,} only in B are in their own columns, not in the difference.")
        elif not pair.common[0]:
            told.append(f"{name}: no hole is common, so nothing is tested.")
    limits = [run.manifest["params"]["evaluate"].get("max_new_tokens") for run in (a, b)]
    if limits[0] != limits[1]:
        told.append(
            f"Completions end after {limits[0]} tokens in A and {limits[1]} in B: what runs past a hole is cut at different places."
        )
    yield Text(" ".join(told) or "Nothing is left out.")


class Page(NamedTuple):
    """The parts of the comparison: the first screen, what was set differently, every figure, what is left out."""

    first: list[Block]
    settings: list[Block]
    figures: list[Block]
    left_out: list[Block]


def blocks(a: Kept, b: Kept) -> Page:
    """All of it.

    Raises:
        InputError: nothing in the two can be compared; says what each holds.
    """
    found = list(pairs(a, b))
    if not found:
        holds = " and ".join(f"{run.name} holds {', '.join(run.rows)} in {', '.join(_orders(run))}" for run in (a, b))
        raise InputError(f"{holds}: no model and order in both, evaluate one of them again with `python -m eval run`")
    asked = a.manifest["params"]["evaluate"]
    draws = Draws(int(asked.get("bootstrap", 5000)), int(asked.get("seed", 17)))
    tables: list[Block] = [Heading("Figures")]
    for pair in found:
        tables += [Heading(f"{NAMES.get(pair.model, pair.model)}, {order_name(pair.order)}", 3), figures(pair, draws)]
    tables.append(Text("p is Holm's over exact match, edit similarity and running past the hole, McNemar's for the other rates."))
    return Page(list(verdicts(found, draws)), list(differing(a, b)), [*tables, *others(a, b)], list(left_out(a, b, found)))


def run(first: str, second: str, out: Path, kept: Path | None = None) -> str:
    """Write the page; return what fits a terminal of it, as Markdown."""
    a, b = (read_run(given, kept) if kept else read_run(given) for given in (first, second))
    made = blocks(a, b)
    lead = f"A is {a.name}, B is {b.name}. Changes are B minus A in points; brackets are 95% intervals."
    write_text(out, page.html("Two runs side by side", lead, made.first, [*made.settings, *made.figures, *made.left_out]))
    return markdown("Two runs side by side", [Text(lead), *made.first, *made.settings, *made.left_out])
