"""llama.cpp's own tools, of the same build."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest


def tool(name: str) -> str:
    """Path of a tool of the installed build; skips the test where there is none."""
    file = Path(sysconfig.get_paths()["purelib"]) / "bin" / name
    if not file.exists():
        pytest.skip(f"{name} is not installed: run `make build`")
    return str(file)
