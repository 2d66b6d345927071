"""The table of `load-bench`: each promise, what was asked and what was measured.

In:  its figures
Out: rows; the table printed
"""

from __future__ import annotations

from typing import Any

from eval.bench.load_bench import Plan

FLAT = 1.05  # times the memory once settled
LIVES = 5.0  # seconds until a killed llama-server is there again


def rows(figures: dict[str, Any], plan: Plan) -> list[dict[str, Any]]:
    """A row per promise: asked, measured, met."""
    typed, flooded, slow, killed, chat = (figures[name] for name in ("sessions", "flood", "slow", "killed", "chat"))
    answered = set(flooded["statuses"]) <= {"200", "204", "429", "503"} and "429" in flooded["statuses"]
    fair, flat, beside, held = typed["slowest_p95_over_mean_p95"], typed["memory"]["growth"], _beside(slow), _held(slow)
    told, ready, missing = killed["told_after_seconds"], killed["ready_after_seconds"], figures["scrape"]["missing"]
    row: list[tuple[str, str, Any, bool]] = [
        (f"{plan.sessions} sessions for {plan.seconds} s: errors", "none", sum(typed["errors"].values()), not typed["errors"]),
        ("slowest session's p95 / mean p95", "<= 2", fair, fair <= 2),
        ("memory from settled to end, times", f"<= {FLAT}", flat, flat <= FLAT),
        (f"{plan.connections} connections: answers", "200, 429", str(flooded["statuses"]), answered),
        ("429 without Retry-After", "none", flooded["refused_without_retry_after"], not flooded["refused_without_retry_after"]),
        ("/health meanwhile, slowest ms", "<= 100", flooded["health_ms"].get("max", 0), _quick(flooded)),
        ("memory after them / before", f"<= {FLAT}", _grown(flooded), _grown(flooded) <= FLAT),
        ("typing beside slow readers, p95 / alone", "<= 2", beside, beside <= 2),
        ("slow readers hold slots, times as long as others", "<= 2", held, held <= 2),
        ("killed llama-server: client told after s", "<= 5", told, told <= LIVES and killed["error"]),
        ("ready again after s", "<= 5", ready, ready <= LIVES and killed["answers_again"] == 200),
        (f"typing beside a chat of {plan.chat_tokens} tokens, p95 / alone", "< 2", chat["ratio_p95"], _unharmed(chat)),
        ("Prometheus: samples missing", "none", str(missing or "none"), not missing),
    ]
    return [{"what": what, "asked": asked, "measured": value, "met": bool(met)} for what, asked, value, met in row]


def _unharmed(chat: dict[str, Any]) -> bool:
    return bool(chat["ratio_p95"] < 2 and chat["chat_ran_all_along"] and not chat["chat"]["error"])


def _quick(flooded: dict[str, Any]) -> bool:
    return not flooded["health_failed"] and flooded["health_ms"].get("max", 1e9) <= 100


def _grown(flooded: dict[str, Any]) -> float:
    return round(flooded["memory"]["after_mib"] / max(1.0, flooded["memory"]["before_mib"]), 3)


def _beside(slow: dict[str, Any]) -> float:
    return round(slow["beside_first_ms"].get("p95", 0) / max(0.01, slow["alone_first_ms"].get("p95", 0)), 2)


def _held(slow: dict[str, Any]) -> float:
    free = slow["free_after_seconds"]
    return float(round(free["read slowly"] / max(0.5, free["read quickly"]), 2))


def show(figures: dict[str, Any]) -> None:
    """Print the table and what it is made of."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("", "asked", "measured", "met", title=figures["model"])
    for row in figures["rows"]:
        table.add_row(row["what"], row["asked"], str(row["measured"]), "yes" if row["met"] else "[bold]no")
    console.print(table)
    for name in ("sessions", "chat", "slow", "flood", "killed", "scrape"):
        console.print(f"{name}: {figures[name]}", highlight=False)
