"""A GGUF file looked into before llama-server gets it, so that a wrong file is one clear line.

In:  path of a GGUF; of a LoRA adapter in GGUF, or none
Out: Model: name, architecture, trained context, ids of the FIM markers and of a chat's, a fingerprint of the content
"""

from __future__ import annotations

import hashlib
import mmap
from pathlib import Path
from typing import NamedTuple

import gguf

from core.errors import InputError
from core.fim import END, FILE_SEP, IM_END, IM_START, MARKERS, MIDDLE, PAD, PREFIX, REPO_NAME, SUFFIX, FimTokens
from phase4_serve.gguf_head import MAGIC, Damaged, Head, read

_KEYS = gguf.Keys.Tokenizer
ID_KEYS = {
    PREFIX: _KEYS.FIM_PRE_ID,
    MIDDLE: _KEYS.FIM_MID_ID,
    SUFFIX: _KEYS.FIM_SUF_ID,
    PAD: _KEYS.FIM_PAD_ID,
    REPO_NAME: _KEYS.FIM_REP_ID,
    FILE_SEP: _KEYS.FIM_SEP_ID,
}
WANTED = frozenset(marker.encode() for marker in (*MARKERS, IM_START, IM_END))
SAMPLED = 4096  # bytes of each tensor that the fingerprint covers: training changes every tensor
AGAIN = "make it again with `python -m phase3_quantize quantize`, or name another with --model"


class Chat(NamedTuple):
    """Ids of ChatML's markers."""

    start: int
    end: int


class Model(NamedTuple):
    """What the gateway needs to know of a model."""

    path: Path
    name: str  # the file's name without .gguf, with :adapter where there is one: what /v1/models shows
    arch: str
    context: int  # tokens it was trained on
    tokens: FimTokens
    fingerprint: str = ""  # of the content: a file that is exchanged under the same name is another model
    chat: Chat | None = None  # None: the vocabulary has no ChatML
    adapter: Path | None = None


def check(path: Path, adapter: Path | None = None) -> Model:
    """Look into a GGUF, and into the adapter that is laid over it.

    Raises:
        InputError: missing, no GGUF, cut short, of an architecture llama.cpp does not know, or not made for holes in code;
            an adapter that is none, or of another architecture.
    """
    head = _open(path)
    arch = str(head.scalars.get(gguf.Keys.General.ARCHITECTURE, ""))
    if arch not in gguf.MODEL_ARCH_NAMES.values():
        raise InputError(f"{path} holds a model of architecture {arch!r}, which llama-server does not know: name another with --model")
    if not head.complete:
        raise InputError(f"{path} is cut short: {AGAIN}")
    context = head.scalars.get(f"{arch}.context_length")
    if not isinstance(context, int) or context < 1:
        raise InputError(f"{path} does not say how many tokens its model was trained on: {AGAIN}")
    tokens, chat = marker_ids(head, path)
    name, fingerprint = path.stem, fingerprint_of(head, path)
    if adapter is not None:
        name, fingerprint = f"{name}:{adapter.stem}", f"{fingerprint}-{check_adapter(adapter, arch)}"
    return Model(path, name, arch, context, tokens, fingerprint, chat, adapter)


def check_adapter(path: Path, arch: str) -> str:
    """Look into a LoRA adapter; returns its fingerprint.

    Raises:
        InputError: missing, damaged, no LoRA, or made for another architecture.
    """
    head = _open(path, f"{path} is no file: name a LoRA adapter in GGUF with --adapter, or leave it out")
    if (head.scalars.get("general.type"), head.scalars.get("adapter.type")) != ("adapter", "lora"):
        raise InputError(f"{path} is no LoRA adapter: make one with llama.cpp's convert_lora_to_gguf.py, or leave --adapter out")
    made_for = head.scalars.get(gguf.Keys.General.ARCHITECTURE)
    if made_for != arch:
        raise InputError(f"{path} was made for {made_for!r}, the model is {arch!r}: name the adapter of this model with --adapter")
    if not head.complete:
        raise InputError(f"{path} is cut short: copy it again")
    return fingerprint_of(head, path)


def fingerprint_of(head: Head, path: Path) -> str:
    """12 hexadecimal digits from everything before the weights, the beginning of every tensor and the file's length."""
    found = hashlib.blake2b(str(head.size).encode(), digest_size=6)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found.update(content[: head.end])
        for tensor in head.tensors.values():
            found.update(content[tensor.start : tensor.start + min(SAMPLED, tensor.n_bytes)])
    return found.hexdigest()


def _open(path: Path, missing: str = "") -> Head:
    if not path.is_file():
        is_not = "is a folder" if path.is_dir() else "is missing"
        raise InputError(missing or f"{path} {is_not}: run `python -m phase3_quantize quantize` first, or name a GGUF file with --model")
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise InputError(f"{path} is no GGUF file: {AGAIN}")
    try:
        return read(path, WANTED)
    except (Damaged, OSError) as error:
        raise InputError(f"{path} is cut short or damaged ({error}): {AGAIN}") from None


def marker_ids(head: Head, path: Path) -> tuple[FimTokens, Chat | None]:
    """Ids of the FIM markers and of ChatML's: where the file states an id that counts, else the vocabulary is searched for the text.

    Raises:
        InputError: a marker is missing; the model cannot fill holes.
    """
    if not head.n_vocab:
        raise InputError(f"{path} holds no vocabulary: {AGAIN}")
    found = {text.decode(): token for text, token in head.found.items()}
    stated = {marker: head.scalars.get(key) for marker, key in ID_KEYS.items()}
    known = found | {marker: token for marker, token in stated.items() if isinstance(token, int) and 0 <= token < head.n_vocab}
    if END not in known and isinstance(eos := head.scalars.get(_KEYS.EOS_ID), int):
        known[END] = eos
    try:
        return FimTokens.of(known.get), Chat(known[IM_START], known[IM_END]) if {IM_START, IM_END} <= known.keys() else None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
