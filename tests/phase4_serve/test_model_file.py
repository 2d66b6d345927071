"""A wrong model file is one line before llama-server ever starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from core.errors import InputError, MachineError
from core.fim import CONTROL, MIDDLE
from phase4_serve import binary
from phase4_serve.cli import app
from phase4_serve.model_file import check
from tests.phase4_serve.conftest import write_gguf


@pytest.mark.parametrize("ids", [True, False])
def test_markers_are_known_from_ids_or_from_texts(tmp_path: Path, ids: bool) -> None:
    model = check(write_gguf(tmp_path / "m.gguf", ids=ids))
    assert model.tokens == tuple(range(256, 263)) and model.context == 1024 and model.name == "m"


def damaged(tmp_path: Path, kind: str) -> Path:
    whole = write_gguf(tmp_path / "whole.gguf").read_bytes()
    path = tmp_path / "m.gguf"
    contents = {
        "empty": b"",
        "text": b"hello\n" * 100,
        "magic only": b"GGUF",
        "header cut": whole[:2000],
        "data cut": whole[:-4],
        "half": whole[: len(whole) // 2],
    }
    if kind == "no middle":
        return write_gguf(path, tuple("[none]" if text == MIDDLE else text for text in CONTROL), ids=False)
    if kind == "unknown architecture":
        return write_gguf(path, arch="nosuch")
    path.write_bytes(contents[kind])
    return path


@pytest.mark.parametrize("kind", ["empty", "text", "magic only", "header cut", "data cut", "half", "no middle", "unknown architecture"])
def test_a_wrong_file_is_one_line_and_exit_2(tmp_path: Path, kind: str) -> None:
    path = damaged(tmp_path, kind)
    with pytest.raises(InputError, match=r"m\.gguf"):
        check(path)
    result = CliRunner().invoke(app, ["up", "--model", str(path), "--port", "0"])
    assert result.exit_code == 2 and len(result.stderr.strip().splitlines()) == 1


def test_a_missing_file_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="phase3_quantize quantize"):
        check(tmp_path / "none.gguf")


def test_llama_server_is_found_or_its_absence_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LLAMA_SERVER", raising=False)
    assert os.access(binary.find(), os.X_OK)
    monkeypatch.setenv("LLAMA_SERVER", str(tmp_path / "none"))
    with pytest.raises(MachineError, match="LLAMA_SERVER"):
        binary.find()
    monkeypatch.delenv("LLAMA_SERVER")
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="make build"):
        binary.find()
