"""Verdicts on many programs, on several workers at once.

In:  Programs
Out: a Verdict each, in order; Levels, what held the programs back

A worker that dies is replaced; the program that it had is tried once more, and then counts as one that took its worker down.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import select
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import MachineError

ROOT = Path(__file__).resolve().parents[2]
START = "import sys; sys.path.insert(0, {root!r}); from eval.sandbox.worker import main; del sys.path[0]; main()"
FAREWELL = 2.0  # s that a worker gets to end by itself: less than a program that runs forever takes
PATIENCE = 30.0  # s beyond a program's own limit before a worker counts as dead: forking and ending, on a busy machine
_NUMBERS = itertools.count()
FALLBACKS = ((), ("user",), ("view",), ("namespaces",), ("namespaces", "landlock"), ("namespaces", "landlock", "seccomp"))
KINDS = ("passed", "assertion", "exception", "syntax", "timeout", "limit", "left")


class Program(NamedTuple):
    """One completion in its place, and what it must do."""

    prompt: str
    completion: str
    suffix: str
    test: str
    entry: str


CANARY = Program("def same(x):\n", "    return x\n", "", "def check(candidate):\n    assert candidate([1]) == [1]\n", "same")


class Verdict(NamedTuple):
    """How it went.

    kind: passed; assertion (of the test); exception (its class in `error`); syntax; timeout; limit (a signal, memory);
        left (the program ended, or spoke out of turn, before its test did)
    """

    kind: str
    error: str
    detail: str
    seconds: float

    @property
    def passed(self) -> bool:
        return self.kind == "passed"


class Levels(NamedTuple):
    """What held the programs back on this machine, and the doors that a probe in the same box found open."""

    namespaces: tuple[str, ...]
    held: tuple[str, ...]
    open: tuple[str, ...]

    def __str__(self) -> str:
        spaces = f"namespaces: {', '.join(self.namespaces)}" if self.namespaces else "no namespaces"
        return "; ".join([spaces, *self.held, f"open: {', '.join(self.open)}" if self.open else "a probe found no door open"])


@dataclass(frozen=True)
class Settings:
    """How programs run.

    seconds: wall clock of a program and its test together (published evaluator: 3.0)
    memory: bytes of address space
    without: layers to leave out, to see how the others hold: user, view, namespaces, landlock, seccomp
    """

    seconds: float = 3.0
    memory: int = 1 << 30
    workers: int = 0  # 0: one per core
    without: tuple[str, ...] = ()


def _of_home() -> Path:
    """Something in the home directory that is not on the way to the interpreter, which programs must see."""
    python = Path(sys.base_prefix)
    try:
        home = Path.home()
        return next((entry for entry in sorted(home.iterdir()) if not python.is_relative_to(entry)), home)
    except (OSError, RuntimeError):  # no home, or none that we may read
        return ROOT


class _Worker:
    """A worker process and the two pipes to it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.scratch = Path(tempfile.gettempdir(), f"tabsmith-judge-{os.getpid()}-{next(_NUMBERS)}")  # made where /tmp cannot be private
        with socket.create_server(("127.0.0.1", 0)) as listener:  # a door that the probe must not get through
            told = {
                **asdict(settings),
                "scratch": str(self.scratch),
                "packages": sysconfig.get_path("purelib"),
                "root": str(ROOT),
                "home": str(_of_home()),
                "judge": os.getpid(),
                "port": listener.getsockname()[1],
            }
            command = [sys.executable, "-I", "-S", "-B", "-c", START.format(root=str(ROOT)), json.dumps(told)]
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env={}, bufsize=0, start_new_session=True)
            try:
                self.levels = Levels(*(tuple(value) for value in self._line(10 * settings.seconds).values()))
                if not self.judge(CANARY).passed:
                    raise EOFError("a program that must pass does not")
            except BaseException:
                self.end()
                raise

    def _line(self, seconds: float) -> dict[str, Any]:
        assert self.process.stdout is not None
        found, until = b"", time.monotonic() + seconds + PATIENCE
        poll = select.poll()
        poll.register(self.process.stdout, select.POLLIN | select.POLLHUP)
        while not found.endswith(b"\n"):
            if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
                raise EOFError("no answer")
            part = os.read(self.process.stdout.fileno(), 65536)
            if not part:
                raise EOFError("the worker is gone")
            found += part
        answer: dict[str, Any] = json.loads(found)
        return answer

    def judge(self, program: Program) -> Verdict:
        """The verdict on one program.

        Raises:
            EOFError, OSError: the worker is gone, or says nothing.
        """
        assert self.process.stdin is not None
        text = program.prompt + program.completion + program.suffix
        frame = json.dumps({"prompt": program.prompt, "text": text, "test": program.test, "entry": program.entry}).encode("ascii")
        data = memoryview(len(frame).to_bytes(4, "big") + frame)
        while data:
            data = data[os.write(self.process.stdin.fileno(), data) :]
        return Verdict(**self._line(self.settings.seconds))

    def end(self) -> None:
        """Let the worker go, with everything in it; one that does not go is killed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(FAREWELL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        shutil.rmtree(self.scratch, ignore_errors=True)


class Pool:
    """Workers that judge programs; a context manager, which ends them all.

    Raises:
        MachineError: no worker starts.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self.count = settings.workers or cores or 1
        self.idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self.alive: list[_Worker] = []
        self.lock = threading.Lock()
        self.closing = False
        self.threads = ThreadPoolExecutor(self.count)

    def __enter__(self) -> Pool:
        try:
            workers = [self._first(), *self.threads.map(lambda _: self._start(), range(self.count - 1))]
        except BaseException:
            self.__exit__()
            raise
        for worker in workers:
            self.idle.put(worker)
        self.levels = workers[0].levels  # the others' are alike
        return self

    def _first(self) -> _Worker:
        """A worker; a layer that looks well and yet keeps a good program from running is left out, and the levels say what is left."""
        asked = self.settings
        for without in FALLBACKS:
            self.settings = replace(asked, without=tuple({*asked.without, *without}))
            with contextlib.suppress(MachineError):
                return self._start()
        return self._start()

    def __exit__(self, *_: object) -> None:
        self.closing = True
        self.threads.shutdown(wait=False, cancel_futures=True)
        with self.lock:
            for worker in self.alive:
                worker.end()
            self.alive.clear()
        self.threads.shutdown()

    def _start(self) -> _Worker:
        try:
            worker = _Worker(self.settings)
        except (EOFError, OSError, ValueError, TypeError) as error:
            raise MachineError(f"no worker of the sandbox starts ({error}): try `{sys.executable} -I -S -c pass`") from None
        with self.lock:
            self.alive.append(worker)
        return worker

    def judge(self, program: Program) -> Verdict:
        """The verdict on one program."""
        worker = self.idle.get()
        try:
            for _ in range(2):
                try:
                    return worker.judge(program)
                except (EOFError, OSError, ValueError, TypeError):
                    if self.closing:
                        raise
                    with self.lock:
                        self.alive = [one for one in self.alive if one is not worker]
                    worker.end()
                    worker = self._start()
            return Verdict("limit", "", "it took its worker down, twice", 0.0)
        finally:
            self.idle.put(worker)

    def run(self, programs: Iterable[Program]) -> Iterator[Verdict]:
        """Verdicts in the order of the programs; a few are read ahead."""
        waiting: deque[Future[Verdict]] = deque()
        for program in programs:
            waiting.append(self.threads.submit(self.judge, program))
            if len(waiting) > 8 * self.count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
