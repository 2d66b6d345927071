"""ggml's own quantization functions, called in the library that llama-cpp-python brings.

In:  float32 rows, a type, importance weights of the columns if there are any
Out: the bytes llama-quantize would write for these rows: it calls the same function of the same build

ctypes releases the interpreter's lock during a call, so rows are quantized in as many threads as call it. What would make ggml abort the
process (shapes that are no multiple of a block, values that are not finite) is refused here before the call.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Ggml

from core.errors import CheckFailed, InputError, MachineError

LARGEST = 65504.0  # float16: what the scale of a block is stored in
HALVES = {Ggml.F16: "ggml_fp16_to_fp32_row", Ggml.BF16: "ggml_bf16_to_fp32_row"}


@functools.cache
def library() -> Any:
    """libggml-base, loaded once.

    Raises:
        MachineError: llama-cpp-python is missing, or was built without shared libraries.
    """
    found = importlib.util.find_spec("llama_cpp")
    if found is None or found.origin is None:
        raise MachineError("llama-cpp-python is not installed: run `make build`")
    files = sorted((Path(found.origin).parent / "lib").glob("*ggml-base.*"))
    if not files:
        raise MachineError(f"{Path(found.origin).parent} has no libggml-base: run `make build`")
    ggml = ctypes.CDLL(str(files[0]))
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    ggml.ggml_quantize_init.argtypes = [ctypes.c_int]
    ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, size, size, size, pointer]
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_validate_row_data.argtypes = [ctypes.c_int, pointer, ctypes.c_size_t]
    ggml.ggml_validate_row_data.restype = ctypes.c_bool
    for widen in HALVES.values():
        getattr(ggml, widen).argtypes = [pointer, pointer, size]
    return ggml


def row_bytes(kind: Ggml, columns: int) -> int:
    """Bytes of a row; `columns` must be a multiple of the type's block."""
    block, width = GGML_QUANT_SIZES[kind]
    assert columns % block == 0, (kind, columns)
    return columns // block * width


def widened(raw: np.ndarray, kind: Ggml) -> np.ndarray:
    """Bytes of float32, float16 or bfloat16 as float32."""
    if kind == Ggml.F32:
        return raw.view(np.float32)
    out = np.empty(raw.nbytes // 2, np.float32)
    getattr(library(), HALVES[kind])(raw.ctypes.data, out.ctypes.data, out.size)
    return out


def check_values(rows: np.ndarray, name: str) -> None:
    """Every value is a number that a block's float16 scale can hold.

    Raises:
        InputError: names the tensor.
    """
    if not max(float(rows.max()), -float(rows.min())) <= LARGEST:  # also where one is not a number
        raise InputError(f"{name} has values that are not finite or beyond {LARGEST:.0f}: the model is damaged, convert it again")


def quantized(rows: np.ndarray, columns: int, kind: Ggml, name: str, importance: np.ndarray | None = None) -> np.ndarray:
    """Rows of float32 as the bytes of a type.

    Args:
        rows: float32, its size a multiple of `columns`.
        importance: float32 (columns,), the mean squared input of each column.

    Raises:
        InputError: a value cannot be quantized; names the tensor.
        CheckFailed: what ggml wrote is not valid in its own eyes.
    """
    check_values(rows, name)
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    assert rows.size % columns == 0
    assert importance is None or (importance.dtype == np.float32 and importance.shape == (columns,))
    count = rows.size // columns
    out = np.empty(count * row_bytes(kind, columns), np.uint8)
    weights = None if importance is None else importance.ctypes.data
    library().ggml_quantize_chunk(kind, rows.ctypes.data, out.ctypes.data, 0, count, columns, weights)
    if not library().ggml_validate_row_data(kind, out.ctypes.data, out.nbytes):
        raise CheckFailed(f"{name} became invalid as {kind.name}: nothing was kept, choose another type")
    return out
