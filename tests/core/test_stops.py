"""Where completions end; that a stream shows exactly what the whole answer says."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core import blocks
from core.blocks import around
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


BRACES = [  # language, before the cursor, after it, what a model writes, what is seen of it
    # the closing brace is there already
    ("javascript", "function f() {\n  ", "\n}\n", "return 1;\n}\n\nf();\n", "return 1;"),
    ("go", "func f() {\n\t", "\n}\n", "if x {\n\t\treturn\n\t}\n\tg()\n}\nfunc g() {", "if x {\n\t\treturn\n\t}\n\tg()"),
    ("rust", "fn f<'a>(x: &'a str) {\n    ", "\n}\n", "let c = '}';\n    g(c)\n}\n", "let c = '}';\n    g(c)"),
    ("c", "int f(void)\n{\n    ", "\n}\n", "#ifdef A\n    a();\n#else\nb:\n    b();\n#endif\n}\nint g", "#ifdef A\n    a();\n#else\nb:\n    b();\n#endif"),  # noqa: E501
    ("cpp", "class A {\n", "\n};\n", "public:\n    A();\n\nprivate:\n    int a;\n};\nclass B", "public:\n    A();\n\nprivate:\n    int a;"),
    ("java", "class A {\n    int f() {\n        ", "\n    }\n}\n", "return 1;\n    }\n}\n", "return 1;"),
    ("javascript", "foo(", "\n);\n", "a, (b)) + c", "a, (b)"),
    ("typescript", "const a = [\n  ", "\n];\n", "`${x.map((y) => `]${y}`)}`,\n  2,\n];\nlet b", "`${x.map((y) => `]${y}`)}`,\n  2,"),
    # it is missing: the completion closes it, and what belongs to it, and no more
    ("javascript", "function f() {\n  ", "\nfunction g() {\n}\n", "return 1;\n}\n\nfunction g() {", "return 1;\n}"),
    ("javascript", "function f() {\n  if (x) {\n    ", "\n}\n", "y();\n  } else {\n    z();\n  }\n}\n", "y();\n  } else {\n    z();\n  }"),
    ("java", "if (x)\n{\n    ", "", "y();\n}\nelse\n{\n    z();\n}\nw();", "y();\n}\nelse\n{\n    z();\n}"),
    ("c", "do {\n    ", "", "x--;\n} while (x);\nreturn x;", "x--;\n} while (x);"),
    ("c", "for (;;) {\n    ", "", "x--;\n}\nwhile (x) {", "x--;\n}"),
    ("typescript", "it('works', () => {\n  ", "", "f();\n});\n\nit('fails'", "f();\n});"),
    ("rust", "impl A for B {\n    fn f() {\n        ", "\n\n    fn g() {}\n}\n", "1;\n    }\n    fn h() {}", "1;\n    }"),
    ("java", "class A {\n    void f(int a,\n            int b) {\n        ", "\n    }\n}\n", "g();\n    }\n}\n", "g();"),
    ("go", "switch x {\ncase 1:\n\t", "\n}\n", "a()\ncase 2:\n\tb()\n}\n", "a()\ncase 2:\n\tb()"),
    # a bracket or brace that the cursor's line opened
    ("javascript", "while (x) {", "", "\n  y();\n}\nz();", "\n  y();\n}"),
    ("javascript", "while (x) {", "\n}\n", "\n  y();\n  z();\n}\n", "\n  y();\n  z();"),
    ("c", "int a[] = {", "};", "1, 2};\nint b", "1, 2"),
    ("typescript", "f(a, (", "\n", "b) => {\n  c();\n});\nd();", "b) => {\n  c();\n});"),
    ("rust", "let x = foo(", "\n    bar,\n);\n", "&", "&"),
    # chained calls go on; a declaration ends where the next one begins
    ("javascript", "", "", "a\n  .then(b)\n  .catch(c);\n\nd();", "a\n  .then(b)\n  .catch(c);"),
    ("go", "package a\n\n", "", "// F is f.\nfunc F() {\n\tg()\n}\nfunc G() {", "// F is f.\nfunc F() {\n\tg()\n}"),
    ("java", "class A {\n    int a;\n\n    ", "\n}\n", "@Override\n    int f() {\n        g();\n\n        h();\n    }\n\n    int g() {", "@Override\n    int f() {\n        g();\n\n        h();\n    }"),  # noqa: E501
    ("cpp", "namespace a {\nint x;\n\n", "\n}\n", "int f() {\n    return 1;\n}\n\nint g() {", "int f() {\n    return 1;\n}"),
    # no repetition
    ("java", "class A {\n    int f() {\n        ", "\n        return a.of(1);\n    }\n}\n", "g();\n        return a.of(1);\n", "g();"),
    ("java", "class A {\n    int a;\n    ", "\n    @Override\n    int f() {}\n}\n", "@Override\n    int g() {\n        h();\n    }\n", "@Override\n    int g() {\n        h();\n    }"),  # noqa: E501
    ("java", "class A {\n    int a;\n    ", "\n    @Override\n    int f() {}\n}\n", "int b;\n    @Override\n    int f() {}\n", "int b;"),
    ("javascript", "f(a", ", b) // c", ".d, b) // c", ".d"),
    ("javascript", "{\n  ", "\n}", "go();\n  go();\n  go();\n  go();", "go();\n  go();"),
    ("javascript", "{\n  ", "\n}", "a();\n  b();\n  a();\n  b();\n  a();\n  b();", "a();\n  b();\n  a();\n  b();"),
    # the rest of a begun line closes what the line opened, as far as nothing behind it does
    ("typescript", "  const a = f({ x: 1, ", "\n  const b = 2;\n", "y: 2 });\n  const b = 2;\n", "y: 2 });"),
    ("typescript", "  expect(z.", "\n    1,\n  );\n", "parse(a)).toEqual(\n    1,\n  );", "parse(a)).toEqual("),
    ("typescript", "  const f: { ", "\n    a: 1,\n  };\n", "a: number } = {\n    a: 1,", "a: number } = {"),
    ("typescript", "const a = [", "\n  1,\n];\n", "];\n", ""),
    ("c", "    store(0, (", "\n          x);\n    wait();\n", "a) + b, 0,\n          x);", "a) + b, 0,"),
    ("c", "    store(0,\n          (", "\n    wait();\n", "a) + b);\n    wait();", "a) + b);"),
    ("javascript", "    if (a &&\n        b(", "\n        return 1;\n    }\n", "c)) {\n        return 1;", "c)) {"),
    ("javascript", "const a = `${b}[c: ", "\n", "d]`;\n", "d]`;"),
    ("go", "func f() {\n\tg(u /* ", "\n\tt = (u /* x */ )\n}\n", "y */ )\n", "y */ )"),
    ("cpp", 'f(\n    R"({"a": ', '\n    R"({"b"})",\n    c);\n', '1})",\n', '1})",'),
    ("cpp", "A::A(\n        int ", "\n}\n", "a) : b(a) {\n}\n", "a) : b(a) {"),
    ("cpp", "void f() {\n    ", "\n}\n", 'g(R"x(}\n})")x");\n    h();\n}\n', 'g(R"x(}\n})")x");\n    h();'),
    ("c", f"static void f({'int a,' * 3}\n" + 20 * "              int b,\n" + "              int c) {\n    ", "\n}\n", "g();\n}\n", "g();"),
    ("c", "int f(void) {\n    ", "\n\n#define A(x) \\\n    do { \\\n    }\n\nint g(void) {\n}\n", "return 1;\n}\n\nint", "return 1;\n}"),
    # after a comment that opens a class, all of the class; after a brace that was missing, nothing that begins anew
    ("java", "interface A {\n    /** One. */\n    ", "\n}\n", "int a();\n\n    int b();\n}\n", "int a();\n\n    int b();"),
    ("java", "interface A {\n    int a();\n\n    /** Two. */\n    ", "\n}\n", "int b();\n\n    int c();\n}\n", "int b();"),
    ("go", "func f() {\n\tif x {\n\t\t", "", "return\n\t}\n\t*p = 1\n}\n", "return\n\t}"),
    ("javascript", "switch (a) {\n  case 1: {\n    ", "\n  case 2: {\n  }\n}\n", "b();\n  }\n  case 2: {\n", "b();\n  }"),
    # the line above is not written again, a row of a table may be; nor is a line that only resembles the next one taken for it
    ("python", "import os\nimport sys\n", "\n", "import sys\nimport re\n", ""),
    ("python", "x = [\n    0, 0,\n    ", "\n]\n", "0, 0,\n    1, 0,\n]\n", "0, 0,\n    1, 0,"),
    ("python", "def f():\n    ", "\n    self.value_weight = Linear(a, b)\n", "self.other_weight = Linear(a, b)\n    self.value_weight = Linear(a, b)\n", "self.other_weight = Linear(a, b)"),  # noqa: E501
    ("c", "", "\n\nstatic void\ng(int x)\n{\n}\n", "static void\nf(int x)\n{\n}\n\nstatic void\ng(int x)\n", "static void\nf(int x)\n{\n}"),
    ("javascript", "a\n  ? f(g(", "\n  : [];\n", "x))\n  : [];\n", "x))"),
    ("python", "f(", ")\n", "a, b)\n", "a, b"),
    ("python", "x = f(", "\n", "a)\ny = 1", "a)"),
    ("python", "x = f(", "\n", "\n    a,\n)\ny = 1\n", "\n    a,\n)"),
    ("python", "def f():\n    x = {\n        ", "\n    }\n    return x\n", "1: 2,\n    }\n    return x\n", "1: 2,"),
    ("python", "def f():\n    ", "\n", 's = """\na\n"""\n    return s\n\n\nx = 1', 's = """\na\n"""\n    return s'),
    ("python", "if x:\n    y = 1\n    ", "\n", "z = [\n1,\n]\nw = 2", "z = [\n1,\n]"),
]  # fmt: skip


@pytest.mark.parametrize(("lang", "prefix", "suffix", "generated", "seen"), BRACES)
def test_syntax_ends_a_completion(lang: str, prefix: str, suffix: str, generated: str, seen: str) -> None:
    assert shown(prefix, suffix, lang, generated) == seen
    streamed = Cutter(Place.of(prefix, suffix, lang))
    assert "".join(map(streamed.feed, generated)) + streamed.finish() == seen


@pytest.mark.parametrize("lang", ["python", "javascript", "go", None])
def test_a_line_that_runs_away_is_ended(lang: str | None) -> None:
    seen = shown("x = [", "\n", lang, "0, " * 500)
    assert 20 < len(seen) < 100
    seen = shown("x = [", "\n", lang, "self.transform_values(value, other_value), " * 50)
    assert 80 < len(seen) < 200
    for kept in ("# " + "-" * 200 + "\nx = 1", "x = 0x" + "f" * 64, "x = (" + "0, " * 20 + "0)"):  # a ruler, a number, a row of a table
        assert shown("", "", lang, kept) == kept


LANGUAGES = ["python", "javascript", "typescript", "java", "go", "rust", "c", "cpp", None]
SCRAPS = ["a", "b1", " ", "    ", "\n", "\n\n", "(", ")", "[", "]", "{", "}", "'", '"', "`", "${", "/*", "*/", "//", "/", "#", "#if\n", "#else\n", "\\",  # noqa: E501
          '"""', 'r#"', '"#', "=", ",", ";", ":", "else", "while", "class A {\n", "fn f() {\n",
          "def f():\n", "return", "@a", "=>", "0, 0, 0, ", 'R"(', 'R"x(', ')x"', "a_long_name = 1\n",
          "void f(int\n", "(b)", "}\n"]  # fmt: skip
CODE = st.lists(st.sampled_from(SCRAPS), max_size=30).map("".join)


@settings(max_examples=1000, deadline=None)
@given(CODE, CODE, CODE, st.lists(st.integers(0, 60), max_size=8), st.sampled_from(LANGUAGES))
def test_a_stream_shows_what_the_whole_answer_says(prefix: str, suffix: str, generated: str, cuts: list[int], lang: str | None) -> None:
    whole = shown(prefix, suffix, lang, generated)
    edges = [0, *sorted(min(cut, len(generated)) for cut in cuts), len(generated)]
    cutter = Cutter(Place.of(prefix, suffix, lang))
    streamed = "".join(cutter.feed(generated[a:b]) for a, b in itertools.pairwise(edges)) + cutter.finish()
    assert streamed == whole
    assert generated.startswith(whole)


@settings(max_examples=150, deadline=None)
@given(CODE, CODE, st.lists(st.sampled_from(SCRAPS), max_size=6), st.sampled_from(LANGUAGES))
def test_what_was_read_above_a_line_tells_the_same_for_every_key(prefix: str, suffix: str, keys: list[str], lang: str | None) -> None:
    typed = [prefix + "".join(keys[:n]) for n in range(len(keys) + 1)]
    seen = [around(text, suffix, lang) for text in typed]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_above", lambda _, lang: blocks._Above(blocks.Lexer(lang), blocks._Stack(), {}))
        assert [around(text, suffix, lang) for text in typed] == seen


@given(CODE, CODE, CODE)
def test_nothing_is_shown_after_the_end(prefix: str, suffix: str, generated: str) -> None:
    cutter = Cutter(Place.of(prefix, suffix, "python"))
    cutter.feed(generated)
    cutter.finish()
    assert cutter.done and cutter.feed("more") == "" and cutter.finish() == ""


@settings(max_examples=300, deadline=None)
@example("", "\n(", "\n(}", "javascript")
@example("'(", "\n", "a)b\n", "rust")  # no string after all: the bracket before the cursor opens one
@given(CODE, CODE, CODE, st.sampled_from(LANGUAGES))
def test_one_character_at_a_time_shows_the_same(prefix: str, suffix: str, generated: str, lang: str | None) -> None:
    cutter = Cutter(Place.of(prefix, suffix, lang))
    assert "".join(map(cutter.feed, generated)) + cutter.finish() == shown(prefix, suffix, lang, generated)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab(){}[]\n ;"), max_size=60), st.sampled_from(LANGUAGES[1:-1]))
def test_nothing_is_closed_that_the_text_behind_closes(generated: str, lang: str) -> None:
    seen = shown("f(x) {\n    ", "\n}\n", lang, generated)
    depth = 0
    for character in seen:
        depth += character in "([{"
        depth -= character in ")]}"
        assert depth >= 0


@pytest.mark.parametrize("lang", ["python", "typescript", "rust", "cpp", None])
@pytest.mark.parametrize("unit", ["(", "{\n", "}", "`${", "/*", '"', '"\\', "#if\n", "\n", "a", "0, ", "{}", "'a", 'r#"', "    {\n    }\n"])
def test_no_text_takes_long(lang: str | None, unit: str) -> None:
    def spent(text: str) -> tuple[float, float]:
        started = time.thread_time()
        cutter = Cutter(Place.of(text, text, lang))
        placed = time.thread_time()
        for at in range(0, 4_000, 4):
            cutter.feed(text[at : at + 4])
        return placed - started, time.thread_time() - placed

    tries = [spent(unit * 100_000) for _ in range(2)]  # one may meet the garbage collector
    assert min(placed for placed, _ in tries) < 0.1  # some 10 ms
    assert min(fed for _, fed in tries) < 1  # for 1,000 pieces: 0.1 s at most


@pytest.mark.parametrize(
    ("lang", "begun", "code"),
    [
        ("python", 'the end of a (docstring.\n    """\n', "    total = add("),
        ("python", 'the end of [a docstring."""\n', "    total = add("),
        ("python", "", 'X = """a ( text"""\ntotal = add('),
        ("python", "", '"""Of a module: (.\n"""\ntotal = add('),
        ("javascript", " * the end of (a comment\n */\n", "const total = add("),
        ("c", "", "/* ( */ int total = add("),
    ],
)
def test_a_window_may_begin_inside_a_comment(lang: str, begun: str, code: str) -> None:
    seen = around(begun + code, ")\n", lang)
    assert [bracket.kind for bracket in seen.open] == ["("]
    assert not seen.inside
