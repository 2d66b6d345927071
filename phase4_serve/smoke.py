"""The DVC stage `serve`: start the server as a user would, ask it held-out holes, measure, stop it.

In:  a GGUF; files.parquet and test_file.parquet of phase 1
Out: serve.json: seconds to ready, first tokens, tokens/s, the gateway's own share, prompt tokens per keystroke, what is typed as predicted
     serve/manifest.json, runs/serve.json

The workspace is one repository, the one with the most held-out holes. The same ids go through the gateway and straight
to llama-server by turns, in one run, so that a busy machine slows both.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from core.errors import InputError, MachineError
from core.fim import Codec, Order
from core.manifest import Run
from core.progress import track
from core.records import Row, read_parquet, write_json
from phase4_serve import model_file
from phase4_serve.backend import Backend
from phase4_serve.compose import Ask, Composer
from phase4_serve.index import Index, put_all
from phase4_serve.params import ServeParams
from phase4_serve.up import private_folder
from phase4_serve.workspace import Workspace

SAMPLES = "python -m phase1_data samples"
POLL, READY_SECONDS = 0.02, 300.0
PAIRS = 3  # one-token requests per hole and way, everything in the cache: what is left is the gateway
ONE_TOKEN = 1
ASKED_ANEW = 0.01  # a temperature at which nothing is answered from memory and the text hardly changes
NO_TIMINGS: dict[str, float] = {}


class Timing(NamedTuple):
    """One completion, clocked from outside."""

    first: float | None  # seconds to the first text; None if there was none
    total: float
    timings: dict[str, float]  # llama-server's


Way = Callable[[int], Awaitable[Timing]]


class Server:
    """A server as the `up` command starts it, in a process of its own."""

    def __init__(self, model: Path, workspace: Path, folder: Path, params: ServeParams) -> None:
        self.socket = folder / "llama.sock"
        self.log = folder / "up.log"
        section = folder / "params.yaml"
        write_json(section, {"profile": "smoke", "smoke": {"serve": params.model_dump()}})  # JSON is YAML
        command = [sys.executable, "-m", "phase4_serve", "up", "--model", str(model), "--workspace", str(workspace), "--port", "0"]
        command += ["--socket", str(self.socket), "--params", str(section)]
        self.started = time.perf_counter()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)

    def wait_for(self, said: str) -> str:
        """The line of its log that holds a text.

        Raises:
            MachineError: it ended before, or did not say it in time.
        """
        while time.perf_counter() - self.started < READY_SECONDS:
            lines = self.log.read_text().splitlines()
            line = next((line for line in lines if said in line), None)
            if line is not None:
                return line
            if self.process.poll() is not None:
                raise MachineError(f"the server ended: {' '.join(lines[-1:]).removeprefix('error: ') or 'it said nothing'}")
            time.sleep(POLL)
        raise MachineError(f"the server was not ready within {READY_SECONDS:.0f} seconds: try a smaller model")

    def stop(self) -> float:
        """End it as Ctrl-C does; seconds that took."""
        started = time.perf_counter()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return time.perf_counter() - started


def run(model: Path, samples: Path, out: Path, params: ServeParams) -> dict[str, Any]:
    """Measure a model; write serve.json and return it.

    Raises:
        InputError: the model or the samples are missing or damaged.
        MachineError: the server does not run here.
    """
    stage = Run("serve", out / "serve")
    checked = model_file.check(model)
    holes, files = samples / "test_file.parquet", samples / "files.parquet"
    repo, chosen = choose(list(read_parquet(holes, SAMPLES)), params.smoke_holes)
    with private_folder() as folder:
        workspace = folder / repo.replace("/", "-")
        written = write_workspace(workspace, repo, read_parquet(files, SAMPLES, ["repo", "path", "content"]))
        server = Server(model, workspace, folder, params)
        try:
            line = server.wait_for(" ready after ")
            to_ready = time.perf_counter() - server.started
            url = line.split(" on ")[1].split()[0]
            first = asyncio.run(first_request(url, chosen[0]))
            server.wait_for("indexed ")
            figures = asyncio.run(Smoke(checked, params.within(checked.context), url, server.socket, workspace).measure(chosen))
        finally:
            to_stop = server.stop()
    figures |= {"seconds_to_ready": round(to_ready, 2), "first_request_seconds": round(first, 3), "seconds_to_stop": round(to_stop, 2)}
    figures |= {"exit_code": server.process.returncode, "cores": os.cpu_count(), "model_mb": round(model.stat().st_size / 1e6, 1)}
    figures["headline"] = headline(figures)
    write_json(out / "serve.json", figures)
    counts = {"holes": len(chosen), "repo": repo, "files": written, "keys_typed": figures["typing"]["keys"]}
    stage.finish({"serve": params}, [model, holes, files], counts, ("llama-cpp-python", "tantivy", "fastapi", "uvicorn"))
    return figures


def headline(figures: dict[str, Any]) -> str:
    """What a reader of the report wants to know, in one sentence."""
    warm, typing = figures["first_token_ms"]["gateway_warm"], figures["typing"]
    return (
        f"With its prompt in the cache the server shows a first token after {warm['p50']:.0f} ms (p50; p95 {warm['p95']:.0f}) and writes "
        f"{figures['generated_per_second']['gateway']:.0f} tokens/s on {figures['cores']} cores; a keystroke costs "
        f"{typing['spm']['evaluated_per_key']:.1f} prompt tokens in SPM and {typing['psm']['evaluated_per_key']:.1f} in PSM."
    )


def choose(holes: list[Row], limit: int) -> tuple[str, list[Row]]:
    """The repository with the most holes, and so many of them, spread over its files.

    Raises:
        InputError: there is none.
    """
    if not holes:
        raise InputError(f"test_file.parquet holds no holes: run `{SAMPLES}` with a larger test_holes")
    counts = Counter(hole["repo"] for hole in holes)
    repo = min(counts, key=lambda name: (-counts[name], name))
    own = sorted((hole for hole in holes if hole["repo"] == repo), key=lambda hole: hole["sample_id"])
    return repo, own[:limit]


def write_workspace(root: Path, repo: str, files: Any) -> int:
    """Write one repository's files to a folder; how many there were."""
    written = 0
    for file in files:
        target = (root / file["path"]).resolve()
        if file["repo"] == repo and target.is_relative_to(root.resolve()):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(file["content"], encoding="utf-8", errors="replace")
            written += 1
    if not written:
        raise InputError(f"files.parquet has no files of {repo}: run `{SAMPLES}` again")
    return written


def question(hole: Row, **more: Any) -> dict[str, Any]:
    """A hole as an editor would send it; the trigger has no say, and with an order named the prompt is the whole one."""
    asked = {"prompt": hole["prefix"], "suffix": hole["suffix"], "path": hole["path"], "repo": hole["repo"]}
    return {**asked, "manual": True, "order": "spm", "temperature": ASKED_ANEW, **more}


async def first_request(url: str, hole: Row) -> float:
    """Seconds of the first request after the server was ready."""
    started = time.perf_counter()
    async with httpx.AsyncClient(timeout=120) as client:
        (await client.post(f"{url}/v1/completions", json=question(hole))).raise_for_status()
    return time.perf_counter() - started


class Smoke:
    """Asks the same things through the gateway and directly."""

    def __init__(self, model: model_file.Model, params: ServeParams, url: str, socket: Path, workspace: Path) -> None:
        self.params, self.url = params, url
        self.backend = Backend(socket)
        index = Index(params.chunk_lines)
        known = Workspace(workspace, params.max_file_bytes)
        put_all(index, known.sources())
        self.composer = Composer(Codec(self.backend.ids, model.tokens), params, known, index)
        self.client = httpx.AsyncClient(base_url=url, timeout=120)
        self.requests: Counter[str] = Counter()

    async def measure(self, holes: list[Row]) -> dict[str, Any]:
        """Every figure but those of start and stop."""
        cold: dict[str, list[Timing]] = {"gateway": [], "direct": []}
        warm: dict[str, list[Timing]] = {"gateway": [], "direct": []}
        single: dict[str, list[float]] = {"gateway": [], "direct": []}
        for number, hole in enumerate(track(holes, "serve", unit="holes")):
            ids = self.composer.compose(Ask(hole["prefix"], hole["suffix"], hole["path"], hole["repo"])).ids
            ways: list[tuple[str, Way]] = [
                ("gateway", partial(self.through_gateway, question(hole))),
                ("direct", partial(self.straight, ids)),
            ]
            turns = ways if number % 2 == 0 else ways[::-1]  # who comes second finds the prompt in the cache
            cold[turns[0][0]].append(await turns[0][1](self.params.max_line_tokens))
            for name, asked in [*turns[1:], turns[0]]:
                warm[name].append(await asked(self.params.max_line_tokens))
            for name, asked in itertools.chain.from_iterable([ways, ways[::-1]] * PAIRS):
                single[name].append((await asked(ONE_TOKEN)).total)
        typing = {order: await self.type_into(holes, order) for order in ("spm", "psm")}
        through = await self.type_through(holes)
        await self.client.aclose()
        await self.backend.close()
        own = statistics.median(single["gateway"]) - statistics.median(single["direct"])
        return {
            "first_token_ms": {
                f"{name}_{state}": percentiles([t.first for t in timed[name] if t.first is not None])
                for state, timed in (("cold", cold), ("warm", warm))
                for name in ("gateway", "direct")
            },
            "generated_per_second": {name: rate([*cold[name], *warm[name]]) for name in ("gateway", "direct")},
            "prompt_per_second": prompt_rate([t for timed in cold.values() for t in timed]),
            "gateway_share": {
                "one_token_ms": {name: percentiles(values) for name, values in single.items()},
                "own_ms": round(own * 1000, 2),
                "ratio": round(statistics.median(single["gateway"]) / statistics.median(single["direct"]), 2),
            },
            "typing": {"keys": len(self.keys(holes)[1]), **typing},
            "typed_through": through,
            "requests": {"ok": self.requests["ok"], "errors": self.requests["error"]},
        }

    async def through_gateway(self, body: dict[str, Any], tokens: int) -> Timing:
        """A streamed completion as a client sees it."""
        started, first, timings = time.perf_counter(), None, NO_TIMINGS
        async with self.client.stream("POST", "/v1/completions", json={**body, "stream": True, "max_tokens": tokens}) as answer:
            self.requests["ok" if answer.status_code == httpx.codes.OK else "error"] += 1
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                message = json.loads(line.removeprefix("data: "))
                timings = message.get("timings") or timings
                if any(choice["text"] for choice in message.get("choices", [])):
                    first = first or time.perf_counter() - started
        return Timing(first, time.perf_counter() - started, timings)

    async def straight(self, ids: list[int], tokens: int) -> Timing:
        """The same ids without the gateway."""
        started, first, timings = time.perf_counter(), None, NO_TIMINGS
        async for event in self.backend.complete(ids, {"n_predict": tokens, "temperature": ASKED_ANEW}):
            timings = event.timings or timings
            if event.content:
                first = first or time.perf_counter() - started
        return Timing(first, time.perf_counter() - started, timings)

    def keys(self, holes: list[Row]) -> tuple[Row, str]:
        """The hole with the longest middle, and what of it is typed."""
        hole = max(holes, key=lambda row: (len(row["middle"]), row["sample_id"]))
        return hole, hole["middle"][: self.params.smoke_keystrokes]

    async def type_into(self, holes: list[Row], order: Order) -> dict[str, float]:
        """Type a middle one character at a time; what llama-server had to evaluate for each."""
        hole, keys = self.keys(holes)
        timed = []
        for typed in range(len(keys) + 1):
            body = question({**hole, "prefix": hole["prefix"] + keys[:typed]}, order=order)
            timed.append(await self.through_gateway(body, ONE_TOKEN))
        later = timed[1:] or timed  # the first one opens the place
        evaluated = sorted(t.timings.get("prompt_n", 0) for t in later)
        return {
            "evaluated_per_key": round(statistics.mean(evaluated), 2),
            "evaluated_p50": int(statistics.median_low(evaluated)),
            "evaluated_p95": int(evaluated[min(len(evaluated) - 1, int(len(evaluated) * 0.95))]),
            "prompt_ms_per_key": round(statistics.mean(t.timings.get("prompt_ms", 0) for t in later), 2),
            "request_ms_p50": round(statistics.median(t.total for t in later) * 1000, 2),
            "first_evaluated": int(timed[0].timings.get("prompt_n", 0)),
        }

    async def type_through(self, holes: list[Row]) -> dict[str, Any]:
        """Type answers as they were given, one character at a time: how many keys are answered from memory, and how fast."""
        typed: list[float] = []
        keys = 0
        for hole in holes:
            text = (await self.whole(question(hole, temperature=0, order=None)))[1]
            for size in range(1, len(text)):
                if keys == self.params.smoke_keystrokes:
                    break
                keys += 1
                seconds, _, source = await self.whole(question({**hole, "prefix": hole["prefix"] + text[:size]}, temperature=0, order=None))
                typed += [seconds] * (source == "typed")
        return {"keys": keys, "share": round(len(typed) / keys, 3) if keys else 0.0, "ms": percentiles(typed)}

    async def whole(self, body: dict[str, Any]) -> tuple[float, str, str]:
        """Seconds, text and source of an answer that is not streamed."""
        started = time.perf_counter()
        answer = await self.client.post("/v1/completions", json=body)
        self.requests["ok" if answer.status_code == httpx.codes.OK else "error"] += 1
        document = answer.raise_for_status().json()
        return time.perf_counter() - started, document["choices"][0]["text"], document.get("tabsmith", {}).get("source", "")


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50 and p95 in milliseconds, nearest rank; 0 where nothing was measured."""
    ordered = sorted(seconds)
    if not ordered:
        return {"p50": 0.0, "p95": 0.0, "n": 0}
    at = {name: ordered[min(len(ordered) - 1, int(len(ordered) * share))] for name, share in (("p50", 0.5), ("p95", 0.95))}
    return {**{name: round(value * 1000, 2) for name, value in at.items()}, "n": len(ordered)}


def rate(timed: list[Timing]) -> float:
    """Tokens generated per second, by the clock outside, from first text to the end."""
    spans = [(t.timings.get("predicted_n", 0) - 1, t.total - t.first) for t in timed if t.first is not None]
    tokens, seconds = sum(n for n, _ in spans), sum(s for _, s in spans)
    return round(tokens / seconds, 1) if seconds > 0 else 0.0


def prompt_rate(timed: list[Timing]) -> float:
    """Prompt tokens evaluated per second, by llama-server's clock, where most of the prompt was new."""
    pairs = [(t.timings.get("prompt_n", 0), t.timings.get("prompt_ms", 0)) for t in timed]
    tokens, milliseconds = sum(n for n, _ in pairs), sum(ms for _, ms in pairs)
    return round(tokens / milliseconds * 1000, 1) if milliseconds else 0.0
