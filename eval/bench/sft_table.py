"""The comparison of trainers as a Markdown table.

In:  figures of sft_bench.run
Out: lines on stdout
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from core.records import Row
from eval.bench.sft_bench import peak_flops


def lines(figures: Row) -> Iterator[str]:
    """The tables of all tasks, each with what a reader must know."""
    peak = peak_flops(figures["gpu"])
    for name, task in figures["tasks"].items():
        yield f"### {name}: {figures['rows']:,} rows, {task['tokens_per_row']:,.0f} tokens a row, {task['rows_per_step']} rows a step"
        yield ""
        utilised = "| model FLOPs used " if peak else ""
        yield f"| system | tokens/s | of plain trl | losses apart | valid loss | peak memory, MB | peak GPU, MB {utilised}|"
        yield "|---" * (8 if peak else 7) + "|"
        for system, measured in task["systems"].items():
            yield _row(system, measured, peak)
        yield ""
    yield (
        f"{figures['steps']} steps a run, the median step's speed, {figures['rounds']} rounds in turn (lowest to highest in brackets); "
        f"{figures['gpu'] or 'CPU'}, {figures['threads']} thread(s)."
    )
    yield (
        "Losses apart: the largest difference to plain trl, over means of five steps. At 4 bits plain trl rounds the adapter to bfloat16, "
        "ours keeps float32. Valid loss: nats per token of held-out middles; ours is that of the better of first and last weights."
    )
    if peak:
        yield f"Model FLOPs: 6 N + 12 L h T per token against {peak[1] / 1e12:,.0f} TFLOP/s dense at 16 bits ({peak[0]}, data sheet)."
    yield ", ".join(f"{package} {version}" for package, version in figures["versions"].items())


def _row(system: str, measured: Row, peak: tuple[str, float] | None) -> str:
    rate = statistics.median(measured["tokens_per_s"])
    cells = [
        system,
        f"{rate:,.0f}",
        _spread(measured["ratio"]),
        "-" if measured["apart"] is None else f"{measured['apart']:.1e}",
        f"{measured['valid_loss']:.4f}",
        f"{measured['peak_memory_mb']:,.0f}",
        f"{measured['peak_gpu_mb']:,.0f}" if measured["peak_gpu_mb"] else "-",
    ]
    if peak:
        cells.append(f"{100 * rate * measured['flops_per_token'] / peak[1]:.1f}%")
    return f"| {' | '.join(cells)} |"


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def show(figures: Row) -> None:
    """Print the tables."""
    for line in lines(figures):
        print(line)
