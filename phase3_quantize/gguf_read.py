"""Look into a GGUF file before anything trusts it.

In:  a GGUF path
Out: its tensors and metadata, after every tensor was found to be there to its last byte

The `gguf` package's reader makes three numpy arrays for every token and merge, seconds for Qwen's 151,936; this one
passes over arrays. A test holds the two together. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gguf import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGMLQuantizationType, GGUFValueType

from core.errors import InputError
from phase3_quantize.architecture import ARCHITECTURES

VERSIONS = (2, 3)
MAX_DIMS = 4  # ggml.h, GGML_MAX_DIMS
SCALARS = {
    GGUFValueType.UINT8: "B", GGUFValueType.INT8: "b", GGUFValueType.UINT16: "H", GGUFValueType.INT16: "h", GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i", GGUFValueType.FLOAT32: "f", GGUFValueType.UINT64: "Q", GGUFValueType.INT64: "q", GGUFValueType.FLOAT64: "d",
    GGUFValueType.BOOL: "?",
}  # fmt: skip


class Tensor(NamedTuple):
    """Of a GGUF file; `columns` is the contiguous dimension, which quantization cuts into blocks."""

    name: str
    type: str
    columns: int
    elements: int
    bytes: int


class Contents(NamedTuple):
    """What a GGUF file holds."""

    tensors: list[Tensor]
    metadata: Mapping[str, Any]  # scalars and strings; arrays as their length

    @property
    def bits_per_weight(self) -> float:
        return 8 * sum(t.bytes for t in self.tensors) / sum(t.elements for t in self.tensors)

    @property
    def histogram(self) -> dict[str, int]:
        """Tensors by type."""
        return dict(sorted(Counter(t.type for t in self.tensors).items()))

    @property
    def weight_shares(self) -> dict[str, float]:
        """Share of the weights by type."""
        total, by_type = sum(t.elements for t in self.tensors), Counter[str]()
        for tensor in self.tensors:
            by_type[tensor.type] += tensor.elements
        return {kind: round(count / total, 4) for kind, count in sorted(by_type.items())}


class _Cursor:
    """Reads little-endian values one after the other; past the end is a ValueError."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def skip(self, size: int) -> int:
        """Pass over `size` bytes; return where they begin."""
        start, self.at = self.at, self.at + size
        if self.at > len(self.data):
            raise ValueError("ends early")
        return start

    def scalar(self, kind: str) -> Any:
        return struct.unpack_from("<" + kind, self.data, self.skip(struct.calcsize("<" + kind)))[0]

    def text(self) -> str:
        start = self.skip(self.scalar("Q"))
        return self.data[start : self.at].decode()

    def value(self, kind: GGUFValueType) -> Any:
        """A scalar, a text, or the length of an array."""
        if kind == GGUFValueType.STRING:
            return self.text()
        if kind != GGUFValueType.ARRAY:
            return self.scalar(SCALARS[kind])
        inner, count = GGUFValueType(self.scalar("I")), self.scalar("Q")
        if count > len(self.data):
            raise ValueError("ends early")
        if inner == GGUFValueType.STRING:
            for _ in range(count):
                self.skip(self.scalar("Q"))
        else:
            self.skip(count * struct.calcsize(SCALARS[inner]))
        return count


def _tensor(cursor: _Cursor) -> tuple[Tensor, int]:
    """A tensor's entry in the header, and where its data begins relative to all data."""
    name = cursor.text()
    n_dims = cursor.scalar("I")
    if not 0 < n_dims <= MAX_DIMS:
        raise ValueError(f"{name!r} has {n_dims} dimensions")
    shape = [cursor.scalar("Q") for _ in range(n_dims)]
    if not all(shape):
        raise ValueError(f"{name!r} is empty")
    kind = GGMLQuantizationType(cursor.scalar("I"))
    elements, (block, width) = math.prod(shape), GGML_QUANT_SIZES[kind]
    return Tensor(name, kind.name, shape[0], elements, elements // block * width), cursor.scalar("Q")


def _contents(data: mmap.mmap) -> Contents:
    cursor = _Cursor(data)
    if data[:4] != b"GGUF" or cursor.skip(4) or cursor.scalar("I") not in VERSIONS:
        raise ValueError("no GGUF of a known version")
    n_tensors, n_values = cursor.scalar("Q"), cursor.scalar("Q")
    metadata = {cursor.text(): cursor.value(GGUFValueType(cursor.scalar("I"))) for _ in range(n_values)}
    entries = [_tensor(cursor) for _ in range(n_tensors)]
    alignment = int(metadata.get("general.alignment", GGUF_DEFAULT_ALIGNMENT))
    begin = -(-cursor.at // alignment) * alignment
    if any(begin + offset + tensor.bytes > len(data) for tensor, offset in entries):
        raise ValueError("ends early")
    if len({tensor.name for tensor, _ in entries}) < len(entries):
        raise ValueError("holds a tensor twice")
    return Contents([tensor for tensor, _ in entries], metadata)


def inspect(path: Path, made_by: str) -> Contents:
    """What a GGUF holds.

    Raises:
        InputError: missing, cut short, no GGUF, or another architecture; names `made_by`, the command that makes it.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: run `{made_by}` first")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            contents = _contents(data)
    except (ValueError, KeyError, IndexError, OverflowError, ZeroDivisionError, struct.error) as error:
        raise InputError(f"{path} is cut short or no GGUF ({error}): run `{made_by}` again") from None
    if contents.metadata.get("general.architecture") not in ARCHITECTURES:
        held = contents.metadata.get("general.architecture")
        raise InputError(f"{path} holds a {held!r} model: only {' and '.join(ARCHITECTURES)} models are handled here")
    if not contents.tensors:
        raise InputError(f"{path} holds no tensors: run `{made_by}` again")
    return contents
