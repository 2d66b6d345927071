"""How fast a GGUF answers on this machine, and how much memory it takes.

In:  GGUF files, a prompt as ids
Out: Speed of each, the median over rounds in which every file has its turn, so that a busy minute of the machine slows all alike

Run as a server runs it: cache in float16, flash attention where llama.cpp takes it.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from core.manifest import peak_memory_mb
from core.progress import track
from phase3_quantize.engine import GgufModel

LONG = 256  # tokens of a prompt that is timed for its rate
WRITTEN = 32  # tokens generated


class Speed(NamedTuple):
    """Of one file."""

    prompt_tps: float  # tokens/s over LONG tokens at once
    generate_tps: float  # tokens/s one after the other
    ttft_ms: float  # milliseconds to the first token after a prompt of usual length, nothing cached
    memory_mb: float  # 10^6 bytes that the process grew by: the file's pages, the context, what llama.cpp packed anew


def resident() -> float:
    """Bytes of memory of this process; where the system does not say, the most it ever had."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return peak_memory_mb() * 1e6


def seconds_of(model: GgufModel, ids: Sequence[int]) -> float:
    """Time until the first token after a prompt is known."""
    model.clear()
    started = time.perf_counter()
    model.extend(ids)[0].argmax()
    return time.perf_counter() - started


def measure(path: Path, prompt: Sequence[int], threads: int) -> Speed:
    """Once, after a warm-up; a prompt shorter than LONG is repeated for the rate."""
    long = (list(prompt) * (LONG // len(prompt) + 1))[:LONG]
    before = resident()
    with GgufModel(path, max(LONG, len(prompt)) + WRITTEN, threads, as_served=True) as model:
        seconds_of(model, long)
        rate = LONG / seconds_of(model, long)
        first = seconds_of(model, prompt)
        token = prompt[-1]
        started = time.perf_counter()
        for _ in range(WRITTEN):
            token = int(model.extend([token])[0].argmax())
        generated = WRITTEN / (time.perf_counter() - started)
        return Speed(rate, generated, first * 1e3, (resident() - before) / 1e6)


def compare(files: Mapping[str, Path], prompt: Sequence[int], threads: int, rounds: int) -> dict[str, Speed]:
    """Every file once in each round; the median of each figure by name."""
    found: dict[str, list[Speed]] = {name: [] for name in files}
    turns = [(name, path) for _ in range(rounds) for name, path in files.items()]
    for name, path in track(turns, "speed", unit="files"):
        found[name].append(measure(path, prompt, threads))
    return {name: Speed(*(statistics.median(values) for values in zip(*speeds, strict=True))) for name, speeds in found.items()}
