"""The program that doctests.py starts: it locks itself in, then runs somebody else's file. Standard library only.

In:  `probe`, or `run <descriptor>` and a JSON task on standard input
Out: on the descriptor `<nonce> ready`, then `<nonce> passed|failed|none`; not the latter where the file ended the program
"""

from __future__ import annotations

import ctypes
import doctest
import json
import os
import platform
import resource
import struct
import sys
import types
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
SIGKILL = 9
CAPSET = {"x86_64": 126, "aarch64": 91}
CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
SECONDS, MEMORY, FILE, OPEN = 4, 512 * 2**20, 2**20, 32  # seconds of processor time, bytes, bytes, descriptors

# New processes, other programs, sockets, shared memory, signals, tracing, mounts; owners, modes and times of files, which Landlock
# leaves alone; limits, priorities, other ways to the same. Python and the C library live without them (asm/unistd_64.h,
# asm-generic/unistd.h); 424 and up are the same everywhere.
EVERYWHERE = (424, 425, 428, 429, 430, 432, 434, 435, 438, 442, 452)
DENIED = {
    "x86_64": (
        57, 58, 56, 59, 322, 41, 53, 29, 64, 68, 62, 200, 234, 129, 297, 101, 310, 311, 308, 272, 165, 166, 161, 155, 321, 250, 298, 323,
        90, 91, 268, 92, 93, 94, 260, 132, 235, 261, 280, 188, 189, 190, 197, 198, 199, 160, 302, 141, 203, 144, 142, 314, 251, 227, 305,
    ),
    "aarch64": (
        220, 221, 281, 198, 199, 194, 190, 186, 129, 130, 131, 138, 240, 117, 270, 271, 268, 97, 40, 39, 51, 41, 280, 219, 241, 282,
        52, 53, 54, 55, 88, 5, 6, 7, 14, 15, 16, 164, 261, 140, 122, 118, 119, 274, 30, 112, 266,
    ),
}  # fmt: skip
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*
X32 = 0x40000000  # x86_64 numbers from here on are the same calls under another number
LD, JEQ, JGE, RET = 0x20, 0x15, 0x35, 0x06  # BPF: load word, jump if equal, jump if not below, return
ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
EPERM = 1

READ = 4 | 8  # landlock: read a file, list a folder
WRITE = 2 | 0x1FF0 | 1 << 14  # write a file, make and remove any kind of entry, truncate (execute, 1, is never given back)

libc = ctypes.CDLL(None, use_errno=True)


def unshare_network() -> bool:
    """A network namespace of one's own, through a user namespace, in which root is nobody, where that is allowed."""
    return libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0 or libc.unshare(CLONE_NEWNET) == 0


def drop_capabilities() -> None:
    """What root may do and others may not; nothing changes for others."""
    header = struct.pack("Ii", CAPABILITY_VERSION, 0)
    _checked(libc.syscall(CAPSET[platform.machine()], header, bytes(24)))


def limit() -> None:
    """Processor time, memory, file size, open files, processes."""
    for what, most in (
        (resource.RLIMIT_CPU, SECONDS), (resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_FSIZE, FILE), (resource.RLIMIT_NOFILE, OPEN),
        (resource.RLIMIT_CORE, 0), (resource.RLIMIT_NPROC, 0),
    ):  # fmt: skip
        resource.setrlimit(what, (most, most))


def confine_files(readable: list[str], writable: str) -> None:
    """Landlock: no file but these. Raises OSError where the kernel refuses."""
    abi = libc.syscall(444, None, 0, 1)
    rights = (1 << {1: 13, 2: 14}.get(abi, 15)) - 1  # refer from version 2, truncate from 3
    attributes = struct.pack("Q", rights)
    ruleset = _checked(libc.syscall(444, attributes, len(attributes), 0))
    for path, allowed in [*((path, READ) for path in readable), (writable, READ | WRITE)]:
        try:
            at = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        allowed &= rights if Path(path).is_dir() else rights & 0b110
        _checked(libc.syscall(445, ruleset, 1, struct.pack("=Qi", allowed, at), 0))
        os.close(at)
    _checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(libc.syscall(446, ruleset, 0))
    os.close(ruleset)


def deny_calls() -> None:
    """seccomp: the calls of DENIED fail with EPERM. Raises OSError where the kernel refuses."""
    machine = platform.machine()
    denied = EVERYWHERE + DENIED[machine]
    filters = [(LD, 0, 0, 4), (JEQ, 1, 0, ARCH[machine]), (RET, 0, 0, KILL), (LD, 0, 0, 0)]
    if machine == "x86_64":
        filters += [(JGE, 0, 1, X32), (RET, 0, 0, KILL)]
    for place, number in enumerate(denied):
        filters.append((JEQ, len(denied) - place, 0, number))
    filters += [(RET, 0, 0, ALLOW), (RET, 0, 0, ERRNO | EPERM)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in filters))
    program = struct.pack("HxxxxxxP", len(filters), ctypes.addressof(code))
    _checked(libc.prctl(PR_SET_SECCOMP, 2, ctypes.c_char_p(program), 0, 0))


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def run_doctests(text: str, name: str) -> str:
    """passed | failed | none (there is no example)."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    module.__file__ = f"{name}.py"
    exec(compile(text, f"{name}.py", "exec", dont_inherit=True), module.__dict__)
    failed, attempted = doctest.testmod(module, name=name, report=False, verbose=False)
    return "failed" if failed else "passed" if attempted else "none"


def main() -> None:
    """Read the task, lock in, run, answer."""
    if sys.argv[1] == "probe":
        print("unshared" if unshare_network() else "shared")
        return
    pipe, task = int(sys.argv[2]), json.loads(sys.stdin.buffer.read())
    library = str(Path(os.__file__).parent)
    platform.machine()  # asks the kernel once; cached
    libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    unshare_network()
    limit()
    drop_capabilities()
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    confine_files([library, "/dev/null", "/dev/urandom", "/etc/ld.so.cache", "/lib", "/lib64", "/usr/lib"], task["folder"])
    deny_calls()
    os.write(pipe, f"{task['nonce']} ready\n".encode())
    try:
        result = run_doctests(task["text"], task["name"])
    except BaseException:  # noqa: BLE001  # whatever somebody else's file raises, SystemExit too
        result = "failed"
    os.write(pipe, f"{task['nonce']} {result}\n".encode())
    os._exit(0)


if __name__ == "__main__":
    main()
