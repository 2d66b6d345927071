"""Apply a function to many rows in several processes, in order, with few rows in memory.

In:  a picklable function, rows, how many processes
Out: its results in the order of the rows, so that the number of processes changes no output
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

BATCH = 32  # rows per message: a message costs about as much as hashing one file


def _apply(work: Callable[[In], Out], batch: list[In]) -> list[Out]:
    return [work(item) for item in batch]


def in_order(
    work: Callable[[In], Out], items: Iterable[In], workers: int, setup: Callable[..., Any] | None = None, *args: Any
) -> Iterator[Out]:
    """Yield work(item) for every item, in order.

    Args:
        workers: processes; 1 works in this one.
        setup: called once per process with `args`, for what is dear to build (a tokenizer).
    """
    source = iter(items)
    first = list(itertools.islice(source, BATCH))
    if workers == 1 or len(first) < BATCH:  # not worth a process
        if setup:
            setup(*args)
        yield from map(work, itertools.chain(first, source))
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would copy Arrow's threads in an unknown state
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=setup, initargs=args) as pool:
        waiting: deque[Future[list[Out]]] = deque()
        try:
            batch = first
            while batch:
                waiting.append(pool.submit(_apply, work, batch))
                if len(waiting) > 3 * workers:
                    yield from waiting.popleft().result()
                batch = list(itertools.islice(source, BATCH))
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)  # without waiting, Python 3.11 may trip over its own thread at exit
