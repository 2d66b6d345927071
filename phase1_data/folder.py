"""Folders of your own, each one repository.

In:  a FolderSource
Out: RawFiles; repo is the folder's name, repo_rev its commit ("-dirty" with changes), the licence as given or from its LICENSE file

In a git repository the files are those that git tracks or would add. Elsewhere git lists the folder against an empty
repository, so that .gitignore counts there too; without git the folder is walked. Links are never followed.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from core.errors import InputError
from core.syntax import lang_of
from phase1_data.license import UNKNOWN, of_folder, spdx
from phase1_data.params import FolderSource
from phase1_data.sources import RawFile, clean_path, fair_order

SKIPPED = frozenset(
    {".git", ".hg", ".svn", ".venv", "venv", "node_modules", "__pycache__", ".tox", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
)
LIST = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")


def raw_files(source: FolderSource) -> list[RawFile]:
    """Every file of the folders, in fair order.

    Raises:
        InputError: a folder is missing, no folder, or empty; a licence is no SPDX expression.
    """
    stated = spdx(source.license) if source.license else UNKNOWN
    if source.license and stated == UNKNOWN:
        raise InputError(f"{source.license!r} is no SPDX licence: write one such as MIT, or null, in ingest.sources of params.yaml")
    names = Counter(Path(path).expanduser().resolve().name for path in source.paths)
    files: list[RawFile] = []
    for path in source.paths:
        root = Path(path).expanduser()
        if not root.is_dir():
            raise InputError(f"{path} is {'not a folder' if root.exists() else 'missing'}: mend ingest.sources in params.yaml")
        name = root.resolve().name
        repo = clean_path(name if names[name] == 1 else root.as_posix())
        found = (stated, "metadata") if source.license else of_folder(root)
        listed = list(_raw(root, repo, commit(root), found))
        if not listed:
            raise InputError(f"{path} holds no files: mend ingest.sources in params.yaml")
        files += listed
    return sorted(files, key=fair_order)


def _raw(root: Path, repo: str, revision: str, found: tuple[str, str]) -> Iterator[RawFile]:
    license_id, how = found
    for name in paths(root):
        file = root / name
        refuse, size = "", 0
        try:
            state = file.lstat()
            size = state.st_size
            if file.is_symlink():
                refuse = "link"
            elif file.is_dir():
                refuse = "submodule"
            elif not file.is_file():
                refuse = "special_file"
        except FileNotFoundError:
            continue  # tracked by git, deleted on disk
        except OSError:
            refuse = "unreadable"
        path = clean_path(name)
        yield RawFile(path, repo, revision, "folder", "", license_id, how, lang_of(path), size, file.read_bytes, refuse)


def _git(*args: str) -> bytes | None:
    """What git prints, None where it fails or is not installed; configured hooks and watchers stay off."""
    try:
        done = subprocess.run(["git", "-c", "core.fsmonitor=false", *args], capture_output=True, check=False, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def paths(root: Path) -> list[str]:
    """Paths of the folder's files relative to it, forward slashes, sorted."""
    listing = _git("-C", str(root), *LIST)
    if not listing:  # no repository, or one that ignores this very folder
        with tempfile.TemporaryDirectory() as empty:
            if _git("init", "-q", "--bare", empty) is not None:
                listing = _git(f"--git-dir={empty}", f"--work-tree={root.resolve()}", "-C", str(root), *LIST)
    names = {os.fsdecode(name) for name in listing.split(b"\0") if name} if listing is not None else set(_walk(root))
    return sorted(name for name in names if SKIPPED.isdisjoint(PurePosixPath(name).parts))


def _walk(root: Path) -> Iterator[str]:
    for folder, children, names in os.walk(root, followlinks=False):
        children[:] = sorted(set(children) - SKIPPED)
        for name in names:
            yield (Path(folder) / name).relative_to(root).as_posix()


def commit(root: Path) -> str:
    """The commit checked out in a folder, "-dirty" with uncommitted changes; "" where there is none."""
    head = _git("-C", str(root), "rev-parse", "HEAD")
    if head is None:
        return ""
    changed = _git("-C", str(root), "status", "--porcelain", "--", ".")
    return head.decode().strip() + ("-dirty" if changed else "")
