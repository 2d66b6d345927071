"""Which files of a folder may be read for completions, and their text with secrets masked.

In:  a folder
Out: `Source`: path, language, masked text, of MOST_FILES files at most; counts of what was left out, by reason

Left out: what git ignores, names that look like secrets, symbolic links (never followed), folders that another file system
is mounted on, what is no regular file, huge or binary or generated, other languages. A file that the scrubber cannot read
is left out too. Files may vanish, shrink or become folders at any moment: then they are left out, or read as they are now.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from pathspec import GitIgnoreSpec

from core import scrub
from core.syntax import lang_of

IGNORE_FILE = ".gitignore"
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
LONGEST_LINE = 1000  # characters: beyond it a file is generated or data (bigcode-dataset's default)
Specs = tuple[tuple[Path, GitIgnoreSpec], ...]


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
        self.left_out: Counter[str] = Counter()  # of the last walk over everything

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
        self.left_out.clear()
        taken = 0
        for seen, found in enumerate(self._walk(self.root, self._specs_above()), 1):
            if isinstance(found, str):
                self.left_out[found] += 1
            elif taken < MOST_FILES:
                taken += 1
                yield found
            else:
                self.left_out["too_many"] += 1
            if seen == MOST_SEEN:
                self.left_out["not_looked_at"] += 1
                break

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
        specs = self._specs_down_to(path)
        if specs is not None and (path == self.root or not self._skips_folder(path, specs)):
            yield from (found for found in self._walk(path, specs) if not isinstance(found, str))

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
        for part in path.relative_to(self.root).parts[:-1]:
            specs = (*specs, *self._spec_of(folder))
            folder = folder / part
            if self._skips_folder(folder, specs):
                return None
        return (*specs, *self._spec_of(folder))

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
            specs = (*specs, *self._spec_of(folder))
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

    def _specs_above(self) -> Specs:
        """Ignore files of the folders above, up to the one that holds .git; its own exclude file too."""
        above = [self.root, *self.root.parents]
        top = next((folder for folder in above if (folder / ".git").exists()), None)
        if top is None:
            return ()
        exclude = _spec(top, top / ".git" / "info" / "exclude")
        return (*exclude, *(spec for folder in reversed(above[1 : above.index(top) + 1]) for spec in self._spec_of(folder)))

    @staticmethod
    def _spec_of(folder: Path) -> Specs:
        return _spec(folder, folder / IGNORE_FILE)

    def _skips_folder(self, folder: Path, specs: Specs) -> bool:
        name = folder.name
        if name.startswith(".") or name in SKIPPED_FOLDERS or looks_secret(name):
            return True
        return _ignored(folder, specs, "/") or not self._plain(folder)

    def _plain(self, folder: Path) -> bool:
        """Whether it is a folder itself, no link to one, and on the workspace's own file system."""
        try:
            found = os.lstat(folder)
        except OSError:
            return False
        return stat.S_ISDIR(found.st_mode) and found.st_dev == os.lstat(self.root).st_dev

    def _judge(self, path: Path, specs: Specs, lang: str | None = None) -> Candidate | str:
        """Whether a file may be read by its name and place, or why not."""
        lang = lang or lang_of(path.name)
        if lang is None:
            return "language"
        if looks_secret(path.name):
            return "secret_name"
        return "ignored" if _ignored(path, specs) else Candidate(path, lang)


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


def _spec(folder: Path, file: Path) -> Specs:
    try:
        if file.is_symlink() or not file.is_file():
            return ()
        return ((folder, GitIgnoreSpec.from_lines(file.read_text(encoding="utf-8", errors="replace").splitlines())),)
    except (OSError, ValueError):
        return ()


def _ignored(path: Path, specs: Specs, end: str = "") -> bool:
    """git's answer: the deepest ignore file that says anything about the path decides."""
    for folder, spec in reversed(specs):
        decision = spec.check_file(path.relative_to(folder).as_posix() + end).include
        if decision is not None:
            return decision
    return False
