"""Reads the workspace in a process of its own, so that no amount of files makes an answer wait for Python's lock.

In:  a `Job` (first line of stdin), then paths that somebody says have changed, a line each; the files, and the system's word on
     which of them change
Out: messages, pickled, on stdout: `File`s ready for the index, paths that are gone, when to commit, counts

Ends with its stdin: whoever started it is gone. Nothing is printed that stands in a file.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pickle
import queue
import stat
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from watchfiles import DefaultFilter, watch

from phase4_serve.index import File, prepare
from phase4_serve.vectors import Embedding, of_model
from phase4_serve.workspace import IGNORE_FILE, MOST_FILES, Candidate, Source, Workspace

NICE = 10  # a bulk of files gives way to llama-server's threads
STEP, DEBOUNCE = 20, 100  # ms without a change after which changes are told, and the longest wait: an editor saves in several writes
MANY = 500  # changes at once (a checkout) after which everything is looked at again: some may have been lost
AGAIN = 30.0  # seconds between looks at everything where the system cannot watch
COMMIT = 200  # files
FIRST = 20  # files until the first commit: typing starts now


class Job(NamedTuple):
    """What to read and how."""

    root: str
    max_bytes: int
    max_lines: int
    model: str = ""  # a GGUF whose token embeddings make vectors; "" for none


class Changed(NamedTuple):
    """Paths that changed."""

    paths: list[str]


class Said(NamedTuple):
    """A client says that a path changed, and waits for an answer with this number."""

    path: str
    number: int


class Gone(NamedTuple):
    """A file that is no longer there, or may no longer be read; a folder with all that is in it."""

    path: str


class Commit(NamedTuple):
    """What was told so far is to be seen; answers those who wait."""

    numbers: tuple[int, ...] = ()


class Complete(NamedTuple):
    """Everything was looked at."""

    paths: frozenset[str]  # that may be read: others are forgotten
    left_out: dict[str, int]
    seconds: float


class Unwatched(NamedTuple):
    """The system does not tell what changes: why not."""

    reason: str


Message = File | Gone | Commit | Complete | Unwatched
Stamp = tuple[int, int, int]
NEVER: Stamp = (0, 0, 0)  # no file's
TICK = 50_000_000  # ns after a change in which another could leave the same time behind


class Reader:
    """Keeps `say` told of what a workspace holds."""

    def __init__(self, workspace: Workspace, max_lines: int, embedding: Embedding | None, say: Any) -> None:
        self.workspace, self.max_lines, self.embedding, self.say = workspace, max_lines, embedding, say
        self.events: queue.SimpleQueue[Changed | Said | None] = queue.SimpleQueue()  # None: the watch begins, or nobody watches
        self._stamps: dict[str, Stamp] = {}  # of what was told
        self._untold = False

    def run(self) -> None:
        """Tell everything, then whatever changes; never ends."""
        bulk: Iterator[bool] | None = self._all()
        while True:
            try:
                event = self.events.get(block=False)
            except queue.Empty:
                if bulk is None:
                    gc.collect()
                    event = self.events.get()
                elif next(bulk, None) is None:
                    bulk = None
                    continue
                else:
                    continue
            if event is None or self._must_look_again(event):
                bulk = self._all()
            if event is not None:
                self._changed(event)

    def _must_look_again(self, event: Changed | Said) -> bool:
        paths = event.paths if isinstance(event, Changed) else [event.path]
        return len(paths) > MANY or any(path.endswith(IGNORE_FILE) for path in paths)

    def _all(self) -> Iterator[bool]:
        """Tell what is new or differs from what was told; True between two files."""
        started, told = time.perf_counter(), 0
        held: set[str] = set()
        for candidate in self.workspace.candidates():
            name = candidate.path.relative_to(self.workspace.root).as_posix()
            stamp = stamp_of(lstat(candidate.path))
            if stamp is not None and self._stamps.get(name) == stamp:
                held.add(name)
                continue
            if self._tell(candidate, name, stamp):
                held.add(name)
                told += 1
                if told == FIRST or told % COMMIT == 0:
                    self._commit()
                    gc.collect()
            yield True
        for name in [name for name in self._stamps if name not in held]:
            if self.workspace.source(self.workspace.root / name) is None:  # else it came after the walk had passed
                self._gone(name)
        self.say(Complete(frozenset(self._stamps), dict(sorted(self.workspace.left_out.items())), time.perf_counter() - started))

    def _changed(self, event: Changed | Said) -> None:
        """A path that changed: a file is read again, a folder walked, what is gone forgotten."""
        paths = event.paths if isinstance(event, Changed) else [event.path]
        for path in map(Path, paths if len(paths) <= MANY else []):
            if path.is_relative_to(self.workspace.root):
                self._one(path)
        self._commit((event.number,) if isinstance(event, Said) else ())

    def _one(self, path: Path) -> None:
        name, found = path.relative_to(self.workspace.root).as_posix(), lstat(path)
        stamp = stamp_of(found)
        if found is not None and stat.S_ISDIR(found.st_mode):
            if name in self._stamps:  # it was a file
                self._gone(name)
            for candidate in self.workspace.under(path):
                self._tell(candidate, candidate.path.relative_to(self.workspace.root).as_posix(), stamp_of(lstat(candidate.path)))
            return
        if stamp is not None and self._stamps.get(name) == stamp:
            return  # told already: the editor and the system both say so
        source = self.workspace.source(path)
        if source is None:
            self._gone(name)
        else:
            self._file(source, stamp)

    def _tell(self, candidate: Candidate, name: str, stamp: Stamp | None) -> bool:
        """Tell a file; whether it may be read."""
        read = self.workspace.read(candidate)
        if isinstance(read, Source):
            return self._file(read, stamp)
        self.workspace.left_out[read] += 1
        self._gone(name)
        return False

    def _file(self, source: Source, stamp: Stamp | None) -> bool:
        if source.path not in self._stamps and len(self._stamps) >= MOST_FILES:
            return False
        try:
            prepared = prepare(source, self.max_lines, self.embedding)
        except Exception:  # noqa: BLE001  one file that trips a parser must not end the reading of all others
            self.workspace.left_out["failed"] += 1
            self._gone(source.path)
            return False
        self.say(prepared)
        self._untold = True
        settled = stamp is not None and time.time_ns() - stamp[0] > TICK
        self._stamps[source.path] = stamp if stamp and settled else NEVER
        return True

    def _gone(self, name: str) -> None:
        known = [name] if name in self._stamps else [path for path in self._stamps if path.startswith(f"{name}/")]
        for path in known:
            del self._stamps[path]
        if known:
            self.say(Gone(name))
            self._untold = True

    def _commit(self, numbers: tuple[int, ...] = ()) -> None:
        if self._untold or numbers:
            self.say(Commit(numbers))
        self._untold = False


def lstat(path: Path) -> os.stat_result | None:
    """What stands at a path, no link being followed; None where nothing does."""
    try:
        return os.lstat(path)
    except (OSError, ValueError):
        return None


def stamp_of(found: os.stat_result | None) -> Stamp | None:
    """What changes when a file does: time, size and number."""
    return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)


def watching(root: Path, events: queue.SimpleQueue[Changed | Said | None], say: Any) -> None:
    """Put what changes among the events; where the system cannot tell, have everything looked at now and then."""
    changes = watch(
        root,
        watch_filter=DefaultFilter(ignore_paths=()),
        debounce=DEBOUNCE,
        step=STEP,
        rust_timeout=1000,
        yield_on_timeout=True,
        raise_interrupt=False,
        ignore_permission_denied=True,
    )
    try:
        for number, batch in enumerate(changes):
            if number == 0:
                events.put(None)  # what changed before the watch began
            if batch:
                events.put(Changed(sorted({path for _, path in batch})))
    except (OSError, RuntimeError) as error:
        say(Unwatched(type(error).__name__))
    while True:
        time.sleep(AGAIN)
        events.put(None)


def listening(events: queue.SimpleQueue[Changed | Said | None], lines: Iterable[bytes]) -> None:
    """Put what is said on stdin among the events; end with it."""
    for line in lines:
        with contextlib.suppress(ValueError, TypeError):
            events.put(Said(*json.loads(line)))
    os._exit(0)


def main(into: BinaryIO, out: BinaryIO) -> None:
    """Read the job, then do it until stdin ends."""
    job = Job(*json.loads(into.readline()))
    gc.freeze()
    gc.disable()  # looking for cycles among the nodes of every syntax tree took a fifth of the time; there are none
    with contextlib.suppress(OSError):
        os.nice(NICE)
    lock = threading.Lock()

    def say(message: Message) -> None:
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        with lock:
            try:
                out.write(data)
                out.flush()
            except BrokenPipeError:
                os._exit(0)

    workspace = Workspace(Path(job.root), job.max_bytes)
    reader = Reader(workspace, job.max_lines, of_model(Path(job.model)) if job.model else None, say)
    threading.Thread(target=listening, args=(reader.events, into), daemon=True).start()
    threading.Thread(target=watching, args=(workspace.root, reader.events, say), daemon=True).start()
    reader.run()


if __name__ == "__main__":
    from phase4_serve import reader as named  # messages are pickled under the module's name, not as __main__

    named.main(sys.stdin.buffer, sys.stdout.buffer)
