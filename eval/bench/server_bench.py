"""Does an evaluation through llama-server keep its slots busy? The same work beside llama-batched-bench, turn by turn.

In:  a GGUF file, held-out holes
Out: tokens/s (read and written) of both, and their ratio per round

The peer reads and writes rows of the same mean lengths, as many at a time as the server has slots, with the same build, threads and
batch sizes, and draws its tokens at random: it samples nothing, decodes no text and talks to nobody.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from core.errors import MachineError
from eval import holes, llama_server, server_model
from eval.prompts import Prompt, prompts_of
from eval.server_model import Address, Kind
from eval.words import Words, words_of_gguf

PEER = "llama-batched-bench"
SPLITS = ("test_file", "test_repo")


class Turn(NamedTuple):
    """One round of one system."""

    tokens: int  # read and written
    seconds: float
    cpu: float  # seconds of processor time: what neighbours on a busy machine do not change

    @property
    def per_second(self) -> float:
        """Tokens per second of wall time."""
        return self.tokens / self.seconds

    @property
    def per_cpu(self) -> float:
        """Tokens per second of processor time."""
        return self.tokens / self.cpu


class Plan(NamedTuple):
    """What both systems do."""

    file: Path
    slots: int
    threads: int
    limit: int
    servers: int = 0  # that share slots and threads; 0: as an evaluation would choose
    extra: tuple[str, ...] = ()  # more flags of the server, for looking where time goes


def run(samples: Path, rows: int, plan: Plan, rounds: int) -> dict[str, Any]:
    """Figures of both systems, interleaved.

    Raises:
        InputError: no such file or samples.
        MachineError: llama.cpp's tools are missing.
    """
    words = words_of_gguf(plan.file)
    held, _ = holes.read(samples, SPLITS, -(-rows // len(SPLITS)))
    prompts = prompts_of([one.hole for one in held][:rows], "spm", words, plan.limit)
    ours, theirs = list[Turn](), list[Turn]()
    holds = llama_server.room(prompts, plan.limit)
    with llama_server.fleet(plan.file, plan.slots, holds, plan.threads, plan.servers, plan.extra) as addresses:
        kind = server_model.look(addresses[0])
        _ours(addresses, kind, words, prompts[: 2 * plan.slots], plan)  # warm
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            turn, read, wrote = _ours(addresses, kind, words, prompts, plan)
            ours.append(turn)
            theirs.append(_theirs(plan, round(read / len(prompts)), max(1, round(wrote / len(prompts))), len(prompts)))
    ratios = [mine.per_second / peer.per_second for mine, peer in zip(ours, theirs, strict=True)]
    on_cpu = [mine.per_cpu / peer.per_cpu for mine, peer in zip(ours, theirs, strict=True)]
    return {
        "file": str(plan.file), "rows": len(prompts), "slots": plan.slots, "servers": len(addresses),
        "threads": plan.threads, "limit": plan.limit, "read": read, "written": wrote,
        "ours": [turn._asdict() for turn in ours], "peer": [turn._asdict() for turn in theirs],
        "ratio": statistics.median(ratios), "ratios": ratios, "cpu_ratio": statistics.median(on_cpu),
    }  # fmt: skip


def _ours(addresses: Sequence[Address], kind: Kind, words: Words, prompts: Sequence[Prompt], plan: Plan) -> tuple[Turn, int, int]:
    """Ask for every prompt; tokens read, tokens sampled."""
    with _cpu_of_children() as cpu:
        started = time.perf_counter()
        found = [one for _, one in server_model.ask_llama(addresses, kind, words, prompts, plan.limit)]
        seconds = time.perf_counter() - started
    read = sum(len(prompt.ids) for prompt in prompts)
    sampled = sum(one.n_tokens + (one.stop != "limit") for one in found)
    return Turn(read + sampled, seconds, cpu[0]), read, sampled


def _theirs(plan: Plan, read: int, wrote: int, rows: int) -> Turn:
    """The peer on as many rows, in lots of as many as there are slots."""
    lots = max(1, round(rows / plan.slots))
    values = {
        "-m": plan.file, "-c": (read + wrote) * plan.slots + 256, "-b": 2048, "-ub": 512, "-t": plan.threads, "-tb": plan.threads,
        "-npp": ",".join([str(read)] * lots), "-ntg": wrote, "-npl": plan.slots, "--output-format": "jsonl",
    }  # fmt: skip
    command = [str(llama_server.find_binary(PEER)), *(str(part) for flag in values.items() for part in flag)]
    before = os.times()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = os.times()
    lines = [json.loads(line) for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.startswith("{")]
    if done.returncode or len(lines) != lots:
        raise MachineError(f"{PEER} failed ({done.returncode}): {' | '.join(done.stderr.strip().splitlines()[-2:])}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Turn(lots * plan.slots * (read + wrote), sum(line["t"] for line in lines), cpu)


@contextlib.contextmanager
def _cpu_of_children() -> Iterator[list[float]]:
    """Processor seconds of this process and the servers under it, once the block has ended."""
    spent = [0.0]
    try:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    except OSError:  # not Linux
        children = []

    def now() -> float:
        fields = [Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split() for child in children]
        ticks = sum(int(one[11]) + int(one[12]) for one in fields)  # utime and stime, proc(5)
        return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")

    before = now()
    try:
        yield spent
    finally:
        spent[0] = now() - before


def show(figures: dict[str, Any]) -> None:
    """Print the table."""
    table = Table("round", "through llama-server, tokens/s", f"{PEER}, tokens/s", "ratio", "ratio of processor time")
    for number, (mine, peer, ratio) in enumerate(zip(figures["ours"], figures["peer"], figures["ratios"], strict=True), 1):
        speeds = [one["tokens"] / one["seconds"] for one in (mine, peer)]
        on_cpu = mine["tokens"] / mine["cpu"] / (peer["tokens"] / peer["cpu"])
        table.add_row(str(number), *(f"{speed:,.0f}" for speed in speeds), f"{ratio:.3f}", f"{on_cpu:.3f}")
    console = Console()
    console.print(table)
    console.print(
        f"{figures['rows']:,} rows, {figures['read']:,} tokens read and {figures['written']:,} written, {figures['slots']} slots of "
        f"{figures['servers']} servers, "
        f"{figures['threads']} threads: median ratio {figures['ratio']:.3f}, of processor time {figures['cpu_ratio']:.3f}",
        highlight=False,
    )
