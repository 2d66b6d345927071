"""Runs a program that must not outlive whoever started it; executed as a script, before anything of ours is imported.

In:  argv: pid of the starter, then the program and its arguments; stdin: a pipe that the starter holds open
Out: the program, in this process on Linux (the kernel ends it with its parent); elsewhere as a child that is ended
     when the pipe closes
"""

import os
import subprocess
import sys
import threading

PR_SET_PDEATHSIG, SIGKILL = 1, 9  # <sys/prctl.h>, <signal.h>


def become(parent: int, program: list[str]) -> None:
    """Ask the kernel to end this process with its parent, then turn into the program."""
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the call
        sys.exit(1)
    os.execv(program[0], program)


def guard(program: list[str]) -> int:
    """Run the program as a child; end it when stdin closes."""
    child = subprocess.Popen(program, stdin=subprocess.DEVNULL)

    def end_with_the_pipe() -> None:
        while os.read(0, 1024):
            pass
        child.kill()

    threading.Thread(target=end_with_the_pipe, daemon=True).start()
    return child.wait()


if __name__ == "__main__":
    if sys.platform == "linux":
        become(int(sys.argv[1]), sys.argv[2:])
    sys.exit(guard(sys.argv[2:]))
