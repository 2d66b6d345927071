"""Which adapter goes on: the one just trained, or the one it came from. Decided on held-out holes, both asked the same.

In:  samples/valid.parquet, the base, the child's adapter and (after DPO) the folder that the gate after SFT shipped
Out: <out>/adapter (what ships), gate.json (verdict, reasons, every figure), rows.parquet, manifest.json

The rule. A child is refused where one of these is told apart from "no worse than its parent":

    exact match            lower     McNemar's exact test
    edit similarity        lower     bootstrap over files
    ran past the hole      more      McNemar's exact test; writing the suffix again counts
    loss on the truth      higher    bootstrap over files, by more than `max_loss_rise`: greedy answers hide what a model doubts

A child of SFT that is not refused ships: it was fitted to this code, and loss shows that long before whole answers do. A child of
DPO ships only if something a user sees got better (exact match, edit similarity, or manners): its pairs are few, its known way to
fail is to unlearn (CodeAlign: 90.2, after SFT 70.7, after DPO 53.0), and an adapter that shows no gain has nothing to pay for that.
Each test has its own confidence, so of equally good children about one in ten is refused at 95%; the parent then goes on, which
costs nothing. The smallest difference that so many rows can show is printed with the verdict.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors.torch import load_file, save_file

from core.errors import CheckFailed, InputError
from core.manifest import MANIFEST, Run, sha256_of
from core.records import Row, read_json, write_json, write_parquet
from core.statistics import Difference, difference_of_rates, difference_of_ratios, ratio, wilson
from phase2_train.heldout import PACKAGES, ROW, Contestant, Name, choose, rows_of
from phase2_train.machine import machine
from phase2_train.params import GateParams

Step = Literal["sft", "dpo"]
FIGURES, ROWS, WEIGHTS = "gate.json", "rows.parquet", "adapter_model.safetensors"


class Metric(NamedTuple):
    """A figure of the comparison."""

    name: str
    label: str
    column: str  # of heldout.ROW
    better: int  # 1: more is better, -1: less is
    scale: float  # of what is shown
    digits: int
    unit: str
    decides: bool


METRICS = (
    Metric("exact_match", "exact match", "exact", 1, 100, 1, "%", True),
    Metric("edit_similarity", "edit similarity", "similarity", 1, 1, 1, "", True),
    Metric("overrun_rate", "ran past the hole", "overrun", -1, 100, 1, "%", True),
    Metric("suffix_repeat_rate", "of these, wrote the suffix again", "suffix_repeat", -1, 100, 1, "%", False),
    Metric("loss", "loss on the truth, nats per token", "nats", -1, 1, 3, "", True),
    Metric("first_line_match", "first line exact", "first_line", 1, 100, 1, "%", False),
    Metric("ended_rate", "ended by itself", "stop", 1, 100, 1, "%", False),
    Metric("tokens_written", "tokens written", "n_written", 0, 1, 1, "", False),
)
BY_NAME = {metric.name: metric for metric in METRICS}
RATES = ("exact", "overrun", "suffix_repeat", "first_line", "stop")
GAINS = ("exact_match", "edit_similarity", "overrun_rate")  # what a user sees; a child of DPO must show one


class Judgement(NamedTuple):
    """Who ships and why."""

    child: bool
    harms: list[str]  # metrics
    gains: list[str]


def values(rows: Sequence[Row], metric: Metric) -> list[float]:
    """What every row adds to a metric."""
    return [float(row["stop"] != "limit") if metric.column == "stop" else float(row[metric.column]) for row in rows]


def under(rows: Sequence[Row], metric: Metric) -> list[float]:
    """What a metric's sum is divided by: tokens for the loss, rows else."""
    return [float(row["n_tokens"]) if metric.name == "loss" else 1.0 for row in rows]


def compare(child: Sequence[Row], parent: Sequence[Row], params: GateParams) -> dict[str, Difference]:
    """Child minus parent in every metric (unscaled); both hold the same holes in the same order.

    Raises:
        ValueError: they do not.
    """
    if [row["sample_id"] for row in child] != [row["sample_id"] for row in parent]:
        raise ValueError("the rows are not of the same holes")
    alpha, files, found = 1 - params.confidence, [row["file_id"] for row in child], {}
    for metric in METRICS:
        mine, other = values(child, metric), values(parent, metric)
        if metric.column in RATES:
            found[metric.name] = difference_of_rates([one > 0 for one in mine], [one > 0 for one in other], alpha)
        else:
            found[metric.name] = difference_of_ratios(mine, other, under(child, metric), files, params.bootstrap, params.seed, alpha)
    return found


def tells(name: str, difference: Difference, margin: float) -> int:
    """1 where the child is visibly better in a metric, -1 where visibly worse, 0 where neither or too little to show.

    `margin` is what the loss may move before it counts; the others must move by what a table would show.
    """
    metric, least = BY_NAME[name], 0.5 * 10 ** -BY_NAME[name].digits / BY_NAME[name].scale
    if not difference.visible or abs(difference.value) < least:
        return 0
    if name == "loss" and min(abs(difference.low), abs(difference.high)) <= margin:
        return 0
    return metric.better * (1 if difference.value > 0 else -1)


def judge(step: Step, differences: dict[str, Difference], params: GateParams) -> Judgement:
    """The rule that stands at the top of this file."""
    said = {name: tells(name, difference, params.max_loss_rise) for name, difference in differences.items() if BY_NAME[name].decides}
    harms = [name for name, sign in said.items() if sign < 0]
    gains = [name for name, sign in said.items() if sign > 0]
    enough = step == "sft" or any(name in GAINS for name in gains)
    return Judgement(enough and not harms, harms, gains)


def reasons(step: Step, found: Judgement, figures: dict[str, Any], n: int) -> list[str]:
    """The judgement in sentences."""
    if found.harms:
        return [f"{_moved(name, figures)}: worse than its parent" for name in found.harms]
    if found.child and found.gains:
        return [f"{_moved(name, figures)}: better than its parent" for name in found.gains]
    if found.child:
        return [f"no visible difference on {n:,} holes: the child ships because it was fitted to this code"]
    also = "".join(f"; {_moved(name, figures)}, which no completion shows" for name in found.gains)
    return [f"no measurable gain on {n:,} holes: neither exact match nor edit similarity nor manners are visibly better{also}"]


def _moved(name: str, figures: dict[str, Any]) -> str:
    metric, one = BY_NAME[name], figures[name]
    p = "" if one["p"] is None else f", McNemar p {one['p']:.3f}"
    return (
        f"{metric.label} {shown(one['parent']['value'], metric)}{metric.unit} to {shown(one['child']['value'], metric)}{metric.unit} "
        f"({shown(one['difference'], metric, True)} [{shown(one['low'], metric, True)}, {shown(one['high'], metric, True)}]{p})"
    )


def shown(value: float, metric: Metric, signed: bool = False) -> str:
    """A value in the metric's unit."""
    return f"{value * metric.scale:+.{metric.digits}f}" if signed else f"{value * metric.scale:.{metric.digits}f}"


def figures_of(child: Sequence[Row], parent: Sequence[Row], differences: dict[str, Difference], params: GateParams) -> dict[str, Any]:
    """Every metric of both, with intervals (95%), and their difference (at `confidence`), in unscaled numbers."""
    found: dict[str, Any] = {}
    for metric in METRICS:
        d = differences[metric.name]
        found[metric.name] = {
            "child": _interval(child, metric, params),
            "parent": _interval(parent, metric, params),
            **{end: _number(getattr(d, end)) for end in ("low", "high", "p", "smallest_visible")},
            "difference": _number(d.value),
            "gained": d.gained,
            "lost": d.lost,
            "n": d.n,
            "decides": metric.decides,
        }
    return found


def _interval(rows: Sequence[Row], metric: Metric, params: GateParams) -> dict[str, float | None]:
    mine = values(rows, metric)
    if metric.column in RATES:
        found = wilson(int(sum(mine)), len(mine))
    else:
        found = ratio(mine, under(rows, metric), [row["file_id"] for row in rows], params.bootstrap, params.seed)
    return {"value": _number(found.value), "low": _number(found.low), "high": _number(found.high)}


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(value, 6)


# ---- what ships


def write_bare(like: Path, out: Path) -> None:
    """An adapter that changes nothing: the shapes and A matrices of `like`, every B zero.

    pairs, DPO and the merge then work on the bare base as on any adapter; DPO can train it, since A is not zero.
    """
    out.mkdir(parents=True)
    for file in sorted(like.iterdir()):
        if file.is_file() and file.name != WEIGHTS:
            shutil.copyfile(file, out / file.name)
    weights = load_file(like / WEIGHTS)
    save_file(
        {name: torch.zeros_like(tensor) if ".lora_B." in name else tensor for name, tensor in weights.items()},
        out / WEIGHTS,
        metadata={"format": "pt"},
    )


def contestants(step: Step, base: Path, child: Path, parent: Path | None, bits: int) -> tuple[Contestant, Contestant]:
    """Child and parent.

    Raises:
        InputError: an adapter is missing, or the child was trained from something else than the parent.
    """
    for adapter, by in ((child, step), (parent, "sft-gate")):
        if adapter is not None and not (adapter / WEIGHTS).is_file():
            raise InputError(f"{adapter} is missing: run `python -m phase2_train {by}` first")
    origin, made = parent or base, child.parent / MANIFEST
    came_from = read_json(made, f"python -m phase2_train {step}").get("parent") if made.is_file() else None
    if came_from is not None and came_from != sha256_of(origin):
        raise InputError(f"{child} was not trained from {origin}: run `python -m phase2_train {step}` again")
    name = shipped_by(parent.parent) if parent is not None else "base"
    return Contestant(step, child, bits), Contestant(name, None, 16) if name == "base" else Contestant(name, parent, bits)


def shipped_by(folder: Path) -> Name:
    """What an earlier gate shipped; `sft` for a folder without a verdict."""
    if not (folder / FIGURES).is_file():
        return "sft"
    found: Name = read_json(folder / FIGURES, "python -m phase2_train sft-gate")["ships"]
    return found


def fill(folder: Path, source: Path | None, child: Path) -> None:
    """Put what ships into `folder`: a copy of the adapter `source`, or one in the shapes of `child` that changes nothing."""
    shutil.rmtree(folder.parent, ignore_errors=True)
    if source is None:
        write_bare(child, folder)
    else:
        shutil.copytree(source, folder)


def run(
    step: Step, samples: Path, base: Path, child: Path, parent: Path | None, out: Path, params: GateParams, bits: int
) -> dict[str, Any]:
    """Compare, decide and write; return gate.json.

    Args:
        child: adapter of the step.
        parent: adapter that it was trained from; None for the bare base.
        bits: of the base under the adapters.

    Raises:
        InputError: samples or adapters missing, or not belonging together.
    """
    started, chosen = Run(f"{step}_gate", out), machine()
    new, old = contestants(step, base, child, parent, bits)
    asked, left_out = choose(samples, base, params)
    known = parent.parent / ROWS if parent is not None else None
    mine, other = (rows_of(one, base, asked, known, params, chosen) for one in (new, old))
    differences = compare(mine, other, params)
    found, figures = judge(step, differences, params), figures_of(mine, other, differences, params)
    winner = new if found.child else old
    source = winner.adapter or parent  # after DPO a bare base goes on as the adapter that the gate before made of it
    partial = out.with_name(out.name + ".partial")
    try:
        fill(partial / "adapter", source, child)
        record = {
            "gate": step,
            "verdict": "ship child" if found.child else "ship parent",
            "ships": winner.name,
            "child": new.name,
            "parent": old.name,
            "reasons": reasons(step, found, figures, len(asked)),
            "harms": found.harms,
            "gains": found.gains,
            "n": len(asked),
            "files": len({hole.row["file_id"] for hole in asked}),
            "left_out": dict(sorted(left_out.items())),
            "order": params.order,
            "confidence": params.confidence,
            "figures": figures,
            "adapter_sha256": sha256_of(partial / "adapter"),
            "came_from": (winner.adapter or base).as_posix(),
        }
        write_parquet(partial / ROWS, [*mine, *other], ROW)
        write_json(partial / FIGURES, record)
        shutil.rmtree(out, ignore_errors=True)
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    started.finish(
        {"gate": params},
        [samples, child, *([parent] if parent else [])],
        {key: record[key] for key in ("verdict", "ships", "n", "adapter_sha256")},
        PACKAGES,
        seed=params.seed,
        device=chosen.reason,
        parent=sha256_of(source or base),
    )
    return record


def enforce(record: dict[str, Any], out: Path) -> None:
    """What `--gate fail` does.

    Raises:
        CheckFailed: the parent ships.
    """
    if record["verdict"] == "ship parent":
        raise CheckFailed(
            f"the {record['gate']} gate ships its parent ({record['ships']}): {record['reasons'][0]}: "
            f"read {out / FIGURES}, change the step's params, or take --gate warn"
        )
