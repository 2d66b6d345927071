"""Promises of the split: no near-duplicate crosses, named repositories are held out whole, order means nothing."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import InputError
from phase1_data.decontaminate import RUN, benchmark_texts, heldout_index, index_of, merge, opened, shared
from phase1_data.dedup import Components, band_keys, signatures
from phase1_data.params import SamplesParams
from phase1_data.shingles import jaccard, shingle_set
from phase1_data.split import BAND_ROWS, NEAR, PERMUTATIONS, Pair, assign, crossing, most_alike

from .conftest import SAMPLES, code


def params(**changed: object) -> SamplesParams:
    return SamplesParams.model_validate(SAMPLES | changed)


@settings(deadline=None, max_examples=60)
@given(
    files=st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from("abcd")), min_size=12, max_size=40, unique_by=lambda f: f[0]),
    joins=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=8),
    shuffle=st.randoms(use_true_random=False),
)
def test_components_stay_together_and_order_means_nothing(files, joins, shuffle):
    def split(order: list[int]) -> dict[int, str]:
        place = {original: new for new, original in enumerate(order)}
        near = Components(len(files))
        for a, b in joins:
            near.join(place[a], place[b])
        named = [(f"{files[i][0]:05}", files[i][1]) for i in order]
        return {files[original][0]: got for original, got in zip(order, assign(named, near, params(heldout_repos=["a"])), strict=True)}

    files = [*files, *((20_000 + number, "b") for number in range(6))]  # enough that somebody trains
    files = [*files, (30_000, "a")]
    order = list(range(len(files)))
    first = split(order)
    shuffle.shuffle(order)
    assert split(order) == first
    for a, b in joins:
        sides = {first[files[a][0]], first[files[b][0]]} - {""}
        assert len(sides) <= 1
    assert all((first[name] == "test_repo") == (repo == "a") for name, repo in files)


def test_shares_are_kept_and_never_nothing():
    files = [(f"{number:04}", "r") for number in range(200)]
    got = assign(files, Components(200), params(heldout_file_share=0.1, valid_share=0.02))
    assert (got.count("test_file"), got.count("valid"), got.count("train")) == (20, 4, 176)
    got = assign(files[:10], Components(10), params(heldout_file_share=0.01, valid_share=0.01))
    assert (got.count("test_file"), got.count("valid")) == (1, 1)


def test_the_seed_moves_files():
    files = [(f"{number:04}", "r") for number in range(50)]
    assert assign(files, Components(50), params(seed=1)) != assign(files, Components(50), params(seed=2))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"heldout_repos": ["absent"]}, "absent"),
        ({"heldout_repos": ["r"]}, "left to train on"),
        ({"heldout_file_share": 1.0}, "left to train on"),
    ],
)
def test_a_split_that_cannot_be_is_said(changed, says):
    with pytest.raises(InputError, match=says):
        assign([("1", "r"), ("2", "r")], Components(2), params(**changed))


def test_the_most_alike_across_sides_are_found():
    texts = [code(seed) for seed in range(30)]
    texts[7] = texts[3].replace("return", "yield", 1)  # a near-duplicate
    texts[9] = texts[4][: len(texts[4]) * 3 // 4] + texts[9][: len(texts[9]) // 4]  # alike, not near
    sets = [shingle_set(text) for text in texts]
    found = signatures(sets, PERMUTATIONS)
    keys = band_keys(found, BAND_ROWS)
    sizes = np.array([shingles.size for shingles in sets])
    sides = np.zeros(30, np.int8)
    sides[[9, 20]] = 1, 2
    pairs = [Pair(jaccard(sets[a], sets[b]), a, b) for a, b in most_alike(lambda band: keys[band], sizes, found, sides)]
    best = max(pair for pair in pairs if {sides[pair.a], sides[pair.b]} == {0, 1})
    assert {best.a, best.b} == {4, 9} and 0.2 < best.similarity < NEAR
    assert not any({pair.a, pair.b} == {3, 7} for pair in pairs)  # on one side
    sides[7] = -1
    assert not any(7 in pair[1:] for pair in most_alike_pairs(keys, sizes, found, sides))
    largest = crossing([Pair(0.6, 0, 1), Pair(0.5, 1, 2), Pair(0.4, 0, 3)], ["train", "valid", "train", ""])
    assert largest == {"train|valid": Pair(0.6, 0, 1)}


def most_alike_pairs(keys, sizes, found, sides) -> list[Pair]:
    return [Pair(0, a, b) for a, b in most_alike(lambda band: keys[band], sizes, found, sides)]


def test_a_benchmark_row_is_found_in_a_file_that_holds_it(tmp_path):
    row = {
        "prompt": "def below_zero(operations):\n    balance = 0\n",
        "nested": [{"solution": "for op in operations: balance += op; return balance < 0 or True"}],
    }
    plain, packed, columns = tmp_path / "b.jsonl", tmp_path / "b.jsonl.gz", tmp_path / "b.parquet"
    plain.write_text(json.dumps(row) + "\n")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    pq.write_table(pa.Table.from_pylist([row]), columns)
    for file in (plain, packed, columns):
        index = index_of(benchmark_texts(file), 10)
        assert shared(code(1) + "\n# FOR OP in operations: balance += op\n# return balance < 0 or True\n", index, 10)
        assert not shared(code(1), index, 10)


def test_a_damaged_parquet_benchmark_is_named(tmp_path):
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and nothing")
    with pytest.raises(InputError, match=r"b\.parquet is no Parquet file"):
        list(benchmark_texts(tmp_path / "b.parquet"))


@settings(deadline=None, max_examples=25)
@given(parts=st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=30), max_size=5))
def test_indexes_are_merged_as_if_made_at_once(tmp_path_factory, parts):
    folder = tmp_path_factory.mktemp("merge")
    for number, part in enumerate(parts):
        np.save(folder / f"{number}.npy", np.unique(np.array(part, np.uint64)))
    merge([folder / f"{number}.npy" for number in range(len(parts))], folder / "all.u64")
    assert opened(folder / "all.u64").tolist() == sorted({value for part in parts for value in part})


@pytest.mark.parametrize(("name", "data"), [("b.jsonl", b'{"a": 1}\n{oops\n'), ("b.jsonl.gz", b"no gzip"), ("b.jsonl", b"\xff\xfe\n")])
def test_a_damaged_benchmark_is_named(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=rf"{name}:\d"):
        list(benchmark_texts(tmp_path / name))


def test_a_missing_benchmark_is_named(tmp_path):
    with pytest.raises(InputError, match=r"samples\.decontaminate"):
        list(benchmark_texts(tmp_path / "none.jsonl"))


def test_a_long_run_of_held_out_words_is_seen_and_a_short_one_is_not():
    held = code(5)
    index = heldout_index([held])
    words = held.split()
    assert shared(code(6) + held, index, RUN)
    assert not shared(code(6) + " ".join(words[:12]), index, RUN)
    assert not shared(held, heldout_index([]), RUN)
