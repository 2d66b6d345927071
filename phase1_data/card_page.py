"""The data card as one HTML file that needs nothing beside it: no script, no font, no address.

In:  the card's value; what differs from run to run (speeds, the day of reading); a few masked lines
Out: HTML for a wide window, a phone, paper, light and dark
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from core.records import Row
from phase1_data.card_diffs import Diff
from phase1_data.card_facts import told_of_canaries
from phase1_data.card_html import STYLE, Html, Words, bar, charts, figure, mb, paragraph, percent, table
from phase1_data.card_plots import bars, octaves

TOP_REPOS = 15
LARGE_REPO = 0.2  # of all bytes: one style would drown the others
# why a file was left out; a reason that is not here speaks for itself
MEANING = {
    "empty": "nothing but white space",
    "binary": "a NUL byte",
    "undecodable": "in no encoding that it declares",
    "unreadable": "the system would not open it",
    "language": "not one of `ingest.languages`",
    "file_bytes": "above `ingest.max_file_bytes`",
    "repo_bytes": "its repository reached `ingest.max_repo_bytes`",
    "test": "tests of installed packages are near-copies of one another",
    "license": "not allowed by `clean.licenses`",
    "generated": "written by a program, vendored, or a table of data",
    "min_lines": "fewer lines than `clean.min_lines`",
    "max_line": "a line longer than `clean.max_line`",
    "mean_line": "lines longer on average than `clean.mean_line`",
    "min_alnum": "a smaller share of letters and digits than `clean.min_alnum`",
    "unparsable": "not valid in its language",
    "exact_duplicate": "the same bytes as a file that stayed",
    "normalised_duplicate": "the same but for white space and licence header",
    "near_duplicate": "Jaccard similarity of token 5-grams at or above `clean.dedup_threshold`",
    "masked_share": "more of it masked than `scrub.max_masked_share`",
    "redaction_broke_syntax": "parsed before masking and not after",
    "benchmark": "shares `samples.ngram` words in a row with a benchmark",
    "near_heldout_repo": "near-duplicate of a file of a held-out repository",
}


def html(card: Row, runs: Mapping[str, Row], read_on: str, diffs: Sequence[Diff]) -> str:
    """The whole page.

    Args:
        card: what card_facts.build gives.
        runs: timings by step, as core.manifest.Run wrote them; empty where there are none.
        read_on: the day on which the sources were read, "" if unknown.
        diffs: a few masked places.
    """
    parts = [
        ("What each step left", funnel(card)),
        ("What was left out, and why", reasons(card)),
        ("Licences", licences(card)),
        ("Languages and repositories", languages(card)),
        ("Lengths", lengths(card)),
        ("Duplicates", duplicates(card)),
        ("Masked", masked(card, diffs)),
        ("How well the scrubber finds", detection(card)),
        ("Splits and benchmarks", splits(card)),
        ("Rows", rows(card)),
        ("Throughput", throughput(card, runs)),
        ("Every threshold", thresholds(card)),
        ("Sources", sources(card, read_on)),
    ]
    nav = "".join(f'<a href="#{_anchor(title)}">{escape(title)}</a>' for title, _ in parts)
    body = "\n".join(f'<h2 id="{_anchor(title)}">{escape(title)}</h2>\n' + "\n".join(some) for title, some in parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Data card</title><style>{STYLE}</style></head>\n"
        f"<body><main><h1>Data card</h1>{lead(card)}\n{tiles(card)}\n<nav>{nav}</nav>\n{body}\n</main></body></html>\n"
    )


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def lead(card: Row) -> str:
    """The first sentence."""
    first, last = card["funnel"][0], card["funnel"][-1]
    return paragraph(
        f"{last['files']:,} files, {last['bytes'] / 1e6:.1f} MB of {', '.join(card['languages'])} source code, cut into"
        f" {sum(split['rows'] for split in card['splits'].values()):,} fill-in-the-middle rows; {first['files']:,} files were read."
    )


def tiles(card: Row) -> str:
    """The figures that a reviewer looks for first."""
    last, unknown = card["funnel"][-1], card["licenses"].get("unknown", {"files": 0})["files"]
    secrets, personal = card["detection"]["secrets"], card["detection"]["personal data"]
    alike = max((pair["similarity"] for pair in card["largest_similarity"].values()), default=0.0)
    places = sum(card["redactions"].values())
    shown = [
        ("Data", f"{last['bytes'] / 1e6:,.1f} MB", f"{last['files']:,} files, {len(card['repos']):,} repositories", "even"),
        ("Languages", str(len(card["languages"])), ", ".join(list(card["languages"])[:4]), "even"),
        ("Licences", str(len(card["licenses"])), f"{unknown:,} files of unknown licence", "bad" if unknown else "good"),
        ("Left after masking", f"{card['residual']:,} findings", f"{places:,} places masked", "bad" if card["residual"] else "good"),
        ("Secrets found", percent(secrets["found"], secrets["rows"]), f"of {secrets['rows']:,} labelled rows", "even"),
        ("Personal data found", percent(personal["found"], personal["rows"]), f"of {personal['rows']:,} labelled rows", "even"),
        ("Most alike across splits", f"{alike:.2f}", "Jaccard; 0.7 would stop the run", "good" if alike < 0.7 else "bad"),
        (
            "Benchmark files kept out",
            f"{sum(card['benchmark_hits'].values()):,}",
            f"{len(card['benchmark_hits'])} suites looked at",
            "even",
        ),
    ]
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile {tone}"><div class="what">{escape(what)}</div><div class="figure">{escape(value)}</div>'
            f"{paragraph(text)}</div>"
            for what, value, text, tone in shown
        )
        + "</div>"
    )


def funnel(card: Row) -> Iterator[str]:
    """Files and bytes after each step."""
    most = max((step["bytes"] for step in card["funnel"]), default=0)
    yield table(
        ["step", "files", "MB", "of what was read", "left"],
        (
            (step["step"], step["files"], mb(step["bytes"]), percent(step["bytes"], most), bar(step["bytes"] / most if most else 0))
            for step in card["funnel"]
        ),
    )


def reasons(card: Row) -> Iterator[str]:
    """Every reason with examples."""
    lost = [(step, reason, n) for step, some in card["dropped"].items() for reason, n in some.items()]
    if not lost:
        yield paragraph("Nothing.")
        return
    yield table(
        ["reason", "step", "files", "what it means", "for example"],
        ((reason, step, n, Words(MEANING.get(reason, "")), _paths(card["examples"][step][reason])) for step, reason, n in lost),
    )
    alone = ", ".join(f"`{rule}` {n:,}" for rule, n in card["quality_rules_alone"].items())
    yield paragraph(f"A file is counted under the first rule it broke. By itself each rule of `clean` would drop: {alone or 'nothing'}.")


def _paths(some: Iterable[Row]) -> Html:
    return Html("".join(f"<div><code>{escape(one['path'])}</code> <em>{escape(_value(one['value']))}</em></div>" for one in some))


def _value(value: str) -> str:
    """What broke the rule; the sha256 of the file that stayed is cut, its first digits find it."""
    return value[:12] + "…" if re.fullmatch(r"[0-9a-f]{64}", value) else value


def licences(card: Row) -> Iterator[str]:
    """Which, and how each was found."""
    whole = card["funnel"][-1]["bytes"]
    how: dict[str, set[str]] = {}
    for group in card["sources"]:
        how.setdefault(group["license"], set()).add(group["license_how"])
    yield table(
        ["licence", "files", "MB", "share", "", "found by"],
        (
            (
                name,
                share["files"],
                mb(share["bytes"]),
                percent(share["bytes"], whole),
                bar(share["bytes"] / max(whole, 1)),
                Words(", ".join(sorted(how[name]))),
            )
            for name, share in card["licenses"].items()
        ),
    )
    found = ", ".join(f"{name} {share['files']:,}" for name, share in card["license_how"].items())
    yield paragraph(
        f"How the licence was found, in files: {found}. Unknown: {card['licenses'].get('unknown', {'files': 0})['files']:,} files."
    )


def languages(card: Row) -> Iterator[str]:
    """Shares by language and by repository."""
    whole = max(card["funnel"][-1]["bytes"], 1)
    for name, key in (("language", "languages"), ("repository", "repos")):
        yield table(
            [name, "files", "MB", "share", ""],
            (
                (one, share["files"], mb(share["bytes"]), percent(share["bytes"], whole), bar(share["bytes"] / whole))
                for one, share in list(card[key].items())[:TOP_REPOS]
            ),
        )
    if len(card["repos"]) > TOP_REPOS:
        yield paragraph(f"The {TOP_REPOS} largest of {len(card['repos']):,}; all of them in data_card.json.")
    large = [name for name, share in card["repos"].items() if share["bytes"] > LARGE_REPO * whole]
    if large:
        yield paragraph(f"More than {LARGE_REPO:.0%} of the bytes are from one repository each: {', '.join(large)}.")


def lengths(card: Row) -> Iterator[str]:
    """Histograms of the files before and after."""
    before, after = card["lengths"]["ingested"], card["lengths"]["kept"]
    yield charts(
        *(
            figure(title, octaves({"as read": before[key], "kept": after[key]}, x, "files"))
            for key, title, x in (
                ("n_lines", "Lines per file", "lines in the file, doubling per step"),
                ("max_line", "Longest line of each file", "characters in its longest line, doubling per step"),
            )
        )
    )


def duplicates(card: Row) -> Iterator[str]:
    """The largest clusters."""
    if not card["clusters"]:
        yield paragraph("None.")
        return
    yield paragraph("The largest groups of equal or nearly equal files. Similarity is the Jaccard index of token 5-grams to the kept file.")
    yield table(
        ["kept file", "files", "MB dropped", "similarity", "dropped as", "dropped, for example"],
        (
            (
                Html(f"<code>{escape(one['kept'])}</code>"),
                one["files"],
                mb(one["bytes_dropped"]),
                "–".join(dict.fromkeys(f"{value:.2f}" for value in one["similarity"])) or "1.00",
                Words(", ".join(f"{reason.removesuffix('_duplicate')} {n:,}" for reason, n in one["dropped"].items())),
                Html("".join(f"<div><code>{escape(path)}</code></div>" for path in one["examples"])),
            )
            for one in card["clusters"]
        ),
    )


def masked(card: Row, diffs: Sequence[Diff]) -> Iterator[str]:
    """Redactions by kind and rule, per MB, and a few of them as diffs."""
    size = next(step["bytes"] for step in card["funnel"] if step["step"] == "scrub") / 1e6 or 1
    files = next(step["files"] for step in card["funnel"] if step["step"] == "scrub")
    yield paragraph(f"{sum(card['redactions'].values()):,} places in {card['files_masked']:,} of {files:,} files.")
    if card["redactions"]:
        yield table(
            ["kind", "rule", "places", "per MB"],
            ((one["kind"], Words(one["rule"]), one["places"], f"{one['places'] / size:.3f}") for one in card["redaction_rules"]),
        )
        yield charts(
            figure(
                "Masked places by kind",
                bars(
                    [(kind, n / size, f"{n / size:.2f}  ({n:,})") for kind, n in card["redactions"].items()], "places per MB of source code"
                ),
            )
        )
    yield paragraph(
        f"Left: {card['residual']:,}. The written file is read back and searched with every rule again; a single finding fails the"
        " step, and no file is left behind."
    )
    if card["canaries"]:
        yield paragraph(told_of_canaries(card["canaries"]))
    if diffs:
        yield "<h3>A few of them</h3>"
        yield paragraph("The dots stand for the value, whatever its length; it is not kept anywhere, so it cannot be shown.", note=True)
    for one in diffs:
        lines = (("around", " ", one.above), ("before", "-", one.before), ("after", "+", one.after), ("around", " ", one.below))
        text = "".join(f'<span class="{kind}">{sign} {escape(line)}</span>' for kind, sign, line in lines)
        yield (
            f'<div class="diff"><h4>{escape(one.kind)} by <code>{escape(one.rule)}</code> · <code>{escape(one.path)}:{one.line}</code></h4>'
            f"<pre>{text}</pre></div>"
        )


def detection(card: Row) -> Iterator[str]:
    """Recall and precision on the labelled rows."""
    yield paragraph(
        "Measured on rows that are drawn at run time from public token formats, with a fixed seed; they show what the rules do, not how"
        " often such text occurs. The rules were improved on such rows, so the figures are what a change is held against; on three sets"
        " that no rule had seen, 86% to 93% of the secrets were found (eval/reports/LOG.md). Found: more than 90% of the value is masked."
        " Changed: anything in a harmless row is."
    )
    yield table(
        ["rows", "real", "found", "recall", "look-alikes", "changed", "changed share", "precision"],
        (
            (
                name,
                one["rows"],
                one["found"],
                percent(one["found"], one["rows"]),
                one["look_alikes"],
                one["look_alikes_changed"],
                percent(one["look_alikes_changed"], one["look_alikes"]),
                percent(one["precision"], 1),
            )
            for name, one in card["detection"].items()
        ),
    )
    yield charts(
        *(
            figure(
                f"Recall, {name}",
                bars(
                    [(family, n["found"] / max(n["rows"], 1), f"{n['found']:,} of {n['rows']:,}") for family, n in one["families"].items()],
                    "share of the rows that were found",
                    1.0,
                ),
            )
            for name, one in card["detection"].items()
        ),
    )
    alike = [(name, family, n) for name, one in card["detection"].items() for family, n in one["look_alike_families"].items()]
    yield "<h3>Look-alikes, which must stay</h3>"
    yield table(
        ["family", "beside", "rows", "changed", "share"],
        ((family, Words(name), n["rows"], n["changed"], percent(n["changed"], n["rows"])) for name, family, n in alike),
    )


def splits(card: Row) -> Iterator[str]:
    """What keeps training and testing apart."""
    yield paragraph("The most alike pair of files found on two sides (Jaccard of token 5-grams; 0.7 would stop the step):")
    pairs = sorted(card["largest_similarity"].items())
    yield (
        table(
            ["splits", "similarity", "files"],
            (
                (
                    sides.replace("|", " and "),
                    f"{pair['similarity']:.3f}",
                    Html("".join(f"<div><code>{escape(p)}</code></div>" for p in pair["files"])),
                )
                for sides, pair in pairs
            ),
        )
        if pairs
        else paragraph("No pair shares a band of its signature.")
    )
    yield "<h3>Benchmarks kept out</h3>"
    hits = card["benchmark_hits"]
    yield (
        table(["benchmark", "files that shared text with it"], hits.items())
        if hits
        else paragraph("None named in `samples.decontaminate`.")
    )


def rows(card: Row) -> Iterator[str]:
    """What the rows are made of."""
    found = card["splits"]
    yield table(
        ["split", "files", "rows", "tokens", "with context"],
        ((name, one["files"], one["rows"], one["tokens"], one["with_context"]) for name, one in found.items()),
    )
    train = found["train"]
    families: dict[str, int] = {}
    for kind, n in train["span_kinds"].items():
        families[kind.split(":")[0]] = families.get(kind.split(":")[0], 0) + n
    yield charts(
        *(
            figure(
                title,
                bars([(name, n / max(sum(counts.values()), 1), f"{n:,}") for name, n in counts.items()], "share of the training rows"),
            )
            for title, counts in (("What the hole is, train", families), ("Order of the parts, train", train["orders"]))
        ),
        figure("Length of the middle, train", octaves({"rows": card["middles"]["train"]}, "characters, doubling per step", "rows")),
    )
    nodes = {kind.split(":", 1)[1]: n for kind, n in train["span_kinds"].items() if kind.startswith("node:")}
    if nodes:
        ranked = sorted(nodes.items(), key=lambda item: (-item[1], item[0]))
        yield paragraph("Syntax nodes cut, train: " + ", ".join(f"`{kind}` {n:,}" for kind, n in ranked) + ".")
    marks = ("p50", "p90", "p99", "max")
    yield "<h3>Middles, in characters</h3>"
    yield table(
        ["split", "median", "90%", "99%", "largest"],
        ((name, *(one["middle_characters"][at] for at in marks)) for name, one in found.items() if one["middle_characters"]),
    )
    yield "<h3>Holes that came to nothing</h3>"
    yield table(["split", "reason", "holes"], ((*map(Words, key.split(": ", 1)), n) for key, n in card["holes_lost"].items()))
    for split, missing in card["test_holes_short"].items():
        yield paragraph(f"{split} is {missing:,} holes short of what was asked: its files hold no more.")


def throughput(card: Row, runs: Mapping[str, Row]) -> Iterator[str]:
    """Speeds of the last run; these differ from run to run, so they stand on this page only."""
    lines = list(_speeds(card, runs))
    if not lines:
        yield paragraph("No timings beside this data: they are written when the steps run.")
        return
    yield table(["step", "part", "seconds", "MB", "processes", "MB/s per process", "peak MB"], lines)
    total, size = sum(run["seconds"] for run in runs.values()), card["funnel"][0]["bytes"] / 1e6
    machine = next((run["machine"] for run in runs.values() if "machine" in run), "")
    cores, speed = max(run.get("workers", 1) for run in runs.values()), size / max(total, 1e-9)
    yield paragraph(
        f"All of it: {total:,.1f} s for {size:,.1f} MB as read, {speed:.2f} MB/s, {speed / cores:.2f} MB/s per process of {cores};"
        f" {machine}. Seconds of the clock in the last run on this machine; a step that went on from finished parts is shorter than its"
        " work."
    )


def _speeds(card: Row, runs: Mapping[str, Row]) -> Iterator[tuple[object, ...]]:
    read = {}
    for before, step in zip([card["funnel"][0], *card["funnel"]], card["funnel"], strict=False):
        read[step["step"]] = before["bytes"]
    for name, run in runs.items():
        workers = run.get("workers", 1)
        parts = {"all": {"seconds": run["seconds"], "bytes": read.get(name, 0)}} | run.get("steps", {})
        for part, one in parts.items():
            speed = one["bytes"] / 1e6 / one["seconds"] / workers if one["seconds"] else 0.0
            peak = f"{run['peak_memory_mb']:,.0f}" if part == "all" and "peak_memory_mb" in run else ""
            size = mb(one["bytes"]) if one["bytes"] else "–"
            yield (
                name if part == "all" else "",
                Words(part),
                f"{one['seconds']:,.2f}",
                size,
                workers,
                f"{speed:.2f}" if speed else "–",
                peak,
            )


def thresholds(card: Row) -> Iterator[str]:
    """Every value of the four sections of params.yaml."""
    yield table(
        ["key", "value"],
        (
            (f"{step}.{key}", Html(f"<code>{escape(_plain(value))}</code>"))
            for step, section in card["params"].items()
            for key, value in section.items()
        ),
    )


def _plain(value: Any) -> str:
    """A value as YAML would show it on one line."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return "[" + ", ".join(map(_plain, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_plain(one)}" for key, one in value.items()) + "}"
    return str(value)


def sources(card: Row, read_on: str) -> Iterator[str]:
    """Where the kept files come from."""
    when = f" Read on {read_on}; the terms are those of that day." if read_on else ""
    yield paragraph(f"Kept files by source, revision and licence.{when} A set on the Hub may ask you to follow its later removals.")
    yield table(
        ["repository", "revision", "source", "its revision", "licence", "found by", "files", "MB"],
        (
            (
                one["repo"],
                Words(one["repo_rev"]),
                Words(one["source"]),
                Words(one["source_rev"]),
                Words(one["license"]),
                Words(one["license_how"]),
                one["files"],
                mb(one["bytes"]),
            )
            for one in card["sources"][:200]
        ),
    )
    if len(card["sources"]) > 200:
        yield paragraph(f"The first 200 of {len(card['sources']):,}; all of them in data_card.json.")
    versions: dict[str, str] = {name: version for step in card["versions"].values() for name, version in step.items()}
    yield paragraph("Made with " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + ".", note=True)
