"""The index of a workspace, kept up to date while files change.

In:  a workspace and an empty index
Out: the index filled in the background; a line when it is ready; counts

Files are read, masked and cut in another process (reader.py); here what it sends goes into the index, file by file, and
no answer waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from core.errors import TabsmithError
from phase4_serve.embedder import Embedder, Failed
from phase4_serve.index import File, Index
from phase4_serve.params import ServeParams
from phase4_serve.reader import Commit, Complete, Gone, Job, Message, Progress, Unwatched
from phase4_serve.retrieve import Found, search
from phase4_serve.vectors import of_model
from phase4_serve.workspace import Workspace, relative

M_ARENA_MAX = -8  # of mallopt(3)
STARTS = 4  # of the reader in a row: one that is killed is started again, and reads everything again
HEALTHY = 60.0  # seconds that a reader ran after which its end is the first in a row
PATIENCE = 2.0  # seconds that `saved` waits
IDLE = 0.2  # seconds between two looks for files that a service for vectors has not seen


def of(root: Path | None, params: ServeParams, model: Path) -> Knowledge | None:
    """What can be known of a folder by these settings; None where nothing is to be retrieved.

    Raises:
        InputError: serve.embedder is no URL.
    """
    if root is None or not params.max_chunks:
        return None
    few_heaps()
    service = Embedder(params.embedder) if params.embedder else None
    index = Index(params.chunk_lines, params.retrieval, service=service)
    return Knowledge(Workspace(root, params.max_file_bytes), index, model if params.retrieval == "hybrid" else None)


def few_heaps() -> None:
    """Keep glibc from giving every thread a heap of its own: each commit of the index runs in new threads.

    After 600 saves of a workspace of 8,462 pieces 83 MB more were resident than before, with two heaps 34.
    """
    with contextlib.suppress(OSError, AttributeError):  # another libc
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)


class Knowledge:
    """What the server knows of the workspace.

    Args:
        model: a GGUF by whose token embeddings pieces are compared; None: by words and definitions only.
    """

    def __init__(self, workspace: Workspace, index: Index, model: Path | None = None) -> None:
        self.workspace, self.index, self.model = workspace, index, model
        self.complete = asyncio.Event()
        self.left_out: dict[str, int] = {}
        self.watched = True
        self.looked: Progress | None = None  # how far the look at everything is; None: nothing is being looked at
        self._failed = self._announced = False
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[None]] = {}
        self._writing = threading.Lock()
        self._ended = False

    def state(self) -> dict[str, Any]:
        """Counts for `/health`."""
        service = self.index.service
        return {
            "complete": self.complete.is_set(),
            "watched": self.watched,
            "files": self.index.files,
            "pieces": len(self.index),
            "left_out": self.left_out,
            "progress": {"done": far.done, "of": far.of, "seconds_left": self.seconds_left()} if (far := self.looked) else None,
            "embedder": None if service is None else {"healthy": service.healthy, "files_unseen": self.index.unseen},
        }

    def seconds_left(self) -> float | None:
        """Until everything is looked at, at the rate so far; None while that cannot be said."""
        if self.looked is None or self.looked.of is None or not self.looked.done:
            return None
        return round(self.looked.seconds / self.looked.done * (self.looked.of - self.looked.done), 1)

    def search(self, query: str, limit: int, path: str = "") -> list[Found]:
        """Pieces that answer a question in words or names, best first; `path`: only in this file or folder."""
        return search(self.index, query, limit, relative(path, self.workspace.root))

    async def saved(self, path: str) -> bool:
        """A client says that a file has changed; True once it is in the index as it is now, False if that takes too long."""
        name = relative(path, self.workspace.root)
        process, number, told = self._process, next(self._numbers), Future[None]()
        if process is None or process.stdin is None or not name:
            return False
        self._waiting[number] = told
        line = json.dumps([str(self.workspace.root / name), number]).encode() + b"\n"
        try:
            await asyncio.to_thread(self._write, process, line)
            await asyncio.wait_for(asyncio.wrap_future(told), PATIENCE)
        except (OSError, ValueError, TimeoutError):
            return False
        finally:
            self._waiting.pop(number, None)
        return True

    async def run(self) -> None:
        """Index everything, then whatever changes; until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            if self.model is not None:
                await asyncio.to_thread(self._with_vectors, self.model)
            if self.index.service is not None:
                threading.Thread(target=self._embed, daemon=True, name="embedder").start()
            start = 0
            while start < STARTS:
                if start:
                    print("the process that reads the workspace ended: it is started again", file=sys.stderr, flush=True)
                    await asyncio.sleep(start)
                begun = time.monotonic()
                await asyncio.to_thread(self._follow, loop)
                start = 1 if time.monotonic() - begun > HEALTHY else start + 1
            print("the workspace is no longer read: start again to see changed files", file=sys.stderr, flush=True)
            self.watched = False
        finally:
            self._ended = True
            if self.index.service is not None:
                self.index.service.close()
            if self._process is not None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()

    def _follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Do as the reader says until it ends."""
        job = Job(str(self.workspace.root), self.workspace.max_bytes, self.index.max_lines, str(self.model or ""))
        command = [sys.executable, "-m", "phase4_serve.reader"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            process_group=0,  # Ctrl-C in the terminal is not for it: it ends with its stdin
        ) as process:
            if self._ended:
                process.kill()
                return
            self._process = process
            assert process.stdout is not None
            try:
                self._write(process, json.dumps(job).encode() + b"\n")
                while True:
                    self._do(pickle.load(process.stdout), loop)
            except (OSError, EOFError, pickle.UnpicklingError):
                pass  # it ended, perhaps within a message
            except Exception as error:  # noqa: BLE001  this thread is the only one that would ever say so
                print(f"the index cannot be kept up to date ({type(error).__name__})", file=sys.stderr, flush=True)
            process.kill()

    def _with_vectors(self, model: Path) -> None:
        """Vectors by the model's tokens; without them where it has none that can be read."""
        try:
            self.index.embed_by(of_model(model))
        except TabsmithError as error:
            self.model = None
            print(f"no likeness between pieces: {error}", file=sys.stderr, flush=True)

    def _embed(self) -> None:
        """Have the service for vectors see one file after another; where it fails, try again later."""
        service, said = self.index.service, False
        while service is not None and not self._ended:
            try:
                waits = 0.0 if self.index.embed_next() else IDLE
            except Failed as error:
                waits = max(IDLE, service.rests)
                if not said:
                    print(f"the embedder at {service.host} fails ({error}): going on without it", file=sys.stderr, flush=True)
                said = True
            time.sleep(min(waits, IDLE) if self._ended else waits)

    def _write(self, process: subprocess.Popen[bytes], line: bytes) -> None:
        assert process.stdin is not None
        with self._writing:
            process.stdin.write(line)
            process.stdin.flush()

    def _do(self, message: Message, loop: asyncio.AbstractEventLoop) -> None:
        match message:
            case File(path):
                try:
                    self.index.add(message)
                except Exception as error:  # noqa: BLE001  one file that trips the index must not end the reading of all others
                    if not self._failed:
                        print(f"a file cannot be indexed ({type(error).__name__}): those are left out", file=sys.stderr, flush=True)
                    self._failed = True
                    self.index.remove(path)
            case Gone(path):
                self.index.remove(path)
            case Commit(numbers):
                self.index.commit()
                for number in numbers:
                    if (told := self._waiting.get(number)) is not None and not told.done():
                        told.set_result(None)
            case Progress():
                self.looked = message
            case Complete(paths, left_out, seconds):
                self.looked = None
                for path in self.index.paths() - paths:  # what a reader before this one had told
                    self.index.remove(path)
                self.index.commit()
                self.left_out = left_out
                if not self._announced:
                    self._announced = True
                    left = ", ".join(f"{reason} {count}" for reason, count in left_out.items())
                    files, pieces = self.index.files, len(self.index)
                    print(f"indexed {files:,} files, {pieces:,} pieces in {seconds:.1f} s; left out: {left or 'none'}", flush=True)
                    with contextlib.suppress(RuntimeError):  # the loop has ended
                        loop.call_soon_threadsafe(self.complete.set)
            case Unwatched(reason):
                self.watched = False
                print(f"the workspace is not watched ({reason}): it is looked through twice a minute", file=sys.stderr, flush=True)
