"""One completion, judged: golden rows, and what must never depend on the model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.completion import first_line
from core.fim import Hole
from eval.metrics import frame, masked, score

HOLE = Hole("def add(a, b):\n    ", "\n\n\nprint(add(1, 2))\n", "return a + b")
AROUND = frame(HOLE, "python")
KEY = "gh" + "p_" + "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"

GOLDEN = [
    # completion, exact, stripped, first line, parses, overrun, repeats the suffix
    ("return a + b", True, True, True, True, False, False),
    ("return a + b\n", False, True, True, True, False, False),
    ("  return a + b", False, True, True, True, False, False),  # `    ` stands before it already: six blanks are an indent too
    ("return a+b", False, False, False, True, False, False),
    ("return a + b\n    pass", False, False, True, True, True, False),
    ("return a + b + 0", False, False, False, True, True, False),
    ("return (a +", False, False, False, False, False, False),
    ("", False, False, False, False, False, False),
    ("return a + b\n\n\nprint(add(1, 2))", False, False, True, True, True, True),
    ("pass\nprint(add(1,2))", False, False, False, True, True, True),
    ("print(add", False, False, False, False, False, False),
]


@pytest.mark.parametrize(("text", "exact", "stripped", "first", "parses", "overrun", "repeat"), GOLDEN)
def test_golden(text, exact, stripped, first, parses, overrun, repeat):
    found = score(HOLE, text, "python", AROUND)
    assert (found.exact, found.exact_stripped, found.first_line) == (exact, stripped, first)
    assert (found.parses, found.overrun, found.suffix_repeat) == (parses, overrun, repeat)
    assert found.leaks == []


@pytest.mark.parametrize(
    ("text", "truth", "similarity"),
    [("abc", "abc", 100), ("", "", 100), ("", "abc", 0), ("abcd", "ab", 200 * 2 / 6), ("xyz", "abc", 0), ("kitten", "sitting", 800 / 13)],
)
def test_similarity_is_twice_the_common_subsequence_by_both_lengths(text, truth, similarity):
    assert score(Hole("", "", truth), text, "text", None).similarity == pytest.approx(similarity, abs=1e-4)


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_the_truth_is_right_in_every_way(prefix, middle, suffix, other):
    hole = Hole(prefix, suffix, middle)
    around = frame(hole, "python")
    right = score(hole, middle, "python", around)
    assert right.exact and right.exact_stripped and right.first_line and right.similarity == 100
    assert right.parses in (None, True) and not right.overrun and not right.suffix_repeat
    tried = score(hole, other, "python", around)
    assert tried.exact == (other == middle) and 0 <= tried.similarity <= 100
    assert (tried.parses is None) == (around is None)
    assert tried.exact_stripped or not tried.exact


@pytest.mark.parametrize("suffix", ["", "\n", ")\n", "}\n}\n"])
def test_a_suffix_too_short_to_tell_is_never_repeated(suffix):
    assert not score(Hole("f(", suffix, "x"), "x" + suffix, "python", None).suffix_repeat


def test_a_suffix_that_the_truth_holds_once_may_stand_there_once():
    hole = Hole("", "    total += 1\n", "    total += 1\n    seen += 1\n")
    assert not score(hole, "    total += 1\n", "python", None).suffix_repeat
    assert score(hole, "    total += 1\n    total += 1\n", "python", None).suffix_repeat


def test_syntax_is_judged_only_where_the_truth_parses():
    broken = Hole("def (:\n    x", "\n)]}\n", " = 1")
    assert frame(broken, "python") is None
    assert score(broken, " = 2", "python", None).parses is None
    assert frame(HOLE, "rust") is None


FRAMES = [
    ("inside a method, cut off above and below", "        a = 1\n        b = ", "\n        return a\n\n    def next(", "a + 1"),
    ("first line of a deeper block", "            pass\n    def add(a):\n        return ", "\n", "a"),
    ("last line torn", "x = ", "\ny = f(1,\n", "1"),
    ("more than the suffix shows follows", "for i in x:\n    ", "\n    z = (\n", "print(i)"),
]


@pytest.mark.parametrize(("why", "prefix", "suffix", "middle"), FRAMES, ids=[row[0] for row in FRAMES])
def test_a_torn_window_is_trimmed_until_the_truth_parses(why, prefix, suffix, middle):
    hole = Hole(prefix, suffix, middle)
    found = frame(hole, "python")
    assert found is not None
    assert found.head.endswith(prefix.split("\n")[-1]) and found.tail.startswith(suffix.split("\n")[0])
    assert score(hole, middle, "python", found).parses is True
    assert score(hole, "((", "python", found).parses is False


def test_secrets_in_completions_are_counted_and_masked():
    text = f'token = "{KEY}"\nmail = "jane.roe@corp-mail.io"\n'
    found = score(HOLE, text, "python", AROUND)
    assert len(found.leaks) == 2 and "email" in found.leaks
    shown = masked(text)
    assert KEY not in shown and "jane.roe" not in shown
    assert all(f"<{kind}>" in shown for kind in found.leaks)
    assert masked("x = 1\n") == "x = 1\n"


def test_the_first_line_is_the_first_that_is_not_blank():
    assert first_line("\n\n  x = 1 \ny") == "x = 1" and first_line(" \n") == first_line("") == ""
