"""Quantize a GGUF with llama.cpp in process, and say what came out.

In:  a GGUF in f32, f16 or bf16
Out: the quantized GGUF, opened again and compared with its source before it takes its name

A "Q4_K_M" is not 4 bits: K-quants cut rows into blocks of 256, and a matrix whose columns are no multiple of 256 (all
with 896 columns in the 0.5B) falls back to Q5_0 or Q8_0. The figures say how many did and why.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import gguf

from core.errors import CheckFailed, InputError, MachineError, one_line
from core.progress import track
from core.records import partial
from phase3_quantize.gguf_read import Contents, Tensor, inspect
from phase3_quantize.params import QuantType
from phase3_quantize.space import need_space

CONVERTED_BY = "python -m phase3_quantize convert"
UNQUANTIZED = {"F32", "F16", "BF16"}
SUPER_BLOCK = gguf.QK_K  # 256 columns: one block of a K-quant or IQ4_XS
WITH_SUPER_BLOCKS = {"Q6_K", "Q5_K_M", "Q4_K_M", "Q4_K_S", "IQ4_XS", "Q3_K_M"}


def quantized_name(kind: str) -> str:
    """File name of a type, `model-q4_k_m.gguf`."""
    return f"model-{kind.lower()}.gguf"


def check_type(kind: str) -> None:
    """Refuse a type name that this does not make.

    Raises:
        InputError: names those it does.
    """
    if kind not in get_args(QuantType):
        raise InputError(f"there is no quantization type {kind!r} here: choose one of {', '.join(get_args(QuantType))}")


def fallbacks(tensors: list[Tensor], kind: str) -> list[dict[str, Any]]:
    """Tensors that could not take the type's blocks of 256 columns, by columns and the type they got instead."""
    if kind not in WITH_SUPER_BLOCKS:
        return []
    cut = [t for t in tensors if t.type != "F32" and t.columns % SUPER_BLOCK]
    found = Counter((t.columns, t.type) for t in cut)
    cause = f"columns no multiple of {SUPER_BLOCK}"
    return [{"columns": columns, "type": to, "tensors": n, "cause": cause} for (columns, to), n in sorted(found.items())]


def figures(path: Path, contents: Contents, kind: str) -> dict[str, Any]:
    """What a quantized file is in numbers."""
    return {
        "bytes": path.stat().st_size,
        "bits_per_weight": round(contents.bits_per_weight, 3),
        "tensors": contents.histogram,
        "weight_shares": contents.weight_shares,
        "fallbacks": fallbacks(contents.tensors, kind),
    }


def check_same(source: Contents, target: Contents, kind: str) -> None:
    """The quantized file holds the same tensors and says the type that was asked for.

    Raises:
        CheckFailed: tensors were lost, changed shape, or the file is of another type.
    """
    if {t.name: t.elements for t in source.tensors} != {t.name: t.elements for t in target.tensors}:
        raise CheckFailed(
            f"llama.cpp wrote {len(target.tensors)} of {len(source.tensors)} tensors, or changed their shapes: nothing was kept"
        )
    wanted, written = int(gguf.LlamaFileType[f"MOSTLY_{kind}"]), target.metadata.get("general.file_type")
    if written != wanted:
        raise CheckFailed(f"llama.cpp wrote file type {written} where {kind} is {wanted}: nothing was kept")
    if all(t.type == "F32" for t in target.tensors):
        raise CheckFailed(f"no tensor was quantized to {kind}: nothing was kept")


def run(source: Path, out: Path, kind: str, threads: int) -> dict[str, Any]:
    """Quantize `source` into `out`; return its figures.

    Raises:
        InputError: wrong type name; source missing, cut short, of another architecture, or already quantized.
        MachineError: no llama-cpp-python, no space, or llama.cpp ended in an error or an abort; one line says which.
        CheckFailed: the result does not hold what the source holds.
    """
    check_type(kind)
    before = inspect(source, CONVERTED_BY)
    if out.exists() and out.samefile(source):
        raise InputError(f"{out} is the source itself: name another --out")
    if any(t.type not in UNQUANTIZED for t in before.tensors):
        raise InputError(f"{source} is quantized already ({', '.join(before.histogram)}): quantize the f32, f16 or bf16 file")
    if importlib.util.find_spec("llama_cpp") is None:
        raise MachineError("llama-cpp-python is not installed: run `make build`")
    need_space(out.parent, source.stat().st_size // (1 if kind in UNQUANTIZED else 2))
    with partial(out) as unfinished:
        _quantize_apart(source, unfinished, kind, threads, len(before.tensors))
        try:
            after = inspect(unfinished, "python -m phase3_quantize quantize")
        except InputError as error:
            raise CheckFailed(f"llama.cpp reported success and left a broken file ({error}): nothing was kept") from None
        check_same(before, after, kind)
    return figures(out, after, kind)


def _quantize_apart(source: Path, target: Path, kind: str, threads: int, tensors: int) -> None:
    """Call llama.cpp in a child, so that an abort in its C code is an error of ours and not our end."""
    root = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    command = [sys.executable, "-m", "phase3_quantize.llama_quantize", str(source), str(target), kind, str(threads)]
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        try:
            for _ in track(_lines(child), f"quantize {kind}", total=tensors, unit="tensors"):
                pass
        finally:
            child.kill()
            code = child.wait()
        errors.seek(0)
        said = [line for line in errors.read().splitlines() if line.strip()]
    if code:
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed with {code}"
        why = next(
            (line for line in said if "failed" in line or "ASSERT" in line or "error" in line.lower()), said[-1] if said else "no message"
        )
        raise MachineError(
            f"llama.cpp {how} while quantizing {source} to {kind}: {one_line(why)}; check the free space, or try another type"
        )


def _lines(child: subprocess.Popen[str]) -> Iterator[str]:
    assert child.stdout is not None
    yield from (line for line in child.stdout if line.startswith("["))
    child.wait()
