"""Intervals and tests against scipy and numbers worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from core.statistics import (
    ALPHA,
    difference_of_rates,
    difference_of_ratios,
    mcnemar_exact,
    ratio,
    smallest_visible_rate,
    wilson,
)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(0, 10, 0.0, 0.277533), (10, 10, 0.722467, 1.0), (5, 10, 0.236593, 0.763407), (81, 263, 0.2553, 0.3662), (1, 1, 0.206549, 1.0)],
)
def test_wilson_golden(hits, n, low, high):
    """81 of 263 is the example of Newcombe 1998."""
    found = wilson(hits, n)
    assert (found.value, found.n) == (hits / n, n)
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(st.integers(0, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(pair):
    hits, n = pair
    found = wilson(hits, n)
    if n == 0:
        assert math.isnan(found.value) and (found.low, found.high) == (0, 1)
        return
    theirs = binomtest(hits, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == (pytest.approx(theirs.low, abs=1e-9), pytest.approx(theirs.high, abs=1e-9))


@pytest.mark.parametrize(("hits", "n"), [(-1, 5), (6, 5), (1, 0)])
def test_wilson_refuses_what_is_no_rate(hits, n):
    with pytest.raises(ValueError):
        wilson(hits, n)


@pytest.mark.parametrize(
    ("gained", "lost", "p"), [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (6, 0, 0.03125), (3, 3, 1.0), (10, 2, 158 / 4096)]
)
def test_mcnemar_golden(gained, lost, p):
    assert mcnemar_exact(gained, lost) == mcnemar_exact(lost, gained) == pytest.approx(p)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_scipys_binomial_test(gained, lost):
    theirs = binomtest(gained, gained + lost, 0.5).pvalue if gained + lost else 1.0
    assert mcnemar_exact(gained, lost) == pytest.approx(theirs)


def test_mcnemar_holds_where_floats_would_not():
    assert 0 < mcnemar_exact(1400, 1100) < 1e-6


@given(st.integers(0, 60), st.integers(60, 200))
def test_the_smallest_visible_rate_is_where_the_test_turns(discordant, n):
    found = smallest_visible_rate(discordant, n)
    if discordant < 6:
        assert found == 6 / n
        return
    gap = round(found * n)
    lost = (discordant - gap) // 2
    assert mcnemar_exact(discordant - lost, lost) < ALPHA
    assert gap <= 1 or mcnemar_exact(discordant - lost - 1, lost + 1) >= ALPHA


def test_difference_of_rates_golden():
    """Bonett and Price 2012 by hand: n 20, 8 gained, 1 lost: p' = 9/22 and 2/22."""
    child = [True] * 8 + [False] + [True] * 6 + [False] * 5
    parent = [False] * 8 + [True] + [True] * 6 + [False] * 5
    found = difference_of_rates(child, parent)
    half = 1.959964 * math.sqrt((11 / 22 - (7 / 22) ** 2) / 22)
    assert (found.value, found.gained, found.lost, found.n) == (0.35, 8, 1, 20)
    assert (found.low, found.high) == (pytest.approx(7 / 22 - half, abs=1e-6), pytest.approx(7 / 22 + half, abs=1e-6))
    assert found.p == pytest.approx(20 / 512) and found.visible
    assert found.smallest_visible == 7 / 20  # 9 discordant: 8 to 1 is the first split under 5%


def test_no_holes_and_equal_models_are_no_difference():
    empty, same = difference_of_rates([], []), difference_of_rates([True, False] * 9, [True, False] * 9)
    assert not empty.visible and empty.n == 0 and math.isnan(empty.value)
    assert not same.visible and same.value == 0 and same.p == 1


def test_different_holes_are_refused():
    with pytest.raises(ValueError):
        difference_of_rates([True], [True, False])
    with pytest.raises(ValueError):
        ratio([1.0], [1.0, 1.0], ["a", "b"], 100, 1)
    with pytest.raises(ValueError):
        ratio([1.0], [0.0], ["a"], 100, 1)


@pytest.fixture
def measured():
    """300 holes of 60 files; the holes of a file are alike."""
    rng = np.random.default_rng(1)
    of_file = rng.normal(50, 20, 60)
    files = [f"f{n % 60}" for n in range(300)]
    return [float(of_file[n % 60] + rng.normal(0, 2)) for n in range(300)], files


def test_the_bootstrap_is_seeded(measured):
    values, files = measured
    ones = [1.0] * len(values)
    first = ratio(values, ones, files, 500, 17)
    assert first == ratio(values, ones, files, 500, 17)
    assert first != ratio(values, ones, files, 500, 18)
    assert first.value == pytest.approx(sum(values) / len(values)) and first.low < first.value < first.high


def test_the_bootstrap_has_the_width_of_theory_and_draws_files(measured):
    values, files = measured
    ones = [1.0] * len(values)
    by_file, by_hole = (ratio(values, ones, groups, 4000, 17) for groups in (files, list(map(str, range(300)))))
    means = [np.mean([v for v, f in zip(values, files, strict=True) if f == g]) for g in dict.fromkeys(files)]
    assert by_file.high - by_file.low == pytest.approx(2 * 1.96 * np.std(means) / math.sqrt(60), rel=0.06)
    assert by_hole.high - by_hole.low == pytest.approx(2 * 1.96 * np.std(values) / math.sqrt(300), rel=0.06)
    assert by_file.high - by_file.low > 1.8 * (by_hole.high - by_hole.low)


def test_few_files_are_not_resampled_as_files():
    values = [float(n) for n in range(40)]
    assert ratio(values, [1.0] * 40, ["only"] * 40, 300, 1).low < np.mean(values) < ratio(values, [1.0] * 40, ["only"] * 40, 300, 1).high


@settings(max_examples=25)
@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 40)), min_size=1, max_size=40), st.floats(-5, 5))
def test_a_ratio_is_of_sums_and_a_constant_shift_is_certain(pairs, shift):
    over, under = [nats for nats, _ in pairs], [float(tokens) for _, tokens in pairs]
    files = [f"f{n % 13}" for n in range(len(pairs))]
    assert ratio(over, under, files, 100, 3).value == pytest.approx(sum(over) / sum(under))
    found = difference_of_ratios([a + shift * b for a, b in zip(over, under, strict=True)], over, under, files, 100, 3)
    assert (found.value, found.low, found.high) == (pytest.approx(shift, abs=1e-6),) * 3 and found.p is None


def test_a_difference_of_means_is_paired(measured):
    """Two models whose scores vary far more than their difference are told apart, one against itself is not."""
    values, files = measured
    ones = [1.0] * len(values)
    better = difference_of_ratios([v + 1 for v in values], values, ones, files, 500, 17)
    same = difference_of_ratios(values, values, ones, files, 500, 17)
    assert better.visible and better.value == pytest.approx(1)
    assert not same.visible and same.smallest_visible == 0


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_confidence_moves_intervals_tests_and_what_is_visible_together(confidence):
    alpha = 1 - confidence
    child, parent = [True] * 12 + [False] * 88, [False] * 9 + [True] * 3 + [True] * 2 + [False] * 86
    found = difference_of_rates(child, parent, alpha)
    assert (found.gained, found.lost) == (9, 2)
    assert found.p == pytest.approx(binomtest(9, 11).pvalue) and found.visible == (found.p < alpha)
    assert mcnemar_exact(round((11 + 100 * found.smallest_visible) / 2), round((11 - 100 * found.smallest_visible) / 2)) < alpha
    wide = difference_of_rates(child, parent, alpha / 2)
    assert wide.low < found.low <= found.value <= found.high < wide.high
    rng = np.random.default_rng(1)
    mine, other, files = rng.normal(1, 1, 200), rng.normal(0.9, 1, 200), [str(at % 40) for at in range(200)]
    means = [difference_of_ratios(list(mine), list(other), [1.0] * 200, files, 2000, 1, one) for one in (alpha, alpha / 2)]
    assert means[1].low < means[0].low < means[0].value < means[0].high < means[1].high


def test_without_a_discordant_hole_the_bound_is_what_all_on_one_side_would_need():
    assert [round(400 * smallest_visible_rate(0, 400, alpha)) for alpha in (0.05, 0.01, 0.2)] == [6, 8, 4]
