"""What a model writes into holes: samples at temperature, and how it goes on after the truth.

In:  Ask per hole (prompt and truth as ids), a causal model on any device
Out: Seen per hole: what it thinks of the end token along the truth, and what it wrote

One pass over [padding | prompt | truth] fills the cache and says, at every place of the truth, how likely the end is
there. Then all rows of a batch decode together from copies of that cache: `samples` rows that do not see the truth, and
one row that stands behind it and may not end at once (its own way of not ending; DPO learns the end token from it).

Every row has its own random numbers, from a seed and the sample's id: not from its place in a batch. Padding and batch
size still change the last bits of a logit, and so, rarely, a token; the same batches give the same bytes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import Cache

from core.decode import Network, RoomyLayer
from core.fim import FimTokens

TOP = 256  # tokens that nucleus sampling looks at; what lies beyond them is noise, and sorting a vocabulary costs more than the model


class Ask(NamedTuple):
    """One hole: `key` seeds its random numbers."""

    key: str
    prompt: list[int]
    middle: list[int]


class Written(NamedTuple):
    """Tokens put into the hole, the token that ended them left out. The first `at` are the truth's."""

    ids: list[int]
    ended: bool
    at: int


class Seen(NamedTuple):
    """What became of one hole."""

    place: int  # its number
    end: float  # probability of the end token behind the truth
    early: tuple[int, float]  # tokens of the truth (1 or more) after which the end is likeliest, and its probability there
    written: list[Written]  # samples first, then what goes on from the truth where the model would not end, or ends inside it


class Settings(NamedTuple):
    """How to sample."""

    samples: int
    temperature: float
    top_p: float
    max_new_tokens: int
    extra_tokens: int  # a row stops this many tokens past the length of its truth: it has overrun
    continue_below: float  # go on behind the truth where the end token is less likely; end in it where likelier than 1 - this
    batch: int
    seed: int


class _Row(NamedTuple):
    """One row of the decoding loop."""

    hole: int  # in the batch
    at: int  # tokens of the truth it stands behind; 0 for a sample
    limit: int  # tokens it may write
    draw: random.Random | None  # None: greedy


def sampled(logits: Tensor, draws: Sequence[float | None], temperature: float, top_p: float) -> list[int]:
    """One token per row of (R, V) logits: by nucleus sampling with that row's number in [0, 1), or the likeliest (None)."""
    best = torch.topk(logits, min(TOP, logits.shape[-1]), dim=-1)
    shares = torch.softmax(logits / temperature, dim=-1).gather(-1, best.indices).double()
    before = shares.cumsum(-1) - shares
    shares = shares * (before < top_p)  # the token that crosses top_p stays
    goal = torch.tensor([[0.0 if draw is None else draw] for draw in draws], dtype=torch.double, device=logits.device)
    place = (shares.cumsum(-1) <= goal * shares.sum(-1, keepdim=True)).sum(-1)
    greedy = torch.tensor([draw is None for draw in draws], device=logits.device)
    place = torch.where(greedy, 0, place.clamp(max=best.indices.shape[-1] - 1))
    return best.indices.gather(-1, place[:, None])[:, 0].tolist()  # type: ignore[no-any-return]


class Batch:
    """Holes that share one cache.

    slots      |  left padding  |  prompt  |  truth, right padding  |  written ...
    positions     -                0 .. p-1   p .. p+t-1               p+at ..
    """

    def __init__(self, network: Network, asks: Sequence[Ask], tokens: FimTokens, settings: Settings) -> None:
        self.network, self.asks, self.tokens, self.settings = network, asks, tokens, settings
        self.prompts = max(len(ask.prompt) for ask in asks)
        self.used = self.prompts + max(len(ask.middle) for ask in asks)
        room = self.used + max(self.limit(ask) for ask in asks)
        self.layers = [RoomyLayer(room) for _ in range(network.layers)]
        self.cache = Cache(layers=list(self.layers))
        self.seen = torch.zeros(len(asks), room, dtype=torch.bool)  # slots that a row may look at

    def limit(self, ask: Ask) -> int:
        """Tokens a sample may write, the end token included."""
        return min(self.settings.max_new_tokens, len(ask.middle) + self.settings.extra_tokens)

    def read(self) -> list[Tensor]:
        """Pass over prompts and truths; per hole (t + 1, V) log-probabilities at every place of its truth, and behind it."""
        rows = len(self.asks)
        ids, positions = torch.full((rows, self.used), self.tokens.pad), torch.zeros(rows, self.used, dtype=torch.long)
        for row, ask in enumerate(self.asks):
            first, stop = self.prompts - len(ask.prompt), self.prompts + len(ask.middle)
            ids[row, first:stop] = torch.tensor([*ask.prompt, *ask.middle])
            positions[row, first:stop] = torch.arange(stop - first)
            self.seen[row, first:stop] = True
        causal = torch.ones(self.used, self.used, dtype=torch.bool).tril()
        mask = (self.seen[:, None, : self.used] & causal) | torch.eye(self.used, dtype=torch.bool)  # padding sees itself: no NaN
        hidden = self.network.hidden(ids, mask[:, None], positions, self.cache)
        spans = [hidden[row, self.prompts - 1 : self.prompts + len(ask.middle)] for row, ask in enumerate(self.asks)]
        logits = self.network.logits(torch.cat(spans))
        return list(torch.log_softmax(logits, -1).split([len(span) for span in spans]))

    def spread(self, rows: Sequence[_Row]) -> None:
        """Copy the cache to one row per `_Row`, each seeing only what it stands behind."""
        at = torch.tensor([row.hole for row in rows])
        self.seen = self.seen[at]
        for number, row in enumerate(rows):
            self.seen[number, self.prompts + row.at : self.used] = False
        self._take(at)

    def _take(self, at: Tensor) -> None:
        for layer in self.layers:
            layer.keep(at.to(self.network.device))

    def decode(self, rows: list[_Row], logits: Tensor) -> list[tuple[list[int], bool]]:
        """Write on in every row from its first (R, V) logits; per row the tokens, and whether it ended by itself."""
        stops, written = set(self.tokens), [list[int]() for _ in rows]
        ended, going = [False] * len(rows), list(range(len(rows)))
        held = going  # rows that are in the cache
        while going:
            draws = [rows[row].draw for row in held]
            numbers = [draw.random() if draw and not ended[row] else None for draw, row in zip(draws, held, strict=True)]
            tokens = dict(zip(held, sampled(logits, numbers, self.settings.temperature, self.settings.top_p), strict=True))
            for row in going:
                if tokens[row] in stops:
                    ended[row] = True  # any marker is an end, since none belongs in a middle
                else:
                    written[row].append(tokens[row])
            going = [row for row in going if not ended[row] and len(written[row]) < rows[row].limit]
            if 2 * len(going) <= len(held):
                at = torch.tensor([number for number, row in enumerate(held) if row in set(going)], dtype=torch.long)
                self.seen, held = self.seen[at], going
                self._take(at)
            if going:
                logits = self._step(rows, held, tokens, written)
        return list(zip(written, ended, strict=True))

    def _step(self, rows: list[_Row], held: list[int], tokens: dict[int, int], written: list[list[int]]) -> Tensor:
        ids = torch.tensor([[tokens[row]] for row in held])
        prompts = [len(self.asks[rows[row].hole].prompt) + rows[row].at for row in held]
        positions = torch.tensor([[prompt + len(written[row]) - 1] for prompt, row in zip(prompts, held, strict=True)])
        self.seen[:, self.used] = True
        self.used += 1
        hidden = self.network.hidden(ids, self.seen[:, None, None, : self.used], positions, self.cache)
        return self.network.logits(hidden[:, -1])

    def run(self) -> list[Seen]:
        """Read, then write."""
        settings, end = self.settings, self.tokens.end
        reading = self.read()
        ends = [float(logs[-1, end].exp()) for logs in reading]
        rows = [
            _Row(hole, 0, self.limit(ask), random.Random(f"{settings.seed}\0{ask.key}\0{number}"))
            for hole, ask in enumerate(self.asks)
            for number in range(settings.samples)
        ]
        rows += [
            _Row(hole, len(ask.middle), settings.extra_tokens, None)
            for hole, ask in enumerate(self.asks)
            if ends[hole] < settings.continue_below
        ]
        first = torch.stack([reading[row.hole][row.at] for row in rows])
        forbidden = torch.tensor([[row.at > 0] for row in rows], device=self.network.device)
        first[:, list(self.tokens)] = first[:, list(self.tokens)].masked_fill(forbidden, -torch.inf)
        self.spread(rows)
        written = [list[Written]() for _ in self.asks]
        early = [_early(logs, end) for logs in reading]
        for row, (ids, ended) in zip(rows, self.decode(rows, first), strict=True):
            written[row.hole].append(Written([*self.asks[row.hole].middle[: row.at], *ids], ended, row.at))
        for hole, (at, likely) in enumerate(early):
            if likely > 1 - settings.continue_below:  # it would end here already
                written[hole].append(Written(self.asks[hole].middle[:at], True, at))
        return [Seen(hole, ends[hole], early[hole], written[hole]) for hole in range(len(self.asks))]


def _early(logs: Tensor, end: int) -> tuple[int, float]:
    """Where inside the truth the end token is likeliest, and how likely; (0, 0.0) for a truth of one token."""
    inside = logs[1:-1, end]
    if not len(inside):
        return 0, 0.0
    at = int(inside.argmax())
    return at + 1, float(inside[at].exp())


def batches(asks: Sequence[Ask], rows: int) -> list[list[int]]:
    """Indices in batches of like length, so that little is padding; the longest first: too little memory shows at once."""
    order = sorted(range(len(asks)), key=lambda i: (-len(asks[i].middle).bit_length(), -len(asks[i].prompt), asks[i].key))
    return [order[start : start + rows] for start in range(0, len(order), rows)]


@torch.inference_mode()
def write(model: Any, asks: Sequence[Ask], tokens: FimTokens, settings: Settings, skip: int = 0) -> Iterator[list[Seen]]:
    """What the model makes of every hole, batch by batch, leaving out the first `skip` batches."""
    network = Network.of(model)
    for group in batches(asks, settings.batch)[skip:]:
        yield [seen._replace(place=group[seen.place]) for seen in Batch(network, [asks[index] for index in group], tokens, settings).run()]
