"""Choose where the holes of a file are.

In:  a file's text and redactions, a Ruler, SamplesParams, random numbers
Out: windows of whole lines that fit a row and tile the file; spans in them that may be a middle

Span kinds:

    line_rest    from inside a line to its end: what an editor asks most
    lines        one to five whole lines
    node:<Type>  a statement, an expression, a body or the like of the syntax tree (AST-FIM, arXiv 2506.00204)
    chars        from anywhere to anywhere (Bavarian et al. 2022, arXiv 2207.14255)
"""

from __future__ import annotations

import ast
import functools
import itertools
import math
import random
import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from core.records import Row
from core.syntax import Span, line_starts, nodes, parse_python, python_spans
from phase1_data.params import SamplesParams
from phase1_data.tokenizer import Ruler

ATTEMPTS = 8  # spans tried per hole
INSIDE_WORD = 0.15  # of the line_rest spans: a cursor in the middle of a name
FROM_INDENT = 0.7  # of the lines spans: editors put the cursor after the indentation
MAX_LINES = 5
PROSE = 0.3  # weight of a line of comment or docstring beside 1 for a line of code: people complete code
COMMENT = ("#", "//", "/*", "* ")
DULL = frozenset({"Name", "Constant", "Pass", "Break", "Continue", "comment"})  # one token, guessed without reading, or prose
STRING_OR_COMMENT = re.compile(  # of Python; group 1 where it has three quotes
    r'#[^\n]*|("{3}(?:[^"\\]++|\\.|"(?!""))*+"{3}'
    r"|'{3}(?:[^'\\]++|\\.|'(?!''))*+'{3})"
    r'|"(?:[^"\\\n]++|\\.)*+"'
    r"|'(?:[^'\\\n]++|\\.)*+'",
    re.DOTALL,
)
DEFINITION = re.compile(r"(?<=\n\n)(?:@|class |def |async def )")
WORD = re.compile(r"\w+|[^\w\s]")


class Window(NamedTuple):
    """Characters [start, end) of a file."""

    start: int
    end: int


def windows(text: str, ruler: Ruler, budget: int) -> list[Window]:
    """Windows of whole lines, of about equal size, each of at most `budget` tokens; together they are the file.

    A line of more than `budget` tokens is cut between tokens.
    """
    tokens = ruler.token_starts(text)
    if not tokens.size:
        return []
    aim = math.ceil(tokens.size / math.ceil(tokens.size / budget))
    edges, first = [0], 0  # characters; the token at which the open window begins
    line, at = 0, 0  # the last line start seen, in characters and in tokens
    line_ends = [*line_starts(text)[1:], len(text)]
    for next_line, next_at in zip(line_ends, np.searchsorted(tokens, line_ends).tolist(), strict=True):
        while next_at - first > budget:
            first, cut = (at, line) if at > first else (first + budget, int(tokens[first + budget]))
            edges.append(cut)
        if next_at - first >= aim:
            edges.append(next_line)
            first = next_at
        line, at = next_line, next_at
    return [Window(a, b) for a, b in itertools.pairwise([*edges, len(text)]) if a < b]


class Scene:
    """A file made ready for holes. It is parsed when nodes are asked for, and only nodes near the window are made spans."""

    def __init__(self, text: str, lang: str, redactions: Sequence[Row]) -> None:
        self.text, self.lang = text, lang
        self.masked = sorted((found["start"], found["end"]) for found in redactions or ())
        self._found: dict[Window, list[Span]] = {}
        self._trees: dict[tuple[int, int], ast.Module | None] = {}

    def _parsed(self, start: int, end: int) -> ast.Module | None:
        if (start, end) not in self._trees:
            self._trees[start, end] = parse_python(self.text[start:end])
        return self._trees[start, end]

    @functools.cached_property
    def _edges(self) -> list[int]:
        """Where Python's text may be cut to be parsed in parts: its ends, and where functions and classes begin after an empty line."""
        strings = [match.span() for match in self._quoted if "\n" in match[0]]
        starts = [start for start, _ in strings]
        found = (match.start() for match in DEFINITION.finditer(self.text))
        outside = [at for at in found if (place := bisect_right(starts, at)) == 0 or strings[place - 1][1] <= at]
        return [0, *outside, len(self.text)]

    def _python_spans(self, window: Window) -> Iterator[Span]:
        """Nodes near a window. Only the definitions that it meets are parsed: all of a file cost several times as much.

        A cut that is wrong, inside brackets, leaves text that does not parse; then the file is parsed whole.
        """
        first = bisect_right(self._edges, window.start) - 1
        parts = list(itertools.pairwise(self._edges[first : bisect_left(self._edges, window.end, first + 1) + 1]))
        if not all(self._parsed(*part) for part in parts):
            parts = [(0, len(self.text))]
        for start, end in parts:
            above = bisect_right(self._lines, start) - 1
            if tree := self._parsed(start, end):
                for span in python_spans(self.text[start:end], tree, *(bisect_right(self._lines, at) - above for at in window)):
                    yield Span(span.start + start, span.end + start, span.kind)

    @functools.cached_property
    def _quoted(self) -> list[re.Match[str]]:
        return list(STRING_OR_COMMENT.finditer(self.text))

    @functools.cached_property
    def _lines(self) -> list[int]:
        return line_starts(self.text)

    @functools.cached_property
    def _spans(self) -> list[Span]:
        """Every node and comment of a language that tree-sitter reads."""
        return sorted(set(nodes(self.text, self.lang))) if self.lang != "python" else []

    @functools.cached_property
    def _prose(self) -> tuple[list[int], list[int]]:
        """Where comments start and end; of Python, strings of three quotes that begin a line, by a lexer, ten times as fast as a tree."""
        if self.lang != "python":
            comments = [span for span in self._spans if span.kind == "comment"]
            return [span.start for span in comments], [span.end for span in comments]
        found = [match.span() for match in self._quoted if match[1]]
        found = [span for span in found if not self.text[self.text.rfind("\n", 0, span[0]) + 1 : span[0]].strip(" \trRuU")]
        return [start for start, _ in found], [end for _, end in found]

    def is_prose(self, offset: int) -> bool:
        """Whether a line whose first character stands at `offset` is a comment or part of a docstring."""
        starts, ends = self._prose
        at = bisect_right(starts, offset) - 1
        by_sign = not self._spans and self.text.startswith(COMMENT, offset)  # `#` begins no comment in C
        return by_sign or (at >= 0 and offset < ends[at])

    def touches_mask(self, start: int, end: int) -> bool:
        """Whether [start, end] touches a redaction placeholder."""
        return any(a <= end and b >= start for a, b in self.masked)

    @property
    def nodes(self) -> list[Span]:
        """Every node of the file."""
        return self.nodes_in(Window(0, len(self.text)))

    def nodes_in(self, window: Window) -> list[Span]:
        """Nodes that lie wholly in a window."""
        if window not in self._found:
            self._found[window] = self._nodes_in(window)
        return self._found[window]

    def _nodes_in(self, window: Window) -> list[Span]:
        spans = self._spans[bisect_left(self._spans, (window.start,)) : bisect_right(self._spans, (window.end,))]
        if self.lang == "python":
            spans = sorted(set(self._python_spans(window)))
        return [
            span
            for span in spans
            if window.start <= span.start and span.end <= window.end and span.kind not in DULL and 2 <= span.end - span.start <= 2000
        ]


def pick(scene: Scene, window: Window, kind: str, rng: random.Random) -> Span | None:
    """A random span of a kind in a window, None where it holds none; may be blank or touch a mask, which the caller checks."""
    return {"line_rest": _line_rest, "lines": _lines, "node": _node, "chars": _chars}[kind](scene, window, rng)


class _Line(NamedTuple):
    """A line that is not blank, in characters of the file."""

    start: int
    first: int  # after the indentation
    end: int


def _some_line(scene: Scene, lines: list[_Line], rng: random.Random) -> int:
    """Index of a random line, code before prose."""
    weights = [PROSE if scene.is_prose(line.first) else 1.0 for line in lines]
    return rng.choices(range(len(lines)), weights)[0]


def _written_lines(scene: Scene, window: Window) -> list[_Line]:
    found, at = [], window.start
    for line in scene.text[window.start : window.end].split("\n"):
        if line.strip():
            found.append(_Line(at, at + len(line) - len(line.lstrip()), at + len(line)))
        at += len(line) + 1
    return found


def _line_rest(scene: Scene, window: Window, rng: random.Random) -> Span | None:
    lines = _written_lines(scene, window)
    if not lines:
        return None
    _, first, end = lines[_some_line(scene, lines, rng)]
    if rng.random() < INSIDE_WORD:
        return Span(rng.randrange(first, end), end, "line_rest")
    starts = [first + word.start() for word in WORD.finditer(scene.text[first:end])]
    return Span(rng.choice(starts), end, "line_rest") if starts else None


def _lines(scene: Scene, window: Window, rng: random.Random) -> Span | None:
    lines = _written_lines(scene, window)
    if not lines:
        return None
    at = _some_line(scene, lines, rng)
    last = min(at + rng.randint(1, MAX_LINES), len(lines)) - 1
    start = lines[at].first if rng.random() < FROM_INDENT else lines[at].start
    while last > at and scene.text.count("\n", start, lines[last].end) >= MAX_LINES:  # blank lines between count too
        last -= 1
    return Span(start, lines[last].end, "lines")


def _node(scene: Scene, window: Window, rng: random.Random) -> Span | None:
    kinds: dict[str, list[Span]] = defaultdict(list)
    for span in scene.nodes_in(window):
        kinds[span.kind].append(span)
    if not kinds:
        return None
    span = rng.choice(kinds[rng.choice(sorted(kinds))])  # a kind first: calls must not drown the rest
    return span._replace(kind=f"node:{span.kind}")


def _chars(scene: Scene, window: Window, rng: random.Random) -> Span | None:
    length = min(int(2 ** rng.uniform(1, 8)), window.end - window.start)  # 2 to 256 characters, short ones as often as long
    start = rng.randint(window.start, window.end - length)
    return Span(start, start + length, "chars")


def find_span(scene: Scene, window: Window, params: SamplesParams, ruler: Ruler, rng: random.Random) -> Span | None:
    """A span that may be a middle: not blank, short enough, away from masks; None after ATTEMPTS."""
    kinds = sorted(params.span_mix)
    wanted = rng.choices(kinds, [params.span_mix[kind] for kind in kinds])[0]  # type: ignore[index]
    for kind in (*[wanted] * ATTEMPTS, *["line_rest"] * ATTEMPTS):
        span = pick(scene, window, kind, rng)
        if span is None:
            continue
        middle = scene.text[span.start : span.end]
        if middle.strip() and not scene.touches_mask(span.start, span.end) and ruler.count(middle) <= params.max_middle_tokens:
            return span
    return None
