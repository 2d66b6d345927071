"""Write a merged model as GGUF, without a llama.cpp checkout.

In:  phase3_quantize/out/merge (or any Qwen2 folder of Hugging Face)
Out: a GGUF in f32, f16 or bf16, tensor for tensor what llama.cpp's convert_hf_to_gguf.py writes, with FIM ids and provenance added
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from core.manifest import MANIFEST
from core.records import read_json
from phase3_quantize.gguf_read import Contents, inspect
from phase3_quantize.gguf_write import write_gguf
from phase3_quantize.params import OutType
from phase3_quantize.qwen2 import qwen2_of, read_config
from phase3_quantize.vocab import read_vocab
from phase3_quantize.weights import check_tensors, model_files, open_weights

MERGED_BY = "python -m phase3_quantize merge"


def provenance(folder: Path) -> dict[str, str]:
    """What the manifest of `merge` says about where the model comes from; another folder has its name only."""
    manifest = read_json(folder / MANIFEST, MERGED_BY) if (folder / MANIFEST).is_file() else {}
    if manifest.get("stage") != "merge":
        return {"name": folder.name}
    said: dict[str, str] = {**manifest["counts"]["provenance"], "base_sha256": manifest["parent"]}
    return {"name": f"tabsmith {Path(said.get('base_model', 'model')).name}", **said}


def run(folder: Path, out: Path, outtype: OutType) -> Contents:
    """Convert, then open the file again and look at what it holds.

    Raises:
        InputError: a file or tensor missing, another architecture or tokenizer, values too large for f16.
    """
    model = qwen2_of(read_config(folder, MERGED_BY), folder)
    vocab = read_vocab(folder, model.vocab)
    with open_weights(model_files(folder), MERGED_BY) as weights:
        check_tensors(weights, model, folder)

        def load(name: str) -> np.ndarray:
            return weights.tensor(name).numpy()

        write_gguf(out, model, vocab, outtype, provenance(folder), load)
    return inspect(out, "python -m phase3_quantize convert")
