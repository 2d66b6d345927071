"""Spans are characters of the text, whatever stands in it; chunks cover a file without overlap."""

import ast

from hypothesis import given
from hypothesis import strategies as st

from core.syntax import chunks, lang_of, line_starts, parse_python, parses, python_spans

CODE = """é = "日本"


def f(a):
    '''Doc.'''
    x = a + 1  # ü
    return x


class C:
    y = 2

    def g(self):
        return self.y
"""


def test_nodes_are_the_text_that_ast_means():
    tree = parse_python(CODE)
    assert all(0 <= span.start < span.end <= len(CODE) for span in python_spans(CODE, tree))
    found = {span.kind: CODE[span.start : span.end] for span in sorted(python_spans(CODE, tree))}
    assert found["Return"] == "return self.y"
    assert found["BinOp"] == "a + 1"
    expected = sorted(ast.get_source_segment(CODE, n) for n in ast.walk(tree) if isinstance(n, ast.stmt))
    statements = {"Assign", "FunctionDef", "Expr", "Return", "ClassDef"}
    assert sorted(CODE[s.start : s.end] for s in python_spans(CODE, tree) if s.kind in statements) == expected


def test_bodies_begin_and_end_with_their_statements():
    bodies = [CODE[s.start : s.end] for s in python_spans(CODE, parse_python(CODE)) if s.kind == "body"]
    assert "return self.y" in bodies
    assert any(body.startswith("'''Doc.'''") and body.endswith("return x") for body in bodies)


@given(st.text(alphabet="ab \n():=deft", max_size=300))
def test_chunks_do_not_overlap_and_miss_only_blank_text(text):
    at = 0
    for span in chunks(text, "python", max_lines=3):
        assert span.start >= at
        assert not text[at : span.start].strip()
        at = span.end
    assert not text[at:].strip()


def test_chunks_of_python_are_functions_and_classes():
    kinds = [(span.kind, CODE[span.start : span.end].split("\n")[0]) for span in chunks(CODE, "python")]
    assert ("FunctionDef", "def f(a):") in kinds
    assert ("ClassDef", "class C:") in kinds


def test_other_languages_are_cut_by_lines():
    text = "x\n" * 150
    assert [span.end - span.start for span in chunks(text, "ruby", max_lines=60)] == [120, 120, 60]


@given(st.text(max_size=200))
def test_line_starts_are_where_lines_start(text):
    starts = line_starts(text)
    assert starts[0] == 0
    assert all(text[start - 1] == "\n" for start in starts[1:])


def test_what_cannot_be_parsed_is_said_without_an_exception():
    assert parses("def", "python") is False
    assert parses("x = 1", "python") is True
    assert parses("x = ", "ruby") is None
    assert parse_python("(" * 3000) is None
    assert parse_python("a\0b") is None
    assert lang_of("a/b.py") == "python"
    assert lang_of("a.py/b") is None
