"""The rule by which a step is called better or worse: what a user sees decides, and the chance of a false word is kept."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.statistics import Difference, difference_of_rates, difference_of_ratios, holm, p_of_ratio
from eval.diff import diff, in_text
from eval.verdict import DECISIVE, tells, verdict_of


def found(exact, likeness, overrun, loss):
    """Differences and p-values with the signs given, 0 for one that does not show."""

    def one(sign, rate):
        return Difference(sign * 2.0, *sorted((sign * 1.0, sign * 3.0)), 50, (0.01 if sign else 0.5) if rate else None, None, None, 1.0)

    signs = dict(zip(DECISIVE, (exact, likeness, overrun), strict=True))
    differences = {name: one(sign, name != "edit_similarity") for name, sign in signs.items()} | {"loss": one(loss, False)}
    differences["ended_rate"] = one(-1, True)  # is told, but decides nothing
    return differences, {name: 0.01 if sign else 0.5 for name, sign in signs.items()}


@pytest.mark.parametrize(
    ("exact", "likeness", "overrun", "loss", "word"),
    [
        (1, 0, 0, 0, "better"), (-1, 0, 0, 0, "worse"), (0, 1, 0, 0, "better"), (0, 0, -1, 0, "better"), (0, 0, 1, 0, "worse"),
        (1, 1, -1, 1, "better"),  # the loss rose, and everything seen got better
        (-1, 0, 0, -1, "worse"), (1, 0, 1, 0, "mixed"), (-1, 1, 0, 0, "mixed"),
        (0, 0, 0, 1, "worse by loss only"), (0, 0, 0, -1, "better by loss only"), (0, 0, 0, 0, "no visible difference"),
    ],
)  # fmt: skip
def test_verdict_words(exact, likeness, overrun, loss, word):
    assert verdict_of(*found(exact, likeness, overrun, loss)) == word


@pytest.mark.parametrize(
    ("name", "value", "low", "high", "p", "sign"),
    [
        ("loss", -0.0004, -0.0006, -0.0002, None, 0),  # rounds to nothing
        ("loss", -0.0012, -0.0020, -0.0004, None, 0),  # begins at what rounds to nothing
        ("loss", -0.0012, -0.0018, -0.0006, None, 1),
        ("edit_similarity", 0.3, 0.01, 0.5, None, 0),  # +0.3 [+0.0, +0.5]
        ("edit_similarity", -0.3, -0.5, -0.1, None, -1),
        ("exact_match", 0.0004, -0.001, 0.002, 0.01, 0),  # of 20,000 holes
        ("exact_match", 0.02, -0.001, 0.04, 0.01, 1),  # the test decides, not the interval
        ("exact_match", 0.02, 0.001, 0.04, 0.06, 0),
        ("overrun_rate", 0.02, 0.001, 0.04, 0.01, -1),
    ],
)
def test_what_a_table_shows_as_nothing_is_no_difference(name, value, low, high, p, sign):
    assert tells(name, Difference(value, low, high, 1000, p, None, None, 1.0)) == sign


def test_an_adjusted_p_overrules_the_difference_itself():
    one = Difference(0.02, 0.001, 0.04, 1000, 0.02, None, None, 1.0)
    assert tells("exact_match", one) == 1 and tells("exact_match", one, 0.06) == 0


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1), min_size=1))
def test_holm_lies_between_each_p_and_bonferroni_and_keeps_the_order(p_values):
    adjusted = holm(p_values)
    assert all(p_values[name] <= adjusted[name] <= min(1, len(p_values) * p_values[name]) + 1e-12 or adjusted[name] >= p_values[name]
               for name in p_values)  # fmt: skip
    ranked = sorted(p_values, key=lambda name: (p_values[name], name))
    assert [adjusted[name] for name in ranked] == sorted(adjusted.values())
    assert adjusted[ranked[0]] == pytest.approx(min(1, len(p_values) * p_values[ranked[0]]))


def test_holm_in_numbers():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})


def test_steps_without_effect_are_given_a_word_at_most_one_time_in_twenty():
    """400 pairs of models that differ by luck alone: the family of three metrics errs in 5% of them, give or take."""
    rng, words, trials = np.random.default_rng(5), 0, 400
    files = [str(at % 60) for at in range(300)]
    for _ in range(trials):
        one, other = rng.random((2, 300)), rng.random((2, 300))
        exact, overrun = (difference_of_rates((one[at] < 0.1).tolist(), (other[at] < 0.1).tolist()) for at in (0, 1))
        likeness = [100 * (one[0] + one[1]), 100 * (other[0] + other[1])]
        similar = difference_of_ratios(*map(list, likeness), [1.0] * 300, files, 400, 1)
        p = p_of_ratio(list(likeness[0] - likeness[1]), [1.0] * 300, files, 400, 1)
        differences = {"exact_match": exact, "edit_similarity": similar, "overrun_rate": overrun, "loss": similar}
        adjusted = holm({"exact_match": exact.p, "overrun_rate": overrun.p, "edit_similarity": p})
        words += verdict_of(differences, adjusted) in ("better", "worse", "mixed")
    assert words / trials <= 0.05 + 2.6 * (0.05 * 0.95 / trials) ** 0.5


def test_the_p_of_a_mean_agrees_with_its_interval():
    rng = np.random.default_rng(1)
    for shift in (0.0, 0.1, 0.2, 0.4):
        gap = list(rng.normal(shift, 1, 200))
        files = [str(at % 40) for at in range(200)]
        found = difference_of_ratios(gap, [0.0] * 200, [1.0] * 200, files, 2000, 3)
        assert (p_of_ratio(gap, [1.0] * 200, files, 2000, 3) < 0.05) == found.visible
    assert p_of_ratio([], [], [], 100, 1) == 1.0 and p_of_ratio([0.0] * 20, [1.0] * 20, list("ab" * 10), 100, 1) == 1.0


# ---- differences between a truth and a completion


@given(st.text("ab(_ \n=1", max_size=40), st.text("ab(_ \n=1", max_size=40))
def test_a_diff_holds_both_texts_whole(truth, completion):
    pieces = diff(truth, completion)
    assert "".join(piece.text for piece in pieces if piece.kind != "added") == truth
    assert "".join(piece.text for piece in pieces if piece.kind != "missing") == completion
    assert all(piece.text for piece in pieces)


@pytest.mark.parametrize(
    ("truth", "completion", "shown"),
    [
        ("same", "same", "same"),
        ("package_name]", "pakage_name]", "pa[-c-]kage_name]"),  # one word, misspelt: by characters
        ("return x", "return total", "return [-x-]{+total+}"),  # another word: as a whole
        ("", "new", "{+new+}"), ("gone", "", "[-gone-]"),
        ("a = 1\n", "a = 1", "a = 1[-\n-]"),
    ],
)  # fmt: skip
def test_words_then_characters(truth, completion, shown):
    assert in_text(diff(truth, completion)) == shown
