"""FIM samples as rows of token ids.

In:  samples of phase 1 (core.records.SAMPLE), a tokenizer.json
Out: ids of whole rows and where their middle begins; rows too long for the model are refused, never cut, because a
     cut at the right end takes the middle
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from core.errors import InputError
from core.fim import Chunk, Codec, Hole, codec_of
from core.records import Row, read_parquet

SAMPLES_MADE_BY = "python -m phase1_data samples"


class TokenRow(NamedTuple):
    """One row: `ids` whole, `start` the index at which the middle begins."""

    sample_id: str
    order: str
    span_kind: str
    ids: list[int]
    start: int


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder.

    Raises:
        InputError: no tokenizer.json there.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise InputError(f"{file} is missing: run `python -m phase2_train base` first")
    return Tokenizer.from_file(str(file))


def load_codec(folder: Path) -> Codec:
    """The codec of a model folder.

    Raises:
        InputError: no tokenizer there, or one without FIM markers.
    """
    try:
        return codec_of(load_tokenizer(folder))
    except ValueError as error:
        raise InputError(f"{folder}: {error}") from None


def hole_of(sample: Row) -> Hole:
    """The hole that a sample's row describes."""
    context = tuple(Chunk(chunk["path"], chunk["text"]) for chunk in sample["context"] or ())
    return Hole(sample["prefix"], sample["suffix"], sample["middle"], sample["path"], sample["repo"], context)


def token_rows(samples: Iterable[Row], codec: Codec, max_tokens: int) -> Iterator[TokenRow]:
    """Rows of the samples, in their order.

    Raises:
        InputError: a row of more than `max_tokens`, or with an empty middle in a FIM order.
    """
    for sample in samples:
        ids, start = codec.row(hole_of(sample), sample["order"])
        if len(ids) > max_tokens:
            raise InputError(
                f"sample {sample['sample_id']} has {len(ids)} tokens and the model takes {max_tokens}: "
                f"lower samples.row_tokens in params.yaml and run `{SAMPLES_MADE_BY}`"
            )
        if sample["order"] != "ltr" and start >= len(ids) - 1:
            raise InputError(f"sample {sample['sample_id']} has an empty middle: run `{SAMPLES_MADE_BY}` again")
        yield TokenRow(sample["sample_id"], sample["order"], sample["span_kind"], ids, start)


def read_rows(file: Path, codec: Codec, max_tokens: int, limit: int = 0) -> list[TokenRow]:
    """The rows of a samples file, the first `limit` of them where that is not 0.

    Raises:
        InputError: the file is missing or holds no samples.
    """
    samples = list(read_parquet(file, SAMPLES_MADE_BY))
    if not samples:
        raise InputError(f"{file} holds no samples: see rejects.parquet beside it, then run `{SAMPLES_MADE_BY}`")
    return list(token_rows(samples[: limit or None], codec, max_tokens))
