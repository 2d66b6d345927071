"""Where llama-server is, and the command that runs it.

In:  the environment, this Python's folders, PATH; a model file and the serve section
Out: the path of an executable; an argument list
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from core.errors import MachineError
from phase4_serve.params import ServeParams

NAME = "llama-server"


def find() -> Path:
    """The llama-server to run: $LLAMA_SERVER, then the one installed with this Python, then PATH.

    Raises:
        MachineError: there is none, or $LLAMA_SERVER names no executable.
    """
    named = os.environ.get("LLAMA_SERVER")
    if named:
        if not os.access(named, os.X_OK) or not Path(named).is_file():
            raise MachineError(f"LLAMA_SERVER={named} is no executable file: correct it, or unset it to use the installed one")
        return Path(named)
    for folder in (Path(sys.prefix) / "bin", Path(sysconfig.get_path("purelib")) / "bin"):
        if os.access(folder / NAME, os.X_OK):
            return folder / NAME
    on_path = shutil.which(NAME)
    if on_path is None:
        raise MachineError("llama-server is neither installed with this Python nor on PATH: run `make build`, or set LLAMA_SERVER")
    return Path(on_path)


def command(binary: Path, model: Path, socket: Path, params: ServeParams, saves: Path | None = None) -> list[str]:
    """llama-server for one model on a Unix socket, which no browser and no other user can reach.

    Args:
        saves: folder for what slots hold; None: they cannot be saved.
    """
    threads = params.threads or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))
    flags: dict[str, object] = {
        "--model": model,
        "--host": socket,
        "--ctx-size": params.ctx * (params.slots + 1),  # the last slot is the chat's
        "--parallel": params.slots + 1,
        "--batch-size": params.batch,
        "--ubatch-size": params.batch,
        "--threads": threads,
        "--threads-batch": threads,
        "--cache-ram": 0,  # a slot's own cache is the one that typing hits; copies in RAM cost a save per switch
        "--timeout": 120,  # seconds
        "--log-colors": "off",
        "--verbosity": 2,  # errors and warnings; its lines about requests are work for two processes
    }
    if saves is not None:
        flags["--slot-save-path"] = saves
    switches = ["--no-kv-unified", "--no-ui", "--offline"]
    return [str(binary), *(str(part) for flag in flags.items() for part in flag), *switches]


def build(binary: Path) -> str:
    """What the executable says of its version; empty where it says nothing."""
    try:
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, env=environment())
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return next((line for line in (said.stderr + said.stdout).splitlines() if line.startswith("version")), "")


def environment() -> dict[str, str]:
    """This process's environment without what would change llama-server behind our back."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LLAMA_")}
