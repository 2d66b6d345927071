"""Servers as their users start them: ours with `up`, llama-server by itself; and what they hold in memory.

In:  a GGUF, a workspace
Out: addresses that answer, for the length of a block; MiB
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from core.errors import AccessError, MachineError
from eval import llama_server
from eval.server_model import Address, request

READY_SECONDS, STOP_SECONDS = 120.0, 15.0
POLL = 0.02
SETTLE = 0.2  # share of a run after which memory must be flat


class Server(NamedTuple):
    """A process and where it answers."""

    process: subprocess.Popen[bytes]
    address: Address
    log: Path

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of a GET."""
        return request(self.address, "GET", path)

    def tree(self) -> list[psutil.Process]:
        """The process and all it started."""
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]

    def llama(self) -> psutil.Process:
        """llama-server under it.

        Raises:
            MachineError: there is none.
        """
        for one in self.tree():
            with contextlib.suppress(psutil.Error):
                if one.name() == "llama-server":
                    return one
        raise MachineError("the server has no llama-server: look whether it is still being started")


class Memory(NamedTuple):
    """MiB of some processes together."""

    rss: float  # resident; pages of the model's file count in full
    pss: float  # the same with shared pages shared out
    peak: float  # the largest that resident has been, each process by itself


def memory(processes: Sequence[psutil.Process]) -> Memory:
    """What processes hold; zero where the system does not say (only Linux does)."""
    rss, pss, peak = 0, 0, 0
    for one in processes:
        with contextlib.suppress(psutil.Error, OSError):
            rss += one.memory_info().rss
            pss += getattr(one.memory_full_info(), "pss", 0)
            status = Path(f"/proc/{one.pid}/status").read_text()
            peak += int(status.split("VmHWM:")[1].split()[0]) * 1024
    return Memory(*(round(value / 2**20, 1) for value in (rss, pss, peak)))


@contextlib.contextmanager
def watched(server: Server) -> Iterator[list[float]]:
    """MiB resident of the server and what it started, once a second."""
    levels: list[float] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.5):
            levels.append(memory(server.tree()).rss)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield levels
    finally:
        done.set()
        thread.join()


def flatness(levels: list[float]) -> dict[str, float]:
    """Where memory stood once the run had settled, and at its end."""
    settled = levels[int(len(levels) * SETTLE) :] or [0.0]
    edge = max(1, len(settled) // 5)
    before, after = statistics.median(settled[:edge]), statistics.median(settled[-edge:])
    return {"settled_mib": before, "end_mib": after, "most_mib": max(settled), "growth": round(after / before, 3) if before else 0.0}


@contextlib.contextmanager
def up(model: Path, workspace: Path, *flags: str, environment: dict[str, str] | None = None) -> Iterator[Server]:
    """Our server, started from the workspace's folder, so that the settings are those of a user without a params file.

    Raises:
        MachineError: it ends, or is not ready in time.
    """
    with tempfile.TemporaryDirectory(prefix="tabsmith-") as folder, (Path(folder) / "log").open("wb") as log:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "phase4_serve", "up", "--model", str(model.resolve()), "--workspace", str(workspace)]
        inherited = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        home = {"TABSMITH_HOME": folder, "XDG_CACHE_HOME": folder, "XDG_STATE_HOME": folder, "XDG_DATA_HOME": folder}
        process = subprocess.Popen(
            [*command, "--port", str(port), *flags], cwd=workspace, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            env={**inherited, **home, "PYTHONPATH": str(Path(__file__).parents[2]), **(environment or {})},
        )  # fmt: skip
        server = Server(process, Address(f"http://127.0.0.1:{port}"), Path(folder) / "log")
        try:
            wait_until(lambda: server.get("/ready")[0] == 200, process, server.log)
            wait_until(lambda: (server.get("/health")[1].get("index") or {"complete": True}).get("complete"), process, server.log)
            yield server
        finally:
            stop(process)


def wait_until(true: Callable[[], Any], process: subprocess.Popen[bytes], log: Path, seconds: float = READY_SECONDS) -> float:
    """Wait for a condition; seconds that took.

    Raises:
        MachineError: the process ended, or it took too long.
    """
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        with contextlib.suppress(AccessError, AttributeError):
            if true():
                return time.monotonic() - started
        if process.poll() is not None:
            lines = log.read_text(errors="replace").strip().splitlines()
            raise MachineError(f"the server ended: {' | '.join(lines[-3:]).removeprefix('error: ') or 'it said nothing'}")
        time.sleep(POLL)
    raise MachineError(f"the server was not ready within {seconds:.0f} seconds: try a smaller model")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process as Ctrl-C does, or at last without asking."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def plain(model: Path, *flags: str, like: psutil.Process | None = None) -> Iterator[Server]:
    """llama-server by itself on a Unix socket.

    Args:
        flags: beside its defaults.
        like: another llama-server whose flags are taken instead.

    Raises:
        MachineError: there is none, it ends, or is not ready in time.
    """
    with tempfile.TemporaryDirectory(prefix="tabsmith-") as folder, (Path(folder) / "log").open("wb") as log:
        path = Path(folder) / "llama.sock"
        command = [str(llama_server.find_binary()), "--model", str(model), "--host", str(path), "--offline", "--no-ui", *flags]
        if like is not None:
            command = like.cmdline()
            command[command.index("--host") + 1] = str(path)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LLAMA_", "OMP_"))}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=inherited)
        server = Server(process, Address("llama-server", path), Path(folder) / "log")
        try:
            wait_until(lambda: server.get("/health")[0] == 200, process, server.log)
            yield server
        finally:
            stop(process)


def scrape(server: Server) -> dict[str, float]:
    """Every sample of `/metrics`, by name and labels, as prometheus_client reads it."""
    from prometheus_client.parser import text_string_to_metric_families

    connection = server.address.connect()
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {sample.name + (json.dumps(sample.labels) if sample.labels else ""): sample.value for sample in samples}
