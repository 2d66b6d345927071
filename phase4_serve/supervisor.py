"""llama-server as a child process: started, watched, started again when it dies or hangs, and never left behind.

In:  its command; a Unix socket path that the command listens on
Out: `ready` set while it answers; MachineError when it cannot be kept running
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

from core.errors import MachineError
from phase4_serve.backend import Backend, BackendDown, BackendRefused
from phase4_serve.binary import environment

RESTARTS, WITHIN = 5, 60.0  # deaths within so many seconds after which we give up
START_SECONDS = 300.0  # until it must answer: a large model from a slow disk
POLL = 0.02  # seconds
STOP_SECONDS = 3.0  # between the polite signal and the other one
SHOWN_LINES = 5  # of its last words
COMPLAINTS = (" E ", "error", "fail", "abort", "assert", "terminate")


class Supervisor:
    """Keeps one llama-server running; `await run()` returns only by cancellation or an error.

    Args:
        prepare: awaited each time it answers, before it counts as ready.
    """

    def __init__(self, command: list[str], socket: Path, prepare: Callable[[], Awaitable[object]] | None = None) -> None:
        self.command, self.socket, self.prepare = command, socket, prepare
        self.ready = asyncio.Event()
        self.deaths = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._words: deque[str] = deque(maxlen=60)
        self._asked = Backend(socket)

    async def run(self) -> None:
        """Start it, and start it again when it dies.

        Raises:
            MachineError: it died before it was ready, or too often.
        """
        died: deque[float] = deque(maxlen=RESTARTS)
        try:
            while True:
                code = await self._live(first=self.process is None)
                self.ready.clear()
                self.deaths += 1
                died.append(time.monotonic())
                said = self._last_words(only_complaints=True)
                if len(died) == RESTARTS and died[-1] - died[0] < WITHIN:
                    raise MachineError(
                        f"llama-server died {RESTARTS} times within {WITHIN:.0f} seconds ({_how(code)}{said}): "
                        "check memory, or another build"
                    )
                print(f"llama-server died ({_how(code)}{said}); starting it again", file=sys.stderr, flush=True)
        finally:
            self.ready.clear()
            await self._stop()

    def restart(self) -> None:
        """End it at once: it hangs. `run` starts another."""
        self.ready.clear()
        if self.process is not None and self.process.poll() is None:
            self._words.append("E it did not answer")
            self.process.kill()

    async def _live(self, first: bool) -> int:
        """From start to death; only a death at the first start is an error of its own."""
        try:
            await self._start()
        except MachineError:
            if first or self.process is None or self.process.returncode is None:
                raise
            return self.process.returncode
        return await self._ended()

    async def _start(self) -> None:
        self.socket.unlink(missing_ok=True)
        launcher = [sys.executable, "-I", "-S", str(Path(__file__).with_name("launch.py")), str(os.getpid())]
        self._words.clear()
        # Popen from the main thread: the kernel's "end with your parent" means the thread that forked
        self.process = subprocess.Popen(
            [*launcher, *self.command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment(),
            start_new_session=True,  # Ctrl-C reaches us, and we end it in order
            umask=0o077,  # its socket, and what it saves of a slot, are this user's alone
        )
        self._listener = asyncio.create_task(asyncio.to_thread(self._listen, self.process))
        await self._until_ready(self.process)
        if self.prepare is not None:
            await self.prepare()
        self.ready.set()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """Keep its last lines; at its verbosity they are about the model and the machine, never about a prompt."""
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                self._words.append(line.decode(errors="replace").rstrip())

    async def _until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                await self._listener
                said = self._last_words() or "it said nothing"
                next_ = "try a smaller model, or name another build in LLAMA_SERVER"
                raise MachineError(f"llama-server ended at start ({_how(process.returncode)}): {said}: {next_}")
            with contextlib.suppress(BackendDown, BackendRefused):
                await self._asked.ask("/health", None, 2)
                return
            await asyncio.sleep(POLL)
        raise MachineError(f"llama-server did not answer within {START_SECONDS:.0f} seconds: try a smaller model")

    async def _ended(self) -> int:
        assert self.process is not None
        while (code := self.process.poll()) is None:
            await _until_gone(self.process.pid)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._listener), 1)  # what it said last is still on its way
        return code

    async def _stop(self) -> None:
        process = self.process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + STOP_SECONDS
            while process.poll() is None and time.monotonic() < deadline:
                await asyncio.sleep(POLL)
        if process.poll() is None:
            process.kill()
        process.wait()
        self.socket.unlink(missing_ok=True)

    def _last_words(self, only_complaints: bool = False) -> str:
        """Its last lines, complaints first."""
        complaints = [line for line in self._words if any(word in line.lower() or word in line for word in COMPLAINTS)]
        shown = " | ".join((complaints if only_complaints else complaints or list(self._words))[-SHOWN_LINES:])
        return f": {shown}" if only_complaints and shown else shown


async def _until_gone(pid: int) -> None:
    """Wait for a child's end: where the kernel tells it we sleep, and so may the machine; elsewhere it is a moment's wait."""
    try:
        handle = os.pidfd_open(pid)
    except (AttributeError, OSError):
        await asyncio.sleep(POLL)
        return
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(handle, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


def _how(code: int) -> str:
    if code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"
