"""The columns of the tables: what each metric is made of, and how it is shown.

In:  -
Out: Metric by name
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Metric(NamedTuple):
    """A column of the tables."""

    name: str
    label: str
    column: str  # of rows.ROW
    better: int  # 1: more is better, -1: less is
    per: str  # "": mean or rate over holes; else the column that the sum is divided by
    scale: float  # of what is shown
    digits: int
    unit: str


METRICS = (
    Metric("exact_match", "exact match", "exact", 1, "", 100, 1, "%"),
    Metric("exact_match_stripped", "exact but for blanks at the ends", "exact_stripped", 1, "", 100, 1, "%"),
    Metric("first_line_match", "first line exact", "first_line", 1, "", 100, 1, "%"),
    Metric("edit_similarity", "edit similarity", "similarity", 1, "", 1, 1, ""),
    Metric("loss", "loss, nats per token", "nats", -1, "n_tokens", 1, 3, ""),
    Metric("bits_per_byte", "loss, bits per byte", "nats", -1, "n_bytes", 1 / math.log(2), 3, ""),
    Metric("parse_rate", "still parses", "parses", 1, "", 100, 1, "%"),
    Metric("ended_rate", "ended by itself", "ended", 1, "", 100, 1, "%"),
    Metric("overrun_rate", "ran past the hole", "overrun", -1, "", 100, 1, "%"),
    Metric("suffix_repeat_rate", "wrote the suffix again", "suffix_repeat", -1, "", 100, 1, "%"),
)
BY_NAME = {metric.name: metric for metric in METRICS}
RATES = {"exact", "exact_stripped", "first_line", "parses", "ended", "overrun", "suffix_repeat"}
