"""Complete many holes with one model, and do no row twice.

In:  a model (hf:FOLDER, gguf:FILE, server:URL, server:FILE), holes, the most tokens per completion, an order
Out: completions as they are ready; a JSONL that an interrupted or repeated run goes on from

    {"config": {...}}                                              what every row depends on
    {"key": sha256 of the prompt, "completion", "n_tokens", "stop"}  one row per prompt, in the order they were ready

Rows are found by their prompt, so that more, fewer or other holes still find those that are there. A completion that holds a text
shaped like a secret or personal data is kept masked, with its kinds, and is asked for again by the next run.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core import scrub
from core.errors import InputError
from core.fim import Hole, Order
from core.progress import track
from core.records import write_text
from eval import backends
from eval.metrics import masked
from eval.prompts import Prompt, digest, prompts_of
from eval.words import Written


class Asked(NamedTuple):
    """A model and what it is asked; nothing is loaded yet."""

    backend: backends.Backend
    prompts: list[Prompt]
    config: dict[str, Any]
    stops: list[str]
    cut: dict[str, int]  # holes of which the prefix, the suffix or the context did not fit
    prompt_sha256: str


def ask(model: str, holes: Sequence[Hole], limit: int, order: Order) -> Asked:
    """Write the prompts for a model.

    Raises:
        InputError: no such model, or it was not made for holes; the limit leaves no room.
        AccessError, MachineError: its server does not answer, llama.cpp is missing.
    """
    if limit < 1:
        raise InputError(f"a completion of {limit} tokens is none: set --limit to 1 or more")
    backend = backends.find(model)
    words = backend.words()
    if words is None:  # the server composes: what it is given stands for the ids
        prompts = [Prompt([], hole, [], ("context",) if hole.context else ()) for hole in holes]
        sha256 = hashlib.sha256(json.dumps([(hole.prefix, hole.suffix) for hole in holes]).encode()).hexdigest()
        stops = ["the server's own"]
    else:
        prompts = prompts_of(holes, order, words, limit)
        sha256, stops = digest(prompts), list(words.stops.values())
    cut = Counter(name for prompt in prompts for name in prompt.cut)
    config = {**backend.identity(), "limit": limit, "stops": stops, "order": order if words else None}
    return Asked(backend, prompts, config, stops, dict(sorted(cut.items())), sha256)


def complete(model: str, holes: Sequence[Hole], limit: int, order: Order = "spm", out: Path | None = None) -> Iterator[tuple[int, str]]:
    """Index and completion of every hole, as they are ready, nothing cut from them.

    Args:
        limit: tokens written at most, the one that ends a completion included.
        out: JSONL to go on from and to write to; None: nothing is kept.

    Raises:
        InputError, AccessError, MachineError: as `ask`; a changed config starts the file over and says what changed.
    """
    for at, one in answers(ask(model, holes, limit, order), model, out):
        yield at, one.text


def answers(asked: Asked, label: str, out: Path | None = None) -> Iterator[tuple[int, Written]]:
    """Index and answer of every prompt; those that `out` holds come first."""
    ledger = None if out is None else _Rows(out, asked.config)
    keys = [_key(prompt) for prompt in asked.prompts]
    kept = {} if ledger is None else ledger.kept
    open_rows: dict[str, list[int]] = {}
    for at, key in enumerate(keys):
        if key in kept:
            yield at, kept[key]
        else:
            open_rows.setdefault(key, []).append(at)
    if not open_rows:
        return
    first = [rows[0] for rows in open_rows.values()]
    found = asked.backend.answer([asked.prompts[at] for at in first], asked.config["limit"])
    for place, answer in track(found, label, len(first), "rows"):
        key = keys[first[place]]
        if ledger is not None:
            ledger.add(key, answer)
        for at in open_rows[key]:  # equal prompts are asked once
            yield at, answer


def _key(prompt: Prompt) -> str:
    if prompt.ids:
        return prompt.key
    return hashlib.sha256(json.dumps([prompt.hole.prefix, prompt.hole.suffix]).encode()).hexdigest()


class _Rows:
    """The file of rows: append-only, every line written whole or cut off by the next run."""

    def __init__(self, file: Path, config: dict[str, Any]) -> None:
        self.file, self.kept = file, dict[str, Written]()
        found = _lines(file)
        before = found[0].get("config") if found else None
        if isinstance(before, dict) and before == json.loads(json.dumps(config)):
            self.kept = {row["key"]: Written(row["completion"], row["n_tokens"], row["stop"]) for row in found[1:] if not row.get("leaks")}
            return
        if isinstance(before, dict):
            changed = sorted(key for key in {*before, *config} if before.get(key) != json.loads(json.dumps(config.get(key))))
            print(f"{file}: {', '.join(changed)} changed; starting over", file=sys.stderr, flush=True)
        elif file.is_file() and file.stat().st_size:
            raise InputError(f"{file} is there and holds no completions of ours: name another file, or delete it")
        write_text(file, json.dumps({"config": config}, sort_keys=True) + "\n")

    def add(self, key: str, answer: Written) -> None:
        """Put one row on disk."""
        row: dict[str, Any] = {"key": key, "completion": answer.text, "n_tokens": answer.n_tokens, "stop": answer.stop}
        if leaks := sorted({found.kind for found in scrub.find(answer.text)}):
            row |= {"completion": masked(answer.text), "leaks": leaks}
        with self.file.open("a", encoding="utf-8") as sink:
            sink.write(json.dumps(row, sort_keys=True) + "\n")


def _lines(file: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of rows; what follows a torn one is cut off."""
    if not file.is_file():
        return []
    rows: list[dict[str, Any]] = []
    whole = 0
    with file.open("rb") as lines:
        for line in lines:
            try:
                row = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                row = None
            wanted = {"key", "completion", "n_tokens", "stop"} if rows else {"config"}
            if not isinstance(row, dict) or not wanted <= row.keys():
                break
            rows.append(row)
            whole += len(line)
    if rows and whole < file.stat().st_size:
        with file.open("r+b") as sink:
            sink.truncate(whole)
    return rows
