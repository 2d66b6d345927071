"""Do retrieved pieces make completions right? The same held-out holes with none and with those that each method finds.

In:  held-out holes and files of phase 1, a GGUF
Out: exact match as an editor shows it and of the first line by method, paired differences to no context, tokens of context

A repository's files are indexed as the server would, the file of the hole with them: its own pieces are never shown.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from core.fim import Hole
from core.records import read_parquet
from core.statistics import difference_of_rates, wilson
from core.stops import shown_in
from eval import holes, llama_server, server_model
from eval.holes import HeldOut
from eval.prompts import prompts_of
from eval.retrieval_bench import HidingIndex, methods
from eval.words import Words, words_of_gguf
from phase4_serve.index import put_all
from phase4_serve.retrieve import Around, as_chunks, fill
from phase4_serve.vectors import of_model
from phase4_serve.workspace import Source

SPLITS = ("test_repo", "test_file")
NONE = "none"
MODES = ("bm25", "definitions", "hybrid")
CHUNKS, LIMIT, SLOTS = 4, 48, 8


def run(samples: Path, model: Path, rows: int, budget: int) -> dict[str, Any]:
    """Ask for every hole once per method.

    Raises:
        InputError: no samples, no model.
        MachineError: llama-server is missing or fails.
    """
    words = words_of_gguf(model)
    held, _ = holes.read(samples, SPLITS, -(-rows // len(SPLITS)))
    contexts = _contexts(held, samples, model, words, budget)
    found: dict[str, dict[str, list[bool]]] = {}
    for name, asked in contexts.items():
        prompts = prompts_of(asked, "spm", words, LIMIT)
        with llama_server.fleet(model, SLOTS, llama_server.room(prompts, LIMIT)) as addresses:
            kind = server_model.look(addresses[0])
            written = dict(server_model.ask_llama(addresses, kind, words, prompts, LIMIT))
        found[name] = _judged(held, [written[at].text for at in range(len(held))])
    with_context = {name: sum(bool(hole.context) for hole in asked) for name, asked in contexts.items()}
    tokens = {name: sum(len(words.codec.header(hole)) for hole in asked) / len(asked) for name, asked in contexts.items()}
    return {
        "model": str(model), "holes": len(held), "budget": budget, "with_context": with_context, "tokens": tokens,
        "methods": {name: {measure: _figures(one, found[NONE][measure]) for measure, one in by.items()} for name, by in found.items()},
        "hybrid_over_definitions": difference_of_rates(found["hybrid"]["exact"], found["definitions"]["exact"])._asdict(),
        "definitions_over_bm25": difference_of_rates(found["definitions"]["exact"], found["bm25"]["exact"])._asdict(),
    }  # fmt: skip


def _contexts(held: Sequence[HeldOut], samples: Path, model: Path, words: Words, budget: int) -> dict[str, list[Hole]]:
    """The holes with what each method retrieves for them."""
    files = defaultdict(list)
    for row in read_parquet(samples / "files.parquet", holes.MADE_BY):
        files[row["repo"]].append(Source(row["path"], row["lang"], row["content"]))
    embedding = of_model(model)
    indexes: dict[str, HidingIndex] = {}
    for repo in {one.row["repo"] for one in held}:
        indexes[repo] = HidingIndex(24, "hybrid", embedding)
        put_all(indexes[repo], files[repo])
    by_name = methods(dense=True)

    def count(text: str) -> int:
        return len(words.codec.plain(text))

    def with_pieces(one: HeldOut, name: str) -> Hole:
        around = Around(one.hole.prefix, one.hole.suffix, one.hole.path)
        return replace(one.hole, context=as_chunks(fill(by_name[name](indexes[one.row["repo"]], around), budget, CHUNKS, count)))

    found = {NONE: [replace(one.hole, context=()) for one in held]}
    return found | {name: [with_pieces(one, name) for one in held] for name in MODES}


def _judged(held: Sequence[HeldOut], texts: Sequence[str]) -> dict[str, list[bool]]:
    shown = [shown_in(one.hole, one.row["lang"], text) for one, text in zip(held, texts, strict=True)]
    return {
        "exact": [text.strip() == one.hole.middle.strip() for one, text in zip(held, shown, strict=True)],
        "first line": [_first(text) == _first(one.hole.middle) for one, text in zip(held, shown, strict=True)],
    }


def _first(text: str) -> str:
    return text.strip().split("\n")[0].rstrip()


def _figures(mine: list[bool], none: list[bool]) -> dict[str, Any]:
    return {"rate": wilson(sum(mine), len(mine))._asdict(), "more": difference_of_rates(mine, none)._asdict()}


def show(figures: dict[str, Any]) -> None:
    """Print the table."""
    table = Table("context", "holes with it", "tokens", "exact, as shown", "more than none (p)", "first line", "more than none (p)")
    for name, by in figures["methods"].items():
        cells = []
        for measure in ("exact", "first line"):
            rate, more = by[measure]["rate"], by[measure]["more"]
            cells += [f"{rate['value']:.1%} [{rate['low']:.1%}, {rate['high']:.1%}]"]
            cells += [f"{more['value']:+.1%} (+{more['gained']} -{more['lost']}, p {more['p']:.3f})" if name != NONE else ""]
        table.add_row(name, str(figures["with_context"][name]), f"{figures['tokens'][name]:.0f}", *cells)
    console = Console(width=150)
    console.print(table)
    for name in ("hybrid_over_definitions", "definitions_over_bm25"):
        gap = figures[name]
        console.print(f"{name.replace('_', ' ')}: {gap['value']:+.1%} (+{gap['gained']} -{gap['lost']}, p {gap['p']:.3f})", highlight=False)
    console.print(f"{figures['holes']:,} holes, {figures['budget']} tokens of context at most, {figures['model']}", highlight=False)
