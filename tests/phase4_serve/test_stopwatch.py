"""The client that clocks: the same figures over TCP and over a Unix socket, closed connections, refusals, held-back text."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from phase4_serve.smoke import percentiles, rate
from phase4_serve.stopwatch import Stopwatch, Timing

WAIT = 0.05  # seconds between the parts of an answer
TIMINGS = {"prompt_n": 3, "prompt_ms": 20.0, "predicted_n": 2, "predicted_ms": 10.0}


class Handler(BaseHTTPRequestHandler):
    """Answers as the body says, in the shape of both servers."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "refuse" in body:
            return self.answer(429, b'{"error": {"message": "busy"}}')
        if not body["stream"]:
            return self.answer(200, json.dumps({"choices": [{"text": "abc"}], "tabsmith": {"source": "typed"}}).encode())
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")  # as llama-server does
        self.end_headers()
        for text in ("", "a", "b\n"):
            self.wfile.write(b"data: " + json.dumps({"choices": [{"text": text}]}).encode() + b"\n\n")
            time.sleep(WAIT)
        self.wfile.write(b": ping\n\ndata: " + json.dumps({"choices": [], "timings": TIMINGS}).encode() + b"\n\ndata: [DONE]\n\n")

    def answer(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing: the address of a Unix socket is no pair."""


@pytest.fixture(params=["tcp", "unix"])
def watch(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Stopwatch]]:
    unix = request.param == "unix"
    place = str(tmp_path / "s")
    server = socketserver.ThreadingUnixStreamServer(place, Handler) if unix else socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield lambda: Stopwatch(Path(place) if unix else f"http://127.0.0.1:{server.server_address[1]}")
    server.shutdown()
    server.server_close()


def test_a_stream_is_clocked_alike_over_either(watch: Callable[[], Stopwatch]) -> None:
    asked = watch()
    for _ in range(2):  # the server closes its connection: the second needs a new one
        timing = asked.ask({})
        assert (timing.status, timing.text, timing.timings) == (200, "ab\n", TIMINGS)
        assert timing.first is not None and WAIT <= timing.first < 2 * WAIT + 1 and timing.first + 2 * WAIT <= timing.total + 0.01
        assert timing.outside == pytest.approx(timing.total - 0.03)


def test_an_answer_in_one_piece_and_a_refusal(watch: Callable[[], Stopwatch]) -> None:
    asked = watch()
    whole = asked.ask({}, stream=False)
    assert (whole.status, whole.text, whole.source, whole.outside) == (200, "abc", "typed", None) and whole.first == whole.total
    refused = asked.ask({"refuse": True})
    assert (refused.status, refused.text, refused.first) == (429, "", None)


def test_where_nobody_listens_there_is_no_answer(tmp_path: Path) -> None:
    assert Stopwatch(tmp_path / "none").ask({}).status == 0


def test_text_that_was_held_back_is_not_written_faster() -> None:
    at_once = Timing(200, 0.1, 1.0, {"predicted_n": 10, "prompt_ms": 0}, "x", "")
    assert rate([at_once]) == rate([at_once._replace(first=0.999)]) == 10.0
    assert rate([]) == 0.0


def test_percentiles_are_of_the_nearest_rank() -> None:
    seconds = [number / 1000 for number in range(20, 0, -1)]
    assert percentiles(seconds) == {"p50": 10.0, "p95": 19.0, "n": 20} and percentiles([]) == {"p50": 0.0, "p95": 0.0, "n": 0}
