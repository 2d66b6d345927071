"""The data card's plots as SVG that stands inside the page: its text is text, its colours are the page's own.

In:  numbers
Out: SVG elements; the same numbers give the same bytes

matplotlib draws with stand-in colours, which become the page's CSS variables, so that one drawing serves light, dark and
print.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

# stand-in colour -> CSS variable
COLOURS = {"#010101": "var(--ink)", "#020202": "var(--soft)", "#030303": "var(--line)", "#040404": "var(--one)", "#050505": "var(--two)"}
INK, SOFT, LINE, ONE, TWO = COLOURS
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tabsmith",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}
WIDTH = 4.9  # inches; two stand side by side on a wide page, one fills a phone


def octaves(series: Mapping[str, Sequence[int]], x: str, y: str, first: int = 0) -> str:
    """Counts by powers of two, one step line per series: bin n holds [2^n, 2^(n+1))."""
    last = max((len(counts) for counts in series.values()), default=1)
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]  # its keys are a Literal of 300 names
        figure, axes = _axes(2.75)
        for number, (name, counts) in enumerate(series.items()):
            heights = [*counts, *[0] * (last - len(counts))][first:]
            colour = (ONE, TWO)[number % 2]
            axes.stairs(heights, range(first, last + 1), color=colour, linewidth=1.6, label=name, fill=False)
            axes.stairs(heights, range(first, last + 1), color=colour, alpha=0.13, fill=True)
        axes.set_xticks(range(first, last + 1, 1 if last - first < 9 else 2))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: _short(2 ** int(n))))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{int(n):,}"))
        axes.set_ylim(bottom=0)
        axes.set_xlim(first, last)
        axes.grid(axis="y")
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        if len(series) > 1:
            axes.legend(loc="upper left", bbox_to_anchor=(-0.02, 1.16), ncols=2, handlelength=1.2)
        return _svg(figure)


def bars(rows: Sequence[tuple[str, float, str]], x: str, limit: float | None = None) -> str:
    """One horizontal bar per (name, value, text at its end), in the order given.

    Args:
        x: label of the axis, with its unit.
        limit: end of the axis, where that is known (1 for shares).
    """
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]  # its keys are a Literal of 300 names
        figure, axes = _axes(0.62 + 0.24 * max(len(rows), 1))
        values = [value for _, value, _ in rows]
        end = limit or max([*values, 1e-9]) * 1.0
        axes.barh(range(len(rows)), values, height=0.62, color=ONE, alpha=0.85)
        for at, (_, value, text) in enumerate(rows):
            axes.text(value + end * 0.012, at, text, va="center", ha="left", color=INK, fontsize=8.5)
        axes.set_yticks(range(len(rows)), [name for name, _, _ in rows], color=INK)
        axes.set_ylim(len(rows) - 0.5, -0.5)  # the first on top, no room left over
        axes.set_xlim(0, end * 1.22)
        axes.xaxis.set_major_locator(FixedLocator([limit * at / 4 for at in range(5)]) if limit else MaxNLocator(4))
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(x)
        return _svg(figure)


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    return figure, axes


def _short(value: int) -> str:
    """1,024 as 1k."""
    return f"{value // 2**20}M" if value >= 2**20 else f"{value // 1024}k" if value >= 1024 else str(value)


def _svg(figure: Figure) -> str:
    """The figure as an element for a page: no prologue, no metadata, no ids but those it points to."""
    sink = io.StringIO()
    figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = sink.getvalue()
    text = text[text.index("<svg") :].rstrip()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(#|href="#)([\w-]+)', text))
    text = re.sub(r' id="([\w.-]+)"', lambda found: found[0] if found[1] in used else "", text)
    for colour, variable in COLOURS.items():
        text = text.replace(colour, variable)
    text = re.sub(r"<style.*?</style>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r" ?font-family: [^;\"]*;?", "", text)  # the page's
    return re.sub(r'^<svg [^>]*viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" role="img" preserveAspectRatio="xMinYMin meet">', text)
