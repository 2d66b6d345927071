"""Commands of phase 2: one per step, and `run`, which does base, sft, pairs and dpo in order."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.errors import errors_in_one_line
from core.params import PARAMS_FILE, load_params
from phase2_train.params import BaseParams, DpoParams, PairsParams, PretrainParams, SftParams

app = typer.Typer(help="Phase 2: FIM samples in, adapters out.", no_args_is_help=True, pretty_exceptions_enable=False)

ParamsFile = Annotated[Path, typer.Option("--params", help="File with the profiles and their sections.")]
Profile = Annotated[str | None, typer.Option(help="Profile to use; default: the file's `profile:` key.")]
Samples = Annotated[Path, typer.Option(help="Folder of samples that phase 1 wrote.")]
Base = Annotated[Path, typer.Option(help="The resolved base model.")]
Adapter = Annotated[Path, typer.Option(help="Adapter of supervised fine-tuning.")]
Out = Annotated[Path, typer.Option(help="Folder to write.")]

OUT = Path("phase2_train/out")


@app.command()
def doctor(params: ParamsFile = PARAMS_FILE, profile: Profile = None) -> None:
    """Say what this machine offers, and whether it can run the profile."""
    with errors_in_one_line():
        from phase2_train import base

        section = load_params(BaseParams, "base", params, profile)
        print(f"{base.machine(section.device).reason}; base model {section.model}")


@app.command()
def pretrain(
    samples: Samples = Path("phase1_data/out-base/samples"),
    files: Annotated[Path, typer.Option(help="Scrubbed files, for the tokenizer.")] = Path("phase1_data/out-base/scrub/files.parquet"),
    out: Out = Path("phase2_train/tiny_base"),
    scratch: Annotated[Path, typer.Option(help="Folder of checkpoint, encoded rows and log.")] = Path("phase2_train/out-base"),
    tokenizer_only: Annotated[bool, typer.Option(help="Train the tokenizer and stop: samples are cut with it.")] = False,
    fresh: Annotated[bool, typer.Option(help="Forget the checkpoint.")] = False,
    params: ParamsFile = PARAMS_FILE,
    profile: Profile = "base",
) -> None:
    """Make the small base again: tokenizer first (--tokenizer-only), then the model; goes on where it was stopped."""
    with errors_in_one_line():
        from phase2_train import card, tokenizer
        from phase2_train import pretrain as stage

        section = load_params(PretrainParams, "pretrain", params, profile)
        if tokenizer_only:
            print(f"{out}/tokenizer.json: {tokenizer.run(files, out, section.vocab, section.context):,} entries")
            return
        model, seen = stage.train(samples, out, scratch, section, fresh)
        card.write(model, seen, samples, out, scratch, section)
        print(f"{out}: {seen:,} tokens seen; card in {out}/README.md")


@app.command()
def base(out: Out = OUT / "base", params: ParamsFile = PARAMS_FILE, profile: Profile = None) -> None:
    """Find the model that is adapted (shipped folder, local folder, Hub id, or random) and check it."""
    with errors_in_one_line():
        from phase2_train import base as stage

        chosen = stage.run(out, load_params(BaseParams, "base", params, profile))
        print(f"{out}: ready; {chosen.reason}")


@app.command()
def sft(
    samples: Samples = Path("phase1_data/out/samples"),
    base: Base = OUT / "base",
    out: Out = OUT / "sft",
    params: ParamsFile = PARAMS_FILE,
    profile: Profile = None,
) -> None:
    """Fine-tune an adapter on middles (QLoRA)."""
    with errors_in_one_line():
        from phase2_train import sft as stage

        metrics = stage.run(samples, base, out, load_params(SftParams, "sft", params, profile))
        print(f"{out}/adapter: loss on held-out middles {metrics['valid_loss_before']:.3f} -> {metrics['valid_loss']:.3f}")


@app.command()
def pairs(
    samples: Samples = Path("phase1_data/out/samples"),
    base: Base = OUT / "base",
    adapter: Adapter = OUT / "sft" / "adapter",
    out: Out = OUT / "pairs",
    params: ParamsFile = PARAMS_FILE,
    profile: Profile = None,
) -> None:
    """Sample the fine-tuned model and keep what it gets wrong in a named way, beside the truth."""
    with errors_in_one_line():
        from phase2_train import pairs as stage

        counts = stage.run(samples, base, adapter, out, load_params(PairsParams, "pairs", params, profile))
        print(f"{out}/pairs.jsonl: " + ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items())))


@app.command()
def dpo(
    pairs: Annotated[Path, typer.Option(help="Preference pairs.")] = OUT / "pairs" / "pairs.jsonl",
    base: Base = OUT / "base",
    adapter: Adapter = OUT / "sft" / "adapter",
    out: Out = OUT / "dpo",
    params: ParamsFile = PARAMS_FILE,
    profile: Profile = None,
) -> None:
    """Optimize the adapter on the preference pairs."""
    with errors_in_one_line():
        from phase2_train import dpo as stage

        sections = load_params(DpoParams, "dpo", params, profile), load_params(SftParams, "sft", params, profile)
        metrics = stage.run(pairs, base, adapter, out, *sections)
        print(f"{out}/adapter: {metrics['pairs']} pairs, reward accuracy {metrics['rewards_accuracies']:.2f}")


@app.command()
def run(params: ParamsFile = PARAMS_FILE, profile: Profile = None) -> None:
    """All of it: base, sft, pairs, dpo, in the folders of dvc.yaml."""
    base(params=params, profile=profile)
    sft(params=params, profile=profile)
    pairs(params=params, profile=profile)
    dpo(params=params, profile=profile)
