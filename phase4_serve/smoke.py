"""The DVC stage `serve`: start the server as a user would, ask it held-out holes, measure, stop it.

In:  a GGUF; files.parquet and test_file.parquet of phase 1
Out: serve.json: seconds to ready, first tokens, tokens/s, the gateway's own share, prompt tokens per keystroke, what is typed as predicted
     serve/manifest.json, runs/serve.json

The workspace is one repository, the one with the most held-out holes. The same ids go through the gateway and straight
to llama-server by turns, in one run, so that a busy machine slows both, and one client asks both, so that what the
client costs is in neither's disfavour. First token is first text shown: the gateway holds a token back while it may still
turn out to lie behind the end.
"""

from __future__ import annotations

import math
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from core.errors import InputError, MachineError
from core.fim import Codec, Order
from core.manifest import Run
from core.progress import track
from core.records import Row, read_parquet, write_json
from phase4_serve import model_file
from phase4_serve.compose import Ask, Composer
from phase4_serve.index import Index, put_all
from phase4_serve.params import ServeParams
from phase4_serve.stopwatch import Stopwatch, Timing
from phase4_serve.up import private_folder
from phase4_serve.vocabulary import read
from phase4_serve.workspace import Workspace

SAMPLES = "python -m phase1_data samples"
POLL, READY_SECONDS = 0.02, 300.0
PAIRS = 3  # one-token requests per hole and way, everything in the cache: what is left is the gateway
ONE_TOKEN = 1
ASKED_ANEW = 0.01  # a temperature at which nothing is answered from memory and the text hardly changes
OK = 200

Way = Callable[[int], Timing]


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
            first = first_request(url, chosen[0])
            server.wait_for("indexed ")
            figures = Smoke(model, checked, params.within(checked.context), url, server.socket, workspace).measure(chosen)
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
    warm, typing, hits = figures["first_token_ms"]["gateway_warm"], figures["typing"], figures["typed_through"]["ms"]
    known = f", and answers what is typed as predicted in {hits['p50']:.1f} ms" if hits["n"] else ""
    return (
        f"With its prompt in the cache the server shows its first text after {warm['p50']:.0f} ms (p50; p95 {warm['p95']:.0f}) on "
        f"{figures['cores']} cores{known}; a keystroke has "
        f"{typing['spm']['evaluated_per_key']:.1f} prompt tokens read, {typing['psm']['evaluated_per_key']:.1f} in the order PSM."
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


def first_request(url: str, hole: Row) -> float:
    """Seconds of the first request after the server was ready.

    Raises:
        MachineError: it was refused.
    """
    timing = Stopwatch(url).ask(question(hole))
    if timing.status != OK:
        raise MachineError(f"the server answered its first request with {timing.status}: try `python -m phase4_serve up`, and ask it")
    return timing.total


class Smoke:
    """Asks the same things through the gateway and directly."""

    def __init__(self, path: Path, model: model_file.Model, params: ServeParams, url: str, socket: Path, workspace: Path) -> None:
        self.params = params
        self.gateway, self.llama = Stopwatch(url), Stopwatch(socket)
        self.words = read(path, socket)
        index = Index(params.chunk_lines)
        known = Workspace(workspace, params.max_file_bytes)
        put_all(index, known.sources())
        self.composer = Composer(Codec(self.words.ids, model.tokens), params, known, index)
        self.requests: Counter[str] = Counter()

    def measure(self, holes: list[Row]) -> dict[str, Any]:
        """Every figure but those of start and stop."""
        cold: dict[str, list[Timing]] = {"gateway": [], "direct": []}
        warm: dict[str, list[Timing]] = {"gateway": [], "direct": []}
        single: dict[str, list[Timing]] = {"gateway": [], "direct": []}
        for number, hole in enumerate(track(holes, "serve", unit="holes")):
            ways: dict[str, Way] = {"gateway": partial(self.through_gateway, question(hole)), "direct": partial(self.straight, hole)}
            one, other = list(ways) if number % 2 == 0 else list(ways)[::-1]
            cold[one].append(ways[one](self.params.max_line_tokens))
            ways[other](self.params.max_line_tokens)  # it may have got another slot, and read the prompt there
            for name in (one, other, other, one):
                warm[name].append(ways[name](self.params.max_line_tokens))
            for name in (one, other, other, one) * PAIRS:
                single[name].append(ways[name](ONE_TOKEN))
        typing = {order: self.type_into(holes, order) for order in ("spm", "psm")}
        through = self.type_through(holes)
        for asked in (self.gateway, self.llama, self.words):
            asked.close()
        totals = {name: [t.total for t in timed] for name, timed in single.items()}
        middle = {name: statistics.median(values) for name, values in totals.items()}
        return {
            "first_token_ms": {
                f"{name}_{state}": percentiles([t.first for t in timed[name] if t.first is not None])
                for state, timed in (("cold", cold), ("warm", warm))
                for name in ("gateway", "direct")
            },
            "generated_per_second": {name: rate(timed) for name, timed in warm.items()},
            "prompt_per_second": prompt_rate([t for timed in cold.values() for t in timed]),
            "gateway_share": {
                "one_token_ms": {name: percentiles(values) for name, values in totals.items()},
                "own_ms": round((middle["gateway"] - middle["direct"]) * 1000, 2),
                "own_new_prompt_ms": round((outside(cold["gateway"]) - outside(cold["direct"])) * 1000, 2),
                "ratio": round(middle["gateway"] / middle["direct"], 2),
            },
            "typing": {"keys": len(self.keys(holes)[1]), **typing},
            "typed_through": through,
            "requests": {"ok": self.requests["ok"], "errors": self.requests["error"]},
        }

    def through_gateway(self, body: dict[str, Any], tokens: int, stream: bool = True) -> Timing:
        """A completion as a client sees it."""
        timing = self.gateway.ask({**body, "max_tokens": tokens}, stream)
        self.requests["ok" if timing.status == OK else "error"] += 1
        return timing

    def straight(self, hole: Row, tokens: int) -> Timing:
        """The same ids without the gateway."""
        prompt = self.composer.compose(Ask(hole["prefix"], hole["suffix"], hole["path"], hole["repo"]))
        return self.llama.ask({"prompt": prompt.ids, "stop": prompt.place.stop, "temperature": ASKED_ANEW, "max_tokens": tokens})

    def keys(self, holes: list[Row]) -> tuple[Row, str]:
        """The hole with the longest middle, and what of it is typed."""
        hole = max(holes, key=lambda row: (len(row["middle"]), row["sample_id"]))
        return hole, hole["middle"][: self.params.smoke_keystrokes]

    def type_into(self, holes: list[Row], order: Order) -> dict[str, float]:
        """Type a middle one character at a time; what llama-server had to evaluate for each."""
        hole, keys = self.keys(holes)
        timed = []
        for typed in range(len(keys) + 1):
            body = question({**hole, "prefix": hole["prefix"] + keys[:typed]}, order=order)
            timed.append(self.through_gateway(body, ONE_TOKEN))
        later = timed[1:] or timed  # the first one opens the place
        evaluated = [t.timings.get("prompt_n", 0) for t in later]
        return {
            "evaluated_per_key": round(statistics.mean(evaluated), 2),
            "evaluated_p50": int(quantile(evaluated, 0.5)),
            "evaluated_p95": int(quantile(evaluated, 0.95)),
            "prompt_ms_per_key": round(statistics.mean(t.timings.get("prompt_ms", 0) for t in later), 2),
            "request_ms_p50": round(statistics.median(t.total for t in later) * 1000, 2),
            "first_evaluated": int(timed[0].timings.get("prompt_n", 0)),
        }

    def type_through(self, holes: list[Row]) -> dict[str, Any]:
        """Type answers as they were given, one character at a time: how many keys are answered from memory, and how fast."""
        typed: list[float] = []
        keys = 0
        for hole in holes:
            text = self.whole(hole).text
            for size in range(1, len(text)):
                if keys == self.params.smoke_keystrokes:
                    break
                keys += 1
                answer = self.whole({**hole, "prefix": hole["prefix"] + text[:size]})
                typed += [answer.total] * (answer.source == "typed")
        return {"keys": keys, "share": round(len(typed) / keys, 3) if keys else 0.0, "ms": percentiles(typed)}

    def whole(self, hole: Row) -> Timing:
        """An answer that is not streamed, as an editor asks for it."""
        return self.through_gateway(question(hole, temperature=0, order=None), self.params.max_block_tokens, stream=False)


def quantile(values: Sequence[float], share: float) -> float:
    """Nearest rank."""
    return sorted(values)[math.ceil(len(values) * share) - 1]


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50 and p95 in milliseconds; 0 where nothing was measured."""
    at = {name: quantile(seconds, share) if seconds else 0.0 for name, share in (("p50", 0.5), ("p95", 0.95))}
    return {**{name: round(value * 1000, 2) for name, value in at.items()}, "n": len(seconds)}


def outside(timed: list[Timing]) -> float:
    """Seconds of a request that llama.cpp did not spend on tokens, the median."""
    return statistics.median([t.outside for t in timed if t.outside is not None] or [0.0])


def rate(timed: list[Timing]) -> float:
    """Tokens of an answer per second, by the clock outside, from the request to the end but for the reading of the prompt.

    Not from the first text on: what was held back until then would have taken no time.
    """
    tokens = sum(t.timings.get("predicted_n", 0) for t in timed)
    seconds = sum(t.total - t.timings.get("prompt_ms", 0) / 1000 for t in timed)
    return round(tokens / seconds, 1) if seconds > 0 else 0.0


def prompt_rate(timed: list[Timing]) -> float:
    """Prompt tokens evaluated per second, by llama-server's clock, where most of the prompt was new."""
    pairs = [(t.timings.get("prompt_n", 0), t.timings.get("prompt_ms", 0)) for t in timed]
    tokens, milliseconds = sum(n for n, _ in pairs), sum(ms for _, ms in pairs)
    return round(tokens / milliseconds * 1000, 1) if milliseconds else 0.0
