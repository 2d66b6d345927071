"""The index of a workspace, kept up to date while files change.

In:  a workspace and an empty index
Out: the index filled in the background; a line when it is ready; counts
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from watchfiles import Change, DefaultFilter, awatch

from phase4_serve.index import Index, put_all
from phase4_serve.workspace import IGNORE_FILE, Workspace

DEBOUNCE = 200  # ms: an editor that saves writes several times
STEP = 50  # ms


class Knowledge:
    """What the server knows of the workspace."""

    def __init__(self, workspace: Workspace, index: Index) -> None:
        self.workspace, self.index = workspace, index
        self.complete = asyncio.Event()
        self._stop = threading.Event()

    def state(self) -> dict[str, Any]:
        """Counts for `/health`."""
        left_out = dict(sorted(self.workspace.left_out.items()))
        return {"complete": self.complete.is_set(), "files": self.index.files, "pieces": len(self.index), "left_out": left_out}

    async def run(self) -> None:
        """Index everything, then whatever changes; until cancelled."""
        changes = awatch(
            self.workspace.root,
            watch_filter=DefaultFilter(ignore_paths=()),
            debounce=DEBOUNCE,
            step=STEP,
            recursive=True,
            ignore_permission_denied=True,
        )
        try:
            await asyncio.to_thread(self._all)
            async for batch in changes:
                await asyncio.to_thread(self._update, batch)
        except (OSError, RuntimeError) as error:
            print(f"the workspace is not watched ({type(error).__name__}): start again to see changed files", file=sys.stderr, flush=True)
        finally:
            self._stop.set()

    def _all(self) -> None:
        started = time.perf_counter()
        put_all(self.index, (source for source in self.workspace.sources() if not self._stop.is_set()))
        self.complete.set()
        left = ", ".join(f"{reason} {count}" for reason, count in sorted(self.workspace.left_out.items()))
        seconds = time.perf_counter() - started
        print(f"indexed {self.index.files:,} files, {len(self.index):,} pieces in {seconds:.1f} s; left out: {left or 'none'}", flush=True)

    def _update(self, changes: Iterable[tuple[Change, str]]) -> None:
        paths = sorted({Path(path) for _, path in changes})
        if any(path.name == IGNORE_FILE for path in paths):
            self._again()
            return
        for path in paths:
            self._one(path)
        self.index.commit()

    def _again(self) -> None:
        """Judge every file anew."""
        sources = list(self.workspace.sources())
        for path in self.index.paths() - {source.path for source in sources}:
            self.index.remove(path)
        put_all(self.index, sources)

    def _one(self, path: Path) -> None:
        """A path that changed: a file is read again, a folder walked, what is gone forgotten."""
        try:
            name = path.relative_to(self.workspace.root).as_posix()
        except ValueError:
            return
        if path.is_dir() and not path.is_symlink():
            for source in self.workspace.folder(path):
                self.index.put(source)
        elif (changed := self.workspace.source(path)) is not None:
            self.index.put(changed)
        else:
            self.index.remove(name)
