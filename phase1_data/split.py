"""Put every file on one side: trained on, or tested on.

In:  files with their repository, MinHash signatures of their contents
Out: train | valid | test_file | test_repo per file; the largest similarity found across sides

Whole repositories go to test_repo; of the others, some files go to test_file and valid. What is moved is always a whole
component of near-duplicates, so none crosses. Choices follow a hash of the name with the seed: the order of the files
does not matter, and a file that is added moves few others.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.errors import InputError
from phase1_data.dedup import Components, candidates
from phase1_data.params import SamplesParams
from phase1_data.shingles import Hashes, jaccard

NEAR = 0.7  # Jaccard of token 5-grams; bigcode-dataset
PERMUTATIONS = 256
BAND_ROWS = 5  # 51 bands of 5 propose a pair at 0.7 with probability 0.9999, one at 0.5 with 0.80
DOUBT = 0.12  # four standard deviations of an estimate from 256 permutations
SPLITS = ("train", "valid", "test_file", "test_repo")


class Pair(NamedTuple):
    """Two files, by index, and how alike they are."""

    similarity: float
    a: int
    b: int


def similar_pairs(signatures: NDArray[np.uint32], shingles_of: Callable[[Iterable[int]], dict[int, Hashes]], top: int = 200) -> list[Pair]:
    """Pairs that may be near-duplicates, and the `top` most alike below that, with their true similarity, most alike first."""
    size = len(signatures)
    codes = [a * size + b for group in candidates(signatures, BAND_ROWS) for i, a in enumerate(group) for b in group[i + 1 :]]
    pairs = np.unique(np.array(codes, np.int64))
    left, right = pairs // max(size, 1), pairs % max(size, 1)
    estimate = np.array([(signatures[a] == signatures[b]).mean() for a, b in zip(left, right, strict=True)])
    order = np.lexsort((pairs, -estimate))
    wanted = [i for rank, i in enumerate(order) if rank < top or estimate[i] >= NEAR - DOUBT]
    shingles = shingles_of({int(i) for i in (*left[wanted], *right[wanted])})
    found = [Pair(jaccard(shingles[int(left[i])], shingles[int(right[i])]), int(left[i]), int(right[i])) for i in wanted]
    return sorted(found, key=lambda pair: (-pair.similarity, pair.a, pair.b))


def near_components(size: int, pairs: Iterable[Pair]) -> Components:
    """Components of files joined by pairs of at least NEAR."""
    found = Components(size)
    for pair in pairs:
        if pair.similarity >= NEAR:
            found.join(pair.a, pair.b)
    return found


def _rank(seed: int, name: str) -> str:
    return sha256(f"{seed}:{name}".encode()).hexdigest()


def heldout_repos(repos: Iterable[str], params: SamplesParams) -> set[str]:
    """Repositories that are never trained on: those named, and a share of the others.

    Raises:
        InputError: one that is named has no file here.
    """
    names = sorted(set(repos))
    for name in params.heldout_repos:
        if name not in names:
            some = ", ".join(names[:8])
            raise InputError(f"samples.heldout_repos names {name!r}, of which no file is left (there are {some}, ...): mend params.yaml")
    others = sorted((name for name in names if name not in params.heldout_repos), key=lambda name: _rank(params.seed, f"repo:{name}"))
    return {*params.heldout_repos, *others[: math.ceil(len(others) * params.heldout_repo_share)]}


def assign(files: Sequence[tuple[str, str]], near: Components, params: SamplesParams) -> list[str]:
    """The split of every (file_id, repo), "" for one that is left out: a near-duplicate, elsewhere, of a held-out repository's.

    Raises:
        InputError: a held-out repository that is not there, or nothing left to train on.
    """
    outside = heldout_repos((repo for _, repo in files), params)
    members: dict[int, list[int]] = defaultdict(list)
    for index in range(len(files)):
        members[near.root(index)].append(index)
    splits = [""] * len(files)
    free: list[tuple[str, list[int]]] = []
    for group in members.values():
        held = [index for index in group if files[index][1] in outside]
        for index in held:
            splits[index] = "test_repo"
        if not held:
            free.append((_rank(params.seed, f"file:{min(files[index][0] for index in group)}"), group))
    free.sort()
    total = sum(len(group) for _, group in free)
    quotas = [("test_file", math.ceil(total * params.heldout_file_share)), ("valid", math.ceil(total * params.valid_share))]
    for name, quota in quotas:
        while quota > 0 and free:
            _, group = free.pop(0)
            quota -= len(group)
            for index in group:
                splits[index] = name
    for _, group in free:
        for index in group:
            splits[index] = "train"
    if not free:
        raise InputError(
            "no file is left to train on: lower samples.heldout_*_share or name fewer heldout_repos in params.yaml, or ingest more"
        )
    return splits


def crossing(pairs: Iterable[Pair], splits: Sequence[str]) -> dict[str, Pair]:
    """The most alike pair found between any two splits, by "train|valid" and the like."""
    largest: dict[str, Pair] = {}
    for pair in pairs:
        sides = sorted((splits[pair.a], splits[pair.b]))
        if "" not in sides and sides[0] != sides[1]:
            largest.setdefault("|".join(sides), pair)
    return largest
