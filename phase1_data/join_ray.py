"""The comparison of all files on a Ray cluster: grouped by band hash, then by pair, then verified where there is room.

In:  the parts of phase1_data.clean's first pass, under a path that every machine of the cluster sees
Out: verified pairs; the driver joins them (16 bytes a pair; phase1_data.join)

Ray moves 24 bytes per file and band. Work is cut into buckets of a hash, so that a task takes many small groups at once; a
bucket holds its groups whole, so the pairs are those that one machine would compare.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phase1_data.dedup import Components, Places, pairs_of_band
from phase1_data.engine import Shard, ray_data, ray_failures
from phase1_data.join import Corpus, ShingleSets, save

BUCKET_ROWS = 500_000  # hashes in a task
Batch = dict[str, Any]  # columns


def edges_on_ray(corpus: Corpus, files: Places, bands: int, threshold: float, workers: int) -> Iterator[tuple[int, int]]:
    """As join.edges_here, on Ray: other pairs, the same components."""
    folder = corpus.shards[0].folder
    save(folder / "compared.npy", files)
    data = ray_data(workers)
    buckets = max(workers, files.size * bands // BUCKET_ROWS)
    shards = data.from_items([{"at": shard.number} for shard in corpus.shards], override_num_blocks=len(corpus.shards))
    hashes = shards.map_batches(functools.partial(_hashes, shards=corpus.shards, buckets=buckets), batch_size=1, batch_format="numpy")
    pairs = hashes.groupby("bucket").map_groups(functools.partial(_pairs, threshold=threshold, buckets=buckets), batch_format="numpy")
    edges = pairs.groupby("bucket").map_groups(functools.partial(_verified, folder=folder, threshold=threshold), batch_format="numpy")
    with ray_failures():
        for batch in edges.iter_batches(batch_size=None, batch_format="numpy"):
            yield from zip(batch["a"].tolist(), batch["b"].tolist(), strict=True)


def _hashes(batch: Batch, shards: Sequence[Shard], buckets: int) -> Batch:
    """Every band hash of a shard's files that are compared: key, place among those, size of the set."""
    shard = shards[int(batch["at"][0])]
    sets = ShingleSets(shard.folder)
    compared = np.load(shard.folder / "compared.npy", mmap_mode="r")
    start = int(sets.first[shard.number])
    whole = start + np.flatnonzero(~np.load(shard.part(".identities.npy"))["broken"])
    places = np.searchsorted(compared, whole)
    among = places < compared.size
    among[among] = compared[places[among]] == whole[among]
    keys = np.load(shard.part(".bands.npy"))[:, among]
    return {
        "bucket": (keys % np.uint64(buckets)).astype(np.int64).ravel(),
        "key": keys.ravel(),
        "place": np.tile(places[among], len(keys)),
        "size": np.tile(sets.sizes[whole[among]], len(keys)),
    }


def _pairs(group: Batch, threshold: float, buckets: int) -> Batch:
    """The pairs to compare of a bucket's hashes, each once, in buckets by their smaller place."""
    order = np.argsort(group["place"], kind="stable")  # neighbours in a large group are those that one machine takes
    keys, places, sizes = (group[name][order] for name in ("key", "place", "size"))
    found = [np.stack((places[left], places[right])) for left, right in pairs_of_band(keys, sizes, threshold)]
    a, b = _once(np.concatenate([np.empty((2, 0), np.int64), *found], axis=1))
    return {"bucket": a % buckets, "a": a, "b": b}


def _once(pairs: Places) -> Places:
    """Columns (a, b), sorted, each once."""
    pairs = pairs[:, np.lexsort((pairs[1], pairs[0]))]
    new = np.ones(pairs.shape[1], bool)
    new[1:] = np.any(pairs[:, 1:] != pairs[:, :-1], axis=0)
    return pairs[:, new]


def _verified(group: Batch, folder: Path, threshold: float) -> Batch:
    """Of a bucket's pairs, those that reach the threshold, less those that connect nothing new within the bucket."""
    sets, compared = ShingleSets(folder), np.load(folder / "compared.npy", mmap_mode="r")
    pairs = _once(np.stack((group["a"], group["b"])).astype(np.int64))
    known = np.sort(pairs, axis=None)
    found, edges = Components(known.size), []
    local = np.searchsorted(known, pairs)
    for (a, b), (left, right) in zip(pairs.T.tolist(), local.T.tolist(), strict=True):
        if found.root(left) == found.root(right):
            continue
        if next(sets.similar(int(compared[a]), [int(compared[b])])) >= threshold:
            found.join(left, right)
            edges.append((a, b))
    array = np.array(edges, np.int64).reshape(-1, 2)
    return {"a": array[:, 0], "b": array[:, 1]}
