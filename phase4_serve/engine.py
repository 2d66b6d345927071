"""One completion from request to last character.

In:  an `Ask` and how much may be generated
Out: pieces of text, then one `Done`; the same text whether somebody streams it or not

What was typed as predicted is answered from memory; what an older request was still writing goes on for the newer one that agrees with it.
Between requests the next prompt is evaluated ahead, in the background.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from core.fim import Codec
from core.syntax import lang_of
from phase4_serve import confidence, trigger
from phase4_serve.ahead import WARM, Clock, Plan, Planner, Seats, new
from phase4_serve.backend import Backend, BackendDown, BackendRefused, Event
from phase4_serve.behind import Behind
from phase4_serve.compose import Ask, Composer, Draft
from phase4_serve.heal import Healer
from phase4_serve.metrics import Metrics
from phase4_serve.model_file import Model
from phase4_serve.params import ServeParams
from phase4_serve.request import Declined, Done, Request, Sampling, Turn
from phase4_serve.scheduler import Busy, Job, Late, Rank, Scheduler, Superseded
from phase4_serve.typed import Answer, Generation, Showing, Typed

__all__ = ["Busy", "Declined", "Done", "Engine", "Late", "Sampling", "Superseded"]


class Engine:
    """Completes places; counts what happens."""

    def __init__(self, model: Model, params: ServeParams, backend: Backend, composer: Composer, metrics: Metrics) -> None:
        self.model, self.params, self.backend, self.composer, self.metrics = model, params, backend, composer, metrics
        self.scheduler = Scheduler(backend, params.slots, params.queue)
        self.scheduler.on_preempted = metrics.preempted.inc
        self.scheduler.on_freed = metrics.cancel_seconds.observe
        self.clock, self.seats, self.typed = Clock(), Seats(self.scheduler), Typed()
        self.planner = Planner(self.seats, self.clock, params.order)
        self._choosing = ThreadPoolExecutor(1, thread_name_prefix="retrieval")
        self.healer = Healer(backend) if params.heal else None
        self.patience = trigger.Patience()
        self._turns: dict[str, Turn] = {}
        self._writing: dict[str, Generation] = {}  # by session
        self.behind = Behind(self.scheduler, composer, params, metrics, self.clock, self.seats, self.typed, self._choosing)
        self._running = 0

    async def complete(self, ask: Ask, sampling: Sampling, whole: bool = False) -> AsyncGenerator[str | Done, None]:
        """Text as it becomes certain, at last how it ended. Closing the iterator ends the generation.

        Args:
            whole: nobody reads before the end. After `answer_ms` a block ends with the lines that are there.

        Raises:
            Declined: it makes no sense here.
            Busy, Late, Superseded: see there.
            BackendDown, BackendRefused: see there.
        """
        self._running += 1
        self.metrics.running.set(self._running)
        outcome, ended = "empty", False
        try:
            async with contextlib.aclosing(self._in_turn(ask, sampling, whole)) as pieces:
                async for piece in pieces:
                    ended = isinstance(piece, Done)
                    outcome = "shown" if piece and not ended else outcome
                    yield piece
        except (asyncio.CancelledError, GeneratorExit):
            outcome = outcome if ended else "cancelled"
            raise
        except (Declined, Busy, Late, Superseded) as error:
            outcome = type(error).__name__.lower()
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

    async def _in_turn(self, ask: Ask, sampling: Sampling, whole: bool) -> AsyncGenerator[str | Done, None]:
        """End the session's older request, then answer."""
        request = Request(self.composer.draft(ask), sampling, time.perf_counter())
        session = request.draft.session
        if (older := self._turns.get(session)) is not None:
            older.end()
        turn = self._turns[session] = Turn(lambda: self._wake(session))
        self.behind.end(session)
        try:
            async with contextlib.aclosing(self._answer(request, turn, whole)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            if self._turns.get(session) is turn:
                del self._turns[session]
                if not turn.lingers:
                    self._stop_writing(session)

    async def _answer(self, request: Request, turn: Turn, whole: bool) -> AsyncGenerator[str | Done, None]:
        draft, metrics = request.draft, self.metrics
        if draft.wants_pieces:
            await asyncio.get_running_loop().run_in_executor(self._choosing, self.composer.choose, draft)
            turn.check()
            metrics.retrieval.observe(draft.retrieval_seconds)
        showing = self._begin(request)
        draft.region.last = (draft.ask.prefix, draft.ask.suffix or "")
        self.seats.used(draft.session, showing.answer.seat)
        own = time.perf_counter() - request.started
        metrics.prompt.observe(own)
        first = True
        async with contextlib.aclosing(self._pieces(request, showing, turn, whole)) as pieces:
            async for piece in pieces:
                if first:
                    metrics.first_token.observe(time.perf_counter() - request.started)
                    first = False
                yield piece
        now = time.perf_counter()
        metrics.total.observe(now - request.started)
        metrics.gateway.observe(own + now - (request.heard or now))
        done = self._done(request, showing)
        if not turn.superseded:
            self.behind.later(request, showing)
        yield done

    def _begin(self, request: Request) -> Showing:
        """The remembered answer that goes on here, or a new one."""
        draft, sampling = request.draft, request.sampling
        request.settings = settings = self._settings(draft, sampling)
        stops, cap = tuple(settings["stop"]), self._cap(draft, sampling)
        floor = self.params.min_confidence if sampling.floor is None else sampling.floor
        request.key = key = self._key(draft, sampling)
        hit = self.typed.find(key, draft.ask.prefix) if key is not None and cap else None
        plan: Plan | None = None
        if hit is not None and not self._known(Showing(*hit, draft.place, cap, stops, 0.0)):
            plan = self.planner.plan(draft)
            if self._cost(hit.answer) > self.clock.seconds(new(plan.ids, self.seats.holds(plan.seat, plan.ids))) + WARM:
                hit = None
        if hit is not None:
            request.source = "typed"
            self._stop_writing(draft.session, but=hit.answer)
            return Showing(*hit, draft.place, cap, stops, floor)
        self._decline(draft)
        plan = plan or self.planner.plan(draft)
        healed = self.healer.heal(plan.ids, draft.ask.prefix) if self.healer and plan.order != "psm" else None
        answer = Answer(healed.ids, plan.seat, healed.typed) if healed else Answer(plan.ids, plan.seat)
        if healed and self.healer:
            request.lead = self.healer.lead(healed.typed, settings)
            self.metrics.healed.inc()
        if key is not None:
            self.typed.put(key, draft.ask.prefix, answer)
        self._stop_writing(draft.session)
        return Showing(answer, 0, draft.place, cap, stops, floor)

    async def _pieces(self, request: Request, showing: Showing, turn: Turn, whole: bool) -> AsyncGenerator[str, None]:
        """What is shown, from what is known and what is being written."""
        answer, session = showing.answer, request.draft.session
        budget = request.started + self.params.answer_ms / 1000 if whole and showing.cutter.place.mode == "block" else None
        held = ""
        while True:
            piece = showing.take()
            if piece and budget is None:
                yield piece
                turn.check()
            held += piece
            if showing.ended:
                break
            if budget is not None and "\n" in held and time.perf_counter() >= budget:
                turn.lingers, showing.ended = True, "limit"
                yield held[: held.rfind("\n")].rstrip()
                return
            generation = answer.running or self._writing.get(session)
            if generation is None or generation.answer is not answer:
                generation = self._write(request, showing)
            elif generation.over:
                if generation is not request.generation:  # an older request's, which asked for less
                    del self._writing[session]
                    continue
                if generation.error is not None:
                    raise generation.error
                if not answer.end:
                    raise BackendDown("the stream ended early")
                showing.ended = answer.end  # with fewer tokens told than were generated: some were no text
                continue
            left = 0.0 if budget is None else budget - time.perf_counter()
            timer = asyncio.get_running_loop().call_later(left, generation.wake) if left > 0 else None
            await generation.more()
            if timer is not None:
                timer.cancel()
            request.heard = time.perf_counter()
            turn.check()
        # As long as llama-server was asked for: it ends by itself now, which is cheaper than to end it and to look whether it has
        turn.lingers = showing.ended == "limit" and request.generation is not None
        rest = showing.finish()
        if held + rest if budget is not None else rest:
            yield held + rest if budget is not None else rest

    def _write(self, request: Request, showing: Showing) -> Generation:
        """Let llama-server go on with an answer."""
        answer, ask = showing.answer, request.draft.ask
        for session in [name for name in self._writing if name not in self._turns]:
            self._stop_writing(session)  # nobody waits for that: it goes on when it is asked for
        deadline = asyncio.get_running_loop().time() + self.params.deadline_ms / 1000 if ask.automatic else None
        settings = {**request.settings, "n_predict": showing.most - len(answer.ids)}
        job = Job(answer.seat, Rank.TYPING, [*answer.prompt, *answer.ids], settings, deadline, lead=request.lead)
        if request.source == "typed":
            request.source = "resumed"
        generation = Generation(answer, lambda: self.scheduler.run(job), showing.stops)
        self._writing[request.draft.session] = request.generation = generation
        return generation

    def _stop_writing(self, session: str, but: Answer | None = None) -> None:
        """End what is still being written for a session, unless it is this answer."""
        generation = self._writing.get(session)
        if generation is not None and (but is None or generation.answer is not but or generation.over):
            generation.stop()
            del self._writing[session]

    def _done(self, request: Request, showing: Showing) -> Done:
        """How it ended, counted."""
        metrics, answer = self.metrics, showing.answer
        before = answer.tokens_before(showing.offset)
        timings = dict(answer.timings)
        if request.source == "typed" and request.heard:
            request.source = "resumed"
        if request.source == "typed":
            timings = {"prompt_n": 0, "prompt_ms": 0, "cache_n": len(answer.prompt) + before, "predicted_ms": 0}
        timings["predicted_n"] = max(0, showing.tokens - before)
        reason = "unsure" if showing.unsure and not showing.text else ""
        stopped = "length" if showing.ended == "limit" else "stop"
        done = Done(stopped, showing.ended, timings, reason, request.source)
        metrics.typed_through.labels({"model": "miss", "resumed": "part", "typed": "whole"}[request.source]).inc()
        metrics.evaluated_per_request.observe(timings.get("prompt_n", 0))
        metrics.unsure.inc(bool(reason))
        if request.source != "typed":
            metrics.evaluated.inc(timings.get("prompt_n", 0))
            metrics.cached.inc(done.cached_tokens)
            metrics.generated.inc(done.generated_tokens)
            self.clock.learn(timings.get("prompt_n", 0), timings.get("prompt_ms", 0))
        return done

    def _key(self, draft: Draft, sampling: Sampling) -> Hashable | None:
        """What an answer depends on besides the text; None where chance decides too."""
        if sampling.temperature or draft.ask.suffix is None:
            return None
        return (self.model.name, self.model.fingerprint, draft.key(), sampling.stop)

    def _known(self, showing: Showing) -> bool:
        """Whether a remembered answer is worth more than a new one: it is written, being written, or cheap to go on with."""
        answer = showing.answer
        if answer.running is not None or self._cost(answer) <= WARM:
            return True
        showing.take()
        return bool(showing.ended)

    def _cost(self, answer: Answer) -> float:
        """Seconds until a remembered answer goes on."""
        return self.clock.seconds(new([*answer.prompt, *answer.ids], self.scheduler.holds(answer.seat)))

    def _decline(self, draft: Draft) -> None:
        """Raises: Declined, where an automatic request makes no sense."""
        ask, last = draft.ask, draft.region.last
        if not ask.automatic or ask.suffix is None:
            return
        lang = lang_of(draft.path) if draft.path else "python"
        resting = ask.client and self.patience.resting(ask.client, time.monotonic())
        reason = "dismissed" if resting else trigger.why_not(ask.prefix, ask.suffix, lang, trigger.Last(*last) if last else None, ask.path)
        if reason:
            self.metrics.declined.labels(reason).inc()
            draft.region.last = (ask.prefix, ask.suffix)
            raise Declined(reason)

    def _cap(self, draft: Draft, sampling: Sampling) -> int:
        most = self.params.max_line_tokens if draft.place.mode == "line" else self.params.max_block_tokens
        return most if sampling.max_tokens is None else min(most, sampling.max_tokens)

    def _settings(self, draft: Draft, sampling: Sampling) -> dict[str, Any]:
        """llama-server's fields: what the client asked for, within our bounds."""
        tokens = self.model.tokens
        chosen = {
            "temperature": sampling.temperature or 0.0,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "seed": sampling.seed,
            "stop": [*draft.place.stop, *sampling.stop],
            "logit_bias": [[token, False] for token in (tokens.prefix, tokens.middle, tokens.suffix)],  # never text
        }
        if sampling.floor or (sampling.floor is None and self.params.min_confidence):
            chosen |= confidence.SETTINGS
        return {name: value for name, value in chosen.items() if value is not None}

    def _wake(self, session: str) -> None:
        if (generation := self._writing.get(session)) is not None:
            generation.wake()

    async def chat(self, ids: list[int], sampling: Sampling, stop: list[str]) -> AsyncGenerator[str | Done, None]:
        """Text that goes on from a conversation, then how it ended; gives way to completions.

        Raises:
            Busy, BackendDown, BackendRefused: see there.
        """
        most = max(1, self.params.ctx - len(ids))
        settings: dict[str, Any] = {
            "n_predict": min(most, sampling.max_tokens or self.params.max_block_tokens),
            "temperature": sampling.temperature or 0.0,
            "stop": [*stop, *sampling.stop],
        }
        settings |= {name: value for name in ("top_p", "top_k", "seed") if (value := getattr(sampling, name)) is not None}
        last = Event("", False, "", {})
        job = Job("chat", Rank.CHAT, ids, settings)
        async with contextlib.aclosing(self.scheduler.run(job)) as events:
            async for last in events:
                if last.content:
                    yield last.content
        yield Done("length" if last.stop_type == "limit" else "stop", last.stop_type, last.timings)

    def swap(self, model: Model, backend: Backend) -> None:
        """Ask another llama-server from now on; nothing that the old model wrote is shown any more."""
        self.model, self.backend = model, backend
        self.composer.codec = Codec(backend.ids, model.tokens)
        self.scheduler.replace(backend)
        self.typed.clear()
        self.clock.forget()
        self.healer = Healer(backend) if self.params.heal else None

    def close(self) -> None:
        """End what runs in the background, and what is still being written behind an answer."""
        self.behind.close()
        for session in list(self._writing):
            self._stop_writing(session)
        self._choosing.shutdown(wait=False, cancel_futures=True)
