"""Which files of a folder may be read for completions, and their text with secrets masked.

In:  a folder
Out: `Source`: path, language, masked text, of MOST_FILES files at most; counts of what was left out, by reason

Left out: what git ignores, names that look like secrets or would break the line that they stand in, symbolic links (never
followed), folders that another file system is mounted on, what is no regular file, huge or binary or generated, other languages. A
file that the scrubber cannot read is left out too. Files may vanish, shrink or become folders at any moment: then they are left
out, or read as they are now.
"""

from __future__ import annotations

import fnmatch
import itertools
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from core import scrub
from core.syntax import lang_of
from phase4_serve import ignored
from phase4_serve.ignored import IGNORE_FILE as IGNORE_FILE
from phase4_serve.ignored import Specs

SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__", "site-packages", "venv", "env", "vendor", "dist", "build", "target"})
SECRET_NAMES = re.compile(
    "|".join(fnmatch.translate(name) for name in (
        ".env*", "*.env", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.kdbx", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*",
        "*secret*", "*credential*", "*password*", "*.tfvars", ".netrc", ".npmrc", ".pypirc", ".htpasswd", "service[-_]account*",
        "*private[-_]key*",
    ))
)  # fmt: skip
MOST_FILES = 20_000  # of a workspace: beyond it somebody has named his home
MOST_SEEN = 400_000  # entries looked at by name before the walk ends
BREATH = 200  # of them between two pauses of the walk
LONGEST_LINE = 1000  # characters: beyond it a file is generated or data (bigcode-dataset's default)


class Source(NamedTuple):
    """A file as the index gets it."""

    path: str  # relative to the workspace, forward slashes
    lang: str
    text: str  # masked


class Candidate(NamedTuple):
    """A file whose name and place allow it to be read."""

    path: Path
    lang: str


@lru_cache(4096)
def _secret_name(name: str) -> bool:
    return SECRET_NAMES.match(name) is not None


def looks_secret(path: str) -> bool:
    """Whether a path's name says that it holds secrets, whatever its content."""
    return any(_secret_name(name) for name in path.lower().split("/"))


def relative(path: str, root: Path | None) -> str:
    """A path or file URI that a client sent, relative to the workspace; only the name of a file that is not in it."""
    if path.startswith("file://"):
        path = unquote(path.removeprefix("file://").removeprefix("localhost"))
    path = path.replace("\\", "/").replace("\0", "").replace("\n", " ")
    if not path:
        return ""
    if not path.startswith("/") or root is None:
        inside = os.path.normpath(path)
    elif (inside := os.path.relpath(path, root)).startswith(".."):  # the editor may have come by a link
        folder, _, name = path.rpartition("/")
        inside = os.path.relpath(f"{_real(folder)}/{name}", root)
    return inside.rsplit("/", 1)[-1] if inside.startswith(("..", "/")) else inside


@lru_cache(1024)
def _real(folder: str) -> str:
    """A folder without links on the way to it; itself where it is none."""
    try:
        return os.path.realpath(folder)
    except (OSError, ValueError):
        return folder


class Workspace:
    """A folder whose files may be read."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root, self.max_bytes = root.resolve(), max_bytes
        self.left_out: Counter[str] = Counter()  # of the last walk over everything
        self._users = ignored.users_rules(self.root)

    @property
    def name(self) -> str:
        """What the repository is called in a prompt."""
        return self.root.name

    def sources(self) -> Iterator[Source]:
        """Every file that may be read, by path; counts the others in `left_out`."""
        for candidate in self.candidates():
            read = self.read(candidate)
            if isinstance(read, Source):
                yield read
            else:
                self.left_out[read] += 1

    def candidates(self) -> Iterator[Candidate]:
        """Every file that name and place allow to be read, MOST_FILES at most; counts the others in `left_out`."""
        return (found for found in self.look() if found is not None)

    def look(self, folder: Path | None = None) -> Iterator[Candidate | None]:
        """The same, or those under a folder, and None now and then: whoever has other things to do can do them between."""
        if folder is None:
            self.left_out.clear()
            self._users = ignored.users_rules(self.root)
        specs = self._specs_above() if folder is None else self._specs_down_to(folder)
        if specs is None or (folder not in (None, self.root) and self._skips_folder(folder, specs)):
            return
        taken = 0
        for seen, found in enumerate(self._walk(folder or self.root, specs), 1):
            if isinstance(found, Candidate):
                taken += 1
                if taken <= MOST_FILES:
                    yield found
                else:
                    found = "too_many"
            if isinstance(found, str) and folder is None:
                self.left_out[found] += 1
            if seen == MOST_SEEN:
                if folder is None:
                    self.left_out["not_looked_at"] += 1
                return
            if seen % BREATH == 0:
                yield None

    def source(self, path: Path) -> Source | None:
        """One file, judged by the same rules; None where it may not be read or is gone."""
        specs = self._specs_down_to(path)
        judged = "folder" if specs is None else self._judge(path, specs)
        read = judged if isinstance(judged, str) else self.read(judged)
        return read if isinstance(read, Source) else None

    def folder(self, path: Path) -> Iterator[Source]:
        """Every file under a folder of the workspace that may be read."""
        for candidate in self.under(path):
            if isinstance(read := self.read(candidate), Source):
                yield read

    def under(self, path: Path) -> Iterator[Candidate]:
        """Every file under a folder of the workspace that name and place allow to be read."""
        return (found for found in self.look(path) if found is not None)

    def read(self, candidate: Candidate) -> Source | str:
        """The file, or why not."""
        try:
            handle = os.open(candidate.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError):
            return "link_or_unreadable"
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_size > self.max_bytes:
                return "huge_or_special"
            if not self._inside(handle):
                return "link_or_unreadable"
            with os.fdopen(handle, "rb", closefd=False) as file:
                content = file.read(self.max_bytes + 1)
        except OSError:  # the disk fails
            return "link_or_unreadable"
        finally:
            os.close(handle)
        if len(content) > self.max_bytes:  # it grew
            return "huge_or_special"
        text = _masked(content)
        return text if isinstance(text, _Reason) else Source(candidate.path.relative_to(self.root).as_posix(), candidate.lang, text)

    def _inside(self, handle: int) -> bool:
        """Whether an open file lies in the workspace, should a folder above it have become a link; Linux can tell."""
        try:
            return Path(f"/proc/self/fd/{handle}").readlink().is_relative_to(self.root)
        except FileNotFoundError:
            return True

    def _specs_down_to(self, path: Path) -> Specs | None:
        """Ignore files that speak about a path; None if a folder above it is left out or it is not in the workspace."""
        if not path.is_relative_to(self.root) or ".." in path.parts:
            return None
        folder, specs = self.root, self._specs_above()
        if specs is None:
            return None
        for part in path.relative_to(self.root).parts[:-1]:
            specs = self._specs_in(folder, specs, ignored.is_repository(folder))
            folder = folder / part
            if self._skips_folder(folder, specs):
                return None
        return self._specs_in(folder, specs, ignored.is_repository(folder))

    def _walk(self, folder: Path, specs: Specs) -> Iterator[Candidate | str]:
        """Files by path, or why not; not recursive: folders may be nested as deep as the file system lets them."""
        waiting: list[tuple[Path, Specs]] = [(folder, specs)]
        while waiting:
            folder, specs = waiting.pop()
            try:
                with os.scandir(folder) as scanned:
                    entries = sorted(scanned, key=lambda entry: entry.name)
            except OSError:
                yield "unreadable"
                continue
            specs = self._specs_in(folder, specs, any(entry.name == ".git" for entry in entries))
            below: list[tuple[Path, Specs]] = []
            for entry in entries:
                if _is_folder(entry):
                    path = Path(entry.path)
                    if self._skips_folder(path, specs):
                        yield "folder"
                    else:
                        below.append((path, specs))
                elif (lang := lang_of(entry.name)) is None:
                    yield "language"
                else:
                    yield self._judge(Path(entry.path), specs, lang)
            waiting += below[::-1]

    def _specs_above(self) -> Specs | None:
        """The user's rules, and those of the folders above, up to the one in which a repository begins, with its exclude file; None where
        they ignore the workspace itself."""
        above = [self.root, *self.root.parents]
        top = next((folder for folder in above if ignored.is_repository(folder)), None)
        if top is None:
            return self._users
        specs: Specs = (*self._users, *ignored.exclude_rules(top))
        down = above[above.index(top) :: -1]
        for folder, below in itertools.pairwise(down):
            specs = (*specs, *ignored.rules_in(folder))
            if ignored.ignored(below, specs, is_folder=True):
                return None
        return specs

    def _specs_in(self, folder: Path, above: Specs, begins: bool) -> Specs:
        """The rules for what stands in a folder of the workspace; where another repository begins, those above end."""
        if begins and folder != self.root:
            above = (*self._users, *ignored.exclude_rules(folder))
        return (*above, *ignored.rules_in(folder))

    def _skips_folder(self, folder: Path, specs: Specs) -> bool:
        name = folder.name
        if name.startswith(".") or name in SKIPPED_FOLDERS or looks_secret(name) or not name.isprintable():
            return True
        return ignored.ignored(folder, specs, is_folder=True) or not self._plain(folder)

    def _plain(self, folder: Path) -> bool:
        """Whether it is a folder itself, no link to one, and on the workspace's own file system."""
        try:
            found = os.lstat(folder)
            return stat.S_ISDIR(found.st_mode) and found.st_dev == os.lstat(self.root).st_dev
        except (OSError, ValueError):  # it is gone, the whole workspace is, or no folder can have such a name
            return False

    def _judge(self, path: Path, specs: Specs, lang: str | None = None) -> Candidate | str:
        """Whether a file may be read by its name and place, or why not."""
        lang = lang or lang_of(path.name)
        if lang is None:
            return "language"
        if looks_secret(path.name):
            return "secret_name"
        if not path.name.isprintable():  # a line break, a control character, no UTF-8: it would stand in prompts and answers
            return "odd_name"
        return "ignored" if ignored.ignored(path, specs) else Candidate(path, lang)


class _Reason(str):
    """Why a content is left out."""


def _masked(content: bytes) -> str | _Reason:
    """The text without secrets, or why it is left out."""
    if b"\0" in content:
        return _Reason("binary")
    if any(len(line) > 4 * LONGEST_LINE for line in content.split(b"\n")):  # a character is 4 bytes at most
        return _Reason("long_line")
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return _Reason("binary")
    if any(len(line) > LONGEST_LINE for line in text.split("\n")):
        return _Reason("long_line")
    try:
        return scrub.mask(text)[0]
    except Exception:  # noqa: BLE001  whatever the scrubber trips over stays out of prompts
        return _Reason("scrub_failed")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False
