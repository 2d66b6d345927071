"""What every source hands to ingest, whatever it read.

In:  -
Out: RawFile: a file before anyone judged it; its bytes are fetched only after its size and language were accepted
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # control characters, line separators, bytes that are no UTF-8


class Refused(Exception):
    """A file that cannot be used: reason and value as they go into rejects.parquet."""

    def __init__(self, reason: str, value: str = "") -> None:
        self.reason, self.value = reason, value


@dataclass(frozen=True)
class RawFile:
    """A candidate; `refuse` names why the source itself turns it down ("" if it does not), `detail` what there is to say of it."""

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
    detail: str = ""
    read_as: str = "utf8"  # how text came to be that is no bytes any more


def fair_order(repo: str, path: str) -> bytes:
    """Sort key that is random but the same everywhere: a limit then takes a fair sample, not the first letters."""
    return hashlib.sha256(f"{repo}/{path}".encode(errors="replace")).digest()


def clean_path(path: str) -> str:
    """A path as one line of valid Unicode: control characters and bytes that are no UTF-8 become replacement characters."""
    return _UNPRINTABLE.sub("\ufffd", path)


def read_file(file: Path, size: int, follow: bool = False) -> bytes:
    """The content of a plain file that had `size` bytes when it was looked at.

    Whatever stands at the path by now, this returns: a pipe does not block it, a link leads nowhere, and no more than one byte
    past the size is read.

    Args:
        follow: go through a link.

    Raises:
        Refused: changed_while_read (it is another file, gone, or has another size), unreadable.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        with os.fdopen(os.open(file, flags), "rb") as opened:
            before = os.fstat(opened.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise Refused("changed_while_read", "no plain file any more")
            data = opened.read(size + 1)
            after = os.fstat(opened.fileno())
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENOTDIR):
            raise Refused("changed_while_read", error.strerror or "") from None
        raise Refused("unreadable", error.strerror or "") from None
    if len(data) != size or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise Refused("changed_while_read", "another size" if len(data) != size else "another time")
    return data
