"""Commands of phase 3; each joins one step to its files and prints one line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.errors import InputError, errors_in_one_line
from core.params import PARAMS_FILE, load_params
from phase3_quantize.params import ChooseParams, MergeParams, QuantizeParams

app = typer.Typer(help="Phase 3: adapter in, merged weights, GGUF and a quantized GGUF out.", no_args_is_help=True)
ParamsFile = Annotated[Path, typer.Option("--params", help="File with the profiles and their sections.")]
Profile = Annotated[str | None, typer.Option(help="Profile to use; default: the file's `profile:` key.")]
Threads = Annotated[int, typer.Option(help="Threads of llama.cpp.", min=1)]

TRAINED, OUT = Path("phase2_train/out"), Path("phase3_quantize/out")
SAMPLES = Path("phase1_data/out/samples/test_file.parquet")
VALID, TRAIN = SAMPLES.with_name("valid.parquet"), SAMPLES.with_name("train.parquet")


@app.command()
def merge(
    base: Path = TRAINED / "base",
    adapter: Annotated[Path | None, typer.Option(help="Adapter folder; default: the one merge.adapter names.")] = None,
    samples: Annotated[Path, typer.Option(help="Held-out rows for merge.onto measured.")] = VALID,
    out: Path = OUT / "merge",
    params: ParamsFile = PARAMS_FILE,
    profile: Profile = None,
) -> None:
    """Put the adapter into the base, embeddings kept tied, onto the weights that keep it closest to what was trained."""
    with errors_in_one_line():
        from phase3_quantize import merge as step

        section = load_params(MergeParams, "merge", params, profile)
        if adapter is None and section.adapter != "none":
            adapter = TRAINED / {"shipped": "dpo_gate"}.get(section.adapter, section.adapter) / "adapter"
        counts = step.run(base, adapter, out, section, samples)
        typer.echo(
            f"{out}: {counts['shipped']}, {counts['merged']} of {counts['tensors']} tensors changed, "
            f"{counts['parameters'] / 1e6:,.1f}M parameters{merged_onto(counts)}"
        )


@app.command()
def convert(
    model: Annotated[Path, typer.Option(help="Hugging Face folder of a Qwen2 or Llama model.")] = OUT / "merge",
    out: Path = OUT / "quantize" / "model-f32.gguf",
    outtype: Annotated[str, typer.Option(help="f32, f16 or bf16; vectors and norms stay f32.")] = "f32",
) -> None:
    """Write a merged model as GGUF."""
    with errors_in_one_line():
        from phase3_quantize import convert as step
        from phase3_quantize.gguf_write import FTYPES

        if outtype not in FTYPES:
            raise InputError(f"--outtype {outtype!r} is none of {', '.join(FTYPES)}")
        contents = step.run(model, out, outtype)  # type: ignore[arg-type]
        typer.echo(
            f"{out}: {len(contents.tensors)} tensors, {out.stat().st_size / 1e6:,.1f} MB, {contents.bits_per_weight:.2f} bits per weight"
        )


@app.command("convert-lora")
def convert_lora(
    adapter: Annotated[Path, typer.Option(help="Adapter folder of peft.")] = TRAINED / "dpo_gate" / "adapter",
    base: Annotated[Path, typer.Option(help="The base it was trained on; only its config.json is read.")] = TRAINED / "base",
    out: Path = OUT / "adapter-f32.gguf",
    outtype: Annotated[str, typer.Option(help="f32, f16 or bf16.")] = "f32",
) -> None:
    """Write an adapter as GGUF, for `llama-server --lora` beside its base."""
    with errors_in_one_line():
        from phase3_quantize import convert_lora as step
        from phase3_quantize.gguf_write import FTYPES

        if outtype not in FTYPES:
            raise InputError(f"--outtype {outtype!r} is none of {', '.join(FTYPES)}")
        contents = step.run(adapter, base, out, outtype)  # type: ignore[arg-type]
        typer.echo(f"{out}: {len(contents.tensors)} tensors, {out.stat().st_size / 1e6:,.1f} MB")


@app.command()
def quantize(
    source: Annotated[Path, typer.Option("--in", help="GGUF in f32, f16 or bf16, or a folder.")] = OUT / "quantize" / "model-f32.gguf",
    out: Annotated[Path | None, typer.Option(help="Default: model-<type>.gguf beside the source.")] = None,
    kind: Annotated[str, typer.Option("--type", help="Q4_K_M, Q4_0, IQ4_NL, Q8_0, ...")] = "Q4_K_M",
    imatrix: Annotated[Path | None, typer.Option(help="Importance of the columns, from `imatrix` or llama-imatrix.")] = None,
    through: Annotated[str, typer.Option(help="Of a folder: f32, f16 or bf16, as if it were converted to that first.")] = "f32",
    threads: Threads = 2,
) -> None:
    """Quantize a GGUF, or a model folder without writing one in between, and say what came out."""
    with errors_in_one_line():
        from phase3_quantize import quantize as step
        from phase3_quantize.gguf_write import FTYPES

        if through not in FTYPES:
            raise InputError(f"--through {through!r} is none of {', '.join(FTYPES)}")
        target = out or source.with_name(step.quantized_name(kind))
        figures = step.run(source, target, kind, threads, imatrix, through)  # type: ignore[arg-type]
        typer.echo(f"{target}: {summary(figures)}")


@app.command()
def imatrix(
    model: Annotated[Path, typer.Option(help="The merged folder.")] = OUT / "merge",
    samples: Annotated[Path, typer.Option(help="Rows whose text the importance is measured on.")] = TRAIN,
    out: Path = OUT / "quantize" / "imatrix.gguf",
    params: ParamsFile = PARAMS_FILE,
    profile: Profile = None,
) -> None:
    """Measure how much each column of each matrix matters, on rows of the corpus with their markers."""
    with errors_in_one_line():
        from phase3_quantize import imatrix as step

        found = step.run(model, samples, out, load_params(QuantizeParams, "quantize", params, profile).imatrix_rows)
        typer.echo(f"{out}: {found['matrices']} matrices over {found['tokens']:,} tokens of {found['rows']} rows")


@app.command()
def verify(
    model: Annotated[Path, typer.Option(help="The merged folder both files were made from.")] = OUT / "merge",
    full: Path = OUT / "quantize" / "model-f32.gguf",
    small: Annotated[Path | None, typer.Option(help="Default: the file of quantize.type.")] = None,
    samples: Path = SAMPLES,
    params: ParamsFile = PARAMS_FILE,
    profile: Profile = None,
) -> None:
    """Show that the GGUF files are the model that was merged."""
    with errors_in_one_line():
        from phase3_quantize import verify as step
        from phase3_quantize.quantize import quantized_name

        section = load_params(QuantizeParams, "quantize", params, profile)
        found = step.run(model, full, small or OUT / "quantize" / quantized_name(section.type), samples, section)
        typer.echo(verdict(found))


@app.command()
def run(
    model: Path = OUT / "merge",
    train: Annotated[Path, typer.Option(help="Rows for the importance of the columns.")] = TRAIN,
    samples: Path = SAMPLES,
    out: Path = OUT / "quantize",
    params: ParamsFile = PARAMS_FILE,
    profile: Profile = None,
) -> None:
    """Convert, weigh, quantize and verify: the DVC stage `quantize`."""
    with errors_in_one_line():
        from phase3_quantize import stage

        found = stage.run(model, train, samples, out, load_params(QuantizeParams, "quantize", params, profile))
        typer.echo(f"{out}: {summary(found['quantized'])}; {verdict(found['verify'])}")


@app.command()
def choose(
    full: Annotated[Path, typer.Option(help="The file that is not quantized.")] = OUT / "quantize" / "model-f32.gguf",
    imatrix: Path = OUT / "quantize" / "imatrix.gguf",
    model: Annotated[Path, typer.Option(help="The merged folder, for its tokenizer.")] = OUT / "merge",
    samples: Annotated[Path, typer.Option(help="Held-out holes to compare on.")] = VALID,
    out: Path = OUT / "choose",
    params: ParamsFile = PARAMS_FILE,
    profile: Profile = None,
) -> None:
    """Make, read and time several quantizations and recommend one: the DVC stage `choose`."""
    with errors_in_one_line():
        from phase3_quantize import choose as step

        found = step.run(full, imatrix, model, samples, out, load_params(ChooseParams, "choose", params, profile))
        typer.echo(step.table(found["rows"]))
        typer.echo(f"{out / step.RECOMMENDED}: {found['recommended']}: {found['reason']}")


@app.command()
def measure(
    full: Annotated[Path, typer.Option(help="A GGUF that is not quantized.")],
    rows: Annotated[Path, typer.Option(help='JSONL of rows to read: {"ids": token ids, "start": where the judged ones begin}.')],
    json: Annotated[Path, typer.Option(help="Where the figures go.")],
    types: Annotated[str, typer.Option(help="Types, separated by commas; Q4_K_M is always among them.")] = "Q4_K_M,Q4_0,IQ4_NL,Q8_0",
    imatrix: Annotated[Path | None, typer.Option(help="Measure each type with this importance too.")] = None,
    search: Annotated[bool, typer.Option("--search", help="Look for a mix no worse than Q4_K_M; takes some 60 readings.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Times each file is timed.")] = 3,
    threads: Threads = 2,
) -> None:
    """Make, read and time quantizations of any GGUF, holes or not."""
    with errors_in_one_line():
        from phase3_quantize import choose as step

        figures = step.measure(full, rows, types.split(","), imatrix, search, threads, rounds, json)
        typer.echo(step.table(figures["rows"]))


@app.command("random-gguf")
def random_gguf(
    out: Annotated[Path, typer.Option(help="File to write.")],
    shape: Annotated[str, typer.Option(help="qwen2.5-coder-0.5b or qwen2.5-coder-1.5b.")] = "qwen2.5-coder-0.5b",
    kind: Annotated[str, typer.Option("--type", help="F32, F16, BF16, or a type of `quantize`.")] = "Q4_K_M",
    seed: int = 17,
    threads: Threads = 2,
) -> None:
    """Write random weights of a real model's exact shape, for measuring speed and memory."""
    with errors_in_one_line():
        from phase3_quantize import random_gguf as step

        typer.echo(f"{out}: {summary(step.run(shape, kind, out, seed, threads))}")


def merged_onto(counts: dict) -> str:
    """Onto which weights, and how far each choice is from the trained model."""
    if counts["onto"] is None:
        return ""
    found = counts["measured"]
    if found is None:
        return f", onto {counts['onto']} weights"
    divergences = ", ".join(f"{onto} {found[onto]['kl_mean']:.6f}" for onto in ("nf4", "full"))
    return f", onto {counts['onto']} weights (KL {divergences} over {found['tokens']:,} tokens)"


def summary(figures: dict) -> str:
    """Size and types of a GGUF in a few words."""
    types = ", ".join(f"{count} {kind}" for kind, count in figures["tensors"].items())
    fell = sum(entry["tensors"] for entry in figures["fallbacks"])
    note = f"; {fell} fell back ({figures['fallbacks'][0]['cause']})" if fell else ""
    return f"{figures['bytes'] / 1e6:,.1f} MB, {figures['bits_per_weight']:.2f} bits per weight, tensors {types}{note}"


def verdict(found: dict) -> str:
    """What the verification found in a few words."""
    equality, loss = found["equality"], found["quantization"]
    return (
        f"{equality['tokens']} greedy tokens of {equality['prompts']} prompts equal ({equality['near_ties']} near-ties), "
        f"{found['tokenizer_texts']} texts tokenized alike, KL {loss['kl_mean']:.4f} nats on middles, "
        f"stops by itself on {found['stops_by_itself']['share']:.0%}"
    )
