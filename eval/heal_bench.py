"""Does token healing help, and what does it cost: holes inside a word, and right behind one, asked with and without.

In:  held-out holes of phase 1, a GGUF
Out: per way: share of words and of lines completed exactly, words made one character at a time; paired counts; CPU milliseconds of
     llama-server for a first token

The cursor stands inside a word of a held-out line, where somebody types. The text before it is encoded as it is (plain), or cut back
to where the word began and the model made to write it again (healed). A model that learnt holes cut anywhere (ours) has seen such
prefixes; one that only learnt to go on with whole text has not.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from core.fim import Codec, FimTokens, Hole, Order
from core.progress import track
from core.records import read_parquet
from core.statistics import wilson
from core.stops import shown
from eval import llama_server
from eval.holes import MADE_BY
from eval.server_model import Address, request
from phase4_serve import model_file
from phase4_serve.heal import Healer, Strip
from phase4_serve.vocabulary import Vocabulary

WORD = re.compile(r"[A-Za-z_]\w{3,}")
TOKENS = 24  # generated per hole
SLOTS, HOLDS = 4, 2048
WAYS = ("plain", "healed")
REPEATS = 24  # of the question whose cost is measured


class Cursor(NamedTuple):
    """A place inside a word."""

    prefix: str
    suffix: str
    word: str  # the rest of the word
    line: str  # the rest of the line


def cursors(samples: Path, count: int, seed: int, where: str) -> list[Cursor]:
    """Places inside words of held-out lines, or behind them, by hash of their rows; comments, mostly licences, are left out.

    Raises:
        InputError: there are no samples.
    """
    rows: list[dict[str, Any]] = []
    for name in ("test_file", "test_repo"):
        held = read_parquet(samples / f"{name}.parquet", MADE_BY)
        rows += [row for row in held if row["span_kind"] == "line_rest" and row["lang"] == "python"]
    rows.sort(key=lambda row: hashlib.sha256(f"{seed} {row['sample_id']}".encode()).digest())
    return [cursor for row in rows for cursor in _of_row(row, random.Random(f"{seed} {row['sample_id']}"), where)][:count]


def _of_row(row: dict[str, Any], chance: random.Random, where: str) -> Iterator[Cursor]:
    line = row["prefix"].rpartition("\n")[2] + row["middle"]
    words = [] if line.lstrip().startswith("#") else list(WORD.finditer(row["middle"]))
    words = [word for word in words if where == "inside" or row["middle"][word.end() :].strip()]
    if words:
        word = chance.choice(words)
        at = chance.randrange(word.start() + 1, word.end()) if where == "inside" else word.end()
        rest = row["middle"][at:]
        yield Cursor(row["prefix"] + row["middle"][:at], row["suffix"], rest[: word.end() - at], rest)


def run(model: Path, samples: Path, count: int, order: Order, seed: int, where: str, cost: bool) -> dict[str, Any]:
    """Ask every place both ways; figures.

    Raises:
        InputError: no samples, or the model's vocabulary has no markers and `order` is not ltr.
        MachineError: llama-server does not start.
    """
    found = cursors(samples, count, seed, where)
    words = Vocabulary(model)
    healer = Healer(words.piece)
    codec = Codec(words.ids, model_file.check(model).tokens if order != "ltr" else FimTokens(*[0] * len(FimTokens._fields)))
    with llama_server.served(model, SLOTS, HOLDS, 1) as address, ThreadPoolExecutor(SLOTS) as pool:
        jobs = [(cursor, way) for cursor in found for way in WAYS]
        done = list(track(pool.map(lambda job: _ask(address, codec, healer, order, *job), jobs), "asked", len(jobs), "holes"))
        figures: dict[str, Any] = {"model": model.name, "order": order, "where": where, "n": len(found), "ways": {}}
        rights = {way: done[WAYS.index(way) :: len(WAYS)] for way in WAYS}
        for way, answers in rights.items():
            for at, name in enumerate(("word", "line")):
                rate = wilson(sum(answer[at] for answer in answers), len(answers))
                figures["ways"].setdefault(way, {})[name] = {"value": rate.value, "low": rate.low, "high": rate.high}
        for at, name in enumerate(("word", "line")):
            pairs = list(zip(rights["plain"], rights["healed"], strict=True))
            figures[f"{name}_gained"] = sum(b[at] and not a[at] for a, b in pairs)
            figures[f"{name}_lost"] = sum(a[at] and not b[at] for a, b in pairs)
    if cost:
        figures["cpu_ms"] = _cost(model, codec, healer, order, found[0])
    return figures


def _ask(address: Address, codec: Codec, healer: Healer, order: Order, cursor: Cursor, way: str) -> tuple[bool, bool]:
    """Whether the rest of the word, and of the line, came out."""
    ids, settings, typed = codec.prompt(Hole(cursor.prefix, cursor.suffix), order), {}, ""
    if way == "healed" and (healed := healer.heal(ids, cursor.prefix)):
        ids, settings, typed = healed.ids, healed.settings, healed.typed
    body = {"prompt": ids, "n_predict": TOKENS + len(typed.encode()), "temperature": 0, "cache_prompt": False, **settings}
    text = Strip(typed).feed(request(address, "POST", "/completion", body)[1]["content"])
    made = re.match(r"\w*", text)
    line = shown(cursor.prefix, cursor.suffix, "python", text)
    return made is not None and made[0] == cursor.word, line.rstrip() == cursor.line.rstrip()


def _cost(model: Path, codec: Codec, healer: Healer, order: Order, cursor: Cursor) -> dict[str, float]:
    """CPU milliseconds of llama-server for one token behind a warm prompt; wall clock would tell of what else runs."""
    ids = codec.prompt(Hole(cursor.prefix, cursor.suffix), order)
    healed = healer.heal(ids, cursor.prefix)
    ways: dict[str, dict[str, Any]] = {"plain": {"prompt": ids}, "n_probs": {"prompt": ids, "n_probs": 1}}
    if healed:
        ways["healed"] = {"prompt": healed.ids, **healed.settings}
    spent = {}
    with llama_server.served(model, 1, HOLDS, 1, ["--poll", "0"]) as address:
        server = next(child for child in psutil.Process().children(recursive=True) if child.name() == "llama-server")
        for name, settings in ways.items():
            for repeat in range(REPEATS + 2):
                if repeat == 2:
                    before = sum(server.cpu_times()[:2])
                request(address, "POST", "/completion", {"n_predict": 1, "temperature": 0, "cache_prompt": True, **settings})
            spent[name] = round(1e3 * (sum(server.cpu_times()[:2]) - before) / REPEATS, 2)
    return spent


def show(figures: dict[str, Any]) -> None:
    """Print the two ways side by side."""
    table = Table("way", "word exact", "rest of line exact", box=SIMPLE)
    for way, rates in figures["ways"].items():
        table.add_row(
            way, *(f"{100 * rate['value']:.1f}% ({100 * rate['low']:.1f} to {100 * rate['high']:.1f})" for rate in rates.values())
        )
    console = Console()
    console.print(f"{figures['model']}, {figures['order']}, {figures['n']} places {figures['where']} a word", table)
    for name in ("word", "line"):
        console.print(f"{name}: healing gained {figures[f'{name}_gained']}, lost {figures[f'{name}_lost']}")
    if "cpu_ms" in figures:
        console.print("CPU ms of a first token:", ", ".join(f"{name} {value}" for name, value in figures["cpu_ms"].items()))
