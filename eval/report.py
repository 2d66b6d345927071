"""Tell what the figures say: the verdict first, then what it rests on.

In:  rows and manifest of the evaluation, the held-out samples, and, where they are, the figures of the other phases
Out: eval/reports/report.md, report.html, metrics.json, plots/*.csv

A file of another phase that is missing is said to be missing; nothing else of the report depends on it.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import InputError
from core.manifest import MANIFEST
from core.records import Row, read_json, read_parquet, write_json, write_text
from core.statistics import Difference, Interval
from eval import page
from eval.document import Block, Chart, Code, Example, Finding, Heading, Mark, Table, Text, markdown
from eval.models import Model
from eval.params import EvaluateParams
from eval.ships import first_lines, read_gates
from eval.summary import BY_NAME, COMPARED, DECISIVE, Metric, Scope, Step, Summary, flat, span_family, summarize, tells

TITLE = "Are the completions better, and how fast are they?"
NAMES = {"base": "base", "sft": "SFT", "dpo": "DPO", "merged": "merged", "q4_k_m": "Q4_K_M"}
STEPS = {
    "sft": "Supervised fine-tuning",
    "dpo": "Preference optimization",
    "merged": "Merging the adapter into the base",
    "q4_k_m": "Quantizing to Q4_K_M",
}
TAIL_LINES, HEAD_LINES, LINE_CHARS = 8, 4, 160  # of an example's surroundings
DASH = "–"


class Sources(NamedTuple):
    """Files that the report reads."""

    rows: Path  # folder of rows, with the evaluation's manifest
    samples: Path
    quantize: Path
    serve: Path
    data_card: Path
    root: Path  # of the phases, for */out/runs/*.json and the verdicts of the gates


# ---- numbers in words


def number(value: float, metric: Metric, signed: bool = False) -> str:
    """A value in the metric's unit, a minus as wide as a plus."""
    if math.isnan(value):
        return DASH
    shown = f"{value * metric.scale:+.{metric.digits}f}" if signed else f"{value * metric.scale:.{metric.digits}f}"
    return shown.replace("-", "−")


def with_range(found: Interval | Difference, metric: Metric, signed: bool = False) -> str:
    """`20.6 [18.1, 23.2]`; a dash where nothing could be judged."""
    if not found.n or math.isnan(found.value):
        return DASH
    value, low, high = (number(part, metric, signed) for part in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def megabytes(size: float) -> str:
    """Bytes as MB (10^6), more digits where they matter."""
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.2f} GB"


def unit_of(metric: Metric, difference: bool = False) -> str:
    """`%`, or `points` for a difference of percentages."""
    return " points" if difference and metric.unit == "%" else metric.unit


# ---- verdict


def opening(summary: Summary, manifest: Mapping[str, Any], device: str) -> str:
    """What was asked of whom."""
    holes = manifest["counts"]["holes"]
    parts = " and ".join(f"{n:,} in {_split_words(split)}" for split, n in holes.items())
    return (
        f"{len(summary.models)} models, greedy, on the same {sum(holes.values()):,} held-out holes: {parts} "
        f"({summary.files:,} files, {summary.repos:,} repositories). Machine: {device}. "
        f"Brackets are 95% intervals. The verdict reads {order_name(summary.scopes[0].order)} prompts, all splits together."
    )


def _split_words(split: str) -> str:
    return {"test_file": "unseen files of known repositories", "test_repo": "unseen repositories"}.get(split, split)


def order_name(order: str) -> str:
    """SPM or PSM."""
    return order.upper()


def finding(summary: Summary, step: Step) -> Finding:
    """One step of the chain in a sentence: by how much, how sure, and what would have been too small to see."""
    whole = step.parent == summary.models[0] and step.child == summary.models[-1] and len(summary.models) > 2
    name = "From the first model to the last" if whole else STEPS[step.child]
    exact, likeness, loss = (step.differences[key] for key in DECISIVE)
    before, after = (summary.cells[model, step.scope]["exact_match"] for model in (step.parent, step.child))
    if not exact.n:
        return Finding(name, "not measured", "No hole was asked of both.", "even")
    text = (
        f"Exact match {number(before.value, BY_NAME['exact_match'])}% to {number(after.value, BY_NAME['exact_match'])}%: "
        f"{with_range(exact, BY_NAME['exact_match'], True)} points, {exact.gained} holes gained and {exact.lost} lost of {exact.n:,} "
        f"(McNemar p {p_value(exact.p)}). Edit similarity {with_range(likeness, BY_NAME['edit_similarity'], True)}, "
        f"loss {with_range(loss, BY_NAME['loss'], True)} nats per token. A change of exact match under "
        f"{number(exact.smallest_visible, BY_NAME['exact_match'])} points would not have shown."
    )
    if (exact.gained, exact.lost) == (0, 0) and not any([likeness.low, likeness.high, loss.low, loss.high]):
        text = f"The same answers and the same loss on all {exact.n:,} holes."
    tone = {"better": "good", "worse": "bad", "mixed": "bad"}.get(step.verdict, "even")
    return Finding(f"{name} ({NAMES[step.child]} against {NAMES[step.parent]})", step.verdict, text, tone)


def p_value(p: float | None) -> str:
    """Three digits, or a bound."""
    return DASH if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def verdict(summary: Summary, sizes: Mapping[str, int], params: EvaluateParams, found: Mapping[str, Any]) -> Iterator[Block]:
    """The answers, and which file to use."""
    yield Heading("Verdict")
    leading = summary.scopes[0]
    for step in (step for step in summary.steps if step.scope == leading):
        yield finding(summary, step)
    yield Finding("Which file to use", *choice(summary, params, sizes, found))


def choice(summary: Summary, params: EvaluateParams, sizes: Mapping[str, int], found: Mapping[str, Any]) -> tuple[str, str, str]:
    """Answer, reason and tone: the quantized file unless a step on the way to it did visible harm; then what to set instead."""
    leading = [step for step in summary.steps if step.scope == summary.scopes[0]]
    steps = {step.child: step for step in reversed(leading)}  # the step from a model's own parent, which stands first
    harm = next(
        (steps[name] for name in reversed(summary.way) if name in ("sft", "dpo", "merged") and steps[name].verdict == "worse"), None
    )
    if harm and harm.parent == "base":
        return "the base", "Fine-tuning did harm here. Set `merge.adapter: none` and run `dvc repro`, or train on more code.", "bad"
    if harm and harm.child == "dpo":
        return "the SFT model", "Preference optimization did harm its gate did not see: set `merge.adapter: sft`, run `dvc repro`.", "bad"
    if harm:
        return (
            "none of them yet",
            "The merged model is worse than the adapter it holds. Set `merge.onto: nf4`, or `sft.bits: 16`, and run `dvc repro`.",
            "bad",
        )
    last = summary.models[-1]
    if last != "q4_k_m":
        return NAMES[last], "No quantized file was evaluated: add q4_k_m to `evaluate.models`.", "even"
    quantized = steps.get("q4_k_m")
    lost = -100 * quantized.differences["exact_match"].value if quantized else 0.0
    size = megabytes(sizes[last]) if last in sizes else "size unknown"
    if quantized and quantized.differences["exact_match"].visible and lost > params.max_gguf_loss_points:
        reason = f"Q4_K_M ({size}) loses {lost:.1f} points of exact match, more than `evaluate.max_gguf_loss_points` allows. "
        return "a larger type", reason + "Set `quantize.type: Q8_0` and run `dvc repro`, or serve `model-f32.gguf`.", "bad"
    told = [f"{size}, {_bits(found)} bits per weight." if _bits(found) else f"{size}.", *_speed(found)]
    if summary.cells[last, summary.scopes[0]]["exact_match"].value == 0:
        return "none of them, to type with", "No hole was completed exactly. The path works; the model is too weak.", "bad"
    return "model-q4_k_m.gguf", f"`phase3_quantize/out/quantize/model-q4_k_m.gguf`: {' '.join(told)}", "good"


def _bits(found: Mapping[str, Any]) -> float | None:
    value = ((found.get("quantize") or {}).get("quantized") or {}).get("bits_per_weight")
    return float(value) if isinstance(value, int | float) else None


def _speed(found: Mapping[str, Any]) -> list[str]:
    headline = (found.get("serve") or {}).get("headline")
    return [str(headline)] if headline else []


# ---- tables


QUALITY = ("exact_match", "first_line_match", "edit_similarity", "loss", "bits_per_byte")
BEHAVIOUR = ("exact_match_stripped", "parse_rate", "ended_rate", "overrun_rate", "suffix_repeat_rate")


def quality(summary: Summary) -> Iterator[Block]:
    """Charts and tables of every model in the leading scope."""
    leading = summary.scopes[0]
    yield Heading("Quality")
    for name in ("exact_match", "loss"):
        yield chart(summary, name)
    n = summary.cells[summary.models[0], leading]["exact_match"].n
    yield Text(f"{order_name(leading.order)} prompts, all splits, {n:,} holes each.")
    yield models_table(summary, leading, QUALITY)
    yield Heading("Behaviour", 3)
    judged = summary.cells[summary.models[0], leading]["parse_rate"].n
    yield Text(
        f"Whether the code still parses is judged on {judged:,} holes, where the window with the truth in it does. "
        "Ran past the hole: wrote the truth and went on, or wrote again what stands after it."
    )
    yield models_table(summary, leading, BEHAVIOUR)
    yield leaks(summary)


def leaks(summary: Summary) -> Text:
    """What completions held that looks like a secret or personal data."""
    found = {model: kinds for model, kinds in summary.leaks.items() if kinds}
    if not found:
        return Text("No completion held anything shaped like a secret or personal data.")
    told = "; ".join(f"{NAMES[model]}: {', '.join(f'{kind} {n}' for kind, n in sorted(kinds.items()))}" for model, kinds in found.items())
    return Text(f"Spans shaped like secrets or personal data, both orders together (masked wherever they are stored): {told}.")


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
    """Every step against its parent, all compared metrics."""
    yield Heading("Each step against the one before")
    for scope in (scope for scope in summary.scopes if scope.split == "all" and scope.span == "all"):
        yield Heading(f"{order_name(scope.order)} prompts", 3)
        rows = []
        for step in (step for step in summary.steps if step.scope == scope):
            for name in COMPARED:
                metric, d = BY_NAME[name], step.differences[name]
                if not d.n:
                    continue
                moved = f"+{d.gained} −{d.lost}" if d.gained is not None else DASH
                visible = number(d.smallest_visible, metric)
                good = {1: "better", -1: "worse"}.get(tells(name, d), "")
                label = f"{NAMES[step.parent]} → {NAMES[step.child]}"
                rows.append([label, metric.label, with_range(d, metric, True), moved, p_value(d.p), visible, f"{d.n:,}", good])
        yield Table(["step", "metric", "difference", "holes", "McNemar p", "smallest visible", "n", ""], rows, words=(1, 7))
    yield Text(
        "Differences of rates are in points of percent. A difference is called visible where McNemar's exact test has p < 0.05 (rates) or "
        "the bootstrap interval leaves out 0 (means, drawn by file), and where what is left does not round to nothing. Three figures "
        "decide a verdict, so about one step in eight would show something by chance alone."
    )


def parts(summary: Summary) -> Iterator[Block]:
    """By split, order and kind of span."""
    yield Heading("By split, order and span")
    names = ("exact_match", "edit_similarity", "loss")
    rows = []
    for scope in (scope for scope in summary.scopes if scope.span == "all" and scope.split != "all"):
        for model in summary.models:
            cell = summary.cells[model, scope]
            shown = [with_range(cell[name], BY_NAME[name]) for name in names]
            rows.append([NAMES[model], scope.split, order_name(scope.order), *shown, f"{cell['exact_match'].n:,}"])
    yield Table(["", "split", "order", "exact match, %", "edit similarity", "loss", "n"], rows, words=(1, 2))
    leading = summary.scopes[0].order
    yield Heading(f"Exact match by kind of span, {order_name(leading)}", 3)
    spans = [scope for scope in summary.scopes if scope.span != "all" and scope.order == leading]
    head = ["", *(f"{scope.span}, n {summary.cells[summary.models[0], scope]['exact_match'].n:,}" for scope in spans)]
    metric = BY_NAME["exact_match"]
    yield Table(
        head, [[NAMES[m], *(with_range(summary.cells[m, scope]["exact_match"], metric) for scope in spans)] for m in summary.models]
    )


# ---- what the other phases measured


def outline(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every plain value of nested JSON with its dotted key; lists of plain values on one line."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from outline(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(one, Mapping | list) for one in value):
        for at, inner in enumerate(value):
            yield from outline(inner, f"{path}.{at}")
    else:
        yield path, _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: DASH}[value]
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or DASH
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if isinstance(value, float) else str(value)


def missing(name: str, command: str) -> Text:
    """Says that a part is not there and how to get it."""
    return Text(f"{name}: not there yet. `{command}` writes it; `python -m eval report` then adds it here.")


def quantization(found: Mapping[str, Any] | None) -> Iterator[Block]:
    """Size, bits and what verification saw."""
    yield Heading("Quantization")
    if not found:
        yield missing("Figures of quantization", "python -m phase3_quantize run")
        return
    full, small = found.get("f32") or {}, found.get("quantized") or {}
    rows = [
        [
            name,
            megabytes(one["bytes"]),
            f"{one['bits_per_weight']:.2f}",
            " ".join(f"{n} {kind}" for kind, n in (one.get("tensors") or {}).items()),
        ]
        for name, one in (("F32", full), (str(found.get("type", "quantized")), small))
        if "bytes" in one and "bits_per_weight" in one
    ]
    if rows:
        yield Table(["file", "size", "bits per weight", "tensors"], rows, words=(3,))
    if full.get("bytes") and small.get("bytes"):
        yield Text(f"The quantized file is {100 * small['bytes'] / full['bytes']:.1f}% of the full one.")
    for one in small.get("fallbacks") or []:
        yield Text(f"{one.get('tensors')} tensors of {one.get('columns')} columns fell back to {one.get('type')}: {one.get('cause')}.")
    checks = list(outline(found.get("verify") or {}))
    if checks:
        yield Heading("Verification", 3)
        yield Table(["check", "value"], [[key.replace("_", " "), value] for key, value in checks])


def serving(found: Mapping[str, Any] | None) -> Iterator[Block]:
    """Latency and speed as the serve stage measured them."""
    yield Heading("Serving")
    if not found:
        yield missing("Figures of the server", "python -m phase4_serve smoke")
        return
    yield Table(["figure", "value"], [[key.replace("_", " "), value] for key, value in outline(found)])


def data(card: Mapping[str, Any] | None) -> Iterator[Block]:
    """Where the samples come from."""
    yield Heading("Data")
    if not card:
        yield missing("The data card", "python -m phase1_data samples")
        return
    funnel = [[str(row["step"]), f"{row['files']:,}", megabytes(row["bytes"])] for row in card.get("funnel") or []]
    if funnel:
        yield Table(["after", "files", "size"], funnel)
    splits = card.get("splits") or {}
    if splits:
        keys = [key for key in ("files", "rows", "tokens") if all(key in one for one in splits.values())]
        yield Table(["split", *keys], [[name, *(f"{one[key]:,}" for key in keys)] for name, one in splits.items()])
    licences = card.get("licenses") or {}
    if licences:
        yield Text(
            "Licences: " + ", ".join(f"{name} ({_plain(share.get('files', share))} files)" for name, share in licences.items()) + "."
        )
    masked = card.get("redactions") or {}
    if masked:
        yield Text("Masked before anything else saw it: " + ", ".join(f"{kind} {n:,}" for kind, n in masked.items()) + ".")
    yield Text("All of it: `eval/reports/data_card.md`.")


def timings(root: Path) -> Iterator[Block]:
    """What each stage took."""
    yield Heading("Time and memory")
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(root.glob("*/out/runs/*.json"))]
    if not runs:
        yield Text("No stage has left its timings.")
        return
    rows = [[str(run["stage"]), f"{run['seconds']:,.1f}", f"{run['peak_memory_mb']:,.0f}", str(run.get("device", DASH))] for run in runs]
    yield Table(
        ["stage", "seconds", "peak memory, MB", "device"],
        [*rows, ["together", f"{sum(run['seconds'] for run in runs):,.1f}", "", ""]],
        words=(3,),
    )


# ---- examples


def examples(summary: Summary, rows: Mapping[str, list[Row]], samples: Mapping[str, Row], count: int) -> Iterator[Block]:
    """Holes that the last model gained, that it lost, and those it is furthest from."""
    first, last, order = summary.models[0], summary.models[-1], summary.scopes[0].order
    pairs = [(a, b) for a, b in zip(rows[first], rows[last], strict=True) if a["order"] == order and a["sample_id"] in samples]
    if not pairs or not count:
        return
    yield Heading("Examples")
    yield Text(f"{NAMES[first]} and {NAMES[last]}, {order_name(order)}. Picked by the figures, one per file, not by hand.")
    gap = {b["sample_id"]: b["similarity"] - a["similarity"] for a, b in pairs}
    gained = sorted(
        (p for p in pairs if gap[p[1]["sample_id"]] > 0), key=lambda p: (not p[1]["exact"], -gap[p[1]["sample_id"]], p[1]["sample_id"])
    )
    lost = sorted((p for p in pairs if gap[p[1]["sample_id"]] < 0), key=lambda p: (gap[p[1]["sample_id"]], p[1]["sample_id"]))
    wrong = sorted((p for p in pairs if not p[1]["exact"]), key=lambda p: (p[1]["similarity"], p[1]["sample_id"]))
    shown: set[str] = set()
    for title, some in (("Most gained", gained), ("Most lost", lost), ("Furthest from the truth", wrong)):
        picked = [p for p in _one_per_file(some) if p[1]["sample_id"] not in shown][:count]
        if picked:
            yield Heading(title, 3)
        for pair in picked:
            shown.add(pair[1]["sample_id"])
            yield _example(samples[pair[1]["sample_id"]], {first: pair[0], last: pair[1]})


def _one_per_file(pairs: Sequence[tuple[Row, Row]]) -> list[tuple[Row, Row]]:
    return list({pair[1]["file_id"]: pair for pair in reversed(pairs)}.values())[::-1]


def _example(sample: Row, written: Mapping[str, Row]) -> Example:
    tries = [
        (NAMES[model], row["completion"], f"similarity {row['similarity']:.0f}{', exact' if row['exact'] else ''}")
        for model, row in written.items()
    ]
    before = "\n".join(line[-LINE_CHARS:] for line in sample["prefix"].split("\n")[-TAIL_LINES:])
    after = "\n".join(line[:LINE_CHARS] for line in sample["suffix"].split("\n")[:HEAD_LINES])
    title = f"`{sample['repo']}` `{sample['path']}`, {span_family(sample['span_kind'])}"
    return Example(title, before, after, sample["middle"], tries)


# ---- how it was made


def method(manifest: Mapping[str, Any]) -> Iterator[Block]:
    """How to read the figures, and how to make them again."""
    yield Heading("How this was measured")
    left_out = {reason: n for reason, n in manifest["counts"]["left_out"].items() if n}
    yield Text(
        "Every model gets the same prompts, token for token, and writes greedily; nothing is cut from what it writes before it is judged, "
        "but for the token that ended it. Exact match compares the whole middle, character by character. Edit similarity is "
        "`rapidfuzz.fuzz.ratio`, 0 to 100. Loss is measured on the truth and its end token, so it moves even where no completion "
        "changes. SFT and DPO are asked as they were trained, whether their gate let them through or not: with the base in NF4 where "
        "`sft.bits` is 4, on a CPU as float32 weights with the adapter merged in. The GGUF runs in process through llama.cpp."
    )
    yield Text(
        "Rates have Wilson's interval, differences of rates that of Bonett and Price; means have a percentile bootstrap over files, "
        "because the holes of one file are alike. Splits are by file and by repository; near-duplicates never stand on two sides."
    )
    yield Text("Left out: " + (", ".join(f"{reason.replace('_', ' ')} {n:,}" for reason, n in left_out.items()) or "nothing") + ".")
    yield Heading("Again")
    yield Text(
        "`dvc repro` makes everything; `python -m eval run` asks the models again; `python -m eval report` writes these pages again."
    )
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    yield Text(f"Versions: {versions}.")
    yield Code("evaluate:\n" + "\n".join(f"  {key}: {json.dumps(value)}" for key, value in manifest["params"]["evaluate"].items()))
    models = manifest["counts"]["models"]
    yield Table(
        ["model", "from", "weights", "sha256"],
        [[NAMES[m["name"]], NAMES.get(m["parent"], DASH), megabytes(m["bytes"]), m["sha256"][:16]] for m in models],
        words=(1, 3),
    )


# ---- files


def plots(summary: Summary, names: Sequence[str], file: Path) -> None:
    """One CSV for `dvc plots`: model, order, and each metric with its interval."""
    out = io.StringIO()
    sink = csv.writer(out, lineterminator="\n")
    sink.writerow(["model", "order", *(f"{name}{end}" for name in names for end in ("", "_low", "_high"))])
    for scope in (scope for scope in summary.scopes if scope.split == "all" and scope.span == "all"):
        for model in summary.models:
            cells = [(summary.cells[model, scope][name], BY_NAME[name].scale) for name in names]
            sink.writerow([NAMES[model], scope.order, *(round(part * scale, 6) for cell, scale in cells for part in cell[:3])])
    write_text(file, out.getvalue())


def optional(file: Path) -> dict[str, Any] | None:
    """A JSON object that may not be there.

    Raises:
        InputError: it is there and damaged.
    """
    if not file.is_file():
        return None
    found = read_json(file, "the stage that wrote it")
    return found if isinstance(found, dict) else None


def build(
    summary: Summary, rows: Mapping[str, list[Row]], sources: Sources, manifest: Mapping[str, Any], params: EvaluateParams
) -> list[Block]:
    """All blocks of the report."""
    found = {"quantize": optional(sources.quantize), "serve": optional(sources.serve)}
    sizes = {one["name"]: one["bytes"] for one in manifest["counts"]["models"]}
    wanted = {row["sample_id"] for row in rows[summary.models[0]]}
    files = [file for split in params.splits if (file := sources.samples / f"{split}.parquet").is_file()]
    samples = {
        row["sample_id"]: row for file in files for row in read_parquet(file, "python -m phase1_data samples") if row["sample_id"] in wanted
    }
    return [
        *verdict(summary, sizes, params, found),
        *quality(summary),
        *steps_table(summary),
        *parts(summary),
        *quantization(found["quantize"]),
        *serving(found["serve"]),
        *examples(summary, rows, samples, params.examples),
        *data(optional(sources.data_card)),
        *timings(sources.root),
        *method(manifest),
    ]


def run(sources: Sources, out: Path, params: EvaluateParams) -> Summary:
    """Write the report from what the last evaluation left.

    Raises:
        InputError: there is no evaluation, or its rows are damaged.
    """
    manifest = read_json(sources.rows / MANIFEST, "python -m eval run")
    try:
        models = manifest["counts"]["models"]
        asked = EvaluateParams.model_validate(manifest["params"]["evaluate"])
    except (KeyError, ValueError):
        raise InputError(f"{sources.rows / MANIFEST} is not of this version: run `python -m eval run` again") from None
    chain = [Model(one["name"], one["parent"], (), one["bits"]) for one in models]
    rows = {one["name"]: list(read_parquet(sources.rows / f"{one['name']}.parquet", "python -m eval run")) for one in models}
    shown = asked.model_copy(
        update={key: getattr(params, key) for key in ("bootstrap", "seed", "gate", "max_gguf_loss_points", "examples")}
    )
    summary = summarize(chain, rows, shown)
    device = (optional(sources.rows.parent / "runs" / "evaluate.json") or {}).get("device", "Device not recorded")
    blocks, lead = build(summary, rows, sources, manifest, shown), opening(summary, manifest, str(device))
    first = list(first_lines(read_gates(sources.root)))
    write_text(out / "report.md", markdown(TITLE, [*first, Text(lead), *blocks]))
    write_text(out / "report.html", page.html(TITLE, lead, blocks, first))
    write_json(out / "metrics.json", flat(summary))
    plots(summary, ("exact_match", "first_line_match", "edit_similarity"), out / "plots" / "quality.csv")
    plots(summary, ("loss", "bits_per_byte"), out / "plots" / "loss.csv")
    return summary
