"""Tell what the figures say: the verdict first, then what it rests on.

In:  rows and manifest of the evaluation, the held-out samples, and, where they are, the figures of the other phases
Out: eval/reports/report.html; report.md, the same in short; metrics.json, plots/*.csv

A file of another phase that is missing is said to be missing; nothing else of the report depends on it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import InputError
from core.manifest import MANIFEST
from core.records import Row, read_json, read_parquet, write_json, write_text
from eval import page
from eval.document import Block, Text, markdown
from eval.measures import BY_NAME
from eval.models import Model
from eval.params import EvaluateParams
from eval.report_data import data, timings
from eval.report_examples import examples
from eval.report_latency import latency
from eval.report_leakage import leakage, remembers, told
from eval.report_method import again, method
from eval.report_quality import parts, quality, steps_table
from eval.report_quantization import quantization
from eval.report_suites import read_suites, suites
from eval.report_verdict import findings, first_screen, lead
from eval.report_words import NAMES
from eval.ships import read_gates, refusals
from eval.summary import Summary, flat, summarize

TITLE = "Are the completions better, and how fast are they?"
SHOWN = ("bootstrap", "seed", "gate", "max_gguf_loss_points", "examples")  # params that shape the report and not the rows


class Sources(NamedTuple):
    """Files that the report reads."""

    rows: Path  # folder of rows, with the evaluation's manifest; leakage.json and suites/ lie beside it
    samples: Path
    quantize: Path
    serve: Path
    data_card: Path
    root: Path  # of the phases, for their manifests, timings, verdicts of the gates and the comparison of types


class Evaluation(NamedTuple):
    """Rows read again, and what they sum up to."""

    manifest: dict[str, Any]
    rows: dict[str, list[Row]]
    summary: Summary
    params: EvaluateParams


def read_evaluation(folder: Path, params: EvaluateParams | None) -> Evaluation:
    """The evaluation that left its rows in a folder; `params` may change what shapes no row.

    Raises:
        InputError: there is none, or it is damaged or of another version.
    """
    manifest = read_json(folder / MANIFEST, "python -m eval run")
    try:
        models = manifest["counts"]["models"]
        asked = EvaluateParams.model_validate(manifest["params"]["evaluate"])
        links = [Model(one["name"], one["parent"], (), one["bits"]) for one in models]
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{folder / MANIFEST} is not of this version: run `python -m eval run` again") from None
    rows = {str(one.name): list(read_parquet(folder / f"{one.name}.parquet", "python -m eval run")) for one in links}
    used = asked.model_copy(update={key: getattr(params, key) for key in SHOWN}) if params else asked
    return Evaluation(manifest, rows, summarize(links, rows, used), used)


def optional(file: Path) -> dict[str, Any] | None:
    """A JSON object that may not be there.

    Raises:
        InputError: it is there and damaged.
    """
    if not file.is_file():
        return None
    found = read_json(file, "the stage that wrote it")
    return found if isinstance(found, dict) else None


def measured(sources: Sources) -> dict[str, dict[str, Any] | None]:
    """What other stages left, by stage; None where there is nothing."""
    phase3 = sources.root / "phase3_quantize" / "out"
    return {
        "merge": optional(phase3 / "merge" / MANIFEST),
        "quantize": optional(sources.quantize),
        "choose": optional(phase3 / "choose" / "choose.json"),
        "serve": optional(sources.serve),
        "card": optional(sources.data_card),
        "leakage": optional(sources.rows.parent / "leakage.json"),
    }


def held_out(evaluation: Evaluation, samples: Path) -> dict[str, Row]:
    """The samples that were asked, by their id."""
    wanted = {row["sample_id"] for row in evaluation.rows[evaluation.summary.models[0]]}
    files = [file for split in evaluation.params.splits if (file := samples / f"{split}.parquet").is_file()]
    return {
        row["sample_id"]: row for file in files for row in read_parquet(file, "python -m phase1_data samples") if row["sample_id"] in wanted
    }


def metrics(summary: Summary, found: Mapping[str, Any]) -> dict[str, Any]:
    """metrics.json: the evaluation's figures, and the leakage's."""
    flattened: dict[str, Any] = dict(flat(summary))
    counts, leaked = told(found["leakage"]), found["leakage"]
    if counts is not None and leaked:
        flattened |= dict(
            zip((f"leakage.{key}" for key in ("prompts", "prompts_with_secret", "canaries", "reproduced")), counts, strict=True)
        )
        flattened |= {f"leakage.exposure.{name}": one["mean"] for name, one in leaked["exposure"].items()}
        flattened["leakage.exposure_above_chance"] = int(remembers(leaked))
    return flattened


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


def run(sources: Sources, out: Path, params: EvaluateParams) -> Summary:
    """Write the report from what the last evaluation left.

    Raises:
        InputError: there is no evaluation, or its rows are damaged.
    """
    evaluation = read_evaluation(sources.rows, params)
    manifest, rows, summary, used = evaluation
    found, gates = measured(sources), read_gates(sources.root)
    sizes = {one["name"]: one["bytes"] for one in manifest["counts"]["models"]}
    device = (optional(sources.rows.parent / "runs" / "evaluate.json") or {}).get("device", "not recorded")
    top = list(first_screen(summary, gates, sizes, used, found))
    reasons = [*refusals(gates), *findings(summary, sizes, used, found)]
    phase3 = list(quantization(found["merge"], found["quantize"], found["choose"]))
    served, leaked = list(latency(found["serve"])), list(leakage(found["leakage"], summary.leaks))
    benchmarks, source = list(suites(read_suites(sources.rows.parent / "suites"))), list(data(found["card"]))
    how, repeat = list(method(manifest)), list(again(manifest, sources.root))
    said = lead(summary, manifest, str(device))
    whole: list[Block] = [
        *reasons, *quality(summary), *steps_table(summary), *parts(summary), *phase3, *served, *benchmarks, *leaked,
        *examples(summary, rows, held_out(evaluation, sources.samples), used.examples), *source, *timings(sources.root), *how, *repeat,
    ]  # fmt: skip
    short: list[Block] = [*top, *reasons, *quality(summary), *phase3, *served, *benchmarks, *leaked, *source, *how, *repeat]
    write_text(out / "report.html", page.html(TITLE, said, top, whole))
    write_text(
        out / "report.md", markdown(TITLE, [Text(said), *short, Text("Examples, every step in every order, and times: report.html.")])
    )
    write_json(out / "metrics.json", metrics(summary, found))
    plots(summary, ("exact_match", "first_line_match", "edit_similarity"), out / "plots" / "quality.csv")
    plots(summary, ("loss", "bits_per_byte"), out / "plots" / "loss.csv")
    return summary
