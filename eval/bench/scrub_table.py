"""The comparison of scrubbers as a table: for people on a terminal, as Markdown where it is piped.

In:  figures of scrub_bench.run
Out: lines on stdout
"""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.table import Table

from core.records import Row
from eval.bench.scrub_bench import PREFIXED

FIRST = ("email", "ipv4", "ipv6", "home_directory")  # of the personal families; the others follow


def lines(figures: Row) -> Iterator[tuple[str, list[str]]]:
    """What is measured, and its figure for each system."""
    systems = list(figures["systems"].values())

    def line(label: str, figure: Callable[[Row], str]) -> tuple[str, list[str]]:
        return label, [figure(system) for system in systems]

    def share(label: str, kind: str, wanted: Callable[[str], bool] = lambda _: True) -> tuple[str, list[str]]:
        rows = sum(total for family, (_, total) in systems[0]["families"][kind].items() if wanted(family))
        return line(f"{label} (of {rows:,})", lambda system: _share(system["families"][kind], wanted))

    yield share("secrets masked", "secret")
    yield share("secrets masked, no vendor's prefix", "secret", lambda family: family != PREFIXED)
    yield share("harmless rows changed", "harmless")
    families = systems[0]["families"]["personal"]
    for family in [*(name for name in FIRST if name in families), *(name for name in families if name not in FIRST)]:
        yield share(f"{family.replace('_', ' ')} masked", "personal", functools.partial(operator.eq, family))
    yield share("impersonal rows changed", "impersonal")
    yield line("left after masking, rows", lambda system: f"{system['left_in_rows']:,}")
    yield line("left after masking, files", lambda system: f"{system['left_in_files']:,}")
    yield line(f"files changed (of {figures['files']['count']:,})", lambda system: f"{system['changed']:,}")
    yield line("findings per MB of files", lambda system: f"{system['found_per_mb']:,.1f}")
    yield line("Python files that still parse", lambda system: "{:,} of {:,}".format(*system["parsed"]))
    yield line("MB/s per core", lambda system: f"{system['mb_per_s']:.2f}")
    yield line("times detect-secrets", lambda system: f"{system['mb_per_s'] / systems[1]['mb_per_s']:.1f}")


def _share(families: dict[str, list[int]], wanted: Callable[[str], bool]) -> str:
    chosen = [counts for family, counts in families.items() if wanted(family)]
    total = sum(count for _, count in chosen)
    return f"{100 * sum(hits for hits, _ in chosen) / total:.1f}%" if total else "-"


def notes(figures: Row) -> Iterator[str]:
    """What a reader must know to read the table."""
    files, scaling, machine = figures["files"], figures["scaling"], figures["machine"]
    seconds = {processes: sorted(taken)[len(taken) // 2] for processes, taken in scaling["seconds"].items()}
    on = " and ".join(f"{taken:.2f} s on {processes}" for processes, taken in seconds.items())
    yield f"Two processes: tabsmith masks the same files in {on}, wall clock after a warm-up: {scaling['times']:.2f} times as fast."
    if every := figures.get("every_file"):
        still = 100 * (1 - every["broken"] / every["files"])
        yield (
            f"tabsmith on every file of the source: {every['files']:,} files, {every['bytes'] / 1e6:,.0f} MB, "
            f"{every['changed']:,} changed, {every['left']:,} findings left, {every['broken']:,} parse no longer ({still:.2f}% as before)."
        )
    of = f"{files['count']:,} files, {files['bytes'] / 1e6:.1f} MB"
    yield f"{of}, the first in hash order. MB/s: CPU time of one process, the systems in turn, median of {files['rounds']} rounds."
    yield f"{machine['cores']} cores, which other work may share: the ratios count, not the seconds."
    yield "Masked: more than 90% of the value. Peers get every place of every value that they report, in files of the row's own name."
    yield _DETECT_SECRETS
    yield _BIGCODE


_DETECT_SECRETS = (
    "detect-secrets: default plugins and filters through its Python API, no verification. Of personal data it looks for public IPv4 only, "
    "which its own filter of values without letters then takes out."
)
_BIGCODE = (
    "BigCode's rules: written again from what it published, without the gibberish filter of keys (its model is not at hand), which would "
    "lower the secrets masked and the harmless rows changed. One `hash` in a file under 50 lines leaves all the file's keys."
)


def show(figures: Row) -> None:
    """Print the table and its notes."""
    headers = list(figures["systems"])
    if not sys.stdout.isatty():
        print("\n".join(["| | " + " | ".join(headers) + " |", "|---" * (len(headers) + 1) + "|"]))
        print("\n".join(f"| {label} | {' | '.join(cells)} |" for label, cells in lines(figures)), end="\n\n")
        print("\n".join(notes(figures)))
        return
    table = Table("", *headers)
    for column in table.columns[1:]:
        column.justify = "right"
    for label, cells in lines(figures):
        table.add_row(label, *cells)
    console = Console()
    console.print(table)
    for note in notes(figures):
        console.print(note, markup=False)
