"""Room on the disk, asked for before minutes of work rather than found missing after them."""

from __future__ import annotations

import shutil
from pathlib import Path

from core.errors import MachineError


def need_space(folder: Path, size: int) -> None:
    """Check before a long write that it can end.

    Raises:
        MachineError: the disk has fewer than `size` bytes left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < size:
        raise MachineError(f"{folder} has {free / 1e6:,.0f} MB free and {size / 1e6:,.0f} MB are to be written: free some and rerun")
