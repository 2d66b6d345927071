"""How much faster our scrubber is on two processes than on one.

In:  texts
Out: wall-clock seconds for 1 and 2 processes, measured in turn, from the moment every process has imported and masked something
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier

from core.progress import track
from core.records import Row
from core.scrub import mask

PROCESSES = (1, 2)
CHUNK = 100_000  # characters handed to a process at a time
PATIENCE = 120  # seconds for all processes to start

_barrier: Barrier | None = None


def _start(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _warm(texts: list[str]) -> int:
    """Mask something, then wait until every process has: none gets two."""
    done = _mask(texts)
    if _barrier is not None:
        _barrier.wait(PATIENCE)
    return done


def _mask(texts: list[str]) -> int:
    return sum(len(mask(text)[0]) for text in texts)


def chunks(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in lists of CHUNK characters or one text."""
    chunk: list[str] = []
    size = 0
    for text in texts:
        if chunk and size + len(text) > CHUNK:
            yield chunk
            chunk, size = [], 0
        chunk.append(text)
        size += len(text)
    if chunk:
        yield chunk


def wall_seconds(work: list[list[str]], processes: int) -> float:
    """Seconds for all the work on warm processes."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _start, (context.Barrier(processes),)) as pool:
        list(pool.map(_warm, [work[0]] * processes))
        started = time.perf_counter()
        list(pool.map(_mask, work))
        return time.perf_counter() - started


def measure(texts: Sequence[str], rounds: int) -> Row:
    """Median seconds by number of processes, and how many times faster two are."""
    work = list(chunks(texts))
    taken: dict[int, list[float]] = {processes: [] for processes in PROCESSES}
    turns = [processes for _ in range(rounds) for processes in PROCESSES]
    for processes in track(turns, "processes", unit="runs"):
        taken[processes].append(wall_seconds(work, processes))
    one, two = (statistics.median(taken[processes]) for processes in PROCESSES)
    return {"seconds": {str(processes): seconds for processes, seconds in taken.items()}, "times": one / two}
