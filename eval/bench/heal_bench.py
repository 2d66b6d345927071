"""Does token healing help, and what does it cost: holes inside a word, and right behind one, asked with and without.

In:  held-out holes of phase 1, a GGUF
Out: per way: share of words and of lines completed exactly, paired counts; milliseconds, processor time and tokens until the first
     text that is new, by how many letters of a word are typed

The cursor stands inside a word of a held-out line, where somebody types. The text before it is encoded as it is (plain), or cut back
and the model made to write it again: by a grammar from the word's beginning, as llama.cpp can (grammar), or as the server does it
(healed). A model that learnt holes cut anywhere (ours) has seen such prefixes; one that only learnt to go on with whole text has not.

The cost is that of typing: the letters of a word come one by one, each way has a slot of its own, and the ways take turns at each letter.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator
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
from eval.server_model import Address
from phase4_serve import model_file
from phase4_serve.backend import Backend, BackendDown
from phase4_serve.heal import LONGEST, TYPED, Healer, Strip
from phase4_serve.scheduler import Job, Rank, Scheduler

WORD = re.compile(r"[A-Za-z_]\w{3,}")
TOKENS = 24  # generated per hole
SLOTS, HOLDS = 3, 2048
WAYS = ("plain", "grammar", "healed")
LETTERS = (1, 2, 3, 5, 8)  # of a word typed, at which the cost is measured
BEFORE, AFTER = 450, 120  # characters around the cursor there


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


class Question(NamedTuple):
    """What is asked at a cursor."""

    job: Job
    typed: str  # that the answer begins with


class Asker:
    """Asks one llama-server as the server does."""

    def __init__(self, model: Path, address: Address, order: Order, at_once: int) -> None:
        assert address.path is not None
        self.backend, self.order = Backend(address.path, model), order
        tokens = model_file.check(model).tokens if order != "ltr" else FimTokens(*[0] * len(FimTokens._fields))
        self.codec, self.healer = Codec(self.backend.ids, tokens), Healer(self.backend)
        self.scheduler = Scheduler(self.backend, SLOTS, 10_000, at_once)

    def question(self, cursor: Cursor, way: str, session: str, tokens: int = TOKENS) -> Question:
        """A cursor's question, one of three ways."""
        ids = self.codec.prompt(Hole(cursor.prefix, cursor.suffix), self.order)
        settings: dict[str, Any] = {"temperature": 0, "n_predict": tokens}
        job = Job(session, Rank.TYPING, ids, settings)
        if way == "grammar" and (cut := by_word(self.backend.piece, ids, cursor.prefix)):
            settings |= {"grammar": grammar(cut[1]), "n_predict": tokens + len(cut[1])}
            return Question(job._replace(ids=cut[0]), cut[1])
        if way == "healed" and (healed := self.healer.heal(ids, cursor.prefix)):
            return Question(job._replace(ids=healed.ids, lead=self.healer.lead(healed.typed, settings)), healed.typed)
        return Question(job, "")


def by_word(piece: Callable[[int], bytes], ids: list[int], prefix: str) -> tuple[list[int], str] | None:
    """A prompt cut back to where the word began that its text ends in, and what was cut off."""
    word, dropped, at = TYPED.search(prefix[-LONGEST - 2 :]), b"", len(ids)
    if word is None or re.search(rf"(?<!\w){re.escape(word[0])}(?!\w)", prefix[: -len(word[0])]):
        return None
    while len(dropped) < len(word[0].encode()):
        at -= 1
        dropped = piece(ids[at]) + dropped
    return ids[:at], dropped.decode()


def grammar(typed: str) -> str:
    """GBNF: the text, then anything."""
    escaped = "".join(f"\\U{ord(character):08X}" for character in typed)
    return f'root ::= "{escaped}" [\\U00000000-\\U0010FFFF]*'


def run(model: Path, samples: Path, count: int, order: Order, seed: int, where: str, words: int) -> dict[str, Any]:
    """Ask every place each way; figures.

    Args:
        count: places whose completions are judged; 0: none, of a model whose weights are random.
        words: words typed to measure the cost; 0: none.

    Raises:
        InputError: no samples, or the model's vocabulary has no markers and `order` is not ltr.
        MachineError: llama-server does not start.
    """
    figures: dict[str, Any] = {"model": model.name, "order": order, "where": where}
    if count:
        found = cursors(samples, count, seed, where)
        with llama_server.served(model, SLOTS + 1, HOLDS, 1) as address:
            figures |= asyncio.run(_quality(Asker(model, address, order, SLOTS), found))
    if words:
        typed = long_words(cursors(samples, 1 << 30, seed, "inside"), words)
        with llama_server.served(model, SLOTS + 1, HOLDS, 1, ["--poll", "0"]) as address:
            figures["cost"] = asyncio.run(_cost(Asker(model, address, order, 1), typed))
    return figures


async def _quality(asker: Asker, found: list[Cursor]) -> dict[str, Any]:
    """Whether the rest of the word, and of the line, came out."""

    async def ask(number: int, way: str) -> tuple[bool, bool]:
        cursor, text = found[number], ""
        question = asker.question(cursor, way, f"{number} {way}")
        strip = Strip(question.typed)
        async with contextlib.aclosing(asker.scheduler.run(question.job)) as events:
            async for event in events:
                text += strip.feed(event.content)
        made = re.match(r"\w*", text)
        line = shown(cursor.prefix, cursor.suffix, "python", text)
        return made is not None and made[0] == cursor.word, line.rstrip() == cursor.line.rstrip()

    turns = asyncio.Semaphore(SLOTS)

    async def in_turn(number: int, way: str) -> tuple[bool, bool]:
        async with turns:
            return await ask(number, way)

    asked = [asyncio.create_task(in_turn(number, way)) for number in range(len(found)) for way in WAYS]
    done = [await task for task in track(asked, "asked", len(asked), "holes")]
    figures: dict[str, Any] = {"n": len(found), "ways": {}}
    rights = {way: done[at :: len(WAYS)] for at, way in enumerate(WAYS)}
    for way, answers in rights.items():
        for at, name in enumerate(("word", "line")):
            rate, pairs = wilson(sum(answer[at] for answer in answers), len(answers)), list(zip(rights["plain"], answers, strict=True))
            figures["ways"].setdefault(way, {})[name] = {
                "value": rate.value, "low": rate.low, "high": rate.high,
                "gained": sum(b[at] and not a[at] for a, b in pairs), "lost": sum(a[at] and not b[at] for a, b in pairs),
            }  # fmt: skip
    return figures


def long_words(found: list[Cursor], count: int) -> list[Cursor]:
    """Cursors before words of more letters than are typed; `line` begins with the word."""
    places = []
    for cursor in found:
        begun = re.search(r"\w*\Z", cursor.prefix)
        before, word = cursor.prefix[: -len(begun[0])] if begun and begun[0] else cursor.prefix, (begun[0] if begun else "") + cursor.word
        if len(word) > max(LETTERS) and not re.search(rf"(?<!\w){re.escape(word)}(?!\w)", before):
            places.append(Cursor(before[-BEFORE:], cursor.suffix[:AFTER], word, word + cursor.line[len(cursor.word) :]))
    return places[:count]


async def _cost(asker: Asker, words: list[Cursor]) -> dict[str, Any]:
    """What the first text that is new costs, by letters typed and way."""
    server = next(child for child in psutil.Process().children(recursive=True) if child.name() == "llama-server")
    spent: dict[str, dict[str, list[dict[str, float]]]] = {way: {str(letters): [] for letters in LETTERS} for way in WAYS}
    asker.healer.pieces.begin_with(b"a")  # in order before the clock starts
    for cursor in track(words, "typed", len(words), "words"):
        for letters in range(max(LETTERS) + 1):
            for way in WAYS:
                typed = Cursor(cursor.prefix + cursor.word[:letters], cursor.suffix, "", "")
                found = await _first(asker, asker.question(typed, way, way, 1), way == "grammar", server.pid)
                if letters in LETTERS and found:
                    spent[way][str(letters)].append(found)
    return {
        way: {
            letters: {
                "n": len(rows),
                **{name: round(statistics.median(row[name] for row in rows), 2) for name in ("ms", "cpu_ms", "own_cpu_ms") if rows},
                **{name: round(statistics.mean(row[name] for row in rows), 2) for name in ("prompt", "tokens") if rows},
            }
            for letters, rows in {**by_letters, "all": [row for rows in by_letters.values() for row in rows]}.items()
        }
        for way, by_letters in spent.items()
    }


async def _first(asker: Asker, question: Question, alone: bool, pid: int) -> dict[str, float] | None:
    """From the question to the first text beyond what was typed, or to the end, where tokens that are half characters say nothing.

    Args:
        alone: in a slot that the scheduler does not use. Under a grammar llama-server breaks off with an error at half a character,
            which the scheduler would take for a death; None then.
    """
    strip, tokens, job = Strip(question.typed), 0, question.job
    row: dict[str, float] | None = None
    cpu, own, began = _cpu(pid), time.process_time(), time.perf_counter()
    events = asker.backend.complete(job.ids, {**job.settings, "id_slot": SLOTS}) if alone else asker.scheduler.run(job)
    with contextlib.suppress(BackendDown):
        async with contextlib.aclosing(events):
            async for event in events:
                tokens += len(event.tokens)
                if row is None and (strip.feed(event.content) or event.stop):
                    ended, spent, mine = time.perf_counter(), _cpu(pid), time.process_time()
                    row = {"ms": 1e3 * (ended - began), "cpu_ms": 1e3 * (spent - cpu), "own_cpu_ms": 1e3 * (mine - own)}
                    row |= {"tokens": tokens, "prompt": event.timings.get("prompt_n", 0)}
    return row  # read to the end: what is aborted would still be at work when the next is asked


def _cpu(pid: int) -> float:
    """Seconds of processor time of a process, to the nanosecond where the kernel tells them."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9
    except OSError:
        return float(sum(psutil.Process(pid).cpu_times()[:2]))


def show(figures: dict[str, Any]) -> None:
    """Print the ways side by side."""
    console = Console()
    if "ways" in figures:
        table = Table("way", "word exact", "rest of line exact", "lines gained", "lost", box=SIMPLE)
        for way, rates in figures["ways"].items():
            share = [f"{100 * rate['value']:.1f}% ({100 * rate['low']:.1f} to {100 * rate['high']:.1f})" for rate in rates.values()]
            table.add_row(way, *share, str(rates["line"]["gained"]), str(rates["line"]["lost"]))
        console.print(f"{figures['model']}, {figures['order']}, {figures['n']} places {figures['where']} a word", table)
    if "cost" in figures:
        table = Table("letters", "way", "n", "ms", "CPU ms", "our CPU ms", "prompt", "tokens", box=SIMPLE)
        for letters in [*map(str, LETTERS), "all"]:
            for way, rows in figures["cost"].items():
                row = rows[letters]
                table.add_row(letters, way, *(str(row.get(name, "")) for name in ("n", "ms", "cpu_ms", "own_cpu_ms", "prompt", "tokens")))
        console.print(f"{figures['model']}: until the first new text, medians; tokens read and written on average", table)
