"""A completion, clocked from outside: what an editor on the same machine would wait.

In:  where a server listens; a request's body
Out: `Timed`: seconds to the first text and to the end, llama-server's own timings, how it ended

One connection that is kept, and the standard library's client: what the clock itself costs is a third of a millisecond.
"""

from __future__ import annotations

import http.client
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from eval.server_model import Address


@dataclass
class Timed:
    """One answer."""

    status: int = 0  # of HTTP; 0: the connection was lost
    first: float | None = None  # seconds to the first text; None: there was none
    total: float = 0.0
    text: str = ""
    finish: str = ""  # stop | length, llama-server's stop_type for its own shape
    timings: dict[str, float] = field(default_factory=dict)  # llama-server's
    source: str = ""  # model | typed | resumed, as our server says
    reason: str = ""  # why there is no text, or the error's code
    error: bool = False  # an error, or an end without an end

    @property
    def evaluated(self) -> float:
        """Prompt tokens that had to be read anew."""
        return self.timings.get("prompt_n", 0)

    @property
    def own(self) -> float | None:
        """Seconds that llama.cpp did not spend on tokens; None where it was not asked."""
        spent = self.timings.get("prompt_ms", 0) + self.timings.get("predicted_ms", 0)
        return self.total - spent / 1000 if spent and self.finish else None


class Clock:
    """Asks one server, one request after the other."""

    def __init__(self, address: Address, headers: dict[str, str] | None = None) -> None:
        self.address = address
        self.headers = {"Content-Type": "application/json", **(headers or {})}
        self.connection = address.connect()
        self.on_text: Callable[[], object] | None = None  # called once, at the first text of a stream

    def ask(self, path: str, body: dict[str, Any], stream: bool = True) -> Timed:
        """Ask and read to the end; a connection that the server closed meanwhile is opened again, once."""
        data = json.dumps({**body, "stream": stream}).encode()
        for attempt in (0, 1):
            started = time.perf_counter()
            try:
                self.connection.request("POST", self.address.root + path, data, self.headers)
                return self._read(self.connection.getresponse(), started, stream)
            except (http.client.HTTPException, OSError) as error:
                self.connection.close()
                if attempt:
                    return Timed(total=time.perf_counter() - started, reason=type(error).__name__, error=True)
        raise AssertionError("unreachable")

    def _read(self, response: http.client.HTTPResponse, started: float, stream: bool) -> Timed:
        timed = Timed(response.status, reason=response.headers.get("X-Tabsmith-Reason") or "")
        if response.status != 200 or "event-stream" not in (response.headers.get("Content-Type") or ""):
            self._whole(timed, response.read(), started)
        else:
            self._events(timed, response, started)
        timed.total = time.perf_counter() - started
        if response.will_close:
            self.connection.close()
        return timed

    @staticmethod
    def _whole(timed: Timed, data: bytes, started: float) -> None:
        if timed.status == 204:
            return
        said = json.loads(data) if data else {}
        if timed.status != 200:
            timed.error, timed.reason = True, str((said.get("error") or {}).get("code") or timed.status)
            return
        take(timed, said)
        timed.first = time.perf_counter() - started if timed.text else None

    def _events(self, timed: Timed, response: http.client.HTTPResponse, started: float) -> None:
        while line := response.readline():
            if not line.startswith(b"data: {"):
                continue
            said = json.loads(line[6:])
            take(timed, said)
            if timed.first is None and timed.text:
                timed.first = time.perf_counter() - started
                if self.on_text is not None:
                    self.on_text()
        timed.error = timed.error or not timed.finish


def take(timed: Timed, said: dict[str, Any]) -> None:
    """What one message of either shape says."""
    if "error" in said:
        timed.error, timed.reason = True, str((said["error"] or {}).get("code") or "error")
        return
    choice = (said.get("choices") or [{}])[0]
    timed.text += said.get("content") or choice.get("text") or (choice.get("delta") or {}).get("content") or ""
    timed.timings = said.get("timings") or timed.timings
    timed.source = (said.get("tabsmith") or {}).get("source") or timed.source
    ended = choice.get("finish_reason") or (said.get("stop_type") or "stop" if said.get("stop") else "")
    timed.finish = ended or timed.finish


def quantile(values: Sequence[float], share: float) -> float:
    """Nearest rank; not a number where nothing was measured."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)] if ordered else float("nan")


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95 and mean in milliseconds, and of how many."""
    if not seconds:
        return {"n": 0}
    figures = {"p50": quantile(seconds, 0.5), "p95": quantile(seconds, 0.95), "mean": statistics.mean(seconds), "max": max(seconds)}
    return {**{name: round(value * 1000, 2) for name, value in figures.items()}, "n": len(seconds)}
