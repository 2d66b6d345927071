"""What a boxed-in program can still do, tried out: the report says what was seen, not what was asked for.

In:  a process after `confine.program`
Out: the doors that stand open, by name; none where everything held
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from eval.sandbox.confine import Limits


def look(root: str, home: str, judge: int, limits: Limits, port: int) -> list[str]:
    """Names of the doors that stand open.

    Args:
        root: the checkout.
        home: something in the home directory of who runs the judge.
        judge: process id of the judge.
        limits: those that should hold.
        port: on the loopback device, where the judge listens.
    """

    def connect() -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            pass

    def fork() -> None:
        if os.fork() == 0:
            os._exit(0)

    def write() -> None:
        (Path.cwd().parent / "tabsmith-probe").write_text("")

    def threads() -> None:
        release = threading.Event()
        for _ in range(1000):
            threading.Thread(target=release.wait, daemon=True).start()

    doors: dict[str, Callable[[], object]] = {
        "network": connect,
        "home directory": lambda: os.open(home, os.O_RDONLY),
        "checkout": lambda: os.open(root, os.O_RDONLY),
        "writing outside its folder": write,
        "signals to the judge": lambda: os.kill(judge, 0),
        "new processes": fork,
        "memory over the limit": lambda: bytearray(limits.memory),
        "a thousand threads": threads,
    }
    return [name for name, door in doors.items() if _opens(door)]


def _opens(door: Callable[[], object]) -> bool:
    try:
        door()
    except (OSError, MemoryError, RuntimeError):
        return False
    return True
