"""A completion clocked from outside, by the same client whoever answers: our server over TCP, llama-server over its socket.

In:  where a server listens; the body of a /v1/completions request
Out: `Timing`: seconds to the first text and to the end, llama-server's own timings, the text

The standard library's client on one kept connection: what it costs is the same on both sides, a third of a millisecond.
"""

from __future__ import annotations

import http.client
import json
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from phase4_serve.vocabulary import Local

PATH, SECONDS = "/v1/completions", 120.0


class Timing(NamedTuple):
    """One answer."""

    status: int  # of HTTP; 0: the connection was lost
    first: float | None  # seconds to the first text; None: there was none
    total: float  # seconds to the end
    timings: dict[str, float]  # llama-server's
    text: str
    source: str  # model | typed | resumed, as our server says; "" from llama-server

    @property
    def outside(self) -> float | None:
        """Seconds that llama.cpp did not spend on tokens; None where it did not say."""
        spent = self.timings.get("prompt_ms", 0) + self.timings.get("predicted_ms", 0)
        return self.total - spent / 1000 if spent else None


class Stopwatch:
    """Asks one server, one request after the other."""

    def __init__(self, server: str | Path) -> None:
        """Args: server: a URL, or a Unix socket's path."""
        parts = urlsplit(server) if isinstance(server, str) else None
        self.connection = (
            http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=SECONDS) if parts else Local(str(server), SECONDS)
        )

    def ask(self, body: dict[str, Any], stream: bool = True) -> Timing:
        """Ask and read to the end; a connection that the server closed meanwhile is opened again, once."""
        data = json.dumps({**body, "stream": stream}).encode()
        for _ in range(2):
            started = time.perf_counter()
            try:
                self.connection.request("POST", PATH, data, {"Content-Type": "application/json"})
                response = self.connection.getresponse()
                timing = _streamed(response, started) if stream and response.status == 200 else _whole(response, started)
            except (http.client.HTTPException, OSError, ValueError):
                self.connection.close()
                continue
            if response.will_close:
                self.connection.close()
            return timing
        return Timing(0, None, time.perf_counter() - started, {}, "", "")

    def close(self) -> None:
        """End the connection."""
        self.connection.close()


def _streamed(response: http.client.HTTPResponse, started: float) -> Timing:
    first: float | None = None
    timings: dict[str, float] = {}
    text, source = "", ""
    while line := response.readline():
        if not line.startswith(b"data: {"):
            continue
        message = json.loads(line[6:])
        timings, source = message.get("timings") or timings, (message.get("tabsmith") or {}).get("source", source)
        text += "".join(choice["text"] for choice in message.get("choices", []))
        if text and first is None:
            first = time.perf_counter() - started
    return Timing(response.status, first, time.perf_counter() - started, timings, text, source)


def _whole(response: http.client.HTTPResponse, started: float) -> Timing:
    message = json.loads(response.read() or b"{}")
    total = time.perf_counter() - started
    text = "".join(choice["text"] for choice in message.get("choices", []))
    source = (message.get("tabsmith") or {}).get("source", "")
    return Timing(response.status, total if text else None, total, message.get("timings") or {}, text, source)
