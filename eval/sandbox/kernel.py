"""The Linux system calls that Python's standard library lacks, through ctypes.

In:  numbers and paths
Out: OSError where the kernel refuses, also on a system that is not Linux
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys

# linux/sched.h
NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
# linux/prctl.h
PDEATHSIG, DUMPABLE, SECCOMP, CAPBSET_DROP, CHILD_SUBREAPER, NO_NEW_PRIVS = 1, 4, 22, 24, 36, 38
# linux/mount.h
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, REC, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_PIVOT_ROOT, _CAPSET = {"x86_64": (155, 126), "aarch64": (41, 91)}.get(platform.machine(), (-1, -1))


def call(name: str, *args: object) -> int:
    """A function of the C library; -1 becomes the OSError that errno names."""
    if _libc is None:
        raise OSError(errno.ENOSYS, f"{name}: not Linux")
    found = getattr(_libc, name)(*args)
    if found == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return int(found)


def syscall(number: int, *args: object) -> int:
    """A system call by its number; integers go as 64 bits."""
    if number < 0:
        raise OSError(errno.ENOSYS, f"system call not known on {platform.machine()}")
    return call("syscall", ctypes.c_long(number), *(ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args))


def prctl(option: int, value: object = 0) -> None:
    """prctl(2) with one argument; the kernel wants zeros for the others."""
    call("prctl", option, ctypes.c_ulong(value) if isinstance(value, int) else value, *(ctypes.c_ulong(0),) * 3)


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """mount(2)."""
    call("mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())


def pivot_root_here() -> None:
    """Make the working directory the root and let go of the old one."""
    syscall(_PIVOT_ROOT, b".", b".")
    call("umount2", b".", DETACH)
    os.chdir("/")


def drop_capabilities() -> None:
    """Give up every capability for good: the sets of this process and what an exec could bring back."""
    for capability in range(64):
        try:
            prctl(CAPBSET_DROP, capability)
        except OSError:  # not permitted, or past the last one
            break
    prctl(NO_NEW_PRIVS, 1)
    syscall(_CAPSET, (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())  # _LINUX_CAPABILITY_VERSION_3
