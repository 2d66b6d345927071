"""Where a completion is refused and why; that it is cheap; that dismissals are counted per client."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase4_serve.trigger import CLIENTS, Last, Patience, why_not

GO = None
PLACES = [  # language, text with the cursor as a bar, the decision
    ("python", "x = |", GO),
    ("python", "x = fo|", GO),
    ("python", "def f(x):\n    |", GO),
    ("python", "def f(x):|", GO),
    ("python", "import |", GO),
    ("python", "from os import |\n", GO),
    ("python", "foo(|)", GO),
    ("python", "foo(a, |)", GO),
    ("python", "foo(|, b)", GO),
    ("python", "foo(a|)", GO),
    ("python", "print('|')", GO),
    ("python", "open('data/|')", GO),
    ("python", 'f"{x.|}"', GO),
    ("python", "x = [|]", GO),
    ("python", "d = {'a': |}", GO),
    ("python", "def f(|):", GO),
    ("python", "def f(|) -> int:", GO),
    ("python", "if x |:", GO),
    ("python", "x = | + 1", GO),
    ("python", "return | if y else z", GO),
    ("python", "for x in |:", GO),
    ("python", "x = foo(|)  # why", GO),
    ("python", "x = 1|\n", GO),
    ("python", "x = 'ab|'", GO),
    ("python", "x.|", GO),
    ("python", "@|\ndef f(): ...", GO),
    ("python", "# a note\n|", GO),
    ("python", "# a note |", GO),
    ("python", "x = 1  # see #|", GO),
    ("python", 'q = """SELECT na|', GO),
    ("python", 'x = f("""a b|""")', GO),
    ("python", 'def f():\n    """\n    >>> pri|\n    """', GO),
    ("python", "url = 'http://exa|'", GO),
    ("python", "x = '# no comm|'", GO),
    ("python", "x = a // b|", GO),
    ("python", "|\n\nx = 1", GO),
    ("python", "x = 1\n|", GO),
    ("python", "    |)", GO),
    ("python", "x = (\n    a,\n    |\n)", GO),
    ("python", "fo|o = 1", "word_right"),
    ("python", "|foo()", "word_right"),
    ("python", "x = |foo", "word_right"),
    ("python", "foo(|bar)", "word_right"),
    ("python", "a |_b", "word_right"),
    ("python", "x = ca|é", "word_right"),
    ("python", "foo| = 1", "text_right"),
    ("python", "foo(a| + b)", "text_right"),
    ("python", "foo(a| b)", "text_right"),
    ("python", "x| + 1", "text_right"),
    ("python", "foo|(a, b)", "text_right"),
    ("python", "foo(a|, b)", "text_right"),
    ("python", "import os| as o", "text_right"),
    ("python", "x = | 'abc' + d", "text_right"),
    ("python", "# compu|", "comment_word"),
    ("python", "x = 1  # becau|", "comment_word"),
    ("python", "#!/usr/bin/env pyth|", "comment_word"),
    ("python", 'def f():\n    """Return the le|', "comment_word"),
    ("python", 'def f():\n    """Return the le|"""', "comment_word"),
    ("python", "r'''Modu|'''\nx = 1", "comment_word"),
    ("python", 'class A:\n    """A.\n\n    Args:\n        x: the numb|\n    """', "comment_word"),
    ("python", "# naïveté|", "comment_word"),
    ("python", 'the rest of a docstring.\n    """\n    total = compu|', None),  # an editor's window begins where it likes
    ("python", 'a docstring.\n    """\n\n    def g(self):\n        """Do.\n\n        mo|', "comment_word"),
    ("python", 'def f():\n    """\n    Retur|', "comment_word"),
    ("python", 'def f():\n    """Do."""\n    retur|', None),
    ("python", 'QUERY = """\n    selec|', None),
    ("javascript", " * the rest of a comment\n */\nconst val|", None),
    ("python", "|", "empty"),
    ("python", " \n\t|\n ", "empty"),
    ("python", "x = " + "1 + " * 200 + "|", "long_line"),
    ("javascript", "const a = |;", GO),
    ("javascript", "foo(() => {\n  |\n});", GO),
    ("javascript", "if (x) {|", GO),
    ("javascript", "if (|) {", GO),
    ("javascript", "if (x|) {", GO),
    ("javascript", "for (let i = 0;|", GO),
    ("javascript", "const { | } = x;", GO),
    ("javascript", "return <div>|</div>;", GO),
    ("javascript", "return <Foo |/>;", GO),
    ("javascript", "const s = `a ${b.|}`;", GO),
    ("javascript", "const u = 'http://a|';", GO),
    ("javascript", "const a = {}|", GO),
    ("javascript", "foo(a)|", GO),
    ("javascript", "// a line |", GO),
    ("javascript", "const r = /a\\/b|/;", "text_right"),
    ("javascript", "foo();|", "statement_end"),
    ("javascript", "foo();  |\nbar();", "statement_end"),
    ("javascript", "}|", "statement_end"),
    ("javascript", "  });|", "statement_end"),
    ("javascript", "// a wor|", "comment_word"),
    ("javascript", "/* a\n * wor|", "comment_word"),
    ("javascript", "/**\n * @param na|\n */", "comment_word"),
    ("javascript", "foo(); // tra|", "comment_word"),
    ("javascript", "for (let i = 0; i < n|; i++) {", "text_right"),
    ("typescript", "let x: Map<|>;", GO),
    ("typescript", "function f(a: |): void {", GO),
    ("typescript", "interface A {|}", GO),
    ("typescript", "import { A } from './a';|", "statement_end"),
    ("java", "List<String> a = new |", GO),
    ("java", "@Overr|", GO),
    ("java", "import java.util.|;", GO),
    ("java", "return x;|", "statement_end"),
    ("java", "  }|", "statement_end"),
    ("java", "/** Retur|", "comment_word"),
    ("go", "x := |", GO),
    ("go", "if err != nil {|", GO),
    ("go", "fmt.Println(`a b|`)", GO),
    ("go", "}|", "statement_end"),
    ("go", "// F ret|", "comment_word"),
    ("rust", "let x: &'a st|", GO),
    ("rust", "fn f<'a>(x: &'a |) {", GO),
    ("rust", "/// Retur|", "comment_word"),
    ("rust", "let x = 1;|", "statement_end"),
    ("c", "#include <std|>", GO),
    ("c", "#define FO|", GO),
    ("c", "int *p = &|;", GO),
    ("c", "char c = '|';", GO),
    ("c", "a->|", GO),
    ("c", "/* not clo|", "comment_word"),
    ("c", "return 0;|", "statement_end"),
    ("cpp", "std::vector<|> v;", GO),
    ("cpp", "std::|", GO),
    ("cpp", "public:|", GO),
    (None, "plain te|", GO),
]


@pytest.mark.parametrize(("lang", "text", "decision"), PLACES)
def test_where_a_completion_makes_sense(lang: str | None, text: str, decision: str | None) -> None:
    prefix, _, suffix = text.partition("|")
    assert why_not(prefix, suffix, lang) == decision


@pytest.mark.parametrize(
    ("before", "now", "reason"),
    [
        (("foo(ba", ")\n"), ("foo(b", ")\n"), "backspace"),
        (("foo(", ")\n"), ("foo", "\n"), "backspace"),  # the editor takes away the bracket that it put there
        (("x = 1\ny = 2\n", ""), ("x = 1\n", ""), "backspace"),  # undo
        (("foo(b", ")\n"), ("foo(ba", ")\n"), None),  # typed on
        (("foo(ba", ")\n"), ("foo(ba", ")\n"), None),  # asked again
        (("x = 1\ny = 2\n", "\nz"), ("x = 1\n", "y = 2\n\nz"), "word_right"),  # the cursor went up, nothing was taken away
        (("a = fo", "\n"), ("b = f", "\n"), None),  # another place
    ],
)
def test_taking_away_is_not_asking(before: tuple[str, str], now: tuple[str, str], reason: str | None) -> None:
    assert why_not(*now, "python", Last(*before)) == reason


@pytest.mark.parametrize(("path", "reason"), [(".env", "secret_file"), ("conf/id_rsa", "secret_file"), ("a/b.py", None), ("", None)])
def test_a_file_of_secrets_is_left_alone(path: str, reason: str | None) -> None:
    assert why_not("x = ", "", None, None, path) == reason


@given(st.text(max_size=80), st.text(max_size=80), st.sampled_from(["python", "javascript", "c", "go", "rust", None]))
def test_every_text_gets_a_decision(prefix: str, suffix: str, lang: str | None) -> None:
    assert why_not(prefix, suffix, lang) in {
        None, "empty", "word_right", "text_right", "statement_end", "comment_word", "long_line",
    }  # fmt: skip


@pytest.mark.parametrize("unit", ["# a\n", "(", '"', "/*", "x = 1\n", "a", " ", "'''\n", ")", ",", "/>"])
def test_no_text_takes_long(unit: str) -> None:
    def spent() -> float:
        started = time.thread_time()
        why_not(unit * 100_000 + "# wo", unit * 100_000, "python")
        why_not(unit * 100_000 + "wo", unit * 100_000, "javascript")
        return time.thread_time() - started

    assert min(spent() for _ in range(3)) < 0.1  # some milliseconds


def test_after_five_dismissals_in_a_row_it_rests_longer_and_longer() -> None:
    patience = Patience()
    for at in range(4):
        patience.event("ed", "dismissed", float(at))
    assert not patience.resting("ed", 3.0)
    patience.event("ed", "dismissed", 4.0)
    assert patience.resting("ed", 4.2) and not patience.resting("ed", 4.6)
    patience.event("ed", "dismissed", 5.0)
    assert patience.resting("ed", 5.8) and not patience.resting("other", 5.8)
    for at in range(50):
        patience.event("ed", "dismissed", 6.0 + at)
    assert not patience.resting("ed", 55.0 + 5.1)  # never longer than 5 s
    patience.event("ed", "accepted", 60.0)
    patience.event("ed", "dismissed", 61.0)
    assert not patience.resting("ed", 61.0)


def test_dismissals_are_forgotten_and_clients_are_bounded() -> None:
    patience = Patience()
    for at in range(5):
        patience.event("ed", "dismissed", at * 400.0)
    assert not patience.resting("ed", 1600.0)
    for number in range(CLIENTS * 3):
        patience.event(f"c{number}", "dismissed", 0.0)
    assert len(patience._dismissed) == CLIENTS
