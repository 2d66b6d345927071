"""How text becomes ids and ids text for a model, wherever its vocabulary lies.

In:  a Hugging Face folder or a GGUF file (a server's vocabulary: eval/server_model.py)
Out: Words: the codec of core.fim, decoding, the ids that end a completion, the tokens the model takes
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from core.errors import InputError, MachineError
from core.fim import CONTROL, Codec, FimTokens


class Words(NamedTuple):
    """The vocabulary of one model."""

    codec: Codec
    decode: Callable[[Sequence[int]], str]
    stops: dict[int, str]  # ids that end a completion, with their texts
    context: int  # tokens of prompt and completion together

    @classmethod
    def of(cls, encode: Callable[[str], list[int]], id_of: Callable[[str], int | None], where: str, decode: Decode, context: int) -> Words:
        """From what a tokenizer can do.

        Raises:
            InputError: the vocabulary lacks a marker of core.fim; names `where` it was looked for.
        """
        try:
            codec = Codec(encode, FimTokens.of(id_of))
        except ValueError as error:
            raise InputError(f"{where}: {error}") from None
        stops = {token: text for text in CONTROL if (token := id_of(text)) is not None}
        return cls(codec, decode, stops, context)


Decode = Callable[[Sequence[int]], str]


class Written(NamedTuple):
    """What a model wrote into a hole."""

    text: str
    n_tokens: int  # without the one that ended it
    stop: str  # end | marker | limit


def written(ids: Sequence[int], words: Words, ended: bool = False) -> Written:
    """Ids as an engine gave them, up to the first that ends a completion.

    Args:
        ended: the engine itself stopped at its last token, whatever that is.
    """
    at = next((at for at, token in enumerate(ids) if token in words.stops), max(0, len(ids) - ended))
    stop = "limit" if at == len(ids) else "end" if ids[at] == words.codec.tokens.end else "marker"
    return Written(words.decode(ids[:at]), at, stop)


def words_of_folder(folder: Path) -> Words:
    """Of a Hugging Face folder with tokenizer.json and config.json.

    Raises:
        InputError: one is missing, or the vocabulary has no markers.
    """
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing: name the folder of a Hugging Face model, such as hf:phase2_train/out/base")
    from eval.holes import Vocabulary  # here: it brings torch along, which a server does not need

    known = Vocabulary.of(folder)
    decode = partial(known.tokenizer.decode, skip_special_tokens=False)
    return Words.of(known.codec.encode, known.tokenizer.token_to_id, str(folder / "tokenizer.json"), decode, known.context)


def words_of_gguf(file: Path) -> Words:
    """Of a GGUF file, as llama.cpp reads it.

    Raises:
        InputError: no GGUF, or its vocabulary has no markers.
        MachineError: llama-cpp-python is not installed.
    """
    vocabulary = _GgufVocabulary(file)
    return Words.of(vocabulary.encode, vocabulary.id_of, str(file), vocabulary.decode, vocabulary.context)


class _GgufVocabulary:
    """The vocabulary of a GGUF; the weights are not read."""

    def __init__(self, file: Path) -> None:
        try:
            import llama_cpp
        except ImportError:
            raise MachineError("llama-cpp-python is not installed: run `make build`") from None
        from eval.gguf_model import be_quiet

        if not file.is_file():
            raise InputError(f"{file} is missing: name a GGUF file, such as gguf:phase3_quantize/out/quantize/model-q4_k_m.gguf")
        be_quiet()
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        self._llama, self._model = llama_cpp, llama_cpp.llama_model_load_from_file(str(file).encode(), params)
        if not self._model:
            raise InputError(f"llama.cpp cannot load {file}: it is no GGUF, damaged, or of an architecture it does not know")
        weakref.finalize(self, llama_cpp.llama_model_free, self._model)
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        said = self._meta(f"{self._meta('general.architecture')}.context_length")
        if not said.isdigit():
            raise InputError(f"{file} does not say how many tokens its model takes: convert it again")
        self.context = int(said)

    def _meta(self, key: str) -> str:
        buffer = ctypes.create_string_buffer(256)
        size = self._llama.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))  # type: ignore[arg-type]
        return buffer.value.decode(errors="replace") if size >= 0 else ""

    def encode(self, text: str, special: bool = False) -> list[int]:
        data = text.encode()
        room = (self._llama.llama_token * (len(data) + 8))()
        count = self._llama.llama_tokenize(self._vocab, data, len(data), room, len(room), False, special)
        return list(room[:count])

    def id_of(self, text: str) -> int | None:
        """The token whose text this is, if it is a control token."""
        ids = self.encode(text, special=True)
        return ids[0] if len(ids) == 1 and ids != self.encode(text) else None

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(map(self._piece, ids)).decode(errors="replace")

    def _piece(self, token: int) -> bytes:
        room = ctypes.create_string_buffer(512)
        size = self._llama.llama_token_to_piece(self._vocab, token, room, len(room), 0, True)  # type: ignore[arg-type]
        return room.raw[:size] if size >= 0 else self._long_piece(token, -size)

    def _long_piece(self, token: int, size: int) -> bytes:
        room = ctypes.create_string_buffer(size)
        return room.raw[: self._llama.llama_token_to_piece(self._vocab, token, room, size, 0, True)]  # type: ignore[arg-type]
