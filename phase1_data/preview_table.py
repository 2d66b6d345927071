"""What preview counted, for people: a table on a terminal, aligned columns where it is piped.

In:  figures of preview.run
Out: lines on stdout
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from core.records import Row

HEADERS = ("rule", "threshold", "files", "MB", "only it", "MB")
LEFT = 2  # columns of text; the others hold numbers


def rules(figures: Row) -> Iterator[list[str]]:
    """A line per rule at its present threshold."""
    for rule in figures["rules"]:
        yield [rule["rule"], setting(rule["key"], rule["value"]), *amounts(rule)]


def others(figures: Row) -> Iterator[list[str]]:
    """A line per value of each threshold; the present one is marked."""
    for rule in figures["rules"]:
        for other in rule["values"]:
            mark = "  <- now" if other["value"] == rule["value"] else ""
            yield [rule["rule"], setting(rule["key"], other["value"]) + mark, *amounts(other)]


def examples(figures: Row) -> Iterator[str]:
    """Files that break each rule: first those that no other rule takes, nearest to the threshold."""
    for rule in figures["rules"]:
        for example in rule["examples"]:
            yield f"  {rule['rule']:<10}  {example['value']:<10}  {example['path']}"


def setting(key: str, value: Any) -> str:
    """A key of params.yaml with its value."""
    return f"{key}: {str(value).lower() if isinstance(value, bool) else ', '.join(value) if isinstance(value, list) else value}"


def amounts(counts: Row) -> list[str]:
    """Files and MB, and those of them that no other rule takes."""
    size, alone = counts["bytes"] / 1e6, counts["only_bytes"] / 1e6
    return [f"{counts['files']:,}", f"{size:,.2f}", f"{counts['only_files']:,}", f"{alone:,.2f}"]


def summary(figures: Row) -> Iterator[str]:
    """What all rules take together, and what comes after them."""
    share = 100 * figures["broken_files"] / figures["files"]
    yield (
        f"Together they would take {figures['broken_files']:,} of {figures['files']:,} files ({share:.1f}%), "
        f"{figures['broken_bytes'] / 1e6:,.2f} of {figures['bytes'] / 1e6:,.2f} MB."
    )
    if figures["duplicates"] is None:
        yield "Duplicates are taken after these rules; how many is known once `python -m phase1_data clean` has run."
    else:
        counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in figures["duplicates"].items())
        yield f"Duplicates are taken after these rules; the last clean, at its own thresholds: {counts}."


def show(figures: Row) -> None:
    """Print everything."""
    _table("At the thresholds of params.yaml", list(rules(figures)))
    typer.echo("\n".join(["", "For example", *examples(figures), ""]) if figures["broken_files"] else "")
    _table("At other values of one threshold, the rest as it is", list(others(figures)))
    typer.echo()
    for line in summary(figures):
        typer.echo(line)


def _table(title: str, lines: Sequence[Sequence[str]]) -> None:
    if sys.stdout.isatty():
        table = Table(title=title, title_justify="left")
        for number, header in enumerate(HEADERS):
            table.add_column(header, justify="left" if number < LEFT else "right")
        for line in lines:
            table.add_row(*map(Text, line))
        Console().print(table)
        return
    typer.echo(title)
    widths = [max(map(len, column)) for column in zip(HEADERS, *lines, strict=True)]
    for line in (HEADERS, *lines):
        cells = [cell.ljust(width) if n < LEFT else cell.rjust(width) for n, (cell, width) in enumerate(zip(line, widths, strict=True))]
        typer.echo("  ".join(cells).rstrip())
