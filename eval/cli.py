"""Commands of the evaluation: `run` asks the models and writes the report, `report` writes it again, `suite` asks the
holes of any file, `infilling` runs completions against tests, `scrub-bench` compares scrubbers, `sft-bench` trainers, `judge-bench`
judges, `server-bench` asking through the server with llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.errors import CheckFailed, InputError, errors_in_one_line
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


@app.command()
def judge_bench(
    problems: Annotated[Path, typer.Option(help="Problems in human-eval-infilling's schema: JSONL, gz or not.")],
    rounds: Annotated[int, typer.Option(min=1, help="Times each system has its turn.")] = 3,
    workers: Annotated[int, typer.Option(min=0, help="Programs at a time, of both; 0: one per core.")] = 0,
    empty: Annotated[bool, typer.Option(help="Judge empty completions too.")] = True,
    json: Annotated[Path | None, typer.Option(help="Write the figures here too.")] = None,
) -> None:
    """Compare the judge with one process per program: verdicts on canonical and empty completions, programs per second."""
    with errors_in_one_line():
        from core.records import write_json
        from eval import judge_bench

        figures = judge_bench.run(problems, rounds, workers, empty)
        if json is not None:
            write_json(json, figures)
        judge_bench.show(figures)


@app.command()
def server_bench(
    gguf: Annotated[Path, typer.Option(help="The model.")] = Path("phase3_quantize/out/quantize/model-q4_k_m.gguf"),
    samples: Samples = SAMPLES,
    rows: Annotated[int, typer.Option(min=1, help="Held-out rows.")] = 1000,
    slots: Annotated[int, typer.Option(min=1, help="Slots of the server, rows at a time of the peer.")] = 16,
    threads: Annotated[int, typer.Option(min=0, help="Threads of both; 0: every core.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="Tokens per completion.")] = 48,
    rounds: Annotated[int, typer.Option(min=1, help="Times each has its turn.")] = 3,
    servers: Annotated[int, typer.Option(min=0, help="Servers that share slots and threads; 0: as an evaluation would choose.")] = 0,
    server_flags: Annotated[str, typer.Option(help="More flags of llama-server, such as '--poll 0'.")] = "",
    json: Annotated[Path | None, typer.Option(help="Write the figures here too.")] = None,
) -> None:
    """Compare an evaluation through llama-server with llama-batched-bench: tokens/s on the same model."""
    with errors_in_one_line():
        from core.records import write_json
        from eval import llama_server, server_bench

        plan = server_bench.Plan(gguf, slots, threads or llama_server.cores(), limit, servers, tuple(server_flags.split()))
        figures = server_bench.run(samples, rows, plan, rounds)
        if json is not None:
            write_json(json, figures)
        server_bench.show(figures)


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
def convert_bench(
    llama_cpp: Annotated[
        Path | None, typer.Option(help="Folder of llama.cpp; default: out of the source package of llama-cpp-python, fetched.")
    ] = None,
    tiny: Annotated[Path, typer.Option(help="The shipped base.")] = Path("phase2_train/tiny_base"),
    rounds: Annotated[int, typer.Option(min=1, help="Times each side has its turn on the 0.5B shape.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="Leave the 0.5B shape out.")] = False,
    cache: Annotated[Path, typer.Option(help="Where a fetched source package is kept.")] = Path("eval/out/llama.cpp"),
    json: Annotated[Path | None, typer.Option(help="Write the figures here too.")] = None,
) -> None:
    """Compare our converter with llama.cpp's: tensor by tensor, key by key, seconds and memory."""
    with errors_in_one_line():
        from core.records import write_json
        from eval import convert_bench

        figures = convert_bench.run(llama_cpp, tiny, rounds, quick, cache)
        if json is not None:
            write_json(json, figures)
        for line in convert_bench.lines(figures):
            print(line)
        convert_bench.check(figures)


@app.command()
def quant_identity(
    llama_cpp: Annotated[
        Path | None, typer.Option(help="Folder of llama.cpp; default: out of the source package of llama-cpp-python, fetched.")
    ] = None,
    tiny: Annotated[Path, typer.Option(help="The shipped base.")] = Path("phase2_train/tiny_base"),
    rounds: Annotated[int, typer.Option(min=1, help="Times folder to quantized file is measured on the 0.5B shape.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="Leave the 0.5B shape out.")] = False,
    cache: Annotated[Path, typer.Option(help="Where a fetched source package is kept.")] = Path("eval/out/llama.cpp"),
    json: Annotated[Path | None, typer.Option(help="Write the figures here too.")] = None,
) -> None:
    """Compare our quantizer with llama-quantize: every type, with and without importance, tensor by tensor, seconds and memory."""
    with errors_in_one_line():
        from core.records import write_json
        from eval import quant_identity

        figures = quant_identity.run(llama_cpp, tiny, rounds, quick, cache)
        if json is not None:
            write_json(json, figures)
        for line in quant_identity.lines(figures):
            print(line)
        quant_identity.check(figures)


@app.command()
def quant_bench(
    gguf: Annotated[Path | None, typer.Option(help="A model as GGUF, quantized or not.")] = None,
    hf: Annotated[Path | None, typer.Option(help="A model as Hugging Face folder.")] = None,
    shape: Annotated[str | None, typer.Option(help="No model: speed alone, weights random, at the shape of qwen2.5-coder-0.5b.")] = None,
    text: Annotated[list[Path] | None, typer.Option(help="Files of text, or folders of Python; half weighs the columns.")] = None,
    types: Annotated[str, typer.Option(help="Types, separated by commas.")] = "Q4_K_M,Q5_K_M,Q4_0,IQ4_NL,Q8_0,MIX32_M,MIX32_S",
    rows: Annotated[int, typer.Option(min=1, help="Windows of 128 tokens that judge.")] = 40,
    chunks: Annotated[int, typer.Option(min=1, help="Windows of 512 tokens that weigh the columns.")] = 50,
    rounds: Annotated[int, typer.Option(min=1, help="Times each file is timed.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="Threads of llama.cpp.")] = 2,
    permute: Annotated[bool, typer.Option(help="Permute a GGUF's columns first, so that no old blocks show.")] = True,
    search: Annotated[bool, typer.Option("--search", help="Look for a mix for this model; takes some 60 readings.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the figures here too.")] = None,
) -> None:
    """Compare quantizations of any model: size, KL from the full one on plain text, speed, memory."""
    with errors_in_one_line():
        from core.records import write_json
        from eval import quant_bench

        if shape is not None:
            figures = quant_bench.of_shape(shape, types, rounds, threads)
        else:
            figures = quant_bench.run(gguf, hf, text or [], types, rows, chunks, rounds, threads, permute, search)
        if json is not None:
            write_json(json, figures)
        print(f"recommended: {figures['recommended']}: {figures['reason']}")


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
