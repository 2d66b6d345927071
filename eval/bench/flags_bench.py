"""What llama-server's flags are worth to somebody who types: speed, memory, how soon it stops, and whether drafts pay.

In:  a GGUF for speed (random weights of the right shape do), GGUFs with real weights for drafts, a folder of code
Out: two tables and their figures

Prompts for speed are random ids, the same for every set of flags. Drafts are judged on real code: the ends of functions of the
folder's files, greedy, and every set of flags is asked each prompt before the next prompt comes.
"""

from __future__ import annotations

import contextlib
import json
import random
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from rich.console import Console
from rich.table import Table

from core.errors import InputError, MachineError
from eval import llama_server
from eval.server_model import Address, request

HOLDS, SLOTS = 2048, 3  # tokens of a slot; two sessions and a chat
PROMPT, KEYS, WRITTEN = 512, 12, 24  # tokens of a prompt; keystrokes; tokens generated
STEP = 64  # tokens that the gateway sends at once
CANCELS = 4
DRAFT_TOKENS = 48
CODE_CHARS = 1800
WORTH = 1.15  # times the speed without drafts, below which they stay off

FLAGS: dict[str, list[str]] = {
    "as served": ["--batch-size", "128", "--ubatch-size", "128", "--verbosity", "2"],
    "batch 32": ["--batch-size", "32", "--ubatch-size", "32"],
    "batch 64": ["--batch-size", "64", "--ubatch-size", "64"],
    "batch 256": ["--batch-size", "256", "--ubatch-size", "256"],
    "batch 512": ["--batch-size", "512", "--ubatch-size", "512"],
    "no flash attention": ["--batch-size", "128", "--ubatch-size", "128", "--flash-attn", "off"],
    "q8_0 cache": ["--batch-size", "128", "--ubatch-size", "128", "--cache-type-k", "q8_0", "--cache-type-v", "q8_0"],
    "no warm-up": ["--batch-size", "128", "--ubatch-size", "128", "--no-warmup"],
    "no repacking": ["--batch-size", "128", "--ubatch-size", "128", "--no-repack"],
    "no polling": ["--batch-size", "128", "--ubatch-size", "128", "--poll", "0"],
    "9 slots": ["--batch-size", "128", "--ubatch-size", "128", "--parallel", "9", "--ctx-size", str(9 * HOLDS)],
}
DRAFTS: dict[str, list[str]] = {
    "none": [],
    "ngram-simple 12/48": ["--spec-type", "ngram-simple"],
    "ngram-simple 4/8": ["--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", "4", "--spec-ngram-simple-size-m", "8"],
    "ngram-map-k 4/8": ["--spec-type", "ngram-map-k", "--spec-ngram-map-k-size-n", "4", "--spec-ngram-map-k-size-m", "8"],
    "ngram-cache": ["--spec-type", "ngram-cache"],
}


class Said(NamedTuple):
    """A completion, clocked."""

    first: float  # seconds
    text: str
    timings: dict[str, float]


def complete(address: Address, ids: Sequence[int], most: int, slot: int = 0) -> Said:
    """Complete ids greedily, to the last token."""
    body = {"prompt": list(ids), "n_predict": most, "temperature": 0.0, "ignore_eos": True, "stream": True, "id_slot": slot}
    connection = address.connect()
    with contextlib.closing(connection):
        started, first, text = time.perf_counter(), 0.0, ""
        connection.request("POST", "/completion", json.dumps(body), {"Content-Type": "application/json"})
        for line in connection.getresponse():
            if not line.startswith(b"data: "):
                continue
            first = first or time.perf_counter() - started
            event = json.loads(line[6:])
            text += event["content"]
            if event["stop"]:
                return Said(first, text, event["timings"])
    raise InputError(f"{address.url} ended an answer early: ask it by hand")


def seconds_to_stop(address: Address, ids: list[int], wait: float) -> float:
    """Close a connection while its prompt is evaluated; seconds until the slot is idle."""
    connection = address.connect()
    connection.request(
        "POST",
        "/completion",
        json.dumps({"prompt": ids, "n_predict": 8, "stream": True, "id_slot": 0}),
        {"Content-Type": "application/json"},
    )
    time.sleep(wait)
    connection.close()
    return until_idle(address)


def seconds_to_stop_in_steps(address: Address, ids: list[int], wait: float) -> float:
    """The same where the gateway sends the prompt in steps: the one that runs is the last."""
    ended = time.perf_counter() + wait
    with ThreadPoolExecutor(1) as pool:
        for at in range(STEP, len(ids), STEP):
            step = pool.submit(complete, address, ids[:at], 0)
            while not step.done() and time.perf_counter() < ended:
                time.sleep(0.001)
            if time.perf_counter() >= ended:
                return until_idle(address)
    return 0.0


def until_idle(address: Address) -> float:
    """Seconds until nothing runs."""
    started = time.perf_counter()
    while any(slot["is_processing"] for slot in request(address, "GET", "/slots")[1]):
        time.sleep(0.005)
    return time.perf_counter() - started


def process_of(address: Address) -> psutil.Process:
    """The llama-server that listens there.

    Raises:
        MachineError: it is gone.
    """
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == "llama-server" and str(address.path) in (process.info["cmdline"] or []):
            return process
    raise MachineError("llama-server is gone: run it again")


def processor_seconds(process: psutil.Process) -> float:
    """What a process has used of all cores."""
    times = process.cpu_times()
    return float(times.user + times.system)


def figures_of(address: Address) -> dict[str, float]:
    """Speed, memory and the time to stop of one llama-server."""
    source = random.Random(17)
    ids = [source.randrange(300, 5000) for _ in range(PROMPT)]
    complete(address, ids[:STEP], 4, 1)
    read = complete(address, ids, 1)
    keys = []
    for _ in range(KEYS):
        ids.append(source.randrange(300, 5000))
        keys.append(complete(address, ids, 1).first)
    written = complete(address, ids, WRITTEN)
    other = ids[::-1]
    complete(address, other, 1, 1)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(complete, address, prompt, WRITTEN, slot) for slot, prompt in enumerate((ids, other))]
        together = sum(one.result().timings["predicted_per_second"] for one in both)
    fresh = [[source.randrange(300, 5000) for _ in range(PROMPT)] for _ in range(2 * CANCELS)]
    held = process_of(address).memory_full_info()
    waits = [0.2 + 0.05 * number for number in range(CANCELS)]
    return {
        "prompt_per_s": read.timings["prompt_per_second"],
        "first_ms": 1000 * statistics.median(keys),
        "generated_per_s": written.timings["predicted_per_second"],
        "two_together_per_s": together,
        "stop_closed_ms": 1000 * max(seconds_to_stop(address, fresh[at], wait) for at, wait in enumerate(waits)),
        "stop_steps_ms": 1000 * max(seconds_to_stop_in_steps(address, fresh[CANCELS + at], wait) for at, wait in enumerate(waits)),
        "rss_mib": held.rss / 2**20,
        "private_mib": held.uss / 2**20,
    }


def speeds(model: Path, only: Sequence[str]) -> dict[str, dict[str, float]]:
    """Figures of each set of flags, one llama-server after the other."""
    found: dict[str, dict[str, float]] = {}
    for name, flags in FLAGS.items():
        if only and name not in only:
            continue
        started = time.perf_counter()
        with llama_server.served(model, SLOTS, HOLDS, llama_server.cores(), flags) as address:
            ready = time.perf_counter() - started
            found[name] = {"ready_s": ready, **figures_of(address)}
    return found


def prompts(address: Address, code: Path, count: int) -> list[list[int]]:
    """Ids of code that breaks off at the end of a line."""
    source, found = random.Random(17), []
    files = [path for path in sorted(code.rglob("*.py")) if path.stat().st_size > 2 * CODE_CHARS]
    if not files:
        raise InputError(f"{code} has no Python file of {2 * CODE_CHARS} bytes: name a folder with --code")
    for path in source.sample(files, min(count, len(files))):
        text = path.read_text(errors="replace")
        end = text.find("\n", source.randrange(CODE_CHARS, len(text) - 500)) + 1
        question = {"content": text[max(0, end - CODE_CHARS) : end], "add_special": False}
        found.append(request(address, "POST", "/tokenize", question)[1]["tokens"])
    return found


def drafts(model: Path, code: Path, count: int) -> dict[str, dict[str, float]]:
    """Tokens per second of each way to draft, beside none in the same run.

    With one thread (OMP_NUM_THREADS=1) the processor's time is what counts where other programs want the cores too.
    """
    with contextlib.ExitStack() as stack:
        servers = {
            name: stack.enter_context(llama_server.served(model, 1, HOLDS, llama_server.cores(), flags)) for name, flags in DRAFTS.items()
        }
        asked = prompts(servers["none"], code, count)
        rates: dict[str, list[float]] = {name: [] for name in servers}
        drafted: dict[str, list[float]] = {name: [0.0, 0.0] for name in servers}
        processes = {name: process_of(address) for name, address in servers.items()}
        used = dict.fromkeys(servers, 0.0)
        for ids in asked:
            for name, address in servers.items():
                complete(address, ids, 1)
                before = processor_seconds(processes[name])
                timings = complete(address, ids, DRAFT_TOKENS).timings
                used[name] += processor_seconds(processes[name]) - before
                rates[name].append(timings["predicted_ms"] / timings["predicted_n"])
                drafted[name][0] += timings.get("draft_n", 0)
                drafted[name][1] += timings.get("draft_n_accepted", 0)
    none = statistics.fmean(rates["none"])
    return {
        name: {
            "generated_per_s": 1000 / statistics.fmean(found),
            "times": none / statistics.fmean(found),
            "times_p50": statistics.median(base / one for base, one in zip(rates["none"], found, strict=True)),
            "times_by_processor": used["none"] / used[name],
            "drafted": drafted[name][0],
            "accepted": drafted[name][1],
        }
        for name, found in rates.items()
    }


def table(title: str, rows: dict[str, dict[str, float]]) -> Table:
    """Figures as a table, a row per set of flags."""
    shown = Table(title=title)
    shown.add_column("")
    columns = list(next(iter(rows.values())))
    for column in columns:
        shown.add_column(column.replace("_", " "), justify="right")
    for name, row in rows.items():
        shown.add_row(name, *(f"{row[column]:,.2f}" if row[column] < 10 else f"{row[column]:,.0f}" for column in columns))
    return shown


def run(model: Path, real: Sequence[Path], code: Path, count: int, only: Sequence[str] = ()) -> dict[str, Any]:
    """Measure and print.

    Raises:
        InputError: a model or the code is missing.
        MachineError: llama-server does not run.
    """
    for path in (model, *real):
        if not path.is_file():
            raise InputError(f"{path} is missing: make one with `python -m phase3_quantize random-gguf`, or name another")
    console = Console(width=150)
    figures: dict[str, Any] = {"flags": speeds(model, only), "drafts": {}}
    if figures["flags"]:
        console.print(table(f"{model.name}, {llama_server.cores()} threads", figures["flags"]))
    for path in real:
        figures["drafts"][path.name] = found = drafts(path, code, count)
        console.print(table(f"drafts, {path.name}; worth it from {WORTH} times", found))
    return figures
