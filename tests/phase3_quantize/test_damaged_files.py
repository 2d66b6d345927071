"""A file that is cut, damaged, or does not fit on the disk is named in one line; no half file is left."""

from __future__ import annotations

import contextlib
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from typer.testing import CliRunner

from core.errors import InputError
from phase3_quantize import convert
from phase3_quantize.cli import app
from phase3_quantize.gguf_read import inspect
from phase3_quantize.weights import open_weights
from tests.phase3_quantize.conftest import make_model

SLOW_DISK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def whole(model_224: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("whole") / "model.gguf"
    convert.run(model_224, file, "f16")
    return file.read_bytes()


def header_of(whole: bytes, model_224: Path) -> int:
    """Bytes before the tensors: their first is the embedding's."""
    first = load_file(model_224 / "model.safetensors")["model.embed_tokens.weight"].half().numpy().tobytes()[:64]
    return whole.index(first)


def test_a_gguf_cut_at_any_byte_is_named(whole: bytes, model_224: Path, tmp_path: Path) -> None:
    begin, file = header_of(whole, model_224), tmp_path / "cut.gguf"
    file.write_bytes(whole)
    ends = sorted({*range(0, 400), *range(400, begin, 29), begin, begin + 1, *range(begin, len(whole) - 64, 40_001), len(whole) - 32})
    with file.open("r+b") as cut:
        for end in reversed(ends):  # always shorter, so that nothing is written twice
            cut.truncate(end)
            with pytest.raises(InputError, match=r"cut\.gguf is cut short or no GGUF .*run `make it` again"):
                inspect(file, "make it")


def test_the_command_says_so_in_one_line(whole: bytes, tmp_path: Path) -> None:
    for end in (0, 3, 24, 1000, len(whole) // 2):
        (tmp_path / "cut.gguf").write_bytes(whole[:end])
        said = CliRunner().invoke(app, ["quantize", "--in", str(tmp_path / "cut.gguf"), "--out", str(tmp_path / "small.gguf")])
        assert said.exit_code == 2 and said.stderr.startswith("error: ") and said.stderr.count("\n") == 1 and "cut short" in said.stderr
        assert [file.name for file in tmp_path.iterdir()] == ["cut.gguf"]


@SLOW_DISK
@given(place=st.floats(0, 1), value=st.integers(0, 255), run=st.integers(1, 9))
def test_damaged_bytes_of_the_header_are_read_or_named_and_nothing_else(
    whole: bytes, model_224: Path, tmp_path: Path, place: float, value: int, run: int
) -> None:
    at = int(place * (header_of(whole, model_224) - run))
    (tmp_path / "damaged.gguf").write_bytes(whole[:at] + bytes([value]) * run + whole[at + run :])
    with contextlib.suppress(InputError):
        contents = inspect(tmp_path / "damaged.gguf", "make it")
        assert contents.bits_per_weight > 0


@SLOW_DISK
@given(place=st.floats(0, 1), value=st.integers(0, 255), cut=st.booleans())
def test_damaged_safetensors_are_read_or_named_and_nothing_else(
    model_224: Path, tmp_path: Path, place: float, value: int, cut: bool
) -> None:
    whole = (model_224 / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    at, file = int(place * (8 + length)), tmp_path / "model.safetensors"
    file.write_bytes(whole[:at] if cut else whole[:at] + bytes([value]) + whole[at + 1 :])
    with contextlib.suppress(InputError), open_weights([file], "make it") as weights:
        assert not cut
        for name in weights.names():
            weights.array(name)


@contextlib.contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("step", ["convert", "merge"])
def test_a_file_that_may_not_grow_is_named_and_none_is_left(model_256: Path, tmp_path: Path, step: str) -> None:
    out, params = tmp_path / "out", tmp_path / "params.yaml"
    params.write_text("profile: p\np:\n  merge: {adapter: none, onto: measured, rows: 4}\n")
    given = {
        "convert": ["--model", str(model_256), "--out", str(out / "m.gguf")],
        "merge": ["--base", str(model_256), "--out", str(out / "merge"), "--params", str(params)],
    }
    with files_up_to(1_000_000):
        done = CliRunner().invoke(app, [step, *given[step]])
    assert done.exit_code == 5, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "larger than allowed" in last and "Traceback" not in done.stderr
    assert not [file for file in out.rglob("*") if file.is_file()]


def test_a_disk_that_fills_up_is_named_and_no_file_is_left(tmp_path: Path) -> None:
    """The space is there when it is asked for and gone when it is needed: another program writes meanwhile."""
    base, disk = make_model(tmp_path / "base"), tmp_path / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size=2m none {disk} && "$@"; code=$?; ls -A {disk}; exit $code'
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "sh", "-c", mount, "-", "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here to mount a small disk in")
    program = "import phase3_quantize.gguf_write as w; w.need_space = lambda *a: None; from phase3_quantize.cli import app; app()"
    command = [sys.executable, "-c", program, "convert", "--model", str(base), "--out", str(disk / "model.gguf")]
    done = subprocess.run(["unshare", "-rm", "sh", "-c", mount, "-", *command], capture_output=True, text=True)
    assert done.returncode == 5 and "no space left while writing" in done.stderr and "model.gguf" in done.stderr
    assert done.stdout == ""
