"""Weights in safetensors files, one tensor in memory at a time.

In:  a folder of *.safetensors, whole or in shards
Out: float32 tensors by name; one safetensors file of float32
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from core.errors import InputError
from phase3_quantize.qwen2 import Qwen2, Shape
from phase3_quantize.space import need_space


class Weights:
    """The tensors of some safetensors files by name."""

    def __init__(self, files: Mapping[str, Any]) -> None:
        self._files = dict(files)  # tensor name to open file

    def names(self) -> set[str]:
        return set(self._files)

    def shape(self, name: str) -> Shape:
        return tuple(self._files[name].get_slice(name).get_shape())

    def tensor(self, name: str) -> torch.Tensor:
        """The tensor as float32, which holds every float16 and bfloat16 exactly."""
        return self._files[name].get_tensor(name).to(torch.float32)  # type: ignore[no-any-return]


@contextlib.contextmanager
def open_weights(files: list[Path], made_by: str) -> Iterator[Weights]:
    """Open safetensors files for reading.

    Raises:
        InputError: none, cut short, damaged, or a tensor stands in two of them; names the file and `made_by`.
    """
    if not files or not all(file.is_file() for file in files):
        missing = next((str(file) for file in files if not file.is_file()), "*.safetensors")
        raise InputError(f"{missing} is missing: run `{made_by}` first, or name another folder")
    found: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        for file in files:
            try:
                opened = stack.enter_context(safe_open(file, framework="pt"))
            except SafetensorError as error:
                raise InputError(f"{file} is cut short or damaged ({error}): run `{made_by}` again") from None
            for name in opened.keys():  # noqa: SIM118  # not a dict
                if name in found:
                    raise InputError(f"{file} holds {name}, which another file of its folder holds too: remove the older one")
                found[name] = opened
        yield Weights(found)


def model_files(folder: Path) -> list[Path]:
    """The weight files of a model folder: those its index names, else all *.safetensors in it."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    try:
        return sorted({folder / file for file in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{index} is damaged: fetch the model again") from None


def check_tensors(weights: Weights, model: Qwen2, folder: Path) -> None:
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
        raise InputError(f"{folder} holds {extra[0]}, which no Qwen2 model has: name another folder")


def write_f32(path: Path, shapes: Mapping[str, Shape], load: Callable[[str], torch.Tensor]) -> int:
    """Write one safetensors file of float32, asking `load` for one tensor after the other; return its bytes.

    `safetensors.save_file` wants all tensors in memory at once. The format is a length, a JSON header padded to eight
    bytes, then the tensors end to end (https://github.com/huggingface/safetensors#format).
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes.items():
        size = 4 * int(torch.Size(shape).numel())
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    need_space(path.parent, at)
    with path.open("wb") as sink:
        sink.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            tensor = load(name)
            assert tensor.shape == shape, name
            sink.write(tensor.contiguous().numpy().data.cast("B"))
    return at
