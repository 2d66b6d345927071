"""Commands of phase 1."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.errors import errors_in_one_line
from core.params import PARAMS_FILE, load_params
from phase1_data.params import CleanParams, IngestParams, SamplesParams, ScrubParams

app = typer.Typer(help="Phase 1: source code in, scrubbed fill-in-the-middle samples out.", no_args_is_help=True, add_completion=False)
OUT = Path("phase1_data/out")
Out = Annotated[Path, typer.Option(help="Folder that holds one folder per step.")]
Reports = Annotated[Path | None, typer.Option(help="Where the data card goes; default eval/reports, or OUT/reports with another --out.")]
ParamsFile = Annotated[Path, typer.Option("--params", help="File with the profiles and their sections.")]
Profile = Annotated[str | None, typer.Option(help="Profile to use; default: the file's `profile:` key.")]


@app.command()
def ingest(out: Out = OUT, params: ParamsFile = PARAMS_FILE, profile: Profile = None) -> None:
    """Read the sources: installed packages, folders, code sets."""
    from phase1_data import ingest as step

    with errors_in_one_line():
        done = step.run(out / "ingest", load_params(IngestParams, "ingest", params, profile))
        typer.echo(f"{out / 'ingest'}: {done.files:,} files, {done.bytes / 1e6:.1f} MB; {len(done.rejects):,} turned down")


@app.command()
def clean(out: Out = OUT, params: ParamsFile = PARAMS_FILE, profile: Profile = None) -> None:
    """Keep files whose licence allows it, that people wrote, and one of each."""
    from phase1_data import clean as step

    with errors_in_one_line():
        done = step.run(out / "ingest", out / "clean", load_params(CleanParams, "clean", params, profile))
        typer.echo(f"{out / 'clean'}: {done.files:,} of {done.files_in:,} files, {done.bytes / 1e6:.1f} of {done.bytes_in / 1e6:.1f} MB")


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


@app.command()
def run(out: Out = OUT, params: ParamsFile = PARAMS_FILE, profile: Profile = None, reports: Reports = None) -> None:
    """All four: ingest, clean, scrub, samples."""
    ingest(out, params, profile)
    clean(out, params, profile)
    scrub(out, params, profile)
    samples(out, params, profile, reports)
