"""What makes a completion wrong, and by which name, judged in the file it would stand in."""

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase2_train.negatives import Place, judge

BEFORE = '''"""Prices."""

import math
from decimal import Decimal

RATE = Decimal("0.19")


class Basket:
    """What is bought."""

    def total(self, prices, share=None):
        """Sum it up."""
        amount = len(prices)
        '''
AFTER = """
        rounded = math.floor(result)
        return rounded + amount


def later(basket):
    return basket.total([1, 2])
"""
TRUTH = "result = sum(prices)"
FILE = BEFORE + TRUTH + AFTER
WINDOW = 60  # characters at either side that the model saw: from inside a block, so that the window itself parses never


def place(truth: str = TRUTH, text: str = FILE, lang: str = "python") -> Place:
    return Place(BEFORE[-WINDOW:], truth, AFTER[:WINDOW], text, lang)


def verdict(completion: str, ended: bool = True):
    return judge(place(), completion, ended, BEFORE[-WINDOW:], AFTER[:WINDOW])


@pytest.mark.parametrize(
    ("completion", "ended", "kind"),
    [
        ("result = sum(prices)", True, None),
        ("  result = sum(prices)\n", True, None),  # right but for space at its ends
        ("result = (sum(prices))", True, None),  # the same syntax tree
        ("result = sum(prices)  # of all", True, "overrun"),
        ("result = sum(prices)\n        print(result)", True, "overrun"),
        ("result = sum(prices, 0)\n        print(amount)", False, "overrun"),  # no end in sight
        ("result = sum(prices)\n        rounded = math.floor(result)", True, "suffix_repeat"),
        ("result = 0\n        rounded = math.floor(result)", True, "suffix_repeat"),
        ("amount = len(prices)", True, "prefix_repeat"),
        ("result = sum(", True, "underrun"),
        ("", True, "underrun"),
        ("result = sum(prices", False, "overrun"),
        ("result = max(prices", True, "syntax"),
        ("return", True, "undefined_name"),  # of what follows: nothing binds `result` then
        ("pass\n\n\nreturn", True, "syntax"),  # ends the class; the rest is then indented under nothing
        ("result = total(prices)", True, "undefined_name"),
        ("result = Decimal(missing)", True, "undefined_name"),
        ("result = later(prices)", True, "near_miss"),  # defined further below
        ("result = max(prices)", True, "near_miss"),
        ("result = sum(share)", True, "near_miss"),
        ("result = RATE", True, "near_miss"),
        ("result = 12.5 / 3.25 * 7.125 - 4.0625", True, "wrong"),
        ("result = pow(RATE, 2, 7) or 5", True, "wrong"),
    ],
)
def test_every_kind_has_a_case(completion, ended, kind):
    assert verdict(completion, ended).kind == kind


def test_a_window_that_does_not_parse_is_judged_in_its_file():
    with pytest.raises(SyntaxError):
        ast.parse(BEFORE[-WINDOW:] + TRUTH + AFTER[:WINDOW])
    assert place().in_file and place().judges_syntax
    outside = place(text="something = 'else'\n")
    assert not outside.in_file and not outside.judges_syntax
    assert judge(outside, "result = max(prices", True, BEFORE[-WINDOW:], AFTER[:WINDOW]).kind != "syntax"


def test_evidence_says_what_shows_it():
    assert verdict("result = total(prices)").evidence == {"ended": True, "names": ["total"]}
    assert verdict("result = sum(").evidence == {"ended": True, "missing_chars": 7}
    assert verdict("result = max(prices").evidence == {"ended": True, "parses_with_truth": True, "whole_file": True}


@pytest.mark.parametrize(
    ("code", "completion", "names"),
    [
        ("def f(a):\n    return <>\n", "b", ["b"]),
        ("def f(a):\n    return <>\n", "a + __name__ + str(len(__file__))", []),
        ("def f(a):\n    return <>\nb = 1\n", "b", []),  # bound further below
        ("def f(a):\n    return <>\ndef g():\n    global b\n    b = 1\n", "b", []),
        ("def f(a):\n    return <>\ndef g():\n    b = 1\n", "b", ["b"]),  # another function's own
        ("def f(a):\n    return <>\nclass C:\n    b = 1\n", "b", ["b"]),
        ("from os import *\ndef f(a):\n    return <>\n", "b", []),  # may bind anything
        ("def f(a):\n    return <>\n", "[b for b in a] + [c for d in a]", ["c"]),
        ("def f(a):\n    return <>\n", "(lambda b: b + c)(a)", ["c"]),
        ("class A:\n    def f(self):\n        return <>\n", "super().f() and __class__", []),
        ("import os.path as p\nx = <>\n", "p.join(q)", ["q"]),
        ("x = <>\n", "old", []),  # the truth has it too
    ],
)
def test_names_that_nothing_defines(code, completion, names):
    prefix, suffix = code.split("<>")
    truth = "old" if completion == "old" else "1"
    assert Place(prefix, truth, suffix, prefix + truth + suffix, "python").undefined_names(completion) == names


def test_other_languages_are_judged_as_far_as_their_grammar_goes():
    prefix, truth, suffix = "function f(a) {\n  return ", "a + 1;", "\n}\n"
    here = Place(prefix, truth, suffix, prefix + truth + suffix, "javascript")
    assert judge(here, "a + (1;", True, prefix, suffix).kind == "syntax"
    assert judge(here, "zzz + 1;", True, prefix, suffix).kind == "near_miss"  # names are judged in Python only
    unknown = Place("a ", "b", " c", "a b c", "cobol")
    assert unknown.judges_syntax is False and judge(unknown, "(", True, "a ", " c").kind == "wrong"


@given(st.text(alphabet="abr(=)\n\"' :#\\@", max_size=24))
def test_the_piece_with_the_hole_says_what_the_whole_file_says(completion):
    try:
        compile(FILE.replace(TRUTH, completion, 1), "<file>", "exec", dont_inherit=True)
        whole = True
    except (SyntaxError, ValueError):
        whole = False
    assert place().parses(completion) == whole


@given(st.text(max_size=40), st.text(max_size=20), st.text(max_size=20), st.text(max_size=20), st.booleans())
def test_any_text_is_judged(completion, truth, prefix, suffix, ended):
    here = Place(prefix, truth, suffix, prefix + truth + suffix, "python")
    found = judge(here, completion, ended, prefix, suffix)
    assert (found.kind is None) == bool(found.reason)
    if completion.strip() == truth.strip():
        assert found.kind is None
