"""A worker: a bare interpreter that forks one check and one program for each verdict, watches the clock and ends both.

In:  problems on stdin, read by the checks alone: nothing of a test is ever in the memory that a program inherits
Out: one JSON line on stdout for the levels that held, then one per verdict {"kind", "error", "detail", "seconds"}

The common modules are imported once, before any fork. Nothing else is shared: each program is a copy of this process as it was then,
with namespaces, a /tmp and a random seed of its own, and both processes are gone before the next two begin.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eval.sandbox import check, confine, probe, program
from eval.sandbox.confine import Limits, Worker

COMMON = [
    "abc", "array", "bisect", "calendar", "cmath", "collections", "copy", "dataclasses", "datetime", "decimal", "enum", "fractions",
    "functools", "hashlib", "heapq", "io", "itertools", "json", "math", "numbers", "operator", "os", "queue", "random", "re", "shutil",
    "statistics", "string", "struct", "subprocess", "sys", "textwrap", "threading", "time", "traceback", "types", "typing",
    "unicodedata",
]  # fmt: skip
GRACE = 0.05  # s that a process whose socket closed gets to end by itself, so that we learn how
VERDICT_BYTES = 16_384


def main() -> None:
    """Serve the judge until its end of stdin closes. The first argument holds the settings as JSON: see `pool.Settings`."""
    settings = json.loads(sys.argv[1])
    limits, without = Limits(settings["seconds"], settings["memory"]), frozenset(settings["without"])
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("900")  # a machine that runs out of memory ends programs, not its owner's work
    for name in COMMON:
        importlib.import_module(name)
    scratch = settings["scratch"]
    worker = confine.spaces(settings["packages"], scratch, without)
    os.environ.clear()
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    gc.collect()
    gc.freeze()
    try:
        _say(_levels(worker, limits, without, settings))
        while (verdict := _one(worker, limits, without, scratch)) is not None:
            _say(verdict)
    except BrokenPipeError:
        pass  # the judge is gone
    finally:
        if not worker.view:
            shutil.rmtree(scratch, ignore_errors=True)


def _say(line: dict[str, Any]) -> None:
    os.write(1, json.dumps(line).encode("ascii") + b"\n")


def _levels(worker: Worker, limits: Limits, without: frozenset[str], settings: dict[str, Any]) -> dict[str, Any]:
    """What held: as the system calls said, and as a program boxed in like any other found out."""
    with _folder(worker, settings["scratch"]) as folder:
        end, start = os.pipe()

        def look() -> None:
            held = confine.program(worker, limits, folder, (start,), False, without)
            doors = probe.look(settings["root"], settings["home"], settings["judge"], limits, settings["port"])
            os.write(3, json.dumps({"held": held, "open": doors}).encode("ascii"))

        pid = confine.fork(worker, look, trusted=False)
        os.close(start)
        seen, _ = _read(end, time.monotonic() + 10 * limits.seconds)
        os.close(end)
        _end(pid)
        _end_orphans()
    found = json.loads(seen) if seen else {"held": [], "open": ["not seen: the probe did not end"]}
    return {"namespaces": worker.spaces, **found}


def _one(worker: Worker, limits: Limits, without: frozenset[str], scratch: str) -> dict[str, Any] | None:
    """Judge the next problem; None where there is none."""
    with _folder(worker, scratch) as folder, _folder(worker, scratch) as other:
        verdict_end, verdict_start = os.pipe()
        ours, theirs = socket.socketpair()

        def run_program() -> None:
            confine.program(worker, limits, folder, (theirs.fileno(),), False, without)
            program.serve()

        def run_check() -> None:
            confine.program(worker, limits, other, (0, ours.fileno(), verdict_start), True, without)
            check.run()

        untrusted = confine.fork(worker, run_program, trusted=False)
        trusted = confine.fork(worker, run_check, trusted=True)
        for end in (ours, theirs):
            end.close()
        os.close(verdict_start)
        begun = os.read(verdict_end, 1)
        started = time.monotonic()
        text, in_time = _read(verdict_end, started + limits.seconds)
        seconds = round(time.monotonic() - started, 4)
        os.close(verdict_end)
        left = _ended(untrusted, GRACE if b'"left"' in text else 0.0)
        if left is None:
            _end(untrusted)
        by = _end(trusted)
        _end_orphans()
    if begun == check.END:
        return None
    if not begun:
        raise SystemExit(1)  # the check could not even begin: the judge starts another worker
    return _verdict(text, in_time, left, by, limits) | {"seconds": seconds}


def _verdict(text: bytes, in_time: bool, left: int | None, by: int, limits: Limits) -> dict[str, Any]:
    """What the check wrote, or why it wrote nothing.

    Args:
        left: exit code of the program if it ended by itself.
        by: exit code of the check.
    """
    if not in_time:
        return {"kind": "timeout", "error": "", "detail": f"over {limits.seconds:g} s"}
    try:
        verdict: dict[str, Any] = json.loads(text)
    except ValueError:
        return {"kind": "limit", "error": "", "detail": f"the check ended with {_name(by)}"}
    if verdict["kind"] == "left" and left is not None:
        verdict |= {"kind": "limit" if left < 0 else "left", "detail": f"the program ended with {_name(left)}"}
    return verdict


def _name(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


@contextlib.contextmanager
def _folder(worker: Worker, scratch: str) -> Iterator[str]:
    """A folder to work in where a program cannot have its own /tmp; gone afterwards, whatever lies in it."""
    if worker.view:
        yield "/tmp"
        return
    folder = tempfile.mkdtemp(dir=scratch)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, onerror=_force)


def _force(remove: Any, path: str, _: Any) -> None:
    """Open a folder that a program closed, and try again."""
    closed = Path(path)
    with contextlib.suppress(OSError):
        closed.parent.chmod(0o700)
        if closed.is_dir() and not closed.is_symlink():
            closed.chmod(0o700)
            shutil.rmtree(closed, ignore_errors=True)
        else:
            closed.unlink()


def _read(descriptor: int, until: float) -> tuple[bytes, bool]:
    """Everything up to the end of a pipe, and whether the end came in time."""
    parts: list[bytes] = []
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLHUP)
    while (left := until - time.monotonic()) > 0:
        if poll.poll(left * 1000):
            part = os.read(descriptor, 65536)
            if not part:
                return b"".join(parts)[:VERDICT_BYTES], True
            parts.append(part)
    return b"".join(parts), False


def _ended(pid: int, patience: float) -> int | None:
    """Exit code of a process (minus the signal) if it ends by itself in this time."""
    until = time.monotonic() + patience
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= until:
            return None
        time.sleep(0.002)


def _end(pid: int) -> int:
    """End a process, and with it its pid namespace or its group; return its exit code, minus the signal that ended it."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _end_orphans() -> None:
    """End what left its family: without a pid namespace it has become our child."""
    while True:
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError, ValueError):
                if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                    os.kill(int(stat.parent.name), signal.SIGKILL)
