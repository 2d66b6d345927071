"""Benchmarks in the report: whatever lies in eval/out/suites.

In:  suites/*.json: {"suite", "model", "n", "metrics": {name: {"value", "low", "high", "n"}}, "prompt_sha256", "stops"}; where there:
     "sandbox" (levels that held), "parent" and "without_context" ({"model", "differences": {name: {"value", "visible", ...}}})
Out: blocks: a table per suite, what the model wrote beside what an editor would have shown of it
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.records import read_json
from eval.document import Block, Heading, Table, Text
from eval.report_words import DASH, figure, shown

BESIDE = {"parent": "minus its parent", "without_context": "minus no context"}


def read_suites(folder: Path) -> list[Mapping[str, Any]]:
    """What is there, by suite and model; a file that is no result of a suite is passed over.

    Raises:
        InputError: a file is damaged.
    """
    found = [read_json(file, "python -m eval") for file in sorted(folder.glob("*.json"))]
    good = [one for one in found if isinstance(one, Mapping) and isinstance(one.get("metrics"), Mapping) and one.get("suite")]
    return sorted(good, key=lambda one: (str(one["suite"]), str(one.get("model"))))


def suites(found: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    """A table per suite."""
    yield Heading("Suites")
    if not found:
        yield Text("No benchmark was run yet: `python -m eval infilling --help` and `python -m eval suite --help` say how.")
    for one in found:
        yield Heading(str(one["suite"]), 3)
        yield Text(f"{one.get('model', DASH)}, {shown(figure(one, 'n'))} rows.")
        yield _table(one)
        hashes, stops = one.get("prompt_sha256"), dict.fromkeys(map(repr, one.get("stops") or ()))
        told = [f"Prompts: sha256 {str(hashes)[:16]}." if hashes else "", f"Stops: {', '.join(stops)}." if stops else ""]
        told.append(f"Sandbox: {_levels(one['sandbox'])}." if one.get("sandbox") else "")
        if any(told):
            yield Text(" ".join(filter(None, told)))


def _table(one: Mapping[str, Any]) -> Table:
    """A row per metric; the form an editor shows stands beside the raw one."""
    metrics = one["metrics"]
    names = [name for name in metrics if not _is_shown(name)]
    after = {_raw(name): found for name, found in metrics.items() if _is_shown(name)}
    beside = [
        (label, one[key]["differences"])
        for key, label in BESIDE.items()
        if isinstance(one.get(key), Mapping) and one[key].get("differences")
    ]
    head = ["", "raw", *["as an editor shows it"] * bool(after), *(label for label, _ in beside)]
    rows = [
        [
            name.replace("_", " "),
            _cell(name, metrics[name]),
            *[_cell(name, after.get(name))] * bool(after),
            *(_gap(name, differences.get(name)) for _, differences in beside),
        ]
        for name in names
    ]
    return Table(head, rows)


def _is_shown(name: str) -> bool:
    return name.startswith("shown_") or name.endswith(", post-processed")


def _raw(name: str) -> str:
    return name.removeprefix("shown_").removesuffix(", post-processed")


def _scale(name: str) -> float:
    """Shares are shown in percent; these are out of 100 as they come."""
    return 1.0 if any(word in name for word in ("similarity", "bleu", "chrf")) else 100.0


def _cell(name: str, found: Any) -> str:
    value, low, high = (figure(found, key) for key in ("value", "low", "high"))
    if value is None:
        return DASH
    scale = _scale(name)
    return f"{value * scale:.1f}" + (f" [{low * scale:.1f}, {high * scale:.1f}]" if low is not None and high is not None else "")


def _gap(name: str, found: Any) -> str:
    value = figure(found, "value")
    if value is None:
        return DASH
    return f"{value * _scale(name):+.1f}{'' if found.get('visible') else ', not visible'}".replace("-", "−")


def _levels(found: Any) -> str:
    """What held the programs in, in a line."""
    if isinstance(found, Mapping):
        return ", ".join(
            f"{key} {value}" if not isinstance(value, bool) else f"{key} {'yes' if value else 'no'}" for key, value in found.items()
        )
    return ", ".join(map(str, found)) if isinstance(found, list) else str(found)
