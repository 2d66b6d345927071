"""Commands of phase 1."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from core.errors import InputError, errors_in_one_line
from core.params import PARAMS_FILE, load_params
from phase1_data.params import CleanParams, IngestParams, SamplesParams, ScrubParams

app = typer.Typer(help="Phase 1: source code in, scrubbed fill-in-the-middle samples out.", no_args_is_help=True, add_completion=False)
OUT = Path("phase1_data/out")
Out = Annotated[Path, typer.Option(help="Folder that holds one folder per step.")]
Reports = Annotated[Path | None, typer.Option(help="Where the data card goes; default eval/reports, or OUT/reports with another --out.")]
ParamsFile = Annotated[Path, typer.Option("--params", help="File with the profiles and their sections.")]
Profile = Annotated[str | None, typer.Option(help="Profile to use; default: the file's `profile:` key.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class OnError(StrEnum):
    """What to do about a line that is no row."""

    fail = "fail"
    skip = "skip"


@app.command()
def ingest(out: Out = OUT, params: ParamsFile = PARAMS_FILE, profile: Profile = None) -> None:
    """Read the sources: installed packages, folders, code sets."""
    from phase1_data import ingest as step

    with errors_in_one_line():
        done = step.run(out / "ingest", load_params(IngestParams, "ingest", params, profile))
        typer.echo(f"{out / 'ingest'}: {done.files:,} files, {done.bytes / 1e6:.1f} MB; {done.dropped.total():,} turned down")


@app.command()
def clean(out: Out = OUT, params: ParamsFile = PARAMS_FILE, profile: Profile = None) -> None:
    """Keep files whose licence allows it, that people wrote, and one of each."""
    from phase1_data import clean as step

    with errors_in_one_line():
        done = step.run(out / "ingest", out / "clean", load_params(CleanParams, "clean", params, profile))
        size, read = done["bytes"] / 1e6, done["bytes_in"] / 1e6
        typer.echo(f"{out / 'clean'}: {done['files']:,} of {done['files_in']:,} files, {size:.1f} of {read:.1f} MB")


@app.command()
def scrub(out: Out = OUT, params: ParamsFile = PARAMS_FILE, profile: Profile = None) -> None:
    """Mask secrets and personal data, then scan again: anything left fails the step."""
    from phase1_data import scrub as step

    with errors_in_one_line():
        step.run(out / "clean", out / "scrub", load_params(ScrubParams, "scrub", params, profile))
        typer.echo(f"{out / 'scrub'}: masked; kinds and counts in {out / 'scrub' / 'manifest.json'}")


@app.command()
def samples(out: Out = OUT, params: ParamsFile = PARAMS_FILE, profile: Profile = None, reports: Reports = None) -> None:
    """Split the files and cut fill-in-the-middle rows; write the data card."""
    from phase1_data import samples as step

    with errors_in_one_line():
        card = reports or (Path("eval/reports") if out == OUT else out / "reports")
        counts = step.run(out / "scrub", out / "samples", load_params(SamplesParams, "samples", params, profile), card)
        rows = ", ".join(f"{name} {split['rows']:,}" for name, split in counts["splits"].items())
        typer.echo(f"{out / 'samples'}: {rows} rows; {card / 'data_card.md'}")


@app.command("scrub-jsonl")
def scrub_jsonl(
    input: Annotated[str, typer.Option(help="JSONL file, gzip or not, or - for stdin.")],
    output: Annotated[str, typer.Option(help="Where the rows go, gzip if it ends in .gz, or - for stdout. Appears only when whole.")],
    text_key: Annotated[str, typer.Option(help="Key whose text is masked; null counts as empty.")] = "text",
    redactions_key: Annotated[str, typer.Option(help="Key that is added.")] = "redactions",
    on_error: Annotated[OnError, typer.Option(help="A line that is no row: fail, or skip it and note number and reason.")] = OnError.fail,
    rejects: Annotated[Path | None, typer.Option(help="File of the lines skipped; default OUTPUT.rejects.jsonl.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Of the input; default: UTF-8, -16 or -32 found out, else Windows-1252.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes; changes no byte.", show_default="all cores")] = CORES,
    max_row_mb: Annotated[int, typer.Option(min=1, help="Longest row held in memory, which takes some ten times its size.")] = 1000,
) -> None:
    """Mask secrets and personal data in one key of any JSONL, your own logs and data sets too.

    Same rows, same order. `redactions` is added: kind, start, end and rule of each placeholder, in characters of the masked text. Every
    other key stays as it was and is NOT searched: for personal data there run again with its --text-key and a --redactions-key.
    """
    from phase1_data import scrub_jsonl as step

    with errors_in_one_line():
        job = step.Job(text_key, redactions_key, on_error is OnError.skip, rejects, encoding, workers, max_row_mb * 1_000_000)
        done = step.run(input, output, job)
        typer.echo(done, err=output == step.STANDARD)


@app.command()
def labelled(
    output: Annotated[Path, typer.Option(help="JSONL to write; it holds text that scanners take for secrets.")] = OUT / "labelled.jsonl",
    seed: Annotated[int, typer.Option(help="Another seed, other values.")] = 1,
) -> None:
    """Write the labelled rows that the scrubber is measured on: for `python -m eval scrub-bench`, or another tool."""
    from phase1_data import card_recall

    with errors_in_one_line():
        typer.echo(f"{output}: {card_recall.write(output, seed):,} rows")


@app.command()
def preview(out: Out = OUT, params: ParamsFile = PARAMS_FILE, profile: Profile = None, as_json: AsJson = False) -> None:
    """What each threshold of clean would take away, at its value and at others, before it does."""
    from phase1_data import preview as step
    from phase1_data import preview_table

    with errors_in_one_line():
        figures = step.run(out, load_params(CleanParams, "clean", params, profile))
        if as_json:
            typer.echo(json.dumps(figures, indent=2))
        else:
            preview_table.show(figures)


@app.command()
def explain(files: Annotated[list[str], typer.Argument(help="Text files, or - for stdin.")], as_json: AsJson = False) -> None:
    """Why something in a file is masked and what looks like it stays, without showing the values."""
    from phase1_data import explain_page

    with errors_in_one_line():
        if not explain_page.show(files, as_json):
            raise typer.Exit(InputError.exit_code)


@app.command()
def run(out: Out = OUT, params: ParamsFile = PARAMS_FILE, profile: Profile = None, reports: Reports = None) -> None:
    """All four: ingest, clean, scrub, samples."""
    ingest(out, params, profile)
    clean(out, params, profile)
    scrub(out, params, profile)
    samples(out, params, profile, reports)
