"""The notebooks' code cells run, in the order of the phases, with the `test` profile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(ROOT.glob("phase*/notebooks/*.ipynb"))


def code_of(notebook: Path) -> str:
    """The code cells as one script."""
    cells = json.loads(notebook.read_text())["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """What git would hand to somebody, with the test profile switched on."""
    folder = tmp_path_factory.mktemp("copy")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    params = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(params.replace("profile: tiny", "profile: test", 1))
    return folder


def test_there_is_one_per_phase():
    assert [path.parts[-3] for path in NOTEBOOKS] == ["phase1_data", "phase2_train", "phase3_quantize", "phase4_serve"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_thin_and_carries_no_output(notebook):
    cells = json.loads(notebook.read_text())["cells"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")
    assert len(code_of(notebook).splitlines()) < 60


@pytest.mark.timeout(600)
def test_the_code_cells_run_from_phase_1_to_4(copy):
    for notebook in NOTEBOOKS:
        done = subprocess.run(
            [sys.executable, "-c", code_of(notebook)],
            cwd=copy,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(copy)},
            timeout=300,
        )
        assert done.returncode == 0, f"{notebook.name}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
