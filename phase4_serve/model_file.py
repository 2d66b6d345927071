"""A GGUF file looked into before llama-server gets it, so that a wrong file is one clear line.

In:  path of a GGUF
Out: Model: name, architecture, trained context, ids of the FIM markers
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import gguf

from core.errors import InputError
from core.fim import END, FILE_SEP, MARKERS, MIDDLE, PAD, PREFIX, REPO_NAME, SUFFIX, FimTokens

MAGIC = b"GGUF"
_KEYS = gguf.Keys.Tokenizer
ID_KEYS = {
    PREFIX: _KEYS.FIM_PRE_ID,
    MIDDLE: _KEYS.FIM_MID_ID,
    SUFFIX: _KEYS.FIM_SUF_ID,
    PAD: _KEYS.FIM_PAD_ID,
    REPO_NAME: _KEYS.FIM_REP_ID,
    FILE_SEP: _KEYS.FIM_SEP_ID,
}
AGAIN = "make it again with `python -m phase3_quantize quantize`, or name another with --model"


class Model(NamedTuple):
    """What the gateway needs to know of a model."""

    path: Path
    name: str  # the file's name without .gguf: what /v1/models shows
    arch: str
    context: int  # tokens it was trained on
    tokens: FimTokens


def check(path: Path) -> Model:
    """Look into a GGUF.

    Raises:
        InputError: missing, no GGUF, cut short, of an architecture llama.cpp does not know, or not made for holes in code.
    """
    reader = _open(path)
    arch = str(_scalar(reader, gguf.Keys.General.ARCHITECTURE) or "")
    if arch not in gguf.MODEL_ARCH_NAMES.values():
        raise InputError(f"{path} holds a model of architecture {arch!r}, which llama-server does not know: name another with --model")
    end_of_data = max((int(t.data_offset) + int(t.n_bytes) for t in reader.tensors), default=0)
    if not reader.tensors or end_of_data > path.stat().st_size:
        raise InputError(f"{path} is cut short: {AGAIN}")
    context = _scalar(reader, f"{arch}.context_length")
    if not isinstance(context, int) or context < 1:
        raise InputError(f"{path} does not say how many tokens its model was trained on: {AGAIN}")
    return Model(path, path.stem, arch, context, marker_ids(reader, path))


def _open(path: Path) -> gguf.GGUFReader:
    if not path.is_file():
        raise InputError(f"{path} is missing: run `python -m phase3_quantize quantize` first, or name a GGUF file with --model")
    with path.open("rb") as head:
        if head.read(4) != MAGIC:
            raise InputError(f"{path} is no GGUF file: {AGAIN}")
    try:
        return gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError, OverflowError, TypeError, MemoryError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is cut short or damaged ({type(error).__name__}): {AGAIN}") from None


def _scalar(reader: gguf.GGUFReader, key: str) -> object:
    field = reader.fields.get(key)
    return None if field is None else field.contents()


def marker_ids(reader: gguf.GGUFReader, path: Path) -> FimTokens:
    """Ids of the markers: where the file states an id that counts, else the vocabulary is searched for the text.

    Raises:
        InputError: a marker is missing; the model cannot fill holes.
    """
    field = reader.fields.get(_KEYS.LIST)
    if field is None:
        raise InputError(f"{path} holds no vocabulary: {AGAIN}")
    wanted = {marker.encode(): marker for marker in MARKERS}
    found: dict[str, int] = {}
    for token, part in enumerate(field.data):
        text = wanted.get(bytes(field.parts[part]))
        if text is not None:
            found[text] = token
    stated = {marker: _scalar(reader, key) for marker, key in ID_KEYS.items()}
    known = found | {marker: token for marker, token in stated.items() if isinstance(token, int) and 0 <= token < len(field.data)}
    if END not in known and isinstance(eos := _scalar(reader, _KEYS.EOS_ID), int):
        known[END] = eos
    try:
        return FimTokens.of(known.get)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
