"""A tokenizer as llama.cpp wants it: tokens in id order with their kinds, merges, and the ids that mean something.

In:  tokenizer.json and tokenizer_config.json of a Hugging Face folder
Out: Vocab
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from gguf import SpecialVocab, TokenType

from core.errors import InputError
from core.fim import FimTokens

# The split that llama.cpp calls "qwen2" (src/llama-vocab.cpp, LLAMA_VOCAB_PRE_TYPE_QWEN2)
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NORMALIZERS = (None, "NFC")  # llama.cpp normalizes nothing for qwen2; on text in NFC, which source code nearly always is, that is the same


class Vocab(NamedTuple):
    """Tokens and types have config.json's vocab_size entries, the places past the tokenizer filled with [PAD i]."""

    tokens: list[str]
    types: list[TokenType]
    merges: list[str]
    fim: FimTokens
    bos: int | None
    pad: int
    chat_template: str | None = None


def read_tokenizer(folder: Path) -> dict[str, Any]:
    """tokenizer.json, if it is a byte-level BPE with Qwen2's split.

    Raises:
        InputError: missing, damaged, or a tokenizer that llama.cpp's "qwen2" would not reproduce.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise InputError(f"{file} is missing: run `python -m phase3_quantize merge` first, or name another folder")
    try:
        tokenizer: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        kind = tokenizer["model"]["type"], (tokenizer["decoder"] or {}).get("type")
        splits = _splits(tokenizer["pre_tokenizer"] or {})
        normalizer = (tokenizer["normalizer"] or {}).get("type")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is damaged ({type(error).__name__}): run `python -m phase3_quantize merge` again") from None
    if kind != ("BPE", "ByteLevel") or splits != [QWEN2_SPLIT] or normalizer not in NORMALIZERS:
        raise InputError(
            f"{file} is not a byte-level BPE with Qwen2's split, so llama.cpp would cut text differently: use a Qwen2.5 tokenizer"
        )
    return tokenizer


def _splits(pre_tokenizer: dict[str, Any]) -> list[str]:
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    return [step["pattern"].get("Regex", "") for step in steps if step.get("type") == "Split"]


def kind_of(text: str, added: dict[str, Any] | None) -> TokenType:
    """CONTROL for what stands between <| and |>, even where the tokenizer calls it ordinary, as Qwen's does its FIM markers."""
    if added is None:
        return TokenType.NORMAL
    looks_special = text.startswith("<|") and text.endswith("|>")
    return TokenType.CONTROL if added["special"] or looks_special else TokenType.USER_DEFINED


def read_vocab(folder: Path, size: int) -> Vocab:
    """The vocabulary of a model folder, padded to `size`, which is config.json's vocab_size.

    Raises:
        InputError: not reproducible in llama.cpp, larger than the model, or without FIM markers.
    """
    tokenizer = read_tokenizer(folder)
    added = {token["content"]: token for token in tokenizer.get("added_tokens", [])}
    id_of: dict[str, int] = {**tokenizer["model"]["vocab"], **{text: token["id"] for text, token in added.items()}}
    if max(id_of.values()) >= size:
        raise InputError(
            f"{folder}: the tokenizer has ids up to {max(id_of.values())}, the model only {size} rows: they do not belong together"
        )
    text_of = {token: text for text, token in id_of.items()}
    try:
        fim = FimTokens.of(id_of.get)
    except ValueError as error:
        raise InputError(f"{folder}: {error}") from None
    special = SpecialVocab(folder, load_merges=True, n_vocab=size)
    return Vocab(
        tokens=[text_of.get(i, f"[PAD{i}]") for i in range(size)],
        types=[kind_of(text_of[i], added.get(text_of[i])) if i in text_of else TokenType.UNUSED for i in range(size)],
        merges=special.merges,
        fim=fim,
        bos=special.special_token_ids.get("bos"),
        pad=special.special_token_ids.get("pad", fim.pad),
        chat_template=special.chat_template if isinstance(special.chat_template, str) else None,
    )
