"""How soon `/health` answers, asked again and again by a process of its own: executed, so that no other client is in its way.

In:  argv: host, port, seconds
Out: stdout: JSON, the milliseconds of each answer; -1 for none
"""

import http.client
import json
import sys
import time

INTERVAL = 0.05  # seconds


def probe(host: str, port: int, seconds: float) -> list[float]:
    """Milliseconds of each answer."""
    found = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        started = time.perf_counter()
        connection = http.client.HTTPConnection(host, port, timeout=10)
        try:
            connection.request("GET", "/health")
            ok = connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            ok = False
        connection.close()
        found.append((time.perf_counter() - started) * 1000 if ok else -1.0)
        time.sleep(INTERVAL)
    return found


if __name__ == "__main__":
    json.dump(probe(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])), sys.stdout)
