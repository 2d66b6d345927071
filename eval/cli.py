"""Commands of the evaluation: `run` asks the models and writes the report, `report` writes it again, `scrub-bench` compares scrubbers,
`sft-bench` trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.errors import CheckFailed, errors_in_one_line
from core.params import PARAMS_FILE, load_params
from eval.params import EvaluateParams

app = typer.Typer(help="Are the completions better, and how fast are they?", no_args_is_help=True, pretty_exceptions_enable=False)

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
        from eval import evaluate, models
        from eval import report as reports

        section = load_params(EvaluateParams, "evaluate", params, profile)
        evaluate.run(samples, models.Places(base, sft, dpo, merged, gguf), rows, section)
        summary = reports.run(reports.Sources(rows, samples, quantize, serve, card, root), out, section)
        leading = [step for step in summary.steps if step.scope == summary.scopes[0]]
        for step in leading:
            print(f"{step.child} against {step.parent}: {step.verdict}")
        worse = [step for step in leading if step.verdict == "worse" and step.child in summary.way]
        print(f"{out}/report.html")
        if worse and section.gate == "fail":
            raise CheckFailed(f"{worse[0].child} is worse than {worse[0].parent}: read {out}/report.md, or set evaluate.gate to warn")


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
def sft_bench(
    samples: Samples = SAMPLES,
    base: Annotated[Path, typer.Option(help="The base model.")] = Path("phase2_train/out/base"),
    bits: Annotated[list[int] | None, typer.Option(help="4 (NF4 under the adapter) or 16; default: both.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Training rows, by hash.")] = 320,
    steps: Annotated[int, typer.Option(min=6, help="Optimizer steps of each run.")] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="Times each system has its turn.")] = 3,
    shape: Annotated[
        bool | None, typer.Option(help="Also at the shape of Qwen2.5-Coder-0.5B, weights random; default: where there is CUDA.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures here too.")] = None,
    params: ParamsFile = PARAMS_FILE,
    profile: Profile = None,
) -> None:
    """Compare our sft with a plain TRL script, and 4 with 16 bits: tokens/s, losses, memory."""
    with errors_in_one_line():
        import torch

        from core.records import write_json
        from eval import sft_bench, sft_table

        widths = sft_bench.widths(bits or [16, 4])
        wanted = torch.cuda.is_available() if shape is None else shape
        figures = sft_bench.run(base, samples, widths, rows, steps, rounds, wanted, params, profile)
        if json is not None:
            write_json(json, figures)
        sft_table.show(figures)


@app.command()
def scrub_bench(
    rows: Annotated[Path, typer.Option(help="Labelled rows, from `python -m phase1_data labelled`.")] = Path("rows.jsonl"),
    files: Annotated[Path | None, typer.Option(help="Folder of code, or a files.parquet; default: the Python code installed here.")] = None,
    mb: Annotated[float, typer.Option(min=0.001, help="MB of files to take, in hash order.")] = 8.0,
    every_file: Annotated[
        bool, typer.Option("--every-file", help="Run ours on all the files besides: what is rare shows only there.")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="Write the figures here too.")] = None,
) -> None:
    """Compare our scrubber with detect-secrets and with BigCode's rules: what they mask, what they spoil, how fast."""
    with errors_in_one_line():
        from core.records import write_json
        from eval import scrub_bench, scrub_table

        figures = scrub_bench.run(rows, files, int(mb * 1e6), every_file)
        if json is not None:
            write_json(json, figures)
        scrub_table.show(figures)
