"""Landlock: which files a process may touch, without privileges and without namespaces (Linux 5.13 and later).

In:  folders to read, one folder to write
Out: every other path is refused to the calling thread and its children; with newer kernels also TCP, and signals to processes outside
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from pathlib import Path

from eval.sandbox import kernel

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same on every machine
_EXECUTE, _READ_FILE, _READ_DIR, _IOCTL = 1 << 0, 1 << 2, 1 << 3, 1 << 15
READ = _EXECUTE | _READ_FILE | _READ_DIR


def version() -> int:
    """Version of the interface; 0 where there is none."""
    try:
        return kernel.syscall(_CREATE, None, 0, 1)
    except OSError:
        return 0


def handled(abi: int) -> tuple[int, int, int]:
    """Bits of (file system, network, scope) that this version can refuse."""
    files = (1 << 13) - 1
    for since, bit in ((2, 13), (3, 14), (5, 15)):  # moving between folders, truncating, ioctl of devices
        files |= (1 << bit) if abi >= since else 0
    return files, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0


def restrict(readable: list[str], writable: str) -> None:
    """Leave the calling thread these folders and nothing else.

    Raises:
        OSError: no Landlock here.
    """
    abi = version()
    if not abi:
        raise OSError(errno.ENOSYS, "no Landlock")
    files, network, scope = handled(abi)
    rules = struct.pack("QQQ", files, network, scope)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = kernel.syscall(_CREATE, ctypes.create_string_buffer(rules, len(rules)), len(rules), 0)
    try:
        for path in readable:
            _allow(ruleset, path, READ)
        _allow(ruleset, writable, files & ~(_EXECUTE | _IOCTL))
        kernel.prctl(kernel.NO_NEW_PRIVS, 1)
        kernel.syscall(_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not there: nothing to read
    try:
        if not Path(path).is_dir():
            access &= _EXECUTE | 1 << 1 | _READ_FILE | 1 << 14
        kernel.syscall(_ADD, ruleset, 1, ctypes.create_string_buffer(struct.pack("=Qi", access, folder), 12), 0)
    finally:
        os.close(folder)
