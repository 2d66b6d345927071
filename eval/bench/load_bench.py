"""What many users, slow readers, a chat and a killed llama-server do to those who type.

In:  a GGUF
Out: figures: errors, fairness, memory, `/health`, seconds until ready again (eval/bench/load_table.py: beside what was asked for)
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import InputError
from eval.bench import keystrokes, load_crowd, serving
from eval.bench.clock import Clock, Timed, quantile, spread
from eval.bench.latency import Typist, say
from eval.bench.serving import Server

THINK = 0.1  # seconds between an answer and the next key


class Plan(NamedTuple):
    """How much is asked."""

    model: Path
    seconds: int = 60
    sessions: int = 8
    connections: int = 500
    chat_tokens: int = 500
    flags: tuple[str, ...] = ()  # of `up`


def run(plan: Plan) -> dict[str, Any]:
    """Every figure.

    Raises:
        InputError: no such model.
        MachineError: the server does not run here.
    """
    if not plan.model.is_file():
        raise InputError(f"{plan.model} is missing: make one with `python -m phase3_quantize random-gguf --shape qwen2.5-coder-0.5b`")
    with tempfile.TemporaryDirectory(prefix="tabsmith-") as folder:
        root = keystrokes.copy_package(Path(folder))
        with serving.up(plan.model, root, *plan.flags) as server:
            figures: dict[str, Any] = {"model": plan.model.name}
            for name, part in (
                ("chat", lambda: load_crowd.beside_chat(server, root, plan.chat_tokens)),
                ("sessions", lambda: sessions(server, root, plan)),
                ("slow", lambda: load_crowd.slow_readers(server, root)),
                ("flood", lambda: load_crowd.flood(server, root, plan.connections)),
                ("killed", lambda: killed(server, root)),
                ("scrape", lambda: scraped(server)),
            ):
                say(name)
                figures[name] = part()
    return figures


def sessions(server: Server, root: Path, plan: Plan) -> dict[str, Any]:
    """Several people type, each in a file of their own, and wait for every answer."""
    deadline = time.monotonic() + plan.seconds
    timed: list[list[Timed]] = [[] for _ in range(plan.sessions)]

    def typing(number: int, path: str) -> None:
        typist = Typist(server, root, path, f"session {number}")
        recorded = keystrokes.recording((root / path).read_text(), 150, first=1)
        for key in (key for _ in range(100) for key in recorded):
            if time.monotonic() > deadline:
                return
            timed[number].append(typist.ask(key, None))
            time.sleep(THINK)

    names = keystrokes.files(root)
    threads = [threading.Thread(target=typing, args=(n, names[n % len(names)])) for n in range(plan.sessions)]
    with serving.watched(server) as levels:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    waits = [[one.first if one.first is not None else one.total for one in found[1:] if not one.error] for found in timed]
    p95 = [quantile(wait, 0.95) for wait in waits if wait]
    return {
        "keys": sum(map(len, timed)), "keys_per_session": [len(found) for found in timed],
        "errors": dict(Counter(one.reason or str(one.status) for found in timed for one in found if one.error)),
        "first_ms": spread([wait for found in waits for wait in found]),
        "p95_ms_per_session": [round(value * 1000, 1) for value in p95],
        "slowest_p95_over_mean_p95": round(max(p95) / statistics.mean(p95), 2),
        "slowest_p95_over_mean_wait": round(max(p95) / statistics.mean(wait for found in waits for wait in found), 2),
        "memory": serving.flatness(levels),
    }  # fmt: skip


def killed(server: Server, root: Path) -> dict[str, Any]:
    """llama-server is killed as soon as it has written something.

    Raises:
        MachineError: it is not ready again.
    """
    key = keystrokes.recording((root / keystrokes.files(root)[4]).read_text(), 10)[0]
    clock, llama, deaths = Clock(server.address), server.llama(), _deaths(server)
    clock.on_text = llama.kill
    asked = {"prompt": key.prefix, "suffix": key.suffix, "manual": True, "temperature": 1.0, "user": "killed"}
    timed = clock.ask("/v1/completions", asked)
    told = timed.total - (timed.first or 0)
    started = time.monotonic()
    serving.wait_until(lambda: _deaths(server) > deaths and server.get("/ready")[0] == 200, server.process, server.log)
    ready = told + time.monotonic() - started
    again = Typist(server, root, keystrokes.files(root)[4], "after the crash").ask(key)
    return {
        "status": timed.status, "told": timed.reason or timed.finish, "error": timed.error, "told_after_seconds": round(told, 3),
        "ready_after_seconds": round(ready, 2), "answers_again": again.status,
    }  # fmt: skip


def _deaths(server: Server) -> int:
    return int(server.get("/health")[1].get("llama_server_deaths", 0))


WANTED = (
    "tabsmith_first_token_seconds_bucket", "tabsmith_request_seconds_bucket", "tabsmith_prompt_tokens_evaluated_total",
    "tabsmith_prompt_tokens_cached_total", "tabsmith_retrieval_seconds_bucket", 'tabsmith_requests_total{"outcome": "cancelled"}',
)  # fmt: skip


def scraped(server: Server) -> dict[str, Any]:
    """What Prometheus reads."""
    samples = serving.scrape(server)
    return {
        "samples": len(samples), "missing": [name for name in WANTED if not any(sample.startswith(name) for sample in samples)],
        "requests": {name: value for name, value in samples.items() if name.startswith("tabsmith_requests_total") and value},
    }  # fmt: skip
