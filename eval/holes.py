"""The held-out holes as questions to a model.

In:  samples/test_*.parquet of phase 1, the tokenizer of the base
Out: HeldOut rows in a fixed order; Asked (hole, order, question), prompts written by core.fim alone; drops by reason
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from core.decode import Question
from core.errors import InputError
from core.fim import IM_END, IM_START, Chunk, Codec, Hole, Order, codec_of
from core.records import Row, read_json, read_parquet
from eval.metrics import Frame, frame

MADE_BY = "python -m phase1_data samples"


class HeldOut(NamedTuple):
    """One held-out hole with where it comes from; `around` is what its completions are parsed in."""

    row: Row
    hole: Hole
    around: Frame | None

    @classmethod
    def of(cls, row: Row) -> HeldOut:
        """From a row of core.records.SAMPLE."""
        context = [Chunk(chunk["path"], chunk["text"]) for chunk in row["context"] or []]
        hole = Hole(row["prefix"], row["suffix"], row["middle"], row["path"], row["repo"], context)
        return cls(row, hole, frame(hole, row["lang"]))


class Asked(NamedTuple):
    """One hole in one order."""

    held: HeldOut
    order: Order
    question: Question

    @property
    def key(self) -> str:
        """Names the row in a ledger."""
        return f"{self.held.row['sample_id']} {self.order}"


class Vocabulary(NamedTuple):
    """How text becomes ids and ids text, where a completion ends, and how many tokens the model takes."""

    tokenizer: Tokenizer
    codec: Codec
    stops: frozenset[int]
    context: int

    @classmethod
    def of(cls, folder: Path) -> Vocabulary:
        """Of a model folder.

        Raises:
            InputError: tokenizer or config missing, or without the markers of a hole.
        """
        file = folder / "tokenizer.json"
        if not file.is_file():
            raise InputError(f"{file} is missing: run `python -m phase2_train base` first")
        tokenizer = Tokenizer.from_file(str(file))
        try:
            codec = codec_of(tokenizer)
        except ValueError as error:
            raise InputError(f"{file}: {error}") from None
        chat = (tokenizer.token_to_id(text) for text in (IM_START, IM_END))
        stops = frozenset([*codec.tokens, *(token for token in chat if token is not None)])
        config = read_json(folder / "config.json", "python -m phase2_train base")
        return cls(tokenizer, codec, stops, int(config["max_position_embeddings"]))


def read(samples: Path, splits: Sequence[str], limit: int) -> tuple[list[HeldOut], Counter[str]]:
    """`limit` holes of every split (0: all), chosen by a hash of their id; what was left out, by reason.

    Raises:
        InputError: a split is missing, damaged or without holes.
    """
    chosen: list[HeldOut] = []
    dropped: Counter[str] = Counter()
    for split in splits:
        rows = {row["sample_id"]: row for row in read_parquet(samples / f"{split}.parquet", MADE_BY)}
        holes = [row for row in rows.values() if row["order"] != "ltr" and row["middle"].strip()]
        dropped["no_middle"] += len(rows) - len(holes)
        holes.sort(key=lambda row: hashlib.sha256(row["sample_id"].encode()).digest())
        if not holes:
            raise InputError(
                f"{samples / split}.parquet has no holes to ask for: lower samples.heldout_* or add code, and rerun `{MADE_BY}`"
            )
        dropped["over_limit"] += max(0, len(holes) - limit) if limit else 0
        chosen += map(HeldOut.of, holes[: limit or None])
    return chosen, dropped


def ask(
    held: Sequence[HeldOut], orders: Sequence[Order], vocabulary: Vocabulary, room: int, others: int = 0
) -> tuple[list[Asked], Counter[str]]:
    """Every hole in the first order, and `others` of each split (0: all) in the orders after it, from which no verdict is read.

    A hole whose prompt leaves less than `room` tokens of the model's context is left out of all orders.
    """
    asked: list[Asked] = []
    dropped: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for one in held:
        middle = vocabulary.codec.plain(one.hole.middle)
        questions = [Question(vocabulary.codec.prompt(one.hole, order), middle) for order in orders]
        if max(len(q.prompt) for q in questions) + max(room, len(middle) + 1) > vocabulary.context:
            dropped["too_long"] += 1
            continue
        seen[one.row["split"]] += 1
        wanted = 1 if others and seen[one.row["split"]] > others else len(orders)
        asked += [Asked(one, order, question) for order, question in list(zip(orders, questions, strict=True))[:wanted]]
    return asked, dropped


def digest(asked: Sequence[Asked]) -> str:
    """sha256 of all prompts and truths, and of what they are judged in."""
    total = hashlib.sha256()
    for one in asked:
        total.update(json.dumps([one.key, one.question, one.held.around, one.held.hole.suffix]).encode())
    return total.hexdigest()
