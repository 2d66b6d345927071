"""Commands of the evaluation: `run` asks the models and writes the report, `report` writes it again, `suite` asks the
holes of any file, `infilling` runs completions against tests; comparisons with other programs are in eval/bench/cli.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.errors import CheckFailed, InputError, errors_in_one_line
from core.params import PARAMS_FILE, load_params
from eval.bench import cli as benches
from eval.params import EvaluateParams

app = typer.Typer(help="Are the completions better, and how fast are they?", no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(benches.app)

ParamsFile = Annotated[Path, typer.Option("--params", help="File with the profiles and their sections.")]
Profile = Annotated[str | None, typer.Option(help="Profile to use; default: the file's `profile:` key.")]
Samples = Annotated[Path, typer.Option(help="Folder of samples that phase 1 wrote.")]
Rows = Annotated[Path, typer.Option(help="Folder of the answers, one file per model.")]
Out = Annotated[Path, typer.Option(help="Folder of the report.")]
Quantize = Annotated[Path, typer.Option(help="Figures of quantization, if there.")]
Serve = Annotated[Path, typer.Option(help="Figures of the server, if there.")]
Card = Annotated[Path, typer.Option(help="Data card, if there.")]
Root = Annotated[Path, typer.Option(help="Folder of the phases, for their timings.")]

SAMPLES, ROWS, OUT = Path("phase1_data/out/samples"), Path("eval/out/rows"), Path("eval/reports")
QUANTIZE, SERVE, CARD = Path("phase3_quantize/out/quantize/quantize.json"), Path("phase4_serve/out/serve.json"), OUT / "data_card.json"


@app.command()
def run(
    samples: Samples = SAMPLES,
    base: Annotated[Path, typer.Option(help="The base model.")] = Path("phase2_train/out/base"),
    sft: Annotated[Path, typer.Option(help="Folder with the SFT adapter and its manifest.")] = Path("phase2_train/out/sft"),
    dpo: Annotated[Path, typer.Option(help="Folder with the DPO adapter and its manifest.")] = Path("phase2_train/out/dpo"),
    merged: Annotated[Path, typer.Option(help="The merged model.")] = Path("phase3_quantize/out/merge"),
    gguf: Annotated[Path, typer.Option(help="The quantized model.")] = Path("phase3_quantize/out/quantize/model-q4_k_m.gguf"),
    quantize: Quantize = QUANTIZE,
    serve: Serve = SERVE,
    card: Card = CARD,
    rows: Rows = ROWS,
    out: Out = OUT,
    root: Root = Path(),
    params: ParamsFile = PARAMS_FILE,
    profile: Profile = None,
) -> None:
    """Ask every model for every held-out hole and write the report; answers that are there already are kept."""
    with errors_in_one_line():
        from eval import evaluate, leakage, models
        from eval import report as reports
        from eval.report_leakage import leaks_in_short

        section = load_params(EvaluateParams, "evaluate", params, profile)
        evaluate.run(samples, models.Places(base, sft, dpo, merged, gguf), rows, section)
        leaked = leaks_in_short(leakage.run(samples, card, models.Places(base, sft, dpo, merged, gguf), rows, section, evaluate.CODE))
        summary = reports.run(reports.Sources(rows, samples, quantize, serve, card, root), out, section)
        leading = [step for step in summary.steps if step.scope == summary.scopes[0]]
        for step in leading:
            print(f"{step.child} against {step.parent}: {step.verdict}")
        print(f"leakage: {leaked.value} {leaked.note}")
        worse = [step for step in leading if step.verdict == "worse" and step.child in summary.way]
        print(f"{out}/report.html")
        if worse and section.gate == "fail":
            raise CheckFailed(f"{worse[0].child} is worse than {worse[0].parent}: read {out}/report.md, or set evaluate.gate to warn")
        if leaked.tone == "bad" and section.gate == "fail":
            raise CheckFailed(f"the model gives secrets away: read Leakage in {out}/report.md, or set evaluate.gate to warn")


@app.command()
def report(
    samples: Samples = SAMPLES,
    quantize: Quantize = QUANTIZE,
    serve: Serve = SERVE,
    card: Card = CARD,
    rows: Rows = ROWS,
    out: Out = OUT,
    root: Root = Path(),
    params: ParamsFile = PARAMS_FILE,
    profile: Profile = None,
) -> None:
    """Write the report again from the answers that are there."""
    with errors_in_one_line():
        from eval import report as reports

        section = load_params(EvaluateParams, "evaluate", params, profile)
        reports.run(reports.Sources(rows, samples, quantize, serve, card, root), out, section)
        print(f"{out}/report.html")


@app.command()
def keep(
    name: Annotated[str, typer.Argument(help="Name to compare it by later.")],
    out: Annotated[Path, typer.Option(help="Folder of the evaluation.")] = Path("eval/out"),
    root: Root = Path(),
) -> None:
    """Keep the last run under eval/out/kept, for `compare`."""
    with errors_in_one_line():
        from eval import kept

        print(kept.keep(out, root, name, out / "kept"))


@app.command()
def compare(
    run_a: Annotated[str, typer.Argument(help="A kept run's name, or a run folder: eval/out of a checkout, or a copy of it.")],
    run_b: Annotated[str, typer.Argument(help="Another.")],
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("eval/out/compare.html"),
) -> None:
    """Set two runs side by side: what was set differently, every figure, paired tests where the same holes were asked."""
    with errors_in_one_line():
        from eval import compare as step

        print(step.run(run_a, run_b, out))
        print(out)


@app.command()
def suite(
    rows: Annotated[Path, typer.Option(help="JSONL, gz or not: prefix, middle, suffix, or CrossCodeEval's keys; or samples as Parquet.")],
    model: Annotated[str, typer.Option(help="hf:FOLDER, gguf:FILE, server:URL, or server:FILE to start one for it.")],
    name: Annotated[str, typer.Option(help="Name of the suite, and of its files.")],
    parent: Annotated[str | None, typer.Option(help="Model to compare with, named like --model.")] = None,
    context: Annotated[str, typer.Option(help="What was retrieved for a row: on, off, or both.")] = "on",
    order: Annotated[str, typer.Option(help="spm or psm.")] = "spm",
    limit: Annotated[int, typer.Option(min=1, help="Tokens per completion.")] = 48,
    first: Annotated[int, typer.Option(min=0, help="Rows to take, by a hash of their id; 0: all.")] = 0,
    lang: Annotated[str | None, typer.Option(help="Language of rows that do not tell; default: python.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = Path("eval/out/suites"),
) -> None:
    """Ask a model for the holes of any file: text metrics raw and as an editor shows them, intervals, a paired test."""
    with errors_in_one_line():
        from eval import suites

        for option, value, allowed in (("context", context, ("on", "off", "both")), ("order", order, ("spm", "psm"))):
            if value not in allowed:
                raise InputError(f"--{option} {value!r} is none of {', '.join(allowed)}")
        settings = suites.Settings(order, limit)  # type: ignore[arg-type]
        figures = suites.run(rows, model, parent, context, name, out, settings, lang, first)  # type: ignore[arg-type]
        suites.show(figures)
        print(f"{out}/{name}.json")


@app.command()
def infilling(
    problems: Annotated[Path, typer.Option(help="Problems in human-eval-infilling's schema: JSONL, gz or not.")],
    output: Annotated[Path, typer.Option(help="The result; its rows and verdicts go beside it.")],
    completions: Annotated[Path | None, typer.Option(help="JSONL of task_id and completion; several of one task are samples.")] = None,
    model: Annotated[str | None, typer.Option(help="Or the model that completes them: hf:FOLDER, gguf:FILE, server:URL.")] = None,
    order: Annotated[str, typer.Option(help="spm or psm, for --model.")] = "spm",
    limit: Annotated[int, typer.Option(min=1, help="Tokens per completion, for --model.")] = 128,
    seconds: Annotated[float, typer.Option(min=0.1, help="Wall clock of a program and its test.")] = 3.0,
    memory: Annotated[int, typer.Option(min=64, help="MiB of address space of a program.")] = 1024,
    workers: Annotated[int, typer.Option(min=0, help="Programs at a time; 0: one per core.")] = 0,
    name: Annotated[str | None, typer.Option(help="Name of the suite; default: the problems' file name.")] = None,
    suites: Annotated[Path, typer.Option(help="Folder of the figures that the report shows.")] = Path("eval/out/suites"),
) -> None:
    """Run every completion with its problem's test, boxed in, and write pass@k; verdicts that are there already are kept."""
    with errors_in_one_line():
        from eval import infilling
        from eval.sandbox.pool import Settings

        if order not in ("spm", "psm"):
            raise InputError(f"--order {order!r} is none of spm, psm")
        settings = Settings(seconds, memory << 20, workers)
        result = infilling.run(problems, completions, model, output, settings, limit, order, suites, name)  # type: ignore[arg-type]
        print(infilling.line(result))
        print(f"sandbox: {result['sandbox']}")
        print(output)
