"""A GGUF model asked in process: token ids in, logits out.

In:  a GGUF file, token ids
Out: logits (n, vocab) as llama.cpp computes them, ids of a text, which tokens end generation

The cache is kept in float32 and flash attention is off, so that what differs from the original model is the file, not
the way it is run; for measuring speed it runs as a server would run it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from core.errors import InputError, MachineError

try:
    import llama_cpp
except ImportError:  # reported by __init__ below, so that other commands work without it
    llama_cpp = None  # type: ignore[assignment]

GGML_TYPE_F32 = 0
UBATCH = 256  # tokens evaluated at once; llama.cpp sets aside the logits of all of them, 156 MB for Qwen's vocabulary


class GgufModel:
    """A loaded model with one growing context; use as a context manager.

    Args:
        n_ctx: tokens the context holds.
        as_served: cache in float16 and flash attention as llama.cpp chooses, instead of what is exact.

    Raises:
        MachineError: llama-cpp-python is missing, or the memory for the context.
        InputError: llama.cpp does not accept the file.
    """

    def __init__(self, path: Path, n_ctx: int, threads: int, as_served: bool = False) -> None:
        if llama_cpp is None:
            raise MachineError("llama-cpp-python is not installed: run `make build`")
        llama_cpp.llama_log_set(_quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        settings = llama_cpp.llama_model_default_params()
        settings.n_gpu_layers = 0
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), settings)
        if not self._model:
            raise InputError(f"llama.cpp cannot load {path}: convert and quantize again")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = n_ctx
        params.n_ubatch = min(n_ctx, UBATCH)
        params.n_threads = params.n_threads_batch = threads
        if not as_served:
            params.type_k = params.type_v = GGML_TYPE_F32
            params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.no_perf = True
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            llama_cpp.llama_model_free(self._model)
            raise MachineError(f"no memory for a context of {n_ctx} tokens of {path}")
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self._batch = llama_cpp.llama_batch_init(n_ctx, 0, 1)
        self.vocab_size = int(llama_cpp.llama_vocab_n_tokens(self._vocab))
        self.n_ctx, self.used = n_ctx, 0

    def __enter__(self) -> GgufModel:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)

    @property
    def trained_on(self) -> int:
        """Tokens of context that the model was trained with."""
        return int(llama_cpp.llama_model_n_ctx_train(self._model))

    def clear(self) -> None:
        """Forget the context."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        self.used = 0

    def extend(self, ids: Sequence[int], n_logits: int = 1) -> np.ndarray:
        """Put ids at the end of the context; return the logits (n_logits, vocab) of the last `n_logits` of them."""
        assert 0 < n_logits <= len(ids)
        assert self.used + len(ids) <= self.n_ctx
        batch = self._batch
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i] = token, self.used + i
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            batch.logits[i] = i >= len(ids) - n_logits
        code = llama_cpp.llama_decode(self._context, batch)
        if code != 0:
            raise MachineError(f"llama.cpp cannot evaluate {len(ids)} tokens (llama_decode says {code}): free memory and rerun")
        self.used += len(ids)
        rows = [llama_cpp.llama_get_logits_ith(self._context, i) for i in range(len(ids) - n_logits, len(ids))]
        return np.stack([np.ctypeslib.as_array(row, shape=(self.vocab_size,)).copy() for row in rows])

    def encode(self, text: str) -> list[int]:
        """Ids of plain text: nothing added, control tokens not looked for."""
        raw = text.encode()
        room = (ctypes.c_int32 * (len(raw) + 8))()
        count = llama_cpp.llama_tokenize(self._vocab, raw, len(raw), room, len(room), False, False)
        assert count >= 0
        return list(room[:count])

    def ends(self, token: int) -> bool:
        """Whether llama.cpp stops generating at this token."""
        return bool(llama_cpp.llama_vocab_is_eog(self._vocab, token))


if llama_cpp is not None:

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
    def _quiet(level: int, text: bytes, user_data: ctypes.c_void_p) -> None:
        """llama.cpp's log; what goes wrong comes back as a return value."""
