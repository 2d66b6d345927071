"""Run one process and write down what it took, from a process that is itself small.

    python -m eval.bench.launcher FILE COMMAND...

In:  a command
Out: FILE: its seconds, peak memory in MB (10^6 bytes, pages of mapped files included) and exit code, as JSON

Linux counts what the parent held when a process was made as memory of that process: started from a large one, a small process looks large.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def main(out: str, *command: str) -> None:
    started = time.perf_counter()
    child = subprocess.Popen(command)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    found = {"seconds": time.perf_counter() - started, "peak_mb": used.ru_maxrss * unit / 1e6, "code": child.returncode}
    Path(out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
