"""Ask a model for held-out holes, greedily, and judge what it writes: what a gate compares.

In:  samples/valid.parquet, the base folder, an adapter or none
Out: ROW per hole: exactness, likeness, manners, and the nats spent on the truth; no completion is kept

Weights are those that would be served: on a CPU the base in float32, rounded to NF4 where the adapter was trained on that, the
adapter merged in.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
from peft import PeftModel

from core import completion, decode, nf4
from core.decode import Answer, Network, Question, TorchBatch, batches
from core.errors import InputError
from core.fim import IM_END, IM_START
from core.manifest import sha256_of, versions_of
from core.progress import track
from core.records import Row, read_json, read_parquet
from phase2_train import base as base_model
from phase2_train.machine import Machine
from phase2_train.params import GateParams
from phase2_train.rows import SAMPLES_MADE_BY, hole_of, load_codec, load_tokenizer

ROW = pa.schema(
    [
        ("key", pa.string()),  # of everything that shapes the rows of one model
        ("sample_id", pa.string()),
        ("file_id", pa.string()),
        ("span_kind", pa.string()),
        ("stop", pa.string()),  # end | marker | limit
        ("n_written", pa.int64()),  # tokens, without the one that ended it
        ("nats", pa.float64()),  # of the truth and its end token
        ("n_tokens", pa.int64()),  # of the truth and its end token
        ("exact", pa.bool_()),
        ("first_line", pa.bool_()),
        ("similarity", pa.float64()),
        ("overrun", pa.bool_()),
        ("suffix_repeat", pa.bool_()),
    ]
)
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "tokenizers", "rapidfuzz")
Name = Literal["base", "sft", "dpo"]


class Contestant(NamedTuple):
    """A model that is asked: the base, bare or under an adapter that was trained on `bits` of it."""

    name: Name
    adapter: Path | None
    bits: int


class Asked(NamedTuple):
    """One hole and how it is put to the models."""

    row: Row
    question: Question


def choose(file: Path, base: Path, params: GateParams) -> tuple[list[Asked], Counter[str]]:
    """`params.rows` holes by a hash of their id, all in the gate's order; what was left out, by reason.

    Raises:
        InputError: the file is missing or holds no holes that fit the model.
    """
    codec, context = load_codec(base), int(read_json(base / "config.json", "python -m phase2_train base")["max_position_embeddings"])
    rows = [row for row in read_parquet(file, SAMPLES_MADE_BY) if row["order"] != "ltr" and row["middle"].strip()]
    rows.sort(key=lambda row: hashlib.sha256(row["sample_id"].encode()).digest())
    asked, dropped = [], Counter(over_limit=max(0, len(rows) - params.rows))
    for row in rows[: params.rows]:
        question = Question(codec.prompt(hole_of(row), params.order), codec.plain(row["middle"]))
        if len(question.prompt) + max(params.max_new_tokens, len(question.middle) + 1) > context:
            dropped["too_long"] += 1
            continue
        asked.append(Asked(row, question))
    if not asked:
        raise InputError(f"{file} holds no hole to ask for: raise samples.valid_share, or run `{SAMPLES_MADE_BY}`")
    return asked, dropped


def key_of(one: Contestant, base: Path, asked: Sequence[Asked], params: GateParams, chosen: Machine) -> str:
    """Hash of everything that shapes the rows of a model; rows under the same key are taken as they are."""
    weights = [sha256_of(base), sha256_of(one.adapter) if one.adapter else None, one.bits]
    code = [hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest() for module in (completion, decode, nf4)]
    shape = [weights, [hole.question for hole in asked], params.max_new_tokens, params.batch, chosen.reason, versions_of(PACKAGES), code]
    return hashlib.sha256(json.dumps(shape).encode()).hexdigest()


def load(one: Contestant, base: Path, chosen: Machine) -> Any:
    """The model as it would be served: one set of weights on a CPU; on a GPU NF4 and adapter as in training."""
    if chosen.device != "cpu":
        model = base_model.load(base, one.bits, chosen)
        return PeftModel.from_pretrained(model, one.adapter) if one.adapter else model
    model = base_model.load(base, 16, chosen)
    if one.bits == 4:
        nf4.round_layers(model)
    return PeftModel.from_pretrained(model, one.adapter).merge_and_unload() if one.adapter else model


def answers(one: Contestant, base: Path, asked: Sequence[Asked], params: GateParams, chosen: Machine) -> list[Answer]:
    """Greedy completions of all holes, in their order."""
    codec, tokenizer = load_codec(base), load_tokenizer(base)
    chat = (tokenizer.token_to_id(text) for text in (IM_START, IM_END))
    stops = {*codec.tokens, *(token for token in chat if token is not None)}
    network, plan = Network.of(load(one, base, chosen)), batches([hole.question for hole in asked], params.batch)
    found: dict[int, Answer] = {}
    for batch in track(plan, f"gate: {one.name}", unit=f"batches of {params.batch}"):
        questions = [asked[index].question for index in batch]
        read = TorchBatch(network, questions, params.max_new_tokens)
        found |= dict(zip(batch, decode.answer(read, questions, codec.tokens.end, stops, params.max_new_tokens), strict=True))
    return [found[index] for index in range(len(asked))]


def row_of(hole: Asked, answer: Answer, text: str, key: str) -> Row:
    """One answer, judged (ROW)."""
    judged = completion.compare(text, hole.row["middle"], hole.row["suffix"])._asdict()
    return {
        "key": key,
        **{name: hole.row[name] for name in ("sample_id", "file_id", "span_kind")},
        "stop": answer.stop,
        "n_written": len(answer.ids),
        "nats": round(answer.nats, 6),
        "n_tokens": len(hole.question.middle) + 1,
        **{name: judged[name] for name in ("exact", "first_line", "similarity", "overrun", "suffix_repeat")},
    }


def rows_of(one: Contestant, base: Path, asked: Sequence[Asked], known: Path | None, params: GateParams, chosen: Machine) -> list[Row]:
    """Rows of a model in the order of `asked`, from `known` where an earlier gate asked the same model the same."""
    key = key_of(one, base, asked, params, chosen)
    if known is not None and known.is_file():
        kept = [row for row in read_parquet(known, "python -m phase2_train sft-gate") if row["key"] == key]
        if [row["sample_id"] for row in kept] == [hole.row["sample_id"] for hole in asked]:
            return kept
    tokenizer = load_tokenizer(base)
    written = answers(one, base, asked, params, chosen)
    texts = [tokenizer.decode(answer.ids, skip_special_tokens=False) for answer in written]
    return [row_of(hole, answer, text, key) for hole, answer, text in zip(asked, written, texts, strict=True)]
