"""Pictures of the report: dots with intervals, stacked bars, a scatter plot.

In:  Chart, Bars, Scatter of document.py
Out: HTML and SVG whose places are percents of the width and whose text keeps its size in any window
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from eval.document import Bars, Chart, Mark, Scatter

HEIGHT = 260  # pixels between the axes of a scatter plot
LEFT, RIGHT = 11.0, 96.0  # percent of the width
SERIES = 6  # colours of the style sheet


def axis(lowest: float, highest: float) -> tuple[float, float]:
    """Ends of an axis on round numbers that hold both values; from 0 where that wastes less than half of it."""
    if 0 < lowest < highest / 2:
        lowest = 0.0
    span = (highest - lowest) or abs(highest) or 1.0
    step = 10 ** math.floor(math.log10(span)) / 2
    left, right = math.floor(lowest / step) * step, math.ceil(highest / step) * step
    return left, right if right > left else left + step


def figure(title: str, inside: str, note: str) -> str:
    """A picture with its title and what to know to read it."""
    return f'<figure><figcaption>{escape(title)}</figcaption>{inside}<p class="note">{escape(note)}</p></figure>'


def legend(names: Sequence[str]) -> str:
    """The colours and whose they are."""
    keys = (f'<b class="s{at % SERIES}">● {escape(name)}</b>' for at, name in enumerate(names))
    return f'<div class="key">{"".join(keys)}</div>'


def chart(chart: Chart) -> str:
    """Dots with intervals on one axis, a row per label."""
    marks = [mark for _, some in chart.rows for mark in some if not math.isnan(mark.value)]
    if not marks:
        return f"<figure><figcaption>{escape(chart.title)}</figcaption><p>no values</p></figure>"
    low, high = axis(min(mark.low for mark in marks), max(mark.high for mark in marks))
    series = list(dict.fromkeys(mark.series for mark in marks))
    drawn = [(label, "".join(_mark(mark, series.index(mark.series), low, high) for mark in some)) for label, some in chart.rows]
    rows = "".join(f'<div class="row"><div>{escape(label)}</div><div>{some}</div></div>' for label, some in drawn)
    ends = "".join(f"<span>{value:g}</span>" for value in (low, round((low + high) / 2, 6), high))
    return figure(chart.title, f'{legend(series)}{rows}<div class="axis">{ends}</div>', chart.note)


def _mark(mark: Mark, series: int, low: float, high: float) -> str:
    def at(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    width = round(at(mark.high) - at(mark.low), 2)
    return (
        f'<div class="mark s{series % SERIES}"><div class="track"><i style="left:{at(mark.low)}%;width:{width}%"></i>'
        f'<b style="left:{at(mark.value)}%"></b></div><span>{escape(mark.shown)}</span></div>'
    )


def bars(bars: Bars) -> str:
    """Shares of a whole, a bar per row."""
    names = list(dict.fromkeys(name for _, parts in bars.rows for name, _ in parts))
    rows = ""
    for label, parts in bars.rows:
        pieces = "".join(
            f'<i class="s{names.index(name) % SERIES}" style="width:{100 * share:.2f}%" title="{escape(name)} {100 * share:.1f}%"></i>'
            for name, share in parts
        )
        rows += f'<div class="row"><div>{escape(label)}</div><div class="stack">{pieces}</div></div>'
    return figure(bars.title, legend(names) + rows, bars.note)


def scatter(plot: Scatter) -> str:
    """Numbered dots, x linear, y logarithmic; two of them named."""
    points = [point for point in plot.points if point.x > 0 and point.y > 0]
    if not points:
        return f"<figure><figcaption>{escape(plot.title)}</figcaption><p>no values</p></figure>"
    low, high = axis(min(point.x for point in points), max(point.x for point in points))
    bottom, top = (math.log10(end(point.y for point in points)) for end in (min, max))
    bottom, top = bottom - 0.08, max(top, bottom + 0.2) + 0.08

    def across(x: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * (x - low) / (high - low), 2)

    def down(y: float) -> float:
        return round(10 + HEIGHT * (top - math.log10(y)) / (top - bottom), 1)

    parts = [f'<text x="0" y="8">{escape(plot.y)}</text><text x="{RIGHT}%" y="{HEIGHT + 46}" text-anchor="end">{escape(plot.x)}</text>']
    for tick in _ticks(10**bottom, 10**top):
        parts.append(f'<line x1="{LEFT}%" x2="100%" y1="{down(tick)}" y2="{down(tick)}"/>')
        parts.append(f'<text x="{LEFT - 1}%" y="{down(tick) + 4}" text-anchor="end">{tick:g}</text>')
    for value in (low, (low + high) / 2, high):
        parts.append(f'<text x="{across(value)}%" y="{HEIGHT + 28}" text-anchor="middle">{value:g}</text>')
    for point in sorted(points, key=lambda point: point.tone != "even"):  # those that matter on top
        where = f'<circle cx="{across(point.x)}%" cy="{down(point.y)}" r="10"><title>{escape(point.shown)}</title></circle>'
        name = _name(point.name, across(point.x), down(point.y)) if point.tone != "even" else ""
        parts.append(f'<g class="{point.tone}">{where}<text class="in" x="{across(point.x)}%" y="{down(point.y) + 4}">')
        parts.append(f"{escape(point.key)}</text>{name}</g>")
    return figure(plot.title, f'<svg role="img" aria-label="{escape(plot.title)}">{"".join(parts)}</svg>', plot.note)


def _name(name: str, x: float, y: float) -> str:
    """Beside the dot, on the side where there is room."""
    side = ("end", "-14") if x > (LEFT + RIGHT) / 2 else ("start", "14")
    return f'<text class="name" x="{x}%" dx="{side[1]}" y="{y - 9}" text-anchor="{side[0]}">{escape(name)}</text>'


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two values."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [round(digit * 10.0**power, 9) for power in powers for digit in (1, 2, 5) if low <= digit * 10.0**power <= high]
