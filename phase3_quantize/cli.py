"""Commands of phase 3; each joins one step to its files and prints one line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.errors import InputError, errors_in_one_line
from core.params import PARAMS_FILE, load_params
from phase3_quantize.params import MergeParams, QuantizeParams

app = typer.Typer(help="Phase 3: adapter in, merged weights, GGUF and a quantized GGUF out.", no_args_is_help=True)
ParamsFile = Annotated[Path, typer.Option("--params", help="File with the profiles and their sections.")]
Profile = Annotated[str | None, typer.Option(help="Profile to use; default: the file's `profile:` key.")]
Threads = Annotated[int, typer.Option(help="Threads of llama.cpp.", min=1)]

TRAINED, OUT = Path("phase2_train/out"), Path("phase3_quantize/out")
SAMPLES = Path("phase1_data/out/samples/test_file.parquet")


@app.command()
def merge(
    base: Path = TRAINED / "base",
    adapter: Annotated[Path | None, typer.Option(help="Adapter folder; default: the one merge.adapter names.")] = None,
    out: Path = OUT / "merge",
    params: ParamsFile = PARAMS_FILE,
    profile: Profile = None,
) -> None:
    """Put the adapter into the full-precision base, embeddings kept tied."""
    with errors_in_one_line():
        from phase3_quantize import merge as step

        section = load_params(MergeParams, "merge", params, profile)
        if adapter is None and section.adapter != "none":
            adapter = TRAINED / {"shipped": "dpo_gate"}.get(section.adapter, section.adapter) / "adapter"
        counts = step.run(base, adapter, out, section)
        typer.echo(
            f"{out}: {counts['shipped']}, {counts['merged']} of {counts['tensors']} tensors changed, "
            f"{counts['parameters'] / 1e6:,.1f}M parameters"
        )


@app.command()
def convert(
    model: Annotated[Path, typer.Option(help="Hugging Face folder of a Qwen2 model.")] = OUT / "merge",
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


@app.command()
def quantize(
    source: Annotated[Path, typer.Option("--in", help="GGUF in f32, f16 or bf16.")] = OUT / "quantize" / "model-f32.gguf",
    out: Annotated[Path | None, typer.Option(help="Default: model-<type>.gguf beside the source.")] = None,
    kind: Annotated[str, typer.Option("--type", help="Q4_K_M, Q4_0, IQ4_NL, Q8_0, ...")] = "Q4_K_M",
    threads: Threads = 2,
) -> None:
    """Quantize a GGUF and say what came out."""
    with errors_in_one_line():
        from phase3_quantize import quantize as step

        target = out or source.with_name(step.quantized_name(kind))
        typer.echo(f"{target}: {summary(step.run(source, target, kind, threads))}")


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
    samples: Path = SAMPLES,
    out: Path = OUT / "quantize",
    params: ParamsFile = PARAMS_FILE,
    profile: Profile = None,
) -> None:
    """Convert, quantize and verify: the DVC stage `quantize`."""
    with errors_in_one_line():
        from phase3_quantize import stage

        found = stage.run(model, samples, out, load_params(QuantizeParams, "quantize", params, profile))
        typer.echo(f"{out}: {summary(found['quantized'])}; {verdict(found['verify'])}")


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
