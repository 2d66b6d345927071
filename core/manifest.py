"""What a stage leaves beside its outputs: how they came to be, so that a figure can be traced and a run repeated.

In:  params, input files, counts
Out: `manifest.json` in the output folder: the same for the same params and inputs (DVC hashes it);
     `<phase>/out/runs/<stage>.json`: what differs from run to run (seconds, peak memory, device), not hashed by anyone
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from core.params import StageParams
from core.records import write_json

MANIFEST = "manifest.json"
HOW = ("engine", "workers")  # keys of a section that say how the work is done and shape no output


def sha256_of(path: Path) -> str:
    """sha256 of a file, or of a folder's files by name (manifests and hidden files left out)."""
    if path.is_dir():
        total = hashlib.sha256()
        for member in sorted(p for p in path.rglob("*") if p.is_file() and p.name != MANIFEST and not p.name.startswith(".")):
            total.update(f"{member.relative_to(path).as_posix()}\0{sha256_of(member)}\n".encode())
        return total.hexdigest()
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Installed versions of the packages that shaped an output; those absent are left out."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def peak_memory_mb() -> float:
    """The most that any one process held: this one, or the largest of its ended children, in MB (10^6 bytes).

    It is no sum over processes; the operating system keeps none.
    """
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    sizes = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return max(sizes) * unit / 1e6


@dataclass
class Step:
    """What one step of a run took: `bytes` is the text that this run put through it, 0 where none is counted."""

    seconds: float = 0.0
    bytes: int = 0


class Run:
    """One execution of a stage; make it first thing, call `finish` last."""

    def __init__(self, stage: str, out: Path) -> None:
        self.stage, self.out = stage, out
        self.started = time.perf_counter()
        self.steps: dict[str, Step] = {}

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Time a part of the run; add to the `bytes` of what it yields. A name that comes again adds up."""
        step = self.steps.setdefault(name, Step())
        started = time.perf_counter()
        try:
            yield step
        finally:
            step.seconds += time.perf_counter() - started

    def finish(
        self,
        params: Mapping[str, StageParams],
        inputs: Iterable[Path],
        counts: Mapping[str, Any],
        packages: Iterable[str] = (),
        seed: int | None = None,
        device: str = "cpu",
        parent: str | None = None,
        measured: Mapping[str, Any] | None = None,
    ) -> float:
        """Write both files; return the seconds since the run began.

        Args:
            params: section name to section; how the work is done (HOW) goes with what differs from run to run.
            inputs: files and folders read; recorded with their sha256.
            counts: what went in and came out, drops by reason; must not differ between equal runs.
            packages: distributions whose version shaped the output.
            parent: sha256 of the model or data this one came from.
            measured: figures of this run only (tokens/s and the like).
        """
        seconds = time.perf_counter() - self.started
        write_json(
            self.out / MANIFEST,
            {
                "stage": self.stage,
                "params": {name: section.model_dump(mode="json", exclude=set(HOW)) for name, section in params.items()},
                "inputs": {path.as_posix(): sha256_of(path) for path in inputs},
                "counts": dict(counts),
                "versions": versions_of(packages),
                "seed": seed,
                "parent": parent,
            },
        )
        write_json(
            self.out.parent / "runs" / f"{self.stage}.json",
            {
                "stage": self.stage,
                "seconds": round(seconds, 2),
                "peak_memory_mb": round(peak_memory_mb(), 1),
                "device": device,
                "machine": f"{platform.machine()}, {platform.system()}",
                **{key: getattr(section, key) for section in params.values() for key in HOW if key in type(section).model_fields},
                "steps": {name: asdict(step) | {"seconds": round(step.seconds, 3)} for name, step in self.steps.items()},
                **(measured or {}),
            },
        )
        return seconds
