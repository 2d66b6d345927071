"""How long somebody who types waits: a replay of keystrokes through `up`, and the same through llama-server's own `/infill`.

In:  a GGUF
Out: milliseconds per key and what they are made of, each beside what was asked for

Every system runs on this machine in this run, and they take turns, a block of keys each, so that a busy machine slows all of them.
While one has its turn the others are quiet. The peers get as many tokens of context as our server chose for itself, in a window that
never moves, in one slot that is theirs: better than any editor treats them.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import InputError, MachineError
from eval.bench import keystrokes, serving
from eval.bench.clock import Clock, Timed, quantile, spread
from eval.bench.keystrokes import Key
from eval.bench.serving import Server

LINE = 8  # tokens of a first line
BLOCKS = 4  # turns of each system
HEAD_START = 2  # of ours, before the peers are started: how much context they get is what ours has come to by then
FILES = ("rich/console.py", "rich/progress.py", "rich/text.py")  # typed by hand; typed automatically; typed at a pace; jumped in: the first
SUFFIX, CONTEXT = 192, 320  # tokens that a peer gets after the cursor and from other files; the rest of our prompt's length goes before it
PEERS = {"infill": (), "infill_spm": ("--spm-infill",), "infill_reuse": ("--cache-reuse", "256"), "infill_vim": ()}
VIM = "infill_vim"  # the same server, asked with llama.vim's own windows: more text than ours, and moved with every line
VIM_PREFIX, VIM_SUFFIX = 256, 64  # lines
STILL = 4.5  # seconds without work after which nothing more is to come: better pieces are looked for after three
PAUSE = 1.0  # seconds before a jump: somebody looks for the function first
AFTER_JUMP = 3  # keys typed behind a jump
PACE = 0.125  # seconds per key: eight a second, a fast typist
THROUGH = 12  # places at which what was predicted is typed


class Plan(NamedTuple):
    """How much is asked."""

    model: Path
    keys: int = 200
    peer_keys: int = 40
    jumps: int = 24
    flags: tuple[str, ...] = ()  # of `up`


class Typist:
    """Somebody who types in one file through our server."""

    def __init__(self, server: Server, root: Path, path: str, name: str) -> None:
        self.clock, self.server = Clock(server.address), server
        self.fixed = {"path": str(root / path), "user": name, "temperature": 0.0}

    def ask(self, key: Key, tokens: int | None = LINE, manual: bool = True, clock: Clock | None = None) -> Timed:
        """The answer at a key."""
        asked = {"prompt": key.prefix, "suffix": key.suffix, "manual": manual, **({} if tokens is None else {"max_tokens": tokens})}
        return (clock or self.clock).ask("/v1/completions", {**self.fixed, **asked})


class Peer:
    """llama-server's `/infill` as llama.vim asks it, with a window that stands still."""

    def __init__(self, server: Server, opened: Key, length: int, extra: list[dict[str, str]]) -> None:
        self.clock, self.server = Clock(server.address), server
        self.after = self._head(opened.suffix, SUFFIX)
        room = max(64, length - SUFFIX - sum(self.count(item["text"]) for item in extra) - 24)
        self.begin, self.extra = self._begin(opened.prefix, room), extra

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.ids(text))

    def ids(self, text: str) -> list[int]:
        """Ids of a text."""
        status, said = serving.request(self.server.address, "POST", "/tokenize", {"content": text})
        if status != 200:
            raise MachineError(f"llama-server does not tokenize ({status}): check its build")
        return [int(token) for token in said["tokens"]]

    def _head(self, text: str, tokens: int) -> str:
        """So many tokens of a text's start, as far as the last line that fits."""
        lines = list(itertools.accumulate(text.splitlines(keepends=True)))
        return next((head for head in reversed(lines[:80]) if self.count(head) <= tokens), "")

    def _begin(self, text: str, tokens: int) -> int:
        """Where a window of so many tokens begins, at the start of a line."""
        at = len(text)
        while at > 0 and self.count(text[at:]) < tokens:
            at = text.rfind("\n", 0, at - 1) + 1
        return at

    def windows(self, key: Key) -> tuple[str, str]:
        """What is sent of the text before and after the cursor."""
        return key.prefix[self.begin :], self.after

    def ask(self, key: Key) -> Timed:
        """The answer at a key."""
        window, after = self.windows(key)
        line = window.rfind("\n") + 1
        sampling = {"temperature": 0.0, "n_predict": LINE, "top_k": 40, "top_p": 0.99, "samplers": ["top_k", "top_p"]}
        asked = {"input_prefix": window[:line], "prompt": window[line:], "input_suffix": after, "input_extra": self.extra}
        return self.clock.ask("/infill", {**asked, **sampling, "id_slot": 0, "cache_prompt": True})


class Vim(Peer):
    """The same with llama.vim's defaults: so many lines before and after the cursor."""

    def windows(self, key: Key) -> tuple[str, str]:
        before, after = key.prefix.splitlines(keepends=True), key.suffix.splitlines(keepends=True)
        return "".join(before[-VIM_PREFIX - 1 :]), "".join(after[: VIM_SUFFIX + 1])


class Direct:
    """llama-server with our server's own flags, asked with as many ids as our prompt has and one more at every key: the floor."""

    def __init__(self, server: Server, ids: list[int], length: int) -> None:
        self.clock, self.ids, self.length = Clock(server.address), (ids * (1 + (length + 1000) // max(1, len(ids)))), length

    def ask(self, number: int) -> Timed:
        """The answer at a key, by its number."""
        asked = {"prompt": self.ids[: self.length + number], "n_predict": LINE, "temperature": 0.0, "id_slot": 0, "cache_prompt": True}
        return self.clock.ask("/completion", {**asked, "timings_per_token": True})


def run(plan: Plan) -> dict[str, Any]:
    """Every figure.

    Raises:
        InputError: no such model.
        MachineError: a server does not run here.
    """
    if not plan.model.is_file():
        raise InputError(f"{plan.model} is missing: make one with `python -m phase3_quantize random-gguf --shape qwen2.5-coder-0.5b`")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tabsmith-") as folder:
        root = keystrokes.copy_package(Path(folder))
        texts = {path: (root / path).read_text() for path in FILES}
        with serving.up(plan.model, root, *plan.flags) as ours:
            say(f"ready after {time.monotonic() - started:.0f} s")
            figures = replay(plan, ours, root, texts[FILES[0]])
            figures |= {
                "through": through(Typist(ours, root, FILES[0], "through"), texts[FILES[0]]),
                "jumps": jumps(Typist(ours, root, FILES[0], "jump"), texts[FILES[0]], plan.jumps),
                "automatic": automatic(Typist(ours, root, FILES[1], "automatic"), texts[FILES[1]], plan.keys),
                "paced": paced(Typist(ours, root, FILES[2], "paced"), texts[FILES[2]], max(2, plan.keys // 2)),
            }
            figures["memory_mib"] = {
                **serving.memory(ours.tree())._asdict(),
                "gateway": serving.memory(ours.tree()[:1])._asdict(),
                "llama_server": serving.memory([ours.llama()])._asdict(),
            }
            figures["metrics"] = {name: value for name, value in serving.scrape(ours).items() if "_bucket" not in name}
    figures |= {"model": plan.model.name, "cores": len(serving_cores()), "seconds": round(time.monotonic() - started, 1)}
    figures["rows"] = rows(figures)
    return figures


def serving_cores() -> list[int]:
    """Cores that this process may use."""
    import os

    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def say(text: str) -> None:
    """One line of progress."""
    print(text, file=sys.stderr, flush=True)


# --- the replay


def replay(plan: Plan, ours: Server, root: Path, text: str) -> dict[str, Any]:
    """The same keys through every system, by turns."""
    keys = keystrokes.recording(text, plan.keys)
    typist = Typist(ours, root, FILES[0], "replay")
    opened = typist.ask(keys[0])
    timed: dict[str, list[Timed]] = {name: [] for name in ("ours", *PEERS, "direct")}
    waits, spent = list[float](), 0.0
    for block in range(HEAD_START):
        timed["ours"] += [typist.ask(key) for key in _part(keys[1 : 1 + plan.keys], block)]
        waits.append(quiet(ours))
    # The first answers in a file may come from a small window; the longest prompt is the one that all of the context is in
    length = max(_prompt(one) for one in (opened, *timed["ours"]))
    with contextlib.ExitStack() as stack:
        peers = dict(_peers(stack, plan, root, keys[0], length))
        any_peer = next(iter(peers.values()))
        direct = Direct(stack.enter_context(serving.plain(plan.model, like=ours.llama())), any_peer.ids(text[:8000]), length)
        opening = {"ours": opened, **{name: peer.ask(keys[0]) for name, peer in peers.items()}, "direct": direct.ask(0)}
        for block in range(BLOCKS):
            mine, theirs = (_part(keys[1 : 1 + count], block) for count in (plan.keys, plan.peer_keys))
            if block >= HEAD_START:
                timed["ours"] += [typist.ask(key) for key in mine]
                waits.append(quiet(ours))
            before = _cpu(ours)
            for name, peer in peers.items():
                timed[name] += [peer.ask(key) for key in (theirs[: -(-len(theirs) // 2)] if name == VIM else theirs)]
            timed["direct"] += [direct.ask(len(timed["direct"]) + 1 + number) for number in range(len(theirs))]
            spent += _cpu(ours) - before
            say(f"block {block + 1} of {BLOCKS}: {', '.join(f'{name} {_p50(found):.0f} ms' for name, found in timed.items())}")
    figures = {name: summary(found, opening[name]) for name, found in timed.items()}
    figures["ours"]["same_keys_first_ms"] = spread([one.first for one in timed["ours"][: plan.peer_keys] if one.first is not None])
    kinds = {kind: [one.first for one, key in zip(timed["ours"], keys[1:], strict=True) if key.kind == kind and one.first is not None]
             for kind in ("typed", "newline", "backspace", "accept", "jump")}  # fmt: skip
    return {
        "replay": figures, "by_kind_first_ms": {kind: spread(found) for kind, found in kinds.items()}, "prompt_tokens": length,
        "our_cpu_seconds_while_peers_ran": round(spent, 2), "seconds_until_quiet": [round(wait, 2) for wait in waits],
    }  # fmt: skip


def _prompt(timed: Timed) -> int:
    """Tokens of the prompt behind an answer."""
    return int(timed.timings.get("prompt_n", 0) + timed.timings.get("cache_n", 0))


def _part(keys: list[Key], block: int) -> list[Key]:
    """The keys of one turn; consecutive, as caches go by what came before."""
    each = -(-len(keys) // BLOCKS)
    return keys[block * each : (block + 1) * each]


def _peers(stack: contextlib.ExitStack, plan: Plan, root: Path, opened: Key, length: int) -> Iterator[tuple[str, Peer]]:
    """The peers, started; each gets pieces of other files as an editor would send them."""
    text = (root / "rich/table.py").read_text()
    pieces = [text[body.start : body.end] for body in keystrokes.bodies(text)]
    extra = [{"filename": "rich/table.py", "text": piece[:350]} for piece in pieces[:4]]  # some 320 tokens
    for name, flags in PEERS.items():
        yield name, (Vim if name == VIM else Peer)(stack.enter_context(serving.plain(plan.model, *flags)), opened, length, extra)


def summary(timed: list[Timed], opening: Timed) -> dict[str, Any]:
    """One system's keys."""
    lines = [one.total for one in timed if one.finish in ("length", "limit")]
    return {
        "first_ms": spread([one.first for one in timed if one.first is not None]),
        "line_ms": spread(lines),
        "evaluated_per_key": round(sum(one.evaluated for one in timed) / max(1, len(timed)), 2),
        "evaluated_p95": quantile([one.evaluated for one in timed], 0.95),
        "own_ms": spread([one.own for one in timed if one.own is not None]),
        "opening_ms": round((opening.first or opening.total) * 1000, 1),
        "prompt_tokens": max(_prompt(one) for one in (opening, *timed)),
        "keys": len(timed),
        "without_text": sum(one.first is None for one in timed),
        "errors": dict(Counter(one.reason or str(one.status) for one in timed if one.error)),
    }


def _p50(timed: list[Timed]) -> float:
    return quantile([one.first for one in timed if one.first is not None], 0.5) * 1000


def _cpu(server: Server) -> float:
    return sum(sum(one.cpu_times()[:2]) for one in server.tree())


def quiet(server: Server, seconds: float = 30.0) -> float:
    """Wait until a server does nothing on its own any more; seconds that took. It may only have paused: for RETHINK it waits, too."""
    started = last = time.monotonic()
    before = _cpu(server)
    while last + STILL > time.monotonic() < started + seconds:
        time.sleep(0.3)
        now = _cpu(server)
        if now - before > 0.05:
            last = time.monotonic()
        before = now
    return time.monotonic() - started


# --- what the replay of fixed keys does not show


def through(typist: Typist, text: str) -> dict[str, Any]:
    """Type what was predicted, character by character: how soon the rest of it is there again."""
    name = 'tabsmith_typed_through_total{"kind": "whole"}'
    hits = serving.scrape(typist.server).get(name, 0)
    timed, agree = [], 0
    for key in keystrokes.places(text, THROUGH):
        answer = typist.ask(key, tokens=24)
        for typed in range(1, min(len(answer.text), 12)):
            asked = Key("typed", key.prefix + answer.text[:typed], key.suffix)
            timed.append(typist.ask(asked, tokens=24 - typed))
            agree += answer.text[typed:].startswith(timed[-1].text)
    hits = serving.scrape(typist.server).get(name, 0) - hits
    fast = [one.total for one in timed if one.source == "typed"]
    return {"keys": len(timed), "hits": int(hits), "agree": agree, "all_ms": spread([one.total for one in timed]), "hit_ms": spread(fast)}


def jumps(typist: Typist, text: str, count: int) -> dict[str, Any]:
    """The cursor goes to another function of the file; three keys follow."""
    first, after, evaluated = [], [], []
    for key in keystrokes.places(text, count):
        time.sleep(PAUSE)
        timed = typist.ask(key)
        evaluated.append(timed.evaluated)
        first += [timed.first if timed.first is not None else timed.total]
        for typed in range(AFTER_JUMP):
            pressed = key._replace(prefix=key.prefix + "\n    "[: typed + 1] if typed else key.prefix + "\n")
            answer = typist.ask(pressed)
            after.append(answer.first if answer.first is not None else answer.total)
    return {"first_ms": spread(first), "keys_after_ms": spread(after), "evaluated_p50": quantile(evaluated, 0.5), "count": len(first)}


def automatic(typist: Typist, text: str, keys: int) -> dict[str, Any]:
    """The same kind of replay without having asked by hand: the server may decline."""
    timed = [typist.ask(key, manual=False) for key in keystrokes.recording(text, keys)[1:]]
    declined = [one for one in timed if one.status == 204 or (one.reason and not one.error and not one.text)]
    answered = [one for one in timed if one.first is not None]
    return {
        "keys": len(timed), "declined": dict(Counter(one.reason or "no reason" for one in declined)),
        "declined_ms": spread([one.total for one in declined]),
        "first_ms": spread([one.first for one in answered if one.first is not None]),
        "errors": dict(Counter(one.reason or str(one.status) for one in timed if one.error)),
    }  # fmt: skip


def paced(typist: Typist, text: str, keys: int) -> dict[str, Any]:
    """Eight keys a second, whole answers, nobody waits for them: each key overtakes the one before."""
    recorded = keystrokes.recording(text, keys)
    typist.ask(recorded[0], tokens=None)
    timed: list[Timed] = []

    def one(key: Key) -> None:
        clock = Clock(typist.server.address)
        timed.append(typist.ask(key, None, clock=clock))
        clock.connection.close()

    threads = [threading.Thread(target=one, args=(key,)) for key in recorded[1:]]
    began = time.perf_counter()
    for number, thread in enumerate(threads):
        time.sleep(max(0.0, began + number * PACE - time.perf_counter()))
        thread.start()
    for thread in threads:
        thread.join()
    shown = [one.first for one in timed if one.first is not None]
    kinds = Counter("shown" if one.first is not None else one.reason or f"{one.status} without text" for one in timed)
    return {"keys": len(timed), "first_ms": spread(shown), "outcomes": dict(kinds)}


# --- beside what was asked for


def rows(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """A row per number: asked, measured, met."""
    ours, infill, through = figures["replay"]["ours"], figures["replay"]["infill"], figures["through"]
    same, first, nan = ours["same_keys_first_ms"], ours["first_ms"], float("nan")
    ratio = infill["first_ms"].get("p50", nan) / same.get("p50", nan)
    alone = figures["replay"]["direct"]["own_ms"].get("p50", nan)  # what llama-server and the clock take besides tokens
    found = [
        ("first token, p50", "ms", "<=", 40, first.get("p50", nan)),
        ("first token, p95", "ms", "<=", 80, first.get("p95", nan)),
        ("times sooner than /infill at p50, same keys", "", ">=", 30, round(ratio, 1)),
        (f"first line of {LINE} tokens, p50", "ms", "<=", 220, ours["line_ms"].get("p50", nan)),
        ("typed as predicted, p95", "ms", "<=", 3, through["hit_ms"].get("p95", nan)),
        ("jump to another function, p95", "ms", "<=", 700, figures["jumps"]["first_ms"].get("p95", nan)),
        ("gateway's own time, p50", "ms", "<=", 2, round(ours["own_ms"].get("p50", nan) - alone, 2)),
        ("gateway and llama-server, resident", "MiB", "<=", 900, figures["memory_mib"]["rss"]),
    ]
    compare = {"<=": lambda value, asked: value <= asked, ">=": lambda value, asked: value >= asked}
    return [
        {"what": what, "unit": unit, "asked": f"{sign} {asked}", "measured": value, "met": bool(compare[sign](value, asked))}
        for what, unit, sign, asked, value in found
    ]


def show(figures: dict[str, Any]) -> None:
    """Print the tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("", "asked", "measured", "met", title=f"{figures['model']} on {figures['cores']} cores")
    for row in figures["rows"]:
        table.add_row(row["what"], f"{row['asked']} {row['unit']}", f"{row['measured']:,.1f}", "yes" if row["met"] else "[bold]no")
    console.print(table)
    table = Table("replay, ms", *("p50", "p95", "line", "own", "open", "read", "of", "keys"), min_width=76)
    table.columns[0].no_wrap = True
    for name, one in figures["replay"].items():
        first = one["first_ms"]
        table.add_row(
            name, *(f"{first.get(key, float('nan')):,.0f}" for key in ("p50", "p95")), f"{one['line_ms'].get('p50', float('nan')):,.0f}",
            f"{one['own_ms'].get('p50', float('nan')):,.1f}", f"{one['opening_ms']:,.0f}", f"{one['evaluated_per_key']:,.1f}",
            f"{one['prompt_tokens']:,}", str(one["keys"]),
        )  # fmt: skip
    console.print(table)
    table = Table("first text, ms", "p50", "p95", "longest", "of", min_width=76)
    kinds = {name: found for name, found in figures["by_kind_first_ms"].items() if found["n"]}
    parts = {
        "typed as predicted": figures["through"]["hit_ms"],
        **{name: figures[name]["first_ms"] for name in ("jumps", "automatic", "paced")},
    }
    for name, found in {**kinds, **parts, "declined": figures["automatic"]["declined_ms"]}.items():
        table.add_row(name, *(f"{found.get(key, float('nan')):,.1f}" for key in ("p50", "p95", "max")), str(found["n"]))
    console.print(table)
    vim = figures["replay"][VIM]["first_ms"].get("p50", 0) / max(0.01, figures["replay"]["ours"]["same_keys_first_ms"].get("p50", 0))
    console.print(
        f"line: until {LINE} tokens are there. own: not spent by llama.cpp on tokens; the gateway's is that less `direct`'s. "
        "open: first request. read: prompt tokens per key."
    )
    console.print(f"{vim:.0f} times sooner than {VIM}: /infill with llama.vim's windows, {VIM_PREFIX} lines before and {VIM_SUFFIX} after")
    counted = figures["metrics"]
    own = 1000 * counted["tabsmith_gateway_seconds_sum"] / max(1, counted["tabsmith_gateway_seconds_count"])
    console.print(f"by the gateway's own histogram it takes {own:.1f} ms a request; declined: {figures['automatic']['declined'] or 'none'}")
    console.print(f"resident, MiB: {figures['memory_mib']}", highlight=False)
    console.print(f"{figures['seconds']:.0f} s; our server used {figures['our_cpu_seconds_while_peers_ran']} s of CPU in the peers' turns")
