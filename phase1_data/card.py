"""Say what the data is: a page for people to sign, the same as Markdown, the figures as JSON for programs.

In:  what the four steps left under one folder
Out: data_card.json and data_card.md, without times or the text of any file, so equal data gives equal cards;
     data_card.html, which also shows speeds and a few masked lines
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from core.records import Row, read_json, write_json, write_text
from phase1_data.card_diffs import diffs
from phase1_data.card_facts import SPLITS, STEPS, build, told_of_canaries
from phase1_data.card_page import html

TOP_REPOS = 15


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    """Lines of a Markdown table, numbers with thousands separators."""
    names = list(head)
    shown = [[f"{cell:,}" if isinstance(cell, int) else str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return ["| " + " | ".join(cells) + " |" for cells in (names, ["---"] * len(names), *shown)] + [""]


def page(found: Row) -> str:
    """The card as Markdown."""
    files, size = found["funnel"][-1]["files"], found["funnel"][-1]["bytes"]
    lines = [
        "# Data card",
        "",
        f"{files:,} files, {size / 1e6:.1f} MB of {', '.join(found['languages'])}. With plots, examples and thresholds: data_card.html.",
        "",
        "## What each step left",
        "",
    ]
    lines += table(("step", "files", "MB"), ((row["step"], row["files"], f"{row['bytes'] / 1e6:.2f}") for row in found["funnel"]))
    lines += ["## What was left out, and why", ""]
    lines += table(
        ("step", "reason", "files"), ((step, reason, n) for step, reasons in found["dropped"].items() for reason, n in reasons.items())
    )
    alone = ", ".join(f"{rule} {n:,}" for rule, n in found["quality_rules_alone"].items())
    lines += [f"A file is counted under the first rule it broke. By itself each rule of `clean` would drop: {alone or 'nothing'}.", ""]
    lines += ["## Licences", "", *table(("licence", "files", "MB"), _sizes(found["licenses"]))]
    how = ", ".join(f"{name} {share['files']:,}" for name, share in found["license_how"].items())
    lines += [f"Found by: {how}. Unknown: {found['licenses'].get('unknown', {'files': 0})['files']:,}.", ""]
    lines += ["## Repositories", "", *table(("repository", "files", "MB"), list(_sizes(found["repos"]))[:TOP_REPOS])]
    if len(found["repos"]) > TOP_REPOS:
        lines += [f"The {TOP_REPOS} largest of {len(found['repos'])}; all of them, with revisions, in data_card.json.", ""]
    return "\n".join([*lines, *_duplicates(found), *_masked(found), *_splits(found), *_checks(found)])


def _sizes(shares: dict[str, Row]) -> Iterator[tuple[object, ...]]:
    return ((name, share["files"], f"{share['bytes'] / 1e6:.2f}") for name, share in shares.items())


def _duplicates(found: Row) -> Iterator[str]:
    yield from ("## Largest clusters of duplicates", "")
    rows = (
        (one["kept"], one["files"], " to ".join(dict.fromkeys(f"{value:.2f}" for value in one["similarity"])) or "equal")
        for one in found["clusters"]
    )
    yield from table(("kept file", "files", "similarity to it"), rows) if found["clusters"] else ["None.", ""]


def _masked(found: Row) -> Iterator[str]:
    size = next(step["bytes"] for step in found["funnel"] if step["step"] == "scrub") / 1e6 or 1
    yield from ("## Masked", "")
    rows = ((one["kind"], one["rule"], one["places"], f"{one['places'] / size:.3f}") for one in found["redaction_rules"])
    yield from table(("kind", "rule", "places", "per MB"), rows) if found["redaction_rules"] else ["Nothing.", ""]
    yield from (f"In {found['files_masked']:,} files. Found when what was written was searched again: {found['residual']:,}.", "")
    if found["canaries"]:
        yield from (told_of_canaries(found["canaries"]), "")
    yield from ("On labelled rows made at run time (found: more than 90% of the value masked):", "")
    groups = (
        (name, one["rows"], f"{one['recall']:.1%}", f"{one['precision']:.1%}", one["look_alikes"], one["look_alikes_changed"])
        for name, one in found["detection"].items()
    )
    yield from table(("rows", "real", "recall", "precision", "look-alikes", "changed"), groups)


def _splits(found: Row) -> Iterator[str]:
    splits = {name: found["splits"][name] for name in SPLITS}
    yield from ("## Rows", "")
    rows = (
        (name, s["files"], s["rows"], s["tokens"], s["with_context"], _mix(s["orders"]), _mix(_families(s["span_kinds"])))
        for name, s in splits.items()
    )
    yield from table(("split", "files", "rows", "tokens", "with context", "orders", "spans"), rows)
    middles = (
        (name, *(s["middle_characters"][at] for at in ("p50", "p90", "p99", "max"))) for name, s in splits.items() if s["middle_characters"]
    )
    yield from ("Length of the middles in characters:", "")
    yield from table(("split", "median", "90%", "99%", "largest"), middles)
    yield from ("Holes that came to nothing:", "")
    yield from table(("split: reason", "holes"), found["holes_lost"].items())
    for split, missing in found["test_holes_short"].items():
        yield from (f"{split} is {missing:,} holes short of what was asked: its files hold no more.", "")


def _checks(found: Row) -> Iterator[str]:
    yield from (
        "## Across splits",
        "",
        "The most alike pair of files that was found on two sides (Jaccard of token 5-grams; 0.7 would stop the step):",
        "",
    )
    pairs = (
        (sides.replace("|", " and "), pair["similarity"], ", ".join(pair["files"]))
        for sides, pair in sorted(found["largest_similarity"].items())
    )
    yield from table(("splits", "similarity", "files"), pairs)
    yield from ("## Benchmarks kept out", "")
    hits = found["benchmark_hits"]
    yield from table(("benchmark", "files that shared text with it"), hits.items()) if hits else ["None named.", ""]


def _families(kinds: dict[str, int]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for kind, n in kinds.items():
        total[kind.split(":")[0]] += n
    return dict(sorted(total.items()))


def _mix(counts: dict[str, int]) -> str:
    total = sum(counts.values())
    return ", ".join(f"{name} {n / total:.0%}" for name, n in counts.items()) if total else "none"


def timings(root: Path) -> dict[str, Row]:
    """What the last run of each step measured, for the steps that left it."""
    files = {step: root / "runs" / f"{step}.json" for step in STEPS}
    return {step: read_json(file, f"python -m phase1_data {step}") for step, file in files.items() if file.is_file()}


def read_on(root: Path) -> str:
    """The day on which ingest read the sources, "" where its timings are not beside the data."""
    file = root / "runs" / "ingest.json"
    return datetime.fromtimestamp(file.stat().st_mtime, UTC).date().isoformat() if file.is_file() else ""


def run(root: Path, reports: Path) -> Path:
    """Write data_card.json, data_card.md and data_card.html under `reports`; `root` holds one folder per step."""
    found = build(root)
    write_json(reports / "data_card.json", found)
    write_text(reports / "data_card.md", page(found))
    write_text(reports / "data_card.html", html(found, timings(root), read_on(root), diffs(root)))
    return reports / "data_card.html"
