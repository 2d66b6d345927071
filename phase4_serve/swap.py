"""The llama-server that answers now, and another one in its place without a request that fails.

In:  a checked model; a new file renamed to the model's or the adapter's path, or SIGHUP
Out: `Serving`: `ready`, `deaths`; the engine asks the new llama-server, then the old one ends

A new file is looked into, loaded by a second llama-server on a socket of its own, and asked from the moment it is ready;
the old llama-server finishes what it runs. Meanwhile both are in memory: the weights of the old file and the new (shared
pages of the page cache), and two sets of slots. A file that is wrong changes nothing.

On Linux llama-server gets the file through our open descriptor: whatever stands at its path later, a llama-server that
is started again after a crash loads what was checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from core.errors import MachineError, TabsmithError, one_line
from phase4_serve import binary, model_file
from phase4_serve.backend import Backend
from phase4_serve.engine import Engine
from phase4_serve.model_file import Model
from phase4_serve.params import ServeParams
from phase4_serve.supervisor import Supervisor

POLL = 0.5  # seconds between looks at the files; a new one is taken when it has not changed between two
DRAIN = 30.0  # seconds that the old llama-server may take to finish what it runs
SPLIT = re.compile(r"-\d{5}-of-\d{5}\.gguf$")  # the other parts are found by name, so the path has to be the real one
Stamp = tuple[tuple[int, int, int], ...]


class Instance(NamedTuple):
    """One llama-server with its model."""

    model: Model
    path: Path  # by which the checked content is read, whatever stands at the model's own path by now
    supervisor: Supervisor
    backend: Backend
    files: tuple[int, ...]  # descriptors that keep its files


class Serving:
    """The llama-server that is asked; `await run()` returns only by cancellation or an error."""

    def __init__(
        self, executable: Path, folder: Path, params: ServeParams, model: Model, address: Path | None = None, saves: Path | None = None
    ) -> None:
        self.executable, self.folder, self.params, self.saves = executable, folder, params, saves
        self._number, self._died = 0, 0
        self.now = self._instance(model, address)
        self._stamp = stamp(model)
        self._swapped, self._asked = asyncio.Event(), asyncio.Event()
        self._tasks: dict[Supervisor, asyncio.Task[None]] = {}
        self.on_swap: Callable[[str], None] = lambda outcome: None

    @property
    def ready(self) -> asyncio.Event:
        """Set while the llama-server that is asked answers."""
        return self.now.supervisor.ready

    @property
    def deaths(self) -> int:
        """How often one had to be started again."""
        return self._died + self.now.supervisor.deaths

    def _instance(self, model: Model, address: Path | None = None) -> Instance:
        self._number += 1
        socket = address or self.folder / f"llama{self._number}.sock"
        (path, *opened), adapter = pin(model.path), pin(model.adapter) if model.adapter else None
        command = binary.command(self.executable, path, socket, self.params, self.saves)
        if adapter is not None:
            command += ["--lora", str(adapter[0])]
        supervisor, backend = Supervisor(command, socket), Backend(socket, path)
        backend.on_silence = supervisor.restart
        return Instance(model, path, supervisor, backend, (*opened, *(adapter[1:] if adapter else ())))

    async def run(self) -> None:
        """Keep the llama-server that is asked running.

        Raises:
            MachineError: it cannot be kept running.
        """
        try:
            while True:
                supervising = self._start(self.now)
                swapped = asyncio.create_task(self._swapped.wait())
                await asyncio.wait({supervising, swapped}, return_when=asyncio.FIRST_COMPLETED)
                swapped.cancel()
                self._swapped.clear()
                if supervising.done() and supervising is self._tasks.get(self.now.supervisor):
                    supervising.result()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _start(self, instance: Instance) -> asyncio.Task[None]:
        if instance.supervisor not in self._tasks:
            self._tasks[instance.supervisor] = asyncio.create_task(instance.supervisor.run())
        return self._tasks[instance.supervisor]

    def reload(self) -> None:
        """Look at the files now, whether they seem to have changed or not."""
        self._asked.set()

    async def watch(self, engine: Engine) -> None:
        """Take new files as they come; never ends, whatever the files are."""
        seen = self._stamp
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), POLL)
            asked, found = self._asked.is_set(), stamp(self.now.model)
            self._asked.clear()
            settled, seen = found == seen, found
            if not asked and (found == self._stamp or not settled or not all(found)):
                continue
            self._stamp = found
            try:
                await self.replace(engine)
            except (TabsmithError, OSError) as error:
                self.on_swap("refused")
                print(f"{one_line(error)} (still serving {self.now.model.name} {self.now.model.fingerprint})", file=sys.stderr, flush=True)

    async def replace(self, engine: Engine) -> None:
        """Exchange the model for what its path holds now.

        Raises:
            TabsmithError: the new file cannot be served; the old one goes on.
        """
        old = self.now
        model = await asyncio.to_thread(model_file.check, old.model.path, old.model.adapter)
        if model.fingerprint == old.model.fingerprint:
            print(f"{model.path}: the same model ({model.fingerprint})", flush=True)
            return
        if model.context < self.params.ctx:
            raise MachineError(
                f"{model.path} was trained on {model.context:,} tokens, fewer than a slot holds: start `up` again to serve it"
            )
        new = self._instance(model)
        try:
            await self._until_ready(new)
            await asyncio.to_thread(lambda: new.backend.vocabulary)
        except BaseException:
            await self._end(new)
            raise
        engine.swap(model, new.backend)
        self._died += old.supervisor.deaths
        self.now = new
        self._swapped.set()
        deadline = asyncio.get_running_loop().time() + DRAIN
        while engine.scheduler.uses(old.backend) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)
        await self._end(old)
        self.on_swap("done")
        print(f"now serving {model.name} {model.fingerprint} instead of {old.model.fingerprint}", flush=True)

    async def _until_ready(self, new: Instance) -> None:
        supervising = self._start(new)
        ready = asyncio.create_task(new.supervisor.ready.wait())
        await asyncio.wait({supervising, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if supervising.done():
            supervising.result()

    async def _end(self, old: Instance) -> None:
        task = self._tasks.pop(old.supervisor, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await old.backend.close()
        for handle in old.files:
            os.close(handle)


def stamp(model: Model) -> Stamp:
    """What tells that a file is another one; an empty part for a file that is not there."""

    def of(path: Path) -> tuple[int, ...]:
        try:
            found = path.stat()
        except OSError:
            return ()
        return found.st_ino, found.st_size, found.st_mtime_ns

    return tuple(of(path) for path in (model.path, model.adapter) if path is not None)  # type: ignore[misc]


def pin(path: Path) -> tuple[Path, int] | tuple[Path]:
    """A name for a file's content that stays when another file takes its path, with the descriptor that it lives by."""
    if sys.platform != "linux" or SPLIT.search(path.name):
        return (path.resolve(),)
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return Path(f"/proc/{os.getpid()}/fd/{handle}"), handle
