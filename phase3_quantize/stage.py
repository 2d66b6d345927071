"""The DVC stage `quantize`: convert, weigh the columns, quantize, verify, and leave one file of figures.

In:  phase3_quantize/out/merge, phase1_data/out/samples/{train,test_file}.parquet
Out: phase3_quantize/out/quantize/{model-f32.gguf, imatrix.gguf, model-<type>.gguf, quantize.json, manifest.json}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.manifest import MANIFEST, Run
from core.records import read_json, write_json
from phase3_quantize import convert, imatrix, quantize, verify
from phase3_quantize.params import QuantizeParams

FULL, IMATRIX, FIGURES = "model-f32.gguf", "imatrix.gguf", "quantize.json"


def run(merged: Path, train: Path, samples: Path, out: Path, params: QuantizeParams) -> dict[str, Any]:
    """All four steps; figures are written only if every check passed.

    Raises:
        InputError, MachineError, CheckFailed: see the steps.
    """
    started = Run("quantize", out)
    verify.read_holes(samples, params.verify_prompts)  # fails now rather than after the long part
    for stale in (out / FIGURES, out / MANIFEST):
        stale.unlink(missing_ok=True)  # a failed check leaves the files to look at, without the figures that vouch for them
    full, small = out / FULL, out / quantize.quantized_name(params.type)
    contents = convert.run(merged, full, "f32")
    weighed = imatrix.run(merged, train, out / IMATRIX, params.imatrix_rows)
    found = {
        "type": params.type,
        "imatrix": {"used": params.imatrix, **weighed},
        "f32": {"bytes": full.stat().st_size, "bits_per_weight": round(contents.bits_per_weight, 3)},
        "quantized": quantize.run(full, small, params.type, params.threads, out / IMATRIX if params.imatrix else None),
    }
    found["verify"] = verify.run(merged, full, small, samples, params)
    write_json(out / FIGURES, found)
    parent = read_json(merged / MANIFEST, convert.MERGED_BY).get("parent") if (merged / MANIFEST).is_file() else None
    packages = ("gguf", "llama-cpp-python", "torch", "transformers")
    started.finish({"quantize": params}, [merged, train, samples], found, packages, parent=parent)
    return found
