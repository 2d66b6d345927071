"""Promises of the comparison of all files: true similarity decides, the best stays, no group of files makes it slow."""

from __future__ import annotations

import hashlib
import itertools
import time
from pathlib import Path

import numpy as np
import pytest

from phase1_data import dedup, join, join_ray
from phase1_data.engine import Shard
from phase1_data.shingles import Hashes, jaccard

THRESHOLD, PERMUTATIONS = 0.7, 128
ROWS = dedup.rows_per_band(THRESHOLD, PERMUTATIONS)
BANDS = PERMUTATIONS // ROWS


def corpus_of(folder: Path, sets: list[Hashes], shard_rows: int = 50) -> join.Corpus:
    """The parts of a first pass over files with these shingles."""
    folder.mkdir(exist_ok=True)
    shards = []
    for number, start in enumerate(range(0, len(sets), shard_rows)):
        mine = sets[start : start + shard_rows]
        shard = Shard(folder / "none", "", number, len(mine), 0, folder)
        identities = np.zeros(len(mine), join.IDENTITY)
        for at, shingles in enumerate(mine):
            file_id = hashlib.sha256(f"{start + at}".encode()).hexdigest()
            identities[at] = (tuple(join.words_of(file_id)), tuple(join.words_of(file_id)[:2]), shingles.size, 0, False)
        np.save(shard.part(".identities.npy"), identities)
        np.save(shard.part(".bands.npy"), dedup.band_keys(dedup.signatures(mine, PERMUTATIONS), ROWS))
        np.save(shard.part(".sizes.npy"), np.array([shingles.size for shingles in mine]))
        shard.part(".shingles").write_bytes(b"".join(shingles.tobytes() for shingles in mine))
        shards.append(shard)
    corpus = join.Corpus(shards)
    join.write_places(corpus, folder)
    return corpus


def families(rng: np.random.Generator, families: int, members: int, size: int, changed: int) -> list[Hashes]:
    """Files of a family share all but `changed` of their shingles with its first."""
    found = []
    for _ in range(families):
        base = rng.integers(1, 2**63, size, np.uint64)
        for _ in range(members):
            own = base.copy()
            own[rng.integers(0, size, changed)] = rng.integers(1, 2**63, changed, np.uint64)
            found.append(np.unique(own))
    order = rng.permutation(len(found))
    return [found[at] for at in order]


def edges_as_on_ray(corpus: join.Corpus, files: dedup.Places, bands: int, threshold: float) -> list[tuple[int, int]]:
    """What the tasks of edges_on_ray do, group after group."""
    folder, buckets = corpus.shards[0].folder, 3
    np.save(folder / "compared.npy", files)

    def grouped(batches: list[join_ray.Batch]) -> list[join_ray.Batch]:
        whole = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
        return [{name: column[whole["bucket"] == bucket] for name, column in whole.items()} for bucket in np.unique(whole["bucket"])]

    hashes = [join_ray._hashes({"at": np.array([shard.number])}, corpus.shards, buckets) for shard in corpus.shards]
    pairs = [join_ray._pairs(group, threshold, buckets) for group in grouped(hashes)]
    edges = [join_ray._verified(group, folder, threshold) for group in grouped(pairs)]
    return [pair for batch in edges for pair in zip(batch["a"].tolist(), batch["b"].tolist(), strict=True)]


def roots(size: int, edges) -> np.ndarray:
    found = dedup.Components(size)
    for a, b in edges:
        found.join(a, b)
    return found.roots()


@pytest.mark.parametrize(("groups", "members", "changed"), [(40, 4, 20), (2, 90, 20), (60, 1, 0), (3, 60, 45), (1, 200, 90)])
def test_components_are_those_of_the_true_similarity_and_the_same_on_ray(tmp_path: Path, groups: int, members: int, changed: int):
    sets = families(np.random.default_rng(groups), groups, members, 400, changed)
    corpus = corpus_of(tmp_path / "work", sets)
    edges = list(join.edges_here(corpus, corpus.whole, BANDS, THRESHOLD))
    assert all(jaccard(sets[a], sets[b]) >= THRESHOLD for a, b in edges)
    here = roots(len(sets), edges)
    assert np.array_equal(here, roots(len(sets), edges_as_on_ray(corpus, corpus.whole, BANDS, THRESHOLD)))
    if changed < 90:  # above the threshold for certain: every pair must have met
        near = ((a, b) for a, b in itertools.combinations(range(len(sets)), 2) if jaccard(sets[a], sets[b]) >= THRESHOLD)
        assert np.array_equal(here, roots(len(sets), near))


@pytest.mark.parametrize(("changed", "components"), [(2, 1), (60, None)])
def test_thousands_of_near_copies_take_linear_time(tmp_path: Path, changed: int, components: int | None):
    """In the second case all are about 0.57 alike: nothing is joined though nearly all meet in some band."""
    files = 10_000 if components else 3_000
    sets = families(np.random.default_rng(1), 1, files, 200, changed)
    corpus = corpus_of(tmp_path / "work", sets, 500)
    started = time.process_time()
    found = roots(len(sets), join.edges_here(corpus, corpus.whole, BANDS, THRESHOLD))
    assert time.process_time() - started < files / 300
    assert components is None or np.unique(found).size == components


def test_a_copy_belongs_to_the_file_that_stays_in_the_end(tmp_path: Path):
    rng = np.random.default_rng(2)
    base = np.unique(rng.integers(1, 2**63, 400, np.uint64))
    sets = [base, base[:380], base[:380], base[:370], np.unique(rng.integers(1, 2**63, 300, np.uint64))]
    corpus = corpus_of(tmp_path / "work", sets)
    corpus.identities["same"][2] = corpus.identities["same"][1]
    corpus.identities["n_bytes"] = [50, 40, 30, 60, 10]
    decided = join.decide(corpus, BANDS, THRESHOLD, join.edges_here)
    assert decided.owner.tolist() == [3, 3, 3, 3, 4]  # the longest of all
    assert [join.REASONS[reason] for reason in decided.reason] == ["near_duplicate", "near_duplicate", "normalised_duplicate", "", ""]
    assert decided.copy_of.tolist() == [0, 1, 1, 3, 4]
    smallest = min((0, 1, 3), key=lambda at: join.hex_of(corpus.identities["file_id"][at]))
    assert decided.cluster.tolist() == [smallest] * 4 + [4]
