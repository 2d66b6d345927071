"""One completion from request to last character.

In:  an `Ask` and how much may be generated
Out: pieces of text, then one `Done`; the same text whether somebody streams it or not
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from core.stops import Cutter
from phase4_serve.backend import Backend, BackendDown, BackendRefused, Event
from phase4_serve.compose import Ask, Composer, Prompt
from phase4_serve.metrics import Metrics
from phase4_serve.model_file import Model
from phase4_serve.params import ServeParams


class Busy(Exception):
    """As many requests as may wait are waiting."""


class Sampling(NamedTuple):
    """How tokens are chosen; a server for typing is greedy unless asked otherwise."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


class Done(NamedTuple):
    """How a completion ended."""

    finish_reason: str  # stop | length
    stop_type: str  # llama-server's word: eos | limit | word; "rule" where one of ours ended it
    timings: dict[str, float]

    @property
    def prompt_tokens(self) -> int:
        return int(self.timings.get("prompt_n", 0) + self.timings.get("cache_n", 0))

    @property
    def cached_tokens(self) -> int:
        return int(self.timings.get("cache_n", 0))

    @property
    def generated_tokens(self) -> int:
        return int(self.timings.get("predicted_n", 0))


class Engine:
    """Completes places; counts what happens."""

    def __init__(self, model: Model, params: ServeParams, backend: Backend, composer: Composer, metrics: Metrics) -> None:
        self.model, self.params, self.backend, self.composer, self.metrics = model, params, backend, composer, metrics
        self._preparing = ThreadPoolExecutor(1, thread_name_prefix="prompt")
        self._running = 0

    async def complete(self, ask: Ask, sampling: Sampling) -> AsyncGenerator[str | Done, None]:
        """Text as it becomes certain, at last how it ended. Closing the iterator ends the generation.

        Raises:
            Busy: too many requests.
            BackendDown, BackendRefused: see there.
        """
        if self._running >= self.params.slots + self.params.queue:
            self.metrics.requests.labels("busy").inc()
            raise Busy
        self._running += 1
        self.metrics.running.set(self._running)
        outcome, ended = "empty", False
        try:
            async with contextlib.aclosing(self._complete(ask, sampling)) as pieces:
                async for piece in pieces:
                    ended = isinstance(piece, Done)
                    outcome = "shown" if piece and not ended else outcome
                    yield piece
        except (asyncio.CancelledError, GeneratorExit):
            outcome = outcome if ended else "cancelled"
            raise
        except BackendDown:
            outcome = "unavailable"
            raise
        except BackendRefused:
            outcome = "refused"
            raise
        except Exception:
            outcome = "failed"
            raise
        finally:
            self._running -= 1
            self.metrics.running.set(self._running)
            self.metrics.requests.labels(outcome).inc()

    async def _complete(self, ask: Ask, sampling: Sampling) -> AsyncGenerator[str | Done, None]:
        started = time.perf_counter()
        prompt = await asyncio.get_running_loop().run_in_executor(self._preparing, self.composer.compose, ask)
        self.metrics.prompt.observe(time.perf_counter() - started)
        self.metrics.retrieval.observe(prompt.retrieval_seconds)
        cutter, last, seen = Cutter(prompt.place), Event("", False, "", {}), False
        timings: dict[str, float] = {}
        async with contextlib.aclosing(self.backend.complete(prompt.ids, self._settings(prompt, sampling))) as events:
            async for last in events:
                timings = last.timings or timings
                piece = cutter.feed(last.content)
                if piece and not seen:
                    seen = True
                    self.metrics.first_token.observe(time.perf_counter() - started)
                if piece:
                    yield piece
                if cutter.done:
                    break
        by_rule = cutter.done
        rest = cutter.finish()
        if rest:
            yield rest
        self.metrics.total.observe(time.perf_counter() - started)
        done = Done("stop" if by_rule or last.stop_type != "limit" else "length", "rule" if by_rule else last.stop_type, timings)
        self.metrics.evaluated.inc(timings.get("prompt_n", 0))
        self.metrics.cached.inc(done.cached_tokens)
        self.metrics.generated.inc(done.generated_tokens)
        yield done

    def _settings(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        """llama-server's fields: what the client asked for, within our bounds."""
        cap = self.params.max_line_tokens if prompt.place.mode == "line" else self.params.max_block_tokens
        tokens = self.model.tokens
        chosen = {
            "n_predict": cap if sampling.max_tokens is None else min(cap, sampling.max_tokens),
            "temperature": sampling.temperature or 0.0,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "seed": sampling.seed,
            "stop": [*prompt.place.stop, *sampling.stop],
            "logit_bias": [[token, False] for token in (tokens.prefix, tokens.middle, tokens.suffix)],  # never text
        }
        return {name: value for name, value in chosen.items() if value is not None}

    def close(self) -> None:
        """End the thread that makes prompts."""
        self._preparing.shutdown(wait=False, cancel_futures=True)
