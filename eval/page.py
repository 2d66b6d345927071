"""The report as one HTML file that needs nothing beside it: no script, no font, no address, and a policy that forbids them.

In:  blocks of document.py
Out: HTML
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from itertools import groupby

from eval.diff import Piece, diff
from eval.document import Bars, Block, Chart, Code, Example, Fact, Finding, Folded, Heading, Scatter, StepRow, Table, Text
from eval.page_charts import bars, chart, scatter
from eval.page_style import STYLE

POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # whatever a completion holds, the page loads and runs nothing
ARROWS = {"better": "▲", "worse": "▼", "mixed": "◆"}


def html(title: str, lead: str, first: Sequence[Block], blocks: Sequence[Block]) -> str:
    """The whole page: title, one line, what belongs on the first screen, the ways to the sections, and the sections."""
    headings = [block.text for block in blocks if isinstance(block, Heading) and block.level == 2]
    nav = "".join(f'<a href="#{anchor(text)}">{escape(text)}</a>' for text in headings)
    top, body = ("".join(_group(kind, list(some)) for kind, some in groupby(part, type)) for part in (first, blocks))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title><style>{STYLE}</style></head>\n'
        f'<body><main><h1>{escape(title)}</h1><p class="sub">{inline(lead)}</p>{top}<nav>{nav}</nav>\n{body}</main></body></html>\n'
    )


def anchor(text: str) -> str:
    """An id for a heading."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def inline(text: str) -> str:
    """Escaped text with its `code` and **strong** marks turned into elements."""
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", marked)


def _group(kind: type, blocks: list[Block]) -> str:
    inner = "\n".join(map(_block, blocks))
    if kind is StepRow and isinstance(blocks[0], StepRow):
        names = "".join(f'<span class="change">{escape(name)}</span>' for name, _ in blocks[0].changes)
        return f'<ol class="steps"><li class="head"><span>step</span><span>verdict</span>{names}</li>{inner}</ol>\n'
    wrap = {Finding: ("div", "findings"), Fact: ("dl", "facts")}.get(kind) or (("div", "charts") if kind in (Chart, Bars) else None)
    return f'<{wrap[0]} class="{wrap[1]}">{inner}</{wrap[0]}>\n' if wrap else inner + "\n"


def _text(text: str) -> str:
    return f"<p>{inline(text)}</p>"


def _block(block: Block) -> str:
    match block:
        case Heading():
            return f'<h{block.level} id="{anchor(block.text)}">{escape(block.text)}</h{block.level}>'
        case Text():
            return _text(block.text)
        case StepRow():
            changes = "".join(f'<div class="change"><span>{escape(name)}</span>{escape(change)}</div>' for name, change in block.changes)
            return (
                f'<li class="{block.tone}"><div>{escape(block.step)}<span class="who">{escape(block.models)}</span></div>'
                f'<div class="verdict"><strong>{ARROWS.get(block.answer, "=")} {escape(block.answer)}</strong></div>{changes}</li>'
            )
        case Fact():
            return (
                f'<div class="fact {block.tone}"><dt>{inline(block.label)}</dt><dd class="value">{inline(block.value)}</dd>'
                f'<dd class="note">{inline(block.note)}</dd></div>'
            )
        case Finding():
            return (
                f'<div class="finding {block.tone}"><div class="question">{inline(block.question)}</div>'
                f'<div class="answer">{inline(block.answer)}</div>{_text(block.text)}</div>'
            )
        case Table():
            return _table(block)
        case Chart():
            return chart(block)
        case Bars():
            return bars(block)
        case Scatter():
            return scatter(block)
        case Example():
            return _example(block)
        case Code():
            return f"<pre>{escape(block.text)}</pre>"
        case Folded():
            return f"<details><summary>{inline(block.title)}</summary>{_block(block.inside)}</details>"


def _table(table: Table) -> str:
    def cell(tag: str, at: int, text: str) -> str:
        shown = re.sub(r" (\[[^\]]*\])$", r' <span class="range">\1</span>', inline(text))
        words = ' class="words"' if at in table.words else ""
        return f"<{tag}{words}>{shown}</{tag}>"

    head = "".join(cell("th", at, text) for at, text in enumerate(table.head))
    rows = "".join(f"<tr>{''.join(cell('td', at, text) for at, text in enumerate(row))}</tr>" for row in table.rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _example(example: Example) -> str:
    tries = "".join(
        f"<div><h5>{escape(model)} <em>{escape(judged)}</em></h5><pre>{''.join(map(_piece, diff(example.truth, text))) or ' '}</pre></div>"
        for model, text, judged in example.written
    )
    around = f"{escape(example.before)}<mark>hole</mark>{escape(example.after)}"
    return f'<div class="example"><h4>{inline(example.title)}</h4><pre>{around}</pre><div class="tries">{tries}</div></div>'


def _piece(piece: Piece) -> str:
    """Struck out: in the truth only. Underlined: written only. Their blanks and line ends are drawn, so that they can be seen."""
    if piece.kind == "kept":
        return escape(piece.text)
    shown = escape(piece.text).replace("\n", "⏎\n").replace(" ", "·")
    return f"<del>{shown}</del>" if piece.kind == "missing" else f"<ins>{shown}</ins>"
