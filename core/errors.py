"""Errors a user sees: one line that names what is wrong and the next command, and a documented exit code.

In:  any exception a command raises
Out: `error: <one line>` on stderr and the exit code of its class

    TabsmithError      1   anything else that we foresaw
    +- InputError      2   a file, folder, key or value that was given is missing, empty or wrong
    +- AccessError     3   gated, offline or refused by another service
    +- CheckFailed     4   the work was done and did not pass a check of ours (residual secret, too many rejects)
    +- MachineError    5   this machine lacks something: CUDA, a compiler, llama-server, a port, disk, memory
    +- Stopped        75   stopped by a signal; the same command goes on from there
"""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Iterator


class TabsmithError(Exception):
    """A foreseen failure. The message is one line and ends in what to do next."""

    exit_code = 1


class InputError(TabsmithError):
    """What the user gave is missing, empty or wrong."""

    exit_code = 2


class AccessError(TabsmithError):
    """A service said no, or cannot be reached."""

    exit_code = 3


class CheckFailed(TabsmithError):
    """A check of ours did not pass."""

    exit_code = 4


class MachineError(TabsmithError):
    """This machine lacks something that the command needs."""

    exit_code = 5


class Stopped(TabsmithError):
    """A signal ended the work at a point from which it can go on."""

    exit_code = 75


def one_line(text: object) -> str:
    """The text with its line breaks folded, so that an error is one line wherever it is printed."""
    return " ".join(str(text).split())


@contextlib.contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Print a foreseen failure as one line and leave with its exit code; let bugs keep their traceback.

    Raises:
        SystemExit: with the failure's exit code; 5 for a full disk or a file system's limit; 75 for Ctrl-C.
    """
    try:
        yield
    except TabsmithError as error:
        _leave(f"error: {one_line(error)}", error.exit_code)
    except KeyboardInterrupt:
        _leave("stopped; run the same command to go on", Stopped.exit_code)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _leave(f"error: no space left while writing {error.filename or 'a file'}: free some and rerun", MachineError.exit_code)
        if error.errno == errno.EFBIG:
            _leave(
                f"error: {error.filename or 'a file'} would be larger than allowed here (`ulimit -f`, or FAT's 4 GB)",
                MachineError.exit_code,
            )
        if error.errno in (errno.EACCES, errno.EROFS, errno.EISDIR, errno.ENOTDIR):
            _leave(f"error: {one_line(error)}: check the path and its permissions", InputError.exit_code)
        raise


def _leave(line: str, code: int) -> None:
    print(line, file=sys.stderr, flush=True)
    raise SystemExit(code) from None
