"""Which prompt is asked in which slot, by what it will cost; and what is done before anybody asks.

In:  a draft, what the session's slots hold, how fast this machine has been so far
Out: a `Plan`; prompts worth having in a slot when the next key comes

A session has two seats, two slots' worth of cache. While the whole prompt is cheap only the first is used. Where it is not, after a jump to
another function say, a small window is asked in one seat, and the whole prompt is evaluated in the other behind it: typing stays on what is
warm until the better prompt is warm too.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from core.fim import Order
from phase4_serve.compose import Draft
from phase4_serve.scheduler import Scheduler, common

FIRST = 0.42  # seconds of prompt that a first token may wait for
WARM = 0.06  # seconds by which a warm prompt may be dearer than a smaller one and is still taken
LEAST = 64  # tokens of a small window, however slow the machine
KEYS = 4  # keystrokes that are expected in a place: what each costs counts for the order
MARGIN = 0.8  # an order is left for one that costs this share or less
BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 1 << 30)  # tokens: the cost of a token falls with how many are evaluated at once
GUESS = (0.020, 0.017, 0.013, 0.013, 0.013, 0.010, 0.005, 0.004, 0.004)  # seconds a token; a 0.5B model on 2 cores, until it is measured
LIKE = 0.3  # weight of the newest measurement
SESSIONS = 256  # whose last seat is remembered


class Clock:
    """How long this machine takes to evaluate a prompt, learnt from what it took."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Another model: begin again."""
        self.per_token = list(GUESS)
        self.measured = [False] * len(GUESS)

    def learn(self, tokens: float, milliseconds: float) -> None:
        """Take note of a prompt that was evaluated."""
        if tokens < 1 or milliseconds <= 0:
            return
        at, cost = self._bucket(int(tokens)), milliseconds / 1000 / tokens
        if not self.measured[at] and not any(self.measured):  # the first figure says how fast the machine is as such
            self.per_token = [guess * cost / GUESS[at] for guess in GUESS]
        elif not self.measured[at]:
            self.per_token[at] = cost
        else:
            self.per_token[at] += LIKE * (cost - self.per_token[at])
        self.measured[at] = True

    def seconds(self, tokens: int) -> float:
        """What so many tokens will take."""
        return tokens * self.per_token[self._bucket(tokens)]

    def tokens(self, seconds: float) -> int:
        """How many tokens can be evaluated in a time, from what many at once take."""
        return int(seconds / self.per_token[-2])

    @staticmethod
    def _bucket(tokens: int) -> int:
        return next(at for at, most in enumerate(BUCKETS) if tokens <= most)


class Plan(NamedTuple):
    """What is asked."""

    ids: list[int]
    seat: str  # whose cache it uses: the scheduler's session
    kind: str  # whole | next | small
    order: Order


def seats(session: str) -> tuple[str, str]:
    """Names of a session's two caches."""
    return session, f"{session}~"


class Seats:
    """What the slots of sessions hold, and which of its two each used last."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self._last: OrderedDict[str, str] = OrderedDict()

    def holds(self, seat: str, ids: list[int]) -> list[int]:
        """What a seat holds; where it has no slot yet, what it will find in one that nobody owns since the last start."""
        held = self.scheduler.holds(seat)
        if held:
            return held
        orphans = [slot.held for slot in self.scheduler.pool.typing if not slot.session and slot.entry is None]
        return max(orphans, key=lambda orphan: common(orphan, ids), default=[])

    def last(self, session: str) -> str:
        """The seat used last; empty for a session that is not known."""
        return self._last.get(session, "")

    def knows(self, session: str) -> bool:
        """Whether it has asked before."""
        return session in self._last

    def used(self, session: str, seat: str) -> None:
        """Note that a request goes there."""
        self._last[session] = seat
        self._last.move_to_end(session)
        if len(self._last) > SESSIONS:
            self._last.popitem(last=False)

    def other(self, session: str, ids: list[int]) -> str:
        """The seat that holds a prompt already, else the one that is not typed in now."""
        held = {name: self.holds(name, ids) for name in seats(session)}
        return max(held, key=lambda name: (new(ids, held[name]) <= 1, name != self.last(session)))


def new(ids: list[int], held: list[int]) -> int:
    """Tokens that must be evaluated; the last always is."""
    return max(1, len(ids) - common(held, ids))


class Planner:
    """Decides for one server."""

    def __init__(self, seats: Seats, clock: Clock, order: str) -> None:
        self.seats, self.clock, self.order = seats, clock, order

    def plan(self, draft: Draft) -> Plan:
        """The prompt to ask now."""
        last = self.seats.last(draft.session)
        order: Order = draft.order or ("psm" if self.order == "psm" else "spm")
        whole = draft.ids(order)
        held = {seat: self.seats.holds(seat, whole) for seat in seats(draft.session)}
        free_choice = draft.order is None and self.order != "psm"  # who names an order gets the whole prompt in it
        coming = draft.next_ids() if free_choice else None
        if coming is not None:
            seat = self._seat(coming, held, last)
            if self.clock.seconds(new(coming, held[seat])) <= WARM:
                draft.move_on()
                return Plan(coming, seat, "next", order)
        cheap = self.clock.seconds(len(whole)) <= FIRST
        seat = draft.session if cheap else self._seat(whole, held, last)
        seconds = self.clock.seconds(new(whole, held[seat]))
        if cheap or not free_choice:
            return Plan(whole, seat, "whole", order)
        if self.order == "auto" and seconds > FIRST and (psm := self._psm(draft, held, last, seconds)):
            return psm
        if seconds <= WARM:
            return Plan(whole, seat, "whole", order)
        return self._smaller(draft, held, last, Plan(whole, seat, "whole", order), seconds)

    def _psm(self, draft: Draft, held: dict[str, list[int]], last: str, seconds: float) -> Plan | None:
        """The whole prompt in the other order, where a jump makes it cheap at once and over the next keys."""
        ids = draft.ids("psm")
        seat = self._seat(ids, held, last)
        first = self.clock.seconds(new(ids, held[seat]))
        per_key = self.clock.seconds(len(ids) - len(draft.ids("psm", draft.hole(suffix=""))) + 1)
        pays = first + KEYS * per_key < MARGIN * (seconds + KEYS * self.clock.seconds(1))
        return Plan(ids, seat, "whole", "psm") if first <= FIRST and pays else None

    def _smaller(self, draft: Draft, held: dict[str, list[int]], last: str, whole: Plan, seconds: float) -> Plan:
        """A small window, unless the whole prompt is about as cheap."""
        room = max(LEAST, self.clock.tokens(FIRST))
        best, cost = whole, seconds if seconds <= FIRST else float("inf")
        for context, anew in ((True, False), (False, False), (False, True)):
            ids = draft.small_ids(room, context, anew)
            seat = self._seat(ids, held, last)
            small = self.clock.seconds(new(ids, held[seat]))
            if small + WARM < cost and (small <= FIRST or anew):
                return Plan(ids, seat, "small", "spm")
        return best if cost < float("inf") else whole

    def _seat(self, ids: list[int], held: dict[str, list[int]], last: str) -> str:
        """The seat that holds most of a prompt; of two alike the one not used last, so that a jump back finds its place."""
        return max(held, key=lambda seat: (common(held[seat], ids), seat != last or not held[seat]))
