"""What a program sees of the file system: the standard library, shared libraries, numpy and a few devices, all read-only.

In:  a mount namespace of our own
Out: a new root on a tmpfs; home directories, checkouts, /etc, /proc and /sys are not in it

numpy is there because the published evaluator's own environment has it; no other package is.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

from eval.sandbox import kernel

PACKAGES = "/packages"  # where numpy stands in the new root
SCRATCH = "/tmp"  # each program gets a fresh one there
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
SIZES = "size=64m,nr_inodes=2048,mode=1777"  # of a program's /tmp


def standard_library() -> list[str]:
    """Folders of the interpreter's own modules."""
    return sorted({path for path in (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")) if Path(path).is_dir()})


def numpy_of(packages: str) -> list[str]:
    """Folders of numpy in a site-packages folder."""
    return [path for name in ("numpy", "numpy.libs") if Path(path := f"{packages}/{name}").is_dir()]


def readable(packages: str) -> list[str]:
    """Every path that a program may read, at its place outside."""
    return [*standard_library(), *numpy_of(packages), *LIBRARIES, *DEVICES]


def link(packages: str, links: str) -> None:
    """Make a folder with links to numpy and put it on the path, for programs that see the machine's own root."""
    Path(links).mkdir()
    for path in numpy_of(packages):
        Path(links, Path(path).name).symlink_to(path)
    sys.path.append(links)


def enter(packages: str) -> None:
    """Change to the new root. Imports of the standard library and of numpy go on working.

    Args:
        packages: the site-packages folder that may hold numpy.

    Raises:
        OSError: the kernel refuses a step; the old root is still in place then.
    """
    kernel.mount("none", "/", "", kernel.REC | kernel.PRIVATE)
    sources = [(path, path) for path in [*standard_library(), *LIBRARIES, *DEVICES]]
    sources += [(path, f"{PACKAGES}/{Path(path).name}") for path in numpy_of(packages)]
    opened = [(os.open(path, os.O_PATH | os.O_NOFOLLOW), path, place) for path, place in sources if os.path.lexists(path)]
    kernel.mount("tmpfs", SCRATCH, "tmpfs", kernel.NOSUID | kernel.NODEV, "size=1m,mode=755")
    try:
        for folder, path, place in opened:  # through descriptors: a source below /tmp is hidden by now
            _show(folder, Path(path), Path(SCRATCH + place))
        for place in (SCRATCH, PACKAGES):
            Path(SCRATCH + place).mkdir(exist_ok=True)
        os.chdir(SCRATCH)
        kernel.pivot_root_here()
    except OSError:
        os.chdir("/")
        kernel.call("umount2", SCRATCH.encode(), kernel.DETACH)
        raise
    finally:
        for folder, _, _ in opened:
            os.close(folder)
    kernel.mount("none", "/", "", kernel.REMOUNT | kernel.BIND | kernel.RDONLY | kernel.NOSUID | kernel.NODEV)
    sys.path = [path for path in sys.path if Path(path).exists()] + [PACKAGES]


def _show(source: int, path: Path, place: Path) -> None:
    """Bind one source read-only at its place; a link is made again instead."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        return place.symlink_to(path.readlink())
    if place.exists():
        return None  # within a folder that is there already
    if device := str(path) in DEVICES:
        place.touch()
    else:
        place.mkdir()
    kernel.mount(f"/proc/self/fd/{source}", str(place), "", kernel.BIND | kernel.REC)
    flags = kernel.NOSUID | (0 if device else kernel.NODEV | kernel.RDONLY)
    kept = os.statvfs(place).f_flag & (kernel.NOSUID | kernel.NODEV | kernel.NOEXEC)  # a namespace may not lift these
    kernel.mount("none", str(place), "", kernel.REMOUNT | kernel.BIND | flags | kept)
    return None


def fresh_scratch() -> None:
    """An empty /tmp for one program, in a mount namespace of its own; it goes when the program's last process ends."""
    kernel.mount("tmpfs", SCRATCH, "tmpfs", kernel.NOSUID | kernel.NODEV, SIZES)
