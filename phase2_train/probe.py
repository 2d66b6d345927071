"""How well a model completes the line that somebody is typing, in repositories it has never seen: one figure per order.

In:  held-out holes of phase 1 (samples/test_repo.parquet), a model folder
Out: Probe per order: first line exactly right, hole exactly right, bits per byte of the truth

Mid-line holes only: the cursor stands behind something that is not blank, and the rest of the line is asked for. Bits per byte compare
models of different vocabularies, exact matches do not need to. The figure the card and the leaderboard of bases go by.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM

from core.completion import compare
from core.decode import Network, Question, TorchBatch, answer, batches
from core.errors import InputError
from core.fim import Order
from core.records import Row, read_parquet
from core.statistics import wilson
from phase2_train.rows import SAMPLES_MADE_BY, hole_of, load_codec, load_tokenizer

ORDERS: tuple[Order, ...] = ("spm", "psm")
LIMIT = 64  # tokens written at most
BATCH = 32


class Probe(NamedTuple):
    """Figures of one order over `holes` holes."""

    order: Order
    holes: int
    first_line: float  # share whose first line equals the truth's, ends stripped
    low: float  # 95 % interval of it (Wilson)
    high: float
    exact: float  # share equal to the truth, and ended there
    bits_per_byte: float  # of the truth and its end token

    def __str__(self) -> str:
        return (
            f"{self.order}: first line {self.first_line:.1%} [{self.low:.1%}, {self.high:.1%}], exact {self.exact:.1%}, "
            f"{self.bits_per_byte:.3f} bits per byte, {self.holes:,} mid-line holes"
        )


def is_mid_line(row: Row) -> bool:
    """Whether the hole is the rest of a line that has been begun."""
    begun = row["prefix"].rpartition("\n")[2]
    return bool(begun.strip()) and "\n" not in row["middle"] and row["suffix"][:1] in ("", "\n")


def mid_line(rows: Iterable[Row], limit: int) -> list[Row]:
    """`limit` mid-line holes (0: all), the same whatever the order of the rows."""
    held = sorted(filter(is_mid_line, rows), key=lambda row: hashlib.sha256(row["sample_id"].encode()).digest())
    return held[: limit or None]


def measure(model: torch.nn.Module, folder: Path, rows: Sequence[Row], order: Order) -> Probe:
    """Ask for every hole greedily."""
    codec, tokenizer, network = load_codec(folder), load_tokenizer(folder), Network.of(model)
    questions = [Question(codec.prompt(hole_of(row), order), codec.plain(row["middle"])) for row in rows]
    first = exact = 0
    nats = 0.0
    for places in batches(questions, BATCH):
        asked = [questions[place] for place in places]
        answers = answer(TorchBatch(network, asked, LIMIT), asked, codec.tokens.end, codec.tokens, LIMIT)
        for place, found in zip(places, answers, strict=True):
            judged = compare(tokenizer.decode(found.ids), rows[place]["middle"], rows[place]["suffix"])
            first += judged.first_line
            exact += judged.exact and found.stop == "end"
            nats += found.nats
    n, size = len(rows), sum(len(row["middle"].encode()) for row in rows)
    interval = wilson(first, n)
    return Probe(order, n, first / n, interval.low, interval.high, exact / n, nats / math.log(2) / size)


def run(samples: Path, folder: Path, limit: int) -> list[Probe]:
    """Measure a model folder in both orders.

    Raises:
        InputError: no mid-line holes, or no model there.
    """
    rows = mid_line(read_parquet(samples / "test_repo.parquet", SAMPLES_MADE_BY), limit)
    if not rows:
        raise InputError(f"{samples}/test_repo.parquet has no mid-line holes: name samples.heldout_repos and run `{SAMPLES_MADE_BY}`")
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} is no model folder: run `python -m phase2_train base` first")
    where = {"": "cuda" if torch.cuda.is_available() else "cpu"}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map=where)
    return [measure(model, folder, rows, order) for order in ORDERS]
