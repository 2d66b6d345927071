"""The blocks of a source file: spans to cut holes at in phase 1, chunks to retrieve in phase 4.

In:  source text and its language
Out: spans in characters (not bytes) of the text, and the kind of syntax that stands there

Python goes through `ast`, the languages of core.grammars through tree-sitter; the others are cut by lines.
"""

from __future__ import annotations

import ast
import functools
import itertools
import math
import re
import warnings
from bisect import bisect_right
from collections.abc import Iterator

from core import grammars
from core.grammars import Piece
from core.grammars import Span as Span

LANG_OF_SUFFIX = {
    ".py": "python", ".pyi": "python", ".js": "javascript", ".jsx": "javascript", ".mjs": "javascript", ".ts": "typescript",
    ".tsx": "typescript", ".java": "java", ".go": "go", ".rs": "rust", ".c": "c", ".h": "c", ".cc": "cpp", ".cpp": "cpp",
    ".hpp": "cpp", ".cs": "csharp", ".rb": "ruby", ".php": "php", ".sh": "shell", ".sql": "sql", ".kt": "kotlin",
    ".swift": "swift", ".scala": "scala", ".lua": "lua", ".pl": "perl", ".r": "r",
}  # fmt: skip
WORD = re.compile(r"\w")


def lang_of(path: str) -> str | None:
    """The language a path's ending names, None where it names none that we train on."""
    dot = path.rfind(".")
    return LANG_OF_SUFFIX.get(path[dot:].lower()) if dot > path.rfind("/") else None


def parse_python(text: str) -> ast.Module | None:
    """The syntax tree, None where Python does not accept the text (or it nests too deeply to parse)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's code
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def parses(text: str, lang: str) -> bool | None:
    """Whether the language's parser accepts the text; None where that cannot be judged.

    Of Python `ast` is the judge. Of the languages of core.grammars it is whether the tree is free of errors, which a few
    files in a hundred that compile are not. In C and C++ True means what it says, and an error means nothing (None),
    because macros stand where the grammar wants syntax. None also where there is no parser or a text met a parser's bounds.
    """
    if lang == "python":
        return parse_python(text) is not None
    tree = grammars.parse(text, lang)
    if tree is None or (tree.has_error and lang in grammars.MACROS):
        return None
    return not tree.has_error


def nodes(text: str, lang: str) -> Iterator[Span]:
    """Statements, expressions, bodies and the like, by the names of the language's grammar, and comments where it has them.

    Nothing is yielded where there is no parser, or it does not accept the text (Python) or its part (the others).
    """
    if lang == "python":
        if tree := parse_python(text):
            yield from python_spans(text, tree)
    elif found := grammars.parse(text, lang):
        yield from found.nodes()


class _Offsets:
    """Turns ast's (line, UTF-8 column) into character offsets; line breaks are \\n, as ingest leaves them."""

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line) + 1)

    def at(self, line: int, column: int) -> int:
        text = self.lines[line - 1]
        if text.isascii():
            return self.starts[line - 1] + column
        return self.starts[line - 1] + len(text.encode()[:column].decode(errors="ignore"))


@functools.lru_cache(maxsize=1)
def _offsets(text: str) -> _Offsets:
    return _Offsets(text)


def _walk(tree: ast.Module, first: float, last: float) -> Iterator[ast.AST]:
    """Every node that meets the lines first to last but those inside f-strings, whose places Python 3.11 gets wrong."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.JoinedStr):
            continue
        for field in node._fields:
            value = getattr(node, field, None)
            for child in value if isinstance(value, list) else (value,):
                if isinstance(child, ast.AST) and (child._fields or child._attributes):  # the others say `load`, `add` and the like
                    line = getattr(child, "lineno", None)
                    if line is None or (child.end_lineno >= first and (line <= last or getattr(child, "decorator_list", None))):  # type: ignore[attr-defined]
                        waiting.append(child)


def python_spans(text: str, tree: ast.Module, first: float = 1, last: float = math.inf) -> Iterator[Span]:
    """Every statement and expression that has a place in the text, `kind` being the ast class name; and the body of every
    function and compound statement, from its first statement to the end of its last, `kind` being body. In no order.

    Args:
        first, last: lines, from 1; nodes wholly outside them may be left out.
    """
    at = _offsets(text).at
    for node in _walk(tree, first, last):
        if isinstance(node, ast.stmt | ast.expr) and node.end_lineno is not None and node.end_col_offset is not None:
            yield Span(at(node.lineno, node.col_offset), at(node.end_lineno, node.end_col_offset), type(node).__name__)
        if isinstance(node, ast.Module):
            continue
        for field in ("body", "orelse", "finalbody"):
            body = getattr(node, field, None)
            if isinstance(body, list) and body:
                begin, end = body[0], body[-1]
                yield Span(at(begin.lineno, begin.col_offset), at(end.end_lineno, end.end_col_offset), "body")


def line_starts(text: str) -> list[int]:
    """Offset of the first character of every line."""
    starts, at = [0], text.find("\n")
    while at != -1:
        starts.append(at + 1)
        at = text.find("\n", at + 1)
    return starts if starts[-1] < len(text) or len(starts) == 1 else starts[:-1]


def chunks(text: str, lang: str, max_lines: int = 60) -> list[Span]:
    """Pieces of a file worth retrieving: functions, classes and their like, runs of lines elsewhere.

    The pieces do not overlap and cover the file but for blank ends. A class longer than `max_lines` is cut at its
    methods, a longer function at lines. Lines without a word, such as a closing brace, go to the piece before them.
    """
    starts = [*line_starts(text), len(text)]
    spans: list[Span] = []
    for first, last, kind in _blocks(text, lang, len(starts) - 1, max_lines):
        piece = text[starts[first] : starts[last]]
        if spans and not WORD.search(piece):
            spans[-1] = spans[-1]._replace(end=starts[last])
        elif piece.strip():
            spans.append(Span(starts[first], starts[last], kind))
    return spans


def _blocks(text: str, lang: str, n_lines: int, max_lines: int) -> Iterator[Piece]:
    """Half-open line ranges (from 0) with their kind, in order."""
    found = list(_definitions(text, lang, max_lines))
    cuts = {0: "module" if found else "lines"}
    for first, end, kind in found:
        if cuts.get(first, "module") == "module":  # of those that begin in one line the outermost names it
            cuts[first] = kind
        if end < n_lines:
            cuts.setdefault(end, "module")
    for first, last in itertools.pairwise([*sorted(cuts), n_lines]):
        for start in range(first, last, max_lines):
            yield Piece(start, min(start + max_lines, last), cuts[first])


def _definitions(text: str, lang: str, max_lines: int) -> Iterator[Piece]:
    """Line ranges of functions and classes, outer before inner."""
    if lang == "python":
        if tree := parse_python(text):
            yield from _python_definitions(tree, max_lines)
    elif found := grammars.parse(text, lang):
        yield from found.pieces(max_lines)


def _python_definitions(tree: ast.AST, max_lines: int) -> Iterator[Piece]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
            end = node.end_lineno or node.lineno
            yield Piece(first, end, type(node).__name__)
            if isinstance(node, ast.ClassDef) and end - node.lineno >= max_lines:
                yield from _python_definitions(node, max_lines)


def line_of(text: str, offset: int) -> int:
    """The line, from 0, that an offset stands in."""
    return bisect_right(line_starts(text), offset) - 1
