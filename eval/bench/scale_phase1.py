"""How fast phase 1 is and how much memory it takes at sizes that one's own environment does not have.

    python -m eval.bench.scale_phase1 --mb 1000 --mb 3000 --work /tmp/scale

In:  the Python files installed here, repeated under other names: every word of four small letters or more gets the copy's
     number, keywords left alone, so that a copy parses as the original does and is no near-duplicate of it
Out: a table: each step's seconds, MB/s per core, largest memory of the whole process tree (a page that processes share counts
     once; where the system cannot tell, as often as it is shared)

The steps run as a user runs them, `python -m phase1_data <step>`, each in its own process.
"""

from __future__ import annotations

import builtins
import keyword
import re
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import psutil
import pyarrow as pa
import typer
import yaml

from core.errors import CheckFailed, errors_in_one_line
from core.params import PARAMS_FILE, read_document
from core.records import Row, read_json, write_parquet, write_text

STEPS = ("ingest", "clean", "scrub", "samples")
COLUMNS = pa.schema([("content", pa.string()), ("repo", pa.string()), ("path", pa.string()), ("license", pa.string())])
KEPT = {*keyword.kwlist, *keyword.softkwlist, *dir(builtins)}
TOKEN = re.compile(r"\w+|\W+")
RENAMED = re.compile(r"\w*[a-z]{4}")
SAMPLED = 0.2  # seconds between looks at the memory


def originals() -> Iterator[tuple[str, str, str]]:
    """(package, path, text) of the Python files installed here."""
    for root in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")):
        for file in sorted(Path(root).rglob("*.py")):
            path = file.relative_to(root)
            if "site-packages" not in path.parts and 500 < file.stat().st_size < 1_000_000:
                try:
                    yield path.parts[0], path.as_posix(), file.read_text(encoding="utf-8")
                except UnicodeDecodeError:
                    continue


class Names(dict[str, str]):
    """What a copy calls each word; the first copy is the original."""

    def __init__(self, copy: int) -> None:
        self.copy_number = copy

    def __missing__(self, word: str) -> str:
        renamed = self.copy_number > 0 and word not in KEPT and RENAMED.fullmatch(word)
        self[word] = f"{word}_{self.copy_number}" if renamed else word
        return self[word]


def varied(text: str, names: Names) -> str:
    """The text with other names."""
    return "".join(map(names.__getitem__, TOKEN.findall(text)))


def corpus(size: int) -> Iterator[Row]:
    """Files of `size` bytes in all, one copy of the environment after the other."""
    left, copy = size, 0
    while True:
        names = Names(copy)
        for package, path, text in originals():
            content = varied(text, names)
            yield {"content": content, "repo": f"{package}-{copy}", "path": path, "license": "MIT"}  # so that none is turned down
            left -= len(content)
            if left <= 0:
                return
        copy += 1


def params_for(work: Path, workers: int, engine: str) -> Path:
    """The tiny profile's params for this corpus."""
    profile: dict[str, Any] = read_document(PARAMS_FILE)["tiny"]
    profile["ingest"] |= {
        "sources": [{"kind": "hub", "id": str(work / "corpus.parquet"), "revision": None, "data_dir": None, "split": "train"}],
        "max_repo_bytes": 0,
        "canaries": 0,
        "canary_seed": 0,
    }
    profile["samples"] |= {"tokenizer": "phase2_train/tiny_base", "heldout_repos": [], "heldout_repo_share": 0.02, "max_train": 0}
    for step in STEPS[1:]:
        profile[step] |= {"workers": workers, "engine": engine}
    file = work / "params.yaml"
    write_text(file, yaml.safe_dump({"profile": "scale", "scale": profile}))
    return file


def watched(command: list[str]) -> tuple[float, float]:
    """Seconds and peak bytes of a command with all its children.

    Raises:
        CheckFailed: it did not end well; what it said is on the screen.
    """
    started = time.perf_counter()
    child = psutil.Popen(command)
    peak = 0
    while child.poll() is None:
        resident = 0
        for process in [child, *_children(child)]:
            try:
                resident += held(process)
            except (psutil.Error, OSError):
                continue  # ended meanwhile
        peak = max(peak, resident)
        time.sleep(SAMPLED)
    if child.returncode:
        raise CheckFailed(f"`{' '.join(command)}` ended with {child.returncode}: see above")
    return time.perf_counter() - started, peak


def held(process: psutil.Process) -> int:
    """Bytes that a process holds: a page it shares counts in part (Pss of Linux), elsewhere its resident size."""
    rollup = Path(f"/proc/{process.pid}/smaps_rollup")
    if not rollup.is_file():
        return int(process.memory_info().rss)
    found = re.search(r"^Pss:\s+(\d+) kB", rollup.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = process.children(recursive=True)
    except psutil.Error:
        return []
    return found


def measured(work: Path, size: int, workers: int, engine: str, steps: tuple[str, ...]) -> Iterator[Row]:
    """One row per step for a corpus of `size` bytes."""
    work.mkdir(parents=True, exist_ok=True)
    params = params_for(work, workers, engine)
    write_parquet(work / "corpus.parquet", corpus(size), COLUMNS)
    given = size
    for step in steps:
        command = [sys.executable, "-m", "phase1_data", step, "--out", str(work / "out"), "--params", str(params)]
        seconds, peak = watched(command)
        counts = read_json(work / "out" / step / "manifest.json", step)["counts"]
        yield {"size": size, "step": step, "in": given, "files": counts["files"], "seconds": seconds, "peak": peak}
        given = counts["bytes"]


def main(
    mb: Annotated[list[int], typer.Option(help="Size of the input in MB; may be given several times.")],
    work: Annotated[Path, typer.Option(help="Folder for the corpus and the outputs; needs three times the largest size.")],
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
    engine: Annotated[str, typer.Option(help="local | ray")] = "local",
    until: Annotated[str, typer.Option(help="The last step.")] = STEPS[-1],
) -> None:
    """Measure phase 1 at the sizes given."""
    with errors_in_one_line():
        steps = STEPS[: STEPS.index(until) + 1]
        typer.echo("| input | step | MB in | files out | seconds | MB/s per core | peak memory, MB |\n|---|---|---|---|---|---|---|")
        for size in mb:
            total = largest = 0.0
            for row in measured(work / f"{size}mb", size * 10**6, workers, engine, steps):
                total, largest = total + row["seconds"], max(largest, row["peak"])
                _show(size, row["step"], row["in"], f"{row['files']:,}", row["seconds"], row["peak"], workers)
            _show(size, "all", size * 10**6, "", total, largest, workers)


def _show(size: int, step: str, given: float, files: str, seconds: float, peak: float, workers: int) -> None:
    rate = given / 1e6 / seconds / workers
    typer.echo(f"| {size:,} MB | {step} | {given / 1e6:,.0f} | {files} | {seconds:,.1f} | {rate:.2f} | {peak / 1e6:,.0f} |")


if __name__ == "__main__":
    typer.run(main)
