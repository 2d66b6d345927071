"""How fast and how large is the index of a large workspace? Built and asked as the server does it, in a fresh process.

In:  Python files of the environment, enough for the pieces that are wanted
Out: pieces/s of processor time, seconds of a question and of a save, resident memory, how long the event loop was kept waiting
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from core.errors import MachineError
from core.syntax import chunks
from phase4_serve.index import Index
from phase4_serve.knowledge import Knowledge
from phase4_serve.retrieve import Around, candidates
from phase4_serve.workspace import Workspace

CHUNK_LINES, MAX_BYTES = 24, 400_000
QUESTIONS, SAVES = 400, 40
TICK = 0.002  # seconds that the event loop sleeps while its lateness is measured
SHOWN = 4  # pieces taken of an answer, as a prompt takes them
WINDOW, BEHIND = 2000, 700  # characters before and after the cursor
MODES = ("definitions", "hybrid")


def run(pieces: int, model: Path, folder: Path | None = None) -> dict[str, Any]:
    """Both modes over the same files, each in a process of its own.

    Raises:
        MachineError: a run fails.
    """
    with tempfile.TemporaryDirectory(prefix="tabsmith-scale-", dir=folder) as place:
        root = Path(place) / "workspace"
        files = lay_out(root, pieces)
        figures: dict[str, Any] = {"files": files, "model": str(model)}
        for mode in MODES:
            command = [sys.executable, "-m", "eval.bench.retrieval_scale", str(root), mode, str(model)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                raise MachineError(f"the run in mode {mode} failed ({done.returncode}): run `{' '.join(command)}` to see why")
            figures[mode] = json.loads(done.stdout.splitlines()[-1])
    return figures


def lay_out(root: Path, pieces: int) -> int:
    """Copy files of installed packages, chosen by hash, until they hold as many pieces; how many files."""
    packages = Path(sysconfig.get_paths()["purelib"])
    found = [path for path in packages.rglob("*.py") if path.stat().st_size < MAX_BYTES]
    held = copied = 0
    for path in sorted(found, key=lambda path: hashlib.sha256(str(path.relative_to(packages)).encode()).digest()):
        if held >= pieces:
            break
        text = path.read_text(encoding="utf-8", errors="replace")
        if max(map(len, text.split("\n"))) > 1000:
            continue
        target = root / path.relative_to(packages)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        held, copied = held + len(chunks(text, "python", CHUNK_LINES)), copied + 1
    return copied


async def measure(root: Path, mode: Any, model: Path) -> dict[str, Any]:
    """Everything of one mode."""
    index = Index(CHUNK_LINES, mode)
    knowledge = Knowledge(Workspace(root, MAX_BYTES), index, model if mode == "hybrid" else None)
    places = list(itertools.islice(questions(root), QUESTIONS))
    before, started, cpu, own = resident(), time.perf_counter(), time.process_time(), time.thread_time()
    task = asyncio.create_task(knowledge.run())
    late, asked, asking_cpu = await _while_indexing(knowledge, index, places, task)
    seconds = time.perf_counter() - started
    measuring_cpu = asking_cpu + time.thread_time() - own  # this thread does nothing but look at the clock
    own_cpu = time.process_time() - cpu - measuring_cpu
    assert knowledge._process is not None
    reader_cpu, reader_memory = _cpu_of(knowledge._process.pid), resident(knowledge._process.pid)
    gc.collect()
    memory = resident() - before
    times = []
    for place in places:
        begun = time.perf_counter()
        list(itertools.islice(candidates(index, place), SHOWN))
        times.append(time.perf_counter() - begun)
    saves = [await _save(knowledge, index, number) for number in range(SAVES)]
    slowest, size = max((told, size) for told, _, size in saves)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return {
        "pieces": len(index), "files": index.files, "seconds": seconds, "reader_cpu": reader_cpu, "own_cpu": own_cpu,
        "measuring_cpu": measuring_cpu,
        "pieces_per_core_second": len(index) / (reader_cpu + own_cpu), "memory_mb": memory / 1e6, "reader_mb": reader_memory / 1e6,
        "query_ms": _ms(times), "query_while_indexing_ms": _ms(asked), "late_ms": _ms(late), "worst_late_ms": 1000 * max(late),
        "saved_ms": _ms([told for told, *_ in saves]), "watched_ms": _ms([seen for _, seen, _ in saves]),
        "slowest_save": {"ms": 1000 * slowest, "bytes": size}, "largest_saved": max(size for *_, size in saves),
        "after_saves_mb": (resident() - before) / 1e6,
    }  # fmt: skip


async def _while_indexing(
    knowledge: Knowledge, index: Index, places: list[Around], task: asyncio.Task[None]
) -> tuple[list[float], list[float], float]:
    """How late the loop was, how long questions took, until everything was indexed; processor seconds of the questions."""
    late, asked, spent = [0.0], [0.0], [0.0]
    around = itertools.cycle(places)

    def question() -> None:
        cpu = time.thread_time()
        list(itertools.islice(candidates(index, next(around)), SHOWN))
        spent.append(time.thread_time() - cpu)

    async def ask() -> None:
        while not knowledge.complete.is_set():
            begun = time.perf_counter()
            await asyncio.to_thread(question)
            asked.append(time.perf_counter() - begun)
            await asyncio.sleep(0.1)

    asking = asyncio.create_task(ask())
    while not knowledge.complete.is_set() and not task.done():
        begun = time.perf_counter()
        await asyncio.sleep(TICK)
        late.append(time.perf_counter() - begun - TICK)
    await asking
    return late, asked, sum(spent)


async def _save(knowledge: Knowledge, index: Index, number: int) -> tuple[float, float, int]:
    """Seconds until a changed file is found, when a client says so and when only the system does; bytes of the first file."""
    paths = sorted(index.paths())
    found, sizes = [], []
    for told in (True, False):
        path = paths[(number * 37 + told) % len(paths)]
        name = f"marker_{index.mode}_{number}_{told}".lower()
        file = knowledge.workspace.root / path
        with file.open("a") as out:
            out.write(f"\n\ndef {name}():\n    return {number}\n")
        sizes.append(file.stat().st_size)
        begun = time.perf_counter()
        if told:
            await knowledge.saved(path)
        while not index.defining(name, 4) and time.perf_counter() - begun < 5:
            await asyncio.sleep(0.001)
        found.append(time.perf_counter() - begun)
        await asyncio.sleep(0.15)
    return found[0], found[1], sizes[0]


def questions(root: Path) -> Iterator[Around]:
    """Windows around cursors, anywhere in the files."""
    files = sorted(root.rglob("*.py"), key=lambda path: hashlib.sha256(path.name.encode() + bytes(path.parent)).digest())
    for path in itertools.cycle(files):
        text = path.read_text(encoding="utf-8", errors="replace")
        at = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) % max(1, len(text))
        yield Around(text[max(0, at - WINDOW) : at], text[at : at + BEHIND], path.relative_to(root).as_posix())


def resident(pid: int | str = "self") -> int:
    """Bytes of memory a process holds (VmRSS)."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _ms(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {"p50": 1000 * statistics.median(ordered), "p95": 1000 * ordered[int(0.95 * (len(ordered) - 1))], "max": 1000 * ordered[-1]}


def show(figures: dict[str, Any]) -> None:
    """Print the table."""
    table = Table("", *MODES, "wanted")
    rows = [
        ("pieces", lambda one: f"{one['pieces']:,}", ""),
        ("indexing, pieces/s of processor time", lambda one: f"{one['pieces_per_core_second']:,.0f}", "3,000"),
        ("indexing, seconds", lambda one: f"{one['seconds']:.1f}", ""),
        ("... of processor: reader, server, (this measuring)", _cpu_seconds, ""),
        ("question p50 / p95 / max, ms", lambda one: _three(one["query_ms"]), "p95 5, hybrid 8"),
        ("question while indexing, ms", lambda one: _three(one["query_while_indexing_ms"]), ""),
        ("event loop late while indexing, ms", lambda one: _three(one["late_ms"]), ""),
        ("saved file found, told by the client, ms", lambda one: _three(one["saved_ms"]), "50"),
        ("... the slowest: KB of its file", lambda one: f"{one['slowest_save']['bytes'] / 1e3:.0f}", ""),
        ("saved file found, seen by the watch, ms", lambda one: _three(one["watched_ms"]), ""),
        ("memory of the index, MB", lambda one: f"{one['memory_mb']:.0f} (after {2 * SAVES} saves {one['after_saves_mb']:.0f})", "200"),
        ("memory of the reader, MB", lambda one: f"{one['reader_mb']:.0f}", ""),
    ]  # fmt: skip
    for name, cell, wanted in rows:
        table.add_row(name, *(cell(figures[mode]) for mode in MODES), wanted)
    Console(width=150).print(table)


def _cpu_seconds(one: dict[str, Any]) -> str:
    return f"{one['reader_cpu']:.1f}, {one['own_cpu']:.1f}, ({one['measuring_cpu']:.1f})"


def _three(figures: dict[str, float]) -> str:
    return f"{figures['p50']:.1f} / {figures['p95']:.1f} / {figures['max']:.1f}"


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))))
