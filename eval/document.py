"""A report as a list of blocks, so that Markdown and HTML say the same; and the Markdown.

In:  blocks
Out: Markdown (page.py makes the HTML)

Text may hold `code` and **strong** marks and nothing else; everything is escaped by the renderer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


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
class Example:
    """One hole: what stands around it, the truth, and what models wrote into it."""

    title: str
    before: str
    after: str
    truth: str
    written: Sequence[tuple[str, str, str]]  # model, completion, how it was judged


@dataclass(frozen=True)
class Code:
    """Verbatim text."""

    text: str


Block = Heading | Text | Finding | Table | Chart | Example | Code


def markdown(title: str, blocks: Sequence[Block]) -> str:
    """The report as Markdown; charts are left out."""
    parts = [f"# {title}", *(_markdown(block) for block in blocks if not isinstance(block, Chart))]
    return "\n\n".join(parts) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {block.text}"
        case Text():
            return block.text
        case Finding():
            return f"- **{block.question}: {block.answer}.** {block.text}"
        case Table():
            aligned = [":---" if at == 0 or at in block.words else "---:" for at in range(len(block.head))]
            return "\n".join(_line(cells) for cells in (block.head, aligned, *block.rows))
        case Code():
            return fenced(block.text)
        case Example():
            parts = [f"**{block.title}**", fenced(f"{block.before}⟦ ⟧{block.after}"), "truth", fenced(block.truth)]
            for model, completion, judged in block.written:
                parts += [f"{model}: {judged}", fenced(completion)]
            return "\n\n".join(parts)
        case _:
            return ""


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in cells) + " |"


def fenced(text: str) -> str:
    """A code block whose fence is longer than any in the text."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"
