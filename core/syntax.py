"""The blocks of a source file: spans to cut holes at in phase 1, chunks to retrieve in phase 4.

In:  source text and its language
Out: spans in characters (not bytes) of the text, and the kind of syntax that stands there

Python goes through `ast`; other languages have no parser here yet and are cut by lines.
"""

from __future__ import annotations

import ast
import itertools
import warnings
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

LANG_OF_SUFFIX = {
    ".py": "python", ".pyi": "python", ".js": "javascript", ".jsx": "javascript", ".mjs": "javascript", ".ts": "typescript",
    ".tsx": "typescript", ".java": "java", ".go": "go", ".rs": "rust", ".c": "c", ".h": "c", ".cc": "cpp", ".cpp": "cpp",
    ".hpp": "cpp", ".cs": "csharp", ".rb": "ruby", ".php": "php", ".sh": "shell", ".sql": "sql", ".kt": "kotlin",
    ".swift": "swift", ".scala": "scala", ".lua": "lua", ".pl": "perl", ".r": "r",
}  # fmt: skip


class Span(NamedTuple):
    """Characters [start, end) of a text, and what they are."""

    start: int
    end: int
    kind: str


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
    """Whether the language's parser accepts the text; None where there is no parser for it here."""
    return parse_python(text) is not None if lang == "python" else None


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


def _walk(tree: ast.Module) -> Iterator[ast.AST]:
    """Every node but those inside f-strings, whose places Python 3.11 gets wrong."""
    waiting: deque[ast.AST] = deque([tree])
    while waiting:
        node = waiting.popleft()
        yield node
        if not isinstance(node, ast.JoinedStr):
            waiting.extend(ast.iter_child_nodes(node))


def python_nodes(text: str, tree: ast.Module) -> Iterator[Span]:
    """Every statement and expression that has a place in the text, `kind` being the ast class name."""
    offsets = _Offsets(text)
    for node in _walk(tree):
        if isinstance(node, ast.stmt | ast.expr) and node.end_lineno is not None and node.end_col_offset is not None:
            yield Span(offsets.at(node.lineno, node.col_offset), offsets.at(node.end_lineno, node.end_col_offset), type(node).__name__)


def python_bodies(text: str, tree: ast.Module) -> Iterator[Span]:
    """The body of every function and compound statement, from its first statement to the end of its last."""
    offsets = _Offsets(text)
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            body = getattr(node, field, None)
            if isinstance(body, list) and body and not isinstance(node, ast.Module):
                first, last = body[0], body[-1]
                yield Span(offsets.at(first.lineno, first.col_offset), offsets.at(last.end_lineno, last.end_col_offset), "body")


def line_starts(text: str) -> list[int]:
    """Offset of the first character of every line."""
    starts, at = [0], text.find("\n")
    while at != -1:
        starts.append(at + 1)
        at = text.find("\n", at + 1)
    return starts if starts[-1] < len(text) or len(starts) == 1 else starts[:-1]


def chunks(text: str, lang: str, max_lines: int = 60) -> list[Span]:
    """Pieces of a file worth retrieving: functions and classes of Python, runs of lines elsewhere.

    The pieces do not overlap and cover the file but for blank ends. A class longer than `max_lines` is cut at its
    methods, a longer function at lines.
    """
    starts = line_starts(text)
    bounds = [(line, line_end, kind) for line, line_end, kind in _blocks(text, lang, len(starts), max_lines)]
    spans = []
    for first, last, kind in bounds:
        start, end = starts[first], starts[last] if last < len(starts) else len(text)
        if text[start:end].strip():
            spans.append(Span(start, end, kind))
    return spans


def _blocks(text: str, lang: str, n_lines: int, max_lines: int) -> Iterator[tuple[int, int, str]]:
    """Half-open line ranges (from 0) with their kind, in order."""
    tree = parse_python(text) if lang == "python" else None
    if tree is None:
        yield from _by_lines(0, n_lines, max_lines, "lines")
        return
    offsets = line_starts(text)
    cuts: dict[int, str] = {0: "module"}
    for node in _definitions(tree, max_lines):
        first = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
        cuts[min(first, n_lines)] = type(node).__name__
        end = node.end_lineno or node.lineno
        if end < n_lines:
            cuts.setdefault(end, "module")
    edges = [*sorted(cuts), len(offsets)]
    for first, last in itertools.pairwise(edges):
        yield from _by_lines(first, last, max_lines, cuts[first])


def _definitions(tree: ast.AST, max_lines: int) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node
            if isinstance(node, ast.ClassDef) and (node.end_lineno or node.lineno) - node.lineno >= max_lines:
                yield from _definitions(node, max_lines)


def _by_lines(first: int, last: int, max_lines: int, kind: str) -> Iterator[tuple[int, int, str]]:
    for start in range(first, last, max_lines):
        yield start, min(start + max_lines, last), kind


def line_of(text: str, offset: int) -> int:
    """The line, from 0, that an offset stands in."""
    return bisect_right(line_starts(text), offset) - 1
