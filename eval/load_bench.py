"""What many users, slow readers, a chat and a killed llama-server do to those who type.

In:  a GGUF
Out: figures beside what was asked for: errors, fairness, memory, `/health`, seconds until ready again
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from core.errors import InputError
from eval import keystrokes, prober, serving
from eval.clock import Clock, Timed, quantile, spread
from eval.keystrokes import Key
from eval.latency import Typist, say
from eval.serving import Server

THINK = 0.1  # seconds between an answer and the next key
SETTLE = 0.2  # share of the run after which memory must be flat
FLAT = 1.05  # times what it was then
FLOOD_SECONDS = 20.0  # until every one of many connections has an answer
SLOW_READERS = 8
TYPED = 60  # keys of each measurement of somebody who types beside something else
LIVES = 5.0  # seconds until a killed llama-server is there again


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
                ("chat", lambda: beside_chat(server, root, plan.chat_tokens)),
                ("sessions", lambda: sessions(server, root, plan)),
                ("slow", lambda: slow_readers(server, root)),
                ("flood", lambda: flood(server, root, plan.connections)),
                ("killed", lambda: killed(server, root)),
                ("scrape", lambda: scraped(server)),
            ):
                say(name)
                figures[name] = part()
    figures["rows"] = rows(figures, plan)
    return figures


# --- several who type


def files(root: Path) -> list[str]:
    """Files that can be typed in, the largest first."""
    found = sorted((root / "rich").glob("*.py"), key=lambda path: (-path.stat().st_size, path.name))
    return [str(path.relative_to(root)) for path in found if len(keystrokes.bodies(path.read_text())) >= 4]


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

    names = files(root)
    threads = [threading.Thread(target=typing, args=(n, names[n % len(names)])) for n in range(plan.sessions)]
    with watched(server) as levels:
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
        "memory": flatness(levels),
    }  # fmt: skip


@contextlib.contextmanager
def watched(server: Server) -> Iterator[list[float]]:
    """MiB resident of the server and what it started, once a second."""
    levels: list[float] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.5):
            levels.append(serving.memory(server.tree()).rss)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield levels
    finally:
        done.set()
        thread.join()


def flatness(levels: list[float]) -> dict[str, float]:
    """Where memory stood once the run had settled, and at its end."""
    settled = levels[int(len(levels) * SETTLE) :] or [0.0]
    edge = max(1, len(settled) // 5)
    before, after = statistics.median(settled[:edge]), statistics.median(settled[-edge:])
    return {"settled_mib": before, "end_mib": after, "most_mib": max(settled), "growth": round(after / before, 3) if before else 0.0}


# --- many connections


def flood(server: Server, root: Path, connections: int) -> dict[str, Any]:
    """Many requests at the same moment, each of somebody else."""
    at = urlsplit(server.address.url)
    assert at.hostname is not None
    assert at.port is not None
    key = keystrokes.recording((root / files(root)[0]).read_text(), 10)[0]
    watch = subprocess.Popen(
        [sys.executable, "-S", str(Path(prober.__file__)), at.hostname, str(at.port), str(FLOOD_SECONDS / 2)], stdout=subprocess.PIPE
    )
    time.sleep(0.5)
    with watched(server) as levels:
        answers = asyncio.run(_all_at_once(at.hostname, at.port, key, connections))
        health = json.loads(watch.communicate()[0])
    time.sleep(1)
    after = serving.memory(server.tree()).rss
    busy = [one for one in answers if one[0] == 429]
    return {
        "connections": connections,
        "statuses": dict(Counter(str(status) for status, _, _ in answers)),
        "refused_ms": spread([seconds for _, seconds, _ in busy]),
        "refused_without_retry_after": sum(not retry for _, _, retry in busy),
        "health_ms": spread([value / 1000 for value in health if value >= 0]),
        "health_failed": sum(value < 0 for value in health),
        "memory": {"before_mib": levels[0] if levels else 0.0, "most_mib": max(levels, default=0.0), "after_mib": after},
        "answers_again": Typist(server, root, files(root)[0], "after the flood").ask(key).status,
    }


async def _all_at_once(host: str, port: int, key: Key, connections: int) -> list[tuple[int, float, bool]]:
    """Status (0: none in time), seconds, and whether it says when to come back."""

    async def one(number: int) -> tuple[int, float, bool]:
        asked = {"prompt": key.prefix[-4000:], "suffix": key.suffix[:2000], "user": f"flood {number}", "manual": True, "max_tokens": 4}
        body = json.dumps(asked).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        started = time.perf_counter()
        writer = None
        try:
            async with asyncio.timeout(FLOOD_SECONDS):
                reader, writer = await asyncio.open_connection(host, port)
                writer.write(head.encode() + body)
                answer = await reader.readuntil(b"\r\n\r\n")
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return 0, time.perf_counter() - started, False
        finally:
            if writer is not None:
                writer.close()
        return int(answer.split()[1]), time.perf_counter() - started, b"retry-after" in answer.lower()

    return await asyncio.gather(*(one(number) for number in range(connections)))


# --- those who read slowly, and those who chat


def slow_readers(server: Server, root: Path) -> dict[str, Any]:
    """Several read a byte a second, and several send one, while one types."""
    names = files(root)
    alone = _type(server, root, names[2], "beside nobody", 1)
    at = urlsplit(server.address.url)
    key = keystrokes.recording((root / names[1]).read_text(), 10)[0]
    quick = [_asked(at.hostname or "", at.port or 0, key, f"quick {number}") for number in range(SLOW_READERS)]
    for one in quick:
        threading.Thread(target=_drain, args=(one,), daemon=True).start()
    read_quickly = _until_free(server)
    readers = [_asked(at.hostname or "", at.port or 0, key, f"slow {number}") for number in range(SLOW_READERS)]
    writers = [socket.create_connection((at.hostname, at.port)) for _ in range(SLOW_READERS)]
    done = threading.Event()

    def crawl() -> None:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
        second = 0
        while not done.wait(1):
            for one in readers:
                with contextlib.suppress(OSError):
                    one.recv(1)
            for one in writers:
                with contextlib.suppress(OSError):
                    one.sendall(head[second : second + 1])
            second += 1

    thread = threading.Thread(target=crawl)
    thread.start()
    try:
        read_slowly = _until_free(server)
        beside = _type(server, root, names[3], "beside slow readers", 1)
    finally:
        done.set()
        thread.join()
        for one in (*quick, *readers, *writers):
            one.close()
    return {
        "alone_first_ms": alone,
        "beside_first_ms": beside,
        "free_after_seconds": {"read quickly": read_quickly, "read slowly": read_slowly},
    }


def _until_free(server: Server) -> float:
    """Seconds until nothing runs any more; a minute where something always does."""
    started = time.monotonic()
    with contextlib.suppress(TimeoutError):
        time.sleep(0.1)
        _until(lambda: serving.scrape(server).get("tabsmith_running", 0) == 0, 60)
    return round(time.monotonic() - started, 2)


def _drain(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while one.recv(65536):
            pass


def _asked(host: str, port: int, key: Key, name: str) -> socket.socket:
    """A connection that has asked for a stream and has not read it; it buffers little."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    one.settimeout(1)
    one.connect((host, port))
    asked = {"prompt": key.prefix[-3000:], "suffix": key.suffix[:1000], "user": name, "stream": True, "manual": True}
    body = json.dumps(asked).encode()
    one.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    return one


def _type(server: Server, root: Path, path: str, name: str, first: int) -> dict[str, float]:
    """Somebody types so many keys and waits for each first line."""
    typist = Typist(server, root, path, name)
    keys = keystrokes.recording((root / path).read_text(), TYPED, first)
    timed = [typist.ask(key) for key in keys][1:]
    figures = spread([one.first for one in timed if one.first is not None])
    return {**figures, "errors": sum(one.error for one in timed)}


def beside_chat(server: Server, root: Path, tokens: int) -> dict[str, Any]:
    """Somebody types, alone and while a long chat is answered."""
    names = files(root)
    alone = _type(server, root, names[0], "beside no chat", 0)
    done, answers = threading.Event(), list[Timed]()

    def chat() -> None:
        clock = Clock(server.address)
        while not done.is_set():
            asked = {"messages": [{"role": "user", "content": "Explain how a table is rendered, at length."}], "max_tokens": tokens}
            answers.append(clock.ask("/v1/chat/completions", {**asked, "temperature": 1.0, "user": "chat"}))
            if answers[-1].error:
                return

    thread = threading.Thread(target=chat)
    thread.start()
    time.sleep(1)
    beside = _type(server, root, names[1], "beside a chat", 0)
    alive = thread.is_alive()
    done.set()
    thread.join()
    first = answers[0] if answers else Timed()
    return {
        "alone_first_ms": alone, "beside_first_ms": beside, "ratio_p95": round(beside.get("p95", 0) / max(alone.get("p95", 0), 0.01), 2),
        "ratio_p50": round(beside.get("p50", 0) / max(alone.get("p50", 0), 0.01), 2), "chat_ran_all_along": alive,
        "chat": {"finish": first.finish, "seconds": round(first.total, 2), "characters": len(first.text), "error": first.reason},
    }  # fmt: skip


# --- a crash, and what Prometheus sees


def killed(server: Server, root: Path) -> dict[str, Any]:
    """llama-server is killed as soon as it has written something.

    Raises:
        MachineError: it is not ready again.
    """
    key = keystrokes.recording((root / files(root)[4]).read_text(), 10)[0]
    clock, llama, deaths = Clock(server.address), server.llama(), _deaths(server)
    clock.on_text = llama.kill
    asked = {"prompt": key.prefix, "suffix": key.suffix, "manual": True, "temperature": 1.0, "user": "killed"}
    timed = clock.ask("/v1/completions", asked)
    told = timed.total - (timed.first or 0)
    started = time.monotonic()
    serving.wait_until(lambda: _deaths(server) > deaths and server.get("/ready")[0] == 200, server.process, server.log)
    ready = told + time.monotonic() - started
    again = Typist(server, root, files(root)[4], "after the crash").ask(key)
    return {
        "status": timed.status, "told": timed.reason or timed.finish, "error": timed.error, "told_after_seconds": round(told, 3),
        "ready_after_seconds": round(ready, 2), "answers_again": again.status,
    }  # fmt: skip


def _deaths(server: Server) -> int:
    return int(server.get("/health")[1].get("llama_server_deaths", 0))


def _until(true: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)


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


# --- beside what was asked for


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
