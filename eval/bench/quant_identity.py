"""Our quantizer beside llama-quantize: are the files the same, and what do they cost?

In:  nothing; models with random weights are made, and the shipped base is taken along
Out: figures: per model and type how many tensors are identical (sha256 of each) and whether the whole file is; seconds and peak memory

Every quantization is a process of its own, both sides in turn. Importance weights are random, which shows more than measured ones. Last,
model folder to quantized file in one step of ours against the peer's two, converter and quantizer, at the shape of the 0.5B.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np

from core.errors import CheckFailed
from core.manifest import sha256_of, versions_of
from core.progress import track
from core.records import Row
from eval.bench.convert_bench import LARGE, SCRIPT, Cost, Model, given, measured, ours, peer_folder, theirs

TYPES = ("F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "IQ4_NL", "IQ4_XS", "Q4_1", "Q4_0",
         "Q3_K_L", "Q3_K_M", "Q3_K_S")  # fmt: skip
OF_LARGE = ("Q4_K_M", "Q4_0", "Q8_0")  # the IQ types take a minute each there
KIND, THREADS = "Q4_K_M", 2


def importance_of(full: Path, out: Path) -> Path:
    """Random importance of every matrix in the layers of a GGUF, as llama-imatrix would write it."""
    rng = np.random.default_rng(17)
    writer = gguf.GGUFWriter(out, "")
    writer.kv_data[0].clear()  # an importance matrix has no architecture
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["random"])
    writer.add_uint32("imatrix.chunk_count", 1)
    writer.add_uint32("imatrix.chunk_size", 512)
    for tensor in gguf.GGUFReader(full).tensors:
        if tensor.name.startswith("blk.") and tensor.name.endswith("weight") and len(tensor.shape) == 2:
            writer.add_tensor(f"{tensor.name}.in_sum2", rng.lognormal(sigma=2, size=(1, int(tensor.shape[0]))).astype(np.float32))
            writer.add_tensor(f"{tensor.name}.counts", np.array([[512]], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def sums(file: Path) -> dict[str, str]:
    """Type, shape and sha256 of every tensor's bytes."""
    return {
        t.name: f"{t.tensor_type.name} {t.shape.tolist()} {hashlib.sha256(t.data.tobytes()).hexdigest()}"
        for t in gguf.GGUFReader(file).tensors
    }


def peer(full: Path, out: Path, kind: str, imatrix: Path | None) -> Cost:
    """llama-quantize; it writes the path of the importance matrix into the file, ours only its name, so it is given by name."""
    weighed = ["--imatrix", imatrix.name] if imatrix else []
    tool = Path(sysconfig.get_path("purelib")) / "bin" / "llama-quantize"
    return measured(["env", "-C", str(full.parent), str(tool), *weighed, str(full), str(out), kind, str(THREADS)])


def own(source: Path, out: Path, kind: str, imatrix: Path | None, *more: str) -> Cost:
    weighed = ["--imatrix", str(imatrix)] if imatrix else []
    command = ["-m", "phase3_quantize", "quantize", "--in", str(source), "--out", str(out), "--type", kind, "--threads", str(THREADS)]
    return measured([sys.executable, *command, *weighed, *more])


def identity(full: Path, kind: str, imatrix: Path | None) -> Row:
    """Both quantize a file; compare what they wrote."""
    mine, other = full.with_name("ours.gguf"), full.with_name("theirs.gguf")
    cost = {"theirs": peer(full, other, kind, imatrix), "ours": own(full, mine, kind, imatrix)}
    wanted, found = sums(other), sums(mine)
    row: Row = {
        "tensors": len(wanted),
        "identical": sum(found.get(name) == value for name, value in wanted.items()),
        "extra": sorted(found.keys() - wanted.keys()),
        "whole_file": sha256_of(mine) == sha256_of(other),
        "bytes": mine.stat().st_size,
    }
    row |= {f"{side}_{part}": round(getattr(spent, part), 2) for side, spent in cost.items() for part in spent._fields}
    mine.unlink()
    other.unlink()
    return row


def of_model(model: Model, scratch: Path) -> list[Row]:
    """Every type of a model, with and without importance."""
    full = scratch / "full.gguf"
    ours("convert", full, "f16", "--model", model.folder)
    imatrix = importance_of(full, scratch / "imatrix.gguf")
    kinds = OF_LARGE if model.name == LARGE else TYPES
    tries = [(kind, weighed) for kind in kinds for weighed in (None, imatrix)]
    rows = [
        {"model": model.name, "type": kind, "imatrix": weighed is not None, **identity(full, kind, weighed)}
        for kind, weighed in track(tries, model.name, unit="files")
    ]
    full.unlink()
    return rows


def one_step(model: Model, source: Path, scratch: Path, rounds: int) -> list[Row]:
    """Folder to quantized file: ours in one step, the peer's converter and quantizer after one another."""
    full, small, mine = scratch / "full.gguf", scratch / "small.gguf", scratch / "ours.gguf"
    rows: list[Row] = []
    for _ in range(rounds):
        first, second = theirs(source, model, SCRIPT, model.folder, full, "f16"), peer(full, small, KIND, None)
        full.unlink()
        here = own(model.folder, mine, KIND, None, "--through", "f16")
        there = Cost(first.seconds + second.seconds, max(first.peak_mb, second.peak_mb))
        rows.append({
            "seconds": [round(here.seconds, 2), round(there.seconds, 2)], "seconds_ratio": round(here.seconds / there.seconds, 3),
            "peak_mb": [round(here.peak_mb), round(there.peak_mb)], "peak_ratio": round(here.peak_mb / there.peak_mb, 3),
            "identical": sums(mine) == sums(small),
        })  # fmt: skip
    return rows


def run(llama_cpp: Path | None, tiny: Path, rounds: int, quick: bool, cache: Path) -> Row:
    """All figures.

    Args:
        llama_cpp: folder of llama.cpp with the converter, for the last part.
        tiny: the shipped base.
        rounds: times the last part is measured.
        quick: leave the 0.5B out.

    Raises:
        InputError, CheckFailed: see convert_bench.
    """
    source = None if quick else peer_folder(llama_cpp, cache)
    rows: list[Row] = []
    cost: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="quant-identity-") as scratch:
        for model in given(Path(scratch), tiny, quick):
            rows += of_model(model, Path(scratch))
            if model.name == LARGE and source is not None:
                cost = one_step(model, source, Path(scratch), rounds)
            if model.folder != tiny:
                shutil.rmtree(model.folder)
    return {"rows": rows, "one_step": cost, "threads": THREADS, "versions": versions_of(("llama-cpp-python", "gguf", "numpy"))}


def lines(figures: Row) -> Iterator[str]:
    """The figures as Markdown."""
    yield "| model | type | importance | tensors | identical | whole file | bytes | s, ours | theirs | peak MB, ours | theirs |"
    yield "|---" * 11 + "|"
    for row in figures["rows"]:
        cells = [row["model"], row["type"], "yes" if row["imatrix"] else "no", row["tensors"], row["identical"],
                 "same" if row["whole_file"] else "differs", f"{row['bytes']:,}", row["ours_seconds"], row["theirs_seconds"],
                 round(row["ours_peak_mb"]), round(row["theirs_peak_mb"])]  # fmt: skip
        yield f"| {' | '.join(map(str, cells))} |"
    for row in figures["one_step"]:
        (here, there), (mine, other) = row["seconds"], row["peak_mb"]
        same = "all tensors identical" if row["identical"] else "TENSORS DIFFER"
        yield (
            f"{LARGE} shape, folder to {KIND}: {here} s against {there} s ({row['seconds_ratio']}), {mine} MB against {other} MB "
            f"({row['peak_ratio']}), {same}"
        )
    yield ", ".join(f"{package} {version}" for package, version in figures["versions"].items())


def check(figures: Row) -> None:
    """Every tensor of every file identical.

    Raises:
        CheckFailed: names the first that is not.
    """
    for row in figures["rows"]:
        if row["identical"] < row["tensors"] or row["extra"]:
            raise CheckFailed(f"{row['model']} as {row['type']} is not what llama-quantize writes: see the table")
    if not all(row["identical"] for row in figures["one_step"]):
        raise CheckFailed("the file made in one step is not what converter and quantizer write: see the table")
