"""Which wrong completions become pairs."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase2_train.pair_mix import Candidate, caps, choose, drop_reason
from phase2_train.params import PairsParams

from .conftest import PAIRS


@pytest.mark.parametrize(
    ("truth", "rejected", "kind", "reason"),
    [
        ("abcdef", "abcdxx", "wrong", None),
        ("abcdef", "zzzzzz", "wrong", "too_easy"),
        ("a" * 40, "a" * 39 + "b", "near_miss", "too_alike"),
        ("a" * 40, "a" * 40 + "b", "overrun", None),  # outside the band: one begins the other
        ("a" * 40, "a" * 39, "underrun", None),
        ("abcdefgh" * 5, "abcdefgh" * 12, "overrun", "length_ratio"),
        ("abcdefgh" * 12, "abcdefgh" * 5, "underrun", "length_ratio"),
        (")", "), x", "overrun", None),  # both short
        (")", ") + another_name", "overrun", None),
        (")", ") + another_name * 2 + yet_another", "overrun", "length_ratio"),
        ("abcdef", "zz\nyy", "overrun", "too_easy"),  # a runaway, but not behind the truth
    ],
)
def test_drop_reasons(truth, rejected, kind, reason):
    params = PairsParams(**{**PAIRS.model_dump(), "min_similarity": 0.2, "max_similarity": 0.95, "max_length_ratio": 2.0})
    assert drop_reason(truth, rejected, kind, params) == reason


def candidate(prompt: int, kind: str, how: str = "sampled", alike: float = 0.5, text: str = "x") -> Candidate:
    return Candidate(prompt, text, kind, how, {}, alike)


def test_the_most_instructive_of_a_kind_is_taken():
    dropped: Counter[str] = Counter()
    given_ = [
        candidate(0, "near_miss", alike=0.5, text="far"),
        candidate(0, "near_miss", alike=0.8, text="close"),
        candidate(0, "overrun", alike=0.9, text="sampled"),
        candidate(0, "overrun", "continued", 0.3, "continued"),
        candidate(0, "wrong"),
        candidate(0, "test_fail"),
    ]
    taken = choose(given_, {"near_miss": 0.5, "overrun": 0.5, "wrong": 0.1, "test_fail": 0.0}, 2, dropped)
    assert [one.rejected for one in taken] == ["close", "continued"]
    assert dropped == {"second_of_its_kind": 2, "enough_of_its_prompt": 1, "test_fail_off": 1}


def test_no_kind_drowns_the_others():
    given_ = [candidate(n, "overrun") for n in range(100)] + [candidate(n, "syntax") for n in range(100, 130)]
    dropped: Counter[str] = Counter()
    kinds = Counter(one.kind for one in choose(given_, {"overrun": 0.6, "syntax": 0.6}, 1, dropped))
    assert kinds == {"syntax": 30, "overrun": 47} and dropped["over_share"] == 53  # 0.6 of 77, rounded up


def test_a_single_kind_is_kept_whole():
    assert caps({"overrun": 7}, {"overrun": 0.3}) == {"overrun": 7}


@given(st.dictionaries(st.sampled_from("abcde"), st.integers(1, 500), min_size=1), st.lists(st.floats(0.05, 1.0), min_size=5, max_size=5))
def test_caps_hold_for_any_counts(counts, weights):
    shares = dict(zip("abcde", weights, strict=True))
    allowed = caps(counts, shares)
    total, scale = sum(allowed.values()), min(1.0, sum(shares[kind] for kind in counts))
    assert total > 0
    for kind, count in allowed.items():
        assert 0 <= count <= counts[kind]
        assert count <= shares[kind] / scale * total + 1
