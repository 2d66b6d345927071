"""Mask secrets and personal data in one key of any JSONL: how people clean their own logs and data sets.

In:  JSONL, gzip or not, or stdin; each row an object with `text`
Out: the same rows in the same order, `text` masked, `redactions` added: [{kind, start, end, rule}], offsets in characters of the
     masked text; bad lines by number and reason in a file of their own, if asked to go on past them

The result depends on nothing but the row: no path, no file ending, no encoding, no other row, no number of workers.
"""

from __future__ import annotations

import functools
import gzip
import json
import os
import signal
import stat
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from itertools import chain
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from threading import Thread, current_thread, main_thread
from typing import BinaryIO, NamedTuple

from core.errors import CheckFailed, InputError, MachineError, Stopped
from core.progress import track
from core.records import partial
from phase1_data.jsonl import BLANK, BadLine, Line, lines
from phase1_data.scrub_row import SAYS, scrub

STANDARD = "-"  # stdin or stdout
BATCH = 2_000_000  # bytes of rows per message to a worker: half a second of work
BATCH_ROWS = 5_000
IN_FLIGHT = 64_000_000  # bytes of rows with the workers; a longer row goes alone
READ_AS = {"cp1252": "were no UTF-8 and were read as Windows-1252", "damaged": "were damaged UTF-8; U+FFFD stands for what was none"}


class Job(NamedTuple):
    """What a run is asked to do."""

    key: str = "text"
    noted: str = "redactions"  # the key that is added
    skip: bool = False  # leave bad lines out and write their numbers and reasons to `rejects`
    rejects: Path | None = None  # default: the output with .rejects.jsonl after its name
    encoding: str | None = None  # of the whole input; None finds out
    workers: int = 1
    max_row: int = 1_000_000_000  # bytes


class Batch(NamedTuple):
    """What a worker sends back of some rows."""

    data: bytes
    rows: int
    masked: int
    kinds: Counter[str]
    read_as: Counter[str]
    bad: list[tuple[int, str, str]]  # line, reason, details


def scrub_batch(batch: list[Line], key: str, noted: str) -> Batch:
    """Mask some rows; a pure function of them."""
    out: list[bytes] = []
    kinds: Counter[str] = Counter()
    read_as: Counter[str] = Counter()
    masked = 0
    bad: list[tuple[int, str, str]] = []
    for line in batch:
        try:
            row = scrub(line, key, noted)
        except BadLine as error:
            bad.append((line.number, error.reason, error.value))
            continue
        out += [row.data, b"\n"]
        kinds.update(redaction.kind for redaction in row.redactions)
        masked += bool(row.redactions)
        read_as[row.read_as] += 1
    return Batch(b"".join(out), len(batch) - len(bad), masked, kinds, read_as, bad)


def _start_worker() -> None:
    """Leave signals to the parent, and end with it: a worker whose parent was killed would wait for work for ever."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        Thread(target=lambda: (connection.wait([parent.sentinel]), os._exit(1)), daemon=True).start()


def scrub_batches(batches: Iterator[list[Line]], job: Job) -> Iterator[Batch]:
    """Work through the batches in order, with at most IN_FLIGHT bytes of them (or one) in the hands of the workers.

    Raises:
        MachineError: a worker was killed, which is what happens when memory runs out.
    """
    work = functools.partial(scrub_batch, key=job.key, noted=job.noted)
    first = next(batches, [])
    second = next(batches, None) if job.workers > 1 else None
    if second is None:  # not worth a process
        for batch in chain([first], batches):
            yield work(batch)
        return
    with ProcessPoolExecutor(job.workers, mp_context=get_context("spawn"), initializer=_start_worker) as pool:
        waiting: deque[tuple[int, Future[Batch]]] = deque()
        flying = 0
        try:
            for batch in chain([first, second], batches):
                size = sum(line.size for line in batch)
                while waiting and (flying + size > IN_FLIGHT or len(waiting) >= 2 * job.workers):
                    flying -= waiting[0][0]
                    yield waiting.popleft()[1].result()
                waiting.append((size, pool.submit(work, batch)))
                flying += size
            while waiting:
                yield waiting.popleft()[1].result()
        except (BrokenProcessPool, MemoryError):
            raise MachineError("a worker process was killed, most likely for its memory: run again with fewer --workers") from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class Scrubbing:
    """State of one run."""

    def __init__(self, name: str, key: str) -> None:
        self.name, self.key = name, key
        self.rows = self.masked = self.blank = self.bytes = 0
        self.kinds: Counter[str] = Counter()
        self.read_as: Counter[str] = Counter()
        self.bad: Counter[str] = Counter()

    def batches(self, source: Iterator[Line]) -> Iterator[list[Line]]:
        """Rows in messages of about BATCH bytes; blank lines are no rows."""
        batch: list[Line] = []
        size = 0
        for line in source:
            self.bytes += line.size
            if not (line.too_long or line.data.strip(BLANK)):
                self.blank += 1
                continue
            if batch and (len(batch) == BATCH_ROWS or size + len(line.data) > BATCH):
                yield batch
                batch, size = [], 0
            batch.append(line)
            size += len(line.data)
        if batch:
            yield batch

    def take(self, done: Batch, rejects: BinaryIO | None) -> bytes:
        """Count a batch and hand out its rows.

        Raises:
            CheckFailed: a finding is left in a row. InputError: a bad line, and nobody asked to go on past them.
        """
        for number, reason, value in done.bad:
            if rejects is None:
                self.refuse(number, reason, value)
            else:
                self.bad[reason] += 1
                value = "" if reason == "no_text" else value  # names of keys may be content
                rejects.write(json.dumps({"line": number, "reason": reason, "value": value}).encode() + b"\n")
        self.rows += done.rows
        self.masked += done.masked
        self.read_as += done.read_as
        self.kinds += done.kinds
        return done.data

    def refuse(self, number: int, reason: str, value: str) -> None:
        """Raises:
        CheckFailed: reason residual. InputError: any other.
        """
        where, hint = f"{self.name}:{number}", "mend or delete that line, or go on without such lines: --on-error skip"
        if reason == "residual":
            raise CheckFailed(f"{where}: {SAYS[reason]} ({value}): a fault of core/scrub.py: report the rule, or --on-error skip")
        if reason == "no_text":
            hint = f"name the key that holds the text with --text-key; {hint}"
        elif reason == "not_object" and value == "list" and number == 1:
            hint = f"one object per line is needed: jq -c '.[]' {self.name}"
        elif reason == "redactions_taken":
            hint = f"name another with --redactions-key; {hint}"
        named = f"{self.key!r}: " if reason in ("no_text", "text_not_string") else ""
        raise InputError(f"{where}: {named}{SAYS[reason]}{f' ({value})' if value else ''}: {hint}")

    def named_bad(self) -> str:
        """Reasons and how often."""
        return ", ".join(f"{reason} {count:,}" for reason, count in sorted(self.bad.items()))

    def summary(self, out: str, seconds: float) -> str:
        """One line: what came out, what was masked, how fast."""
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(self.kinds.items())) or "nothing"
        parts = [f"{out}: {self.rows:,} rows, {self.masked:,} masked: {kinds}; residual 0"]
        if self.blank:
            parts.append(f"{self.blank:,} blank lines passed over")
        parts += [f"{self.read_as[how]:,} lines {says}" for how, says in READ_AS.items() if self.read_as[how]]
        if self.bad:
            parts.append(f"{sum(self.bad.values()):,} bad lines left out ({self.named_bad()})")
        size = self.bytes / 1e6
        return "; ".join([*parts, f"{size:.1f} MB in {seconds:.1f} s, {size / max(seconds, 1e-9):.1f} MB/s"])


def run(source: str, out: str, job: Job) -> str:
    """Scrub a file; return the summary. `source` and `out` are paths, or "-" for stdin and stdout.

    Raises:
        InputError: input missing or another kind of file, output in its way, a bad line. CheckFailed: a finding is left.
    """
    started = time.perf_counter()
    bad_lines = (job.rejects or (Path(f"{out}.rejects.jsonl") if out != STANDARD else None)) if job.skip else None
    if job.skip and bad_lines is None:
        raise InputError("bad lines cannot be noted beside stdout: name a file for them with --rejects")
    if job.key == job.noted:
        raise InputError(f"--text-key and --redactions-key are both {job.key!r}: name two")
    _check_encoding(job.encoding)
    state = Scrubbing("stdin" if source == STANDARD else source, job.key)
    with ExitStack() as stack:
        stack.enter_context(_term_as_interrupt())
        stream = stack.enter_context(_reading(source))
        _keep_apart(stream, out, bad_lines)
        sink = stack.enter_context(_writing(out))
        rejects = stack.enter_context(_writing(str(bad_lines))) if bad_lines else None
        rows = lines(stream, state.name, job.max_row, job.encoding)
        batches = scrub_batches(state.batches(rows), job)
        for done in track(batches, "scrub-jsonl", unit="rows", amount=lambda done: done.rows + len(done.bad)):
            sink.write(state.take(done, rejects))
        if state.bad and not state.rows:
            raise InputError(f"{state.name}: no line is a row: {state.named_bad()}: check --text-key {job.key}")
    return state.summary(out, time.perf_counter() - started)


@contextmanager
def _term_as_interrupt() -> Iterator[None]:
    """Clean up at SIGTERM as at Ctrl-C."""
    if current_thread() is not main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_encoding(encoding: str | None) -> None:
    if encoding:
        try:
            "".encode(encoding)
        except LookupError:
            raise InputError(f"--encoding {encoding!r} is no encoding: name one such as utf-8, utf-16 or cp1252") from None


@contextmanager
def _reading(source: str) -> Iterator[BinaryIO]:
    if source == STANDARD:
        yield sys.stdin.buffer
        return
    path = Path(source)
    if not path.exists():
        raise InputError(f"{source} is missing: check --input")
    if path.is_dir():
        raise InputError(f"{source} is a folder: name one JSONL file with --input")
    with path.open("rb") as stream:
        yield stream


def _keep_apart(stream: BinaryIO, out: str, noted: Path | None) -> None:
    """Raises:
    InputError: an output, or the file it is filled in, is the input, or no plain file.
    """
    mine = os.fstat(stream.fileno())
    if out == STANDARD and stat.S_ISREG(mine.st_mode) and os.path.samestat(os.fstat(sys.stdout.fileno()), mine):
        raise InputError("stdout goes into the input: name another file")
    outputs = [path.resolve() for path in (None if out == STANDARD else Path(out), noted) if path]
    for output in outputs:
        for path in (output, output.with_name(output.name + ".partial")):
            if path.exists() and os.path.samestat(path.stat(), mine):
                raise InputError(f"{path} is the input: name another --output")
            if path.exists() and not path.is_file():
                raise InputError(f"{path} is no plain file: name another --output, or - for stdout")
    if len(set(outputs)) < len(outputs):
        raise InputError("--output and --rejects are the same file: name two")


@contextmanager
def _writing(out: str) -> Iterator[BinaryIO]:
    """A sink that becomes the file only if all went well; gzip by the file's ending."""
    if out == STANDARD:
        try:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains again when it ends
            raise Stopped("stdout was closed before the last row") from None
        return
    with partial(Path(out).resolve()) as unfinished, unfinished.open("wb") as sink:
        if out.endswith(".gz"):
            with gzip.GzipFile("", "wb", 6, sink, mtime=0) as packed:  # neither name nor time: equal rows, equal bytes
                yield packed  # type: ignore[misc]
        else:
            yield sink
