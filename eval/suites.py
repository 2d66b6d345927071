"""A suite: rows of any file asked of a model, judged raw and as an editor would show them, with intervals and a paired test.

In:  a file of rows (eval/suite_rows.py), a model, perhaps its parent
Out: eval/out/suites/<name>.json, <name>.rows.parquet; completions kept in <name>.<model>.jsonl, so that a rerun asks nothing twice

raw    the completion as the model wrote it, nothing cut
shown  the same text through core.stops, which is what the server of phase 4 sends to an editor
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from core.errors import InputError
from core.fim import Hole, Order
from core.manifest import sha256_of
from core.progress import track
from core.records import Row, write_json, write_parquet
from core.statistics import Difference, Interval, difference_of_rates, difference_of_ratios, ratio, wilson
from core.stops import shown_in
from eval import generate, metrics, suite_rows
from eval.suite_rows import Held
from eval.text_metrics import likeness
from eval.words import Written

Context = Literal["on", "off", "both"]
RATES = {  # column of a row -> name of the metric
    "exact": "exact_match", "exact_stripped": "exact_match_stripped", "first_line": "first_line_match",
    "identifier_exact": "identifier_match", "parses": "parse_rate", "overrun": "overrun_rate", "suffix_repeat": "suffix_repeat_rate",
}  # fmt: skip
MEANS = {"similarity": "edit_similarity", "identifier_f1": "identifier_f1", "bleu4": "bleu4", "chrf": "chrf"}
ONLY_RAW = {"ended": "ended_rate", "leaks": "leak_rate"}
COLUMNS = {**RATES, **MEANS}
ROW = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "model", "context", "lang", "completion", "shown", "stop")),
        ("n_written", pa.int64()),
        *((f"{view}{column}", pa.float64() if column in MEANS else pa.bool_()) for view in ("", "shown_") for column in COLUMNS),
        *((column, pa.bool_()) for column in ONLY_RAW),
    ]
)


class Settings(NamedTuple):
    """How a suite is asked and judged."""

    order: Order
    limit: int  # tokens per completion
    resamples: int = 5000
    seed: int = 17


def run(
    file: Path, model: str, parent: str | None, context: Context, name: str, out: Path, settings: Settings, lang: str | None, rows: int
) -> dict[str, Any]:
    """Ask, judge, compare and write; return what was written.

    Raises:
        InputError: rows, model or name are wrong; names file and line.
        AccessError, MachineError: a server does not answer, llama.cpp is missing.
    """
    if not re.fullmatch(r"[\w.-]+", name):
        raise InputError(f"--name {name!r}: use letters, digits, '.', '_' and '-', it becomes a file's name")
    held, dropped = suite_rows.read(file, lang, rows)
    if context != "off" and not any(one.hole.context for one in held) and context == "both":
        raise InputError(f"{file}: no row has context, so --context both compares a suite with itself: use --context off")
    with_context = "off" if context == "off" or not any(one.hole.context for one in held) else "on"
    frames = [metrics.frame(one.hole, one.lang) for one in held]

    def asked(which: str, using: str) -> Answers:
        holes = [one.hole if using == "on" else one.alone for one in held]
        return answers_of(which, holes, held, frames, using, out / f"{name}.{_label(which)}.jsonl", settings)

    main = asked(model, with_context)
    figures: dict[str, Any] = {
        "suite": name, "model": model, "n": len(held), "metrics": measure(main.rows, held, settings), "prompt_sha256": main.prompt_sha256,
        "stops": main.stops, "config": main.config, "order": settings.order, "limit": settings.limit, "context": with_context,
        "cut": main.cut, "left_out": dict(dropped), "file": str(file), "file_sha256": sha256_of(file),
    }  # fmt: skip
    kept = list(main.rows)
    if parent is not None:
        other = asked(parent, with_context)
        kept += other.rows
        figures["parent"] = _compared(parent, main.rows, other, held, settings)
    if context == "both":
        other = asked(model, "off")
        kept += other.rows
        figures["without_context"] = _compared(model, main.rows, other, held, settings) | gain_and_harm(main.rows, other.rows)
    write_parquet(out / f"{name}.rows.parquet", kept, ROW)
    write_json(out / f"{name}.json", figures)
    return figures


class Answers(NamedTuple):
    """What one model wrote into all holes, judged."""

    rows: list[Row]
    prompt_sha256: str
    stops: list[str]
    config: dict[str, Any]
    cut: dict[str, int]


def answers_of(
    model: str, holes: list[Hole], held: list[Held], frames: Sequence[Any], context: str, out: Path, settings: Settings
) -> Answers:
    """Ask one model for all holes and judge what it writes."""
    asked = generate.ask(model, holes, settings.limit, settings.order)
    found = dict(generate.answers(asked, model, out))
    rows = [
        {"id": one.key, "model": model, "context": context, "lang": one.lang, **judge(one, found[at], frames[at])}
        for at, one in enumerate(track(held, "judged", unit="rows"))
    ]
    return Answers(rows, asked.prompt_sha256, asked.stops, asked.config, asked.cut)


def judge(held: Held, answer: Written, around: metrics.Frame | None) -> Row:
    """One completion, raw and shown."""
    hole = held.hole
    seen = shown_in(hole, held.lang, answer.text)
    raw = _view(hole, answer.text, held.lang, around)
    views = {**raw, **{f"shown_{key}": value for key, value in _view(hole, seen, held.lang, around).items()}}
    leaks = bool(views.pop("leaks"))
    views.pop("shown_leaks")
    texts = {"completion": metrics.masked(answer.text), "shown": metrics.masked(seen)}
    return {**texts, "stop": answer.stop, "n_written": answer.n_tokens, **views, "ended": answer.stop == "end", "leaks": leaks}


def _view(hole: Hole, text: str, lang: str, around: metrics.Frame | None) -> dict[str, Any]:
    return {**metrics.score(hole, text, lang, around)._asdict(), **likeness(text, hole.middle, lang)._asdict()}


def measure(rows: Sequence[Row], held: Sequence[Held], settings: Settings) -> dict[str, dict[str, float]]:
    """Every metric with its 95% interval."""
    return {name: _cell(interval) for name, column in _names().items() if (interval := _interval(rows, held, column, settings)).n}


def _cell(interval: Interval) -> dict[str, float]:
    return {key: round(value, 6) for key, value in interval._asdict().items()}


def _names() -> dict[str, str]:
    """Metric to column of ROW."""
    raw = {metric: column for column, metric in {**COLUMNS, **ONLY_RAW}.items()}
    return raw | {f"shown_{metric}": f"shown_{column}" for column, metric in COLUMNS.items()}


def _is_mean(column: str) -> bool:
    return column.removeprefix("shown_") in MEANS


def _interval(rows: Sequence[Row], held: Sequence[Held], column: str, settings: Settings) -> Interval:
    values = [(row[column], one.group) for row, one in zip(rows, held, strict=True) if row[column] is not None]
    if not _is_mean(column):
        return wilson(sum(bool(value) for value, _ in values), len(values))
    over = [float(value) for value, _ in values]
    return ratio(over, [1.0] * len(over), [group for _, group in values], settings.resamples, settings.seed)


def differences(child: Sequence[Row], parent: Sequence[Row], held: Sequence[Held], settings: Settings) -> dict[str, Difference]:
    """Child minus parent on the same rows: McNemar's exact test for rates, a bootstrap over files for means."""
    found: dict[str, Difference] = {}
    for name, column in _names().items():
        both = [
            (one[column], other[column], where.group)
            for one, other, where in zip(child, parent, held, strict=True)
            if one[column] is not None and other[column] is not None
        ]
        if not both:
            continue
        ours, theirs, groups = zip(*both, strict=True)
        if _is_mean(column):
            found[name] = difference_of_ratios(ours, theirs, [1.0] * len(ours), groups, settings.resamples, settings.seed)
        else:
            found[name] = difference_of_rates(ours, theirs)
    return found


def _compared(model: str, child: Sequence[Row], other: Answers, held: Sequence[Held], settings: Settings) -> dict[str, Any]:
    """The other model's figures and how far the child is from them."""
    gaps = {
        name: {key: round(value, 6) if isinstance(value, float) else value for key, value in gap._asdict().items()}
        | {"visible": bool(gap.visible)}
        for name, gap in differences(child, other.rows, held, settings).items()
    }
    figures = {"model": model, "metrics": measure(other.rows, held, settings), "differences": gaps}
    return figures | {"prompt_sha256": other.prompt_sha256, "stops": other.stops, "config": other.config, "cut": other.cut}


def gain_and_harm(child: Sequence[Row], without: Sequence[Row]) -> dict[str, Any]:
    """Rows that context made right or wrong, and nearer to or further from the truth."""
    pairs = list(zip(child, without, strict=True))
    moved = Counter("nearer" if a["similarity"] > b["similarity"] else "further" for a, b in pairs if a["similarity"] != b["similarity"])
    return {
        "gain": sum(a["exact"] and not b["exact"] for a, b in pairs),
        "harm": sum(b["exact"] and not a["exact"] for a, b in pairs),
        "nearer": moved["nearer"],
        "further": moved["further"],
        "same": len(pairs) - moved.total(),
    }


def _label(model: str) -> str:
    """A model as part of a file's name."""
    return f"{re.sub(r'[^0-9A-Za-z]+', '-', model)[-40:].strip('-')}-{hashlib.sha256(model.encode()).hexdigest()[:8]}"


# --- the table


def show(figures: dict[str, Any]) -> None:
    """Print a suite: raw and shown side by side, and what is told apart from the parent and from no context."""
    beside = [(key, figures[key]) for key in ("parent", "without_context") if key in figures]
    titles = {"parent": "minus parent", "without_context": "minus no context"}
    title = f"{figures['suite']}: {figures['model']}"
    table = Table("", "raw", "shown", *(titles[key] for key, _ in beside), title=title, box=SIMPLE, title_justify="left")
    metrics_of = figures["metrics"]
    for name in [*COLUMNS.values(), *ONLY_RAW.values()]:
        if name in metrics_of:
            cells = [_show_cell(metrics_of.get(key), name) for key in (name, f"shown_{name}")]
            table.add_row(name.replace("_", " "), *cells, *(_show_gap(other["differences"].get(name), name) for _, other in beside))
    console = Console()
    console.print(table)
    console.print(
        f"{figures['n']:,} rows, {figures['order']}, context {figures['context']}, cut {figures['cut'] or 'none'}", highlight=False
    )
    if beside:
        console.print("* visible; <x: a difference below x cannot be told from none on these rows", highlight=False)
    if "without_context" in figures:
        other = figures["without_context"]
        moved = f"{other['nearer']} nearer to the truth, {other['further']} further, {other['same']} the same"
        console.print(f"context: {other['gain']} rows gained, {other['harm']} harmed; {moved}", highlight=False)


def _scale(name: str) -> float:
    return 1 if name in ("edit_similarity", "bleu4", "chrf") else 100


def _show_cell(cell: dict[str, float] | None, name: str) -> str:
    if cell is None:
        return ""
    value, low, high = (cell[key] * _scale(name) for key in ("value", "low", "high"))
    return f"{value:.1f} [{low:.0f}-{high:.0f}]"


def _show_gap(gap: dict[str, Any] | None, name: str) -> str:
    if gap is None:
        return ""
    value, least = gap["value"] * _scale(name), gap["smallest_visible"] * _scale(name)
    return f"{value:+.1f} *" if gap["visible"] else f"{value:+.1f} <{least:.1f}"
