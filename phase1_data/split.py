"""Put every file on one side: trained on, or tested on.

In:  files with their repository, near-duplicates among them (phase1_data.join)
Out: train | valid | test_file | test_repo per file; the largest similarity found across sides

Whole repositories go to test_repo; of the others, some files go to test_file and valid; canaries are always trained on. What is
moved is a whole component of near-duplicates, so none crosses. Choices follow a hash of the name with the seed: the order of
the files does not matter, and a file that is added moves few others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.canary import REPO
from core.errors import InputError
from phase1_data.dedup import Components, Places, pairs_of_band
from phase1_data.params import SamplesParams

NEAR = 0.7  # Jaccard of token 5-grams; bigcode-dataset
PERMUTATIONS = 256
BAND_ROWS = 5  # 51 bands of 5 propose a pair at 0.7 with probability 0.9999, one at 0.5 with 0.80
BANDS = PERMUTATIONS // BAND_ROWS
LEAST = 0.2  # files that differ more in size are not looked at when the most alike across sides are sought
CHECKED = 32  # of those that seem most alike across two sides, so many are compared: an estimate is off by 0.03
SPLITS = ("train", "valid", "test_file", "test_repo")


class Pair(NamedTuple):
    """Two files, by index, and how alike they are."""

    similarity: float
    a: int
    b: int


def _rank(seed: int, name: str) -> bytes:
    return sha256(f"{seed}:{name}".encode()).digest()


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
    free = (name for name in names if name not in (*params.heldout_repos, REPO))
    others = sorted(free, key=lambda name: _rank(params.seed, f"repo:{name}"))
    return {*params.heldout_repos, *others[: math.ceil(len(others) * params.heldout_repo_share)]}


def assign(files: Sequence[tuple[str, str]], near: Components, params: SamplesParams) -> list[str]:
    """The split of every (file_id, repo), "" for one that is left out: a near-duplicate, elsewhere, of a held-out repository's.

    Raises:
        InputError: a held-out repository that is not there, or nothing left to train on.
    """
    outside = heldout_repos((repo for _, repo in files), params)
    held = np.fromiter((repo in outside for _, repo in files), bool, len(files))
    roots = near.roots()
    groups, first, size = np.unique(roots, return_index=True, return_counts=True)
    group_of = np.searchsorted(groups, roots)
    taken = np.zeros(groups.size, bool)
    taken[group_of[held]] = True
    splits = np.where(held, SPLITS.index("test_repo"), -1).astype(np.int8)
    planted = np.zeros(groups.size, bool)
    planted[group_of[np.fromiter((repo == REPO for _, repo in files), bool, len(files))]] = True
    free = np.flatnonzero(~taken & ~planted)
    ranks = _ranks(files, first[free], np.flatnonzero((size[group_of] > 1) & ~taken[group_of]), group_of, free, params.seed)
    free = free[np.argsort(ranks, kind="stable")]
    of_group = np.full(groups.size, SPLITS.index("train"), np.int8)
    ends, at, total = np.cumsum(size[free]), 0, int(size[free].sum())
    for name, share in (("test_file", params.heldout_file_share), ("valid", params.valid_share)):
        quota, before = math.ceil(total * share), int(ends[at - 1]) if at else 0
        stop = min(int(np.searchsorted(ends, before + quota)) + 1, free.size) if quota else at
        of_group[free[at:stop]] = SPLITS.index(name)
        at = stop
    if at >= free.size:
        raise InputError(
            "no file is left to train on: lower samples.heldout_*_share or name fewer heldout_repos in params.yaml, or ingest more"
        )
    splits = np.where(taken[group_of], splits, of_group[group_of])
    return [SPLITS[split] if split >= 0 else "" for split in splits.tolist()]


def _ranks(
    files: Sequence[tuple[str, str]], alone: Places, grouped: Places, group_of: Places, free: Places, seed: int
) -> NDArray[np.bytes_]:
    """A hash per free group, of the smallest file_id in it."""
    smallest = {int(group_of[index]): "" for index in grouped}
    for index in grouped.tolist():
        group, name = int(group_of[index]), files[index][0]
        smallest[group] = min(smallest[group] or name, name)
    names = (smallest.get(group) or files[index][0] for group, index in zip(free.tolist(), alone.tolist(), strict=True))
    return np.array([_rank(seed, f"file:{name}")[:16] for name in names], "S16")


def most_alike(
    band: Callable[[int], NDArray[np.uint64]], sizes: Places, signatures: NDArray[np.uint32], sides: NDArray[np.int8]
) -> Iterator[tuple[int, int]]:
    """For every two sides, the pairs across them that seem most alike by their signatures.

    Args:
        band: hashes of a band, one per file.
        sides: place of each file in SPLITS, -1 for a file that is left out.
    """
    best: dict[int, dict[int, float]] = {}
    for number in range(BANDS):
        for left, right in pairs_of_band(band(number), sizes, LEAST):
            across = (sides[left] != sides[right]) & (sides[left] >= 0) & (sides[right] >= 0)
            for at in range(0, int(across.sum()), 4096):
                a, b = left[across][at : at + 4096], right[across][at : at + 4096]
                estimate = (signatures[a] == signatures[b]).mean(axis=1)
                between = np.minimum(sides[a], sides[b]).astype(int) * len(SPLITS) + np.maximum(sides[a], sides[b])
                for pair in np.unique(between).tolist():
                    here = np.flatnonzero(between == pair)
                    top = here[np.lexsort((b[here], a[here], -estimate[here]))][:CHECKED]
                    found = best.setdefault(pair, {})
                    found.update(zip((a[top] * len(sides) + b[top]).tolist(), estimate[top].tolist(), strict=True))
                    best[pair] = dict(sorted(found.items(), key=lambda item: (-item[1], item[0]))[:CHECKED])
    for found in best.values():
        yield from (divmod(code, len(sides)) for code in found)


def crossing(pairs: Iterable[Pair], splits: Sequence[str]) -> dict[str, Pair]:
    """The most alike pair between any two splits, by "train|valid" and the like; the pairs come most alike first."""
    largest: dict[str, Pair] = {}
    for pair in pairs:
        sides = sorted((splits[pair.a], splits[pair.b]))
        if "" not in sides and sides[0] != sides[1]:
            largest.setdefault("|".join(sides), pair)
    return largest
