"""Run a file's doctests with a completion in it, where that does no harm.

In:  the text of a Python file (somebody else's code), a scratch folder
Out: passed | failed | timeout | none, or why nothing was run

Only files that import nothing but the standard library are run, and only on a Linux that offers both seccomp and
Landlock; elsewhere nothing is run, and `confinement` says so. The program is `python -I -S -B` in a session of its own with an
empty environment and an empty folder, and before it sees a line of the file it gives up: new processes and threads, other
programs, sockets, signals to others (seccomp); every file but the interpreter's own for reading, and its folder for
writing (Landlock); memory, processor time, file size and processes above a limit (rlimits); the network, where a
namespace of its own is allowed (unshare). What it prints goes nowhere; the verdict comes through a pipe of its own.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import functools
import json
import os
import platform
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from core.syntax import parse_python

WALL = 3.0  # seconds from the file's first line on; the truth must pass within a third of them, so that a busy machine changes no verdict
STARTING = 60.0  # seconds for the interpreter to start and lock itself in
VERDICT_BYTES = 4096
RUNNER = Path(__file__).with_name("doctest_runner.py")
SUPPORTED = ("x86_64", "aarch64")
LANDLOCK_CREATE_RULESET = 444  # the same number on every architecture
PR_GET_SECCOMP = 21


class Outcome(NamedTuple):
    """What running a file's doctests came to."""

    result: str  # passed | failed | timeout | none (it holds no example) | crashed
    seconds: float  # since its first line


def imports_only_standard_library(tree: ast.Module) -> bool:
    """Whether nothing is imported, anywhere in the file, that does not come with Python."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = ["."] if node.level else [node.module or "."]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        if any(name.partition(".")[0] not in sys.stdlib_module_names for name in names):
            return False
    return True


def runnable(text: str, lang: str) -> bool:
    """Whether a file has doctests that can be run by themselves."""
    if lang != "python" or ">>>" not in text:
        return False
    tree = parse_python(text)
    return tree is not None and imports_only_standard_library(tree)


@functools.cache
def confinement() -> str | None:
    """None where a program can be confined here; else what is missing, in a few words."""
    if sys.platform != "linux" or platform.machine() not in SUPPORTED:
        return f"no seccomp filter for {platform.system()} on {platform.machine()}"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(LANDLOCK_CREATE_RULESET, None, 0, 1) < 1:
        return "the kernel offers no Landlock"
    return None if libc.prctl(PR_GET_SECCOMP, 0, 0, 0, 0) >= 0 else "the kernel offers no seccomp"


@functools.cache
def network() -> str:
    """How the network is kept away from what is run: by a namespace of its own too, or by seccomp alone."""
    probe = subprocess.run([sys.executable, "-I", "-S", str(RUNNER), "probe"], capture_output=True, text=True, timeout=20, env={})
    return "namespace and seccomp" if probe.stdout.strip() == "unshared" else "seccomp (no namespace allowed here)"


def run(text: str, name: str = "module", wall: float = WALL) -> Outcome:
    """Run the doctests of a file's text.

    Args:
        name: module name that the file sees.
        wall: seconds after which the program and its session are killed.
    """
    nonce = secrets.token_hex(8)
    with tempfile.TemporaryDirectory(prefix="tabsmith-doctest-") as folder:
        reader, writer = os.pipe()
        os.set_inheritable(writer, True)
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", str(RUNNER), "run", str(writer)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, cwd=folder, env={}, start_new_session=True, pass_fds=[writer],
            )  # fmt: skip
            os.close(writer)
            writer = -1
            task = json.dumps({"text": text, "name": name, "nonce": nonce, "prefix": sys.base_prefix, "folder": folder}).encode()
            try:
                outcome = _verdict(process, reader, task, nonce, wall)
            finally:
                _kill(process)
        finally:
            for end in (reader, writer):
                if end >= 0:
                    os.close(end)
    return outcome


def _verdict(process: subprocess.Popen[bytes], reader: int, task: bytes, nonce: str, wall: float) -> Outcome:
    """Hand the task over and wait for a verdict, the end of the program, or the deadline."""
    assert process.stdin is not None
    try:
        process.stdin.write(task)  # read whole before anything of it is run
        process.stdin.close()
    except BrokenPipeError:
        return Outcome("crashed", 0.0)
    started, said, ready = time.monotonic(), b"", False
    while (left := started + (wall if ready else STARTING) - time.monotonic()) > 0:
        if not select.select([reader], [], [], left)[0]:
            break
        piece = os.read(reader, VERDICT_BYTES)
        said = (said + piece)[-VERDICT_BYTES:]
        for line in said.split(b"\n"):
            word, _, rest = line.decode(errors="replace").partition(" ")
            if word == nonce and rest in ("passed", "failed", "none"):
                return Outcome(rest, time.monotonic() - started)
            if word == nonce and rest == "ready" and not ready:
                started, ready = time.monotonic(), True
        if not piece:
            return Outcome("crashed", time.monotonic() - started)  # ended, or closed the pipe, without a verdict
    return Outcome("timeout", time.monotonic() - started)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the program's session; it can have started no process outside of it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Doctests:
    """Doctests of the files that pairs come from; the truth of a file is run once."""

    def __init__(self) -> None:
        self.passes: dict[str, bool] = {}

    def judged(self, text: str, lang: str) -> bool:
        """Whether a file's doctests can be run here and pass with the truth, in a third of the time a completion gets."""
        if text not in self.passes:
            outcome = run(text) if confinement() is None and runnable(text, lang) else Outcome("none", 0.0)
            self.passes[text] = outcome.result == "passed" and outcome.seconds < WALL / 3
        return self.passes[text]

    def fails(self, text: str, lang: str, completed: str) -> str | None:
        """How the doctests of `text` fail once it is `completed`; None where they pass or cannot be judged."""
        if not self.judged(text, lang):
            return None
        result = run(completed).result
        return None if result in ("passed", "none") else result
