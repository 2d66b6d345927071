"""The judge beside one process per program, on the same problems in the same run.

In:  problems in human-eval-infilling's schema
Out: per system how many canonical and empty completions pass, programs per second; how often their verdicts differ

The other system is what a script without a judge does: the published evaluator's composition of a program in a file, `python -I` on it,
exit code 0 for a pass; nothing holds it back, so it gets canonical and empty completions only. The systems take turns, a slice of the
problems each, so that other work on the machine slows both.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from core.manifest import versions_of
from core.progress import track
from eval.problems import read_problems
from eval.sandbox.pool import Pool, Program, Settings

SLICE = 100  # programs of a turn
Judge = Callable[[Sequence[Program]], list[bool]]


def run(file: Path, rounds: int, workers: int, empty: bool) -> dict[str, Any]:
    """Judge canonical completions `rounds` times and empty ones once with both systems.

    Raises:
        InputError, MachineError: as eval/infilling.py.
    """
    problems = list(read_problems(file).values())
    settings = Settings(workers=workers)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with Pool(settings) as pool, ThreadPoolExecutor(pool.count) as threads:
            start = time.perf_counter() - started
            alone = _Alone(Path(folder), settings.seconds)
            systems: dict[str, Judge] = {
                "tabsmith": lambda programs: [verdict.passed for verdict in pool.run(programs)],
                "one process each": lambda programs: list(threads.map(alone.passes, programs)),
            }
            sets = {"canonical": [problem.program(problem.canonical_solution) for problem in problems]}
            sets |= {"empty": [problem.program("") for problem in problems]} if empty else {}
            figures = {name: _turns(systems, programs, rounds if name == "canonical" else 1, name) for name, programs in sets.items()}
            levels, count = str(pool.levels), pool.count
    return {
        "problems": len(problems),
        "sets": figures,
        "start_seconds": round(start, 3),
        "sandbox": levels,
        "at_a_time": count,
        "machine": {"cores": os.cpu_count(), **versions_of([])},
    }


class _Alone:
    """One process per program."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds

    def passes(self, program: Program) -> bool:
        """Whether it ends in time with exit code 0."""
        text = f"{program.prompt}{program.completion}{program.suffix}\n{program.test}\ncheck({program.entry})"
        with tempfile.TemporaryDirectory(dir=self.folder) as own:
            file = Path(own, "program.py")
            file.write_text(text, encoding="utf-8")
            quiet = subprocess.DEVNULL
            try:
                done = subprocess.run(
                    [sys.executable, "-I", file], cwd=own, timeout=self.seconds, stdin=quiet, stdout=quiet, stderr=quiet, check=False
                )
            except subprocess.TimeoutExpired:
                return False
            return done.returncode == 0


def _turns(systems: dict[str, Judge], programs: Sequence[Program], rounds: int, name: str) -> dict[str, Any]:
    """Seconds of each round and verdicts of each system."""
    seconds = {system: [0.0] * rounds for system in systems}
    passed: dict[str, list[bool]] = {system: [] for system in systems}
    turns = [(number, at, system) for number in range(rounds) for at in range(0, len(programs), SLICE) for system in systems]
    for number, at, system in track(turns, f"judging, {name}", unit="turns"):
        started = time.perf_counter()
        found = systems[system](programs[at : at + SLICE])
        seconds[system][number] += time.perf_counter() - started
        if number == 0:
            passed[system] += found
    ours, other = passed.values()
    return {
        "passed": {system: sum(verdicts) for system, verdicts in passed.items()},
        "verdicts_that_differ": sum(one != two for one, two in zip(ours, other, strict=True)),
        "seconds": {system: [round(one, 2) for one in taken] for system, taken in seconds.items()},
    }


def lines(figures: dict[str, Any]) -> list[str]:
    """The table, and what a reader must know to read it."""
    total, found = figures["problems"], figures["sets"]
    systems = list(found["canonical"]["seconds"])
    table = ["| | " + " | ".join(systems) + " |", "|---" * (len(systems) + 1) + "|"]
    for name, one in found.items():
        table.append(f"| {name} completions that pass (of {total:,}) | " + " | ".join(f"{one['passed'][s]:,}" for s in systems) + " |")
    median = {system: statistics.median(found["canonical"]["seconds"][system]) for system in systems}
    table.append("| seconds, canonical | " + " | ".join(f"{median[s]:.1f}" for s in systems) + " |")
    table.append("| programs per second | " + " | ".join(f"{total / median[s]:.1f}" for s in systems) + " |")
    table.append("| times as fast | " + " | ".join(f"{median[systems[1]] / median[s]:.2f}" for s in systems) + " |")
    differ = ", ".join(f"{one['verdicts_that_differ']} of {total:,} on {name} ones" for name, one in found.items())
    rounds = len(found["canonical"]["seconds"][systems[0]])
    return [
        *table,
        "",
        f"Verdicts that differ: {differ}.",
        f"{figures['at_a_time']} programs at a time, the systems in turns of {SLICE}, median of {rounds} rounds; "
        f"starting the workers took {figures['start_seconds']:.2f} s once.",
        f"Sandbox: {figures['sandbox']}. One process each: nothing holds it back.",
    ]


def show(figures: dict[str, Any]) -> None:
    """Print the table and its notes."""
    print("\n".join(lines(figures)))
