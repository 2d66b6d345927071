"""Weights in safetensors files, a few rows in memory at a time.

In:  a folder of *.safetensors, whole or in shards
Out: rows of tensors by name; one safetensors file of float32

Read with pread into arrays of our own rather than mapped: pages of a mapping count as memory of the process until the system wants
them back, and a conversion would seem to hold the whole model. bfloat16, which numpy does not have, is an array of uint16.
Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from core.errors import InputError
from phase3_quantize.architecture import Architecture, Shape
from phase3_quantize.space import need_space

DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
LONGEST_HEADER = 100_000_000  # bytes, as in the safetensors library
CHUNK = 1 << 22  # elements written at once


class Stored(NamedTuple):
    """Where a tensor lies."""

    file: int  # descriptor
    at: int  # bytes from the start of the file
    dtype: np.dtype[Any]
    shape: Shape


class Weights:
    """The tensors of some safetensors files by name; safe to read from several threads."""

    def __init__(self, tensors: Mapping[str, Stored]) -> None:
        self._tensors = dict(tensors)

    def names(self) -> set[str]:
        return set(self._tensors)

    def shape(self, name: str) -> Shape:
        return self._tensors[name].shape

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Some rows as they are stored: float32, float16, or bfloat16 as uint16."""
        stored = self._tensors[name]
        stop = stored.shape[0] if stop is None else stop
        assert 0 <= start < stop <= stored.shape[0], (name, start, stop)
        shape = (stop - start, *stored.shape[1:])
        found = np.empty(shape, stored.dtype)
        row = found[:1].nbytes
        view, at = found.data.cast("B"), stored.at + start * row
        while view:
            count = os.preadv(stored.file, [view], at)
            if not count:
                raise InputError(f"the file that holds {name} became shorter while it was read: run the same command again")
            view, at = view[count:], at + count
        return found

    def array(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows, or a whole tensor, in float32, which holds every float16 and bfloat16 exactly."""
        return as_float32(self.rows(name, start, stop))

    def picked(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Single rows in float32, read one by one."""
        return np.concatenate([self.array(name, int(row), int(row) + 1) for row in rows])


def as_float32(stored: np.ndarray) -> np.ndarray:
    """float32, float16 or bfloat16 (uint16) as float32."""
    if stored.dtype == np.uint16:
        wide = stored.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    return stored.astype(np.float32, copy=False)


@contextlib.contextmanager
def open_weights(files: list[Path], made_by: str) -> Iterator[Weights]:
    """Open safetensors files for reading.

    Raises:
        InputError: none, cut short, damaged, of another type, or a tensor stands in two of them; names the file and `made_by`.
    """
    if not files or not all(file.is_file() for file in files):
        missing = next((str(file) for file in files if not file.is_file()), "*.safetensors")
        raise InputError(f"{missing} is missing: run `{made_by}` first, or name another folder")
    found: dict[str, Stored] = {}
    with contextlib.ExitStack() as stack:
        for file in files:
            opened = stack.enter_context(file.open("rb"))
            try:
                tensors = _header(opened.fileno())
            except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
                raise InputError(f"{file} is cut short or damaged ({error}): run `{made_by}` again") from None
            for name, stored in tensors.items():
                if name in found:
                    raise InputError(f"{file} holds {name}, which another file of its folder holds too: remove the older one")
                found[name] = stored
        yield Weights(found)


def _header(file: int) -> dict[str, Stored]:
    """Every tensor of a file; ValueError where the file does not hold what its header says."""
    size = os.fstat(file).st_size
    (length,) = struct.unpack("<Q", os.pread(file, 8, 0))
    if length > min(LONGEST_HEADER, size - 8):
        raise ValueError("ends early")
    begin = 8 + length
    found: dict[str, Stored] = {}
    for name, entry in json.loads(os.pread(file, length, 8)).items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in DTYPES:
            raise ValueError(f"{name} is {entry['dtype']}, not one of {', '.join(DTYPES)}")
        shape: Shape = tuple(map(int, entry["shape"]))
        dtype = DTYPES[entry["dtype"]]
        start, stop = entry["data_offsets"]
        if not 0 <= start <= stop <= size - begin:
            raise ValueError("ends early")
        if stop - start != dtype.itemsize * int(np.prod(shape, dtype=object)) or not all(shape):
            raise ValueError(f"{name} has {stop - start} bytes, which is not its shape {shape}")
        found[name] = Stored(file, begin + start, dtype, shape)
    return found


def model_files(folder: Path) -> list[Path]:
    """The weight files of a model folder: those its index names, else all *.safetensors in it."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    try:
        return sorted({folder / file for file in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{index} is damaged: fetch the model again") from None


def check_tensors(weights: Weights, model: Architecture, folder: Path) -> None:
    """Every tensor the architecture needs, in its shape, and no other.

    Raises:
        InputError: names the first that is missing, misshapen or unknown.
    """
    shapes = model.tensors()
    for name, shape in shapes.items():
        if name not in weights.names():
            raise InputError(f"{folder} lacks the tensor {name}: fetch the model again, or name another folder")
        if weights.shape(name) != shape:
            raise InputError(
                f"{folder}: {name} is {weights.shape(name)} where config.json says {shape}: config and weights do not belong together"
            )
    extra = sorted(name for name in weights.names() - shapes.keys() if not name.endswith("rotary_emb.inv_freq"))
    if extra == ["lm_head.weight"]:
        raise InputError(
            f"{folder} holds lm_head.weight although its embeddings are tied (19% of a 0.5B file twice): save it tied, or set "
            "tie_word_embeddings to false"
        )
    if extra:
        raise InputError(f"{folder} holds {extra[0]}, which no {model.name} model has: name another folder")


def write_f32(path: Path, shapes: Mapping[str, Shape], load: Callable[[str], Iterator[np.ndarray]]) -> int:
    """Write one safetensors file of float32, asking `load` for the rows of one tensor after the other; return its bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    need_space(path.parent, at)
    with path.open("wb") as sink:
        sink.write(struct.pack("<Q", len(text)) + text)
        for name in shapes:
            for rows in load(name):
                assert rows.dtype == np.float32
                sink.write(np.ascontiguousarray(rows).data.cast("B"))
    assert path.stat().st_size == 8 + len(text) + at
    return at


def row_blocks(shape: Shape, elements: int = CHUNK) -> Iterator[tuple[int, int]]:
    """A tensor's rows in pieces of about so many elements: start and stop of each."""
    step = max(1, elements // max(1, int(np.prod(shape[1:]))))
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])
