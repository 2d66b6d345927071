"""The order of the suite: files whose few tests take long begin first, so that no worker waits at the end for the last of them."""

from __future__ import annotations

import pytest

LONG = (
    "test_engine_ray.py", "test_notebooks.py", "test_samples_engine.py", "test_resume.py", "test_gate.py", "test_pairs.py",
    "test_parity.py", "test_promises.py", "test_load.py", "test_knowledge.py", "test_swap.py", "test_up.py", "test_server.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files named above first; the others stay as they are."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))
