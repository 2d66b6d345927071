"""A GGUF of a real model's exact shape with random weights, for measuring speed and memory without its weights.

In:  the name of a shape, a type
Out: a GGUF that llama.cpp loads and runs exactly as fast as the real one; what it writes is noise

The vocabulary is made up: 256 bytes, all pairs of them, runs of blanks, then common triples, so that text becomes tokens of two
or three characters and an indentation one; the control tokens stand at Qwen's ids.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from gguf import TokenType
from tokenizers.pre_tokenizers import ByteLevel

from core.errors import InputError
from core.fim import CONTROL, QWEN, FimTokens
from phase3_quantize import quantize
from phase3_quantize.architecture import Architecture
from phase3_quantize.convert import gguf_shapes, metadata
from phase3_quantize.gguf_read import inspect
from phase3_quantize.gguf_write import FTYPES, plan, write_gguf
from phase3_quantize.params import OutType
from phase3_quantize.vocab import Vocab

# config.json of Qwen/Qwen2.5-Coder-0.5B and -1.5B
SHAPES = {
    "qwen2.5-coder-0.5b": Architecture("qwen2", 896, 4864, 24, 14, 2, 64, 151936, 32768, 1e6, 1e-6, True, True),
    "qwen2.5-coder-1.5b": Architecture("qwen2", 1536, 8960, 28, 12, 2, 128, 151936, 32768, 1e6, 1e-6, True, True),
}
BLANK, LONGEST_RUN = "Ġ", 64  # Qwen's vocabulary has a token for every run of blanks that code is indented by
N_PLAIN = QWEN.end  # ordinary tokens; Qwen's control tokens come after them
IM = {"<|im_start|>": 151644, "<|im_end|>": 151645}
COMMON = "Ġetaoinsrlcdpu_m.()fhg,=\"':bvyxw0kEST1[]AINORC#LDqP2MFj"  # frequent in code; only the order of merges depends on it
SCALE = 0.02  # standard deviation of the weights: Qwen2's initializer_range


def random_vocab(size: int) -> Vocab:
    """Tokens and merges of the right number, the markers at Qwen's ids."""
    letters = sorted(ByteLevel.alphabet(), key=lambda letter: (letter != BLANK, letter))  # a word keeps the blank before it, as in Qwen's
    pairs = list(itertools.product(letters, letters))
    triples = itertools.product((a + b for a, b in itertools.product(COMMON, COMMON)), COMMON)
    known = [*pairs, *blanks()]
    made = {a + b for a, b in known}
    new = ((a, b) for a, b in triples if a + b not in made)
    merges = [*known, *itertools.islice(new, N_PLAIN - len(letters) - len(known))]
    tokens = [*letters, *(a + b for a, b in merges)]
    assert len(tokens) == len(set(tokens)) == N_PLAIN
    control = {**dict(zip(CONTROL, QWEN, strict=False)), **IM}  # CONTROL begins with the seven markers, in QWEN's order
    text_of = {token: text for text, token in control.items()}
    tokens += [text_of.get(i, f"[PAD{i}]") for i in range(N_PLAIN, size)]
    kinds = [TokenType.CONTROL if i in text_of else TokenType.UNUSED if i >= N_PLAIN else TokenType.NORMAL for i in range(size)]
    special = {"eos": QWEN.end, "pad": QWEN.pad}
    return Vocab(tokens, kinds, [f"{a} {b}" for a, b in merges], "qwen2", FimTokens(*QWEN), special, {})


def blanks() -> Iterator[tuple[str, str]]:
    """Merges that make one token of every run of 3 to LONGEST_RUN blanks: powers of two first, then what is left, largest part first."""
    sizes = [1 << power for power in range(1, LONGEST_RUN.bit_length())]
    yield from ((BLANK * (size // 2), BLANK * (size // 2)) for size in sizes[1:])
    for least in [*reversed(sizes), 1]:
        yield from ((BLANK * (size - least), BLANK * least) for size in range(3 * least, LONGEST_RUN + 1, 2 * least))


def random_rows(name: str, start: int, stop: int, columns: int, number: int, seed: int) -> np.ndarray:
    """Norms are one, biases zero, matrices normal; the same for the same seed and place."""
    if name.endswith("norm.weight"):
        return np.ones(stop - start, np.float32)
    if name.endswith(".bias"):
        return np.zeros(stop - start, np.float32)
    rows = np.random.default_rng([seed, number, start]).standard_normal((stop - start, columns), np.float32)
    rows *= np.float32(SCALE)
    return rows


def write_random(model: Architecture, out: Path, outtype: OutType, name: str, seed: int) -> None:
    """Write the unquantized file, a few rows in memory at a time."""
    shapes = gguf_shapes(model)
    number = {tensor: i for i, tensor in enumerate(shapes)}
    entries = metadata(model, random_vocab(model.vocab), outtype, None, {"name": f"random {name}"})

    def rows(tensor: str, start: int, stop: int) -> np.ndarray:
        return random_rows(tensor, start, stop, shapes[tensor][-1], number[tensor], seed)

    write_gguf(out, entries, plan(shapes, outtype), rows)


def run(shape: str, kind: str, out: Path, seed: int, threads: int) -> dict[str, Any]:
    """Write a random model of a known shape; return the file's figures.

    Raises:
        InputError: no such shape or type.
        MachineError: no space, or llama.cpp is missing for a quantized type.
    """
    if shape not in SHAPES:
        raise InputError(f"there is no shape {shape!r} here: choose one of {', '.join(SHAPES)}")
    if kind.lower() in FTYPES:
        write_random(SHAPES[shape], out, cast(OutType, kind.lower()), shape, seed)
        return quantize.figures(out, inspect(out, "python -m phase3_quantize random-gguf"))
    quantize.check_type(kind)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".random-") as scratch:
        full = Path(scratch) / "f16.gguf"
        write_random(SHAPES[shape], full, "f16", shape, seed)
        return quantize.run(full, out, kind, threads)
