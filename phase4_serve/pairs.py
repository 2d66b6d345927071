"""Preference pairs out of what people accepted, dismissed and wrote instead: what the next DPO learns from.

In:  the events files of a server that was started with --keep-text
Out: a JSONL file of rows {prefix, suffix, chosen, rejected, path, repo, kind: user_reject, origin: editor}, as
     `python -m phase2_train pairs --editor` reads it; counts by reason of what made no pair
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from core.errors import InputError
from core.records import write_jsonl
from phase4_serve.events import OLDER

Row = dict[str, Any]


def run(events: Path, out: Path) -> Counter[str]:
    """Write the pairs; returns how many rows became what.

    Raises:
        InputError: no such file, or nothing in it makes a pair.
    """
    files = [file for number in range(OLDER, 0, -1) if (file := events.with_name(f"{events.name}.{number}")).is_file()]
    files += [events] if events.is_file() else []
    if not files:
        raise InputError(f"{events} is missing: start `python -m phase4_serve up --keep-text` and let an editor send events")
    counts: Counter[str] = Counter()
    pairs = list(pairs_of(rows(files, counts), counts))
    counts = +counts  # what did not happen is not said
    if not pairs:
        raise InputError(
            f"{events}: nothing makes a pair ({dict(sorted(counts.items())) or 'no events'}): texts are kept only with --keep-text"
        )
    write_jsonl(out, pairs)
    counts["pairs"] = len(pairs)
    return counts


def rows(files: Iterable[Path], counts: Counter[str]) -> Iterator[Row]:
    """The rows of several files, oldest first; a line that was cut by a crash is counted."""
    for file in files:
        with file.open("rb") as lines:
            for line in lines:
                try:
                    row = orjson.loads(line)
                except orjson.JSONDecodeError:
                    row = None
                if isinstance(row, dict):
                    yield row
                else:
                    counts["not_json"] += 1


def pairs_of(found: Iterable[Row], counts: Counter[str]) -> Iterator[Row]:
    """At one place: what was accepted and kept, or written by hand, against what was dismissed or did not last."""
    chosen: dict[tuple[str, str], dict[str, Row]] = {}
    rejected: dict[tuple[str, str], dict[str, Row]] = {}
    of_id: dict[str, tuple[tuple[str, str], str]] = {}
    for row in found:
        kind, name = row.get("event"), str(row.get("id", ""))
        if kind == "kept" and row.get("kept") is False and name in of_id:  # it was accepted, and did not last
            place, text = of_id[name]
            if (gone := chosen.get(place, {}).pop(text, None)) is not None:
                rejected.setdefault(place, {})[text] = gone
        if not isinstance(row.get("text"), str) or not isinstance(row.get("prefix"), str) or not isinstance(row.get("suffix"), str):
            counts["without_text"] += kind in ("accepted", "dismissed", "written")
            continue
        place, text = (row["prefix"], row["suffix"]), row["text"]
        of_id[name] = place, text
        if kind == "accepted" and row.get("how", "full") == "full":
            chosen.setdefault(place, {})[text] = row
        elif kind == "accepted":
            counts["accepted_in_part"] += 1
        else:
            rejected.setdefault(place, {})[text] = row
        if isinstance(row.get("written"), str):
            chosen.setdefault(place, {})[row["written"]] = row
    for place, worse in rejected.items():
        for text, row in worse.items():
            better = [good for good in chosen.get(place, {}) if good.strip() != text.strip()]
            counts["nothing_better_known"] += not better
            for good in better:
                yield {
                    "prefix": place[0], "suffix": place[1], "chosen": good, "rejected": text, "path": str(row.get("path", "")),
                    "repo": str(row.get("repo", "")), "kind": "user_reject", "origin": "editor",
                }  # fmt: skip
