"""Say what the data is: one page for people, the same as JSON for programs.

In:  manifests and rejects of the four steps under one folder
Out: data_card.json and data_card.md; no times and no text of any file, so equal data gives equal cards
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from core.records import Row, read_json, read_parquet, write_json, write_text

STEPS = ("ingest", "clean", "scrub", "samples")
SPLITS = ("train", "valid", "test_file", "test_repo")
TOP_REPOS = 15


def build(root: Path) -> Row:
    """The card as one value.

    Raises:
        InputError: a step's output is missing; names its command.
    """
    manifests = {step: read_json(root / step / "manifest.json", f"python -m phase1_data {step}") for step in STEPS}
    files = list(
        read_parquet(root / "samples" / "files.parquet", "python -m phase1_data samples", ["repo", "license", "lang", "n_bytes", "split"])
    )
    counts = manifests["samples"]["counts"]
    return {
        "params": {step: manifests[step]["params"][step] for step in STEPS},
        "versions": {step: manifests[step]["versions"] for step in STEPS},
        "funnel": list(funnel(root)),
        "dropped": {step: dropped(root / step) for step in STEPS},
        "quality_rules_alone": manifests["clean"]["counts"]["rule_alone"],
        "sources": sources(root),
        "licenses": share_of(files, "license"),
        "languages": share_of(files, "lang"),
        "repos": share_of(files, "repo"),
        "redactions": redactions(root),
        "splits": counts["splits"],
        "holes_lost": counts["holes_lost"],
        "test_holes_short": counts["test_holes_short"],
        "largest_similarity": counts["largest_similarity"],
        "benchmark_hits": counts["benchmark_hits"],
    }


def funnel(root: Path) -> Iterator[Row]:
    """Files and bytes that each step left."""
    for step in STEPS:
        sizes = [row["n_bytes"] for row in read_parquet(root / step / "files.parquet", f"python -m phase1_data {step}", ["n_bytes"])]
        yield {"step": step, "files": len(sizes), "bytes": sum(sizes)}


def dropped(folder: Path) -> dict[str, int]:
    """Files that a step turned down, by reason."""
    reasons = Counter(row["reason"] for row in read_parquet(folder / "rejects.parquet", f"python -m phase1_data {folder.name}", ["reason"]))
    return dict(sorted(reasons.items()))


def sources(root: Path) -> list[Row]:
    """Where the kept files come from: repository, revision, licence and how it was found."""
    keys = ("source", "source_rev", "repo", "repo_rev", "license", "license_how")
    rows = read_parquet(root / "samples" / "files.parquet", "python -m phase1_data samples", [*keys, "n_bytes"])
    files: Counter[tuple[str, ...]] = Counter()
    size: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        key = tuple(row[name] or "" for name in keys)
        files[key] += 1
        size[key] += row["n_bytes"]
    return [dict(zip(keys, key, strict=True)) | {"files": files[key], "bytes": size[key]} for key in sorted(files)]


def share_of(files: Iterable[Row], key: str) -> dict[str, Row]:
    """Files and bytes by a column's value, largest first."""
    count: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for file in files:
        count[file[key]] += 1
        size[file[key]] += file["n_bytes"]
    return {name: {"files": count[name], "bytes": size[name]} for name in sorted(size, key=lambda name: (-size[name], name))}


def redactions(root: Path) -> dict[str, int]:
    """Masked places by kind, in the files that scrubbing kept."""
    rows = read_parquet(root / "scrub" / "files.parquet", "python -m phase1_data scrub", ["redactions"])
    return dict(sorted(Counter(found["kind"] for row in rows for found in row["redactions"] or ()).items()))


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
        f"{files:,} files, {size / 1e6:.1f} MB of {', '.join(found['languages'])}.",
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
    lines += ["## Repositories", "", *table(("repository", "files", "MB"), list(_sizes(found["repos"]))[:TOP_REPOS])]
    if len(found["repos"]) > TOP_REPOS:
        lines += [f"The {TOP_REPOS} largest of {len(found['repos'])}; all of them, with revisions, in data_card.json.", ""]
    lines += ["## Masked", "", *(table(("kind", "places"), found["redactions"].items()) if found["redactions"] else ["Nothing.", ""])]
    return "\n".join([*lines, *_splits(found), *_checks(found)])


def _sizes(shares: dict[str, Row]) -> Iterator[tuple[object, ...]]:
    return ((name, share["files"], f"{share['bytes'] / 1e6:.2f}") for name, share in shares.items())


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


def run(root: Path, reports: Path) -> Path:
    """Write data_card.json and data_card.md under `reports`; `root` holds one folder per step."""
    found = build(root)
    write_json(reports / "data_card.json", found)
    write_text(reports / "data_card.md", page(found))
    return reports / "data_card.md"
