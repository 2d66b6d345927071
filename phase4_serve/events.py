"""What became of completions: shown, accepted, dismissed, still there later. Stays on this machine.

In:  events that editors send; the answers that the server gave, in memory
Out: a private JSONL file of bounded size: kinds, lengths and times; texts only where somebody opted in, without secrets

An accepted text that is still there 30 seconds and 5 minutes later was a good completion. When a file is saved, the server
looks for itself, and at what was written where a completion had been dismissed: that pair is what the next training
learns from (`python -m phase4_serve pairs`).
"""

from __future__ import annotations

import os
import stat
import sys
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from core import scrub
from core.errors import InputError
from core.syntax import lang_of
from phase4_serve.compose import Ask
from phase4_serve.metrics import Metrics
from phase4_serve.security import inside
from phase4_serve.wire import EventRequest
from phase4_serve.workspace import Workspace, relative

REMEMBERED = 256  # answers
PREFIX, SUFFIX = 4000, 2000  # characters around an answer that are kept
LARGEST, OLDER = 8_000_000, 3  # bytes of a file, and how many older ones are kept
AFTER = (30, 300)  # seconds after which an accepted text is looked for
TAIL = 240  # characters before a hole by which it is found again in a file
WAITING, WAITING_TEXT = 10_000, 32_000_000  # events that may wait to be written, and characters of saved files with them
Row = dict[str, Any]


@dataclass
class Shown:
    """An answer that was given, until it is forgotten."""

    ask: Ask
    text: str
    how: str = ""  # accepted: full | line | word; or "dismissed"
    at: float = 0.0  # when, monotonic
    checked: set[int] = field(default_factory=set)

    @property
    def accepted(self) -> str:
        """As much of the text as was taken."""
        if self.how == "line":
            return self.text.split("\n", 1)[0]
        return self.text if self.how == "full" else ""


class Events:
    """Keeps what editors report.

    Args:
        file: None: nothing is written, only counted.
        keep_text: write texts too.

    Raises:
        InputError: the file is no file of this user's.
    """

    def __init__(self, file: Path | None, keep_text: bool, metrics: Metrics, workspace: Workspace | None) -> None:
        self.file, self.keep_text, self.metrics, self.workspace = file, keep_text, metrics, workspace
        self._shown: OrderedDict[str, Shown] = OrderedDict()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="events")
        self._waiting = self._waiting_text = 0
        self._lock = threading.Lock()
        self._complained = False
        if file is not None:
            open_private(file).close()

    def remember(self, name: str, ask: Ask, text: str) -> None:
        """An answer was given; it may be named in an event soon."""
        if not text.strip():
            return
        self._shown[name] = Shown(ask._replace(prefix=ask.prefix[-PREFIX:], suffix=(ask.suffix or "")[:SUFFIX], extra=()), text)
        while len(self._shown) > REMEMBERED:
            self._shown.popitem(last=False)

    def client_of(self, name: str) -> str:
        """Who got a remembered answer; "" where nobody said."""
        shown = self._shown.get(name)
        return "" if shown is None else shown.ask.client

    def took(self, event: EventRequest) -> bool:
        """Count and keep an event; whether the answer it names is remembered."""
        self.metrics.events.labels(event.event).inc()
        if event.event == "kept" and event.kept is not None:
            self.metrics.events.labels(f"{'kept' if event.kept else 'changed'}_{event.after or AFTER[0]}").inc()
        shown = self._shown.get(event.id or "")
        if shown is not None and event.event in ("accepted", "dismissed") and not shown.how:
            shown.how = (event.how or "full") if event.event == "accepted" else "dismissed"
            shown.at = time.monotonic()
        given = event.model_dump(include={"id", "how", "after", "kept", "elapsed_ms"}, exclude_none=True)
        self._keep({"event": event.event, **given}, shown if event.event in ("accepted", "dismissed") else None)
        if event.event == "saved":
            self._submit(self._compare, event.path or "", event.text, list(self._shown.items()), size=len(event.text or ""))
        return shown is not None

    def _compare(self, path: str, text: str | None, known: list[tuple[str, Shown]]) -> None:
        """Look in a saved file for what was accepted, and for what was written instead of what was dismissed."""
        root = self.workspace.root if self.workspace else None
        name = relative(path, root)
        content = text if text is not None else self._read(path)
        if not name or content is None:
            return
        content, now = content.replace("\r\n", "\n"), time.monotonic()
        for key, shown in known:
            if not shown.how or relative(shown.ask.path, root) != name:
                continue
            age = now - shown.at
            if shown.accepted:
                due = [after for after in AFTER if age >= after and after not in shown.checked]
                shown.checked.update(due)
                for after in due:
                    self._found(key, shown, after, content)
            elif shown.how == "dismissed" and not shown.checked and (written := written_at(content, shown)):
                shown.checked.add(0)
                self._write({"event": "written", "id": key}, shown, written)

    def _found(self, key: str, shown: Shown, after: int, content: str) -> None:
        kept = shown.accepted.strip() in content
        self.metrics.events.labels(f"{'kept' if kept else 'changed'}_{after}").inc()
        written = None if kept or after != AFTER[-1] else written_at(content, shown)
        self._write({"event": "kept", "id": key, "after": after, "kept": kept}, shown if written else None, written)

    def _read(self, path: str) -> str | None:
        """A file of the workspace, judged and masked as for the index."""
        if self.workspace is None or (name := inside(path, self.workspace.root)) is None:
            return None
        source = self.workspace.source(self.workspace.root / name)
        return None if source is None else source.text

    def _keep(self, row: Row, shown: Shown | None) -> None:
        self._submit(self._write, row, shown, None)

    def _submit(self, what: Any, *given: Any, size: int = 0) -> None:
        """Done by one thread, in order; an editor that floods is counted, not waited for."""
        with self._lock:
            if self._waiting >= WAITING or self._waiting_text + size > WAITING_TEXT:
                self.metrics.events.labels("lost").inc()
                return
            self._waiting += 1
            self._waiting_text += size
        self._writer.submit(self._guarded, size, what, *given)

    def _guarded(self, size: int, what: Any, *given: Any) -> None:
        try:
            what(*given)
        except Exception as error:  # noqa: BLE001  an event must not end the thread; its text may be code
            self._complain(error)
        finally:
            with self._lock:
                self._waiting -= 1
                self._waiting_text -= size

    def _write(self, row: Row, shown: Shown | None, written: str | None) -> None:
        if self.file is None:
            return
        row = {"time": int(time.time()), **row}
        if shown is not None:
            row |= {"lang": lang_of(shown.ask.path) or "", "characters": len(shown.text), "lines": shown.text.count("\n") + 1}
            if self.keep_text and (texts := without_secrets(shown, written)):
                row |= texts
        try:
            rotate(self.file)
            with open_private(self.file) as file:
                file.write(orjson.dumps(row) + b"\n")
        except (OSError, InputError) as error:
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        self.metrics.events.labels("lost").inc()
        if not self._complained:
            self._complained = True
            print(f"events are not kept ({type(error).__name__}): check {self.file}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self._writer.shutdown(wait=True)


def default_file() -> Path:
    """Where a user's state is."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "tabsmith" / "events.jsonl"


def open_private(file: Path) -> Any:
    """The file, opened for appending; only this user can read it.

    Raises:
        InputError: it is a link, no file, or somebody else's.
    """
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise InputError(f"--events {file} cannot be written ({error.strerror}): name a file in a folder of yours") from None
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
        os.close(handle)
        raise InputError(f"--events {file} is no file of yours: name another")
    os.fchmod(handle, 0o600)
    return os.fdopen(handle, "ab")


def rotate(file: Path) -> None:
    """Put a full file aside, and forget the oldest."""
    try:
        full = file.stat().st_size >= LARGEST
    except FileNotFoundError:
        return
    if full:
        for number in range(OLDER, 0, -1):
            older = file if number == 1 else file.with_name(f"{file.name}.{number - 1}")
            if older.exists():
                older.replace(file.with_name(f"{file.name}.{number}"))


def without_secrets(shown: Shown, written: str | None) -> Row | None:
    """The texts of an event; None where an answer holds a secret. What stands around is masked."""
    ask = shown.ask
    answers = {"text": shown.text, **({"written": written} if written else {})}
    for answer in answers.values():
        begin, end = len(ask.prefix), len(ask.prefix) + len(answer)
        around = scrub.find(ask.prefix + answer + (ask.suffix or ""))
        if any(found.start < end and begin < found.end for found in around) or scrub.find(answer):
            return None
    masked = {"prefix": ask.prefix, "suffix": ask.suffix or "", "path": ask.path, "repo": ask.repo}
    return {**{name: scrub.mask(value)[0] for name, value in masked.items()}, **answers}


def written_at(content: str, shown: Shown) -> str | None:
    """What a saved file has where a completion stood or would have: as many lines as the completion; None where that is not clear."""
    before, after = shown.ask.prefix[-TAIL:], shown.ask.suffix or ""
    at = content.find(before) if before.strip() else -1
    if at == -1 or content.find(before, at + 1) != -1:
        return None
    begin = at + len(before)
    head = next((line for line in after.split("\n") if len(line.strip()) > 2), "")
    end = content.find(head, begin) if head else len(content)
    if end == -1:
        return None
    lines = content[begin:end].split("\n")[: shown.text.rstrip("\n").count("\n") + 1]
    written = "\n".join(lines)
    return written if written.strip() and written.strip() != shown.text.strip() else None
