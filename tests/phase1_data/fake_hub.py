"""A Hub that stands on the loopback interface: enough of its protocol to open, stream or be refused a code set.

In:  files of a set by path, or a refusal
Out: an endpoint for HF_ENDPOINT
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SHA = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def fake_hub(
    files: dict[str, bytes], refuse: tuple[int, str] | None = None, stuck: str = "", served: list[str] | None = None
) -> Iterator[str]:
    """Serve one set, whatever id is asked for.

    Args:
        refuse: status and X-Error-Code of every answer.
        stuck: a file of which nothing comes for a minute.
        served: takes the name of each file whose content is asked for.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_POST(self) -> None:  # paths-info
            asked = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            found = [entry(path) for path in files if path in asked]
            self.answer(200, json.dumps(found).encode(), Content_Type="application/json")

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if refuse:
                self.answer(refuse[0], b"{}", X_Error_Code=refuse[1], X_Error_Message="refused")
            elif path.endswith("/auth-check"):
                self.answer(200, b"{}")
            elif "/tree/" in path:
                folder = path.split(SHA)[-1].strip("/")
                listed = [entry(name) for name in files if name.startswith(folder)]
                self.answer(200 if listed else 404, json.dumps(listed).encode(), Content_Type="application/json")
            elif path.startswith("/api/datasets/"):
                siblings = [{"rfilename": name} for name in files]
                info = {"id": "some/set", "sha": SHA, "siblings": siblings, "tags": [], "private": False, "gated": False, "downloads": 0}
                self.answer(200, json.dumps(info).encode(), Content_Type="application/json")
            else:
                self.serve(path.split(f"/resolve/{SHA}/")[-1])

        def serve(self, name: str) -> None:
            if name not in files:
                self.answer(404, X_Error_Code="EntryNotFound", X_Error_Message="no such file")
                return
            body = files[name]
            if served is not None and self.command == "GET":
                served.append(name)
            if name == stuck and self.command == "GET":
                time.sleep(60)
            ranged = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if ranged:
                first, last = int(ranged[1]), min(int(ranged[2] or len(body) - 1), len(body) - 1)
                self.answer(206, body[first : last + 1], Content_Range=f"bytes {first}-{last}/{len(body)}", ETag='"e"', X_Repo_Commit=SHA)
            else:
                self.answer(200, body, ETag='"e"', X_Repo_Commit=SHA, Accept_Ranges="bytes")

    def entry(name: str) -> dict[str, object]:
        return {"type": "file", "path": name, "size": len(files[name]), "oid": "0" * 40}

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
