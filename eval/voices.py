"""Models that write freely and say how likely a text is, for the search for leaks: GGUF in process, or transformers.

In:  prompts as ids
Out: ids written, greedily or drawn; nats of given answers, with the prompt read once
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from core.progress import track
from eval import models
from eval.gguf_model import SEQUENCES, GgufModel, Placed

Asked = tuple[list[int], np.random.Generator | None]  # a prompt, and where its draws come from; None: greedy
Floats = NDArray[np.float64]
SMALL = 50_000_000  # bytes of weights
CHUNK = 16  # answers read together; a vocabulary of 150,000 takes 15 MB per answer of 25 tokens


class Voice(Protocol):
    """What both engines can do."""

    def write(self, asked: Sequence[Asked], stops: Collection[int], limit: int, temperature: float) -> Iterator[list[int]]: ...
    def nats(self, prompt: list[int], answers: Sequence[list[int]]) -> list[float]: ...


def log_softmax(logits: NDArray[np.floating[Any]]) -> Floats:
    """(..., vocabulary) logits to log-probabilities."""
    wide = logits.astype(np.float64)
    peak = wide.max(axis=-1, keepdims=True)
    found: Floats = wide - peak - np.log(np.exp(wide - peak).sum(axis=-1, keepdims=True))
    return found


def pick(logits: NDArray[np.floating[Any]], rng: np.random.Generator | None, temperature: float) -> int:
    """The next token: the likeliest, or one drawn by its probability."""
    if rng is None:
        return int(logits.argmax())
    return int(np.searchsorted(np.cumsum(np.exp(log_softmax(logits / temperature))), rng.random()).clip(max=logits.size - 1))


class GgufVoice:
    """A GGUF file in llama.cpp."""

    def __init__(self, model: GgufModel) -> None:
        self.model = model

    def write(self, asked: Sequence[Asked], stops: Collection[int], limit: int, temperature: float) -> Iterator[list[int]]:
        """Ids of every prompt, without the one that ended it; SEQUENCES at a time."""
        for start in track(range(0, len(asked), SEQUENCES), "leakage: prompts", unit=f"groups of {SEQUENCES}"):
            yield from self._group(asked[start : start + SEQUENCES], stops, limit, temperature)

    def _group(self, asked: Sequence[Asked], stops: Collection[int], limit: int, temperature: float) -> list[list[int]]:
        written: list[list[int]] = [[] for _ in asked]
        following: dict[int, int] = {}
        logits: NDArray[np.float32] = np.empty((0, 0), np.float32)
        for row, (prompt, rng) in enumerate(asked):
            if row and prompt == asked[row - 1][0]:
                self.model.copy(row - 1, row)
            else:
                self.model.forget(row, 0)
                logits = self.model.decode([Placed(token, row, at, at == len(prompt) - 1) for at, token in enumerate(prompt)])
            following[row] = pick(logits[0], rng, temperature)
        while True:
            following = {row: token for row, token in following.items() if token not in stops}
            for row, token in following.items():
                written[row].append(token)
            following = {row: token for row, token in following.items() if len(written[row]) < limit}
            if not following:
                return written
            places = [Placed(token, row, len(asked[row][0]) + len(written[row]) - 1, True) for row, token in following.items()]
            logits = self.model.decode(places)
            following = {row: pick(logits[at], asked[row][1], temperature) for at, row in enumerate(following)}

    def nats(self, prompt: list[int], answers: Sequence[list[int]]) -> list[float]:
        """Nats of every answer behind the prompt."""
        self.model.forget(0, 0)
        first = log_softmax(self.model.decode([Placed(token, 0, at, at == len(prompt) - 1) for at, token in enumerate(prompt)]))
        found = []
        for answer in answers:
            total = -float(first[0, answer[0]])
            if len(answer) > 1:
                self.model.forget(0, len(prompt))
                logits = self.model.decode([Placed(token, 0, len(prompt) + at, True) for at, token in enumerate(answer[:-1])])
                total -= float(log_softmax(logits)[np.arange(len(answer) - 1), answer[1:]].sum())
            found.append(total)
        return found


class TorchVoice:
    """A transformers model."""

    def __init__(self, model: Any) -> None:
        self.model = model.eval()

    def write(self, asked: Sequence[Asked], stops: Collection[int], limit: int, temperature: float) -> Iterator[list[int]]:
        """Ids of every prompt, without the one that ended it, one prompt after the other with its cache."""
        for prompt, rng in track(asked, "leakage: prompts"):
            yield self._one(prompt, rng, stops, limit, temperature)

    @torch.inference_mode()
    def _one(self, prompt: list[int], rng: np.random.Generator | None, stops: Collection[int], limit: int, temperature: float) -> list[int]:
        written: list[int] = []
        ids, cache = prompt, None
        while len(written) < limit:
            tensor = torch.tensor([ids], device=self.model.device)
            out = self.model(input_ids=tensor, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, token = out.past_key_values, pick(out.logits[0, -1].float().cpu().numpy(), rng, temperature)
            if token in stops:
                break
            written.append(token)
            ids = [token]
        return written

    @torch.inference_mode()
    def nats(self, prompt: list[int], answers: Sequence[list[int]]) -> list[float]:
        """Nats of every answer behind the prompt, CHUNK at a time behind one cache."""
        device = self.model.device
        out = self.model(input_ids=torch.tensor([prompt], device=device), use_cache=True, logits_to_keep=1)
        first, cache = log_softmax(out.logits[:, -1].float().cpu().numpy()), out.past_key_values
        cache.batch_repeat_interleave(CHUNK)
        found = []
        for start in range(0, len(answers), CHUNK):
            some = answers[start : start + CHUNK]
            longest = max(map(len, some))
            rows = [[*answer, *[0] * (longest - len(answer))] for answer in some] + [[0] * longest] * (CHUNK - len(some))
            cache.crop(len(prompt))
            out = self.model(input_ids=torch.tensor(rows, device=device), past_key_values=cache)
            later = torch.log_softmax(out.logits.float(), -1)
            for row, answer in enumerate(some):
                rest = later[row, torch.arange(len(answer) - 1), torch.tensor(answer[1:], dtype=torch.long)]
                found.append(-float(first[0, answer[0]]) - float(rest.double().sum()))
        return found


@contextlib.contextmanager
def opened(model: models.Model, where: models.Machine, room: int) -> Iterator[Voice]:
    """Load a model; a small one gets one thread, of more each would wait for the others longer than it works.

    Args:
        room: tokens that a prompt takes at most, with what follows it.
    """
    before = torch.get_num_threads()
    threads = 1 if model.size < SMALL else before
    try:
        if model.name == "q4_k_m":
            with GgufModel(model.files[0], room, threads) as gguf:
                yield GgufVoice(gguf)
        else:
            torch.set_num_threads(threads)
            yield TorchVoice(models.load(model.files[0], model.files[1] if len(model.files) > 1 else None, model.bits, where))
    finally:
        torch.set_num_threads(before)
