"""Code that is installed in this environment: the standard library and packages, read where they lie.

In:  an EnvironmentSource
Out: RawFiles; repo is the distribution's canonical name, repo_rev its version, the licence from its metadata

Tests are turned down (they are near-copies of each other), as is what pip did not install as a file of the package.
"""

from __future__ import annotations

import functools
import itertools
import platform
import re
import stat
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from core.errors import InputError
from core.syntax import lang_of
from phase1_data.license import of_distribution
from phase1_data.params import EnvironmentSource
from phase1_data.sources import RawFile, clean_path, fair_order, read_file

TEST_FOLDERS = frozenset({"test", "tests", "idle_test", "test_data", "testdata"})
TEST_FILE = re.compile(r"(test_.*|.*_test|conftest)\.py")


def canonical(name: str) -> str:
    """A distribution's name as PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def is_test(path: str) -> bool:
    """Whether a path of an installed package is one of its tests."""
    parts = PurePosixPath(path).parts
    return not TEST_FOLDERS.isdisjoint(parts[:-1]) or TEST_FILE.fullmatch(parts[-1]) is not None


class Package(NamedTuple):
    """A distribution, or the standard library."""

    root: Path
    repo: str
    version: str
    license: str
    license_how: str


def raw_files(source: EnvironmentSource) -> Iterator[RawFile]:
    """Every file the source offers, in fair order; only their names are held in memory.

    Raises:
        InputError: a package that is named is not installed.
    """
    packages: list[Package] = []
    order: list[tuple[bytes, int, str]] = []
    listed = [_stdlib()] if source.stdlib else []
    for package, paths in itertools.chain(listed, map(_package, _distributions(source))):
        order += [(fair_order(package.repo, clean_path(path)), len(packages), path) for path in paths]
        packages.append(package)
    order.sort()
    return (_raw(packages[package], path) for _, package, path in order)


def _distributions(source: EnvironmentSource) -> list[metadata.Distribution]:
    installed = {canonical(found.metadata["Name"]): found for found in metadata.distributions() if found.metadata["Name"]}
    excluded = {canonical(name) for name in source.exclude}
    names = sorted(installed) if source.packages == "all" else [canonical(name) for name in source.packages]
    for name in names:
        if name not in installed:
            raise InputError(f"package {name} is not installed: run `pip install {name}` or take it out of ingest.sources in params.yaml")
    return [installed[name] for name in names if name not in excluded]


def _package(distribution: metadata.Distribution) -> tuple[Package, Iterator[str]]:
    license_id, how = of_distribution(distribution)
    root = Path(str(distribution.locate_file("")))
    own = (entry for entry in distribution.files or () if "__pycache__" not in entry.parts and ".dist-info" not in entry.parts[0])
    paths = (path for path in (entry.as_posix() for entry in own) if not path.startswith(("..", "/")))  # not the scripts of pip
    return Package(root, canonical(distribution.metadata["Name"]), distribution.version, license_id, how), paths


def _stdlib() -> tuple[Package, Iterator[str]]:
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "__pycache__", "lib-dynload", "ensurepip"}
    files = (file.relative_to(root) for file in root.rglob("*.py"))
    paths = (path.as_posix() for path in files if skipped.isdisjoint(path.parts) and not path.parts[0].startswith("config-"))
    return Package(root, "cpython", platform.python_version(), "PSF-2.0", "metadata"), paths


def _raw(package: Package, path: str) -> RawFile:
    file, refuse, size = package.root / path, "test" if is_test(path) else "", 0
    try:
        state = file.stat()  # through links: some installers put a link to their cache here
        size = state.st_size
        refuse = refuse or ("" if stat.S_ISREG(state.st_mode) else "special_file")
    except OSError:
        refuse = "unreadable"
    _, repo, version, license_id, how = package
    named, read = clean_path(path), functools.partial(read_file, file, size, follow=True)
    return RawFile(named, repo, version, "environment", platform.python_version(), license_id, how, lang_of(named), size, read, refuse)
