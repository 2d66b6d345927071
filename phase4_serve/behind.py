"""What is done behind an answer, once nobody types: the prompts that the next keys need, in a cache before they are asked for.

In:  a request that was answered; a file that was opened; how long its typist usually pauses between two keys
Out: prompts in slots, better pieces of other files, a line more of an answer; each given up for the next key

A key that comes while a step of such a prompt is being evaluated waits for the step. So none begins before a pause is longer than
this typist's usually are.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import Executor

from phase4_serve.ahead import FIRST, Clock, Seats, new
from phase4_serve.backend import BackendDown, BackendRefused, Event
from phase4_serve.compose import Ask, Composer, Draft
from phase4_serve.metrics import Metrics
from phase4_serve.params import ServeParams
from phase4_serve.request import Done, Request
from phase4_serve.scheduler import COLD, Busy, Job, Late, Rank, Scheduler, Superseded
from phase4_serve.typed import Showing, Typed

SETTLE, LONGEST_SETTLE = 0.25, 1.0  # seconds without a key after which a prompt is evaluated behind the small one that answered
PAUSES = 2.0  # of the usual pause between two keys: so long without one, and it is no pause between two keys
STOPPED = 2.0  # seconds: a longer pause says nothing about how somebody types
LIKE = 0.3  # weight of the newest pause
RETHINK = 3.0  # seconds without a key after which better pieces may replace those shown (llama.vscode)
MEASURED = "".join(f"value_{number} = {number}\n" for number in range(12))  # some 64 tokens
ATTEMPTS = 5  # at a prompt that others' typing ends
WORTH = 15.0  # seconds that work in the background may take, waiting for a slot included
SESSIONS = 256  # whose pace is remembered
GIVEN_UP = (Busy, Late, Superseded, BackendDown, BackendRefused, TimeoutError)  # how background work may end


class Pace:
    """How long typists pause between an answer and their next key."""

    def __init__(self) -> None:
        self._usual: OrderedDict[str, float] = OrderedDict()  # seconds, by session
        self._answered: OrderedDict[str, float] = OrderedDict()  # when

    def answered(self, session: str, now: float) -> None:
        """An answer has been given."""
        self._answered[session] = now
        if len(self._answered) > SESSIONS:
            self._answered.popitem(last=False)

    def asked(self, session: str, now: float) -> None:
        """The next key came."""
        pause = now - self._answered.pop(session, -STOPPED)
        if not 0 <= pause < STOPPED:
            return
        usual = self._usual.get(session, pause)
        self._usual[session] = usual + LIKE * (pause - usual)
        self._usual.move_to_end(session)
        if len(self._usual) > SESSIONS:
            self._usual.popitem(last=False)

    def settle(self, session: str) -> float:
        """Seconds after an answer from which on nobody is expected to press a key at once."""
        return min(LONGEST_SETTLE, max(SETTLE, PAUSES * self._usual.get(session, 0.0)))


class Behind:
    """The background half of one engine, whose parts it shares."""

    def __init__(
        self,
        scheduler: Scheduler,
        composer: Composer,
        params: ServeParams,
        metrics: Metrics,
        clock: Clock,
        seats: Seats,
        typed: Typed,
        choosing: Executor,
    ) -> None:
        self.scheduler, self.composer, self.params, self.metrics = scheduler, composer, params, metrics
        self.clock, self.seats, self.typed, self.choosing = clock, seats, typed, choosing
        self.pace = Pace()
        self._alone = asyncio.Lock()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def later(self, request: Request, showing: Showing) -> None:
        """Once nobody types, get the next prompt ready."""
        session = request.draft.session
        self.pace.answered(session, time.monotonic())
        if request.draft.order is not None:
            return
        task = self._tasks[session] = asyncio.ensure_future(self._ahead(request, showing))
        task.add_done_callback(lambda done: self._tasks.pop(session) if self._tasks.get(session) is done else None)

    def end(self, session: str) -> None:
        """The next key came."""
        self.pace.asked(session, time.monotonic())
        self._cancel(session)

    def _cancel(self, session: str) -> None:
        task = self._tasks.pop(session, None)
        if task is not None:
            task.cancel()

    def close(self) -> None:
        """End what runs."""
        for session in list(self._tasks):
            self._cancel(session)

    async def _ahead(self, request: Request, showing: Showing) -> None:
        """Work that the next key ends."""
        draft = request.draft
        await asyncio.sleep(self.pace.settle(draft.session))
        whole = draft.ids("spm")
        cheap = self.clock.seconds(len(whole)) <= FIRST
        for attempt in range(ATTEMPTS if not cheap else 0):
            await asyncio.sleep(attempt * SETTLE)
            if not (await self.fill(draft, draft.next_ids() or whole)).reason:
                break
        if self.params.next_line:
            await self._next_line(request, showing)
        await asyncio.sleep(RETHINK)
        if draft.region.pieces is None or self.composer.index is None:
            return
        better = await asyncio.get_running_loop().run_in_executor(self.choosing, self.composer.better, draft)
        if better is None:
            return
        filled = await self.fill(draft, draft.ids("spm", draft.hole(pieces=better)), draft.session if cheap else "")
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
            async with self._events(job) as events:
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
    async def _events(self, job: Job) -> AsyncIterator[AsyncGenerator[Event, None]]:
        """Events of a job that nobody waits for: one at a time, so that they never fill the queue."""
        alone = self._alone if job.rank is Rank.BACKGROUND else contextlib.nullcontext()
        async with asyncio.timeout(WORTH), alone, contextlib.aclosing(self.scheduler.run(job)) as events:
            yield events

    async def fill(self, draft: Draft, ids: list[int], seat: str = "", rank: Rank = Rank.BACKGROUND) -> Done:
        """Evaluate a prompt before somebody asks for it."""
        seat = seat or self.seats.other(draft.session, ids)
        if new(ids, self.scheduler.holds(seat)) <= 1:
            return Done("length", "limit", {"prompt_n": 0, "cache_n": len(ids)})
        outcome, event = "done", Event("", False, "", {})
        try:
            job = Job(seat, rank, ids, {"n_predict": 0, "temperature": 0.0})
            async with self._events(job) as events:
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
            await asyncio.get_running_loop().run_in_executor(self.choosing, self.composer.choose, draft)
        ids = draft.ids(draft.order or self.composer.default_order)
        dear = self.clock.seconds(len(ids)) > FIRST and self.seats.knows(draft.session)
        seat = self.seats.other(draft.session, ids) if dear else draft.session
        # Who asks for it is about to type there: where no slot is spare it takes the one that was used longest ago
        spare = any(slot.session == seat or asyncio.get_running_loop().time() - slot.used >= COLD for slot in self.scheduler.pool.typing)
        return await self.fill(draft, ids, seat, Rank.BACKGROUND if spare else Rank.TYPING)

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
