"""A quantized file is llama-quantize's to the last byte, is whole before it has its name, and a damaged source never reaches the C code."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Ggml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from core.errors import CheckFailed, InputError
from core.manifest import sha256_of
from phase3_quantize import convert, quantize
from phase3_quantize.cli import app
from phase3_quantize.engine import GgufModel
from phase3_quantize.gguf_read import Contents, Tensor, inspect
from phase3_quantize.imatrix_file import write_importance
from phase3_quantize.mix import MIXES
from phase3_quantize.params import OutType
from phase3_quantize.source import Matrix, open_gguf
from phase3_quantize.tensor_types import MOST
from tests.phase3_quantize.peers import tool


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


@pytest.fixture(scope="module")
def imatrix_224(full_224: Path) -> Path:
    """Random importance, the same for the same columns of every layer but for one that has none."""
    rng, file = np.random.default_rng(5), full_224.with_name("imatrix.gguf")
    with open_gguf(full_224) as source:
        layers = [m for m in source.matrices if m.name.startswith("blk.") and len(m.dims) == 2 and m.name != "blk.0.attn_q.weight"]
    sums = {m.name: rng.lognormal(sigma=2, size=m.columns).astype(np.float32) for m in layers}
    write_importance(file, sums, 77, "a text", 3, 32)
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
        {"columns": 224, "wanted": "Q4_K", "type": "Q5_0", "tensors": 11, "cause": cause},
        {"columns": 224, "wanted": "Q6_K", "type": "Q8_0", "tensors": 2, "cause": cause},
    ]
    assert sum(figures["weight_shares"].values()) == pytest.approx(1, abs=1e-3)
    blocks_of_32 = quantize.run(full_224, tmp_path / "q.gguf", "Q4_0", 1)["fallbacks"]  # all but the embedding, which wants Q6_K
    assert blocks_of_32 == [{"columns": 224, "wanted": "Q6_K", "type": "Q8_0", "tensors": 1, "cause": cause}]


def peer(source: Path, out: Path, kind: str, imatrix: Path | None = None) -> Path:
    """What llama-quantize makes of a file, its working folder that of the importance matrix, whose path it writes down."""
    weighed = ["--imatrix", imatrix.name] if imatrix else []
    command = [tool("llama-quantize"), *weighed, str(source), str(out), kind, "1"]
    subprocess.run(command, cwd=imatrix.parent if imatrix else None, capture_output=True, check=True)
    return out


@pytest.mark.parametrize("kind", sorted(MOST))
def test_every_type_is_llama_quantizes_to_the_last_byte(full_256: Path, full_224: Path, tmp_path: Path, kind: str) -> None:
    for source in (full_256, full_224):
        quantize.run(source, tmp_path / "ours.gguf", kind, 2)
        assert sha256_of(tmp_path / "ours.gguf") == sha256_of(peer(source, tmp_path / "theirs.gguf", kind))


@pytest.mark.parametrize("kind", ["Q4_K_M", "Q4_0", "IQ4_NL", "Q5_0", "Q3_K_M", "Q8_0"])
def test_importance_is_used_as_llama_quantize_uses_it(full_224: Path, imatrix_224: Path, tmp_path: Path, kind: str) -> None:
    quantize.run(full_224, tmp_path / "ours.gguf", kind, 2, imatrix_224)
    assert sha256_of(tmp_path / "ours.gguf") == sha256_of(peer(full_224, tmp_path / "theirs.gguf", kind, imatrix_224))
    quantize.run(full_224, tmp_path / "plain.gguf", kind, 2)
    same = tensors_of(tmp_path / "plain.gguf") == tensors_of(tmp_path / "ours.gguf")
    assert same == (kind == "Q8_0")


def tensors_of(file: Path) -> dict[str, bytes]:
    return {tensor.name: tensor.data.tobytes() for tensor in gguf.GGUFReader(file).tensors}


@pytest.mark.parametrize("through", ["f32", "f16", "bf16"])
def test_a_folder_gives_what_converting_and_quantizing_give(model_224: Path, tmp_path: Path, through: OutType) -> None:
    convert.run(model_224, tmp_path / "full.gguf", through)
    quantize.run(tmp_path / "full.gguf", tmp_path / "two.gguf", "Q4_K_M", 2)
    quantize.run(model_224, tmp_path / "one.gguf", "Q4_K_M", 2, through=through)
    assert sha256_of(tmp_path / "one.gguf") == sha256_of(tmp_path / "two.gguf")


def test_a_mix_gives_each_class_its_type(full_224: Path, tmp_path: Path) -> None:
    quantize.run(full_224, tmp_path / "q.gguf", {"attn_v": "Q8_0", "ffn_down": "Q6_K", "token_embd": "Q4_K"}, 1)
    types = {tensor.name: tensor.type for tensor in inspect(tmp_path / "q.gguf", "").tensors}
    assert types["blk.1.attn_v.weight"] == "Q8_0"
    assert types["blk.0.ffn_down.weight"] == "Q6_K"  # 512 columns
    assert types["token_embd.weight"] == "Q5_0"  # 224 columns
    assert types["blk.0.attn_q.weight"] == "F32"


@pytest.mark.parametrize("name", sorted(MIXES))
def test_named_mixes_can_be_made_and_loaded(full_224: Path, tmp_path: Path, name: str) -> None:
    figures = quantize.run(full_224, tmp_path / "q.gguf", name, 1)
    assert figures["fallbacks"] == []
    with GgufModel(tmp_path / "q.gguf", 16, 1) as model:
        assert np.isfinite(model.extend([1, 2, 3])).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e6])
def test_values_no_block_can_hold_are_refused_by_name(model_224: Path, tmp_path: Path, value: float) -> None:
    folder = Path(shutil.copytree(model_224, tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"blk\.1\.ffn_up\.weight has values"):
        quantize.run(folder, tmp_path / "q.gguf", "Q4_K_M", 2)
    assert not list(tmp_path.glob("q*"))


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
    writer = gguf.GGUFWriter(tmp_path / "gemma.gguf", "gemma")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(InputError, match="'gemma'"):
        quantize.run(tmp_path / "gemma.gguf", tmp_path / "q.gguf", "Q4_K_M", 1)


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


def test_a_file_without_its_dimensions_is_one_line_and_leaves_nothing(full_256: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(full_256.read_bytes().replace(b"qwen2.block_count", b"qwen2.block_cOunt"))
    result = CliRunner().invoke(app, ["quantize", "--in", str(broken), "--out", str(tmp_path / "q.gguf")])
    assert result.exit_code == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "qwen2.block_count" in errors[0]
    assert [file.name for file in tmp_path.iterdir()] == ["broken.gguf"]


def test_disk_that_fills_up_is_one_line_and_leaves_nothing(full_256: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: a write fails in the middle."""
    command = shlex.join([sys.executable, "-m", "phase3_quantize", "quantize", "--in", str(full_256), "--out", str(tmp_path / "q.gguf")])
    done = subprocess.run(["sh", "-c", f"ulimit -f 400; {command}"], capture_output=True, text=True)  # blocks of 512 bytes
    assert done.returncode == 5
    errors = [line for line in done.stderr.splitlines() if "weights, " not in line]
    assert len(errors) == 1 and "no space left" in errors[0]
    assert not list(tmp_path.iterdir())


def test_lost_tensors_are_noticed() -> None:
    source = [Matrix("a", (256,), Ggml.F32), Matrix("b", (256, 2), Ggml.F32)]
    one, two = Tensor("a", "F32", 256, 256, 1024), Tensor("b", "Q4_K", 256, 512, 288)
    with pytest.raises(CheckFailed, match="1 of 2 tensors"):
        quantize.check_same(source, Contents([one], {"general.file_type": 15}), "Q4_K_M")
    with pytest.raises(CheckFailed, match="type 7"):
        quantize.check_same(source, Contents([one, two], {"general.file_type": 7}), "Q4_K_M")
    with pytest.raises(CheckFailed, match="no tensor was quantized"):
        quantize.check_same(source[:1], Contents([one], {"general.file_type": 15}), "Q4_K_M")
