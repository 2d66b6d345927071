"""What the published evaluator takes from a program before it runs it: the same here, so that verdicts agree.

Source: openai/human-eval-infilling, execution.py: names set to None, modules hidden, standard streams that swallow what is written
and cannot be read. None of it protects anything; `confine` does.
"""

from __future__ import annotations

import builtins
import io
import os
import shutil
import subprocess
import sys

OS = [
    "kill", "system", "putenv", "remove", "removedirs", "rmdir", "fchdir", "setuid", "fork", "forkpty", "killpg", "rename", "renames",
    "truncate", "replace", "unlink", "fchmod", "fchown", "chmod", "chown", "chroot", "lchflags", "lchmod", "lchown", "getcwd", "chdir",
]  # fmt: skip
MODULES = ("ipdb", "joblib", "resource", "psutil", "tkinter")


class Swallow(io.StringIO):
    """A stream that keeps nothing and gives nothing."""

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"string argument expected, got {type(text).__name__!r}")
        return len(text)

    def read(self, size: int | None = -1) -> str:
        raise OSError

    readline = readlines = read  # type: ignore[assignment]

    def readable(self) -> bool:
        return False


def withdraw() -> None:
    """Take it from this process."""
    for name in ("exit", "quit", "help"):
        setattr(builtins, name, None)
    for module, names in ((os, OS), (shutil, ("rmtree", "move", "chown")), (subprocess, ("Popen",))):
        for name in names:
            setattr(module, name, None)
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    sys.stdin = sys.stdout = sys.stderr = Swallow()
