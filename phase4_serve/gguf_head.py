"""What stands before the weights in a GGUF: read in a tenth of a second where `gguf.GGUFReader` takes seconds.

In:  path of a GGUF (version 2 or 3, little-endian, as llama.cpp writes and reads them)
Out: `Head`: scalar keys, where each tensor lies, the ids of chosen tokens

GGUFReader makes an array of every string of a vocabulary; one of 150,000 tokens keeps Python busy for seconds, in which a
server answers nobody. Here strings are stepped over.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST_DIMENSIONS = 8
ALIGNMENT = "general.alignment"
Scalar = str | int | float | bool

_SCALARS = {
    GGUFValueType.UINT8: "<B", GGUFValueType.INT8: "<b", GGUFValueType.UINT16: "<H", GGUFValueType.INT16: "<h",
    GGUFValueType.UINT32: "<I", GGUFValueType.INT32: "<i", GGUFValueType.FLOAT32: "<f", GGUFValueType.BOOL: "<?",
    GGUFValueType.UINT64: "<Q", GGUFValueType.INT64: "<q", GGUFValueType.FLOAT64: "<d",
}  # fmt: skip
_LENGTH = struct.Struct("<Q")


class Damaged(ValueError):
    """The file is no GGUF, or does not hold what it says."""


class Tensor(NamedTuple):
    """Where a tensor lies."""

    name: str
    kind: GGMLQuantizationType
    shape: tuple[int, ...]  # as ggml counts: columns first
    start: int  # bytes from the beginning of the file
    n_bytes: int


class Head(NamedTuple):
    """What stands before the weights."""

    scalars: dict[str, Scalar]
    tensors: dict[str, Tensor]
    found: dict[bytes, int]  # of the tokens that were looked for: their ids
    n_vocab: int
    end: int  # where the weights begin
    size: int  # of the file, in bytes

    @property
    def complete(self) -> bool:
        """Whether the file holds all of its tensors."""
        return bool(self.tensors) and max(t.start + t.n_bytes for t in self.tensors.values()) <= self.size


def read(path: Path, wanted: Collection[bytes] = ()) -> Head:
    """Read a file's head; `wanted` are tokens whose ids are looked for in its vocabulary.

    Raises:
        Damaged: it is no GGUF, cut short, or of another version.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise Damaged("no GGUF")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                return _Reader(content, frozenset(wanted)).head()
            except (struct.error, LookupError, ValueError, ArithmeticError, MemoryError) as error:
                raise Damaged(str(error) if isinstance(error, Damaged) else type(error).__name__) from None


class _Reader:
    """Steps through the bytes."""

    def __init__(self, content: mmap.mmap, wanted: frozenset[bytes]) -> None:
        self.content, self.wanted, self.at = content, wanted, len(MAGIC)
        self.found: dict[bytes, int] = {}
        self.n_vocab = 0

    def head(self) -> Head:
        if self._next("<I") not in VERSIONS:
            raise Damaged("of another version")
        n_tensors, n_keys = self._next("<Q"), self._next("<Q")
        scalars: dict[str, Scalar] = {}
        for _ in range(n_keys):
            key = self._text().decode()
            kind = GGUFValueType(self._next("<I"))
            if kind is GGUFValueType.ARRAY:
                self._array(key)
            else:
                scalars[key] = self._text().decode() if kind is GGUFValueType.STRING else self._next(_SCALARS[kind])
        infos = [self._info() for _ in range(n_tensors)]
        alignment = int(scalars.get(ALIGNMENT, 32))
        end = -(-self.at // alignment) * alignment
        tensors = {info.name: info._replace(start=end + info.start) for info in infos}
        return Head(scalars, tensors, self.found, self.n_vocab, end, len(self.content))

    def _next(self, form: str) -> Any:
        value = struct.unpack_from(form, self.content, self.at)[0]
        self.at += struct.calcsize(form)
        return value

    def _text(self) -> bytes:
        length = _LENGTH.unpack_from(self.content, self.at)[0]
        start = self.at + 8
        if start + length > len(self.content):
            raise Damaged("cut short")
        self.at = start + length
        return self.content[start : self.at]

    def _array(self, key: str) -> None:
        kind, count = GGUFValueType(self._next("<I")), self._next("<Q")
        if kind is GGUFValueType.STRING:
            self._strings(int(count), key == "tokenizer.ggml.tokens")
        else:
            self.at += int(count) * struct.calcsize(_SCALARS[kind])

    def _strings(self, count: int, vocabulary: bool) -> None:
        content, at, length_at = self.content, self.at, _LENGTH.unpack_from
        lengths = frozenset(map(len, self.wanted))
        for number in range(count):
            length = length_at(content, at)[0]
            at += 8 + length
            if vocabulary and length in lengths and (token := content[at - length : at]) in self.wanted:
                self.found[token] = number
        self.at = at
        if vocabulary:
            self.n_vocab = count

    def _info(self) -> Tensor:
        name = self._text().decode()
        dimensions = int(self._next("<I"))
        if dimensions > MOST_DIMENSIONS:
            raise Damaged("a tensor of too many dimensions")
        shape = tuple(int(self._next("<Q")) for _ in range(dimensions))
        kind = GGMLQuantizationType(self._next("<I"))
        block, size = GGML_QUANT_SIZES[kind]
        return Tensor(name, kind, shape, int(self._next("<Q")), math.prod(shape) // block * size)
