"""Do retrieved pieces make completions right? The same held-out holes with none and with those that each method finds.

In:  held-out holes and files of phase 1, a GGUF
Out: exact match as an editor shows it and of the first line by method, paired differences to no context, tokens of context

A repository's files are indexed as the server would, the file of the hole with them: its own pieces are never shown. Two things say
whether a difference could be seen at all: a context that holds the answer itself (`given away`), which a model that reads its context
completes, and the holes in which a method's context holds a name that the answer needs and the text around lacks.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from core.fim import Chunk, Hole
from core.records import read_parquet
from core.statistics import difference_of_rates, wilson
from core.stops import shown_in
from core.syntax import lang_of
from eval import holes, llama_server, server_model
from eval.bench.retrieval_bench import HidingIndex, methods
from eval.holes import HeldOut
from eval.prompts import prompts_of
from eval.words import Words, words_of_gguf
from phase4_serve.definitions import keywords
from phase4_serve.index import put_all
from phase4_serve.retrieve import Around, as_chunks, fill
from phase4_serve.vectors import of_model
from phase4_serve.workspace import Source

SPLITS = ("test_repo", "test_file")
NONE, GIVEN = "none", "given away"
GIVEN_BEFORE, GIVEN_AFTER = 3, 2  # lines around the answer in what gives it away
NAME = re.compile(r"[A-Za-z_]\w{2,}")
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
        "needed": {name: _needed(asked, found[name]["exact"], found[NONE]["exact"]) for name, asked in contexts.items()},
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

    found = {NONE: [replace(one.hole, context=()) for one in held], GIVEN: [_given_away(one.hole) for one in held]}
    return found | {name: [with_pieces(one, name) for one in held] for name in MODES}


def _given_away(hole: Hole) -> Hole:
    """The hole with a context that holds its answer, where a copy of the code stands in another file."""
    before, after = hole.prefix.split("\n")[-GIVEN_BEFORE:], hole.suffix.split("\n")[:GIVEN_AFTER]
    return replace(hole, context=(Chunk(f"copy/{hole.path}", "\n".join(before) + hole.middle + "\n".join(after) + "\n"),))


def _needed(asked: Sequence[Hole], mine: list[bool], none: list[bool]) -> dict[str, Any]:
    """Over the holes whose context holds a name that the answer needs and the text around lacks."""
    where = [at for at, hole in enumerate(asked) if _missing(hole) & set(NAME.findall("\n".join(chunk.text for chunk in hole.context)))]
    return difference_of_rates([mine[at] for at in where], [none[at] for at in where])._asdict()


def _missing(hole: Hole) -> set[str]:
    """Names of the answer that stand nowhere around it."""
    return set(NAME.findall(hole.middle)) - set(NAME.findall(f"{hole.prefix} {hole.suffix}")) - keywords(lang_of(hole.path) or "python")


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
    for name, gap in figures["needed"].items():
        if gap["n"]:
            seen = f"{gap['value']:+.1%} (+{gap['gained']} -{gap['lost']}, p {gap['p']:.3f})"
            console.print(f"{name}: in {gap['n']} holes only the context holds a name that the answer needs; exact {seen}", highlight=False)
    least = ", ".join(f"{name} {by['exact']['more']['smallest_visible']:.1%}" for name, by in figures["methods"].items() if name != NONE)
    console.print(f"the smallest difference to none that would be significant: {least}", highlight=False)
    console.print(f"{figures['holes']:,} holes, {figures['budget']} tokens of context at most, {figures['model']}", highlight=False)
