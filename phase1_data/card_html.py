"""The parts that the data card's page is made of: style, tables, bars, figures.

In:  text and numbers
Out: HTML elements, escaped
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

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
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: 1.4rem 0; font-size: .93rem; }
a { color: var(--one); text-decoration: none; } a:hover { text-decoration: underline; }
.tiles { display: grid; gap: .8rem; margin: 1.4rem 0; grid-template-columns: repeat(auto-fit, minmax(min(100%, 14.5rem), 1fr)); }
.tile { border-left: 4px solid; border-radius: 4px; padding: .7rem .9rem .8rem; }
.tile .what { font-size: .86rem; color: var(--soft); }
.tile .figure { font-size: 1.3rem; font-weight: 650; line-height: 1.35; }
.tile p { margin: .2rem 0 0; font-size: .88rem; color: var(--soft); }
.good { border-color: var(--good); background: var(--good-tint); } .good .figure { color: var(--good); }
.bad { border-color: var(--bad); background: var(--bad-tint); } .bad .figure { color: var(--bad); }
.even { border-color: var(--even); background: var(--even-tint); }
.wide { overflow-x: auto; margin: .9rem 0 1.2rem; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .38rem .8rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--soft); font-size: .84rem; vertical-align: bottom; white-space: normal; }
th:first-child, td:first-child { text-align: left; padding-left: .2rem; }
td:first-child { font-weight: 550; }
.words { text-align: left; white-space: normal; min-width: 10rem; overflow-wrap: anywhere; }
.words div { padding: .05rem 0; } .words code { background: none; padding: 0; } .words em { font-style: normal; color: var(--soft); }
td .bar { display: block; height: .55rem; min-width: 1px; border-radius: 2px; background: var(--one); margin: .48rem 0 0; }
td.bars { width: 16rem; min-width: 8rem; }
.charts { display: grid; gap: 1.5rem 2.5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 23rem), 1fr)); margin: 1.2rem 0;
  align-items: start; }
figure { margin: 0; min-width: 0; } figcaption { font-weight: 600; font-size: .95rem; margin-bottom: .4rem; }
figure svg { display: block; width: 100%; height: auto; max-width: 34rem; }
.diff { border: 1px solid var(--line); border-radius: 6px; padding: .7rem 1rem .8rem; margin: .9rem 0; }
.diff h4 { margin: 0 0 .4rem; font-size: .88rem; font-weight: 550; color: var(--soft); overflow-wrap: anywhere; }
pre { margin: 0; padding: .55rem .8rem; background: var(--tint); border-radius: 5px; white-space: pre-wrap; overflow-wrap: anywhere;
  font: .82rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; tab-size: 4; }
pre span { display: block; padding-left: 1.4em; text-indent: -1.4em; }
pre .before { color: var(--bad); } pre .after { color: var(--good); } pre .around { color: var(--soft); }
.note { color: var(--soft); font-size: .9rem; }
@media (max-width: 34rem) { main { padding: 1.5rem .9rem 3rem; } h1 { font-size: 1.55rem; } th, td { padding: .34rem .5rem; }
  .words { min-width: 8rem; } td.bars { min-width: 4rem; width: 6rem; } .diff { padding: .6rem .7rem .7rem; } }
@media print { @page { margin: 14mm; } body { font-size: 12px; } main { max-width: none; padding: 0; } nav { display: none; }
  .diff, .tile, figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; } .wide { overflow: visible; }
  .tile, td .bar, pre { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""


def inline(text: str) -> str:
    """Escaped text with its `code` marks turned into elements."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def paragraph(text: str, note: bool = False) -> str:
    """One paragraph."""
    return f"<p{' class=note' if note else ''}>{inline(text)}</p>"


class Words(str):
    """A cell of words: left-aligned and wrapped."""


class Html(str):
    """A cell that is HTML already."""


def table(head: Sequence[str], body: Iterable[Sequence[object]]) -> str:
    """A table; ints get thousands separators, columns of Words or Html are left-aligned."""
    lines = [list(line) for line in body]
    words = {at for line in lines for at, cell in enumerate(line) if isinstance(cell, Words | Html)}

    def cell(tag: str, at: int, value: object) -> str:
        text = value if isinstance(value, Html) else f"{value:,}" if isinstance(value, int) else inline(str(value))
        kind = ' class="bars"' if isinstance(value, Html) and "bar" in value[:20] else ' class="words"' if at in words else ""
        return f"<{tag}{kind}>{text}</{tag}>"

    top = "".join(cell("th", at, name) for at, name in enumerate(head))
    rest = "".join(f"<tr>{''.join(cell('td', at, value) for at, value in enumerate(line))}</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{rest}</tbody></table></div>'


def bar(share: float) -> Html:
    """A bar of a share of its cell."""
    return Html(f'<i class="bar" style="width:{100 * share:.1f}%"></i>')


def figure(title: str, svg: str) -> str:
    """A plot with its title."""
    return f"<figure><figcaption>{inline(title)}</figcaption>{svg}</figure>"


def charts(*figures: str) -> str:
    """Plots side by side where there is room."""
    return f'<div class="charts">{"".join(figures)}</div>'


def mb(size: float) -> str:
    """Bytes as MB (10^6)."""
    return f"{size / 1e6:,.2f}"


def percent(part: float, whole: float) -> str:
    """A share in percent, "–" of nothing."""
    return f"{100 * part / whole:.1f}%" if whole else "–"
