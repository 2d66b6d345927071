"""What a confidence floor would hide: held-out holes asked once with the probability of every token, judged for many floors.

In:  held-out holes of phase 1, a GGUF
Out: per floor: share of holes where something is shown, share of that which is exactly right, share of what is right that is kept

The rule for a floor: the largest that hides at most 1% of what is exactly right.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from core.completion import compare
from core.fim import Codec, Hole, Order
from core.progress import track
from core.records import read_parquet
from core.stops import Cutter, Place
from eval import llama_server
from eval.holes import MADE_BY
from eval.server_model import Address, request
from phase4_serve import model_file
from phase4_serve.confidence import Gate
from phase4_serve.vocabulary import Vocabulary

FLOORS = (0.0, 0.02, 0.05, 0.08, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7)
MOST_HIDDEN = 0.01  # of what is exactly right
TOKENS, SLOTS, HOLDS = 32, 4, 2048


class Answer(NamedTuple):
    """What a model wrote into a hole."""

    prefix: str
    suffix: str
    middle: str
    tokens: list[tuple[str, float]]  # text and probability


def answers(model: Path, samples: Path, count: int, order: Order, seed: int) -> list[Answer]:
    """Ask for held-out holes, by hash of their rows.

    Raises:
        InputError: there are no samples.
        MachineError: llama-server does not start.
    """
    rows = [row for name in ("test_file", "test_repo") for row in read_parquet(samples / f"{name}.parquet", MADE_BY)]
    rows.sort(key=lambda row: hashlib.sha256(f"{seed} {row['sample_id']}".encode()).digest())
    codec = Codec(Vocabulary(model).ids, model_file.check(model).tokens)
    with llama_server.served(model, SLOTS, HOLDS, 1) as address, ThreadPoolExecutor(SLOTS) as pool:
        return list(track(pool.map(lambda row: _ask(address, codec, order, row), rows[:count]), "asked", count, "holes"))


def _ask(address: Address, codec: Codec, order: Order, row: dict[str, Any]) -> Answer:
    ids = codec.prompt(Hole(row["prefix"], row["suffix"]), order)
    body = {"prompt": ids, "n_predict": TOKENS, "temperature": 0, "cache_prompt": False, "n_probs": 1}
    found = request(address, "POST", "/completion", body)[1]["completion_probabilities"]
    return Answer(row["prefix"], row["suffix"], row["middle"], _texts(found))


def _texts(found: Sequence[dict[str, Any]]) -> list[tuple[str, float]]:
    """Whole characters with the probability of the token that ended them; the end token is no text."""
    texts, held, probability = [], b"", 1.0
    for token in found:
        held += bytes(token["bytes"])
        probability = min(probability, math.exp(token["logprob"]))
        try:
            texts.append((held.decode(), probability))
        except UnicodeDecodeError:
            continue
        held, probability = b"", 1.0
    return texts


def seen(answer: Answer, floor: float) -> str:
    """What is shown under a floor."""
    cutter, gate, text = Cutter(Place.of(answer.prefix, answer.suffix, "python")), Gate(floor), ""
    for content, probability in answer.tokens:
        if not gate.sure(content, probability):
            break
        text += cutter.feed(content)
    return text + cutter.finish()


def run(model: Path, samples: Path, count: int, order: Order, seed: int) -> dict[str, Any]:
    """Figures for every floor, and the floor that the rule chooses."""
    found = answers(model, samples, count, order, seed)
    table = [_under(found, floor) for floor in FLOORS]
    right = table[0]["exact"]
    chosen = max((row["floor"] for row in table if right and row["exact"] >= right * (1 - MOST_HIDDEN)), default=0.0)
    return {"model": model.name, "order": order, "n": len(found), "floors": table, "chosen": chosen}


def _under(found: Sequence[Answer], floor: float) -> dict[str, Any]:
    texts = [(seen(answer, floor), answer) for answer in found]
    some = [(text, answer) for text, answer in texts if text.strip()]
    verdicts = [compare(text, answer.middle, answer.suffix) for text, answer in some]
    return {
        "floor": floor,
        "shown": len(some),
        "exact": sum(verdict.exact_stripped for verdict in verdicts),
        "first_line": sum(verdict.first_line for verdict in verdicts),
        "similarity": round(sum(verdict.similarity for verdict in verdicts) / max(1, len(verdicts)), 2),
    }


def show(figures: dict[str, Any]) -> None:
    """Print the curve."""
    table = Table("floor", "shown", "of these exact", "first line right", "similarity", "of the exact kept", box=SIMPLE)
    right = max(1, figures["floors"][0]["exact"])
    for row in figures["floors"]:
        shares = [f"{100 * row[name] / max(1, row['shown']):.1f}%" for name in ("exact", "first_line")]
        kept = f"{100 * row['exact'] / right:.1f}%"
        table.add_row(f"{row['floor']:.2f}", f"{100 * row['shown'] / figures['n']:.1f}%", *shares, f"{row['similarity']:.1f}", kept)
    console = Console()
    console.print(f"{figures['model']}, {figures['order']}, {figures['n']} held-out holes", table)
    console.print(f"the largest floor that hides at most {100 * MOST_HIDDEN:.0f}% of what is exactly right: {figures['chosen']}")
