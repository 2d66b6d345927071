"""Show that the GGUF files are the model that was merged.

In:  the merged folder, its f32 GGUF, the quantized GGUF, held-out holes
Out: figures; CheckFailed if tokenizers or greedy completions differ, or the quantized model does not stop by itself often enough

- tokenizer: llama.cpp cuts awkward texts and the holes themselves into the same ids as the Hugging Face tokenizer
- equality: greedy completions in float32 are the same tokens in transformers and llama.cpp, in both orders of the hole. Where the two
  best logits lie closer than NEAR_TIE, rounding decides; such steps are counted, and the comparison goes on with transformers' choice.
- loss by quantization: KL divergence from the f32 to the quantized file on the true middles, where it matters, not on the code around them
- stop: the quantized model ends its completion by itself
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from core.errors import CheckFailed, InputError
from core.fim import MARKERS, Codec, Hole, Order, codec_of, encode_plain
from core.progress import track
from phase3_quantize.architecture import architecture_of, read_config
from phase3_quantize.convert import MERGED_BY, gguf_shapes
from phase3_quantize.engine import GgufModel
from phase3_quantize.gguf_read import inspect
from phase3_quantize.holes import read_holes
from phase3_quantize.kl import divergences, log_softmax
from phase3_quantize.params import QuantizeParams
from phase3_quantize.vocab import read_tokenizer
from phase3_quantize.weights import check_tensors, model_files, open_weights

KEPT = 100  # best logits of a step that are kept for comparison: all of Qwen's 151,936 would be 20 MB a prompt
NEAR_TIE = 1e-3  # logits; float32 sums of a few hundred terms in another order differ by about 1e-5 of their size
ORDERS: tuple[Order, ...] = ("psm", "spm")
ENDING = ("<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>")  # markers llama.cpp stops at

# What tokenizers disagree on: spaces, breaks, digits, marks, scripts, joined emoji, contractions, and markers as text
AWKWARD = (
    "", " ", "  ", "   \t  ", "\n", "\n\n\n", "\r\n\r\n", " \n \n", "\t\tif x:\r\n\t\t\treturn\r", "a\u00a0b\u2003c\u3000d",
    "x" * 300, " " * 300, "    def f(self, *args, **kwargs) -> dict[str, list[int]]:\n        return {**kwargs}  # fine\n",
    "3 33 333 3333 0x1F 1_000 1e-3 ½ ²", "I'm you're WE'LL He'S don't 'tis o'clock'd", "!!!???...---===<<<>>>&&&|||",
    "#!/usr/bin/env python3\n# -*- coding: utf-8 -*-\n", "naïve café Ångström Straße", "привет мир", "你好，世界", "こんにちは",
    "안녕하세요", "שלום עולם", "مرحبا بالعالم", "ภาษาไทย", "हिन्दी",
    "😀👩\u200d👩\u200d👧\u200d👦🏳️\u200d🌈🇩🇪", "\u200b\ufeffzero\u200dwidth", "\x00\x01\x7f",
    "\U0001f9d1\U0001d54f", "<|", "<|fim", "<|fim_prefix|>", "a<|fim_middle|>b<|endoftext|>", "<|im_start|>user", "<|endoftext", "[PAD7]",
    "s = '''<|file_sep|>'''\n", "foo(bar)[baz]{qux};\n}\n\n\n  }", "camelCaseHTTPServer2XML_snake__dunder__",
    "\\n\\t\\x41 \"quoted\" 'single' `tick`", "a  b   c    d     e",
)  # fmt: skip


class Prompt(NamedTuple):
    """A held-out hole in one order, as ids."""

    ids: list[int]
    middle: list[int]  # the true middle and its end token


class Greedy(NamedTuple):
    """A greedy completion in transformers: tokens, the best logits before each, and the gap between the two best."""

    tokens: list[int]
    best: list[np.ndarray]  # ids of the KEPT best tokens at each step, best first
    logits: list[np.ndarray]  # their logits
    gaps: list[float]


def prompts_of(codec: Codec, holes: Sequence[Hole]) -> list[Prompt]:
    """Every hole in both orders."""
    rows = [codec.row(hole, order) for hole in holes for order in ORDERS]
    return [Prompt(ids[:start], ids[start:]) for ids, start in rows]


def greedy_original(folder: Path, prompts: Sequence[Prompt], steps: int, end: int) -> Iterator[Greedy]:
    """Greedy completions of the merged folder in float32, up to `steps` tokens or the end token."""
    transformers_logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    for prompt in prompts:
        found = Greedy([], [], [], [])
        ids, cache = torch.tensor([prompt.ids]), None
        while len(found.tokens) < steps and found.tokens[-1:] != [end]:
            with torch.inference_mode():
                out = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, top = out.past_key_values, out.logits[0, -1].topk(min(KEPT, out.logits.shape[-1]))
            found.tokens.append(int(top.indices[0]))
            found.best.append(top.indices.numpy())
            found.logits.append(top.values.numpy())
            found.gaps.append(float(top.values[0] - top.values[1]))
            ids = top.indices[None, :1]
        yield found


def compare(model: GgufModel, prompt: Prompt, wanted: Greedy) -> tuple[int | None, int, float]:
    """Complete greedily in llama.cpp, following `wanted` past near-ties.

    Returns:
        The step of the first divergence that rounding does not explain (None: there is none), how many near-ties were
        decided otherwise, and the largest difference of one of the KEPT best logits.
    """
    model.clear()
    ties, worst = 0, 0.0
    logits = model.extend(prompt.ids)[0]
    for step, token in enumerate(wanted.tokens):
        worst = max(worst, float(np.abs(logits[wanted.best[step]] - wanted.logits[step]).max()))
        if int(logits.argmax()) != token:
            if wanted.gaps[step] >= NEAR_TIE:
                return step, ties, worst
            ties += 1
        if step + 1 < len(wanted.tokens):
            logits = model.extend([token])[0]
    return None, ties, worst


def check_tokenizer(model: GgufModel, tokenizer: Tokenizer, texts: Sequence[str]) -> int:
    """Both tokenizers give the same ids for every text; return how many were compared.

    Raises:
        CheckFailed: they differ; names a text by its number, since it may be somebody's code.
    """

    def original(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids  # type: ignore[no-any-return]

    different = [i for i, text in enumerate(texts) if encode_plain(original, text) != encode_plain(model.encode, text)]
    if different:
        raise CheckFailed(
            f"llama.cpp tokenizes {len(different)} of {len(texts)} texts differently, first number {different[0]}: convert again"
        )
    return len(texts)


def check_ends(model: GgufModel, tokenizer: Tokenizer) -> None:
    """Generation stops at the end token and at the markers that begin something else.

    Raises:
        CheckFailed: it does not; names the marker.
    """
    for marker in ENDING:
        token = tokenizer.token_to_id(marker)
        if token is None or not model.ends(token):
            raise CheckFailed(f"llama.cpp does not stop at {marker}: convert again with this version's writer")


def quantization_loss(full: GgufModel, small: GgufModel, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """What quantization changes on the true middles: KL divergence (nats per token), share of equal best tokens, and loss."""
    found: list[float] = []
    same, losses = 0, np.zeros(2)
    for prompt in track(prompts, "divergence", unit="prompts"):
        rows = []
        for model in (full, small):
            model.clear()
            rows.append(log_softmax(model.extend([*prompt.ids, *prompt.middle[:-1]], len(prompt.middle))))
        p, q = rows
        found += divergences(p, q).tolist()
        same += int((p.argmax(axis=-1) == q.argmax(axis=-1)).sum())
        losses += [-row[np.arange(len(prompt.middle)), prompt.middle].sum() for row in rows]
    tokens = len(found)
    return {
        "middle_tokens": tokens,
        "kl_mean": round(float(np.mean(found)), 6),
        "kl_p99": round(float(np.quantile(found, 0.99)), 6),
        "same_best_token": round(same / tokens, 4),
        "loss_f32": round(float(losses[0]) / tokens, 5),
        "loss_quantized": round(float(losses[1]) / tokens, 5),
    }


def stops(model: GgufModel, prompt: Prompt, limit: int) -> bool:
    """Whether a greedy completion ends by itself within `limit` tokens."""
    model.clear()
    ids = list(prompt.ids)
    for _ in range(limit):
        token = int(model.extend(ids)[0].argmax())
        if model.ends(token):
            return True
        ids = [token]
    return False


def in_nfc(tokenizer: Tokenizer, texts: Sequence[str]) -> list[str]:
    """The texts that a normalizer leaves alone; all where the tokenizer has none. llama.cpp normalizes nothing."""
    return [text for text in texts if tokenizer.normalizer is None or unicodedata.is_normalized("NFC", text)]


def check_equal(full: GgufModel, prompts: Sequence[Prompt], originals: Sequence[Greedy]) -> dict[str, Any]:
    """Greedy completions of the f32 GGUF against transformers'.

    Raises:
        CheckFailed: one diverges where rounding does not explain it.
    """
    results = [compare(full, *pair) for pair in track(list(zip(prompts, originals, strict=True)), "equality", unit="prompts")]
    diverged = [(number, step) for number, (step, _, _) in enumerate(results) if step is not None]
    if diverged:
        number, step = diverged[0]
        raise CheckFailed(
            f"{len(diverged)} of {len(prompts)} greedy completions of the f32 GGUF differ from the merged model, first prompt {number} "
            f"at token {step} (top-2 gap {originals[number].gaps[step]:.4f}): the conversion is wrong, do not ship it"
        )
    return {
        "prompts": len(prompts),
        "tokens": sum(len(original.tokens) for original in originals),
        "near_ties": sum(ties for _, ties, _ in results),
        "largest_logit_difference": float(f"{max(worst for _, _, worst in results):.1e}"),
    }


def check_files(merged: Path, full: Path, small: Path) -> None:
    """All three are whole and hold the same tensors.

    Raises:
        InputError: one is missing, damaged, or another model; names it.
    """
    model = architecture_of(read_config(merged, MERGED_BY), merged)
    read_tokenizer(merged)
    with open_weights(model_files(merged), MERGED_BY) as weights:
        check_tensors(weights, model, merged)
    wanted = {name: math.prod(shape) for name, shape in gguf_shapes(model).items()}
    for file, made_by in ((full, "python -m phase3_quantize convert"), (small, "python -m phase3_quantize quantize")):
        if {t.name: t.elements for t in inspect(file, made_by).tensors} != wanted:
            raise InputError(f"{file} was not made from {merged}: run `{made_by}` again")


def run(merged: Path, full: Path, small: Path, samples: Path, params: QuantizeParams) -> dict[str, Any]:
    """All four comparisons; return their figures.

    Raises:
        InputError: a file is missing or damaged.
        CheckFailed: see the module's first lines.
    """
    check_files(merged, full, small)
    tokenizer = Tokenizer.from_file(str(merged / "tokenizer.json"))
    codec, holes = codec_of(tokenizer), read_holes(samples, params.verify_prompts)
    prompts = prompts_of(codec, holes)
    room = max(len(p.ids) + max(len(p.middle), params.verify_tokens, params.stop_tokens) for p in prompts) + 8
    texts = in_nfc(tokenizer, [*AWKWARD, *(text for hole in holes for text in (hole.prefix, hole.middle, hole.suffix)), " ".join(MARKERS)])
    originals = list(track(greedy_original(merged, prompts, params.verify_tokens, codec.tokens.end), "original", len(prompts), "prompts"))
    with GgufModel(full, room, params.threads) as f32, GgufModel(small, room, params.threads) as quantized:
        for model in (f32, quantized):
            check_ends(model, tokenizer)
            compared = check_tokenizer(model, tokenizer, texts)
        equality = check_equal(f32, prompts, originals)
        loss = quantization_loss(f32, quantized, prompts)
        stopped = [stops(quantized, prompt, params.stop_tokens) for prompt in track(prompts, "stops", unit="prompts")]
    share = sum(stopped) / len(stopped)
    if share < params.min_stop_share:
        raise CheckFailed(
            f"the {params.type} model stops by itself on {share:.0%} of {len(prompts)} prompts, quantize.min_stop_share asks for "
            f"{params.min_stop_share:.0%}: train longer, or choose a larger type"
        )
    return {
        "tokenizer_texts": compared,
        "equality": equality,
        "quantization": loss,
        "stops_by_itself": {"prompts": len(prompts), "share": round(share, 4)},
    }
