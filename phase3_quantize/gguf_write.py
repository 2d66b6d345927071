"""Write a GGUF, a few rows in memory at a time, several threads side by side.

In:  metadata, a plan of tensors, a function that gives rows of each
Out: a GGUF that llama.cpp loads

The `gguf` package packs arrays value by value, seconds for a vocabulary of 151,936 tokens, and holds tensors whole; here arrays are
packed at once, and blocks of rows are encoded and written to their places by a few threads (numpy lets go of the interpreter meanwhile).
A test holds the two together. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import functools
import math
import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Ggml
from gguf import GGUFValueType as Kind

from core.errors import InputError
from core.progress import track
from core.records import partial
from phase3_quantize.architecture import Shape
from phase3_quantize.gguf_read import SCALARS
from phase3_quantize.params import OutType
from phase3_quantize.space import need_space
from phase3_quantize.weights import as_float32, row_blocks

FTYPES = {"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16, "bf16": gguf.LlamaFileType.MOSTLY_BF16}
GGML_TYPES = {"f32": Ggml.F32, "f16": Ggml.F16, "bf16": Ggml.BF16}
WIDTH = {Ggml.F32: 4, Ggml.F16: 2, Ggml.BF16: 2}  # bytes
F16_MAX = 65504.0
ALIGNMENT = gguf.GGUF_DEFAULT_ALIGNMENT  # bytes
VERSION = 3
BLOCK = 1 << 20  # elements encoded at once by a thread: 4 MB in float32
THREADS = min(4, os.cpu_count() or 1)

Rows = Callable[[str, int, int], np.ndarray]  # rows of a tensor by its GGUF name: float32, float16, or bfloat16 as uint16


class Planned(NamedTuple):
    """A tensor and its place; `at` counts bytes from where the tensors begin."""

    name: str
    shape: Shape
    kind: Ggml
    at: int

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * WIDTH[self.kind]


def type_of(name: str, shape: Shape, outtype: OutType) -> Ggml:
    """Vectors and norms stay float32, as in llama.cpp's converter: most kernels take nothing else for them."""
    return Ggml.F32 if len(shape) == 1 or name.endswith("_norm.weight") else GGML_TYPES[outtype]


def plan(shapes: Mapping[str, Shape], outtype: OutType) -> list[Planned]:
    """Tensors one after the other, each at a multiple of ALIGNMENT."""
    found: list[Planned] = []
    at = 0
    for name, shape in shapes.items():
        found.append(Planned(name, shape, type_of(name, shape, outtype), at))
        at += _padded(found[-1].bytes)
    return found


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def packed_texts(texts: Iterable[str]) -> bytes:
    """Texts as an array holds them: each with its length before it."""
    raw = [text.encode() for text in texts]
    lengths = np.array([len(text) for text in raw], "<u8").tobytes()
    return b"".join(part for i, text in enumerate(raw) for part in (lengths[8 * i : 8 * i + 8], text))


def packed(value: Any, kind: Kind, inner: Kind | None = None) -> bytes:
    """A metadata value without its type; arrays with the type of their members."""
    if kind == Kind.STRING:
        return _text(value)
    if kind != Kind.ARRAY:
        return struct.pack("<" + SCALARS[kind], value)
    inner = inner or Kind.get_type(value[0])
    members = packed_texts(value) if inner == Kind.STRING else struct.pack(f"<{len(value)}{SCALARS[inner]}", *value)
    return struct.pack("<IQ", inner, len(value)) + members


def entries_of(writer: gguf.GGUFWriter) -> dict[str, bytes]:
    """What was added to a GGUFWriter: key to the whole entry, as it stands in a file."""
    return {
        key: _text(key) + struct.pack("<I", stored.type) + packed(stored.value, stored.type, stored.sub_type)
        for key, stored in writer.kv_data[0].items()
    }


def header(entries: Mapping[str, bytes], planned: Sequence[Planned]) -> bytes:
    """Everything before the tensors."""
    head = struct.pack("<4sIQQ", b"GGUF", VERSION, len(planned), len(entries)) + b"".join(entries.values())
    for tensor in planned:
        dims = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *reversed(tensor.shape))
        head += _text(tensor.name) + dims + struct.pack("<IQ", tensor.kind, tensor.at)
    return head + bytes(_padded(len(head)) - len(head))


def encoded(data: np.ndarray, kind: Ggml, name: str) -> np.ndarray:
    """Rows as they stand in the file.

    Raises:
        InputError: a value is too large for float16.
    """
    if data.dtype == (np.uint16 if kind == Ggml.BF16 else np.float16 if kind == Ggml.F16 else np.float32):
        return data
    if kind == Ggml.F16:
        return float16(data, name)
    data = as_float32(data)
    return data if kind == Ggml.F32 else bfloat16(data)


def float16(data: np.ndarray, name: str) -> np.ndarray:
    """float32 or bfloat16 (uint16) rounded to the nearest float16, ties to even.

    Raises:
        InputError: a value is too large for float16.
    """
    if data.dtype == np.uint16:  # looked up: three times as fast as computed
        half = np.take(_bfloat16_as_float16(), data, mode="clip")
    else:
        with np.errstate(over="ignore"):
            half = data.astype(np.float16)
    if ((half.view(np.uint16) & 0x7FFF) == 0x7C00).any():  # infinite
        over = int((np.abs(as_float32(data)) > F16_MAX).sum())
        raise InputError(f"{name} has {over} values beyond float16's {F16_MAX:.0f}: convert with --outtype bf16 or f32")
    return half


@functools.cache
def _bfloat16_as_float16() -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return as_float32(np.arange(1 << 16, dtype=np.uint16)).astype(np.float16)


def bfloat16(data: np.ndarray) -> np.ndarray:
    """float32 rounded to the nearest bfloat16, ties to even, as uint16; NaN stays NaN (ggml-impl.h, ggml_compute_fp32_to_bf16)."""
    bits = data.view(np.uint32)
    rounded = bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))
    rounded >>= 16
    found = rounded.astype(np.uint16)
    nan = np.isnan(data)
    if nan.any():
        found[nan] = (bits[nan] >> 16).astype(np.uint16) | 64
    return found


def write_gguf(path: Path, entries: Mapping[str, bytes], planned: Sequence[Planned], rows: Rows) -> None:
    """Write a GGUF whole or not at all.

    Args:
        entries: metadata by key, see `entries_of`.
        rows: gives rows of a tensor; called from several threads.

    Raises:
        InputError: a value is too large for float16.
        MachineError, OSError: no space.
    """
    head = header(entries, planned)
    size = planned[-1].at + _padded(planned[-1].bytes)
    need_space(path.parent, len(head) + size)
    with partial(path) as unfinished, unfinished.open("wb") as sink:
        try:
            sink.write(head)
            sink.flush()
            _write_tensors(sink.fileno(), len(head), planned, rows, path.name)
            os.ftruncate(sink.fileno(), len(head) + size)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None


def _write_tensors(file: int, begin: int, planned: Sequence[Planned], rows: Rows, label: str) -> None:
    def write(piece: tuple[Planned, int, int]) -> int:
        tensor, start, stop = piece
        data = np.ascontiguousarray(encoded(rows(tensor.name, start, stop), tensor.kind, tensor.name))
        assert data.shape == (stop - start, *tensor.shape[1:])
        assert data.dtype.itemsize == WIDTH[tensor.kind]
        _put(file, data.data.cast("B"), begin + tensor.at + start * data[:1].nbytes)
        return stop - start

    pieces = [(tensor, start, stop) for tensor in planned for start, stop in row_blocks(tensor.shape, BLOCK)]
    pool = ThreadPoolExecutor(THREADS)
    try:
        for _ in track(pool.map(write, pieces), label, total=len(pieces), unit="blocks"):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


def _put(file: int, data: memoryview, at: int) -> None:
    while data:
        count = os.pwrite(file, data, at)
        data, at = data[count:], at + count
