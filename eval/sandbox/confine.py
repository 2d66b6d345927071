"""What a worker and the programs in it may do, and which of it this machine lets us hold.

In:  a process that just started
Out: `spaces`: the same process in namespaces of its own; `program`: a child that has lost everything it does not need

Every level is tried by itself; one that the kernel refuses is left out, and the report names those that held.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from eval.sandbox import kernel, landlock, seccomp, view

SPACES = {"mount": kernel.NEWNS, "ipc": kernel.NEWIPC, "uts": kernel.NEWUTS, "net": kernel.NEWNET, "pid": kernel.NEWPID}
NOBODY = 65534  # outside; 1 inside
FILE_BYTES, OPEN_FILES, THREADS = 16 << 20, 64, 64


class Limits(NamedTuple):
    """What one program may use."""

    seconds: float  # wall clock, of check and program together
    memory: int  # bytes of address space, each


class Worker(NamedTuple):
    """How a worker is boxed in; the same for all its programs."""

    spaces: tuple[str, ...]  # namespaces that it has of its own
    view: bool  # whether it sees the small root of `view`
    nobody: bool  # whether its programs are to change to an unprivileged user
    pid_space: int  # descriptor of its pid namespace, -1 without one
    packages: str  # site-packages folder, as outside
    links: str  # folder of links to what a program may import of it, where there is no view


def _map(child: int) -> bool:
    """Give the child's user namespace its ids, from outside: us as 0, and for root an unprivileged user as 1, if there is one."""
    root = os.geteuid() == 0
    for extra in ([f"1 {NOBODY} 1\n"] if root else []) + [""]:
        try:
            if not root:
                Path(f"/proc/{child}/setgroups").write_text("deny")
            Path(f"/proc/{child}/gid_map").write_text(f"0 {os.getegid()} 1\n{extra}")
            Path(f"/proc/{child}/uid_map").write_text(f"0 {os.geteuid()} 1\n{extra}")
            return True
        except OSError:
            continue
    return False


def _inside(user: bool) -> tuple[str, ...] | None:
    """Go on as a child in namespaces of its own: there, return which it has; here, None if that failed, else leave when it has left."""
    (asks, asked), (tells, told) = os.pipe(), os.pipe()
    if child := os.fork():
        os.close(asked)
        if os.read(asks, 1) == b"?":
            os.write(told, b"y" if _map(child) else b"n")
        entered = os.read(asks, 1) == b"!"
        _, status = os.waitpid(child, 0)
        for end in (asks, tells, told):
            os.close(end)
        if not entered:
            return None
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    try:
        if user:
            kernel.call("unshare", kernel.NEWUSER)
        os.write(asked, b"?" if user else b"-")
        if user and os.read(tells, 1) != b"y":
            os._exit(1)
        held = ["user"] * user
        for name, flag in SPACES.items():
            with contextlib.suppress(OSError):
                kernel.call("unshare", flag)
                held.append(name)
        kernel.prctl(kernel.PDEATHSIG, signal.SIGKILL)
        os.write(asked, b"!")
        for end in (asks, asked, tells, told):
            os.close(end)
        if "pid" in held and (inner := os.fork()):
            _, status = os.waitpid(inner, 0)
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
        kernel.prctl(kernel.PDEATHSIG, signal.SIGKILL)
    except OSError:
        os._exit(1)
    return tuple(held)


def spaces(packages: str, links: str, without: frozenset[str] = frozenset()) -> Worker:
    """Move this process into namespaces of its own, as far as the kernel lets us; what comes back runs in the innermost.

    Args:
        packages: site-packages folder that may hold numpy.
        links: folder to make where programs cannot get a view of their own, with links to numpy.
        without: levels to leave out, to see how the others hold.
    """
    held: tuple[str, ...] = ()
    if sys.platform == "linux" and "namespaces" not in without:
        held = ("user" not in without and _inside(user=True)) or _inside(user=False) or ()
    pid_space, seen = -1, False
    nobody = "user" in held and len(Path("/proc/self/uid_map").read_text().splitlines()) == 2
    if "pid" in held:
        pid_space = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    if "mount" in held and "view" not in without:
        with contextlib.suppress(OSError):
            view.enter(packages)
            seen = True
    with contextlib.suppress(OSError):
        kernel.prctl(kernel.CHILD_SUBREAPER, 1)  # who leaves his family comes to us and is ended too
        kernel.prctl(kernel.DUMPABLE, 0)  # the programs, of the same user, may not look into us
    if not seen:
        view.link(packages, links)
    # nobody only within the view: outside, the interpreter may lie in a closed home
    return Worker(held, seen, nobody and seen, pid_space, packages, links)


def fork(worker: Worker, child: Callable[[], None], trusted: bool) -> int:
    """Run `child` in a new process; return its pid. One that is not trusted is process 1 of its own pid namespace, where there are any."""
    apart = worker.pid_space >= 0 and not trusted
    if apart:
        kernel.call("unshare", kernel.NEWPID)
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):  # whatever went wrong, who waits for this process sees its end
            child()
        os._exit(0)
    if apart:
        kernel.call("setns", worker.pid_space, kernel.NEWPID)  # the next child gets a fresh one again
    return pid


def program(
    worker: Worker, limits: Limits, folder: str, keep: tuple[int, ...], trusted: bool, without: frozenset[str] = frozenset()
) -> list[str]:
    """Take everything from this process that a program does not need; return what held besides the namespaces.

    Args:
        trusted: a check: it needs no /tmp of its own, and namespaces cost time.
        folder: its working directory where it cannot have a /tmp of its own.
        keep: descriptors that stay open; they become 3, 4 and so on. 0, 1 and 2 lead nowhere.
    """
    os.setsid()
    os.umask(0o077)
    if worker.view and not trusted:
        kernel.call("unshare", kernel.NEWNS | kernel.NEWIPC)
        view.fresh_scratch()
    os.chdir(folder)
    _descriptors(keep)
    _limit(limits)
    if worker.nobody:
        os.setgroups([])
        os.setresgid(1, 1, 1)
        os.setresuid(1, 1, 1)
    if sys.platform == "linux" and "pid" not in worker.spaces:
        kernel.prctl(kernel.PDEATHSIG, signal.SIGKILL)
    held = ["resource limits"] + ["unprivileged user"] * worker.nobody + ["read-only root"] * worker.view
    pid = None if worker.pid_space >= 0 and not trusted else os.getpid()
    layers: dict[str, Callable[[], None]] = {
        "no capabilities": kernel.drop_capabilities,
        "landlock": lambda: landlock.restrict([*view.readable(worker.packages), worker.links], folder),
        "seccomp": lambda: seccomp.install(pid),
    }
    for name, layer in layers.items():
        if name not in without and not (name == "landlock" and worker.view):  # the root says the same, and faster
            with contextlib.suppress(OSError):
                layer()
                held.append(name)
    return held


def _descriptors(keep: tuple[int, ...]) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    high = [os.dup(one) for one in keep]  # out of the way first
    for place in (0, 1, 2):
        os.dup2(nowhere, place)
    moved = [os.dup2(one, 40 + at) for at, one in enumerate(high)]
    os.closerange(3, 40)
    for at, one in enumerate(moved):
        os.dup2(one, 3 + at)
    os.closerange(3 + len(keep), 1024)


def _limit(limits: Limits) -> None:
    cpu = int(limits.seconds) + 1
    for name, soft, hard in (
        ("CPU", cpu, cpu + 1),
        ("AS", limits.memory, limits.memory),
        ("FSIZE", FILE_BYTES, FILE_BYTES),
        ("NOFILE", OPEN_FILES, OPEN_FILES),
        ("NPROC", THREADS, THREADS),
        ("CORE", 0, 0),
        ("MEMLOCK", 0, 0),
        ("MSGQUEUE", 0, 0),
    ):
        if which := getattr(resource, f"RLIMIT_{name}", None):
            with contextlib.suppress(OSError, ValueError):
                ceiling = resource.getrlimit(which)[1]
                low = soft if ceiling == resource.RLIM_INFINITY else min(soft, ceiling)
                resource.setrlimit(which, (low, hard if ceiling == resource.RLIM_INFINITY else min(hard, ceiling)))
