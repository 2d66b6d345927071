"""A GGUF file asked in process: the loss of a truth, and what greedy decoding writes in its stead.

In:  a GGUF file, rows of (prompt ids, middle ids)
Out: Answers, as decode.answer gives them for a transformers model

The cache is kept in float32 and flash attention is off, so that what differs from the model it was made of is the file,
not the way it is run.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from core.decode import Question, Reading
from core.errors import InputError, MachineError

try:
    import llama_cpp
except ImportError:  # reported by GgufModel, so that `report` works without it
    llama_cpp = None  # type: ignore[assignment]

GGML_TYPE_F32 = 0


SEQUENCES = 8  # rows decoded together: the weights are read once for all of them


class Placed(NamedTuple):
    """A token, where it goes, and whether its logits are wanted."""

    token: int
    sequence: int
    position: int
    wanted: bool


class GgufModel:
    """A loaded GGUF with SEQUENCES contexts of `room` tokens; use as a context manager.

    Raises:
        MachineError: llama-cpp-python is missing, or memory for the context.
        InputError: llama.cpp does not accept the file.
    """

    def __init__(self, path: Path, room: int, threads: int | None = None) -> None:
        if llama_cpp is None:
            raise MachineError("llama-cpp-python is not installed: run `make build`")
        be_quiet()
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        if not self._model:
            raise InputError(f"llama.cpp cannot load {path}: run `python -m phase3_quantize quantize` again")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.kv_unified = room * SEQUENCES, SEQUENCES, False
        params.n_batch = params.n_ubatch = params.n_outputs_max = room
        params.n_threads = params.n_threads_batch = threads or torch.get_num_threads()  # honours OMP_NUM_THREADS
        params.type_k = params.type_v = GGML_TYPE_F32
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.no_perf = True
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            llama_cpp.llama_model_free(self._model)
            raise MachineError(f"no memory for a context of {room} tokens of {path}: free some and rerun")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(room, 0, 1)
        self._vocab = int(llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model)))

    def __enter__(self) -> GgufModel:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)

    def forget(self, sequence: int, start: int) -> None:
        """Drop what a sequence holds from position `start` on."""
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, start, -1)

    def copy(self, source: int, target: int) -> None:
        """Make a sequence hold what another holds."""
        llama_cpp.llama_memory_seq_rm(self._memory, target, 0, -1)
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def decode(self, tokens: Sequence[Placed]) -> NDArray[np.float32]:
        """Put tokens into their sequences; logits (asked, vocabulary) of those that ask for them.

        Raises:
            MachineError: llama.cpp cannot evaluate them.
        """
        batch = self._batch
        batch.n_tokens = len(tokens)
        for i, (token, sequence, position, wanted) in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        code = llama_cpp.llama_decode(self._context, batch)
        if code != 0:
            raise MachineError(f"llama.cpp cannot evaluate {len(tokens)} tokens (llama_decode says {code}): free memory and rerun")
        rows = [llama_cpp.llama_get_logits_ith(self._context, i) for i, token in enumerate(tokens) if token.wanted]
        return np.stack([np.ctypeslib.as_array(row, shape=(self._vocab,)) for row in rows])


class GgufBatch:
    """Rows in a GGUF model's cache, one sequence each; asked as decode.TorchBatch is."""

    def __init__(self, model: GgufModel, questions: Sequence[Question]) -> None:
        self.model, self.questions = model, questions

    def read(self, end: int) -> list[Reading]:
        """Pass over prompt and truth once, row by row."""
        return [self._read(row, question, end) for row, question in enumerate(self.questions)]

    def _read(self, row: int, question: Question, end: int) -> Reading:
        self.model.forget(row, 0)
        labels, first = [*question.middle, end], len(question.prompt) - 1
        ids = [*question.prompt, *question.middle]
        logits = self.model.decode([Placed(token, row, at, at >= first) for at, token in enumerate(ids)]).astype(np.float64)
        peak = logits.max(axis=1)
        nats = np.log(np.exp(logits - peak[:, None]).sum(axis=1)) + peak - logits[np.arange(len(labels)), labels]
        return Reading(float(nats.sum()), [int(token) for token in logits.argmax(axis=1)])

    def forget_truth(self, agreed: Sequence[int]) -> None:
        """Drop the truth that decoding would not have written."""
        for row, (count, question) in enumerate(zip(agreed, self.questions, strict=True)):
            self.model.forget(row, len(question.prompt) + count)

    def step(self, tokens: dict[int, int], written: Sequence[list[int]]) -> dict[int, int]:
        """Append one token to each row named; return the likeliest one after it."""
        last = {row: len(self.questions[row].prompt) + len(written[row]) - 1 for row in tokens}
        logits = self.model.decode([Placed(token, row, last[row], True) for row, token in tokens.items()])
        return dict(zip(tokens, logits.argmax(axis=1).tolist(), strict=True))


if llama_cpp is not None:

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
    def _quiet(level: int, text: bytes, user_data: ctypes.c_void_p) -> None:
        """llama.cpp's log; what goes wrong comes back as a return value."""

    def be_quiet() -> None:
        """Start llama.cpp without its log."""
        llama_cpp.llama_log_set(_quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
