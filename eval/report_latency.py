"""Latency in the report: what the server took, as the serve stage measured it.

In:  serve.json or None
Out: blocks
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eval.document import Block, Chart, Heading, Mark, Table, Text
from eval.report_words import figure, missing, shown

WAYS = ("gateway_warm", "gateway_cold", "direct_warm", "direct_cold")
WORDS = {"gateway": "through the gateway", "direct": "llama-server alone", "warm": "prompt cached", "cold": "new prompt"}


def latency(served: Mapping[str, Any] | None) -> Iterator[Block]:
    """First token, typing, throughput."""
    yield Heading("Latency")
    if not served:
        yield missing("Figures of the server", "python -m phase4_serve smoke")
        return
    if served.get("headline"):
        yield Text(str(served["headline"]))
    rows, drawn = [], []
    for way in WAYS:
        middle, late, n = (figure(served, "first_token_ms", way, key) for key in ("p50", "p95", "n"))
        if middle is not None and late is not None:
            side, cache = way.split("_")
            rows.append([f"{WORDS[side]}, {WORDS[cache]}", shown(middle, 1), shown(late, 1), shown(n)])
            drawn.append((f"{side}, {cache}", [Mark("p50 to p95", middle, middle, late, f"{middle:.0f}–{late:.0f}")]))
    if drawn:
        yield Chart("Time to the first token, ms", drawn, "Dots are medians, bars reach to the 95th percentile. Left is better.")
        yield Table(["first token", "p50, ms", "p95, ms", "requests"], rows)
    yield from typing(served.get("typing"))
    yield from throughput(served)


def typing(found: Any) -> Iterator[Block]:
    """What a keystroke costs in either order."""
    columns = (
        ("prompt tokens read per key", "evaluated_per_key", 1), ("prompt work per key, ms", "prompt_ms_per_key", 1),
        ("request, p50 ms", "request_ms_p50", 1), ("read at the first key", "first_evaluated", 0),
    )  # fmt: skip
    rows = [
        [order.upper(), *(shown(figure(found, order, key), digits) for _, key, digits in columns)]
        for order in ("spm", "psm")
        if figure(found, order, "evaluated_per_key") is not None
    ]
    if rows:
        yield Heading("While typing", 3)
        yield Table(["order", *(name for name, _, _ in columns)], rows)
        yield Text(f"{shown(figure(found, 'keys'))} keystrokes. In SPM the text before the cursor comes last: only what was typed is read.")


def throughput(served: Mapping[str, Any]) -> Iterator[Block]:
    """Tokens a second, what the gateway adds, starting and stopping."""
    wanted = [
        ("prompt read, tokens/s", ("prompt_per_second",), 0),
        ("written through the gateway, tokens/s", ("generated_per_second", "gateway"), 0),
        ("written by llama-server alone, tokens/s", ("generated_per_second", "direct"), 0),
        ("what the gateway adds to one token, ms", ("gateway_share", "own_ms"), 2),
        ("seconds until it is ready", ("seconds_to_ready",), 1),
        ("first request after that, seconds", ("first_request_seconds",), 2),
        ("seconds to stop", ("seconds_to_stop",), 2),
        ("model file, MB", ("model_mb",), 1),
        ("memory, MB", ("memory_mb",), 0),
        ("requests answered", ("requests", "ok"), 0),
        ("requests failed", ("requests", "errors"), 0),
        ("cores", ("cores",), 0),
    ]
    rows = [[name, shown(value, digits)] for name, keys, digits in wanted if (value := figure(served, *keys)) is not None]
    if rows:
        yield Heading("Throughput", 3)
        yield Table(["", "measured"], rows)
