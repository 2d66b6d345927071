"""Who may use llama-server now, and in which slot.

In:  `Job`s: token ids of a session, and what they are for
Out: their events; Busy, Superseded, Late where there are none

A slot is a cache of llama-server's. A session, a place that somebody types in, keeps its slot until others need it, so
that what was evaluated for the last keystroke serves the next. The slot after the last of theirs belongs to the chat.

    TYPING      ends the session's older job wherever that is, ends BACKGROUND, pauses CHAT. Who waits is served in the
                order of arrival plus the time that the prompt will take, so that a keystroke passes a file just opened,
                and for a QUANTUM of text where others wait.
    CHAT        runs while nobody types; paused, it goes on from its prompt and what it has generated, which its slot
                still holds. Under constant typing it gets a turn now and then.
    BACKGROUND  runs while nothing else does, in its session's slot or one that nobody has used lately.

llama-server hears of a closed connection when it next has something to say, and it says nothing while it evaluates a
prompt (it looks once a second). So a long prompt is sent in steps of a fraction of a second, each with the last one in its
cache: what is cancelled is over with its step, and between two steps another may go first.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

from phase4_serve.backend import Aborted, Answer, Backend, BackendDown, BackendRefused, Event

STEP_SECONDS = 0.25  # of prompt evaluated at once: what a cancel may cost
# Tokens. Steps of 64 and more, cut at multiples of 64, give a prompt the same last bits however fast this machine is just now;
# smaller batches are computed in another order. 64 cost 15% of the speed of 256, and 32 cost 30%.
STEP, LONGEST_STEP = 64, 512
IDLE_STEP = 16  # of what nobody waits for: what it may cost the first key, 0.08 s; 16 at once are 3% slower than 32, 8 are 60%
PER_TOKEN = 0.004  # seconds, until it has been measured
LIKE = 0.3  # weight of the newest measurement
QUANTUM = 0.3  # seconds that a TYPING job may generate while others wait
RESUME = 0.4  # seconds without typing after which chat goes on
PATIENCE, TURN = 3.0, 0.4  # seconds that chat waits at most while somebody types, and for which it then runs
COLD = 30.0  # seconds unused after which a slot may be taken for something in the background
KNOWN = 32  # tokens in common that make a slot nobody owns worth taking
WHOLE = ("grammar", "json_schema")  # settings of a completion that cannot be interrupted: the grammar would begin anew
LOOK, SOON, LOOKING = 0.002, 0.05, 5.0  # seconds between two looks whether a slot is idle, when they get rarer, and in all
AWAY = 0.9  # of the time that a token takes: before it is over no look is worth what it takes from llama-server


class Busy(Exception):
    """As many jobs as may wait are waiting."""


class Superseded(Exception):
    """A newer job of the same session came; or, to something in the background, any other job."""


class Late(Exception):
    """It could not be started in time."""


class Paused(Exception):
    """It was put aside and will go on; never seen outside."""


One = Callable[[dict[str, Any]], Awaitable[Event]]  # asks for the next token alone, with these settings besides the job's


class Lead(Protocol):
    """What a completion has to begin with."""

    def __call__(self, written: list[int], one: One) -> AsyncGenerator[Event, None]:
        """Events of its beginning, after what is written of it."""

    def inside(self, written: list[int]) -> int:
        """How many of these tokens are only that beginning, and not counted in `n_predict`."""


class Rank(IntEnum):
    """What a job is for."""

    TYPING = 0
    CHAT = 1
    BACKGROUND = 2


class Job(NamedTuple):
    """What is to be completed."""

    session: str  # whose cache it can use
    rank: Rank
    ids: list[int]
    settings: dict[str, Any]  # llama-server's fields
    deadline: float | None = None  # loop time until which it may be started
    keep: bool = True  # False: what its slot holds must not be written to disk
    lead: Lead | None = None  # says what its first tokens are; of what was written of them, and asked one by one


@dataclass(eq=False)
class Slot:
    """A cache of llama-server's, as far as we know what it holds."""

    number: int
    session: str = ""
    held: list[int] = field(default_factory=list)
    keep: bool = True
    used: float = float("-inf")  # loop time
    entry: Entry | None = None  # what runs in it
    ending: bool = False  # llama-server may not have heard yet that what ran in it was cancelled

    @property
    def free(self) -> bool:
        return self.entry is None and not self.ending


@dataclass(eq=False)
class Pool:
    """One llama-server and its slots; the last is the chat's."""

    backend: Backend
    slots: list[Slot]
    per_token: float = PER_TOKEN
    a_token: float = 0.0  # seconds to generate one; 0 until it has been measured

    @classmethod
    def of(cls, backend: Backend, slots: int) -> Pool:
        return cls(backend, [Slot(number) for number in range(slots + 1)])

    @property
    def typing(self) -> list[Slot]:
        """The slots of sessions."""
        return self.slots[:-1]

    def of_session(self, session: str) -> Slot | None:
        """The slot that a session has."""
        return next((slot for slot in self.slots if session and slot.session == session), None)

    def step(self, rank: Rank) -> int:
        """Tokens of prompt to evaluate at once."""
        if rank is not Rank.TYPING:
            return IDLE_STEP
        return max(STEP, min(LONGEST_STEP, int(STEP_SECONDS / self.per_token) // STEP * STEP))

    def learn(self, timings: dict[str, float]) -> None:
        """Note how fast a prompt was evaluated, and tokens generated."""
        if timings.get("prompt_n", 0) >= IDLE_STEP / 2:
            self.per_token += LIKE * (timings["prompt_ms"] / 1000 / timings["prompt_n"] - self.per_token)
        if (many := timings.get("predicted_n", 0)) > 1:  # the first came with the prompt
            took = timings.get("predicted_ms", 0) / 1000 / (many - 1)
            self.a_token += LIKE * (took - self.a_token) if self.a_token else took

    def forget(self) -> None:
        """llama-server went away, and every cache with it."""
        for slot in self.slots:
            slot.session, slot.held, slot.used = "", [], float("-inf")


@dataclass(eq=False)
class Entry:
    """A job on its way."""

    job: Job
    pool: Pool
    due: float  # who has the least is served first
    since: float  # loop time at which it began to wait
    go: asyncio.Future[None]
    slot: Slot | None = None
    answer: Answer | None = None
    fate: type[Exception] | None = None  # why it was taken from its slot
    begun: bool = False  # it has been started once
    generating: bool = False
    stepping: bool = False  # llama-server evaluates a step of its prompt, and hears nothing until that is done
    turn: float = 0.0  # loop time until which it is not paused
    heard: float = 0.0  # loop time of llama-server's last word
    written: list[int] = field(default_factory=list)  # what it goes on from after a pause
    timings: dict[str, float] = field(default_factory=dict)  # of requests that are over
    current: dict[str, float] = field(default_factory=dict)  # of the one that runs

    @property
    def rank(self) -> Rank:
        return self.job.rank

    @property
    def pausable(self) -> bool:
        return self.rank is not Rank.BACKGROUND and not any(self.job.settings.get(name) for name in WHOLE)


class Scheduler:
    """Runs jobs of one event loop.

    Args:
        slots: sessions whose cache is kept; llama-server has one slot more, for the chat.
        queue: how many jobs more than slots may be there.
        at_once: TYPING jobs that generate at the same time; None: by this machine's cores.
    """

    def __init__(self, backend: Backend, slots: int, queue: int, at_once: int | None = None) -> None:
        self.pool, self.slots, self.queue = Pool.of(backend, slots), slots, queue
        self.at_once = min(slots, at_once or by_cores())
        self.on_preempted: Callable[[], None] = lambda: None  # a CHAT or BACKGROUND job gave way
        self.on_freed: Callable[[float], None] | None = None  # seconds from a cancel until llama-server's slot was idle
        self._waiting: list[Entry] = []
        self._running: list[Entry] = []
        self._aside: list[Entry] = []  # paused, and whoever reads them has not noticed
        self._typed = float("-inf")  # loop time at which the last TYPING job ended
        self._timer: asyncio.TimerHandle | None = None
        self._looking: set[asyncio.Task[None]] = set()

    async def run(self, job: Job) -> AsyncGenerator[Event, None]:
        """Events of a job, when its turn comes; closing the iterator ends it.

        Raises:
            Busy, Superseded, Late: see there.
            BackendDown, BackendRefused: see there.
        """
        entry = self._admit(job)
        try:
            while True:
                await self._start_of(entry)
                try:
                    async with contextlib.aclosing(self._events(entry)) as events:
                        async for event in events:
                            yield event
                    return
                except Aborted:
                    if entry.fate is not Paused:
                        raise Superseded from None
                    self._aside.remove(entry)
                except BackendDown:
                    entry.pool.forget()
                    raise
                self._wait(entry)
        finally:
            self._leave(entry)

    def holds(self, session: str) -> list[int]:
        """Ids that the session's slot holds, as far as we know; none if it has no slot."""
        slot = self.pool.of_session(session)
        return [] if slot is None else list(slot.held)

    def idle_since(self) -> float | None:
        """Loop time since which no TYPING job ran or waited; None while one does."""
        return None if self._typing() else self._typed

    def replace(self, backend: Backend) -> None:
        """Start jobs on another llama-server from now on; who is here already stays: its ids are of the old one's vocabulary."""
        self.pool = Pool.of(backend, self.slots)
        self._pump()

    def uses(self, backend: Backend) -> bool:
        """Whether a job still needs a llama-server that was replaced."""
        return any(entry.pool.backend is backend for entry in (*self._running, *self._waiting, *self._aside))

    def kept(self) -> list[tuple[int, list[int]]]:
        """Slots whose content may be written to disk, with the ids that they hold; the last used first."""
        slots = [slot for slot in self.pool.typing if slot.held and slot.keep and slot.entry is None]
        return [(slot.number, list(slot.held)) for slot in sorted(slots, key=lambda slot: -slot.used)]

    def put_back(self, number: int, held: list[int]) -> None:
        """Note what a slot holds that was restored; the first session whose prompt begins so gets it."""
        slot = self.pool.slots[number]
        slot.held, slot.used = held, _now()

    # ---- who waits, who runs

    def _admit(self, job: Job) -> Entry:
        now = _now()
        cost = (len(job.ids) - common(self.holds(job.session), job.ids)) * self.pool.per_token
        entry = Entry(job, self.pool, now + cost, now, asyncio.get_running_loop().create_future())
        if job.rank is not Rank.CHAT:
            self._supersede(entry)
        # What nobody waits for takes no place from who types, as it makes way for him
        rivals = (Rank.TYPING, Rank.BACKGROUND) if job.rank is Rank.BACKGROUND else (job.rank,)
        alike = sum(e.rank in rivals for e in (*self._waiting, *self._running))
        if alike >= self.queue + (1 if job.rank is Rank.CHAT else self.slots):
            self._pump()
            raise Busy
        self._wait(entry)
        return entry

    def _supersede(self, entry: Entry) -> None:
        """End the session's older jobs; one that waits leaves its place to the newer."""
        session, rank = entry.job.session, entry.rank
        for older in [e for e in self._waiting if e.job.session == session and e.rank >= rank and e.rank is not Rank.CHAT]:
            if older.rank is rank:
                entry.due = min(entry.due, older.due)
            self._waiting.remove(older)
            older.fate = Superseded
            tell(older, Superseded())
        for older in [e for e in self._running if e.job.session == session and e.rank >= rank and e.rank is not Rank.CHAT]:
            self._evict(older, Superseded)
        for older in [e for e in self._aside if e.job.session == session and e.rank is not Rank.CHAT]:
            self._aside.remove(older)
            older.fate = Superseded

    def _wait(self, entry: Entry) -> None:
        entry.since, entry.fate, entry.generating, entry.stepping = _now(), None, False, False
        entry.go = asyncio.get_running_loop().create_future()
        self._waiting.append(entry)
        self._pump()

    async def _start_of(self, entry: Entry) -> None:
        """Wait for a slot."""
        loop, deadline = asyncio.get_running_loop(), entry.job.deadline
        late = None if deadline is None or entry.begun else loop.call_at(max(deadline, loop.time()), self._too_late, entry)
        try:
            await entry.go
        finally:
            if late:
                late.cancel()

    def _too_late(self, entry: Entry) -> None:
        if entry in self._waiting:
            self._waiting.remove(entry)
            tell(entry, Late())
            self._pump()

    def _pump(self) -> None:
        """Put aside what has to give way; start what may start."""
        now, typing = _now(), self._typing()
        for entry in list(self._running):
            if entry.rank is Rank.BACKGROUND and (typing or any(e.rank is Rank.CHAT for e in self._waiting)):
                self._evict(entry, Superseded)
            elif entry.rank is Rank.CHAT and typing and entry.pausable and now >= entry.turn:
                self._evict(entry, Paused)
            elif entry.rank is Rank.TYPING and entry.generating and entry.turn <= now and self._must_share(entry, now):
                entry.due = now + QUANTUM
                self._evict(entry, Paused)
        for entry in sorted(self._waiting, key=lambda e: (e.rank, e.due)):
            if (slot := self._slot_for(entry, now)) is not None:
                self._start(entry, slot)
        self._set_timer(now)

    def _must_share(self, entry: Entry, now: float) -> bool:
        """Whether a TYPING job has had its share and another waits for it."""
        # Who waits for a slot of its own to become idle is not helped: giving way to it would begin anew at once, for ever
        waiting = (e for e in self._waiting if e.rank is Rank.TYPING and ((own := e.pool.of_session(e.job.session)) is None or own.free))
        first = min(waiting, key=lambda e: e.due, default=None)
        if first is None or not entry.pausable:
            return False
        return first.due - QUANTUM <= now if entry.generating else first.due < entry.due  # two that came at once are equal

    def _slot_for(self, entry: Entry, now: float) -> Slot | None:
        """The slot in which a job may start now."""
        pool = entry.pool
        if entry.rank is Rank.CHAT:
            chat, nobody_types = pool.slots[-1], not self._typing() and now >= self._typed + RESUME
            return chat if chat.free and (nobody_types or now >= entry.since + PATIENCE) else None
        own = pool.of_session(entry.job.session)
        free = [slot for slot in pool.typing if slot.free]
        if entry.rank is Rank.BACKGROUND:
            if any(e.rank is not Rank.BACKGROUND for e in (*self._running, *self._waiting)):
                return None
            free = [slot for slot in free if now - slot.used >= COLD]
        elif sum(e.rank is Rank.TYPING for e in self._running) + sum(slot.ending for slot in pool.slots) >= self.at_once:
            return None  # beside another in one batch it would be slower, and its last bits others
        if own is not None and own in pool.typing:
            return own if own.free else None
        known = max(free, key=lambda slot: 0 if slot.session else common(slot.held, entry.job.ids), default=None)
        if known is not None and not known.session and common(known.held, entry.job.ids) >= KNOWN:
            return known
        awaited = {e.job.session for e in self._waiting if e is not entry}
        return min(free, key=lambda slot: (slot.session in awaited, slot.used), default=None)

    def _start(self, entry: Entry, slot: Slot) -> None:
        now = _now()
        if entry.rank is Rank.CHAT:
            entry.turn = now + TURN if self._typing() or now - self._typed < RESUME else now
        slot.session, slot.entry, slot.used, slot.keep = entry.job.session, entry, now, entry.job.keep
        entry.slot, entry.begun = slot, True
        self._waiting.remove(entry)
        self._running.append(entry)
        if not entry.go.done():
            entry.go.set_result(None)

    def _evict(self, entry: Entry, fate: type[Exception]) -> None:
        """Take a job out of its slot; whoever reads its events learns it there."""
        entry.fate = fate
        if fate is Paused:
            self._aside.append(entry)
        self._free(entry)
        self._abort(entry, unread=fate is Paused)
        if entry.rank is not Rank.TYPING:
            self.on_preempted()

    def _free(self, entry: Entry) -> None:
        """Its slot may be used by another."""
        if entry not in self._running:
            return
        self._running.remove(entry)
        assert entry.slot is not None
        entry.slot.entry, entry.slot.used = None, _now()
        if entry.rank is Rank.TYPING:
            self._typed = _now()

    def _whole(self, entry: Entry) -> None:
        """llama-server has said all; its reader may take as long as it likes."""
        self._free(entry)
        self._pump()

    def _leave(self, entry: Entry) -> None:
        for where in (self._waiting, self._aside):
            if entry in where:
                where.remove(entry)
        if entry.go.done() and not entry.go.cancelled():
            entry.go.exception()  # it has been told, or nobody listens any more
        if entry in self._running:
            self._abort(entry)
        elif entry.answer is not None:
            entry.answer.abort()
        self._free(entry)
        self._pump()

    def _typing(self) -> bool:
        return any(e.rank is Rank.TYPING for e in self._running) or any(e.rank is Rank.TYPING for e in self._waiting)

    def _set_timer(self, now: float) -> None:
        """Look again when a chat may go on, or somebody has had a turn: whatever `_pump` found to be too early at this very moment.

        Both compute a time in the same way and compare it with the same `now`, or a job would wait for ever between them.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiting:
            return
        typing = self._typing()
        first = min((e.due for e in self._waiting if e.rank is Rank.TYPING), default=now)
        times = [e.turn for e in self._running if typing and e.rank is Rank.CHAT]
        times += [max(e.turn, first - QUANTUM) for e in self._running if e.rank is Rank.TYPING and e.generating]
        for entry in self._waiting:
            if entry.rank is Rank.CHAT:
                times.append(entry.since + PATIENCE if typing else min(entry.since + PATIENCE, self._typed + RESUME))
        times = [time for time in times if time > now]
        if times:
            self._timer = asyncio.get_running_loop().call_at(min(times), self._pump)

    def _abort(self, entry: Entry, unread: bool = False) -> None:
        """End a job's request. Its slot is used again when llama-server has heard of it, or what is sent would queue there."""
        slot = entry.slot
        if entry.answer is None or slot is None:
            return
        looks = not slot.ending
        slot.ending = True
        if entry.stepping and looks:
            self._leave_step(entry.answer, slot)
            return
        entry.answer.abort(unread)
        if looks:
            next_word = entry.heard + AWAY * entry.pool.a_token if entry.generating else 0.0
            task = asyncio.create_task(self._until_idle(entry.pool.backend, slot, next_word))
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)

    def _leave_step(self, answer: Answer, slot: Slot) -> None:
        """The end of a step says by itself that the slot is idle: asking for it would take time from it."""
        started = _now()

        def over() -> None:
            timer.cancel()
            self._idle(slot, started)

        timer = asyncio.get_running_loop().call_later(LOOKING, answer.abort)  # which is an end, too
        answer.leave(over)

    async def _until_idle(self, backend: Backend, slot: Slot, next_word: float) -> None:
        started = _now()
        await asyncio.sleep(max(0.0, next_word - started))
        with contextlib.suppress(BackendDown, BackendRefused):
            while (passed := _now() - started) < LOOKING and not await backend.is_idle(slot.number):
                await asyncio.sleep(LOOK if passed < SOON else 5 * LOOK)
        self._idle(slot, started)

    def _idle(self, slot: Slot, since: float) -> None:
        """llama-server does nothing in a slot any more."""
        slot.ending = False
        if self.on_freed is not None:
            self.on_freed(_now() - since)
        self._pump()

    # ---- one job in its slot

    async def _events(self, entry: Entry) -> AsyncGenerator[Event, None]:
        """Evaluate the prompt in steps, then generate."""
        slot, job = entry.slot, entry.job
        assert slot is not None
        await self._prefill(entry, slot, [*job.ids, *entry.written])
        if job.lead is not None:
            async with contextlib.aclosing(job.lead(entry.written, lambda settings: self._one(entry, slot, settings))) as events:
                async for event in events:
                    entry.written += event.tokens
                    yield event._replace(timings=entry.timings)
        ids, led = [*job.ids, *entry.written], job.lead is not None and bool(entry.written)
        settings = {**job.settings, "id_slot": slot.number, **_rest(job, entry.written)}
        if entry.written and settings.get("n_predict") == 0:  # paused behind its last token: llama-server would write one more
            yield Event("", True, "limit", entry.timings)
            return
        answer = await self._open(entry, ids, settings)
        answer.when_whole(lambda: self._whole(entry))
        held = slot.held = ids
        most = len(entry.written) + settings["n_predict"] if settings.get("n_predict", -1) >= 0 else -1
        entry.current = {}
        try:
            while True:
                event = await answer.next()
                entry.heard = _now()
                if not entry.generating and event.tokens:
                    self._generates(entry, slot)
                if led and event.timings:
                    entry.timings, led = _sum(entry.timings, _shift(event.timings)), False
                held += event.tokens
                entry.written += event.tokens
                entry.current = event.timings or entry.current
                if event.stop or len(entry.written) >= most >= 0:
                    self._whole(entry)  # it says no more, though its last word may still be on its way
                yield event._replace(timings=_sum(entry.timings, entry.current))
                if event.stop:
                    return
        finally:
            entry.pool.learn(entry.current)
            entry.timings = _sum(entry.timings, entry.current)

    async def _one(self, entry: Entry, slot: Slot, settings: dict[str, Any]) -> Event:
        """Generate one token; the slot stays the job's."""
        job, ids = entry.job, [*entry.job.ids, *entry.written]
        asked = {**job.settings, "id_slot": slot.number, **_rest(job, entry.written), **settings, "n_predict": 1}
        answer, token = await self._open(entry, ids, asked), Event("", False, "", {})
        slot.held = ids
        while not (event := await answer.next()).stop:
            token = event if event.tokens else token
        self._generates(entry, slot)
        entry.timings = _sum(_sum(entry.timings, event.timings), _shift(event.timings) if entry.written else {})
        return token

    def _generates(self, entry: Entry, slot: Slot) -> None:
        """Its first token came: from now on others who wait get their share."""
        if not entry.generating and slot.entry is entry:
            entry.generating = True
            entry.turn = _now() + QUANTUM if entry.rank is Rank.TYPING else entry.turn
            self._pump()

    async def _prefill(self, entry: Entry, slot: Slot, ids: list[int]) -> None:
        """Evaluate a long prompt up to its last step."""
        at, least = common(slot.held, ids), STEP if entry.rank is Rank.TYPING else IDLE_STEP
        while len(ids) - at > least:
            if entry.rank is Rank.TYPING and slot.entry is entry and self._must_share(entry, _now()):
                self._evict(entry, Paused)
            at = min(at // least * least + entry.pool.step(entry.rank), (len(ids) - 1) // least * least)
            entry.stepping = True
            answer = await self._open(entry, ids[:at], {"id_slot": slot.number, "n_predict": 0})
            while not (event := await answer.next()).stop:
                pass
            entry.stepping = False
            entry.timings = _sum(entry.timings, {**event.timings, "predicted_n": 0, "predicted_ms": 0})
            entry.pool.learn(event.timings)
            slot.held = ids[:at]

    async def _open(self, entry: Entry, ids: list[int], settings: dict[str, Any]) -> Answer:
        """Send a request that can be aborted from outside."""
        if entry.fate is None:
            entry.answer = await entry.pool.backend.open(ids, settings)
        if entry.fate is not None:  # taken from its slot meanwhile
            self._abort(entry)
            raise Aborted
        assert entry.answer is not None
        return entry.answer


def by_cores() -> int:
    """TYPING jobs that should generate at the same time.

    Two cores generate 50 tokens/s for one and 42 for two together (0.5B, Q4_K_M), so there one after the other is better for
    both; with many cores the weights are read once for all.
    """
    return max(1, (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1) // 4)


def tell(entry: Entry, error: Exception) -> None:
    """End a job's waiting, unless whoever waited has just gone."""
    if not entry.go.done():
        entry.go.set_exception(error)


def common(one: list[int], other: list[int]) -> int:
    """Length of the common beginning."""
    if one == other[: len(one)]:
        return len(one)
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _now() -> float:
    return asyncio.get_running_loop().time()


def _rest(job: Job, written: list[int]) -> dict[str, Any]:
    """What changes in the settings of a completion that goes on."""
    changed: dict[str, Any] = {}
    if written and job.settings.get("n_predict", -1) >= 0:
        counted = len(written) - (job.lead.inside(written) if job.lead is not None else 0)
        changed["n_predict"] = max(0, job.settings["n_predict"] - counted)
    if written and job.settings.get("seed", -1) >= 0:
        changed["seed"] = job.settings["seed"] + len(written)  # the same random numbers again would be no sample
    return changed


def _shift(timings: dict[str, float]) -> dict[str, float]:
    """What makes the evaluation of a token that was written count as a part of writing, as it does within one request."""
    spent = timings.get("prompt_ms", 0)
    return {"prompt_n": -timings.get("prompt_n", 0), "prompt_ms": -spent, "predicted_ms": spent}


def _sum(past: dict[str, float], now: dict[str, float]) -> dict[str, float]:
    """Timings of a completion that took several requests: what the first found in the cache, and what all did."""
    if not past or not now:
        return now or past
    added = {name: past.get(name, 0) + now.get(name, 0) for name in ("prompt_n", "prompt_ms", "predicted_n", "predicted_ms")}
    return {**now, **added, "cache_n": past.get("cache_n", 0)}
