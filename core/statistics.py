"""How sure a figure is, and whether two models differ on the same holes.

In:  one number per hole (numpy arrays of equal length), seeds
Out: 95% intervals, p-values, and the smallest difference that this many holes can show

A gate may ask for another confidence than 95%; the evaluation does not.

Rates get Wilson's interval and McNemar's exact test; means and ratios get a bootstrap over groups (files), because the
holes of one file are alike and count for less than as many holes of different files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054  # 97.5% point of the normal distribution
ALPHA = 0.05
MIN_GROUPS = 10  # below this many files a bootstrap over files says nothing; holes are drawn instead
Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """A value with the ends of its 95% interval and the number of holes behind it."""

    value: float
    low: float
    high: float
    n: int


class Difference(NamedTuple):
    """Child minus parent on the same holes.

    `gained` and `lost` count holes that only one of them has right (rates only); `smallest_visible` is the smallest
    difference that would have been significant with holes that vary this much, in the unit of `value`.
    """

    value: float
    low: float
    high: float
    n: int
    p: float | None
    gained: int | None
    lost: int | None
    smallest_visible: float
    alpha: float = ALPHA  # 1 - confidence of the interval

    @property
    def visible(self) -> bool:
        """Whether the difference is told apart from none: by the test where there is one, else by the interval."""
        return self.p < self.alpha if self.p is not None else self.low > 0 or self.high < 0


def wilson(hits: int, n: int) -> Interval:
    """Wilson's score interval of a rate (Wilson 1927); (0, 1) wide for n = 0.

    Raises:
        ValueError: hits outside 0..n.
    """
    if not 0 <= hits <= n:
        raise ValueError(f"{hits} hits of {n}")
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, 0)
    rate, z2 = hits / n, Z95**2
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Interval(rate, 0.0 if hits == 0 else low, 1.0 if hits == n else high, n)


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided p-value that `gained` and `lost` are the two sides of a fair coin (McNemar 1947, exact binomial form)."""
    n, k = gained + lost, min(gained, lost)
    if n == 0:
        return 1.0
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)


def smallest_visible_rate(discordant: int, n: int, alpha: float = ALPHA) -> float:
    """The smallest |gained - lost| / n that McNemar's test calls significant when `discordant` of n holes differ.

    At 95%, fewer than 6 discordant holes cannot be significant however they fall; then 6 that all fall one way are the bound.
    """
    if n == 0:
        return math.nan
    for lost in range(discordant // 2, -1, -1):
        if mcnemar_exact(discordant - lost, lost) < alpha:
            return (discordant - 2 * lost) / n
    return next(one for one in range(1, 64) if mcnemar_exact(one, 0) < alpha) / n


def difference_of_rates(child: Sequence[bool], parent: Sequence[bool], alpha: float = ALPHA) -> Difference:
    """Paired difference of two rates, McNemar's exact test, and the interval of Bonett and Price (2012).

    Raises:
        ValueError: the sequences differ in length: they are not the same holes.
    """
    pairs = list(zip(child, parent, strict=True))
    n = len(pairs)
    gained, lost = sum(c and not p for c, p in pairs), sum(p and not c for c, p in pairs)
    if n == 0:
        return Difference(math.nan, -1.0, 1.0, 0, 1.0, 0, 0, math.nan, alpha)
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    z = Z95 if alpha == ALPHA else NormalDist().inv_cdf(1 - alpha / 2)
    half = z * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    low, high = max(-1.0, up - down - half), min(1.0, up - down + half)
    visible = smallest_visible_rate(gained + lost, n, alpha)
    return Difference((gained - lost) / n, low, high, n, mcnemar_exact(gained, lost), gained, lost, visible, alpha)


@lru_cache(maxsize=8)
def _weights(groups: int, resamples: int, seed: int) -> Floats:
    """(resamples, groups): how often each group is drawn; the same for the same arguments, so that comparisons share draws."""
    rng = np.random.default_rng([seed, groups])
    return rng.multinomial(groups, np.full(groups, 1 / groups), size=resamples).astype(np.float64)


def _by_group(values: Floats, groups: Sequence[str]) -> Floats:
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    return np.bincount(index, weights=values).astype(np.float64)


def ratio(
    over: Sequence[float], under: Sequence[float], groups: Sequence[str], resamples: int, seed: int, alpha: float = ALPHA
) -> Interval:
    """Sum of `over` by sum of `under` (nats by tokens; a score by 1 is a mean), percentile bootstrap over groups.

    Raises:
        ValueError: lengths differ, or `under` sums to nothing.
    """
    top, bottom = _columns(over, under, groups)
    if not len(top):
        return Interval(math.nan, math.nan, math.nan, 0)
    low, high = np.quantile(_drawn(top, bottom, groups, resamples, seed), [alpha / 2, 1 - alpha / 2])
    return Interval(float(top.sum() / bottom.sum()), float(low), float(high), len(top))


def p_of_ratio(over: Sequence[float], under: Sequence[float], groups: Sequence[str], resamples: int, seed: int) -> float:
    """Two-sided p-value that a ratio (or a paired difference of two) is 0, from the draws that `ratio` takes its interval from.

    Twice the share of draws on the rarer side of 0, at least one of them counted (Davison and Hinkley 1997); 1 for no values.
    """
    top, bottom = _columns(over, under, groups)
    if not len(top):
        return 1.0
    drawn = _drawn(top, bottom, groups, resamples, seed)
    rarer = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return min(1.0, 2 * (rarer + 1) / (resamples + 1))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values adjusted so that under `alpha` the chance of even one false alarm among them is at most alpha (Holm 1979)."""
    adjusted, largest = {}, 0.0
    for at, name in enumerate(sorted(p_values, key=lambda name: (p_values[name], name))):
        largest = max(largest, min(1.0, (len(p_values) - at) * p_values[name]))
        adjusted[name] = largest
    return adjusted


def _drawn(top: Floats, bottom: Floats, groups: Sequence[str], resamples: int, seed: int) -> Floats:
    """The ratio in every resample of the groups."""
    if len(set(groups)) < MIN_GROUPS:
        groups = [str(index) for index in range(len(top))]
    weights = _weights(len(set(groups)), resamples, seed)
    found: Floats = (weights @ _by_group(top, groups)) / (weights @ _by_group(bottom, groups))
    return found


def difference_of_ratios(
    child: Sequence[float],
    parent: Sequence[float],
    under: Sequence[float],
    groups: Sequence[str],
    resamples: int,
    seed: int,
    alpha: float = ALPHA,
) -> Difference:
    """Paired difference of two ratios over the same `under` (tokens, bytes, or ones), bootstrapped over groups."""
    gap = np.asarray(child, np.float64) - np.asarray(parent, np.float64)
    found = ratio(list(gap), under, groups, resamples, seed, alpha)
    return Difference(*found, None, None, None, (found.high - found.low) / 2, alpha)


def _columns(over: Sequence[float], under: Sequence[float], groups: Sequence[str]) -> tuple[Floats, Floats]:
    top, bottom = np.asarray(over, np.float64), np.asarray(under, np.float64)
    if not len(top) == len(bottom) == len(groups):
        raise ValueError(f"{len(top)} values, {len(bottom)} weights, {len(groups)} groups")
    if len(top) and (bottom <= 0).any():
        raise ValueError("every weight must be above 0")
    return top, bottom
