"""llama-server as a child process: started, watched, started again when it dies, and never left behind.

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
from pathlib import Path

import httpx

from core.errors import MachineError
from phase4_serve.binary import environment

RESTARTS, WITHIN = 5, 60.0  # deaths within so many seconds after which we give up
START_SECONDS = 300.0  # until it must answer: a large model from a slow disk
POLL = 0.02  # seconds
STOP_SECONDS = 3.0  # between the polite signal and the other one
SHOWN_LINES = 5  # of its last words


class Supervisor:
    """Keeps one llama-server running; `await run()` returns only by cancellation or an error."""

    def __init__(self, command: list[str], socket: Path) -> None:
        self.command, self.socket = command, socket
        self.ready = asyncio.Event()
        self.deaths = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._words: deque[str] = deque(maxlen=60)

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
                if len(died) == RESTARTS and died[-1] - died[0] < WITHIN:
                    raise MachineError(
                        f"llama-server died {RESTARTS} times within {WITHIN:.0f} seconds ({_how(code)}): check memory, or another build"
                    )
                print(f"llama-server died ({_how(code)}); starting it again", file=sys.stderr, flush=True)
        finally:
            self.ready.clear()
            await self._stop()

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
        )
        self._listener = asyncio.create_task(asyncio.to_thread(self._listen, self.process))
        await self._until_ready(self.process)
        self.ready.set()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """Keep its last lines; nothing else reads them, so nothing of a prompt reaches a log."""
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                self._words.append(line.decode(errors="replace").rstrip())

    async def _until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(verify=False, uds=str(self.socket))) as client:
            while time.monotonic() < deadline:
                if process.poll() is not None:
                    await self._listener
                    raise MachineError(f"llama-server ended at start ({_how(process.returncode)}): {self._last_words()}")
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get("http://llama/health", timeout=2)).status_code == httpx.codes.OK:
                        return
                await asyncio.sleep(POLL)
        raise MachineError(f"llama-server did not answer within {START_SECONDS:.0f} seconds: try a smaller model")

    async def _ended(self) -> int:
        assert self.process is not None
        while (code := self.process.poll()) is None:
            await asyncio.sleep(POLL)
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

    def _last_words(self) -> str:
        """Its last lines, complaints first."""
        complaints = [line for line in self._words if " E " in line or "error" in line.lower() or "fail" in line.lower()]
        return " | ".join((complaints or list(self._words))[-SHOWN_LINES:]) or "it said nothing"


def _how(code: int) -> str:
    if code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"
