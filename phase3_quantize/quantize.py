"""Quantize a GGUF, tensor for tensor and byte for byte as llama-quantize does, and say what came out.

In:  a GGUF in f32, f16 or bf16, or a Hugging Face folder; an importance matrix if one is wanted
Out: the quantized GGUF, opened again and compared with its source before it takes its name

The rules are in tensor_types, the arithmetic is ggml's own (ggml.py). The types are known before the first row is read, so the header is
written first and every thread reads, quantizes and writes a few rows at their place: memory is a few MB, however large the model.

A "Q4_K_M" is not 4 bits: K-quants cut rows into blocks of 256, and a matrix whose columns are no multiple of 256 (all
with 896 columns in the 0.5B) falls back to Q5_0 or Q8_0. The figures say how many did and why.
"""

from __future__ import annotations

import errno
import os
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, get_args

import gguf
from gguf import GGML_QUANT_SIZES, GGUFValueType
from gguf import GGMLQuantizationType as Ggml

from core.errors import CheckFailed, InputError, MachineError
from core.progress import track
from core.records import partial
from phase3_quantize import ggml
from phase3_quantize.gguf_read import Contents, inspect
from phase3_quantize.imatrix_file import Importance, read_importance
from phase3_quantize.mix import FILE_TYPES, MIXED
from phase3_quantize.params import OutType, QuantType
from phase3_quantize.source import HEADER, Matrix, Source, open_folder, open_gguf
from phase3_quantize.space import need_space
from phase3_quantize.tensor_types import Choice, choose_types, in_llama_cpp_order

DROPPED = ("general.quantization_version", "general.file_type", "split.no", "split.count", "split.tensors.count")
ALIGNMENT = gguf.GGUF_DEFAULT_ALIGNMENT
AT_ONCE = 1 << 20  # weights a thread holds: 4 MB as float32, and as much again as they are read


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


def file_type(kind: str) -> int:
    """llama.cpp's number of a quantization; a mix goes by the type of most of its tensors."""
    return int(gguf.LlamaFileType[f"MOSTLY_{FILE_TYPES.get(kind, kind)}"])


class Planned(NamedTuple):
    """A tensor, the type it gets, and where its bytes go, counted from the start of all tensors."""

    matrix: Matrix
    type: Ggml
    start: int

    @property
    def width(self) -> int:
        """Bytes of a row."""
        return ggml.row_bytes(self.type, self.matrix.columns)

    @property
    def bytes(self) -> int:
        return self.width * self.matrix.rows

    @property
    def stop(self) -> int:
        """Where the next tensor begins."""
        return self.start + -(-self.bytes // ALIGNMENT) * ALIGNMENT


class Piece(NamedTuple):
    """Some rows of a tensor: what one thread works on at a time."""

    planned: Planned
    row: int
    rows: int


def plan(ordered: Sequence[Matrix], chosen: Mapping[str, Choice]) -> list[Planned]:
    """Every tensor's type and place; those without a choice are copied."""
    found, at = [], 0
    for matrix in ordered:
        choice = chosen.get(matrix.name)
        found.append(Planned(matrix, choice.type if choice else matrix.type, at))
        at = found[-1].stop
    return found


def pieces(planned: Sequence[Planned]) -> list[Piece]:
    """The work in the order of the file."""
    found = []
    for item in planned:
        step = max(1, AT_ONCE // item.matrix.columns)
        found += [Piece(item, row, min(step, item.matrix.rows - row)) for row in range(0, item.matrix.rows, step)]
    return found


def entry(key: str, value: int | str) -> bytes:
    """A metadata entry as it stands in a GGUF: a text, or a number as uint32."""
    name = key.encode()
    start = struct.pack("<Q", len(name)) + name
    if isinstance(value, int):
        return start + struct.pack("<II", GGUFValueType.UINT32, value)
    text = value.encode()
    return start + struct.pack("<IQ", GGUFValueType.STRING, len(text)) + text


def header(source: Source, planned: Sequence[Planned], kind: str, importance: Importance | None) -> bytes:
    """Everything before the tensors' bytes, in llama-quantize's order: the source's metadata, then what quantization adds."""
    entries = [raw for key, raw in source.entries.items() if key not in DROPPED]
    entries += [entry("general.quantization_version", gguf.GGML_QUANT_VERSION), entry("general.file_type", file_type(kind))]
    if importance is not None:
        entries += [entry(key, value) for key, value in importance.described().items()]
    parts = [HEADER.pack(b"GGUF", 3, len(planned), len(entries)), *entries]
    for matrix, type_, start in planned:
        name, dims = matrix.name.encode(), matrix.dims
        while len(dims) > 1 and dims[-1] == 1:
            dims = dims[:-1]
        parts.append(struct.pack(f"<Q{len(name)}sI{len(dims)}QIQ", len(name), name, len(dims), *dims, type_, start))
    size = sum(map(len, parts))
    return b"".join(parts) + b"\0" * (-size % ALIGNMENT)


def write(out: Path, source: Source, planned: Sequence[Planned], head: bytes, importance: Importance | None, threads: int) -> Iterator[int]:
    """Write header and tensors, each thread some rows at a time; yield how many weights were done.

    Raises:
        InputError: a value that cannot be quantized; names its tensor.
        MachineError: no space.
    """
    columns = importance.columns if importance is not None else {}
    with out.open("wb") as sink, ThreadPoolExecutor(threads) as pool:

        def work(piece: Piece) -> int:
            (matrix, kind, start), row, count = piece
            rows = source.read(matrix, row, count)
            if kind != matrix.type:
                rows = ggml.quantized(ggml.widened(rows, matrix.type), matrix.columns, kind, matrix.name, columns.get(matrix.name))
            _put(sink.fileno(), rows, len(head) + start + row * piece.planned.width)
            return count * matrix.columns

        try:
            _put(sink.fileno(), head, 0)
            yield from pool.map(work, pieces(planned))
            os.ftruncate(sink.fileno(), len(head) + planned[-1].stop)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise MachineError(f"no space left while writing {out}: free some and rerun") from None
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _put(file: int, data: Any, at: int) -> None:
    view = memoryview(data).cast("B")
    while view:
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written


def fallbacks(matrices: Sequence[Matrix], chosen: Mapping[str, Choice]) -> list[dict[str, Any]]:
    """Tensors that could not take the blocks of the type that was wanted: by columns, wanted and given type, and the cause."""
    found = Counter((m.columns, chosen[m.name].wanted, chosen[m.name].type) for m in matrices if m.name in chosen)
    return [
        {
            "columns": columns,
            "wanted": wanted.name,
            "type": given.name,
            "tensors": count,
            "cause": f"columns no multiple of {GGML_QUANT_SIZES[wanted][0]}",
        }
        for (columns, wanted, given), count in sorted(found.items())
        if wanted != given
    ]


def figures(path: Path, contents: Contents, fell: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """What a quantized file is in numbers."""
    return {
        "bytes": path.stat().st_size,
        "bits_per_weight": round(contents.bits_per_weight, 3),
        "tensors": contents.histogram,
        "weight_shares": contents.weight_shares,
        "fallbacks": list(fell),
    }


def check_same(source: Sequence[Matrix], target: Contents, kind: str) -> None:
    """The quantized file holds the same tensors and says the type that was asked for.

    Raises:
        CheckFailed: tensors were lost, changed shape, or the file is of another type.
    """
    if {m.name: m.rows * m.columns for m in source} != {t.name: t.elements for t in target.tensors}:
        raise CheckFailed(f"{len(target.tensors)} of {len(source)} tensors were written, or changed their shapes: nothing was kept")
    written = target.metadata.get("general.file_type")
    if written != file_type(kind):
        raise CheckFailed(f"the file says type {written} where {kind} is {file_type(kind)}: nothing was kept")
    if all(t.type == "F32" for t in target.tensors):
        raise CheckFailed(f"no tensor was quantized to {kind}: nothing was kept")


def run(
    source: Path, out: Path, kind: str | Mapping[str, str], threads: int, imatrix: Path | None = None, through: OutType = "f32"
) -> dict[str, Any]:
    """Quantize `source` into `out`; return its figures.

    Args:
        source: a GGUF that is not quantized, or a Hugging Face folder.
        kind: a name of QuantType, or a type for each class of tensors (tensor_types.tensor_class); classes left out stay as they are.
        through: of a folder: what its weights are rounded to first, as if it had been converted to a GGUF of that type.

    Raises:
        InputError: wrong type name; source missing, cut short, of another architecture, already quantized, or with values that are no
            numbers; an importance matrix that is damaged or of another model.
        MachineError: no llama-cpp-python, or no space.
        CheckFailed: the result does not hold what the source holds.
    """
    name = kind if isinstance(kind, str) else MIXED
    if isinstance(kind, str):
        check_type(kind)
    if out.exists() and out.samefile(source):
        raise InputError(f"{out} is the source itself: name another --out")
    ggml.library()
    with open_folder(source, through) if source.is_dir() else open_gguf(source) as model:
        importance = read_importance(imatrix, {m.name: m.columns for m in model.matrices}) if imatrix is not None else None
        chosen = choose_types(model.matrices, kind, model.shape, importance is not None)
        planned = plan(in_llama_cpp_order(model.matrices), chosen)
        head = header(model, planned, name, importance)
        need_space(out.parent, len(head) + planned[-1].stop)
        with partial(out) as unfinished:
            done = write(unfinished, model, planned, head, importance, threads)
            for _ in track(done, f"quantize {name}", sum(m.rows * m.columns for m in model.matrices), "weights", amount=int):
                pass
            try:
                after = inspect(unfinished, "python -m phase3_quantize quantize")
            except InputError as error:
                raise CheckFailed(f"a broken file was written ({error}): nothing was kept") from None
            check_same(model.matrices, after, name)
        return figures(out, after, fallbacks(model.matrices, chosen))
