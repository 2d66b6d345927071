"""Commands of phase 2: one per step, and `run`, which does them all in order."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from core.errors import errors_in_one_line
from core.params import PARAMS_FILE, load_params
from phase2_train.params import BaseParams, DpoParams, GateParams, PairsParams, PretrainParams, SftParams

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)

ParamsFile = Annotated[Path, typer.Option("--params", help="File with the profiles and their sections.")]
Profile = Annotated[str | None, typer.Option(help="Profile to use; default: the file's `profile:` key.")]
Samples = Annotated[Path, typer.Option(help="Folder of samples that phase 1 wrote.")]
Base = Annotated[Path, typer.Option(help="The resolved base model.")]
Adapter = Annotated[Path, typer.Option(help="Adapter that the gate after SFT shipped.")]
Out = Annotated[Path, typer.Option(help="Folder to write.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Forget the checkpoints of a run that did not end, and start over.")]
Gate = Annotated[Literal["warn", "fail"], typer.Option(help="fail: exit 4 where the parent ships (for CI), after writing all.")]

OUT = Path("phase2_train/out")


@app.callback()
def one_voice() -> None:
    """Phase 2: FIM samples in, adapters out."""
    if os.environ.get("RANK", "0") != "0":  # torchrun and accelerate start several of us: the first one speaks
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # for the rest of the process


@app.command()
def doctor(params: ParamsFile = PARAMS_FILE, profile: Profile = None) -> None:
    """Say what this machine offers, and whether it can run the profile."""
    with errors_in_one_line():
        from phase2_train import base, machine, memory

        section, sft = load_params(BaseParams, "base", params, profile), load_params(SftParams, "sft", params, profile)
        chosen = machine.machine(section.device)
        choices = chosen.choices | {"engine": machine.engine_choice(sft.engine, chosen)}
        if (OUT / "base" / "config.json").is_file():  # what depends on the model is known once it is there
            shape = base.check(OUT / "base")
            choices |= memory.plan(chosen, shape, sft.bits, sft.lora.r, sft.batch, sft.accumulate, sft.max_row_tokens)
        machine.say("doctor", chosen, choices)
        print(f"base model: {section.model}")


@app.command()
def pretrain(
    samples: Samples = Path("phase1_data/out-base/samples"),
    files: Annotated[Path, typer.Option(help="Scrubbed files, for the tokenizer.")] = Path("phase1_data/out-base/scrub/files.parquet"),
    out: Out = Path("phase2_train/tiny_base"),
    scratch: Annotated[Path, typer.Option(help="Folder of checkpoint, encoded rows and log.")] = Path("phase2_train/out-base"),
    unseen: Annotated[Path, typer.Option(help="Samples of other repositories, for the card's scores.")] = Path("phase1_data/out/samples"),
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
        card.write(model, seen, samples, unseen, out, scratch, section)
        print(f"{out}: {seen:,} tokens seen; card in {out}/README.md")


@app.command()
def probe(
    model: Annotated[Path, typer.Option(help="Model folder.")] = Path("phase2_train/tiny_base"),
    samples: Samples = Path("phase1_data/out/samples"),
    limit: Annotated[int, typer.Option(help="Holes; 0: all.")] = 0,
) -> None:
    """Say how often a model completes the line at the cursor in repositories it has never seen."""
    with errors_in_one_line():
        from phase2_train import probe as stage

        for figures in stage.run(samples, model, limit):
            print(f"{model}: {figures}")


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
    fresh: Fresh = False,
    params: ParamsFile = PARAMS_FILE,
    profile: Profile = None,
) -> None:
    """Fine-tune an adapter on middles (QLoRA); a run that was stopped or killed goes on where it was."""
    with errors_in_one_line():
        from phase2_train.machine import load_engine, machine

        section = load_params(SftParams, "sft", params, profile)
        load_engine(section.engine, machine())  # unsloth must be imported before trl
        from phase2_train import sft as stage

        metrics = stage.run(samples, base, out, section, fresh)
        print(f"{out}/adapter: loss on held-out middles {metrics['valid_loss_before']:.3f} -> {metrics['valid_loss']:.3f}")


@app.command("sft-gate")
def sft_gate(
    samples: Samples = Path("phase1_data/out/samples"),
    base: Base = OUT / "base",
    child: Annotated[Path, typer.Option(help="The adapter that SFT trained.")] = OUT / "sft" / "adapter",
    out: Out = OUT / "sft_gate",
    gate: Gate = "warn",
    params: ParamsFile = PARAMS_FILE,
    profile: Profile = None,
) -> None:
    """Compare the SFT adapter with the bare base on held-out holes and ship the one that holds."""
    with errors_in_one_line():
        _compare("sft", samples, base, child, None, out, gate, params, profile)


@app.command("dpo-gate")
def dpo_gate(
    samples: Samples = Path("phase1_data/out/samples"),
    base: Base = OUT / "base",
    child: Annotated[Path, typer.Option(help="The adapter that DPO trained.")] = OUT / "dpo" / "adapter",
    parent: Annotated[Path, typer.Option(help="The adapter it was trained from.")] = OUT / "sft_gate" / "adapter",
    out: Out = OUT / "dpo_gate",
    gate: Gate = "warn",
    params: ParamsFile = PARAMS_FILE,
    profile: Profile = None,
) -> None:
    """Compare the DPO adapter with the one it came from and ship it only if something got visibly better and nothing worse."""
    with errors_in_one_line():
        _compare("dpo", samples, base, child, parent, out, gate, params, profile)


def _compare(
    step: Literal["sft", "dpo"],
    samples: Path,
    base: Path,
    child: Path,
    parent: Path | None,
    out: Path,
    gate: str,
    params: Path,
    profile: str | None,
) -> None:
    from phase2_train import gate as stage
    from phase2_train import gate_table

    bits = load_params(SftParams, "sft", params, profile).bits
    record = stage.run(step, samples / "valid.parquet", base, child, parent, out, load_params(GateParams, "gate", params, profile), bits)
    gate_table.show(record)
    print(f"{out}/adapter: {record['ships']}")
    if gate == "fail":
        stage.enforce(record, out)


@app.command()
def pairs(
    samples: Samples = Path("phase1_data/out/samples"),
    base: Base = OUT / "base",
    adapter: Adapter = OUT / "sft_gate" / "adapter",
    out: Out = OUT / "pairs",
    editor: Annotated[Path | None, typer.Option(help="JSONL of pairs that a person made, merged in (see README.md).")] = None,
    fresh: Fresh = False,
    params: ParamsFile = PARAMS_FILE,
    profile: Profile = None,
) -> None:
    """Sample the fine-tuned model and keep what it gets wrong in a named way, beside the truth."""
    with errors_in_one_line():
        from phase2_train import pairs as stage

        sections = load_params(PairsParams, "pairs", params, profile), load_params(SftParams, "sft", params, profile)
        counts = stage.run(samples, base, adapter, out, *sections, editor, fresh)
        print(f"{out}/pairs.jsonl: " + ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items())))


@app.command()
def dpo(
    pairs: Annotated[Path, typer.Option(help="Preference pairs.")] = OUT / "pairs" / "pairs.jsonl",
    base: Base = OUT / "base",
    adapter: Adapter = OUT / "sft_gate" / "adapter",
    out: Out = OUT / "dpo",
    samples: Samples = Path("phase1_data/out/samples"),
    fresh: Fresh = False,
    params: ParamsFile = PARAMS_FILE,
    profile: Profile = None,
) -> None:
    """Optimize the adapter on the preference pairs."""
    with errors_in_one_line():
        from phase2_train import dpo as stage

        sections = load_params(DpoParams, "dpo", params, profile), load_params(SftParams, "sft", params, profile)
        metrics = stage.run(pairs, base, adapter, out, *sections, fresh, samples)
        print(f"{out}/adapter: {metrics['pairs']} pairs, reward accuracy {metrics['rewards_accuracies']:.2f}")


@app.command()
def run(params: ParamsFile = PARAMS_FILE, profile: Profile = None) -> None:
    """All of it: base, sft, pairs, dpo and both gates, in the folders of dvc.yaml."""
    base(params=params, profile=profile)
    sft(params=params, profile=profile)
    sft_gate(params=params, profile=profile)
    pairs(params=params, profile=profile)
    dpo(params=params, profile=profile)
    dpo_gate(params=params, profile=profile)
