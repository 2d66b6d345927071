"""pass@k: the chance that at least one of k samples of a problem passes.

In:  per problem, how many samples there were and how many passed
Out: the mean over problems, with its 95% interval
"""

from __future__ import annotations

from collections.abc import Sequence

from core.statistics import Interval, ratio, wilson

KS = (1, 10, 100)  # those the field publishes; k needs k samples of every problem
RESAMPLES, SEED = 10_000, 0


def estimate(samples: int, passed: int, k: int) -> float:
    """Unbiased estimate from n >= k samples: 1 - C(n - c, k) / C(n, k), as a product (Chen et al. 2021, arXiv 2107.03374, section 2.1).

    Raises:
        ValueError: fewer than k samples, or more passed than there were.
    """
    if not 0 <= passed <= samples or not 1 <= k <= samples:
        raise ValueError(f"{passed} of {samples} samples, k = {k}")
    none = 1.0
    for size in range(samples - passed + 1, samples + 1):
        none *= max(0.0, 1.0 - k / size)
    return 1.0 - none


def pass_at(k: int, counts: Sequence[tuple[int, int]]) -> Interval:
    """Mean over problems of (samples, passed).

    The interval is Wilson's where every problem has one sample, else a bootstrap over problems: the samples of one are alike.
    """
    if k == 1 and all(samples == 1 for samples, _ in counts):
        return wilson(sum(passed for _, passed in counts), len(counts))
    values = [estimate(samples, passed, k) for samples, passed in counts]
    return ratio(values, [1.0] * len(values), [str(at) for at in range(len(values))], RESAMPLES, SEED)


def every(counts: Sequence[tuple[int, int]]) -> dict[str, Interval]:
    """`pass@k` for each k of KS that every problem has samples for."""
    fewest = min((samples for samples, _ in counts), default=0)
    return {f"pass@{k}": pass_at(k, counts) for k in KS if k <= fewest}
