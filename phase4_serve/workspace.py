"""Which files of a folder may be read for completions, and their text with secrets masked.

In:  a folder
Out: `Source`: path, language, masked text, of MOST_FILES files at most; counts of what was left out, by reason

Left out: what git ignores, names that look like secrets, symbolic links (never followed), what is no regular file,
huge or binary or generated, other languages. A file that the scrubber cannot read is left out too.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pathspec import GitIgnoreSpec

from core import scrub
from core.syntax import lang_of

IGNORE_FILE = ".gitignore"
SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__", "site-packages", "venv", "env", "vendor", "dist", "build", "target"})
SECRET_NAMES = GitIgnoreSpec.from_lines(
    [".env*", "*.env", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.kdbx", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "*secret*",
     "*credential*", "*password*", "*.tfvars", ".netrc", ".npmrc", ".pypirc", ".htpasswd", "service[-_]account*", "*private[-_]key*"]
)  # fmt: skip
MOST_FILES = 20_000  # of a workspace: beyond it somebody has named his home
LONGEST_LINE = 1000  # characters: beyond it a file is generated or data (bigcode-dataset's default)


class Source(NamedTuple):
    """A file as the index gets it."""

    path: str  # relative to the workspace, forward slashes
    lang: str
    text: str  # masked


def looks_secret(path: str) -> bool:
    """Whether a path's name says that it holds secrets, whatever its content."""
    return SECRET_NAMES.match_file(path.lower().lstrip("/"))


def relative(path: str, root: Path | None) -> str:
    """A path that a client sent, relative to the workspace; only the name of a file that is not in it."""
    path = path.removeprefix("file://").replace("\\", "/").replace("\0", "").replace("\n", " ")
    if not path:
        return ""
    inside = os.path.normpath(os.path.relpath(path, root) if path.startswith("/") and root else path)
    return inside.rsplit("/", 1)[-1] if inside.startswith(("..", "/")) else inside


class Workspace:
    """A folder whose files may be read."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root, self.max_bytes = root.resolve(), max_bytes
        self.left_out: Counter[str] = Counter()

    @property
    def name(self) -> str:
        """What the repository is called in a prompt."""
        return self.root.name

    def sources(self) -> Iterator[Source]:
        """Every file that may be read, by path; counts the others in `left_out`."""
        self.left_out.clear()
        yield from itertools.islice(self._walk(self.root, self._specs_above()), MOST_FILES)

    def source(self, path: Path) -> Source | None:
        """One file, judged by the same rules; None where it may not be read or is gone."""
        specs = self._specs_down_to(path)
        return None if specs is None else self._read(path, specs)

    def folder(self, path: Path) -> Iterator[Source]:
        """Every file under a folder of the workspace that may be read."""
        specs = self._specs_down_to(path)
        if specs is not None and (path == self.root or not self._skips_folder(path, specs)):
            yield from self._walk(path, specs)

    def _specs_down_to(self, path: Path) -> list[tuple[Path, GitIgnoreSpec]] | None:
        """Ignore files that speak about a path; None if a folder above it is left out or it is not in the workspace."""
        if not path.is_relative_to(self.root):
            return None
        folder, specs = self.root, self._specs_above()
        for part in path.relative_to(self.root).parts[:-1]:
            specs = [*specs, *self._spec_of(folder)]
            folder = folder / part
            if self._skips_folder(folder, specs):
                return None
        return [*specs, *self._spec_of(folder)]

    def _walk(self, folder: Path, specs: list[tuple[Path, GitIgnoreSpec]]) -> Iterator[Source]:
        specs = [*specs, *self._spec_of(folder)]
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            self.left_out["unreadable"] += 1
            return
        for entry in entries:
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                if self._skips_folder(path, specs):
                    self.left_out["folder"] += 1
                else:
                    yield from self._walk(path, specs)
            elif source := self._read(path, specs):
                yield source

    def _specs_above(self) -> list[tuple[Path, GitIgnoreSpec]]:
        """Ignore files of the folders above, up to the one that holds .git; its own exclude file too."""
        above = [self.root, *self.root.parents]
        top = next((folder for folder in above if (folder / ".git").exists()), None)
        if top is None:
            return []
        exclude = _spec(top, top / ".git" / "info" / "exclude")
        return [*exclude, *(spec for folder in reversed(above[1 : above.index(top) + 1]) for spec in self._spec_of(folder))]

    @staticmethod
    def _spec_of(folder: Path) -> list[tuple[Path, GitIgnoreSpec]]:
        return _spec(folder, folder / IGNORE_FILE)

    @staticmethod
    def _skips_folder(folder: Path, specs: list[tuple[Path, GitIgnoreSpec]]) -> bool:
        name = folder.name
        if name.startswith(".") or name in SKIPPED_FOLDERS or folder.is_symlink() or looks_secret(name):
            return True
        return _ignored(folder, specs, "/")

    def _read(self, path: Path, specs: list[tuple[Path, GitIgnoreSpec]]) -> Source | None:
        """The file, or None and a reason counted."""
        lang = lang_of(path.name)
        if lang is None:
            self.left_out["language"] += 1
        elif looks_secret(path.name):
            self.left_out["secret_name"] += 1
        elif _ignored(path, specs):
            self.left_out["ignored"] += 1
        else:
            text = self._text(path)
            if text is not None:
                return Source(path.relative_to(self.root).as_posix(), lang, text)
        return None

    def _text(self, path: Path) -> str | None:
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            self.left_out["link_or_unreadable"] += 1
            return None
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_size > self.max_bytes:
                self.left_out["huge_or_special"] += 1
                return None
            content = file.read(self.max_bytes + 1)
        return self._masked(content)

    def _masked(self, content: bytes) -> str | None:
        try:
            text = content.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            self.left_out["binary"] += 1
        elif any(len(line) > LONGEST_LINE for line in text.split("\n")):
            self.left_out["long_line"] += 1
        else:
            return self._mask(text)
        return None

    def _mask(self, text: str) -> str | None:
        try:
            return scrub.mask(text)[0]
        except Exception:  # noqa: BLE001  whatever the scrubber trips over stays out of prompts
            self.left_out["scrub_failed"] += 1
            return None


def _spec(folder: Path, file: Path) -> list[tuple[Path, GitIgnoreSpec]]:
    try:
        if file.is_symlink() or not file.is_file():
            return []
        return [(folder, GitIgnoreSpec.from_lines(file.read_text(encoding="utf-8", errors="replace").splitlines()))]
    except (OSError, ValueError):
        return []


def _ignored(path: Path, specs: list[tuple[Path, GitIgnoreSpec]], end: str = "") -> bool:
    """git's answer: the deepest ignore file that says anything about the path decides."""
    for folder, spec in reversed(specs):
        decision = spec.check_file(path.relative_to(folder).as_posix() + end).include
        if decision is not None:
            return decision
    return False
