"""Importance of every matrix's columns, from text of the kind the model will be asked to complete.

In:  phase3_quantize/out/merge, phase1_data/out/samples/train.parquet
Out: imatrix.gguf: for each matrix the sum of squared inputs of each column, over the tokens of some training rows

llama-imatrix does the same on a text file, cut into windows wherever they fall. A model that completes holes never sees such text: here
every row is a hole with its markers, as core.fim writes it and as the model was trained on, each read on its own. Both forms are one file
format, and on the same tokens the numbers are the same up to float32 sums in another order (a test compares).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from core.errors import InputError
from core.fim import codec_of
from core.progress import track
from core.records import read_parquet
from phase3_quantize.architecture import gguf_name
from phase3_quantize.convert import MERGED_BY
from phase3_quantize.holes import SAMPLES_BY, hole_of
from phase3_quantize.imatrix_file import write_importance


def training_rows(samples: Path, tokenizer: Tokenizer, count: int, longest: int) -> tuple[list[list[int]], int]:
    """Ids of `count` rows spread evenly over a file of samples, in the order each was trained in; how many were too long and left out.

    Raises:
        InputError: the file is missing, damaged or empty.
    """
    codec = codec_of(tokenizer)
    rows = list(read_parquet(samples, SAMPLES_BY))
    found: list[list[int]] = []
    for number in range(min(count, len(rows))):
        row = rows[number * len(rows) // min(count, len(rows))]
        found.append(codec.row(hole_of(row), row["order"])[0])
    fitting = [ids for ids in found if len(ids) <= longest]
    if not fitting:
        raise InputError(f"{samples} holds no row that fits into {longest} tokens: run `{SAMPLES_BY}` again")
    return fitting, len(found) - len(fitting)


def names_of(model: PreTrainedModel) -> dict[torch.nn.Linear, str]:
    """The linear layers with the names their weights have in a GGUF; without the output matrix, which llama-imatrix leaves out too."""
    named = {f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    return {module: gguf_name(name) for name, module in named.items() if name != "lm_head.weight"}


@torch.inference_mode()
def squared_inputs(model: PreTrainedModel, rows: Iterable[Sequence[int]]) -> tuple[dict[str, np.ndarray], int]:
    """Sum of the squared inputs of every linear layer's columns, by GGUF name of its weight, and the tokens it is over.

    Args:
        rows: token ids, each row read on its own.
    """
    names, tokens = names_of(model), 0
    sums: dict[str, torch.Tensor] = {}

    def add(module: torch.nn.Linear, inputs: tuple[torch.Tensor, ...]) -> None:
        squares = inputs[0].float().reshape(-1, module.in_features).square().sum(0).double().cpu()
        name = names[module]
        sums[name] = sums[name] + squares if name in sums else squares

    hooks = [module.register_forward_pre_hook(add) for module in names]
    try:
        for ids in rows:
            model.base_model(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False)
            tokens += len(ids)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: total.float().numpy() for name, total in sums.items()}, tokens


def run(merged: Path, samples: Path, out: Path, count: int) -> dict[str, int]:
    """Write the importance matrix of a merged model; return how many rows, tokens and matrices it is of.

    Raises:
        InputError: model or samples missing, damaged or empty.
    """
    if not (merged / "tokenizer.json").is_file():
        raise InputError(f"{merged} holds no model: run `{MERGED_BY}` first")
    transformers_logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(str(merged / "tokenizer.json"))
    rows, too_long = training_rows(samples, tokenizer, count, model.config.max_position_embeddings)
    sums, tokens = squared_inputs(model, track(rows, "imatrix", unit="rows"))
    for name, values in sums.items():
        if not np.isfinite(values).all():
            raise InputError(f"{merged}: inputs of {name} are not finite: the model is damaged, merge it again")
    write_importance(out, sums, tokens, f"{samples.name} in the markers of core.fim", len(rows), max(map(len, rows)))
    return {"rows": len(rows), "too_long": too_long, "tokens": tokens, "matrices": len(sums)}
