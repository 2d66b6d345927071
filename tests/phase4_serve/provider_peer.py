"""A small OpenAI-compatible chat service, for a gateway to ask: it answers, refuses or hangs as it is told."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WORDS = ["It is ", "in headers.py:1 ", "😀 日本"]


@dataclass
class Peer:
    """What it was asked, and what it does next: a status, "hang", "break", "whole", "error", bytes it sends; then it answers."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)
    next: list[int | str | bytes] = field(default_factory=list)
    hung_up: threading.Event = field(default_factory=threading.Event)


def serve(peer: Peer) -> ThreadingHTTPServer:
    """Start it on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_POST(self) -> None:
            peer.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            peer.heads.append({name.lower(): value for name, value in self.headers.items()})
            how = peer.next.pop(0) if peer.next else 200
            if isinstance(how, int) and how != 200:
                self.send_response(how)
                if how in (301, 307):
                    self.send_header("Location", f"{peer.url}/elsewhere")
                self.send_header("Retry-After", "0")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")
                return
            self.send_response(200)
            whole = how == "whole" or (isinstance(how, bytes) and not how.startswith(b"data:"))
            self.send_header("Content-Type", "application/json; charset=base64" if whole else "text/event-stream; charset=rot13")
            self.end_headers()
            if isinstance(how, bytes):
                with contextlib.suppress(OSError):
                    self.wfile.write(how)
                return
            if how == "whole":
                self.wfile.write(json.dumps({"choices": [{"message": {"content": "".join(WORDS)}, "finish_reason": "length"}]}).encode())
                return
            if how == "error":
                self._say({"error": {"message": "do not repeat me"}})
                return
            for word in WORDS:
                self._say({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
            if how == "break":
                self.connection.close()
                return
            if how == "hang":
                self._until_hung_up()
                return
            self._say({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            self.wfile.write(b"data: [DONE]\n\n")

        def _say(self, message: dict[str, Any]) -> None:
            self.wfile.write(f"data: {json.dumps(message)}\n\n".encode())
            self.wfile.flush()

        def _until_hung_up(self) -> None:
            try:
                while True:
                    self._say({"choices": []})
                    time.sleep(0.02)
            except OSError:
                peer.hung_up.set()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    peer.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
