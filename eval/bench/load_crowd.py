"""What a crowd does to somebody who types: many connections at the same moment, slow readers and senders, a chat.

In:  our server, a folder of code
Out: figures: answers, refusals, `/health` and memory meanwhile; first tokens of who types, alone and beside them
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from eval.bench import keystrokes, prober, serving
from eval.bench.clock import Clock, Timed, spread
from eval.bench.keystrokes import Key
from eval.bench.latency import Typist
from eval.bench.serving import Server

FLOOD_SECONDS = 20.0  # until every one of many connections has an answer
SLOW_READERS = 8
TYPED = 60  # keys of each measurement of somebody who types beside something else


def flood(server: Server, root: Path, connections: int) -> dict[str, Any]:
    """Many requests at the same moment, each of somebody else."""
    at = urlsplit(server.address.url)
    assert at.hostname is not None
    assert at.port is not None
    key = keystrokes.recording((root / keystrokes.files(root)[0]).read_text(), 10)[0]
    watch = subprocess.Popen(
        [sys.executable, "-S", str(Path(prober.__file__)), at.hostname, str(at.port), str(FLOOD_SECONDS / 2)], stdout=subprocess.PIPE
    )
    time.sleep(0.5)
    with serving.watched(server) as levels:
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
        "answers_again": Typist(server, root, keystrokes.files(root)[0], "after the flood").ask(key).status,
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


def slow_readers(server: Server, root: Path) -> dict[str, Any]:
    """Several read a byte a second, and several send one, while one types."""
    names = keystrokes.files(root)
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
    time.sleep(0.1)
    while serving.scrape(server).get("tabsmith_running", 0) and time.monotonic() < started + 60:
        time.sleep(0.02)
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
    names = keystrokes.files(root)
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
