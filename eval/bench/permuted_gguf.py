"""The same model with its columns in another order, so that quantizing it again meets no traces of a quantization before.

In:  a GGUF of Qwen2 or Llama, quantized or not
Out: a float32 GGUF that computes the same, its residual columns, feed-forward columns and value columns permuted at random

Open weights come as quantized files more often than not. Their values stand on the grid of the blocks they were rounded in, and whoever
cuts the same blocks again finds the grid: the type that made the file would seem to lose nothing. A network does not care in which order
its columns stand as long as all its matrices agree: the residual stream (which every matrix but two reads), the inner columns of each
feed-forward block, and the columns of each value head. Blocks of the new order mix columns of many old blocks; only the attention's way
out keeps more of them, since its columns can change places within a head alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np

from core.errors import InputError
from core.records import partial

FROM_RESIDUAL = ("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up", "token_embd", "output")
TO_RESIDUAL = ("attn_output", "ffn_down")
NORMS = ("attn_norm", "ffn_norm", "output_norm")


class Orders:
    """The new order of each kind of column; the same for the same seed."""

    def __init__(self, reader: gguf.GGUFReader, seed: int) -> None:
        def number(key: str) -> int:
            field = reader.get_field(f"{arch}.{key}")
            if field is None:
                raise InputError(f"the file has no {arch}.{key}: name another --gguf")
            return int(field.contents())

        known = reader.get_field("general.architecture")
        arch = known.contents() if known else None
        if arch not in ("qwen2", "llama"):
            raise InputError(f"the file is a {arch!r} model: only qwen2 and llama are permuted here")
        rng = np.random.default_rng(seed)
        layers, heads, kv_heads = (number(key) for key in ("block_count", "attention.head_count", "attention.head_count_kv"))
        width = next(int(t.shape[1]) for t in reader.tensors if t.name == "blk.0.attn_v.weight") // kv_heads
        self.residual = rng.permutation(number("embedding_length"))
        self.inner = [rng.permutation(number("feed_forward_length")) for _ in range(layers)]
        self.values = [[rng.permutation(width) for _ in range(kv_heads)] for _ in range(layers)]
        self.width, self.group = width, heads // kv_heads

    def value_rows(self, layer: int) -> np.ndarray:
        """Rows of the value matrix."""
        return np.concatenate([head * self.width + order for head, order in enumerate(self.values[layer])])

    def value_columns(self, layer: int) -> np.ndarray:
        """Columns of the attention's way out: each key-value head's order for all query heads that read it."""
        orders = [order for order in self.values[layer] for _ in range(self.group)]
        return np.concatenate([head * self.width + order for head, order in enumerate(orders)])

    def apply(self, name: str, tensor: np.ndarray) -> np.ndarray:
        """A tensor (rows, columns) or (columns,) in the new order."""
        parts = name.split(".")
        layer, what = (int(parts[1]), parts[2]) if parts[0] == "blk" else (0, parts[0])
        if what in NORMS:
            return tensor[self.residual]
        if what in FROM_RESIDUAL and tensor.ndim == 2:
            tensor = tensor[:, self.residual]
        if what in TO_RESIDUAL:
            tensor = tensor[self.residual]
        if what == "attn_v":
            tensor = tensor[self.value_rows(layer)]
        elif what == "attn_output" and tensor.ndim == 2:
            tensor = tensor[:, self.value_columns(layer)]
        elif what in ("ffn_gate", "ffn_up"):
            tensor = tensor[self.inner[layer]]
        elif what == "ffn_down" and tensor.ndim == 2:
            tensor = tensor[:, self.inner[layer]]
        return tensor


def write_f32(source: Path, out: Path, seed: int | None) -> None:
    """Write a GGUF's weights as float32, their columns permuted if there is a seed.

    Raises:
        InputError: missing, no GGUF, or another architecture.
    """
    try:
        reader = gguf.GGUFReader(source)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise InputError(f"{source} is missing or no GGUF ({type(error).__name__}): name another --gguf") from None
    orders = Orders(reader, seed) if seed is not None else None

    def tensors() -> Iterator[tuple[str, np.ndarray]]:
        for tensor in reader.tensors:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(tensor.shape[::-1])
            yield tensor.name, orders.apply(tensor.name, values) if orders else values

    with partial(out) as unfinished:
        writer = gguf.GGUFWriter(unfinished, str(reader.fields["general.architecture"].contents()), use_temp_file=True)
        for name, field in reader.fields.items():
            if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type", "general.quantization_version"):
                continue
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=inner)
        writer.add_file_type(gguf.LlamaFileType.ALL_F32)
        for name, values in tensors():
            writer.add_tensor(name, np.ascontiguousarray(values))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
