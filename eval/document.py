"""A report as a list of blocks, so that Markdown and HTML say the same; and the Markdown.

In:  blocks
Out: Markdown (page.py makes the HTML)

Text may hold `code` and **strong** marks and nothing else; everything is escaped by the renderer.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eval.diff import diff, in_text


@dataclass(frozen=True)
class Heading:
    """A section's title."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Finding:
    """One answer of the verdict: what was asked, the answer in a word, and what it rests on."""

    question: str
    answer: str
    text: str
    tone: str  # good | bad | even


@dataclass(frozen=True)
class Table:
    """Cells of text; the first column is a label, the others are figures unless `words` names them."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[int] = ()


@dataclass(frozen=True)
class Mark:
    """A value with its interval on a chart's axis."""

    series: str
    value: float
    low: float
    high: float
    shown: str


@dataclass(frozen=True)
class Chart:
    """Values with intervals, grouped by row; in Markdown the table beside it says the same."""

    title: str
    rows: Sequence[tuple[str, Sequence[Mark]]]
    note: str


@dataclass(frozen=True)
class StepRow:
    """One step of the chain in a row: who against whom, the verdict in a word, and the changes a user sees."""

    step: str
    models: str
    answer: str
    tone: str  # good | bad | even
    changes: Sequence[tuple[str, str]]  # metric, change with its interval


@dataclass(frozen=True)
class Fact:
    """One figure of the first screen."""

    label: str
    value: str
    note: str
    tone: str = "even"


@dataclass(frozen=True)
class Point:
    """A dot of a scatter plot."""

    key: str  # in the dot, and in the table beside it
    name: str
    x: float
    y: float
    shown: str
    tone: str  # good: recommended | one: the default | even


@dataclass(frozen=True)
class Scatter:
    """Dots over two axes, y logarithmic; in Markdown the table beside it says the same."""

    title: str
    x: str
    y: str
    points: Sequence[Point]
    note: str


@dataclass(frozen=True)
class Bars:
    """Shares of a whole, one bar per row; in Markdown the table beside it says the same."""

    title: str
    rows: Sequence[tuple[str, Sequence[tuple[str, float]]]]  # label, (part, share) in order
    note: str


@dataclass(frozen=True)
class Example:
    """One hole: what stands around it, and what models wrote into it as differences from the truth."""

    title: str
    before: str
    after: str
    truth: str
    written: Sequence[tuple[str, str, str]]  # model, completion, how it was judged


@dataclass(frozen=True)
class Code:
    """Verbatim text."""

    text: str


@dataclass(frozen=True)
class Folded:
    """What is there for who looks for it."""

    title: str
    inside: Table | Code


Block = Heading | Text | Finding | StepRow | Fact | Table | Chart | Scatter | Bars | Example | Code | Folded
PAGE_ONLY = (Chart, Scatter, Bars, Folded)


def markdown(title: str, blocks: Sequence[Block]) -> str:
    """The report as Markdown, without pictures and what is folded away."""
    parts = [f"# {title}", *(_markdown(block) for block in _with_tables(blocks) if not isinstance(block, PAGE_ONLY))]
    return "\n\n".join(parts) + "\n"


def _with_tables(blocks: Sequence[Block]) -> Iterator[Block]:
    """Rows of steps as one table."""
    for kind, some in itertools.groupby(blocks, type):
        if kind is not StepRow:
            yield from some
            continue
        rows = [block for block in some if isinstance(block, StepRow)]
        head = ["step", "", "verdict", *(name for name, _ in rows[0].changes)]
        yield Table(head, [[row.step, row.models, f"**{row.answer}**", *(change for _, change in row.changes)] for row in rows], (1, 2))


def _markdown(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {block.text}"
        case Text():
            return block.text
        case Finding():
            return f"- **{block.question}: {block.answer}.** {block.text}"
        case Fact():
            return f"- **{block.label}: {block.value}.** {block.note}"
        case Table():
            aligned = [":---" if at == 0 or at in block.words else "---:" for at in range(len(block.head))]
            return "\n".join(_line(cells) for cells in (block.head, aligned, *block.rows))
        case Code():
            return fenced(block.text)
        case Example():
            parts = [f"**{block.title}**", fenced(f"{block.before}⟦ ⟧{block.after}"), "truth", fenced(block.truth)]
            for model, completion, judged in block.written:
                parts += [f"{model}: {judged}", fenced(in_text(diff(block.truth, completion)))]
            return "\n\n".join(parts)
        case _:
            return ""


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in cells) + " |"


def fenced(text: str) -> str:
    """A code block whose fence is longer than any in the text."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"
