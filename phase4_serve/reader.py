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
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from watchfiles import Change, watch

from core.syntax import lang_of
from phase4_serve.index import File, prepare
from phase4_serve.vectors import Embedding, of_model
from phase4_serve.workspace import IGNORE_FILE, MOST_FILES, SKIPPED_FOLDERS, Candidate, Source, Workspace

NICE = 10  # a bulk of files gives way to llama-server's threads
STEP, DEBOUNCE = 20, 100  # ms without a change after which changes are told, and the longest wait: an editor saves in several writes
MANY = 500  # changes at once (a checkout) after which everything is looked at again: some may have been lost
AGAIN = 30.0  # seconds between looks at everything where the system cannot watch
COMMIT = 200  # files
FIRST = 20  # files until the first commit: typing starts now
TOLD = 0.25  # seconds between two messages about how far a look at everything is
FOLDERS = 64  # that wait to be looked through; with more of them everything is
EXCLUDE = ".git/info/exclude"


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


class Progress(NamedTuple):
    """How far a look at everything is."""

    done: int  # files
    of: int | None  # None: they are still being counted
    seconds: float  # since it began


class Complete(NamedTuple):
    """Everything was looked at."""

    paths: frozenset[str]  # that may be read: others are forgotten
    left_out: dict[str, int]
    seconds: float


class Unwatched(NamedTuple):
    """The system does not tell what changes: why not."""

    reason: str


Message = File | Gone | Commit | Progress | Complete | Unwatched
Event = Changed | Said | None  # None: something may have changed anywhere
Stamp = tuple[int, ...]
NEVER: Stamp = (0, 0, 0)  # begins the stamp of a file that may change within its time's precision: what follows tells texts apart
TICK = 50_000_000  # ns after a change in which another could leave the same time behind


class Reader:
    """Keeps `say` told of what a workspace holds.

    A look at everything and one through a folder are done in small steps, and what changes meanwhile goes first.
    """

    def __init__(self, workspace: Workspace, max_lines: int, embedding: Embedding | None, say: Any) -> None:
        self.workspace, self.max_lines, self.embedding, self.say = workspace, max_lines, embedding, say
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._stamps: dict[str, Stamp] = {}  # of what was told
        self._below: Counter[str] = Counter()  # how many of them a folder holds
        self._pending: dict[str, None] = {}  # paths that changed and were not read yet
        self._folders: deque[tuple[Path, tuple[int, ...]]] = deque()  # to be looked through, and who waits for it
        self._everything = True  # is to be looked at
        self._work: Iterator[bool] | None = None  # a look that is going on
        self._untold = False

    def run(self) -> None:
        """Tell everything, then whatever changes; never ends."""
        while True:
            if not self._step():
                gc.collect()
                self._heed(self.events.get())
            with contextlib.suppress(queue.Empty):
                while True:
                    self._heed(self.events.get(block=False))

    def _heed(self, event: Event) -> None:
        """What a client says is read at once, what the system says soon."""
        paths = [] if event is None else event.paths if isinstance(event, Changed) else [event.path]
        if event is None or any(path.endswith((IGNORE_FILE, EXCLUDE, "/.git")) for path in paths):
            self._everything = True  # the look that is going on may have passed there already: another follows it
        if isinstance(event, Said):
            self._commit(self._one(Path(event.path), (event.number,)))
        else:
            self._pending.update(dict.fromkeys(paths))
        if len(self._pending) > MANY:
            self._everything = True
            self._pending.clear()

    def _step(self) -> bool:
        """Do a little of what is to be done; False where nothing is."""
        if self._pending:
            path = next(iter(self._pending))
            del self._pending[path]
            self._one(Path(path), ())
            if len(self._pending) % COMMIT == 0:
                self._commit()
            return True
        self._work = self._work or self._next_work()
        if self._work is None:
            return False
        if next(self._work, None) is None:
            self._work = None
        return True

    def _next_work(self) -> Iterator[bool] | None:
        if self._folders:
            return self._folder(*self._folders.popleft())
        if self._everything:
            self._everything = False
            return self._all()
        return None

    def _all(self) -> Iterator[bool]:
        """Tell what is new or differs from what was told; True between two steps."""
        started, told = time.perf_counter(), 0
        held: set[str] = set()
        found: deque[Candidate] = deque()
        said = started

        def progress(done: int, of: int | None) -> None:
            nonlocal said
            if (now := time.perf_counter()) - said > TOLD:
                said = now
                self.say(Progress(done, of, now - started))

        def one(candidate: Candidate) -> bool:
            """Whether it was read."""
            nonlocal told
            name = candidate.path.relative_to(self.workspace.root).as_posix()
            stamp = stamp_of(lstat(candidate.path))
            if stamp is not None and self._stamps.get(name) == stamp:
                held.add(name)
                return False
            if self._tell(candidate, name, stamp):
                held.add(name)
                told += 1
                if told == FIRST or told % COMMIT == 0:
                    self._commit()
                    gc.collect()
            return True

        looked = 0
        for candidate in self.workspace.look():  # all are counted before most are read: who waits wants to know how long
            if candidate is None:
                progress(looked + len(found), None)
                yield True
            elif told < FIRST:
                looked += 1
                if one(candidate):
                    yield True
            else:
                found.append(candidate)
        of = looked + len(found)
        while found:
            looked += 1
            progress(looked, of)
            if one(found.popleft()) or looked % FIRST == 0:
                yield True
        for name in [name for name in self._stamps if name not in held]:
            if name in self._stamps and self.workspace.source(self.workspace.root / name) is None:  # else it came after the walk had passed
                self._gone(name)
            yield True
        self._commit()
        self.say(Complete(frozenset(self._stamps), dict(sorted(self.workspace.left_out.items())), time.perf_counter() - started))

    def _folder(self, path: Path, numbers: tuple[int, ...]) -> Iterator[bool]:
        """Tell what of a folder is new or differs."""
        for candidate in self.workspace.look(path):
            if candidate is None:
                yield True
                continue
            name, stamp = candidate.path.relative_to(self.workspace.root).as_posix(), stamp_of(lstat(candidate.path))
            if stamp is None or self._stamps.get(name) != stamp:
                self._tell(candidate, name, stamp)
                yield True
        self._commit(numbers)

    def _one(self, path: Path, numbers: tuple[int, ...]) -> tuple[int, ...]:
        """A path that changed: a file is read again, a folder looked through later, what is gone forgotten.

        Returns:
            Who can be answered now.
        """
        if path == self.workspace.root:
            self._everything = True
        if path == self.workspace.root or not path.is_relative_to(self.workspace.root):
            return numbers
        name, found = path.relative_to(self.workspace.root).as_posix(), lstat(path)
        stamp = stamp_of(found)
        if found is not None and stat.S_ISDIR(found.st_mode):
            if name in self._stamps:  # it was a file
                self._gone(name)
            if len(self._folders) == FOLDERS:
                self._everything = True
                return numbers
            self._folders.append((path, numbers))
            return ()
        if stamp is not None and self._stamps.get(name) == stamp:
            return numbers  # told already: the editor and the system both say so
        source = self.workspace.source(path)
        if source is None:
            self._gone(name)
        else:
            self._file(source, stamp)
        return numbers

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
        unsettled = (*NEVER, hash(source.text))
        if self._stamps.get(source.path) != unsettled:  # else the editor and the system speak of the same change
            try:
                prepared = prepare(source, self.max_lines, self.embedding)
            except Exception:  # noqa: BLE001  one file that trips a parser must not end the reading of all others
                self.workspace.left_out["failed"] += 1
                self._gone(source.path)
                return False
            self.say(prepared)
            self._untold = True
        if source.path not in self._stamps:
            self._below.update(folders_of(source.path))
        settled = stamp is not None and time.time_ns() - max(stamp[:2]) > TICK
        self._stamps[source.path] = stamp if stamp and settled else unsettled
        return True

    def _gone(self, name: str) -> None:
        known = [name] if name in self._stamps else []
        if self._below[name]:
            known += [path for path in self._stamps if path.startswith(f"{name}/")]
        for path in known:
            del self._stamps[path]
            for folder in folders_of(path):
                self._below[folder] -= 1
                if not self._below[folder]:
                    del self._below[folder]
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
    """What changes when a file does: times (the second no program can set), size and number."""
    return None if found is None else (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)


def folders_of(name: str) -> Iterator[str]:
    """The folders that a file lies in."""
    while (at := name.rfind("/")) != -1:
        name = name[:at]
        yield name


def worth(root: Path) -> Callable[[Change, str], bool]:
    """Whether a change may matter, by its path: a build writes thousands of files where nothing is ever read."""
    begin = len(f"{root}".rstrip("/")) + 1

    def matters(_: Change, path: str) -> bool:
        *folders, name = path[begin:].split("/")
        if any(folder.startswith(".") or folder in SKIPPED_FOLDERS for folder in folders):
            return path.endswith(f"/{EXCLUDE}")
        return not name.startswith(".") or name in (IGNORE_FILE, ".git") or lang_of(name) is not None

    return matters


def watching(root: Path, events: queue.SimpleQueue[Event], say: Callable[[Message], None]) -> None:
    """Put what changes among the events; where the system cannot tell, have everything looked at now and then."""
    try:
        while True:
            _watch(root, events)
            while not root.is_dir():  # it was deleted or moved away: another may come in its place
                time.sleep(1)
    except (OSError, RuntimeError) as error:
        say(Unwatched(type(error).__name__))
    while True:
        time.sleep(AGAIN)
        events.put(None)


def _watch(root: Path, events: queue.SimpleQueue[Event]) -> None:
    """Put changes among the events until another folder stands in the root's place, or none."""
    watched = number_of(root)
    changes = watch(
        root,
        watch_filter=worth(root),
        debounce=DEBOUNCE,
        step=STEP,
        rust_timeout=1000,
        yield_on_timeout=True,
        raise_interrupt=False,
        ignore_permission_denied=True,
    )
    for number, batch in enumerate(changes):
        if number == 0:
            events.put(None)  # what changed before the watch began
        if batch:
            events.put(Changed(sorted({path for _, path in batch})))
        if number_of(root) != watched or (Change.deleted, str(root)) in batch:
            events.put(None)
            return


def number_of(root: Path) -> tuple[int, int] | None:
    """What tells a folder from another of its name."""
    found = lstat(root)
    return None if found is None else (found.st_dev, found.st_ino)


def listening(events: queue.SimpleQueue[Event], lines: Iterable[bytes]) -> None:
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

    messages = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no message
    named.main(sys.stdin.buffer, messages)
