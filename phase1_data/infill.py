"""Choose where the holes of a file are.

In:  a file's text and redactions, a Ruler, SamplesParams, random numbers
Out: windows of whole lines that fit a row and tile the file; spans in them that may be a middle

Span kinds:

    line_rest    from inside a line to its end: what an editor asks most
    lines        one to five whole lines
    node:<Type>  a statement, an expression or a body of Python's syntax tree (AST-FIM, arXiv 2506.00204)
    chars        from anywhere to anywhere (Bavarian et al. 2022, arXiv 2207.14255)
"""

from __future__ import annotations

import itertools
import math
import random
import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from core.records import Row
from core.syntax import Span, line_starts, parse_python, python_bodies, python_nodes
from phase1_data.params import SamplesParams
from phase1_data.tokenizer import Ruler

ATTEMPTS = 8  # spans tried per hole
INSIDE_WORD = 0.15  # of the line_rest spans: a cursor in the middle of a name
FROM_INDENT = 0.7  # of the lines spans: editors put the cursor after the indentation
MAX_LINES = 5
PROSE = 0.3  # weight of a line of comment or docstring beside 1 for a line of code: people complete code
COMMENT = ("#", "//", "/*", "* ")
DULL = frozenset({"Name", "Constant", "Pass", "Break", "Continue"})  # one token, guessed without reading
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
    if not tokens:
        return []
    aim = math.ceil(len(tokens) / math.ceil(len(tokens) / budget))
    edges, first = [0], 0  # characters; the token at which the open window begins
    line, at = 0, 0  # the last line start seen, in characters and in tokens
    for next_line in [*line_starts(text)[1:], len(text)]:
        next_at = bisect_left(tokens, next_line)
        while next_at - first > budget:
            first, cut = (at, line) if at > first else (first + budget, tokens[first + budget])
            edges.append(cut)
        if next_at - first >= aim:
            edges.append(next_line)
            first = next_at
        line, at = next_line, next_at
    return [Window(a, b) for a, b in itertools.pairwise([*edges, len(text)]) if a < b]


class Scene:
    """A file made ready for holes."""

    def __init__(self, text: str, lang: str, redactions: Sequence[Row]) -> None:
        self.text = text
        self.masked = sorted((found["start"], found["end"]) for found in redactions or ())
        tree = parse_python(text) if lang == "python" else None
        spans = {*python_nodes(text, tree), *python_bodies(text, tree)} if tree else set()
        self.nodes = sorted(span for span in spans if span.kind not in DULL and 2 <= span.end - span.start <= 2000)
        self._starts = [span.start for span in self.nodes]
        strings = sorted(span for span in spans if span.kind == "Expr" and text[span.start : span.end].endswith(('"""', "'''")))
        self._strings = strings  # docstrings
        self._string_starts = [span.start for span in strings]

    def is_prose(self, offset: int) -> bool:
        """Whether a line whose first character stands at `offset` is a comment or part of a docstring."""
        at = bisect_right(self._string_starts, offset) - 1
        return self.text.startswith(COMMENT, offset) or (at >= 0 and offset < self._strings[at].end)

    def touches_mask(self, start: int, end: int) -> bool:
        """Whether [start, end] touches a redaction placeholder."""
        return any(a <= end and b >= start for a, b in self.masked)

    def nodes_in(self, window: Window) -> list[Span]:
        """Nodes that lie wholly in a window."""
        low, high = bisect_left(self._starts, window.start), bisect_right(self._starts, window.end)
        return [span for span in self.nodes[low:high] if span.end <= window.end]


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
