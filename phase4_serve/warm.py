"""What llama-server's slots hold, kept over a restart: the first completion after it finds its prompt evaluated.

In:  a scheduler's slots when the server stops; the files of the last stop when it starts
Out: per slot a file that llama-server wrote and a JSON beside it; slots that hold what they held

The files hold code from the user's editor. They lie in a folder that only this user can enter, exist only while the server is
not running, and are not written where the scrubber finds something: a secret in the line that is being typed. Whatever is not
exactly what was written, for this model and this build, is deleted unread.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import secrets
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from core import scrub
from phase4_serve.backend import Backend, BackendDown, BackendRefused
from phase4_serve.scheduler import Scheduler

SAVE_SECONDS = 2.0  # for all slots together; what is not saved by then is not saved
LEAST = 64  # tokens that make a slot worth saving: evaluated again in a quarter of a second
MOST_BYTES = 256 * 2**20  # of all files; 12 kB a token for a 0.5B model
PREFIX = "slot-"
VERSION = 1


class Saved(NamedTuple):
    """A slot's file."""

    name: str
    ids: list[int]  # what it holds, as far as we know
    tokens: int  # that it holds


class Warm:
    """Saved slots of one user.

    Args:
        folder: made where it is missing.
        build: identifies llama-server; its files are for the build that wrote them.

    Raises:
        OSError: the folder cannot be made or belongs to somebody else.
    """

    def __init__(self, folder: Path, build: str) -> None:
        self.folder = private(folder)
        self._build = build

    async def restore(self, model: str, backend: Backend, scheduler: Scheduler) -> int:
        """Give the slots back what they held; how many. The files are gone afterwards, whatever they were.

        Args:
            model: identifies the weights.
        """
        found, restored = await asyncio.to_thread(self._usable, model), 0
        for name, ids, tokens in found[: len(scheduler.pool.typing)]:
            with contextlib.suppress(BackendDown, BackendRefused, TypeError, KeyError, ValueError):
                if await backend.restore_slot(restored, name, SAVE_SECONDS) == tokens:
                    scheduler.put_back(restored, ids)
                    restored += 1
                else:
                    await backend.erase(restored)
        await asyncio.to_thread(self.clear)
        return restored

    async def save(self, model: str, backend: Backend, scheduler: Scheduler) -> int:
        """Write what the slots hold, the last used first, within SAVE_SECONDS; how many."""
        saved, room = 0, MOST_BYTES
        try:
            async with asyncio.timeout(SAVE_SECONDS):
                for number, ids in scheduler.kept():
                    if len(ids) < LEAST or room <= 0 or not await asyncio.to_thread(is_clean, ids, backend.piece):
                        continue
                    name = f"{PREFIX}{secrets.token_hex(8)}.bin"  # new, so that nobody's link can wait under it
                    count = await backend.save_slot(number, name)
                    room -= await asyncio.to_thread(self._describe, model, name, ids[:count], count)
                    saved += 1
        except TimeoutError:
            pass
        except (BackendDown, BackendRefused, OSError) as error:
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            why = "no space left" if full else type(error).__name__
            print(f"what the model has read is not kept for the next start ({why} in {self.folder})", file=sys.stderr, flush=True)
        await asyncio.to_thread(self._drop_unfinished)
        return saved

    def clear(self) -> None:
        """Delete every file of ours."""
        for path in self.folder.glob(f"{PREFIX}*"):
            with contextlib.suppress(OSError):
                path.unlink()

    def _describe(self, model: str, name: str, ids: list[int], count: int) -> int:
        """Write the JSON of a saved slot; the size of the slot's file."""
        path = self.folder / name
        size, digest = path.stat().st_size, hash_of(path)
        beside = path.with_suffix(".json")
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w") as out:
            json.dump({**self._of(model), "size": size, "sha256": digest, "tokens": count, "ids": ids}, out)
        return size

    def _drop_unfinished(self) -> None:
        """Delete slots whose JSON was not written: the disk was full, or time was over."""
        for path in self.folder.glob(f"{PREFIX}*"):
            whole = path.with_suffix(".json").exists() and path.with_suffix(".bin").exists() and readable(path.with_suffix(".json"))
            if not whole:
                with contextlib.suppress(OSError):
                    path.unlink()

    def _of(self, model: str) -> dict[str, object]:
        """What a file has to be for."""
        return {"version": VERSION, "model": model, "build": self._build}

    def _usable(self, model: str) -> list[Saved]:
        """What may be restored, in the order in which it was saved."""
        good = []
        for beside in self.folder.glob(f"{PREFIX}*.json"):
            path = beside.with_suffix(".bin")
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                if ours(beside) and ours(path) and (saved := self._matching(model, beside, path)) is not None:
                    good.append((path.stat().st_mtime_ns, saved))
        return [saved for _, saved in sorted(good)]

    def _matching(self, model: str, beside: Path, path: Path) -> Saved | None:
        """A slot's file if it is what was written for this model."""
        said: dict[str, Any] = json.loads(beside.read_bytes())
        same = all(said[key] == value for key, value in self._of(model).items())
        if not same or path.stat().st_size != said["size"] or hash_of(path) != said["sha256"]:
            return None
        ids = [int(token) for token in said["ids"]]
        return Saved(path.name, ids, int(said["tokens"])) if len(ids) >= LEAST else None


def is_clean(ids: list[int], piece: Callable[[int], bytes]) -> bool:
    """Whether the scrubber finds nothing in what a slot holds; the prompt's other lines are masked, the cursor's is not."""
    try:
        text = b"".join(map(piece, ids)).decode("utf-8", "replace")
        return scrub.mask(text)[0] == text
    except Exception:  # noqa: BLE001  whatever it trips over is not written
        return False


def default_folder() -> Path:
    """Where a user's caches are."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tabsmith" / "slots"


def private(folder: Path) -> Path:
    """A folder that only this user can enter.

    Raises:
        OSError: it cannot be, or is somebody else's.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "not a folder of this user's", str(folder))
    if found.st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def ours(path: Path) -> bool:
    """Whether a file is one that this user alone could write and read, and no link."""
    found = path.lstat()
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077 and found.st_nlink == 1


def readable(path: Path) -> bool:
    """Whether a JSON file is whole."""
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def hash_of(path: Path) -> str:
    """SHA-256 of a file, no link followed."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
