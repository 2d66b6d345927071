"""What every source hands to ingest, whatever it read.

In:  -
Out: RawFile: a file before anyone judged it; its bytes are fetched only after its size and language were accepted
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class RawFile:
    """A candidate; `refuse` names why the source itself turns it down ("" if it does not)."""

    path: str
    repo: str
    repo_rev: str
    source: str
    source_rev: str
    license: str
    license_how: str
    lang: str | None
    size: int  # bytes
    read: Callable[[], bytes | str]
    refuse: str = ""


def fair_order(file: RawFile) -> str:
    """Sort key that is random but the same everywhere: a limit then takes a fair sample, not the first letters."""
    return hashlib.sha256(f"{file.repo}/{file.path}".encode(errors="replace")).hexdigest()


def clean_path(path: str) -> str:
    """A path as valid Unicode; names that are not UTF-8 get replacement characters."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
