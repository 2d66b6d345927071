"""How well the scrubber finds: its answer on labelled rows that are made at run time.

In:  phase1_data.labelled: rows that hold one secret or one piece of personal data, and rows that only look so
Out: recall and precision by family; or the rows as JSONL, for another tool to be measured on

A row counts as found when more than 90% of its value is inside findings, at every place where the value stands; a
harmless row as changed when anything in it is. The rows are drawn with a fixed seed: they show what the rules do, not how
often such text occurs, and the rules were improved on such rows.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from core.records import Row, write_jsonl
from core.scrub import Finding, find
from phase1_data import labelled
from phase1_data.labelled import LabelledRow

SEED = 17
MASKED = 0.9  # share of a value that must be covered
GROUPS: dict[str, tuple[Callable[[int], Iterable[LabelledRow]], Callable[[int], Iterable[LabelledRow]]]] = {
    "secrets": (labelled.secret_rows, labelled.harmless_rows),
    "personal data": (labelled.personal_rows, labelled.impersonal_rows),
}


def covered(text: str, value: str, findings: Iterable[Finding]) -> float:
    """Least share of the value that is inside findings, over its places in the text."""
    spans = [(finding.start, finding.end) for finding in findings]
    shares = []
    at = text.find(value)
    while at != -1:
        end = at + len(value)
        shares.append(sum(max(0, min(end, stop) - max(at, start)) for start, stop in spans) / len(value))
        at = text.find(value, end)
    return min(shares, default=0.0)


@functools.cache
def detection(seed: int = SEED) -> Row:
    """Per group of rows: recall, precision and share of look-alikes changed, whole and by family."""
    return {group: _measured(real(seed), alike(seed)) for group, (real, alike) in GROUPS.items()}


def _measured(real: Iterable[LabelledRow], alike: Iterable[LabelledRow]) -> Row:
    rows: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for row in real:
        rows[row.family] += 1
        found[row.family] += covered(row.text, row.value, find(row.text)) > MASKED
    looks: Counter[str] = Counter()
    changed: Counter[str] = Counter()
    for row in alike:
        looks[row.family] += 1
        changed[row.family] += bool(find(row.text))
    hits, wrong = found.total(), changed.total()
    return {
        "rows": rows.total(),
        "found": hits,
        "recall": round(hits / max(rows.total(), 1), 4),
        "precision": round(hits / max(hits + wrong, 1), 4),
        "look_alikes": looks.total(),
        "look_alikes_changed": wrong,
        "families": {name: {"rows": rows[name], "found": found[name]} for name in sorted(rows)},
        "look_alike_families": {name: {"rows": looks[name], "changed": changed[name]} for name in sorted(looks)},
    }


KINDS = {
    "secret": labelled.secret_rows, "harmless": labelled.harmless_rows,
    "personal": labelled.personal_rows, "impersonal": labelled.impersonal_rows,
}  # fmt: skip


def as_jsonl(seed: int) -> Iterator[Row]:
    """Every row: id, kind (secret | harmless | personal | impersonal), family, text, value ("" in a look-alike), path."""
    for kind, make in KINDS.items():
        for number, row in enumerate(make(seed)):
            yield {"id": f"{kind}-{number}", "kind": kind, **row._asdict()}


def write(output: Path, seed: int = SEED) -> int:
    """Write the rows; return how many there are. The file holds text that scanners take for secrets."""
    return write_jsonl(output, as_jsonl(seed))
