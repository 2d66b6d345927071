"""Rows of pretraining: several samples in one, each token marked by what it is.

In:  samples/{train,valid}.parquet of phase 1, tokenizer.json
Out: a .npz of token ids and roles, kept beside the checkpoint

A sample never crosses a row: cut, it would lose its middle. Neighbouring windows of a file stand in one row and see each
other, so a row holds several holes and still teaches to copy from far above.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.errors import InputError
from core.manifest import sha256_of
from core.progress import track
from core.records import partial, read_parquet
from phase2_train.rows import SAMPLES_MADE_BY, TokenRow, load_codec, token_rows

IGNORE = -100
PADDING, TEXT, MIDDLE = 0, 1, 2  # roles of tokens; the end token after a middle counts as middle


class Packed(NamedTuple):
    """Rows of one split. ids: (N, T) uint16; role: (N, T) uint8."""

    ids: NDArray[np.uint16]
    role: NDArray[np.uint8]

    @property
    def tokens(self) -> NDArray[np.int64]:
        """Tokens of each row before its padding: (N,)."""
        counted: NDArray[np.int64] = (self.role != PADDING).sum(axis=1)
        return counted


def together(rows: Iterable[TokenRow], room: int) -> Iterator[list[TokenRow]]:
    """Samples in their order, as many to a row as it has room for."""
    held: list[TokenRow] = []
    for row in rows:
        if held and sum(len(one.ids) for one in held) + len(row.ids) > room:
            yield held
            held = []
        held.append(row)
    if held:
        yield held


def as_arrays(groups: list[list[TokenRow]], room: int, pad: int) -> Packed:
    """Ids and roles of packed samples; a left-to-right sample is text all through."""
    packed = Packed(np.full((len(groups), room), pad, np.uint16), np.zeros((len(groups), room), np.uint8))
    for index, group in enumerate(groups):
        at = 0
        for row in group:
            middle = at + row.start if row.order != "ltr" else at + len(row.ids)
            packed.ids[index, at : at + len(row.ids)] = row.ids
            packed.role[index, at:middle] = TEXT
            packed.role[index, middle : at + len(row.ids)] = MIDDLE
            at += len(row.ids)
    return packed


def pack(samples: Path, folder: Path, cache: Path, room: int) -> Packed:
    """Encode a samples file once; what is kept is used again while samples and tokenizer hold the same bytes.

    Raises:
        InputError: no samples, or a vocabulary of more than 65,536 entries.
    """
    key = hashlib.sha256(f"{sha256_of(samples)} {sha256_of(folder / 'tokenizer.json')} {room}".encode()).hexdigest()[:16]
    file = cache / f"{samples.stem}-{key}.npz"
    if not file.exists():
        codec = load_codec(folder)
        if max(codec.tokens) > np.iinfo(np.uint16).max:
            raise InputError(f"{folder} has more than 65,536 entries: lower pretrain.vocab in params.yaml")
        rows = track(token_rows(read_parquet(samples, SAMPLES_MADE_BY), codec, room), f"encode {samples.stem}", unit="rows")
        groups = list(together(rows, room))
        if not groups:
            raise InputError(f"{samples} holds no samples: run `{SAMPLES_MADE_BY} --profile base`")
        packed = as_arrays(groups, room, codec.tokens.pad)
        with partial(file) as unfinished, unfinished.open("wb") as sink:
            np.savez(sink, ids=packed.ids, role=packed.role)
    with np.load(file) as data:
        return Packed(data["ids"], data["role"])


def batches(rows: int, size: int, seed: int, step: int) -> Iterator[NDArray[np.int64]]:
    """Row indices for every step from `step` on: a fresh permutation per epoch, the same for the same seed."""
    per_epoch = rows // size
    while True:
        order = np.random.default_rng([seed, step // per_epoch]).permutation(rows)
        at = step % per_epoch
        yield order[at * size : (at + 1) * size]
        step += 1


def tensors(rows: Packed, index: NDArray[np.int64], middle_weight: float) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs (B, T-1), targets (B, T-1) shifted by one with IGNORE in the padding, and float32 loss weights (B, T-1)."""
    ids, role = torch.from_numpy(rows.ids[index].astype(np.int64)), torch.from_numpy(rows.role[index])[:, 1:]
    weights = torch.where(role == MIDDLE, middle_weight, 1.0) * (role != PADDING)
    return ids[:, :-1], ids[:, 1:].masked_fill(role == PADDING, IGNORE), weights
