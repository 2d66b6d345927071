"""The report as one HTML file that needs nothing beside it: no script, no font, no address.

In:  blocks of document.py
Out: HTML; charts are boxes in percent of the width, so they and their text fit any window, light or dark
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape
from itertools import groupby

from eval.document import Block, Chart, Code, Example, Finding, Heading, Mark, Table, Text

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5c6470; --line: #dfe2e7; --paper: #fff; --tint: #f5f6f8;
  --good: #14713d; --good-tint: #e8f5ec; --bad: #b3261e; --bad-tint: #fcecea; --even: #5c6470; --even-tint: #f1f2f4;
  --one: #2457c5; --two: #b45309; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e6ea; --soft: #9aa3b0; --line: #33383f; --paper: #15171a; --tint: #1d2024;
  --good: #6fd197; --good-tint: #16281d; --bad: #ff8a80; --bad-tint: #331a18; --even: #a6aeba; --even-tint: #22262b;
  --one: #8ab0ff; --two: #f0a860; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  font-variant-numeric: tabular-nums; }
main { max-width: 66rem; margin: 0 auto; padding: 2.5rem 1.25rem 5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .6rem; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; margin: 3rem 0 .7rem; padding-top: 1.1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.9rem 0 .5rem; }
p { max-width: 46rem; margin: .6rem 0; }
code { font: .88em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: var(--tint); padding: .08em .3em;
  border-radius: 3px; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: 1.2rem 0; font-size: .93rem; }
a { color: var(--one); text-decoration: none; } a:hover { text-decoration: underline; }
.findings { display: grid; gap: .8rem; margin: 1.2rem 0; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); }
.finding { border-left: 4px solid; border-radius: 4px; padding: .8rem 1rem .9rem; }
.finding p { margin: .35rem 0 0; font-size: .94rem; color: var(--ink); }
.finding .question { font-size: .88rem; color: var(--soft); }
.finding .answer { font-size: 1.15rem; font-weight: 650; }
.good { border-color: var(--good); background: var(--good-tint); } .good .answer { color: var(--good); }
.bad { border-color: var(--bad); background: var(--bad-tint); } .bad .answer { color: var(--bad); }
.even { border-color: var(--even); background: var(--even-tint); } .even .answer { color: var(--even); }
.wide { overflow-x: auto; margin: .9rem 0 1.2rem; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .38rem .8rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--soft); font-size: .84rem; vertical-align: bottom; white-space: normal; }
th:first-child, td:first-child { text-align: left; padding-left: .2rem; position: sticky; left: 0; background: var(--paper); }
td:first-child { font-weight: 550; }
.words { text-align: left; white-space: normal; min-width: 9rem; }
.range { color: var(--soft); font-size: .82rem; display: block; }
.charts { display: grid; gap: 1.5rem 2.5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 23rem), 1fr)); margin: 1.2rem 0; }
figure { margin: 0; } figcaption { font-weight: 600; font-size: .95rem; margin-bottom: .5rem; }
figure .note { color: var(--soft); font-size: .82rem; margin: .3rem 0 0; }
.row { display: grid; grid-template-columns: 4.6rem 1fr; align-items: center; padding: .28rem 0;
  border-top: 1px solid var(--line); font-size: .88rem; }
.mark { display: grid; grid-template-columns: 1fr 3.6rem; align-items: center; gap: .6rem; }
.track { position: relative; height: 1.15rem; }
.track i { position: absolute; top: 50%; height: 3px; margin-top: -1.5px; border-radius: 2px; opacity: .5; background: var(--c); }
.track b { position: absolute; top: 50%; width: 9px; height: 9px; margin: -4.5px 0 0 -4.5px; border-radius: 50%; background: var(--c); }
.mark span { text-align: right; color: var(--c); font-size: .84rem; }
.s0 { --c: var(--one); } .s1 { --c: var(--two); }
.axis { display: flex; justify-content: space-between; margin: .15rem 4.2rem 0 4.6rem; color: var(--soft); font-size: .78rem; }
.key { font-size: .84rem; color: var(--soft); } .key b { color: var(--c); font-weight: 600; margin-right: .8rem; }
pre { margin: .3rem 0; padding: .7rem .9rem; background: var(--tint); border-radius: 5px; white-space: pre-wrap; overflow-wrap: anywhere;
  font: .82rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; tab-size: 4; }
.example { border: 1px solid var(--line); border-radius: 6px; padding: .8rem 1rem 1rem; margin: 1rem 0; }
.example h4 { margin: 0 0 .5rem; font-size: .9rem; font-weight: 550; color: var(--soft); overflow-wrap: anywhere; }
.example mark { background: none; color: var(--one); border: 1px solid; border-radius: 3px; padding: 0 .5em; }
.tries { display: grid; gap: .2rem .9rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); margin-top: .5rem; }
.tries h5 { margin: .4rem 0 0; font-size: .84rem; font-weight: 600; }
.tries h5 em { font-style: normal; font-weight: 400; color: var(--soft); }
@media (max-width: 34rem) { main { padding: 1.5rem .9rem 3rem; } h1 { font-size: 1.55rem; } th, td { padding: .34rem .5rem; }
  .example { padding: .7rem .7rem .8rem; } }
@media print { main { max-width: none; } .example, .finding, figure { break-inside: avoid; } }
"""


def html(title: str, lead: str, blocks: Sequence[Block], first: Sequence[Block] = ()) -> str:
    """The whole page; `first` stands above the lead."""
    headings = [block.text for block in blocks if isinstance(block, Heading) and block.level == 2]
    nav = "".join(f'<a href="#{anchor(text)}">{escape(text)}</a>' for text in headings)
    top, body = ("".join(_group(kind, list(some)) for kind, some in groupby(part, type)) for part in (first, blocks))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main><h1>{escape(title)}</h1>{top}{_text(lead)}<nav>{nav}</nav>\n{body}</main></body></html>\n"
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
    wrap = {Finding: "findings", Chart: "charts"}.get(kind)
    return f'<div class="{wrap}">{inner}</div>\n' if wrap else inner + "\n"


def _text(text: str) -> str:
    return f"<p>{inline(text)}</p>"


def _block(block: Block) -> str:
    match block:
        case Heading():
            return f'<h{block.level} id="{anchor(block.text)}">{escape(block.text)}</h{block.level}>'
        case Text():
            return _text(block.text)
        case Finding():
            return (
                f'<div class="finding {block.tone}"><div class="question">{inline(block.question)}</div>'
                f'<div class="answer">{inline(block.answer)}</div>{_text(block.text)}</div>'
            )
        case Table():
            return _table(block)
        case Chart():
            return _chart(block)
        case Example():
            return _example(block)
        case Code():
            return f"<pre>{escape(block.text)}</pre>"


def _table(table: Table) -> str:
    def cell(tag: str, at: int, text: str) -> str:
        shown = re.sub(r" (\[[^\]]*\])$", r' <span class="range">\1</span>', inline(text))
        words = ' class="words"' if at in table.words else ""
        return f"<{tag}{words}>{shown}</{tag}>"

    head = "".join(cell("th", at, text) for at, text in enumerate(table.head))
    rows = "".join(f"<tr>{''.join(cell('td', at, text) for at, text in enumerate(row))}</tr>" for row in table.rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def axis(lowest: float, highest: float) -> tuple[float, float]:
    """Ends of an axis on round numbers that hold both values; from 0 where that wastes less than half of it."""
    if 0 < lowest < highest / 2:
        lowest = 0.0
    span = (highest - lowest) or abs(highest) or 1.0
    step = 10 ** math.floor(math.log10(span)) / 2
    left, right = math.floor(lowest / step) * step, math.ceil(highest / step) * step
    return left, right if right > left else left + step


def _chart(chart: Chart) -> str:
    marks = [mark for _, some in chart.rows for mark in some if not math.isnan(mark.value)]
    if not marks:
        return f"<figure><figcaption>{escape(chart.title)}</figcaption>{_text('no values')}</figure>"
    low, high = axis(min(mark.low for mark in marks), max(mark.high for mark in marks))
    series = list(dict.fromkeys(mark.series for mark in marks))
    key = "".join(f'<b class="s{at}">● {escape(name)}</b>' for at, name in enumerate(series))
    drawn = [(label, "".join(_mark(mark, series.index(mark.series), low, high) for mark in some)) for label, some in chart.rows]
    rows = "".join(f'<div class="row"><div>{escape(label)}</div><div>{some}</div></div>' for label, some in drawn)
    ends = "".join(f"<span>{value:g}</span>" for value in (low, round((low + high) / 2, 6), high))
    return (
        f'<figure><figcaption>{escape(chart.title)}</figcaption><div class="key">{key}</div>{rows}'
        f'<div class="axis">{ends}</div><p class="note">{escape(chart.note)}</p></figure>'
    )


def _mark(mark: Mark, series: int, low: float, high: float) -> str:
    def at(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    width = round(at(mark.high) - at(mark.low), 2)
    return (
        f'<div class="mark s{series}"><div class="track"><i style="left:{at(mark.low)}%;width:{width}%"></i>'
        f'<b style="left:{at(mark.value)}%"></b></div><span>{escape(mark.shown)}</span></div>'
    )


def _example(example: Example) -> str:
    tries = "".join(
        f"<div><h5>{escape(model)} <em>{escape(judged)}</em></h5><pre>{escape(text) or ' '}</pre></div>"
        for model, text, judged in [("truth", example.truth, ""), *example.written]
    )
    around = f"{escape(example.before)}<mark>hole</mark>{escape(example.after)}"
    return f'<div class="example"><h4>{inline(example.title)}</h4><pre>{around}</pre><div class="tries">{tries}</div></div>'
