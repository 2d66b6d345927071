"""Greedy completion and loss of many holes at once, from one pass over each prompt.

In:  rows of (prompt ids, middle ids), a causal language model
Out: Answer per row: the ids it writes, why it stopped, and the nats it spends on the truth

The truth serves as a draft. One pass over [padding | prompt | truth] gives the loss of every token of the truth, and says
how far greedy decoding would have written exactly this. From the first token that differs, decoding goes on with the
same cache; the slots of truth that were not written are masked. What comes out is what decoding token by token gives.

    slots      |  left padding  |  prompt  |  truth, right padding  |  written after the truth ...
    positions     -                0 .. p-1   p .. p+t-1               p+k ..         (k: tokens of truth written)

On a CPU the pass goes over a few rows at a time, so that what lies between two matrices stays in the processor's cache (a third
less time than 64 rows at once), and the last layer's feed-forward runs only where its outcome is read, at the truth.
"""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, Cache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "tabsmith_grouped"
CPU_SLOTS = 4096  # read at once on a CPU: activations of some 12 MB at a feed-forward width of 768


class Question(NamedTuple):
    """One hole as ids: the prompt, and the truth without its end token."""

    prompt: list[int]
    middle: list[int]


class Answer(NamedTuple):
    """What a model makes of one hole."""

    ids: list[int]  # written, without the token that ended it
    stop: str  # end | marker | limit
    nats: float  # of the truth and its end token


def grouped_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention of one new token per row without copying the cache once per query head.

    The query heads that share a key head become its queries: (B, H, 1, D) -> (B, H_kv, H / H_kv, D). Same sums as
    transformers' sdpa, which repeats the whole cache at each step. Several tokens at once go to the latter.
    """
    batch, heads, tokens, size = query.shape
    if tokens > 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    found = functional.scaled_dot_product_attention(
        query.reshape(batch, key.shape[1], -1, size), key, value, attn_mask=attention_mask, scale=kwargs.get("scaling")
    )
    return found.reshape(batch, 1, heads, size), None


AttentionInterface.register(ATTENTION, grouped_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


class RoomyLayer(DynamicLayer):
    """A cache layer with its room set aside at once; the growing one of transformers is copied at every token."""

    def __init__(self, room: int, rows: int = 0) -> None:
        super().__init__()
        self.room, self.rows = room, rows  # rows 0: as many as come first
        self.at(slice(None), 0, 0)

    def at(self, rows: slice, first: int, used: int) -> None:
        """From here on `update` appends to these rows from slot `used` on, and they see the slots from `first` on."""
        self.chosen, self.first, self.used = rows, first, used

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append (B, H_kv, T, D) keys and values; return all that the rows see, as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            shape = (self.rows or key_states.shape[0], key_states.shape[1], self.room, key_states.shape[3])
            self.all_keys, self.all_values = key_states.new_zeros(shape), value_states.new_zeros(shape)  # a hidden slot weighs 0 times it
        start, self.used = self.used, self.used + key_states.shape[-2]
        self.all_keys[self.chosen, :, start : self.used] = key_states
        self.all_values[self.chosen, :, start : self.used] = value_states
        return self._show()

    def _show(self) -> tuple[Tensor, Tensor]:
        window = (self.chosen, slice(None), slice(self.first, self.used))
        keys, values = self.keys, self.values = self.all_keys[window], self.all_values[window]
        return keys, values

    def keep(self, rows: Tensor) -> None:
        """Forget all rows of the batch but these."""
        self.all_keys, self.all_values = self.all_keys[rows], self.all_values[rows]
        self._show()


@contextlib.contextmanager
def only_at_tail(block: torch.nn.Module, tail: int) -> Iterator[None]:
    """Run a feed-forward block on the last `tail` tokens of each row; to the others it adds nothing. Leaves the block as it was."""
    whole, before = block.forward, block.__dict__.get("forward")

    def forward(hidden: Tensor) -> Tensor:
        added = torch.zeros_like(hidden)
        added[:, -tail:] = whole(hidden[:, -tail:])
        return added

    block.forward = forward
    try:
        yield
    finally:
        del block.forward
        if before is not None:
            block.forward = before


class Network(NamedTuple):
    """A causal language model taken apart, so that logits are computed only where they are read."""

    body: torch.nn.Module  # ids -> (B, T, hidden)
    head: torch.nn.Module  # hidden -> logits
    layers: int
    device: torch.device
    last: torch.nn.Module  # feed-forward block of the last layer

    @classmethod
    def of(cls, model: Any) -> Network:
        """Of a transformers model, bare or under a peft adapter."""
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        inner.set_attn_implementation(ATTENTION)
        inner.eval()
        layers, device = inner.config.num_hidden_layers, next(inner.parameters()).device
        return cls(inner.model, inner.lm_head, layers, device, inner.model.layers[-1].mlp)

    def hidden(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """(B, T) ids -> (B, T, hidden); `mask` is (B, 1, T, slots), True where a token may look."""
        ids, mask, positions = (tensor.to(self.device) for tensor in (ids, mask, positions))
        found: Tensor = self.body(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state
        return found

    def logits(self, hidden: Tensor) -> Tensor:
        """(N, hidden) -> (N, vocabulary) in float32."""
        found: Tensor = self.head(hidden).float()
        return found


def batches(questions: Sequence[Question], rows: int) -> list[list[int]]:
    """Indices of the questions in batches of `rows`, alike in the length of truth and prompt, so that little is padding.

    The longest come first: a machine with too little memory fails in the first minute.
    """
    order = sorted(range(len(questions)), key=lambda i: (-len(questions[i].middle).bit_length(), -len(questions[i].prompt), i))
    return [order[start : start + rows] for start in range(0, len(order), rows)]


class Reading(NamedTuple):
    """What one pass over the truth tells of a row."""

    nats: float
    greedy: list[int]  # likeliest token at each token of the truth, and after its last

    def agreed(self, middle: Sequence[int]) -> int:
        """How many tokens of the truth greedy decoding writes before it differs."""
        return next((i for i, token in enumerate(middle) if token != self.greedy[i]), len(middle))


class TorchBatch:
    """Rows that share one cache of a transformers model; see the picture at the top of the file."""

    def __init__(self, network: Network, questions: Sequence[Question], limit: int) -> None:
        self.network, self.questions = network, questions
        self.prompts = max(len(question.prompt) for question in questions)
        self.used = self.prompts + max(len(question.middle) for question in questions)  # slots of prompt and truth
        self.held = list(range(len(questions)))  # rows that are in the cache
        self.layers = [RoomyLayer(self.used + limit, len(questions)) for _ in range(network.layers)]
        self.cache = Cache(layers=list(self.layers))
        self.seen = torch.zeros(len(questions), self.used + limit, dtype=torch.bool)  # slots that a row may look at

    @torch.inference_mode()
    def read(self, end: int) -> list[Reading]:
        """Pass over prompt and truth once."""
        size = max(1, CPU_SLOTS // self.used) if self.network.device.type == "cpu" else len(self.questions)
        groups = [slice(start, min(start + size, len(self.questions))) for start in range(0, len(self.questions), size)]
        found = [reading for rows in groups for reading in self._read(rows, end)]
        for layer in self.layers:
            layer.at(slice(None), 0, self.used)
        return found

    def _read(self, rows: slice, end: int) -> list[Reading]:
        questions = self.questions[rows]
        first = self.prompts - max(len(question.prompt) for question in questions)
        stop = self.prompts + max(len(question.middle) for question in questions)
        count, slots, labels = len(questions), stop - first, [[*question.middle, end] for question in questions]
        ids, positions = torch.full((count, slots), end), torch.zeros(count, slots, dtype=torch.long)
        for row, (prompt, middle) in enumerate(questions):
            left, right = self.prompts - len(prompt), self.prompts + len(middle)
            ids[row, left - first : right - first] = torch.tensor([*prompt, *middle])
            positions[row, left - first : right - first] = torch.arange(right - left)
            self.seen[rows.start + row, left:right] = True
        causal = torch.ones(slots, slots, dtype=torch.bool).tril()
        mask = (self.seen[rows, None, first:stop] & causal) | torch.eye(slots, dtype=torch.bool)  # padding sees itself: no NaN
        for layer in self.layers:
            layer.at(rows, first, first)
        tail = stop - self.prompts + 1  # from the last token of the prompts on
        with only_at_tail(self.network.last, tail):
            hidden = self.network.hidden(ids, mask[:, None], positions, self.cache)[:, -tail:]
        at = [(row, i) for row, label in enumerate(labels) for i in range(len(label))]
        logits = self.network.logits(hidden[[row for row, _ in at], [slot for _, slot in at]])
        flat = torch.tensor([token for label in labels for token in label], device=logits.device)
        nats = functional.cross_entropy(logits, flat, reduction="none").double().cpu().split([len(label) for label in labels])
        greedy = logits.argmax(-1).cpu().split([len(label) for label in labels])
        return [Reading(float(n.sum()), g.tolist()) for n, g in zip(nats, greedy, strict=True)]

    def forget_truth(self, agreed: Sequence[int]) -> None:
        """Hide the slots of truth that decoding would not have written."""
        for row, (count, question) in enumerate(zip(agreed, self.questions, strict=True)):
            self.seen[row, self.prompts + count : self.prompts + len(question.middle)] = False

    @torch.inference_mode()
    def step(self, tokens: dict[int, int], written: Sequence[list[int]]) -> dict[int, int]:
        """Append one token to each row named; return the likeliest one after it."""
        if 2 * len(tokens) <= len(self.held):
            self._keep([row for row in self.held if row in tokens])
        ids = torch.tensor([[tokens.get(row, 0)] for row in self.held])  # a finished row goes along until its like are half
        positions = torch.tensor([[len(self.questions[row].prompt) + len(written[row]) - 1] for row in self.held])
        self.seen[:, self.used] = True
        self.used += 1
        hidden = self.network.hidden(ids, self.seen[:, None, None, : self.used], positions, self.cache)
        best = self.network.logits(hidden[:, -1]).argmax(-1).tolist()
        return {row: token for row, token in zip(self.held, best, strict=True) if row in tokens}

    def _keep(self, rows: list[int]) -> None:
        at = torch.tensor([self.held.index(row) for row in rows])
        self.seen, self.held = self.seen[at], rows
        for layer in self.layers:
            layer.keep(at.to(self.network.device))


class Reader(Protocol):
    """A batch of rows in some engine's cache."""

    def read(self, end: int) -> list[Reading]: ...
    def forget_truth(self, agreed: Sequence[int]) -> None: ...
    def step(self, tokens: dict[int, int], written: Sequence[list[int]]) -> dict[int, int]: ...


def answer(batch: Reader, questions: Sequence[Question], end: int, stops: Container[int], limit: int) -> list[Answer]:
    """Complete one batch of holes greedily, in whichever engine holds it.

    Args:
        end: id of the end token, the label after the truth.
        stops: ids that end a completion, `end` among them.
        limit: tokens written at most, the stop included.
    """
    readings = batch.read(end)
    agreed = [min(reading.agreed(question.middle), limit) for reading, question in zip(readings, questions, strict=True)]
    batch.forget_truth(agreed)
    written = [question.middle[:count] for count, question in zip(agreed, questions, strict=True)]
    reasons = ["limit"] * len(questions)
    following = {row: reading.greedy[agreed[row]] for row, reading in enumerate(readings) if agreed[row] < limit}
    while following:
        for row, token in following.items():
            if token in stops:
                reasons[row] = "end" if token == end else "marker"
            else:
                written[row].append(token)
        going = {row: token for row, token in following.items() if token not in stops and len(written[row]) < limit}
        following = batch.step(going, written) if going else {}
    return [Answer(ids, stop, reading.nats) for ids, stop, reading in zip(written, reasons, readings, strict=True)]
