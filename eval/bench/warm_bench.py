"""The first completion after a restart: with what the slots held kept, and without.

In:  a GGUF, a file of code
Out: milliseconds to the first text, tokens evaluated, seconds that stopping and starting took

The same server is started twice with one cache folder; in between it is stopped as Ctrl-C does. The peer is the same without
`--warm`. Both in one run, in turns.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from core.errors import InputError
from eval.bench import serving
from eval.bench.clock import Clock, Timed

PREFIX, SUFFIX = 1800, 900  # characters around the cursor


def place(code: Path) -> dict[str, Any]:
    """A request for the middle of a file.

    Raises:
        InputError: the file is missing or too short.
    """
    if not code.is_file() or len(text := code.read_text(errors="replace")) < PREFIX + SUFFIX:
        raise InputError(f"{code} is no file of {PREFIX + SUFFIX} characters: name another with --code")
    end = text.rfind("\n", 0, PREFIX) + 1
    return {"prompt": text[:end] + "    result = ", "suffix": text[end : end + SUFFIX], "path": code.name, "max_tokens": 8, "manual": True}


def once(model: Path, folder: Path, body: dict[str, Any], *flags: str) -> tuple[Timed, float, float]:
    """Start, ask once, stop; the answer, seconds to start, seconds to stop."""
    started = time.perf_counter()
    with serving.up(model, folder, *flags, environment={"XDG_CACHE_HOME": str(folder / "cache")}) as server:
        ready = time.perf_counter() - started
        answer = Clock(server.address).ask("/v1/completions", body)
        stopping = time.perf_counter()
    return answer, ready, time.perf_counter() - stopping


def run(model: Path, code: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Measure and print.

    Raises:
        InputError: the model or the code is missing.
        MachineError: the server does not run.
    """
    if not model.is_file():
        raise InputError(f"{model} is missing: name a GGUF with --model")
    body, found = place(code), {"kept": [], "not kept": []}  # type: tuple[dict[str, Any], dict[str, list[tuple[Timed, float, float]]]]
    for _ in range(rounds):
        for name, flags in (("kept", ()), ("not kept", ("--no-warm",))):
            with tempfile.TemporaryDirectory(prefix="tabsmith-") as folder:
                once(model, Path(folder), body, *flags)
                found[name].append(once(model, Path(folder), body, *flags))
    figures = {
        name: {
            "first_ms": 1000 * statistics.median(answer.first or float("nan") for answer, _, _ in rows),
            "evaluated": statistics.median(answer.evaluated for answer, _, _ in rows),
            "ready_s": statistics.median(ready for _, ready, _ in rows),
            "stop_s": statistics.median(stop for _, _, stop in rows),
        }
        for name, rows in found.items()
    }
    table = Table(title=f"the first completion after a restart, {model.name}")
    for column in ("slots", "first text, ms", "tokens evaluated", "ready, s", "stopped, s"):
        table.add_column(column, justify="left" if column == "slots" else "right")
    for name, row in figures.items():
        table.add_row(name, f"{row['first_ms']:,.0f}", f"{row['evaluated']:.0f}", f"{row['ready_s']:.1f}", f"{row['stop_s']:.2f}")
    Console().print(table)
    return figures
