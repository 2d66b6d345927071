"""What makes a completion wrong, by hand-made cases; which pairs are kept."""

from collections import Counter

import pytest

from core.records import PAIR_KEYS
from phase2_train.generate import Written
from phase2_train.pairs import build, drop_reason, judge
from phase2_train.params import PairsParams

PARAMS = PairsParams(
    prompts=1,
    samples=2,
    temperature=0.8,
    top_p=0.95,
    max_new_tokens=8,
    batch=2,
    min_similarity=0.2,
    max_similarity=0.95,
    max_length_ratio=4.0,
    seed=1,
)
PREFIX, SUFFIX = "def total(prices):\n    ", "\n    return result\n"


@pytest.mark.parametrize(
    ("completion", "ended", "kind"),
    [
        ("result = sum(prices)", True, None),  # right
        ("  result = sum(prices)\n", True, None),  # right but for space
        ("", True, None),
        ("result = sum(prices)\n    print(result)", True, "overrun"),
        ("result = 0\n    for p in", False, "overrun"),  # never ended
        ("result = sum(prices, 0)\n    return result", True, "suffix_repeat"),
        ("result = sum(prices", True, "syntax"),
        ("result = max(prices)", True, "near_miss"),
        ("pass", True, None),  # wrong, in no way with a name
    ],
)
def test_judge(completion, ended, kind):
    verdict = judge("result = sum(prices)", completion, ended, PREFIX, SUFFIX, "python")
    assert (verdict.kind if verdict else None) == kind


@pytest.mark.parametrize(
    ("truth", "rejected", "reason"),
    [
        ("abcdef", "abcdxx", None),
        ("abcdef", "zzzzzz", "too_easy"),
        ("a" * 40, "a" * 39 + "b", "too_alike"),
        ("ab", "ab" * 9, "too_easy"),
        ("abcd", "abcd" * 5, "length_ratio"),
    ],
)
def test_drop_reason(truth, rejected, reason):
    assert drop_reason(truth, rejected, PARAMS) == reason


def test_one_pair_per_prompt_and_kind_and_everything_counted():
    row = {
        "sample_id": "s",
        "repo": "r",
        "path": "p.py",
        "lang": "python",
        "order": "spm",
        "prefix": PREFIX,
        "suffix": SUFFIX,
        "context": [],
        "middle": "result = sum(prices)",
    }
    texts = ["result = max(prices)", "result = min(prices)", "result = sum(prices)", "result = sum(prices"]
    written = (Written(0, [index], True) for index in range(4))
    counts: Counter[str] = Counter()
    pairs = build([row], written, lambda ids: texts[ids[0]], PARAMS, counts)
    assert [pair["kind"] for pair in pairs] == ["near_miss"]
    assert counts == {"near_miss": 1, "dropped_second_of_its_kind": 1, "dropped_right_or_unnamed": 1, "dropped_too_alike": 1}
    assert set(PAIR_KEYS) <= set(pairs[0])
    assert pairs[0]["chosen"] == "result = sum(prices)" and pairs[0]["rejected"] == "result = max(prices)"
