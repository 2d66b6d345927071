"""Code that is installed in this environment: the standard library and packages, read where they lie.

In:  an EnvironmentSource
Out: RawFiles; repo is the distribution's canonical name, repo_rev its version, the licence from its metadata

Tests are turned down (they are near-copies of each other), as is what pip did not install as a file of the package.
"""

from __future__ import annotations

import platform
import re
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath

from core.errors import InputError
from core.syntax import lang_of
from phase1_data.license import of_distribution
from phase1_data.params import EnvironmentSource
from phase1_data.sources import RawFile, clean_path, fair_order

TEST_FOLDERS = frozenset({"test", "tests", "idle_test", "test_data", "testdata"})
TEST_FILE = re.compile(r"(test_.*|.*_test|conftest)\.py")


def canonical(name: str) -> str:
    """A distribution's name as PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def is_test(path: str) -> bool:
    """Whether a path of an installed package is one of its tests."""
    parts = PurePosixPath(path).parts
    return not TEST_FOLDERS.isdisjoint(parts[:-1]) or TEST_FILE.fullmatch(parts[-1]) is not None


def raw_files(source: EnvironmentSource) -> list[RawFile]:
    """Every file the source offers, in fair order.

    Raises:
        InputError: a package that is named is not installed.
    """
    files = list(_stdlib()) if source.stdlib else []
    for distribution in _distributions(source):
        files += _package(distribution)
    return sorted(files, key=fair_order)


def _distributions(source: EnvironmentSource) -> list[metadata.Distribution]:
    installed = {canonical(found.metadata["Name"]): found for found in metadata.distributions() if found.metadata["Name"]}
    excluded = {canonical(name) for name in source.exclude}
    names = sorted(installed) if source.packages == "all" else [canonical(name) for name in source.packages]
    for name in names:
        if name not in installed:
            raise InputError(f"package {name} is not installed: run `pip install {name}` or take it out of ingest.sources in params.yaml")
    return [installed[name] for name in names if name not in excluded]


def _package(distribution: metadata.Distribution) -> Iterator[RawFile]:
    license_id, how = of_distribution(distribution)
    name, version = canonical(distribution.metadata["Name"]), distribution.version
    for entry in distribution.files or ():
        path = clean_path(entry.as_posix())
        if path.startswith(("..", "/")) or "__pycache__" in entry.parts or ".dist-info" in entry.parts[0]:
            continue  # scripts, bytecode and metadata that pip wrote: no source of the package
        yield _raw(path, name, version, license_id, how, Path(str(distribution.locate_file(entry))))


def _stdlib() -> Iterator[RawFile]:
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "__pycache__", "lib-dynload", "ensurepip"}
    for file in sorted(root.rglob("*.py")):
        path = file.relative_to(root)
        if skipped.isdisjoint(path.parts) and not path.parts[0].startswith("config-"):
            yield _raw(path.as_posix(), "cpython", platform.python_version(), "PSF-2.0", "metadata", file)


def _raw(path: str, repo: str, version: str, license_id: str, how: str, file: Path) -> RawFile:
    refuse = "test" if is_test(path) else ""
    try:
        size = file.stat().st_size
    except OSError:
        size, refuse = 0, "unreadable"
    return RawFile(
        path, repo, version, "environment", platform.python_version(), license_id, how, lang_of(path), size, file.read_bytes, refuse
    )
