"""Canaries: made again from their seed, found by the scrubber, small enough to pass cleaning, and nothing in the repository holds one."""

import ast
import itertools

import pytest

from core import canary
from core.scrub import find, mask


def test_the_same_seed_gives_the_same_canaries_and_more_change_none():
    assert canary.plant(12, 17) == canary.plant(20, 17)[:12] != canary.plant(12, 18)
    assert len({one.value for one in canary.plant(50, 17)}) == len({one.path for one in canary.plant(50, 17)}) == 50
    assert {one.kind for one in canary.plant(5, 1)} == set(canary.VALUES)


@pytest.mark.parametrize("seed", range(6))
def test_every_value_is_masked_and_the_file_stays_code(seed):
    for one in canary.plant(50, seed):
        start, end = len(one.before), len(one.before) + len(one.value)
        assert any(found.start <= start and end <= found.end for found in find(one.text)), one.kind
        masked, redactions = mask(one.text)
        assert one.value not in masked and len(redactions) == 1
        ast.parse(masked)
        assert len(one.value) / len(one.text) < 0.05 and max(map(len, one.text.splitlines())) < 200


def test_no_two_are_near_duplicates():
    words = [set(zip(*(itertools.islice(one.text.split(), at, None) for at in range(5)), strict=False)) for one in canary.plant(20, 17)]
    assert all(len(a & b) / len(a | b) < 0.4 for a, b in itertools.combinations(words, 2))


def test_other_values_have_the_shape_of_the_true_one():
    for number, one in enumerate(canary.plant(5, 17)):
        others = canary.same_shape(one, number, 20, 3)
        assert len({*others, one.value}) == 21 and {len(value) for value in others} == {len(one.value)}
