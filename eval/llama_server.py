"""llama-server for an evaluation: found, started with what makes it fast, and ended with us.

In:  a GGUF file, tokens that a slot must hold
Out: addresses that answer (eval/server_model.py), for the length of a block

What the flags cost (5M-parameter model, 337 tokens read and 13 written per row, processor time per token,
llama-batched-bench of the same build = 1): one cache for all slots (--kv-unified, the default where the number of slots is left to
it) 2.0 to 2.3, since every token then looks over the rows of all slots; a cache per slot 0.8 to 1.0.

Of a small file several servers run, a thread each, that share the slots. Two threads of one server wait for each other at every
matrix, spinning; when anything else wants a core, both stand still (60 rows on 2 cores that other programs wanted too: 45 s with one
server of 2 threads, 2 s with two of 1), and while one picks tokens the other has nothing to do.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from core.errors import AccessError, MachineError
from eval.prompts import Prompt
from eval.server_model import TIMEOUT, Address, request

SLOTS = 16  # of the servers that we start, together
SERVERS, LARGE = 4, 1_000_000_000  # at most so many; a file of more bytes than that gets one, since each may keep its own copy
START_SECONDS = 300.0


def find_binary(name: str = "llama-server") -> Path:
    """A tool of llama.cpp: $LLAMA_SERVER (the server), then the one installed with this Python, then PATH.

    Raises:
        MachineError: there is none.
    """
    named = os.environ.get("LLAMA_SERVER") if name == "llama-server" else None
    folders = (Path(sys.prefix) / "bin", Path(sysconfig.get_path("purelib")) / "bin")
    places = [named, *(str(folder / name) for folder in folders), shutil.which(name)] if not named else [named]
    for place in places:
        if place and os.access(place, os.X_OK) and Path(place).is_file():
            return Path(place)
    raise MachineError(f"{named or name} is neither installed with this Python nor on PATH: run `make build`, or set LLAMA_SERVER")


def room(prompts: Sequence[Prompt], limit: int) -> int:
    """Tokens that a slot must hold, in steps of the 256 that llama.cpp rounds up to."""
    longest = max((len(prompt.ids) for prompt in prompts), default=0) + limit + 1
    return -(-longest // 256) * 256


def flags(slots: int, holds: int, threads: int) -> list[str]:
    """How llama-server is run for an evaluation: `holds` is the tokens that fit into a slot."""
    values = {
        "--ctx-size": slots * holds, "--parallel": slots, "--threads": threads, "--threads-batch": threads, "--batch-size": 2048,
        "--ubatch-size": 512, "--cache-ram": 0, "--timeout": int(TIMEOUT), "--log-verbosity": 1,
    }  # fmt: skip
    return [*(str(part) for flag in values.items() for part in flag), "--no-kv-unified", "--no-ui", "--offline"]


def cores() -> int:
    """Threads of a server of ours: OMP_NUM_THREADS, as for torch, else every core this process may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(wanted) if wanted.isdigit() and int(wanted) else mine


@contextlib.contextmanager
def served(file: Path, slots: int, holds: int, threads: int, extra: Sequence[str] = ()) -> Iterator[Address]:
    """A llama-server of our own on a Unix socket that no other user can reach; it ends with the block, or with this process.

    Raises:
        MachineError: no llama-server, or it ends at the start.
    """
    binary = find_binary()
    with _terms_as_interrupts(), tempfile.TemporaryDirectory(prefix="tabsmith-") as folder, (Path(folder) / "log").open("w+b") as log:
        path = Path(folder) / "llama.sock"
        command = [str(binary), "--model", str(file), "--host", str(path), *flags(slots, holds, threads), *extra]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LLAMA_")}
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, env=environment,
            start_new_session=True, preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )  # fmt: skip
        address = Address(f"llama-server of {file.name}", path)
        try:
            _until_ready(process, address, log)
            try:
                yield address
            except AccessError:
                with contextlib.suppress(subprocess.TimeoutExpired):  # its socket closes before it is gone
                    process.wait(2)
                if process.poll() is None:
                    raise
                raise MachineError(f"llama-server ended while it was asked ({_how(process.returncode)}): {_last(log)}") from None
        finally:
            _end(process)


@contextlib.contextmanager
def fleet(file: Path, slots: int, holds: int, threads: int = 0, servers: int = 0, extra: Sequence[str] = ()) -> Iterator[list[Address]]:
    """As many servers of a file as use the cores best, `slots` of them all together; see the top of the file.

    Args:
        threads: of all together; 0: every core.
        servers: 0: one per core, SERVERS at most, and one alone for a file that is large.

    Raises:
        MachineError: as `served`.
    """
    threads = threads or cores()
    count = servers or (1 if file.stat().st_size > LARGE else min(threads, slots, SERVERS))
    with contextlib.ExitStack() as stack:
        each = (served(file, -(-slots // count), holds, max(1, threads // count), extra) for _ in range(count))
        yield [stack.enter_context(one) for one in each]


@contextlib.contextmanager
def _terms_as_interrupts() -> Iterator[None]:
    """Be ended by SIGTERM as by Ctrl-C, so that the server and its folder go too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def _end_with_parent() -> None:
    """Between fork and exec: the kernel ends the server when the thread that started it ends, however that comes about."""
    if PRCTL is not None:
        PRCTL(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _until_ready(process: subprocess.Popen[bytes], address: Address, log: Any) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise MachineError(f"llama-server ended at its start ({_how(process.returncode)}): {_last(log)}")
        with contextlib.suppress(AccessError):
            if request(address, "GET", "/health")[0] == 200:
                return
        time.sleep(0.02)
    raise MachineError(f"llama-server did not answer within {START_SECONDS:.0f} seconds: try a smaller model")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last(log: Any) -> str:
    log.seek(0)
    lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-3:]) or "it said nothing"


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
