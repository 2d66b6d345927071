"""What explain found, for people or as JSON.

In:  files
Out: lines on stdout; one line on stderr for each file that cannot be read
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import typer

from core.errors import InputError, one_line
from core.records import Row
from phase1_data import explain


def show(names: Iterable[str], as_json: bool) -> bool:
    """Explain the files; return whether all of them could be read."""
    told: list[Row] = []
    counts = [0, 0, 0, 0]  # files, of them unreadable, masked, stayed
    for result in explain.run(names):
        counts[0] += 1
        if isinstance(result, InputError):
            counts[1] += 1
            typer.echo(f"error: {one_line(result)}", err=True)
            continue
        counts[2] += len(result["found"])
        counts[3] += len(result["stayed"])
        if as_json:
            told.append(result)
        else:
            for line in page(result):
                typer.echo(line)
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    elif counts[0] - counts[1] > 1:
        typer.echo(f"{counts[0] - counts[1]:,} files: {counts[2]:,} masked, {counts[3]:,} looked at and left")
    return not counts[1]


def page(result: Row) -> Iterator[str]:
    """Lines for one file."""
    yield f"{result['path']}: {len(result['found']):,} masked, {len(result['stayed']):,} looked at and left"
    for one in result["found"]:
        yield f"  {_place(one)}  {one['kind']}  {one['rule']}  {_value(one)} -> {one['placeholder']}"
        yield f"  {'':<9}  {one['shown']}"
    if result["stayed"]:
        yield "  left as it is:"
    for one in result["stayed"]:
        yield f"  {_place(one)}  {one['rule']}  {_value(one)}: {one['why']}"


def _place(one: Row) -> str:
    return f"{one['line']}:{one['column']}".ljust(9)


def _value(one: Row) -> str:
    """The value as far as it may be told."""
    return f"{one['starts']}… ({one['length']:,} character{'' if one['length'] == 1 else 's'})"
