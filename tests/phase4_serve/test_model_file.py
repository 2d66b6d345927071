"""A wrong model file is one line before llama-server ever starts."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from core.errors import InputError, MachineError
from core.fim import CONTROL, MIDDLE
from phase4_serve import binary
from phase4_serve.cli import app
from phase4_serve.gguf_head import Damaged, read
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


def test_the_head_is_read_as_ggufs_own_reader_reads_it(tiny: Path) -> None:
    ours, theirs = read(tiny, [text.encode() for text in CONTROL]), gguf.GGUFReader(tiny)
    placed = {tensor.name: (tensor.data_offset, tensor.n_bytes, tensor.tensor_type) for tensor in theirs.tensors}
    assert {t.name: (t.start, t.n_bytes, t.kind) for t in ours.tensors.values()} == placed
    for key, value in ours.scalars.items():
        assert theirs.fields[key].contents() == value
    assert ours.found == {text.encode(): 256 + number for number, text in enumerate(CONTROL)}
    assert ours.n_vocab == 256 + len(CONTROL) and ours.complete


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(4, 9000), st.binary(min_size=1, max_size=16), st.one_of(st.none(), st.integers(5, 20_000)))
def test_however_a_file_is_damaged_it_is_an_error_or_a_model(tiny: Path, tmp_path: Path, at: int, junk: bytes, cut: int | None) -> None:
    content = bytearray(tiny.read_bytes()[:cut])
    content[at : at + len(junk)] = junk
    path = tmp_path / "damaged.gguf"
    path.write_bytes(content)
    with contextlib.suppress(Damaged):
        read(path, [b"x"])
    with contextlib.suppress(InputError):
        check(path)


def test_a_fingerprint_is_of_the_weights_and_not_of_the_name(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "other.gguf").write_bytes(tiny.read_bytes())
    assert check(tmp_path / "other.gguf").fingerprint == check(tiny).fingerprint
    content = bytearray(tiny.read_bytes())
    for tensor in read(tiny).tensors.values():
        changed = content.copy()
        changed[tensor.start] ^= 1
        (tmp_path / "other.gguf").write_bytes(changed)
        assert check(tmp_path / "other.gguf").fingerprint != check(tiny).fingerprint


def test_chat_markers_are_known_where_the_vocabulary_has_them(tiny: Path, tmp_path: Path) -> None:
    assert check(tiny).chat == (256 + CONTROL.index("<|im_start|>"), 256 + CONTROL.index("<|im_end|>"))
    assert check(write_gguf(tmp_path / "plain.gguf", CONTROL[:7])).chat is None
