"""Data in the report: where the samples come from, and what every stage took.

In:  the data card or None; */out/runs/*.json
Out: blocks
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eval.document import Block, Heading, Table, Text
from eval.report_words import DASH, figure, megabytes, missing, shown


def data(card: Mapping[str, Any] | None) -> Iterator[Block]:
    """The card in short."""
    yield Heading("Data")
    if not card:
        yield missing("The data card", "python -m phase1_data samples")
        return
    funnel = [[str(row["step"]), f"{row['files']:,}", megabytes(row["bytes"])] for row in card.get("funnel") or []]
    if funnel:
        yield Table(["after", "files", "size"], funnel)
    splits = card.get("splits") or {}
    if splits:
        keys = [key for key in ("files", "rows", "tokens") if all(key in one for one in splits.values())]
        yield Table(["split", *keys], [[name, *(f"{one[key]:,}" for key in keys)] for name, one in splits.items()])
    licences = card.get("licenses") or {}
    if licences:
        yield Text("Licences: " + ", ".join(f"{name} ({shown(figure(share, 'files'))} files)" for name, share in licences.items()) + ".")
    masked = card.get("redactions") or {}
    if masked:
        yield Text("Masked before anything else saw it: " + ", ".join(f"{kind} {n:,}" for kind, n in masked.items()) + ".")
    planted = card.get("canaries") or {}
    if planted:
        counts = [shown(figure(planted, key)) for key in ("planted", "masked", "whole")]
        yield Text("Canaries planted: {}; masked: {}; left whole: {}.".format(*counts))
    yield Text("All of it: `eval/reports/data_card.html`.")


def timings(root: Path) -> Iterator[Block]:
    """What each stage took."""
    yield Heading("Time and memory")
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(root.glob("*/out/runs/*.json"))]
    if not runs:
        yield Text("No stage has left its timings.")
        return
    rows = [[str(run["stage"]), f"{run['seconds']:,.1f}", f"{run['peak_memory_mb']:,.0f}", str(run.get("device", DASH))] for run in runs]
    yield Table(
        ["stage", "seconds", "peak memory, MB", "device"],
        [*rows, ["together", f"{sum(run['seconds'] for run in runs):,.1f}", "", ""]],
        words=(3,),
    )
