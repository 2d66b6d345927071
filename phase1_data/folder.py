"""Folders of your own, each one repository, and each repository in it another.

In:  a FolderSource
Out: RawFiles; repo is the folder's name, repo_rev its commit ("-dirty" with changes), the licence as given or from its LICENSE file

In a git repository the files are those that git tracks or would add. Elsewhere git lists the folder against an empty
repository, so that .gitignore counts there too; without git the folder is walked. Links are never followed. A repository inside
(a clone, a submodule) is read with its own commit, its own LICENSE file before the licence given for the outer one, and the
path to it after the outer one's name.
"""

from __future__ import annotations

import functools
import os
import stat
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from core.errors import InputError
from core.syntax import lang_of
from phase1_data.license import NOT_FOUND, UNKNOWN, Found, of_folder, spdx
from phase1_data.params import FolderSource
from phase1_data.sources import RawFile, clean_path, fair_order, read_file

SKIPPED = frozenset(
    {".git", ".hg", ".svn", ".venv", "venv", "node_modules", "__pycache__", ".tox", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
)
ELSEWHERE = frozenset(
    {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX"}
)  # set in hooks
LIST = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")


class Tree(NamedTuple):
    """One repository, or a folder that is none."""

    root: Path
    repo: str
    revision: str
    license: str
    license_how: str


def raw_files(source: FolderSource) -> Iterator[RawFile]:
    """Every file of the folders and of the repositories in them, in fair order; only their names are held in memory.

    Raises:
        InputError: a folder is missing, no folder, or empty; a licence is no SPDX expression.
    """
    stated = spdx(source.license) if source.license else UNKNOWN
    if source.license and stated == UNKNOWN:
        raise InputError(f"{source.license!r} is no SPDX licence: write one such as MIT, or null, in ingest.sources of params.yaml")
    base = NOT_FOUND if stated == UNKNOWN else (stated, "metadata")
    names = Counter(Path(path).expanduser().resolve().name for path in source.paths)
    trees: list[Tree] = []
    order: list[tuple[bytes, int, str]] = []
    for path in source.paths:
        root = Path(path).expanduser()
        if not root.is_dir():
            raise InputError(f"{path} is {'not a folder' if root.exists() else 'missing'}: mend ingest.sources in params.yaml")
        name = root.resolve().name
        before = len(order)
        for tree, files in _trees(root, clean_path(name if names[name] == 1 else root.as_posix()), base, base != NOT_FOUND):
            order += [(fair_order(tree.repo, clean_path(file)), len(trees), file) for file in files]
            trees.append(tree)
        if len(order) == before:
            raise InputError(f"{path} holds no files: mend ingest.sources in params.yaml")
    order.sort()
    return (_raw(trees[tree], name) for _, tree, name in order)


def _trees(root: Path, repo: str, outer: Found, stated: bool) -> Iterator[tuple[Tree, list[str]]]:
    """A folder and the repositories in it, each with its own commit and licence; files by their path in it.

    Args:
        outer: the licence where the folder has none of its own; if it is `stated` for this very folder, nothing else counts.
    """
    own = outer if stated else of_folder(root)
    found = own if own != NOT_FOUND else outer
    files = paths(root)
    nested = {file for file in files if _is_repository(root / file)}
    yield Tree(root.resolve(), repo, commit(root), *found), [file for file in files if file not in nested]
    for name in sorted(nested):
        yield from _trees(root / name, f"{repo}/{clean_path(name)}", outer, stated=False)


def _is_repository(folder: Path) -> bool:
    return not folder.is_symlink() and os.path.isdir(folder) and os.path.lexists(folder / ".git")  # noqa: PTH112  # pathlib may raise


def _raw(tree: Tree, name: str) -> RawFile:
    file = tree.root / name
    refuse, detail, size = "", "", 0
    try:
        state = file.lstat()
        size = state.st_size
        if stat.S_ISLNK(state.st_mode) or _through_link(file.parent):
            refuse = "link"
        elif stat.S_ISDIR(state.st_mode):  # git names a folder only where a repository is or should be
            refuse = "submodule" if os.access(file, os.R_OK | os.X_OK) else "unreadable"
        elif not stat.S_ISREG(state.st_mode):
            refuse = "special_file"
    except FileNotFoundError:
        refuse = "missing"  # tracked by git, deleted on disk
    except OSError as error:
        refuse, detail = "unreadable", error.strerror or ""
    path, read = clean_path(name), functools.partial(read_file, file, size)
    return RawFile(path, tree.repo, tree.revision, "folder", "", tree.license, tree.license_how, lang_of(path), size, read, refuse, detail)


@functools.lru_cache(4096)
def _through_link(folder: Path) -> bool:
    """Whether the way to a folder is another than its name says: git lists what it tracks, also below what is a link by now."""
    return os.path.realpath(folder) != str(folder)


def _git(*args: str) -> bytes | None:
    """What git prints, None where it fails or is not installed; watchers that a repository configures stay off."""
    here = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    try:
        command = ["git", "-c", "core.fsmonitor=false", *args]
        done = subprocess.run(command, env=here, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def paths(root: Path) -> list[str]:
    """Paths of the folder's files relative to it, forward slashes, sorted.

    A repository in it is one entry, as are what git passes over without a word: folders that cannot be read, and pipes, sockets
    and devices.
    """
    listing = _git("-C", str(root), *LIST)
    if not listing:  # no repository, or one that ignores this very folder
        with tempfile.TemporaryDirectory() as empty:
            if _git("init", "-q", "--bare", empty) is not None:
                listing = _git(f"--git-dir={empty}", f"--work-tree={root.resolve()}", "-C", str(root), *LIST)
    walked = _walk(root)
    if listing is None:
        return sorted(name for name, _ in walked)
    names = {os.fsdecode(name).rstrip("/") for name in listing.split(b"\0") if name}
    names = {name for name in names if SKIPPED.isdisjoint(PurePosixPath(name).parts)}
    return sorted(names | {name for name, odd in walked if odd})


def _walk(root: Path) -> Iterator[tuple[str, bool]]:
    """Every path under a folder, and whether it is one that git does not list; repositories are not entered."""
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    name = folder + entry.name
                    if entry.name in SKIPPED:
                        continue
                    if entry.is_symlink() or entry.is_file(follow_symlinks=False):
                        yield name, False
                    elif not entry.is_dir(follow_symlinks=False):
                        yield name, True
                    elif os.path.lexists(root / name / ".git"):
                        yield name, False
                    else:
                        folders.append(name + "/")
        except OSError:
            if folder:
                yield folder.rstrip("/"), True


def commit(root: Path) -> str:
    """The commit checked out in a folder, "-dirty" with uncommitted changes; "" where there is none.

    To see changes git runs the filters that a repository's own configuration names, and one that somebody unpacked here may name
    any program: they are switched off (a file that a filter stores otherwise then counts as a change).
    """
    head = _git("-C", str(root), "rev-parse", "HEAD")
    if head is None:
        return ""
    listed = _git("-C", str(root), "config", "--null", "--show-scope", "--name-only", "--get-regexp", r"^filter\.") or b""
    scoped = zip(*[iter(listed.split(b"\0"))] * 2, strict=False)
    own = {os.fsdecode(name).rpartition(".")[0] for scope, name in scoped if scope in (b"local", b"worktree")}
    off = [option for name in sorted(own) for key in ("clean", "process") for option in ("-c", f"{name}.{key}=")]
    changed = _git("-C", str(root), *off, "status", "--porcelain", "--ignore-submodules=dirty", "--", ".")
    return head.decode().strip() + ("" if changed == b"" else "-dirty")
