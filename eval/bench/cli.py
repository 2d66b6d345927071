"""Commands that measure one part beside another program, or beside what was asked for: each prints a table, `--json` keeps the figures.

`latency` and `load-bench` start the server as a user does; `server-bench` compares asking through llama-server, `scrub-bench`
scrubbers, `retrieval-bench` ways to retrieve, `sft-bench` trainers, `judge-bench` judges, `convert-bench`, `quant-identity` and
`quant-bench` what makes a GGUF.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.errors import InputError, errors_in_one_line
from core.params import PARAMS_FILE

app = typer.Typer()

ParamsFile = Annotated[Path, typer.Option("--params", help="File with the profiles and their sections.")]
Profile = Annotated[str | None, typer.Option(help="Profile to use; default: the file's `profile:` key.")]
Samples = Annotated[Path, typer.Option(help="Folder of samples that phase 1 wrote.")]
Figures = Annotated[Path | None, typer.Option("--json", help="Write the figures here too.")]

SAMPLES = Path("phase1_data/out/samples")
GGUF = Path("phase3_quantize/out/quantize/model-q4_k_m.gguf")


@app.command()
def latency(
    model: Annotated[Path, typer.Option(help="The GGUF; for the speed of a model that is not here: `phase3_quantize random-gguf`.")] = GGUF,
    keys: Annotated[int, typer.Option(min=8, help="Keystrokes through our server.")] = 200,
    peer_keys: Annotated[int, typer.Option(min=4, help="Of the same keystrokes, how many go through each llama-server.")] = 40,
    jumps: Annotated[int, typer.Option(min=1, max=60, help="Jumps to another function.")] = 24,
    up: Annotated[str, typer.Option(help="More flags of `phase4_serve up`.")] = "",
    json: Figures = None,
) -> None:
    """Replay keystrokes through the server and through llama-server's own /infill: milliseconds, tokens per key, memory."""
    with errors_in_one_line():
        from core.records import write_json
        from eval.bench import latency

        figures = latency.run(latency.Plan(model, keys, min(peer_keys, keys), jumps, tuple(up.split())))
        if json is not None:
            write_json(json, figures)
        latency.show(figures)


@app.command()
def load_bench(
    model: Annotated[Path, typer.Option(help="The GGUF; for the speed of a model that is not here: `phase3_quantize random-gguf`.")] = GGUF,
    seconds: Annotated[int, typer.Option(min=2, help="How long the sessions type.")] = 60,
    sessions: Annotated[int, typer.Option(min=1, max=16, help="Sessions that type at once.")] = 8,
    connections: Annotated[int, typer.Option(min=10, help="Connections at once.")] = 500,
    chat_tokens: Annotated[int, typer.Option(min=16, help="Length of the chat beside which is typed.")] = 500,
    up: Annotated[str, typer.Option(help="More flags of `phase4_serve up`.")] = "",
    json: Figures = None,
) -> None:
    """Many who type at once, many connections, slow readers, a chat, a killed llama-server: what each does to the others."""
    with errors_in_one_line():
        from core.records import write_json
        from eval.bench import load_bench, load_table

        plan = load_bench.Plan(model, seconds, sessions, connections, chat_tokens, tuple(up.split()))
        figures = load_bench.run(plan)
        figures["rows"] = load_table.rows(figures, plan)
        if json is not None:
            write_json(json, figures)
        load_table.show(figures)


@app.command()
def flags_bench(
    model: Annotated[Path, typer.Option(help="The GGUF for speed: `phase3_quantize random-gguf` makes one of any shape.")] = GGUF,
    drafts: Annotated[list[Path] | None, typer.Option(help="GGUFs with real weights on which n-gram drafts are tried.")] = None,
    code: Annotated[Path, typer.Option(help="Folder of Python files to complete.")] = Path(),
    prompts: Annotated[int, typer.Option(min=2, help="Places that are completed.")] = 16,
    only: Annotated[list[str] | None, typer.Option(help="Of the sets of flags, by name.")] = None,
    json: Figures = None,
) -> None:
    """What llama-server's flags are worth: speed, memory, seconds until a cancelled prompt ends, n-gram drafts."""
    with errors_in_one_line():
        from core.records import write_json
        from eval.bench import flags_bench as bench

        figures = bench.run(model, drafts or [], code, prompts, only or [])
        if json is not None:
            write_json(json, figures)


@app.command()
def warm_bench(
    model: Annotated[Path, typer.Option(help="The GGUF to serve.")] = GGUF,
    code: Annotated[Path, typer.Option(help="A file whose middle is completed.")] = Path("core/fim.py"),
    rounds: Annotated[int, typer.Option(min=1, help="Restarts of each kind.")] = 3,
    json: Figures = None,
) -> None:
    """The first completion after a restart, with the slots kept and without."""
    with errors_in_one_line():
        from core.records import write_json
        from eval.bench import warm_bench as bench

        figures = bench.run(model, code, rounds)
        if json is not None:
            write_json(json, figures)


@app.command()
def judge_bench(
    problems: Annotated[Path, typer.Option(help="Problems in human-eval-infilling's schema: JSONL, gz or not.")],
    rounds: Annotated[int, typer.Option(min=1, help="Times each system has its turn.")] = 3,
    workers: Annotated[int, typer.Option(min=0, help="Programs at a time, of both; 0: one per core.")] = 0,
    empty: Annotated[bool, typer.Option(help="Judge empty completions too.")] = True,
    json: Figures = None,
) -> None:
    """Compare the judge with one process per program: verdicts on canonical and empty completions, programs per second."""
    with errors_in_one_line():
        from core.records import write_json
        from eval.bench import judge_bench

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
    json: Figures = None,
) -> None:
    """Compare an evaluation through llama-server with llama-batched-bench: tokens/s on the same model."""
    with errors_in_one_line():
        from core.records import write_json
        from eval import llama_server
        from eval.bench import server_bench

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
    json: Figures = None,
    params: ParamsFile = PARAMS_FILE,
    profile: Profile = None,
) -> None:
    """Compare our sft with a plain TRL script, and 4 with 16 bits: tokens/s, losses, memory."""
    with errors_in_one_line():
        import torch

        from core.records import write_json
        from eval.bench import sft_bench, sft_table

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
    json: Figures = None,
) -> None:
    """Compare our converter with llama.cpp's: tensor by tensor, key by key, seconds and memory."""
    with errors_in_one_line():
        from core.records import write_json
        from eval.bench import convert_bench

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
    json: Figures = None,
) -> None:
    """Compare our quantizer with llama-quantize: every type, with and without importance, tensor by tensor, seconds and memory."""
    with errors_in_one_line():
        from core.records import write_json
        from eval.bench import quant_identity

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
    json: Figures = None,
) -> None:
    """Compare quantizations of any model: size, KL from the full one on plain text, speed, memory."""
    with errors_in_one_line():
        from core.records import write_json
        from eval.bench import quant_bench

        if shape is not None:
            figures = quant_bench.of_shape(shape, types, rounds, threads)
        else:
            figures = quant_bench.run(gguf, hf, text or [], types, rows, chunks, rounds, threads, permute, search)
        if json is not None:
            write_json(json, figures)
        print(f"recommended: {figures['recommended']}: {figures['reason']}")


@app.command()
def retrieval_bench(
    repo: Annotated[list[Path] | None, typer.Option(help="Folders of repositories; default: packages of this environment.")] = None,
    sites: Annotated[int, typer.Option(min=1, help="Call sites of each repository.")] = 60,
    model: Annotated[Path, typer.Option(help="GGUF for the vectors, and for --completions.")] = GGUF,
    completions: Annotated[int, typer.Option(min=0, help="Held-out holes completed without and with context; 0: none.")] = 0,
    scale: Annotated[int, typer.Option(min=0, help="Pieces of a large workspace to index and ask; 0: none.")] = 0,
    samples: Samples = SAMPLES,
    budget: Annotated[int, typer.Option(min=1, help="Tokens of context in a completion.")] = 160,
    json: Figures = None,
) -> None:
    """Compare ways to retrieve: rank of the definition at call sites, exact match of completions, speed and memory at scale."""
    with errors_in_one_line():
        from core.records import write_json
        from eval.bench import retrieval_bench, retrieval_completion, retrieval_scale

        if not model.is_file():
            raise InputError(f"{model} is missing: run `python -m phase3_quantize quantize` first, or name a GGUF file with --model")
        figures = {"ranks": retrieval_bench.run(repo or retrieval_bench.installed(), sites, model)}
        retrieval_bench.show(figures["ranks"])
        if completions:
            figures["completions"] = retrieval_completion.run(samples, model, completions, budget)
            retrieval_completion.show(figures["completions"])
        if scale:
            figures["scale"] = retrieval_scale.run(scale, model)
            retrieval_scale.show(figures["scale"])
        if json is not None:
            write_json(json, figures)


@app.command()
def scrub_bench(
    rows: Annotated[Path, typer.Option(help="Labelled rows, from `python -m phase1_data labelled`.")] = Path("rows.jsonl"),
    files: Annotated[Path | None, typer.Option(help="Folder of code, or a files.parquet; default: the Python code installed here.")] = None,
    mb: Annotated[float, typer.Option(min=0.001, help="MB of files to take, in hash order.")] = 8.0,
    every_file: Annotated[
        bool, typer.Option("--every-file", help="Run ours on all the files besides: what is rare shows only there.")
    ] = False,
    json: Figures = None,
) -> None:
    """Compare our scrubber with detect-secrets and with BigCode's rules: what they mask, what they spoil, how fast."""
    with errors_in_one_line():
        from core.records import write_json
        from eval.bench import scrub_bench, scrub_table

        figures = scrub_bench.run(rows, files, int(mb * 1e6), every_file)
        if json is not None:
            write_json(json, figures)
        scrub_table.show(figures)


@app.command()
def stops_bench(
    code: Annotated[list[Path], typer.Option(help="Folder of source files; may be given several times.")],
    per_kind: Annotated[int, typer.Option(min=1, help="Holes of each kind in each language.")] = 150,
    seed: Annotated[int, typer.Option(help="Of the choice of holes.")] = 17,
    json: Figures = None,
) -> None:
    """Do completions of real code end where they should: by syntax, and by indentation alone, as they did; eight languages."""
    with errors_in_one_line():
        from core.records import write_json
        from eval.bench import stops_bench

        figures = stops_bench.run(code, per_kind, seed)
        if json is not None:
            write_json(json, figures)
        stops_bench.show(figures)


@app.command()
def heal_bench(
    model: Annotated[Path, typer.Option(help="The GGUF.")] = GGUF,
    samples: Samples = SAMPLES,
    rows: Annotated[int, typer.Option(min=0, help="Held-out lines; 0 for random weights.")] = 300,
    words: Annotated[int, typer.Option(min=0, help="Words typed to measure the cost.")] = 12,
    where: Annotated[str, typer.Option(help="inside a word or behind one.")] = "inside",
    order: Annotated[str, typer.Option(help="spm, or ltr for a model without markers.")] = "spm",
    seed: Annotated[int, typer.Option(help="Of the choice of holes.")] = 17,
    json: Figures = None,
) -> None:
    """Ask for the rest of a word that is being typed with token healing and without: exact matches, and what the first text costs."""
    with errors_in_one_line():
        from core.records import write_json
        from eval.bench import heal_bench

        if where not in ("inside", "behind") or order not in ("spm", "ltr"):
            raise InputError("--where is inside or behind, --order is spm or ltr")
        figures = heal_bench.run(model, samples, rows, order, seed, where, words)  # type: ignore[arg-type]
        if json is not None:
            write_json(json, figures)
        heal_bench.show(figures)


@app.command()
def floor_bench(
    model: Annotated[Path, typer.Option(help="The GGUF.")] = GGUF,
    samples: Samples = SAMPLES,
    rows: Annotated[int, typer.Option(min=1, help="Held-out holes.")] = 800,
    seed: Annotated[int, typer.Option(help="Of the choice of holes.")] = 17,
    json: Figures = None,
) -> None:
    """What a confidence floor would hide, and how much of what is left is right, for many floors."""
    with errors_in_one_line():
        from core.records import write_json
        from eval.bench import floor_bench

        figures = floor_bench.run(model, samples, rows, "spm", seed)
        if json is not None:
            write_json(json, figures)
        floor_bench.show(figures)
