"""A filter of system calls: no new process, no other program, no socket, none of the kernel's less trodden doors.

In:  nothing
Out: the calling thread and its children get EPERM for what is listed here (ENOSYS for clone3, so that threads fall back to clone)

Threads, files, pipes, timers and signals stay as they are. Numbers are those of x86_64 and aarch64; another machine goes without.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import platform
import struct

from eval.sandbox import kernel

ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h

# name: (x86_64, aarch64); None where it does not exist
DENIED: dict[str, tuple[int | None, int | None]] = {
    # processes and programs
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424),
    # network; socketpair stays, event loops need it
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202), "accept4": (288, 242),
    # namespaces, mounts, other roots
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    # memory that outlives the process, or that no limit of ours counts
    "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    # the kernel's less trodden doors
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "fanotify_init": (300, 262), "personality": (135, 92),
    # the machine
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89),
    "quotactl": (179, 60), "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "syslog": (103, 116),
    "sethostname": (170, 161), "setdomainname": (171, 162), "iopl": (172, None), "ioperm": (173, None), "vhangup": (153, 58),
}  # fmt: skip
SIGNALS = {"kill": (62, 129), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240)}
CLONE, CLONE3, TGKILL = (56, 220), (435, 435), (234, 131)
CLONE_THREAD = 0x00010000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # linux/bpf_common.h
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000  # linux/seccomp.h
_NUMBER, _ARCHITECTURE, _ARGUMENT = 0, 4, 16  # offsets in seccomp_data
_X32 = 0x40000000  # numbers from here on are x32's second table


@functools.cache
def instructions(machine: str, pid: int | None) -> bytes:
    """The filter as BPF.

    Args:
        pid: where given, the only process that may be signalled: this one. None: process ids are its own (a pid namespace).
    """
    column = 0 if machine == "x86_64" else 1
    no = _ERRNO | errno.EPERM
    code = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, ARCHITECTURE[machine]), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]

    def deny(number: int | None, answer: int = no) -> None:
        if number is not None:
            code.extend([(_EQUAL, 0, 1, number), (_RETURN, 0, 0, answer)])

    if machine == "x86_64":
        code += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, no)]
    for numbers in [*DENIED.values(), *(SIGNALS.values() if pid is not None else ())]:
        deny(numbers[column])
    deny(CLONE3[column], _ERRNO | errno.ENOSYS)
    code += [(_EQUAL, 0, 4, CLONE[column]), (_LOAD, 0, 0, _ARGUMENT), (_ANY_BIT, 1, 0, CLONE_THREAD), (_RETURN, 0, 0, no)]
    code += [(_RETURN, 0, 0, _ALLOW)]
    if pid is not None:  # abort() signals its own process
        code += [(_EQUAL, 0, 3, TGKILL[column]), (_LOAD, 0, 0, _ARGUMENT), (_EQUAL, 1, 0, pid), (_RETURN, 0, 0, no)]
    code += [(_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("HBBI", *one) for one in code)


def install(pid: int | None) -> None:
    """Put the filter on this thread and all that it starts.

    Raises:
        OSError: no seccomp here, or a machine whose numbers we do not know.
    """
    machine = platform.machine()
    if machine not in ARCHITECTURE:
        raise OSError(errno.ENOSYS, f"no table of system calls for {machine}")
    code = instructions(machine, pid)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer)))
    kernel.prctl(kernel.NO_NEW_PRIVS, 1)
    kernel.call("prctl", kernel.SECCOMP, ctypes.c_ulong(2), program)  # 2: SECCOMP_MODE_FILTER
