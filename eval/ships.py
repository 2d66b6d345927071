"""Why a gate shipped the parent, in the report: the verdicts that the gates of phase 2 left.

In:  phase2_train/out/{sft,dpo}_gate/gate.json, where they are
Out: a Finding for every gate that shipped its parent, with its figures
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core.errors import InputError
from core.records import read_json
from eval.document import Block, Finding
from eval.measures import BY_NAME

NAMES = {"base": "the bare base", "sft": "SFT", "dpo": "DPO"}
STEPS = {"sft": "supervised fine-tuning", "dpo": "preference optimization"}
SHOWN = ("exact_match", "edit_similarity", "overrun_rate", "loss")  # what decides in a gate


def read_gates(root: Path) -> list[dict[str, Any]]:
    """The verdicts that are there, SFT's first.

    Raises:
        InputError: one is damaged, or not a verdict.
    """
    found = []
    for step in STEPS:
        file, command = root / "phase2_train" / "out" / f"{step}_gate" / "gate.json", f"python -m phase2_train {step}-gate"
        if file.is_file():
            record = read_json(file, command)
            if not isinstance(record, dict) or not {"gate", "verdict", "ships", "reasons", "figures", "n"} <= record.keys():
                raise InputError(f"{file} is no verdict of a gate: run `{command}` again")
            found.append(record)
    return found


def refusals(gates: list[dict[str, Any]]) -> Iterator[Block]:
    """Why a gate shipped its parent; nothing where none did."""
    for record in (record for record in gates if record["verdict"] == "ship parent"):
        yield Finding(f"The gate after {STEPS[record['gate']]}", f"ship the parent, {NAMES[record['ships']]}", told(record), _tone(record))


def _tone(record: Mapping[str, Any]) -> str:
    return "bad" if record.get("harms") else "even"


def told(record: Mapping[str, Any]) -> str:
    """Reasons and figures of one verdict in a paragraph."""
    why = "; ".join(record["reasons"])
    figures = ", ".join(_figure(name, record["figures"][name]) for name in SHOWN if name in record["figures"])
    least = record["figures"].get("exact_match", {}).get("smallest_visible")
    bound = f" A change of exact match under {100 * least:.1f} points would not have shown." if least is not None else ""
    return f"{why[:1].upper()}{why[1:]}. On {record['n']:,} validation holes, child minus parent: {figures}.{bound}"


def _figure(name: str, one: Mapping[str, Any]) -> str:
    metric = BY_NAME[name]
    parts = [one.get(end) for end in ("difference", "low", "high")]
    value, low, high = (f"{(math.nan if part is None else part) * metric.scale:+.{metric.digits}f}" for part in parts)
    p = "" if one.get("p") is None else f" (McNemar p {one['p']:.3f})"
    return f"{metric.label} {value} [{low}, {high}]{' points' if metric.unit else ''}{p}".replace("-", "−")
