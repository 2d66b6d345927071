"""What is to be quantized: a GGUF that is not yet, or a model folder as if it had been converted to one.

In:  a GGUF in f32, f16 or bf16, or a Hugging Face folder and one of these three
Out: its metadata entries byte for byte, its tensors with their shapes, and any rows of them

Rows are read with `pread`, so that a file of gigabytes costs the memory of the rows that are being worked on, and threads read side by
side. A folder gives what `convert` would have written, rounding included, without the gigabytes being written and read again.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gguf import GGUF_DEFAULT_ALIGNMENT, GGUFValueType
from gguf import GGMLQuantizationType as Ggml

from core.errors import InputError
from phase3_quantize import convert, ggml, gguf_write
from phase3_quantize.architecture import architecture_of, read_config
from phase3_quantize.gguf_read import SCALARS, inspect
from phase3_quantize.params import OutType
from phase3_quantize.vocab import read_vocab
from phase3_quantize.weights import check_tensors, model_files, open_weights

CONVERTED_BY = "python -m phase3_quantize convert"
UNQUANTIZED = {"F32", "F16", "BF16"}
HEADER = struct.Struct("<4sIQQ")  # magic, version, number of tensors, number of metadata entries
STRING, ARRAY = int(GGUFValueType.STRING), int(GGUFValueType.ARRAY)
SIZES = {int(kind): struct.calcsize(code) for kind, code in SCALARS.items()}  # bytes


class Matrix(NamedTuple):
    """A tensor to quantize; `dims` as GGUF has them, columns first."""

    name: str
    dims: tuple[int, ...]
    type: Ggml

    @property
    def columns(self) -> int:
        return self.dims[0]

    @property
    def rows(self) -> int:
        return math.prod(self.dims[1:])


class Shape(NamedTuple):
    """What the rules of tensor_types look at in a model."""

    arch: str
    layers: int
    heads: int
    kv_heads: int

    @property
    def grouped(self) -> int:
        """Query heads for each key-value head."""
        return self.heads // self.kv_heads if self.kv_heads else 0

    @property
    def is_70b(self) -> bool:
        """llama.cpp tells Llama 2 70B and Qwen2 72B by their 80 layers."""
        return self.layers == 80 and (self.arch == "qwen2" or self.heads != self.kv_heads)


class Source(NamedTuple):
    """A model whose rows can be read; from several threads at once."""

    entries: dict[str, bytes]  # key to the whole metadata entry: key, type and value
    matrices: list[Matrix]
    shape: Shape
    read: Callable[[Matrix, int, int], np.ndarray]  # of a matrix, from row a on, b rows: their bytes (uint8) in the matrix's own type


class _Walk:
    """Passes over the header of a GGUF that gguf_read.inspect has found whole."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, HEADER.size

    def number(self, code: str) -> int:
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return int(value)

    def skip_text(self) -> None:
        self.at += 8 + struct.unpack_from("<Q", self.data, self.at)[0]

    def text(self) -> str:
        start = self.at + 8
        self.skip_text()
        return bytes(self.data[start : self.at]).decode()

    def skip_value(self, kind: int) -> None:
        if kind == STRING:
            self.skip_text()
        elif kind == ARRAY:
            inner, count = self.number("I"), self.number("Q")
            if inner != STRING:
                self.at += count * SIZES[inner]
                return
            for _ in range(count):
                self.skip_text()
        else:
            self.at += SIZES[kind]

    def entry(self) -> tuple[str, bytes]:
        start = self.at
        key = self.text()
        self.skip_value(self.number("I"))
        return key, bytes(self.data[start : self.at])

    def tensor(self) -> tuple[Matrix, int]:
        name, n_dims = self.text(), self.number("I")
        dims = tuple(self.number("Q") for _ in range(n_dims))
        return Matrix(name, dims, Ggml(self.number("I"))), self.number("Q")


@contextlib.contextmanager
def open_gguf(path: Path) -> Iterator[Source]:
    """A GGUF that is not quantized yet.

    Raises:
        InputError: missing, cut short, quantized already, or of a kind that is not quantized here.
    """
    contents = inspect(path, CONVERTED_BY)
    if any(t.type not in UNQUANTIZED for t in contents.tensors):
        raise InputError(f"{path} is quantized already ({', '.join(contents.histogram)}): quantize the f32, f16 or bf16 file")
    with path.open("rb") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
            _, _, n_tensors, n_entries = HEADER.unpack_from(view)
            walk = _Walk(view)
            entries = dict(walk.entry() for _ in range(n_entries))
            placed = [walk.tensor() for _ in range(n_tensors)]
        begin = -(-walk.at // alignment_of(entries)) * alignment_of(entries)
        starts = {matrix.name: begin + offset for matrix, offset in placed}

        def read(matrix: Matrix, start: int, count: int) -> np.ndarray:
            width = ggml.row_bytes(matrix.type, matrix.columns)
            return np.frombuffer(os.pread(file.fileno(), count * width, starts[matrix.name] + start * width), np.uint8)

        yield Source(entries, [matrix for matrix, _ in placed], shape_of(contents.metadata, path), read)


def alignment_of(entries: Mapping[str, bytes]) -> int:
    """Bytes that a GGUF's tensors begin at a multiple of."""
    stated = entries.get("general.alignment")
    return int.from_bytes(stated[-4:], "little") if stated else GGUF_DEFAULT_ALIGNMENT


def shape_of(metadata: Mapping[str, Any], file: object) -> Shape:
    """The shape of a model from a GGUF's metadata.

    Raises:
        InputError: a number is missing, or the model has experts, for which the rules are others.
    """
    arch = metadata["general.architecture"]
    if metadata.get(f"{arch}.expert_count"):
        raise InputError(f"{file} is a model with experts, which is not quantized here: use llama-quantize")

    def number(key: str) -> int:
        value = metadata.get(f"{arch}.{key}")
        if not isinstance(value, int):
            raise InputError(f"{file} has no {arch}.{key}: run `{CONVERTED_BY}` again")
        return value

    heads = number("attention.head_count")
    return Shape(arch, number("block_count"), heads, int(metadata.get(f"{arch}.attention.head_count_kv", heads)))


@contextlib.contextmanager
def open_folder(folder: Path, outtype: OutType) -> Iterator[Source]:
    """A Hugging Face folder as `convert --outtype` would write it.

    Raises:
        InputError: see convert.run.
    """
    model = architecture_of(read_config(folder, convert.MERGED_BY), folder)
    vocab = read_vocab(folder, model.vocab)
    with open_weights(model_files(folder), convert.MERGED_BY) as weights:
        check_tensors(weights, model, folder)
        matrices = [Matrix(t.name, t.shape[::-1], t.kind) for t in gguf_write.plan(convert.gguf_shapes(model), outtype)]
        rows = convert.rows_of(model, weights)

        def read(matrix: Matrix, start: int, count: int) -> np.ndarray:
            stop = start + count if len(matrix.dims) > 1 else matrix.columns  # a vector's rows are its values to the converter
            data = gguf_write.encoded(rows(matrix.name, start, stop), matrix.type, matrix.name)
            return np.ascontiguousarray(data).reshape(-1).view(np.uint8)

        entries = convert.metadata(model, vocab, outtype, folder, convert.provenance(folder))
        yield Source(entries, matrices, Shape(model.name, model.layers, model.heads, model.kv_heads), read)
