"""What a gate found, for a person: verdict, reasons, a table; aligned text where nobody watches.

In:  gate.json
Out: lines on stdout
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from phase2_train.gate import BY_NAME, METRICS, shown

HEAD = ("", "parent", "child", "difference", "holes", "p", "smallest visible", "")


def lines(record: dict[str, Any]) -> Iterator[list[str]]:
    """One row of cells per metric."""
    for metric in METRICS:
        one = record["figures"][metric.name]
        low, high = (shown(one[end], metric, True) for end in ("low", "high"))
        moved = f"+{one['gained']} -{one['lost']}" if one["gained"] is not None else ""
        said = "worse" if metric.name in record["harms"] else "better" if metric.name in record["gains"] else ""
        yield [
            f"{metric.label}{', %' if metric.unit else ''}",
            *(_with_range(one[who], metric.name) for who in ("parent", "child")),
            f"{shown(one['difference'], metric, True)} [{low}, {high}]",
            moved,
            "" if one["p"] is None else f"{one['p']:.3f}",
            shown(one["smallest_visible"], metric),
            said if one["decides"] else "told only",
        ]


def _with_range(found: dict[str, float], name: str) -> str:
    value, low, high = (shown(found[end], BY_NAME[name]) for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def opening(record: dict[str, Any]) -> Iterator[str]:
    """Verdict and reasons; what was asked."""
    ships = record["ships"] if record["ships"] != "base" else "the bare base"
    yield f"{record['gate']} gate: {record['verdict']} ({ships})"
    yield from (f"  {reason}" for reason in record["reasons"])
    least = record["figures"]["exact_match"]["smallest_visible"]
    yield (
        f"  {record['child']} against {record['parent']} on the same {record['n']:,} held-out holes of {record['files']:,} files, "
        f"{record['order'].upper()}, greedy; a change of exact match under {100 * least:.1f} points would not have shown "
        f"({record['confidence']:.0%})"
    )


def show(record: dict[str, Any]) -> None:
    """Print all of it."""
    print("\n".join(opening(record)), flush=True)
    rows = list(lines(record))
    if not sys.stdout.isatty():
        widths = [max(len(row[at]) for row in (HEAD, *rows)) for at in range(len(HEAD))]
        for row in (HEAD, *rows):
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    table = Table(*HEAD)
    for column in table.columns[1:7]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row, style="red" if row[-1] == "worse" else "green" if row[-1] == "better" else None)
    Console().print(table)
