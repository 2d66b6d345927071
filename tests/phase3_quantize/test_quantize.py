"""A quantized file says what it is, is whole before it has its name, and a damaged source never reaches the C code."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from core.errors import CheckFailed, InputError, MachineError
from core.manifest import sha256_of
from phase3_quantize import convert, quantize
from phase3_quantize.cli import app
from phase3_quantize.gguf_read import Contents, Tensor, inspect


@pytest.fixture(scope="module")
def full_256(model_256: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gguf") / "model-f32.gguf"
    convert.run(model_256, file, "f32")
    return file


@pytest.fixture(scope="module")
def full_224(model_224: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gguf") / "model-f32.gguf"
    convert.run(model_224, file, "f32")
    return file


def test_256_columns_take_k_quants(full_256: Path, tmp_path: Path) -> None:
    figures = quantize.run(full_256, tmp_path / "q.gguf", "Q4_K_M", 1)
    assert figures["tensors"] == {"F32": 11, "Q4_K": 12, "Q6_K": 3}
    assert figures["fallbacks"] == []
    assert figures["bytes"] == (tmp_path / "q.gguf").stat().st_size
    tensors = gguf.GGUFReader(tmp_path / "q.gguf").tensors
    bits = 8 * sum(int(t.n_bytes) for t in tensors) / sum(int(t.n_elements) for t in tensors)
    assert figures["bits_per_weight"] == round(bits, 3)
    assert 4.5 < bits < 6


def test_224_columns_fall_back_and_the_report_says_why(full_224: Path, tmp_path: Path) -> None:
    figures = quantize.run(full_224, tmp_path / "q.gguf", "Q4_K_M", 1)
    cause = "columns no multiple of 256"
    assert figures["fallbacks"] == [
        {"columns": 224, "type": "Q5_0", "tensors": 11, "cause": cause},
        {"columns": 224, "type": "Q8_0", "tensors": 2, "cause": cause},
    ]
    assert sum(figures["weight_shares"].values()) == pytest.approx(1, abs=1e-3)
    assert quantize.run(full_224, tmp_path / "q.gguf", "Q4_0", 1)["fallbacks"] == []  # blocks of 32 fit


@pytest.mark.parametrize(
    "kind", ["F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_1", "Q5_0", "Q4_K_S", "IQ4_NL", "IQ4_XS", "Q4_1", "Q4_0", "Q3_K_M"]
)
def test_every_named_type_can_be_made(full_256: Path, tmp_path: Path, kind: str) -> None:
    figures = quantize.run(full_256, tmp_path / "q.gguf", kind, 1)
    assert figures["bits_per_weight"] <= 16.1
    assert inspect(tmp_path / "q.gguf", "").metadata["tokenizer.ggml.fim_pre_token_id"] > 0


def test_threads_do_not_change_a_byte(full_256: Path, tmp_path: Path) -> None:
    for threads in (1, 2):
        quantize.run(full_256, tmp_path / f"{threads}.gguf", "Q4_K_M", threads)
    assert sha256_of(tmp_path / "1.gguf") == sha256_of(tmp_path / "2.gguf")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.99999))
def test_a_file_cut_anywhere_is_refused_before_llama_cpp_sees_it(full_256: Path, tmp_path: Path, share: float) -> None:
    whole = full_256.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match=r"cut short or no GGUF.*phase3_quantize convert"):
        quantize.run(cut, tmp_path / "q.gguf", "Q4_K_M", 1)
    assert {file.name for file in tmp_path.iterdir()} == {"cut.gguf"}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300), magic=st.booleans())
def test_bytes_that_are_no_gguf_are_refused(tmp_path: Path, content: bytes, magic: bool) -> None:
    file = tmp_path / "junk.gguf"
    file.write_bytes(b"GGUF\x03\x00\x00\x00" * magic + content)
    with pytest.raises(InputError):
        inspect(file, "python -m phase3_quantize convert")


@pytest.mark.parametrize("kind", ["F16", "Q4_K_M"])
def test_our_reader_sees_what_the_gguf_packages_reader_sees(full_224: Path, tmp_path: Path, kind: str) -> None:
    quantize.run(full_224, tmp_path / "q.gguf", kind, 1)
    ours, theirs = inspect(tmp_path / "q.gguf", ""), gguf.GGUFReader(tmp_path / "q.gguf")
    assert ours.tensors == [Tensor(t.name, t.tensor_type.name, int(t.shape[0]), int(t.n_elements), int(t.n_bytes)) for t in theirs.tensors]
    fields = {name: field for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert ours.metadata == {
        name: len(field.data) if field.types[0] == gguf.GGUFValueType.ARRAY else field.contents() for name, field in fields.items()
    }


def test_other_architecture_is_refused_by_name(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "llama.gguf", "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(InputError, match="'llama'"):
        quantize.run(tmp_path / "llama.gguf", tmp_path / "q.gguf", "Q4_K_M", 1)


def test_wrong_type_name_lists_the_right_ones(full_256: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["quantize", "--in", str(full_256), "--type", "q4_k_m", "--out", str(tmp_path / "q.gguf")])
    assert result.exit_code == 2
    assert "'q4_k_m'" in result.stderr and "Q4_K_M" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_quantized_file_is_not_quantized_again(full_256: Path, tmp_path: Path) -> None:
    quantize.run(full_256, tmp_path / "q.gguf", "Q8_0", 1)
    with pytest.raises(InputError, match="quantized already"):
        quantize.run(tmp_path / "q.gguf", tmp_path / "again.gguf", "Q4_K_M", 1)


def test_the_source_is_never_overwritten(full_256: Path, tmp_path: Path) -> None:
    before = sha256_of(full_256)
    with pytest.raises(InputError, match="source itself"):
        quantize.run(full_256, full_256, "Q4_K_M", 1)
    assert sha256_of(full_256) == before


def test_what_llama_cpp_refuses_is_one_line_and_leaves_nothing(full_256: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(full_256.read_bytes().replace(b"qwen2.block_count", b"qwen2.block_cOunt"))
    result = CliRunner().invoke(app, ["quantize", "--in", str(broken), "--out", str(tmp_path / "q.gguf")])
    assert result.exit_code == 5
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "qwen2.block_count" in errors[0]
    assert [file.name for file in tmp_path.iterdir()] == ["broken.gguf"]


def abort_child(started: threading.Event) -> None:
    """Send SIGABRT, as a failed GGML_ASSERT does, to the first llama_quantize child of this process."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for children in Path("/proc/self/task").glob("*/children"):
            for child in children.read_text().split():
                with contextlib.suppress(OSError):
                    if b"llama_quantize" in Path(f"/proc/{child}/cmdline").read_bytes():
                        os.kill(int(child), signal.SIGABRT)
                        started.set()
                        return
        time.sleep(0.002)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the child in /proc")
def test_an_abort_in_llama_cpp_is_an_error_and_not_our_end(full_256: Path, tmp_path: Path) -> None:
    aborted = threading.Event()
    killer = threading.Thread(target=abort_child, args=(aborted,))
    killer.start()
    with pytest.raises(MachineError, match="was ended by SIGABRT"):
        quantize.run(full_256, tmp_path / "q.gguf", "Q4_K_M", 1)
    killer.join()
    assert aborted.is_set()
    assert not list(tmp_path.iterdir())


def test_disk_that_fills_up_under_llama_cpp_is_one_line_and_leaves_nothing(full_256: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: the write in C fails in the middle."""
    command = shlex.join([sys.executable, "-m", "phase3_quantize", "quantize", "--in", str(full_256), "--out", str(tmp_path / "q.gguf")])
    done = subprocess.run(["sh", "-c", f"ulimit -f 400; {command}"], capture_output=True, text=True)  # blocks of 512 bytes
    assert done.returncode == 5
    errors = [line for line in done.stderr.splitlines() if "tensors, " not in line]
    assert len(errors) == 1 and "free space" in errors[0]
    assert not list(tmp_path.iterdir())


def test_lost_tensors_are_noticed() -> None:
    one, two = Tensor("a", "F32", 256, 256, 1024), Tensor("b", "Q4_K", 256, 256, 144)
    with pytest.raises(CheckFailed, match="1 of 2 tensors"):
        quantize.check_same(Contents([one, two], {}), Contents([one], {"general.file_type": 15}), "Q4_K_M")
    with pytest.raises(CheckFailed, match="file type 7"):
        quantize.check_same(Contents([one, two], {}), Contents([one, two], {"general.file_type": 7}), "Q4_K_M")
    with pytest.raises(CheckFailed, match="no tensor was quantized"):
        quantize.check_same(Contents([one], {}), Contents([one], {"general.file_type": 15}), "Q4_K_M")
