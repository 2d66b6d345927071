"""Numbers and names as the report's parts write them.

In:  values
Out: text
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from core.statistics import Difference, Interval
from eval.document import Text
from eval.measures import Metric

NAMES = {"base": "base", "sft": "SFT", "dpo": "DPO", "merged": "merged", "q4_k_m": "Q4_K_M"}
DASH = "–"


def number(value: float, metric: Metric, signed: bool = False) -> str:
    """A value in the metric's unit, a minus as wide as a plus."""
    if math.isnan(value):
        return DASH
    shown = f"{value * metric.scale:+.{metric.digits}f}" if signed else f"{value * metric.scale:.{metric.digits}f}"
    return shown.replace("-", "−")


def with_range(found: Interval | Difference, metric: Metric, signed: bool = False) -> str:
    """`20.6 [18.1, 23.2]`; a dash where nothing could be judged."""
    if not found.n or math.isnan(found.value):
        return DASH
    value, low, high = (number(part, metric, signed) for part in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def p_value(p: float | None) -> str:
    """Three digits, or a bound."""
    return DASH if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def megabytes(size: float) -> str:
    """Bytes as MB (10^6), more digits where they matter."""
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.2f} GB"


def order_name(order: str) -> str:
    """SPM or PSM."""
    return order.upper()


def figure(found: Any, *keys: str) -> float | None:
    """A number deep in what another phase wrote; None where it is not there, or no number."""
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def shown(value: float | None, digits: int = 0, unit: str = "") -> str:
    """`1,234.5 ms`; a dash for None."""
    return DASH if value is None else f"{value:,.{digits}f}{unit}"


def missing(name: str, command: str) -> Text:
    """Says that a part is not there and how to get it."""
    return Text(f"{name}: not there yet. `{command}` writes it; `python -m eval report` then adds it here.")
