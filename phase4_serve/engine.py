"""One completion from request to last character.

In:  an `Ask` and how much may be generated
Out: pieces of text, then one `Done`; the same text whether somebody streams it or not

What was typed as predicted is answered from memory; what an older request was still writing goes on for the newer one that agrees with it.
Between requests the next prompt is evaluated ahead, in the background.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from core.fim import Codec
from core.syntax import lang_of
from phase4_serve import confidence, trigger
from phase4_serve.ahead import FIRST, WARM, Clock, Plan, Planner, new, seats
from phase4_serve.backend import Backend, BackendDown, BackendRefused, Event
from phase4_serve.compose import Ask, Composer, Draft
from phase4_serve.heal import Healer
from phase4_serve.metrics import Metrics
from phase4_serve.model_file import Model
from phase4_serve.params import ServeParams
from phase4_serve.scheduler import COLD, Busy, Job, Late, Rank, Scheduler, Superseded, common
from phase4_serve.typed import Answer, Generation, Showing, Typed

__all__ = ["Busy", "Declined", "Done", "Engine", "Late", "Sampling", "Superseded"]

SETTLE = 0.25  # seconds without a key after which a prompt is evaluated behind the small one that answered
RETHINK = 3.0  # seconds without a key after which better pieces may replace those shown (llama.vscode)
JUMP = 16  # tokens of a small window that had to be evaluated: somebody begins to type here, or reads
SESSIONS = 256  # whose last seat is remembered
MEASURED = "".join(f"value_{number} = {number}\n" for number in range(12))  # some 64 tokens
ATTEMPTS = 5  # at a prompt in the background that others' typing ends
WORTH = 15.0  # seconds that work in the background may take, waiting for a slot included
GIVEN_UP = (Busy, Late, Superseded, BackendDown, BackendRefused, TimeoutError)  # how background work may end


class Declined(Exception):
    """The trigger says that a completion makes no sense here."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Sampling(NamedTuple):
    """How tokens are chosen; a server for typing is greedy unless asked otherwise."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    floor: float | None = None  # least probability of what is shown; None: the server's


class Done(NamedTuple):
    """How a completion ended."""

    finish_reason: str  # stop | length
    stop_type: str  # llama-server's word: eos | limit | word; "rule" where one of ours ended it
    timings: dict[str, float]
    reason: str = ""  # superseded | late | unsure | why the trigger declined; "" where it is an answer
    source: str = "model"  # model | typed (out of the type-through cache) | resumed (in part)

    @property
    def prompt_tokens(self) -> int:
        return int(self.timings.get("prompt_n", 0) + self.timings.get("cache_n", 0))

    @property
    def cached_tokens(self) -> int:
        return int(self.timings.get("cache_n", 0))

    @property
    def generated_tokens(self) -> int:
        return int(self.timings.get("predicted_n", 0))


class Turn:
    """A session's request that is being answered; the next one ends it."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.superseded = self.lingers = False  # lingers: what is being written goes on behind the answer
        self._wake = wake

    def end(self) -> None:
        """A newer request came."""
        self.superseded = True
        self._wake()

    def check(self) -> None:
        """Raises: Superseded."""
        if self.superseded:
            raise Superseded


class Request:
    """What is known of one request on its way."""

    def __init__(self, draft: Draft, sampling: Sampling, started: float) -> None:
        self.draft, self.sampling, self.started = draft, sampling, started
        self.settings: dict[str, Any] = {}
        self.extra: dict[str, Any] = {}  # settings of its first generation only
        self.key: Hashable | None = None
        self.source = "model"
        self.generation: Generation | None = None  # that it has started
        self.heard = 0.0  # when llama-server was heard last; 0: it was not asked


class Engine:
    """Completes places; counts what happens."""

    def __init__(self, model: Model, params: ServeParams, backend: Backend, composer: Composer, metrics: Metrics) -> None:
        self.model, self.params, self.backend, self.composer, self.metrics = model, params, backend, composer, metrics
        self.scheduler = Scheduler(backend, params.slots, params.queue)
        self.scheduler.on_preempted = metrics.preempted.inc
        self.scheduler.on_freed = metrics.cancel_seconds.observe
        self.clock = Clock()
        self.planner = Planner(self._holds, self.clock, params.order)
        self.typed = Typed()
        self._choosing = ThreadPoolExecutor(1, thread_name_prefix="retrieval")
        self.healer = Healer(backend.piece) if params.heal else None
        self.patience = trigger.Patience()
        self._turns: dict[str, Turn] = {}
        self._writing: dict[str, Generation] = {}  # by session
        self._last: dict[str, str] = {}  # the seat that a session used last
        self._one_behind = asyncio.Lock()
        self._behind: dict[str, asyncio.Task[None]] = {}
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
        self._end_behind(session)
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
        self._remember_seat(draft.session, showing.answer.seat)
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
        self._later(request, showing)
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
            plan = self._plan(draft)
            if self._cost(hit.answer) > self.clock.seconds(new(plan.ids, self._holds(plan.seat, plan.ids))) + WARM:
                hit = None
        if hit is not None:
            request.source = "typed"
            self._stop_writing(draft.session, but=hit.answer)
            return Showing(*hit, draft.place, cap, stops, floor)
        self._decline(draft)
        plan = plan or self._plan(draft)
        healed = self.healer.heal(plan.ids, draft.ask.prefix) if self.healer and plan.order != "psm" else None
        answer = Answer(healed.ids, plan.seat, healed.typed) if healed else Answer(plan.ids, plan.seat)
        if healed:
            request.extra = {**healed.settings, "n_predict": cap + healed.tokens}
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
        rest = showing.finish()
        if held + rest if budget is not None else rest:
            yield held + rest if budget is not None else rest

    def _write(self, request: Request, showing: Showing) -> Generation:
        """Let llama-server go on with an answer."""
        answer, ask = showing.answer, request.draft.ask
        for session in [name for name in self._writing if name not in self._turns]:
            self._stop_writing(session)  # nobody waits for that: it goes on when it is asked for
        deadline = asyncio.get_running_loop().time() + self.params.deadline_ms / 1000 if ask.automatic else None
        settings = {**request.settings, "n_predict": showing.most - len(answer.ids), **request.extra}
        job = Job(answer.seat, Rank.TYPING, [*answer.prompt, *answer.ids], settings, deadline)
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

    def _holds(self, seat: str, ids: list[int]) -> list[int]:
        """What a seat holds; where it has no slot yet, what it will find in one that nobody owns since the last start."""
        held = self.scheduler.holds(seat)
        if held:
            return held
        orphans = [slot.held for slot in self.scheduler.pool.typing if not slot.session and slot.entry is None]
        return max(orphans, key=lambda orphan: common(orphan, ids), default=[])

    def _plan(self, draft: Draft) -> Plan:
        return self.planner.plan(draft, self._last.get(draft.session, ""))

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

    def _remember_seat(self, session: str, seat: str) -> None:
        self._last.pop(session, None)
        self._last[session] = seat
        if len(self._last) > SESSIONS:
            del self._last[next(iter(self._last))]

    def _end_behind(self, session: str) -> None:
        task = self._behind.pop(session, None)
        if task is not None:
            task.cancel()

    def _later(self, request: Request, showing: Showing) -> None:
        """Once nobody types, get the next prompt ready."""
        draft, session = request.draft, request.draft.session
        if draft.order is not None or self._turns.get(session, None) is None:
            return
        jumped = request.source == "model" and showing.answer.timings.get("prompt_n", 0) > JUMP
        task = asyncio.ensure_future(self._ahead(request, showing, jumped))
        self._behind[session] = task
        task.add_done_callback(lambda done: self._behind.pop(session) if self._behind.get(session) is done else None)

    async def _ahead(self, request: Request, showing: Showing, jumped: bool) -> None:
        """Work that the next key ends."""
        draft = request.draft
        await asyncio.sleep(0 if jumped else SETTLE)
        whole = draft.ids("spm")
        cheap = self.clock.seconds(len(whole)) <= FIRST
        for attempt in range(ATTEMPTS if not cheap else 0):
            await asyncio.sleep(attempt * SETTLE)
            if not (await self._fill(draft, draft.next_ids() or whole)).reason:
                break
        if self.params.next_line:
            await self._next_line(request, showing)
        await asyncio.sleep(RETHINK)
        if draft.region.pieces is None or self.composer.index is None:
            return
        better = await asyncio.get_running_loop().run_in_executor(self._choosing, self.composer.better, draft)
        if better is None:
            return
        filled = await self._fill(draft, draft.ids("spm", draft.hole(pieces=better)), draft.session if cheap else "")
        if not filled.reason:
            draft.region.pieces = better

    async def _next_line(self, request: Request, showing: Showing) -> None:
        """Write one line more, as if what was shown had been accepted; once per answer."""
        answer, prefix = showing.answer, request.draft.ask.prefix
        start = showing.offset + len(showing.text)
        accepted = answer.text[showing.offset : start] == showing.text and not request.draft.place.rest
        gone = answer.end == "eos" or answer.running is not None or not self.scheduler.holds(answer.seat)
        if request.key is None or not showing.text.strip() or not accepted or gone:
            return
        settings = {**request.settings, "stop": list(request.sampling.stop), "n_predict": self.params.max_line_tokens}
        job = Job(answer.seat, Rank.BACKGROUND, [*answer.prompt, *answer.ids], settings)
        outcome, answer.end, answer.stops = "next_line", "", request.sampling.stop
        try:
            async with self._in_background(job) as events:
                async for event in events:
                    answer.grow(event)
                    if "\n" in answer.text[start:].lstrip():
                        break
        except GIVEN_UP:
            outcome = "superseded"
        finally:
            self.metrics.prefills.labels(outcome).inc()
            for at in (start, *(start + match.end() for match in re.finditer(r"\n[ \t]*", answer.text[start:]))):
                self.typed.put(request.key, prefix + answer.text[showing.offset : at], answer, at)

    @contextlib.asynccontextmanager
    async def _in_background(self, job: Job) -> AsyncIterator[AsyncGenerator[Event, None]]:
        """Events of a job that nobody waits for: one at a time, so that they never fill the queue."""
        alone = self._one_behind if job.rank is Rank.BACKGROUND else contextlib.nullcontext()
        async with asyncio.timeout(WORTH), alone, contextlib.aclosing(self.scheduler.run(job)) as events:
            yield events

    def _other(self, session: str, ids: list[int]) -> str:
        """The seat that holds a prompt already, else the one that is not typed in now."""
        held = {name: self._holds(name, ids) for name in seats(session)}
        return max(held, key=lambda name: (new(ids, held[name]) <= 1, name != self._last.get(session, "")))

    async def _fill(self, draft: Draft, ids: list[int], seat: str = "", rank: Rank = Rank.BACKGROUND) -> Done:
        """Evaluate a prompt before somebody asks for it."""
        seat = seat or self._other(draft.session, ids)
        if new(ids, self.scheduler.holds(seat)) <= 1:
            return Done("length", "limit", {"prompt_n": 0, "cache_n": len(ids)})
        outcome, event = "done", Event("", False, "", {})
        try:
            job = Job(seat, rank, ids, {"n_predict": 0, "temperature": 0.0})
            async with self._in_background(job) as events:
                async for latest in events:
                    event = latest
            self.clock.learn(event.timings.get("prompt_n", 0), event.timings.get("prompt_ms", 0))
        except GIVEN_UP as error:
            outcome = "superseded" if isinstance(error, Superseded) else type(error).__name__.lower()
        except asyncio.CancelledError:
            outcome = "superseded"
            raise
        finally:
            self.metrics.prefills.labels(outcome).inc()
        return Done("length", "limit", event.timings, "" if outcome == "done" else "superseded")

    async def prefill(self, ask: Ask) -> Done:
        """Warm the cache for a place; answers when it is done or was given up."""
        draft = self.composer.draft(ask)
        if draft.wants_pieces:
            await asyncio.get_running_loop().run_in_executor(self._choosing, self.composer.choose, draft)
        ids = draft.ids(draft.order or self.composer.default_order)
        dear = self.clock.seconds(len(ids)) > FIRST and draft.session in self._last
        seat = self._other(draft.session, ids) if dear else draft.session
        # Who asks for it is about to type there: where no slot is spare it takes the one that was used longest ago
        spare = any(slot.session == seat or asyncio.get_running_loop().time() - slot.used >= COLD for slot in self.scheduler.pool.typing)
        return await self._fill(draft, ids, seat, Rank.BACKGROUND if spare else Rank.TYPING)

    async def measure(self) -> None:
        """Learn how fast llama-server reads here, before the first prompt is chosen by it; once."""
        if any(self.clock.measured):
            return
        ids = self.composer.codec.plain(MEASURED)
        with contextlib.suppress(*GIVEN_UP):
            job = Job("measure", Rank.CHAT, ids, {"n_predict": 0, "temperature": 0.0})  # in the chat's slot: the others may hold something
            async with contextlib.aclosing(self.scheduler.run(job)) as events:
                async for event in events:
                    self.clock.learn(event.timings.get("prompt_n", 0), event.timings.get("prompt_ms", 0))

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
        self.clock = Clock()
        self.planner = Planner(self._holds, self.clock, self.params.order)
        self.healer = Healer(backend.piece) if self.params.heal else None

    def close(self) -> None:
        """End what runs in the background."""
        for session in list(self._behind):
            self._end_behind(session)
        self._choosing.shutdown(wait=False, cancel_futures=True)
