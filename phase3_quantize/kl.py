"""What a quantized file changes: KL divergence from the full one, on tokens that matter.

In:  two GGUF files, rows of token ids with the place where the tokens to judge begin
Out: Divergence: mean, 99th percentile and largest KL in nats per token, how often both find the same token likeliest, and how many rows
     greedy decoding writes exactly

A row is read once by each file. Greedy decoding writes the truth exactly if and only if the likeliest token at every place of it is the
true one, so the same pass that gives the divergence gives exact match; a completion that spells the same text in other tokens does not
count. The full file's log-probabilities wait in a scratch file (float32), so that it is read once for any number of candidates.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np

from core.progress import track
from phase3_quantize.engine import GgufModel
from phase3_quantize.space import need_space


class Scored(NamedTuple):
    """Ids of a row, of which those from `start` on are judged, each by the logits of the token before it."""

    ids: list[int]
    start: int

    @property
    def judged(self) -> int:
        return len(self.ids) - self.start


class Divergence(NamedTuple):
    """Of a file from the full one; nats per token."""

    mean: float
    p99: float
    largest: float
    same_top1: float  # share of the tokens
    exact: tuple[bool, ...]  # of each row: greedy decoding writes it as it is
    tokens: int


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Natural log-probabilities in float64 (tokens, vocabulary)."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def divergences(full: np.ndarray, small: np.ndarray) -> np.ndarray:
    """KL divergence (tokens,) of log-probabilities `small` from `full`, both (tokens, vocabulary)."""
    found: np.ndarray = (np.exp(full) * (full - small)).sum(axis=-1)
    return found


def read(model: GgufModel, row: Scored) -> np.ndarray:
    """Log-probabilities (judged, vocabulary) of the judged tokens' places."""
    model.clear()
    return log_softmax(model.extend(row.ids[:-1], row.judged))


def room(rows: Sequence[Scored]) -> int:
    """Tokens of context that the longest row needs."""
    return max(len(row.ids) for row in rows)


class Reference:
    """What the full file says at every judged token; use as a context manager.

    Args:
        scratch: folder for the log-probabilities, tokens x vocabulary x 4 bytes while it is open.
    """

    def __init__(self, full: Path, rows: Sequence[Scored], threads: int, scratch: Path) -> None:
        self.rows, self.threads = rows, threads
        with GgufModel(full, room(rows), threads) as model:
            shape = (sum(row.judged for row in rows), model.vocab_size)
            need_space(scratch, 4 * shape[0] * shape[1])
            self._file = tempfile.TemporaryFile(dir=scratch, prefix=".reference-")  # noqa: SIM115  # closed by __exit__
            self._said = np.memmap(self._file, np.float32, "w+", shape=shape)
            at = 0
            for row in track(rows, f"read {full.name}", unit="rows"):
                self._said[at : at + row.judged] = read(model, row)
                at += row.judged

    def __enter__(self) -> Reference:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    @property
    def exact(self) -> int:
        """Rows that the full file itself writes as they are."""
        at, count = 0, 0
        for row in self.rows:
            count += bool((self._said[at : at + row.judged].argmax(axis=-1) == row.ids[row.start :]).all())
            at += row.judged
        return count

    def compare(self, small: Path) -> Divergence:
        """Read another file and compare."""
        nats: list[np.ndarray] = []
        exact: list[bool] = []
        same = at = 0
        with GgufModel(small, room(self.rows), self.threads) as model:
            for row in self.rows:
                full, found = self._said[at : at + row.judged], read(model, row)
                at += row.judged
                nats.append(divergences(full.astype(np.float64), found))
                best = found.argmax(axis=-1)
                same += int((best == full.argmax(axis=-1)).sum())
                exact.append(bool((best == row.ids[row.start :]).all()))
        values = np.concatenate(nats)
        return Divergence(
            mean=float(values.mean()),
            p99=float(np.quantile(values, 0.99)),
            largest=float(values.max()),
            same_top1=same / len(values),
            exact=tuple(exact),
            tokens=len(values),
        )
