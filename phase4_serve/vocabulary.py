"""Text to token ids and back in this process, with the vocabulary of the GGUF that llama-server runs.

In:  path of a GGUF; texts, token ids
Out: exactly the ids that llama.cpp gives the whole text; the bytes of a token

A line that was encoded before is looked up: while somebody types, one line of the window is new. A text is cut only
where no token of its vocabulary can lie across (see `_LINE`).
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import re
import socket as sockets
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
REMEMBERED = 8192  # lines whose ids are kept; some 2 MB
WINDOWS = 64  # texts up to their last line whose ids are kept; as much again
TOGETHER = 256  # words encoded in one call

# The merges of a byte-level vocabulary never cross the pieces of its pre-tokenizer. Those of Qwen2 and Llama 3 take a line break
# with what stands before it and never with the indentation behind it, unless the line is blank (`\s*[\r\n]+`). Others, GPT-2's
# among them, look at what follows: their texts are encoded whole.
_LINE = re.compile(r"(?<=\n)(?=[ \t]*[!-~])")
_BY_LINE = frozenset({"qwen2", "deepseek-r1-qwen", "llama-bpe", "llama3", "llama-v3"})  # tokenizer.ggml.pre
_BYTE_PAIRS = 2  # LLAMA_VOCAB_TYPE_BPE


class Words(Protocol):
    """A vocabulary."""

    @property
    def n_vocab(self) -> int: ...
    def ids(self, text: str) -> list[int]: ...
    def piece(self, token: int) -> bytes: ...
    def pieces(self) -> list[bytes]: ...
    def close(self) -> None: ...


def read(model: Path | None, socket: Path) -> Words:
    """The vocabulary of a GGUF, read here; llama-server's answers where that fails, which costs a question per line."""
    if model is not None:
        try:
            return Vocabulary(model)
        except (ImportError, OSError, RuntimeError) as error:
            print(f"llama_cpp cannot read the vocabulary ({type(error).__name__}): llama-server is asked", file=sys.stderr, flush=True)
    return Asked(socket)


class Vocabulary:
    """One GGUF's vocabulary; safe to use from several threads.

    Raises:
        RuntimeError: the binding cannot read it.
        ImportError, OSError: there is no binding.
    """

    def __init__(self, path: Path) -> None:
        from llama_cpp import llama_cpp as api

        self._api = api
        api.llama_log_set(_quiet(), ctypes.c_void_p(0))
        settings = api.llama_model_default_params()
        settings.vocab_only = True
        self._model = api.llama_model_load_from_file(bytes(path), settings)
        if not self._model:
            raise RuntimeError(f"no vocabulary could be read from {path}")
        self._vocab = api.llama_model_get_vocab(self._model)
        self.n_vocab = int(api.llama_vocab_n_tokens(self._vocab))
        self._cut = self._cuts()
        self._length = np.full(self.n_vocab, -1, np.int64)  # bytes of a token; -1: not asked for yet
        self._lock, self._readers, self._closed = threading.Lock(), 0, False
        self._line = lru_cache(REMEMBERED)(self._encode)
        self._lines = lru_cache(WINDOWS)(self._encode_lines)
        self.piece = lru_cache(None)(self._piece)

    def _cuts(self) -> re.Pattern[str] | None:
        if self._api.llama_vocab_type(self._vocab) != _BYTE_PAIRS:
            return None
        value = ctypes.create_string_buffer(64)
        self._api.llama_model_meta_val_str(self._model, b"tokenizer.ggml.pre", value, len(value))
        return _LINE if value.value.decode() in _BY_LINE else None

    def ids(self, text: str) -> list[int]:
        """Ids of a text; nothing is added, and a control token written in it is not looked for."""
        if self._cut is None:
            return list(self._line(text))
        at = self._last_line(self._cut, text)
        return [*self._lines(text[:at]), *self._line(text[at:])]

    @staticmethod
    def _last_line(cut: re.Pattern[str], text: str) -> int:
        """Where the last line begins that can be encoded by itself: what stands before is what it was at the last key."""
        at = text.rfind("\n") + 1
        while at and not cut.match(text, at):
            at = text.rfind("\n", 0, at - 1) + 1
        return at

    def _encode_lines(self, text: str) -> tuple[int, ...]:
        assert self._cut is not None
        return tuple(token for line in self._cut.split(text) for token in self._line(line))

    def ids_of(self, words: Sequence[str]) -> tuple[Ints, Ints]:
        """Ids of all words, each as it stands behind a blank, and how many each has; many at once, and none is remembered."""
        if self._cut is None or not all(map(str.isalnum, words)):
            return self._one_by_one(words)
        found = [self._together(words[at : at + TOGETHER]) for at in range(0, len(words), TOGETHER)]
        return np.concatenate([ids for ids, _ in found]), np.concatenate([sizes for _, sizes in found])

    def _together(self, words: Sequence[str]) -> tuple[Ints, Ints]:
        """The same, encoded as one text: no token lies across a blank."""
        ids = np.array(self._encode(f" {' '.join(words)}"), np.int64)
        for token in np.unique(ids[self._length[ids] < 0]):
            self._length[token] = len(self.piece(int(token)))
        reached, ends = np.cumsum(self._length[ids]), np.cumsum([len(word.encode("utf-8", "replace")) + 1 for word in words])
        last = np.searchsorted(reached, ends)
        if last[-1] != len(ids) - 1 or (reached[last] != ends).any():
            return self._one_by_one(words)
        return ids, np.diff(last, prepend=-1)

    def _one_by_one(self, words: Sequence[str]) -> tuple[Ints, Ints]:
        found = [self._encode(f" {word}") for word in words]
        return np.array([i for ids in found for i in ids], np.int64), np.array([len(ids) for ids in found], np.int64)

    def _encode(self, text: str) -> tuple[int, ...]:
        data = text.encode("utf-8", "replace")
        size = len(data) + 2
        ids = (self._api.llama_token * size)()
        with self._open():
            count = self._api.llama_tokenize(self._vocab, data, len(data), ids, size, False, False)
        if count < 0:
            raise RuntimeError("a text has more tokens than bytes")
        return tuple(ids[:count])

    def _piece(self, token: int) -> bytes:
        """Bytes of a token; of a control token none, as llama-server writes none."""
        if not 0 <= token < self.n_vocab:
            raise ValueError(f"token {token} of {self.n_vocab}")
        with self._open():
            return self._bytes(token)

    def _bytes(self, token: int) -> bytes:
        room = 64
        while True:
            data = ctypes.create_string_buffer(room)
            size = self._api.llama_token_to_piece(self._vocab, token, data, room, 0, False)
            if size >= 0:
                return data.raw[:size]
            room = -size

    def pieces(self) -> list[bytes]:
        """Bytes of every token, none of them kept here; nothing once it is closed."""
        with contextlib.suppress(RuntimeError), self._open():
            return [self._bytes(token) for token in range(self.n_vocab)]
        return []

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        """Keep it from being freed meanwhile.

        Raises:
            RuntimeError: it is closed.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("the vocabulary is closed")
            self._readers += 1
        try:
            yield
        finally:
            with self._lock:
                self._readers -= 1
            self._free()

    def close(self) -> None:
        """Free it, as soon as nobody reads it."""
        self._closed = True
        self._free()

    def _free(self) -> None:
        with self._lock:
            if not self._closed or self._readers:
                return
            model, self._model = self._model, None
        if model:
            self._api.llama_model_free(model)


@lru_cache(1)
def _quiet() -> object:
    """A log that says nothing, kept for as long as the process lives: llama.cpp calls it from its threads."""
    from llama_cpp import llama_cpp as api

    return api.llama_log_callback(lambda level, text, data: None)


class Asked:
    """The vocabulary as llama-server knows it, for where its Python binding does not work.

    Raises:
        OSError, ValueError, KeyError: from each method, where there is no answer.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = str(socket)
        self._ids = lru_cache(REMEMBERED)(self._encode)
        self.piece = lru_cache(None)(self._piece)

    @property
    def n_vocab(self) -> int:
        """How many tokens there are."""
        return int(self._ask("GET", "/v1/models", None)["data"][0]["meta"]["n_vocab"])

    def ids(self, text: str) -> list[int]:
        """Ids of a text, asked once per text."""
        return list(self._ids(text))

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._ask("POST", "/tokenize", {"content": text, "add_special": False, "parse_special": False})["tokens"])

    def _piece(self, token: int) -> bytes:
        """Bytes of a token; of one that is no whole character what llama-server writes for it."""
        return str(self._ask("POST", "/detokenize", {"tokens": [token]})["content"]).encode()

    def pieces(self) -> list[bytes]:
        """None: a question per token is too much."""
        return []

    def _ask(self, method: str, path: str, body: object) -> dict[str, Any]:
        connection = Local(self._socket)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
            return dict(json.loads(connection.getresponse().read()))
        except http.client.HTTPException as error:
            raise OSError(type(error).__name__) from None
        finally:
            connection.close()

    def close(self) -> None:
        """Nothing is kept."""


class Local(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, seconds: float = 10.0) -> None:
        super().__init__("llama", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
