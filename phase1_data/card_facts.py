"""Gather what the data card says from what the four steps left behind.

In:  manifests, rejects, properties.parquet and the row files under one folder
Out: the card as one value; no times and no text of any file, so equal data gives equal cards

Everything is counted while it streams by; what stays in memory is a name or a number per repository, rule or duplicate.
A path may hold a name or a token of its own, so none is shown before it went through the scrubber.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.compute as pc

from core import canary
from core.records import Row, groups_of, read_group, read_json, read_parquet
from core.scrub import mask
from phase1_data.card_recall import detection

STEPS = ("ingest", "clean", "scrub", "samples")
SPLITS = ("train", "valid", "test_file", "test_repo")
EXAMPLES = 3  # paths shown per reason
CLUSTERS = 10  # largest clusters shown
DUPLICATES = ("exact_duplicate", "normalised_duplicate", "near_duplicate")


def build(root: Path) -> Row:
    """The card as one value.

    Raises:
        InputError: a step's output is missing; names its command.
    """
    manifests = {step: read_json(root / step / "manifest.json", f"python -m phase1_data {step}") for step in STEPS}
    counts = manifests["samples"]["counts"]
    return {
        "params": {step: manifests[step]["params"][step] for step in STEPS},
        "versions": {step: manifests[step]["versions"] for step in STEPS},
        "funnel": list(funnel(root)),
        **dropped(root),
        "quality_rules_alone": manifests["clean"]["counts"]["rule_alone"],
        **kept(root),
        "lengths": {"ingested": lengths(root / "clean" / "properties.parquet"), "kept": lengths(root / "samples" / "files.parquet")},
        "clusters": clusters(root / "clean" / "properties.parquet"),
        **redactions(root),
        "residual": manifests["scrub"]["counts"]["residual"],
        "canaries": canaries(root, manifests["ingest"]["params"]["ingest"]),
        "detection": detection(),
        "splits": counts["splits"],
        "middles": {split: middles(root / "samples" / f"{split}.parquet") for split in SPLITS},
        "holes_lost": counts["holes_lost"],
        "test_holes_short": counts["test_holes_short"],
        "largest_similarity": {sides: _shown_pair(pair) for sides, pair in counts["largest_similarity"].items()},
        "benchmark_hits": counts["benchmark_hits"],
    }


def shown(path: str) -> str:
    """A path without secrets and personal data, on one line."""
    return mask(path)[0].encode("unicode_escape").decode() if not path.isprintable() else mask(path)[0]


def _shown_pair(pair: Row) -> Row:
    return pair | {"files": [shown(path) for path in pair["files"]]}


def funnel(root: Path) -> Iterator[Row]:
    """Files and bytes that each step left."""
    for step in STEPS:
        files = size = 0
        for row in read_parquet(root / step / "files.parquet", made_by(step), ["n_bytes"]):
            files += 1
            size += row["n_bytes"]
        yield {"step": step, "files": files, "bytes": size}


def made_by(step: str) -> str:
    """The command that writes a step's folder."""
    return f"python -m phase1_data {step}"


def dropped(root: Path) -> Row:
    """Files that each step turned down, by reason, and the first paths of each with the value that broke the rule."""
    reasons: dict[str, Counter[str]] = {step: Counter() for step in STEPS}
    examples: dict[str, dict[str, list[Row]]] = {step: {} for step in STEPS}
    for step in STEPS:
        for row in read_parquet(root / step / "rejects.parquet", made_by(step)):
            reason = row["reason"]
            reasons[step][reason] += 1
            some = examples[step].setdefault(reason, [])
            if len(some) < EXAMPLES:
                some.append({"path": shown(row["path"]), "value": shown(row["value"] or "")})
    return {
        "dropped": {step: dict(sorted(reasons[step].items())) for step in STEPS},
        "examples": {step: dict(sorted(examples[step].items())) for step in STEPS},
    }


def kept(root: Path) -> Row:
    """Sources, licences, how those were found, languages and repositories of the files that are left."""
    keys = ("source", "source_rev", "repo", "repo_rev", "license", "license_how", "lang")
    files: Counter[tuple[str, ...]] = Counter()
    size: Counter[tuple[str, ...]] = Counter()
    for row in read_parquet(root / "samples" / "files.parquet", made_by("samples"), [*keys, "n_bytes"]):
        key = tuple(row[name] or "" for name in keys)
        files[key] += 1
        size[key] += row["n_bytes"]
    groups = [dict(zip(keys, key, strict=True)) | {"files": files[key], "bytes": size[key]} for key in sorted(files)]
    return {
        "sources": groups,
        "licenses": share_of(groups, "license"),
        "license_how": share_of(groups, "license_how"),
        "languages": share_of(groups, "lang"),
        "repos": share_of(groups, "repo"),
    }


def share_of(groups: Iterable[Row], key: str) -> dict[str, Row]:
    """Files and bytes by a column's value, largest first."""
    count: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for group in groups:
        count[group[key]] += group["files"]
        size[group[key]] += group["bytes"]
    return {name: {"files": count[name], "bytes": size[name]} for name in sorted(size, key=lambda name: (-size[name], name))}


def lengths(file: Path) -> Row:
    """Files by their number of lines and by their longest line: bin n holds [2^n, 2^(n+1)), bin 0 also empty ones."""
    bins: dict[str, Counter[int]] = {"n_lines": Counter(), "max_line": Counter()}
    for row in read_parquet(file, made_by(file.parent.name), list(bins)):
        for name, counter in bins.items():
            counter[octave(row[name] or 0)] += 1
    return {name: filled(counter) for name, counter in bins.items()}


def octave(value: int) -> int:
    """The n for which 2^n <= value < 2^(n+1); 0 for 0."""
    return max(value.bit_length() - 1, 0)


def filled(counter: Counter[int]) -> list[int]:
    """Counts of bins 0 to the last one in use."""
    return [counter[n] for n in range(max(counter, default=-1) + 1)]


def clusters(file: Path) -> list[Row]:
    """The largest groups of duplicates: how many files, which one stayed, how alike the others are to it.

    A file may be the copy of one that was itself dropped later, so the chain is followed to the file that stayed.
    """
    columns = ["file_id", "reason", "dup_of", "similarity", "n_bytes", "repo", "path"]
    copies: dict[str, str] = {}
    for row in read_parquet(file, made_by("clean"), ["file_id", "reason", "dup_of"]):
        if row["reason"] in DUPLICATES and row["dup_of"] != row["file_id"]:
            copies[row["file_id"]] = row["dup_of"]

    def stayed(file_id: str) -> str:
        while file_id in copies:
            file_id = copies[file_id]
        return file_id

    size: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    alike: dict[str, list[float]] = {}
    for row in read_parquet(file, made_by("clean"), columns):
        if row["reason"] in DUPLICATES:
            name = stayed(row["dup_of"])
            size[name] += 1
            lost[name] += row["n_bytes"]
            reasons[name][row["reason"]] += 1
            if row["similarity"] is not None:
                low, high = alike.get(name, (1.0, 0.0))
                alike[name] = [min(low, row["similarity"]), max(high, row["similarity"])]
    largest = sorted(size, key=lambda name: (-size[name], name))[:CLUSTERS]
    paths: dict[str, str] = {}
    others: dict[str, list[str]] = defaultdict(list)
    for row in read_parquet(file, made_by("clean"), ["file_id", "reason", "dup_of", "repo", "path"]):
        where = f"{row['repo']}/{row['path']}"
        if row["reason"] == "" and row["file_id"] in largest:
            paths[row["file_id"]] = shown(where)
        elif row["reason"] in DUPLICATES and (name := stayed(row["dup_of"])) in largest and len(others[name]) < EXAMPLES:
            others[name].append(shown(where))
    return [
        {
            "files": size[name] + 1,
            "bytes_dropped": lost[name],
            "kept": paths.get(name, ""),
            "dropped": dict(sorted(reasons[name].items())),
            "examples": others[name],
            "similarity": [round(value, 4) for value in alike.get(name, [])],
        }
        for name in largest
    ]


def redactions(root: Path) -> Row:
    """Masked places by kind and by rule, and the files that hold any, among those that scrubbing kept."""
    kinds: Counter[str] = Counter()
    rules: Counter[tuple[str, str]] = Counter()
    files = 0
    for row in read_parquet(root / "scrub" / "files.parquet", made_by("scrub"), ["redactions"]):
        found = row["redactions"] or ()
        files += bool(found)
        kinds.update(one["kind"] for one in found)
        rules.update((one["kind"], one["rule"]) for one in found)
    return {
        "redactions": dict(sorted(kinds.items())),
        "redaction_rules": [{"kind": kind, "rule": rule, "places": n} for (kind, rule), n in sorted(rules.items())],
        "files_masked": files,
    }


def canaries(root: Path, ingest: Row) -> Row:
    """What became of the planted files: how many are masked, and in how many rows of each split one stands; {} where none was planted.

    The values are made again from the seed; none is written here.
    """
    planted = {one.path: one for one in canary.plant(ingest.get("canaries", 0), ingest.get("canary_seed", 0))}
    if not planted:
        return {}
    found: Counter[str] = Counter(kept=0, masked=0, whole=0)
    for row in read_parquet(root / "scrub" / "files.parquet", made_by("scrub"), ["repo", "path", "content", "redactions"]):
        if row["repo"] == canary.REPO and row["path"] in planted:
            whole = planted[row["path"]].value in row["content"]
            found.update(kept=1, masked=int(bool(row["redactions"]) and not whole), whole=int(whole))
    rows: dict[str, int] = {}
    for split in SPLITS:
        repos = (row["repo"] for row in read_parquet(root / "samples" / f"{split}.parquet", made_by("samples"), ["repo"]))
        rows[split] = sum(repo == canary.REPO for repo in repos)
    return {"planted": len(planted), "seed": ingest["canary_seed"], **found, "rows": rows}


def told_of_canaries(canaries: Row) -> str:
    """One sentence on the planted files."""
    trained = canaries["rows"]["train"]
    held_out = sum(rows for split, rows in canaries["rows"].items() if split != "train")
    return (
        f"Canaries: {canaries['planted']} files with a made-up secret were planted before cleaning; {canaries['kept']} were kept, "
        f"{canaries['masked']} of them masked, {canaries['whole']} left whole. They stand in {trained:,} rows to train on and "
        f"{held_out:,} held-out ones; the evaluation asks the model for their values."
    )


def middles(file: Path) -> list[int]:
    """Rows by the length of their middle in characters, in bins as in `lengths`; left-to-right rows have none."""
    bins: Counter[int] = Counter()
    for group in range(len(groups_of(file, made_by("samples")))):
        rows = read_group(file, group, made_by("samples"), ["order", "middle"])
        cut = rows.filter(pc.not_equal(rows["order"], "ltr"))
        bins.update(map(octave, pc.utf8_length(cut["middle"]).to_pylist()))
    return filled(bins)
