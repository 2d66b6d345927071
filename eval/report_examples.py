"""Completions in the report: the best and the worst of the last model, as differences from the truth, beside what the first one wrote.

In:  rows of the first and the last model, the held-out samples
Out: blocks
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from core.records import Row
from eval.document import Block, Example, Heading, Text
from eval.report_words import NAMES, order_name
from eval.summary import Summary, span_family

TAIL_LINES, HEAD_LINES, LINE_CHARS = 6, 3, 160  # of an example's surroundings


def examples(summary: Summary, rows: Mapping[str, list[Row]], samples: Mapping[str, Row], count: int) -> Iterator[Block]:
    """`count` best and worst, one per file.

    Best: exact, the longest truth first; then the most alike. Worst: the least alike, the longest truth first.
    """
    first, last, order = summary.models[0], summary.models[-1], summary.scopes[0].order
    pairs = [(a, b) for a, b in zip(rows[first], rows[last], strict=True) if a["order"] == order and a["sample_id"] in samples]
    if not pairs or not count:
        return
    best = sorted(pairs, key=lambda p: (not p[1]["exact"], -p[1]["similarity"], -p[1]["n_bytes"], p[1]["sample_id"]))
    worst = sorted((p for p in pairs if not p[1]["exact"]), key=lambda p: (p[1]["similarity"], -p[1]["n_bytes"], p[1]["sample_id"]))
    yield Heading("Completions")
    yield Text(
        f"{NAMES[last]}, and {NAMES[first]} beside it, {order_name(order)}. Picked by the figures, one per file. Struck out: in the "
        "truth, not written. Underlined: written, not in the truth. A dot is a blank, ⏎ the end of a line, where they differ."
    )
    shown: set[str] = set()
    for title, some in (("Best", best), ("Worst", worst)):
        picked = [p for p in _one_per_file(some) if p[1]["sample_id"] not in shown][:count]
        if picked:
            yield Heading(f"{title} {len(picked)}", 3)
        for pair in picked:
            shown.add(pair[1]["sample_id"])
            yield example(samples[pair[1]["sample_id"]], {last: pair[1], first: pair[0]})


def _one_per_file(pairs: Sequence[tuple[Row, Row]]) -> list[tuple[Row, Row]]:
    return list({pair[1]["file_id"]: pair for pair in reversed(pairs)}.values())[::-1]


def example(sample: Row, written: Mapping[str, Row]) -> Example:
    """One hole and what models wrote into it."""
    tries = [
        (NAMES[model], row["completion"], "exact" if row["exact"] else f"similarity {row['similarity']:.0f}")
        for model, row in written.items()
    ]
    before = "\n".join(line[-LINE_CHARS:] for line in sample["prefix"].split("\n")[-TAIL_LINES:])
    after = "\n".join(line[:LINE_CHARS] for line in sample["suffix"].split("\n")[:HEAD_LINES])
    title = f"`{sample['repo']}` `{sample['path']}`, {span_family(sample['span_kind'])}"
    return Example(title, before, after, sample["middle"], tries)
