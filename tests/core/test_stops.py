"""Where completions end; that a stream shows exactly what the whole answer says."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.fim import Hole
from core.stops import Cutter, Place, shown, shown_in


@pytest.mark.parametrize(
    ("prefix", "suffix", "generated", "seen"),
    [
        ("x = fo", "\n", "o(1)\ny = 2\n", "o(1)"),  # a begun line ends with the line
        ("print(", ")\n", "a, b)\n", "a, b"),  # the closing bracket is there already
        ("print(", ")\n", "foo())", "foo()"),  # one of two brackets is
        ("print(", ")\n", "foo()", "foo()"),  # this one is its own
        ('s = "abc', '"\n', 'def"', "def"),
        ("if x ", ":\n    pass\n", "> 3:\n", "> 3"),
        ("def f(x):", "\n", "\n    return x\n\nprint(f(1))\n", "\n    return x"),  # a finished line goes on in the next
        ("def f(x):\n    ", "\n", "y = x\n    return y\n\n\ndef g():\n", "y = x\n    return y"),  # a block ends with its indentation
        ("def f(x):\n    ", "\n", "if x:\n        return 1\n    return 2\nprint()\n", "if x:\n        return 1\n    return 2"),
        ("import os\n", "", "import sys\n\nx = 1\n", "import sys"),
        ("", "", "x = 1\ny = 2\n\nz = 3\n", "x = 1\ny = 2"),  # at top level up to a blank line
        ("", "", "def f():\n    a = 1\n\n    return a\n\n\ndef g():\n", "def f():\n    a = 1\n\n    return a"),
        ("def f():\n    ", "\n    return 1\n", "x = 2\n    return 1\n", "x = 2"),  # the next line is there already
        ("def f():\n    ", "\n    return 1\n", "return 1\n", ""),
        ("x = 1", "\n", "   \n  ", ""),  # blanks are nothing to show
        ("a = [", "]\n", "1, 2]\nb = 3", "1, 2"),
        ("a = ", "b\n", "c + ", "c + "),  # a blank before text on the right is not a trailing one
        ("return ", "", "", ""),
    ],
)
def test_where_a_completion_ends(prefix: str, suffix: str, generated: str, seen: str) -> None:
    assert shown(prefix, suffix, "python", generated) == seen


def test_a_hole_of_whole_lines_is_an_empty_line_to_an_editor() -> None:
    hole = Hole("def f(x):\n", "    return y\n", "    y = x\n")
    assert shown_in(hole, "python", "    y = x + 1\n    return y\n") == "    y = x + 1\n"
    assert shown_in(Hole("y = ", "\n", "1"), "python", "2\nz") == shown("y = ", "\n", "python", "2\nz") == "2"


@pytest.mark.parametrize(
    ("prefix", "suffix", "mode"),
    [("x = ", "\n", "line"), ("    ", ")\n", "line"), ("def f():\n    ", "\n", "block"), ("", "", "block"), ("a\n", "\nb", "block")],
)
def test_one_line_or_a_block(prefix: str, suffix: str, mode: str) -> None:
    assert Place.of(prefix, suffix, "python").mode == mode


CODE = st.text(st.sampled_from("ab :()[]'\"\n\t}x=,"), max_size=60)


@settings(max_examples=400, deadline=None)
@given(CODE, CODE, CODE, st.lists(st.integers(0, 60), max_size=8), st.sampled_from(["python", "javascript"]))
def test_a_stream_shows_what_the_whole_answer_says(prefix: str, suffix: str, generated: str, cuts: list[int], lang: str) -> None:
    whole = shown(prefix, suffix, lang, generated)
    edges = [0, *sorted(min(cut, len(generated)) for cut in cuts), len(generated)]
    cutter = Cutter(Place.of(prefix, suffix, lang))
    streamed = "".join(cutter.feed(generated[a:b]) for a, b in itertools.pairwise(edges)) + cutter.finish()
    assert streamed == whole
    assert generated.startswith(whole)


@given(CODE, CODE, CODE)
def test_nothing_is_shown_after_the_end(prefix: str, suffix: str, generated: str) -> None:
    cutter = Cutter(Place.of(prefix, suffix, "python"))
    cutter.feed(generated)
    cutter.finish()
    assert cutter.done and cutter.feed("more") == "" and cutter.finish() == ""
