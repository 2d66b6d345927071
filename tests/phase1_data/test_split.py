"""Promises of the split: no near-duplicate crosses, named repositories are held out whole, order means nothing."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import InputError
from phase1_data.decontaminate import RUN, benchmark_texts, heldout_index, index_of, shared
from phase1_data.dedup import Components, signature
from phase1_data.params import SamplesParams
from phase1_data.shingles import shingle_set
from phase1_data.split import NEAR, PERMUTATIONS, Pair, assign, crossing, near_components, similar_pairs

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


def test_near_duplicates_are_found_and_the_largest_crossing_reported():
    texts = [code(seed) for seed in range(30)]
    texts[7] = texts[3].replace("return", "yield", 1)  # a near-duplicate
    texts[9] = texts[4][: len(texts[4]) // 2] + texts[9][: len(texts[9]) // 2]  # half of another: alike, not near
    signatures = np.stack([signature(shingle_set(text), PERMUTATIONS) for text in texts])
    pairs = similar_pairs(signatures, lambda wanted: {index: shingle_set(texts[index]) for index in wanted})
    near = near_components(len(texts), pairs)
    assert near.root(3) == near.root(7) and near.root(4) != near.root(9)
    assert pairs[0].similarity >= NEAR and {pairs[0].a, pairs[0].b} == {3, 7}
    largest = crossing([Pair(0.6, 0, 1), Pair(0.5, 1, 2), Pair(0.4, 0, 3)], ["train", "valid", "train", ""])
    assert largest == {"train|valid": Pair(0.6, 0, 1)}


def test_a_benchmark_row_is_found_in_a_file_that_holds_it(tmp_path):
    row = {
        "prompt": "def below_zero(operations):\n    balance = 0\n",
        "nested": [{"solution": "for op in operations: balance += op; return balance < 0 or True"}],
    }
    plain, packed = tmp_path / "b.jsonl", tmp_path / "b.jsonl.gz"
    plain.write_text(json.dumps(row) + "\n")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    for file in (plain, packed):
        index = index_of(benchmark_texts(file), 10)
        assert shared(code(1) + "\n# FOR OP in operations: balance += op\n# return balance < 0 or True\n", index, 10)
        assert not shared(code(1), index, 10)


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
