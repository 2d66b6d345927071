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
TELLING = 20  # requests from which a 95th percentile is not the slowest
WORDS = {"gateway": "through the gateway", "direct": "llama-server alone", "warm": "prompt cached", "cold": "new prompt"}


def latency(served: Mapping[str, Any] | None) -> Iterator[Block]:
    """First token, typing, throughput."""
    yield Heading("Latency")
    if not served:
        yield missing("Figures of the server", "python -m phase4_serve smoke")
        return
    if served.get("headline"):
        yield Text(str(served["headline"]))
    rows, drawn, fewest = [], [], float(TELLING)
    for way in WAYS:
        middle, late, n = (figure(served, "first_token_ms", way, key) for key in ("p50", "p95", "n"))
        if middle is not None and late is not None:
            fewest = min(fewest, n or 0)
            side, cache = way.split("_")
            rows.append([f"{WORDS[side]}, {WORDS[cache]}", shown(middle, 1), shown(late, 1), shown(n)])
            drawn.append((f"{side}, {cache}", [Mark("p50 to p95", middle, middle, late, f"{middle:.0f}–{late:.0f}")]))
    if drawn:
        yield Text(how(served))
        yield Chart("Time to the first token, ms", drawn, "Dots are medians, bars reach to the 95th percentile. Left is better.")
        yield Table(["first token", "p50, ms", "p95, ms", "requests"], rows)
        if fewest < TELLING:
            yield Text(f"The p95 of fewer than {TELLING} requests is the slowest of them.")
    yield from typing(served.get("typing"), served.get("typed_through"))
    yield from throughput(served)


def how(served: Mapping[str, Any]) -> str:
    """What the rows are, and of what model and machine they speak."""
    size, cores = figure(served, "model_mb"), figure(served, "cores")
    return (
        f"Of this model ({shown(size, 1)} MB) on {shown(cores)} cores: a larger one takes longer. Through the gateway: our server, asked "
        "as an editor asks it; it composes the prompt from the file and its repository and ends the answer where it should. "
        "llama-server alone: the same prompt as token ids. One client asked both by turns. First token: the first text that is shown."
    )


def typing(found: Any, typed: Any) -> Iterator[Block]:
    """What a keystroke costs in either order, and where it was predicted."""
    columns = (
        ("prompt tokens read per key", "evaluated_per_key", 1), ("prompt work per key, ms", "prompt_ms_per_key", 1),
        ("request for one token, p50 ms", "request_ms_p50", 1), ("prompt tokens read before the first key", "first_evaluated", 0),
    )  # fmt: skip
    rows = [
        [order.upper(), *(shown(figure(found, order, key), digits) for _, key, digits in columns)]
        for order in ("spm", "psm")
        if figure(found, order, "evaluated_per_key") is not None
    ]
    if rows:
        yield Heading("While typing", 3)
        yield Table(["order", *(name for name, _, _ in columns)], rows)
        yield Text(
            f"The same {shown(figure(found, 'keys'))} keystrokes in both orders of the prompt. In SPM the text before the cursor comes "
            "last: only what was typed is read. In PSM what stands after the cursor comes last, and is read again with every key."
        )
    hits, keys = figure(typed, "ms", "n"), figure(typed, "keys")
    if hits and keys:
        middle, late = (shown(figure(typed, "ms", end), 1) for end in ("p50", "p95"))
        yield Text(f"Typed as predicted: {shown(hits)} of {shown(keys)} keys answered from memory, p50 {middle} ms, p95 {late} ms.")


def throughput(served: Mapping[str, Any]) -> Iterator[Block]:
    """Tokens a second, what the gateway adds, seconds to start and to stop."""
    wanted = [
        ("prompt read, tokens/s", ("prompt_per_second",), 0),
        ("written through the gateway, tokens/s", ("generated_per_second", "gateway"), 0),
        ("written by llama-server alone, tokens/s", ("generated_per_second", "direct"), 0),
        ("one token through the gateway, prompt cached, p50 ms", ("gateway_share", "one_token_ms", "gateway", "p50"), 2),
        ("one token from llama-server alone, p50 ms", ("gateway_share", "one_token_ms", "direct", "p50"), 2),
        ("what the gateway adds to one token, ms", ("gateway_share", "own_ms"), 2),
        ("what it adds to a new prompt, which it composes, ms", ("gateway_share", "own_new_prompt_ms"), 1),
        ("seconds until it is ready", ("seconds_to_ready",), 1),
        ("first request after that, seconds", ("first_request_seconds",), 2),
        ("seconds to stop", ("seconds_to_stop",), 2),
        ("model file, MB", ("model_mb",), 1),
        ("requests answered", ("requests", "ok"), 0),
        ("requests failed", ("requests", "errors"), 0),
        ("cores", ("cores",), 0),
    ]
    rows = [[name, shown(value, digits)] for name, keys, digits in wanted if (value := figure(served, *keys)) is not None]
    if rows:
        yield Heading("Throughput, the gateway's share, start and stop", 3)
        yield Table(["", "measured"], rows)
        yield Text(
            "Written: by the client's clock from the request to the end of a short answer, the reading of the prompt not counted; the "
            "smaller the model, the more of it is the request itself."
        )
