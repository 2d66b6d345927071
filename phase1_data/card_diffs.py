"""A few redactions as a person would check them: the line before, with dots for the value, and the line after.

In:  scrub/files.parquet, in which the values are gone already
Out: Diffs for the HTML page

Only the scrubbed text is read: the line before is the line after with its placeholders dotted out, so no value can come
back, and the dots say nothing of its length.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from core.records import Row, groups_of, read_group
from phase1_data.card_facts import made_by, shown

DIFFS = 5
DOTS = "•" * 8
WIDTH = 72  # characters kept on either side of the placeholder
PER_RULE = 20  # candidates looked at per kind and rule: the shortest line of them reads best


class Diff(NamedTuple):
    """One masked place; the texts are single lines, cut to fit."""

    path: str
    line: int  # from 1
    kind: str
    rule: str
    above: str  # the line before it
    before: str
    after: str
    below: str


def diffs(root: Path) -> list[Diff]:
    """One redaction per kind first, then per rule, then any, DIFFS in all.

    Raises:
        InputError: scrub/files.parquet is missing or damaged.
    """
    file = root / "scrub" / "files.parquet"
    found: dict[tuple[str, str], list[Diff]] = {}
    for row in masked_rows(file):
        for redaction in row["redactions"]:
            some = found.setdefault((redaction["kind"], redaction["rule"]), [])
            if len(some) < PER_RULE:
                some.append(diff(row, redaction))
    by_rule = {key: sorted(some, key=lambda one: (len(one.after), one.path, one.line)) for key, some in sorted(found.items())}
    firsts = {kind: by_rule[kind, rule][0] for kind, rule in reversed(by_rule)}
    in_turn = (one for turn in range(PER_RULE) for some in by_rule.values() for one in some[turn : turn + 1])
    ordered = [*sorted(firsts.values(), key=lambda one: one.kind), *in_turn]
    places = dict.fromkeys((one.path, one.line) for one in ordered)  # a line is shown once
    return [next(one for one in ordered if (one.path, one.line) == place) for place in places][:DIFFS]


def masked_rows(file: Path) -> Iterator[Row]:
    """Rows that hold a redaction; the text of the other row groups is never read."""
    for group in range(len(groups_of(file, made_by("scrub")))):
        redactions = read_group(file, group, made_by("scrub"), ["redactions"])["redactions"].to_pylist()
        places = [at for at, found in enumerate(redactions) if found]
        if places:
            yield from read_group(file, group, made_by("scrub"), ["repo", "path", "content", "redactions"]).take(places).to_pylist()


def diff(row: Row, redaction: Row) -> Diff:
    """The lines around one placeholder."""
    text, start, end = row["content"], redaction["start"], redaction["end"]
    left = text.rfind("\n", 0, start) + 1
    right = text.find("\n", end)
    right = len(text) if right == -1 else right
    inside = [one for one in row["redactions"] if left <= one["start"] and one["end"] <= right]
    window = max(left, start - WIDTH), min(right, end + WIDTH)
    return Diff(
        shown(f"{row['repo']}/{row['path']}"),
        text.count("\n", 0, start) + 1,
        redaction["kind"],
        redaction["rule"],
        _cut(text[text.rfind("\n", 0, max(left - 1, 0)) + 1 : max(left - 1, 0)]),
        _ends(_dotted(text, window, inside), window, (left, right)),
        _ends(text[window[0] : window[1]], window, (left, right)),
        _cut(text[right + 1 : (text + "\n").find("\n", right + 1)]),
    )


def _dotted(text: str, window: tuple[int, int], inside: list[Row]) -> str:
    """The window of a line with dots instead of its placeholders."""
    at, stop = window
    pieces = []
    for one in inside:
        if one["end"] <= at or one["start"] >= stop:
            continue
        pieces += [text[at : one["start"]], DOTS]
        at = one["end"]
    return "".join([*pieces, text[at:stop]])


def _ends(line: str, window: tuple[int, int], whole: tuple[int, int]) -> str:
    return f"{'…' if window[0] > whole[0] else ''}{line}{'…' if window[1] < whole[1] else ''}".replace("\n", "⏎")


def _cut(line: str) -> str:
    return line if len(line) <= 2 * WIDTH else line[: 2 * WIDTH] + "…"
