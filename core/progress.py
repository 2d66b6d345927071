"""Progress of long work: a bar with rate and ETA on a terminal, a plain line per interval elsewhere.

In:  any iterable, its length if known
Out: the same items; progress on stderr
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")
INTERVAL = 10.0  # seconds between plain lines: a log of an hour stays under 400 lines


def plain_line(label: str, done: int, total: int | None, unit: str, seconds: float) -> str:
    """One line of progress with a rate and, where the total is known, an ETA."""
    rate = done / seconds if seconds > 0 else 0.0
    of = f"/{total:,}" if total else ""
    eta = f", {(total - done) / rate:,.0f} s left" if total and rate and done < total else ""
    return f"{label}: {done:,}{of} {unit}, {rate:,.1f}/s{eta}"


def _one(_: object) -> int:
    return 1


def track(
    items: Iterable[Item], label: str, total: int | None = None, unit: str = "files", amount: Callable[[Item], int] = _one
) -> Iterator[Item]:
    """Yield the items and show how far, how fast and how long still.

    Args:
        total: of the amounts; the number of items where that is known and each counts as one.
        amount: how much an item counts, in units.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    show = _bar if sys.stderr.isatty() else _lines
    return show(items, label, total, unit, amount)


def _bar(items: Iterable[Item], label: str, total: int | None, unit: str, amount: Callable[[Item], int]) -> Iterator[Item]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TaskProgressColumn(show_speed=True),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total)
        for item in items:
            yield item
            progress.advance(task, amount(item))


def _lines(items: Iterable[Item], label: str, total: int | None, unit: str, amount: Callable[[Item], int]) -> Iterator[Item]:
    started = last = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += amount(item)
        if time.monotonic() - last >= INTERVAL:
            last = time.monotonic()
            print(plain_line(label, done, total, unit, last - started), file=sys.stderr, flush=True)
    print(plain_line(label, done, total, unit, time.monotonic() - started), file=sys.stderr, flush=True)
