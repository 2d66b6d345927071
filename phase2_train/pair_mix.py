"""Which of the wrong completions become pairs: what is too easy, too alike or too long is left out, and no kind drowns the others.

In:  candidates per prompt, the largest share that each kind may have
Out: the pairs to write; every candidate left out is counted with its reason
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from phase2_train.negatives import MANNERS, similarity
from phase2_train.params import PairsParams

SHORTEST = 16  # characters: a shorter text counts as this long in the length ratio; a bracket beside a word is no signal of length


class Candidate(NamedTuple):
    """One wrong completion of prompt number `prompt`."""

    prompt: int
    rejected: str
    kind: str
    how: str  # sampled | continued
    evidence: dict[str, Any]
    similarity: float  # to the truth


def drop_reason(truth: str, rejected: str, kind: str, params: PairsParams) -> str | None:
    """Why a wrong completion makes no good pair; None where it does.

    The band keeps what is neither trivial nor equally right (Zeta2's rule). Mistakes about where to end are outside it:
    one text begins the other, so that their likeness says only how long they are, which the length ratio bounds.
    """
    alike = similarity(truth, rejected)
    if not (kind in MANNERS and (rejected.startswith(truth.rstrip()) or truth.startswith(rejected))):
        if alike < params.min_similarity:
            return "too_easy"
        if alike > params.max_similarity:
            return "too_alike"
    shorter, longer = sorted((len(truth.strip()), len(rejected.strip())))
    return "length_ratio" if longer > params.max_length_ratio * max(SHORTEST, shorter) else None


def choose(candidates: Iterable[Candidate], shares: Mapping[Any, float], per_prompt: int, dropped: Counter[str]) -> list[Candidate]:
    """At most `per_prompt` pairs of a prompt, of the kinds that so far are furthest below their share.

    Within a kind: what goes on from the truth before what was sampled (it errs at one known place), then the closest to the truth.
    """
    prompts: defaultdict[int, dict[str, Candidate]] = defaultdict(dict)
    for one in sorted(candidates, key=lambda one: (one.prompt, one.how != "continued", -one.similarity, one.rejected)):
        if shares.get(one.kind, 0.0) <= 0:
            dropped[f"{one.kind}_off"] += 1
        elif one.kind in prompts[one.prompt]:
            dropped["second_of_its_kind"] += 1
        else:
            prompts[one.prompt][one.kind] = one
    taken, counts = list[Candidate](), Counter[str]()
    for kinds in prompts.values():
        for kind in sorted(kinds, key=lambda kind: (counts[kind] / shares[kind], kind))[:per_prompt]:
            counts[kind] += 1
            taken.append(kinds[kind])
        dropped["enough_of_its_prompt"] += max(0, len(kinds) - per_prompt)
    return capped(taken, shares, dropped)


def caps(counts: Mapping[str, int], shares: Mapping[Any, float]) -> dict[str, int]:
    """How many of each kind may stay so that none is above its share of what stays.

    The shares of the kinds that are there are scaled up to 1 where they come to less: of a single kind all stay.
    """
    total, scale = sum(counts.values()), min(1.0, sum(shares[kind] for kind in counts))
    while True:
        allowed = {kind: min(count, math.ceil(shares[kind] / scale * total)) for kind, count in counts.items()}
        if sum(allowed.values()) == total:
            return allowed
        total = sum(allowed.values())


def capped(taken: Sequence[Candidate], shares: Mapping[Any, float], dropped: Counter[str]) -> list[Candidate]:
    """The candidates without those that a kind has too many of, the last first."""
    left = caps(Counter(one.kind for one in taken), shares)
    kept = list[Candidate]()
    for one in taken:
        if left[one.kind] > 0:
            left[one.kind] -= 1
            kept.append(one)
        else:
            dropped["over_share"] += 1
    return kept
