"""A tokenizer as llama.cpp wants it: tokens in id order with their kinds, merges, and the ids that mean something.

In:  tokenizer.json and tokenizer_config.json of a Hugging Face folder
Out: Vocab, and its metadata in a GGUF

What llama.cpp's converter writes is written (gguf-py, SpecialVocab), and besides the ids of the FIM markers, which it leaves llama.cpp to
guess from their texts, and of the end of a turn.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import gguf
from gguf import TokenType

from core.errors import InputError
from core.fim import FimTokens
from phase3_quantize.splits import NAMED, described, split_name

MADE_BY = "python -m phase3_quantize merge"
NORMALIZERS = (None, "NFC")  # llama.cpp normalizes nothing; on text in NFC, which source code nearly always is, that is the same
SPECIAL = ("bos", "eos", "unk", "sep", "pad", "mask")
UNLIKE = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback")


class Vocab(NamedTuple):
    """Tokens and types have config.json's vocab_size entries, the places past the tokenizer filled with [PAD i]."""

    tokens: list[str]
    types: list[TokenType]
    merges: list[str]
    pre: str  # llama.cpp's name of the cut before the merges
    fim: FimTokens
    special: dict[str, int]  # bos, eos, ... to id
    adds: dict[str, bool]  # bos, eos, sep: whether the tokenizer puts them around a text
    chat_template: str | list[dict[str, str]] | None = None
    prefix_space: bool | None = None  # what tokenizer_config.json says of it, which llama.cpp's converter passes on for Llama


def read_tokenizer(folder: Path) -> dict[str, Any]:
    """tokenizer.json, if it is a byte-level BPE whose cut llama.cpp knows.

    Raises:
        InputError: missing, damaged, or a tokenizer that llama.cpp would not reproduce; names the step that it does not know.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        sentencepiece = " (tokenizer.model is a SentencePiece model, which is not converted here)" if _sentencepiece(folder) else ""
        raise InputError(f"{file} is missing{sentencepiece}: run `{MADE_BY}` first, or name another folder")
    try:
        tokenizer: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        why = _unlike(tokenizer)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is damaged ({type(error).__name__}): run `{MADE_BY}` again") from None
    if why:
        raise InputError(f"{file} {why}, so llama.cpp would cut text differently: use a tokenizer like Qwen2.5's or Llama 3's")
    return tokenizer


def _sentencepiece(folder: Path) -> bool:
    return (folder / "tokenizer.model").is_file()


def _unlike(tokenizer: dict[str, Any]) -> str:
    """What of a tokenizer llama.cpp does not reproduce; empty if nothing."""
    model, decoder, normalizer = tokenizer["model"], tokenizer["decoder"] or {}, tokenizer["normalizer"] or {}
    kinds = [decoder.get("type"), *(inner.get("type") for inner in decoder.get("decoders", []))]
    if model["type"] != "BPE" or "ByteLevel" not in kinds:
        return f"is no byte-level BPE but {model['type']} with {kinds[0]} (SentencePiece models are not converted here)"
    unlike = [f"{key} {model[key]!r}" for key in UNLIKE if model.get(key)]
    if unlike:
        return f"has {unlike[0]}"
    if not model["merges"]:
        return "has no merges"
    if normalizer.get("type") not in NORMALIZERS:
        return f"normalizes text ({normalizer['type']})"
    if split_name(tokenizer) is None:
        return f"cuts text by {described(tokenizer)}, which is none of {', '.join(sorted(NAMED.values()))}"
    return ""


def looks_special(text: str) -> bool:
    """Whether llama.cpp's converter takes an added token for a control token by its text (conversion/base.py)."""
    bars = (text.startswith("<|") and text.endswith("|>")) or (text.startswith("<｜") and text.endswith("｜>"))
    return bars or text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]") or (text.startswith("<unused") and text.endswith(">"))


def kind_of(text: str, added: dict[str, Any] | None) -> TokenType:
    """CONTROL also for what stands between <| and |> where the tokenizer calls it ordinary, as Qwen's does its FIM markers."""
    if added is None:
        return TokenType.NORMAL
    return TokenType.CONTROL if added["special"] or looks_special(text) else TokenType.USER_DEFINED


def read_vocab(folder: Path, size: int) -> Vocab:
    """The vocabulary of a model folder, padded to `size`, which is config.json's vocab_size.

    Raises:
        InputError: not reproducible in llama.cpp, larger than the model, a token twice, or without FIM markers.
    """
    tokenizer = read_tokenizer(folder)
    added = {token["content"]: token for token in tokenizer.get("added_tokens", [])}
    id_of: dict[str, int] = {**tokenizer["model"]["vocab"], **{text: token["id"] for text, token in added.items()}}
    if max(id_of.values()) >= size:
        raise InputError(
            f"{folder}: the tokenizer has ids up to {max(id_of.values())}, the model only {size} rows: they do not belong together"
        )
    try:
        fim = FimTokens.of(id_of.get)
    except ValueError as error:
        raise InputError(f"{folder}: {error}") from None
    tokens = [f"[PAD{i}]" for i in range(size)]
    types = [TokenType.UNUSED] * size
    for text, token in id_of.items():
        kind = kind_of(text, added.get(text))
        tokens[token] = text.replace("▁", " ") if kind == TokenType.USER_DEFINED else text
        types[token] = kind
    if len(set(tokens)) < size:
        raise InputError(f"{folder}: the tokenizer has a token twice, with which llama.cpp would end: use the tokenizer as published")
    config = _config(folder / "tokenizer_config.json")
    special, adds = _special(tokenizer, config, _config(folder / "config.json"), added, size)
    return Vocab(
        tokens=tokens,
        types=types,
        merges=_merges(tokenizer["model"]["merges"]),
        pre=split_name(tokenizer) or "",
        fim=fim,
        special={"eos": fim.end, "pad": fim.pad, **special},
        adds=adds,
        chat_template=_template(folder, config),
        prefix_space=config.get("add_prefix_space"),
    )


def _merges(merges: list[Any]) -> list[str]:
    """Merges as "a b"; a space inside a half becomes the letter that stands for it in byte-level text."""
    if merges and isinstance(merges[0], str):
        return merges
    return [f"{left.replace(' ', 'Ġ')} {right.replace(' ', 'Ġ')}" for left, right in merges]


def _config(file: Path) -> dict[str, Any]:
    """A JSON object beside the tokenizer; empty where there is none."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not valid JSON ({error}): run `{MADE_BY}` again") from None
    return found if isinstance(found, dict) else {}


def _special(
    tokenizer: dict[str, Any], config: dict[str, Any], model: dict[str, Any], added: dict[str, Any], size: int
) -> tuple[dict[str, int], dict[str, bool]]:
    """Ids of the special tokens, and which of them the tokenizer adds around a text.

    The tokenizer's config goes before the model's; what the post-processor adds goes before what the config says it does.
    """
    texts = {kind: _content(config.get(f"{kind}_token")) for kind in (*SPECIAL, "cls")}
    adds: dict[str, bool] = {}
    post = tokenizer.get("post_processor") or {}
    for step in post.get("processors", [post]):
        if step.get("type") == "ByteLevel":
            adds = {"bos": False, "eos": False, **adds}
        elif step.get("type") == "TemplateProcessing":
            adds |= _template_adds(step, texts)
    ids: dict[str, int] = {}
    for kind in SPECIAL:
        if isinstance(config.get(f"add_{kind}_token"), bool):
            adds.setdefault(kind, config[f"add_{kind}_token"])
        text = texts[kind]
        token = added[text]["id"] if text in added else model.get(f"{kind}_token_id")
        if isinstance(token, int) and 0 <= token < size:
            ids[kind] = token
    return ids, {kind: flag for kind, flag in adds.items() if kind in ("bos", "eos", "sep")}


def _content(entry: Any) -> str | None:
    """A special token's text, which stands as such or in an object."""
    text = entry.get("content") if isinstance(entry, dict) else entry
    return text if isinstance(text, str) else None


def _template_adds(step: dict[str, Any], texts: dict[str, str | None]) -> dict[str, bool]:
    """What a template such as `<bos> A`, and for pairs `<bos> A <eos> B`, adds; `texts` learns of tokens that only it names."""
    single, pair = ([_piece(piece) for piece in step.get(key, [])] for key in ("single", "pair"))
    found: dict[str, bool] = {}
    first, last = (single[0][1], single[-1][1]) if len(single) > 1 else (None, None)
    if first:
        texts["bos"] = texts["bos"] or first
        found["bos"] = first in (texts["bos"], texts["cls"])
    if last:
        texts["eos"] = last
        found["eos"] = True
    inner = pair[1 if first and pair and pair[0][1] == first else 0 : -1 if last and pair[-1][1] == last else None]
    if len(inner) > 2 and (inner[0][0], inner[-1][0]) == ("A", "B"):
        ends = [text in (texts["sep"], texts["eos"]) for _, text in inner[1:-1]]
        found["sep"] = (ends[0] and not last) or (len(ends) == 2 and ends[1])
        texts["sep"] = texts["sep"] or (texts["eos"] if found["sep"] else None)
    return found


def _piece(piece: dict[str, Any]) -> tuple[str | None, str | None]:
    """The sequence and the special token that a place of a template names."""
    return piece.get("Sequence", {}).get("id"), piece.get("SpecialToken", {}).get("id")


def _template(folder: Path, config: dict[str, Any]) -> str | list[dict[str, str]] | None:
    """The chat template: of the tokenizer's config, else of a file beside it."""
    apart: Any = None
    if (folder / "chat_template.jinja").is_file():
        apart = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    elif (folder / "chat_template.json").is_file():
        apart = _config(folder / "chat_template.json").get("chat_template")
    found = config.get("chat_template", apart)
    return found if isinstance(found, str | list) else None


def add_vocab(writer: gguf.GGUFWriter, vocab: Vocab) -> None:
    """Tokens, merges and ids.

    llama.cpp ends generation at eos, eot, <|im_end|> and its like, and at the pad, repo and file-separator ids.
    """
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocab.pre)
    writer.add_token_list(vocab.tokens)
    writer.add_token_types(vocab.types)
    writer.add_token_merges(vocab.merges)
    for kind, token in vocab.special.items():
        getattr(writer, f"add_{kind}_token_id")(token)
    writer.add_eot_token_id(vocab.fim.end)
    for key, token in fim_keys(vocab.fim).items():
        writer.add_uint32(key, token)
    for kind, flag in {"bos": False, **vocab.adds}.items():
        getattr(writer, f"add_add_{kind}_token")(flag)
    if vocab.chat_template:
        writer.add_chat_template(vocab.chat_template)


def fim_keys(fim: FimTokens) -> dict[str, int]:
    """GGUF key to id of the six markers it has a place for."""
    keys = gguf.Keys.Tokenizer
    return {
        keys.FIM_PRE_ID: fim.prefix,
        keys.FIM_SUF_ID: fim.suffix,
        keys.FIM_MID_ID: fim.middle,
        keys.FIM_PAD_ID: fim.pad,
        keys.FIM_REP_ID: fim.repo_name,
        keys.FIM_SEP_ID: fim.file_sep,
    }
