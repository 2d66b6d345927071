"""An importance matrix: for each matrix of a model, the mean squared input of every column, as llama-imatrix writes it.

In:  a GGUF of the kind `imatrix`, from `python -m phase3_quantize imatrix` or llama-imatrix
Out: Importance, checked against the model it is to weigh

The file holds, for each matrix, `<name>.in_sum2`, the sum of squared inputs over tokens, and `<name>.counts`, the tokens
(tools/imatrix/imatrix.cpp). llama-quantize divides one by the other in float32, and so does this.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np

from core.errors import InputError
from core.records import partial

MADE_BY = "python -m phase3_quantize imatrix"
SUMS, COUNTS = ".in_sum2", ".counts"
DATASETS, CHUNKS, CHUNK_SIZE = "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"
LONGEST = 127  # bytes of a text that llama-quantize copies into the metadata


class Importance(NamedTuple):
    """Weights of the columns by tensor, and what the quantized file says about where they come from."""

    columns: dict[str, np.ndarray]  # float32 (columns,)
    file: str
    dataset: str
    chunks: int

    def described(self) -> dict[str, int | str]:
        """The metadata that llama-quantize adds; the file by its name, since where it lay is nobody's business."""
        said: dict[str, int | str] = {"quantize.imatrix.file": self.file[:LONGEST]}
        if self.dataset:
            said["quantize.imatrix.dataset"] = self.dataset[:LONGEST]
        said["quantize.imatrix.entries_count"] = len(self.columns)
        return said | ({"quantize.imatrix.chunks_count": self.chunks} if self.chunks > 0 else {})


def _means(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sums (columns,) over a count, in float32; ones where nothing was counted."""
    return sums / counts[0] if counts[0] > 0 else np.ones_like(sums)


def read_importance(path: Path, columns: Mapping[str, int]) -> Importance:
    """Read an importance matrix for a model with these columns by tensor.

    Raises:
        InputError: missing, damaged, not finite, or of another model; names the file and the tensor.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: run `{MADE_BY}` first")
    try:
        reader = gguf.GGUFReader(path)
        found = {tensor.name: np.array(tensor.data, np.float32).reshape(-1) for tensor in reader.tensors}
        datasets, chunks = (reader.get_field(key) for key in (DATASETS, CHUNKS))
        said = datasets.contents() if datasets is not None else []
        n_chunks = int(chunks.contents()) if chunks is not None else 0
        means = {
            name.removesuffix(SUMS): _means(sums, found[name.removesuffix(SUMS) + COUNTS])
            for name, sums in found.items()
            if name.endswith(SUMS)
        }
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError) as error:
        raise InputError(f"{path} is cut short or no importance matrix ({type(error).__name__}): run `{MADE_BY}` again") from None
    if not means:
        raise InputError(f"{path} holds no importance matrix: run `{MADE_BY}` again")
    for name, values in means.items():
        if not np.isfinite(values).all():
            raise InputError(f"{path}: {name} is not finite: run `{MADE_BY}` again")
        if name not in columns or len(values) != columns[name]:
            raise InputError(
                f"{path}: {name} has {len(values)} columns, the model {columns.get(name, 'no such tensor')}: it is of another model"
            )
    return Importance(means, path.name, said[0] if said else "", n_chunks)


def write_importance(path: Path, sums: Mapping[str, np.ndarray], tokens: int, dataset: str, chunks: int, chunk_size: int) -> None:
    """Write sums of squared inputs over `tokens` tokens whole or not at all.

    Args:
        sums: tensor name to float32 (columns,).
        dataset: where the text comes from.
    """
    with partial(path) as unfinished:
        writer = gguf.GGUFWriter(unfinished, "")
        writer.kv_data[0].clear()  # an importance matrix has no architecture
        writer.add_type("imatrix")
        writer.add_array(DATASETS, [dataset])
        writer.add_uint32(CHUNKS, chunks)
        writer.add_uint32(CHUNK_SIZE, chunk_size)
        for name in sorted(sums):
            writer.add_tensor(name + SUMS, sums[name].astype(np.float32).reshape(1, -1))
            writer.add_tensor(name + COUNTS, np.array([[tokens]], np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
