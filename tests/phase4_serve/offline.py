"""Runs the server where there is no network but loopback, uses all of it, and reports which addresses it asked the kernel for.

In:  argv: GGUF, workspace, folder; executed within `unshare -rn`
Out: stdout, last line: JSON of interfaces, statuses, indexed files, and what strace, where it is there, saw of addresses elsewhere
"""

import fcntl
import json
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # <linux/sockios.h>, <net/if.h>
LOCAL = re.compile(r'sin_addr=inet_addr\("127\.|inet_pton\(AF_INET6, "::1"|htons\(0\)')


def loopback_up() -> None:
    """What `ip link set lo up` does: a new namespace has it down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        fcntl.ioctl(one, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


def call(url: str, body: dict[str, object] | None = None) -> tuple[int, str]:
    """Status and text of a request."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, {"Content-Type": "application/json"}), timeout=30) as answer:
        return answer.status, answer.read().decode()


def main(model: str, workspace: str, folder: Path) -> None:
    loopback_up()
    trace = folder / "trace"
    command = [sys.executable, "-m", "phase4_serve", "up", "--model", model, "--workspace", workspace, "--port", "0", "--ctx", "1024"]
    command += ["--prefix-tokens", "240", "--suffix-tokens", "100", "--context-tokens", "200", "--threads", "1"]
    traced = ["strace", "-f", "-qq", "-e", "trace=connect,sendto", "-e", "signal=none", "-o", str(trace)] if shutil.which("strace") else []
    log = folder / "log"
    with log.open("w") as out:
        process = subprocess.Popen([*traced, *command], stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 90
        while not ("indexed " in log.read_text() and " ready after " in log.read_text()):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(log.read_text())
            time.sleep(0.05)
        url = "http" + log.read_text().split(" on http")[1].split()[0]
        asked: list[tuple[str, dict[str, object] | None]] = [
            ("/v1/completions", {"prompt": "def area(r):\n    return ", "suffix": "\n", "manual": True, "max_tokens": 4, "path": "a.py"}),
            ("/infill", {"input_prefix": "", "prompt": "x = ", "input_suffix": "\n", "manual": True, "n_predict": 4}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "triangle_area?"}], "max_tokens": 4}),
            ("/v1/embeddings", {"input": "triangle area"}),
            ("/v1/search", {"query": "triangle_area"}),
            ("/v1/models", None), ("/health", None), ("/ready", None), ("/metrics", None),
        ]  # fmt: skip
        answers = [call(url + path, body) for path, body in asked]
    finally:
        process.send_signal(signal.SIGTERM)
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split() if traced else []:
            subprocess.run(["kill", "-TERM", child], check=False)
        process.wait(30)
    lines = trace.read_text().splitlines() if traced else []
    outside = [line for line in lines if "AF_INET" in line and not LOCAL.search(line)]
    known = json.loads(answers[6][1])["index"]["files"]
    names = [name for _, name in socket.if_nameindex()]
    print(json.dumps({"interfaces": names, "statuses": [status for status, _ in answers], "files": known, "outside": outside}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
