"""Which quantization of a model is worth its bytes? The table of `choose` for any model, on plain text.

In:  a GGUF (quantized or not) or a Hugging Face folder, and files of text; or the name of a shape, for speed alone
Out: figures: per type size, KL divergence from the full model, same likeliest token, prompt and generation tokens/s, memory

For models that know no holes: rows are windows of the text, of which the second half is judged. Half of the files weigh the columns
(llama-imatrix), the other half judges. A GGUF that was quantized before has its columns permuted first, see permuted_gguf.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import CheckFailed, InputError, MachineError
from core.records import Row, read_json, write_jsonl
from eval.bench.permuted_gguf import write_f32

WINDOW = 128  # tokens of a row; the second half is judged
CHUNK = 512  # tokens of a window of llama-imatrix
SAME = 1e-3  # of the largest logit: sums in another order, keys and values kept in float16 (in float32 SmolLM2-135M's differ by 1e-6)


def token_ids(file: Path, text: str) -> list[int]:
    """Ids of plain text in a GGUF's vocabulary."""
    llama_cpp = _llama_cpp()
    settings = llama_cpp.llama_model_default_params()
    settings.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(file).encode(), settings)
    if not model:
        raise InputError(f"llama.cpp cannot read {file}: name another model")
    raw = text.encode()
    room = (llama_cpp.llama_token * (len(raw) + 8))()
    count = llama_cpp.llama_tokenize(llama_cpp.llama_model_get_vocab(model), raw, len(raw), room, len(room), False, False)
    llama_cpp.llama_model_free(model)
    return list(room[:count])


def last_logits(file: Path, ids: Sequence[int]) -> np.ndarray:
    """Logits (vocabulary,) after the last of some ids."""
    model = _llama_cpp().Llama(str(file), n_ctx=len(ids), n_batch=len(ids), logits_all=True, verbose=False)
    model.eval(list(ids))
    return np.array(model.scores[len(ids) - 1])


def _llama_cpp() -> Any:
    try:
        import llama_cpp
    except ImportError:
        raise MachineError("llama-cpp-python is not installed: run `make build`") from None
    llama_cpp.set_verbose(False)
    return llama_cpp


def phase3(*arguments: object) -> None:
    """A command of phase 3 to its end.

    Raises:
        CheckFailed: it ended with another code than 0; its own words are on stderr already.
    """
    done = subprocess.run([sys.executable, "-m", "phase3_quantize", *map(str, arguments)], check=False)
    if done.returncode:
        raise CheckFailed(f"`phase3_quantize {arguments[0]}` ended with {done.returncode}: mend that and rerun")


def importance(full: Path, text: Path, out: Path, chunks: int) -> Path:
    """What llama-imatrix makes of a text."""
    tool = Path(sysconfig.get_path("purelib")) / "bin" / "llama-imatrix"
    if not tool.is_file():
        raise MachineError(f"{tool} is missing: run `make build`")
    command = [tool, "-m", full, "-f", text, "-o", out, "-c", CHUNK, "--chunks", chunks, "--no-ppl", "-ngl", 0]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CheckFailed(f"llama-imatrix ended with {done.returncode} ({last}): give more --text, or fewer --chunks")
    return out


def windows(ids: Sequence[int], count: int) -> list[Row]:
    """Rows spread evenly over a text.

    Raises:
        InputError: it is too short for one.
    """
    starts = range(0, len(ids) - WINDOW + 1, WINDOW)
    if not starts:
        raise InputError(f"the text has {len(ids)} tokens, a row needs {WINDOW}: name more --text")
    chosen = [starts[i * len(starts) // min(count, len(starts))] for i in range(min(count, len(starts)))]
    return [{"ids": list(ids[start : start + WINDOW]), "start": WINDOW // 2} for start in chosen]


def full_file(gguf_file: Path | None, folder: Path | None, permute: bool, ids_of: str, scratch: Path) -> tuple[Path, Row]:
    """A file that is not quantized; how far its logits are from the given one's where its columns were permuted."""
    full = scratch / "full.gguf"
    if folder is not None:
        phase3("convert", "--model", folder, "--out", full)
        return full, {}
    assert gguf_file is not None
    write_f32(gguf_file, full, 17 if permute else None)
    if not permute:
        return full, {}
    plain = scratch / "plain.gguf"
    write_f32(gguf_file, plain, None)
    ids = token_ids(plain, ids_of)[:WINDOW]
    before, after = last_logits(plain, ids), last_logits(full, ids)
    plain.unlink()
    difference, largest = float(np.abs(before - after).max()), float(np.abs(before).max())
    if difference > SAME * max(1.0, largest):
        raise CheckFailed(
            f"the permuted model's logits differ by {difference:.2g}: its architecture is not understood here, use --no-permute"
        )
    return full, {"largest_logit": round(largest, 3), "largest_difference": float(f"{difference:.1e}")}


def run(
    gguf_file: Path | None, folder: Path | None, text: Sequence[Path], types: str, rows: int, chunks: int, rounds: int, threads: int,
    permute: bool, search: bool
) -> Row:  # fmt: skip
    """The table of one model.

    Raises:
        InputError: not one model, no text, or too little of it.
    """
    if (gguf_file is None) == (folder is None):
        raise InputError("name a model: either --gguf or --hf")
    files = sorted(file for path in text for file in (path.rglob("*.py") if path.is_dir() else [path]))
    if len(files) < 2:
        raise InputError("name at least two files of --text: one weighs the columns, one judges")
    learned, judged = ("\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files[at::2]) for at in (0, 1))
    with tempfile.TemporaryDirectory(prefix="quant-bench-") as place:
        scratch = Path(place)
        full, permuted = full_file(gguf_file, folder, permute, judged, scratch)
        (scratch / "text.txt").write_text(learned, encoding="utf-8")
        imatrix = importance(full, scratch / "text.txt", scratch / "imatrix.gguf", chunks)
        write_jsonl(scratch / "rows.jsonl", windows(token_ids(full, judged), rows))
        return measure(full, scratch, types, imatrix, rounds, threads, search) | {"permuted": permuted}


def of_shape(shape: str, types: str, rounds: int, threads: int) -> Row:
    """Size and speed at a real model's shape, weights random; what it says of KL means nothing."""
    with tempfile.TemporaryDirectory(prefix="quant-bench-") as place:
        scratch = Path(place)
        phase3("random-gguf", "--out", scratch / "full.gguf", "--type", "F16", "--shape", shape)
        ids = np.random.default_rng(17).integers(0, 1000, WINDOW).tolist()
        write_jsonl(scratch / "rows.jsonl", [{"ids": ids, "start": WINDOW - 2}])
        return measure(scratch / "full.gguf", scratch, types, None, rounds, threads, False) | {"shape": shape}


def measure(full: Path, scratch: Path, types: str, imatrix: Path | None, rounds: int, threads: int, search: bool) -> Row:
    """`phase3_quantize measure`, which prints its table."""
    weighed = ["--imatrix", imatrix] if imatrix else []
    flags = ["--search"] if search else []
    out = scratch / "figures.json"
    rows = ["--rows", scratch / "rows.jsonl", "--json", out, "--rounds", rounds, "--threads", threads]
    phase3("measure", "--full", full, "--types", types, *rows, *weighed, *flags)
    found: Row = read_json(out, "python -m phase3_quantize measure")
    return found
