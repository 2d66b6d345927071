"""When work behind an answer begins, and what a key costs that comes in the middle of it."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from phase4_serve.behind import LONGEST_SETTLE, SESSIONS, SETTLE, STOPPED, Pace
from phase4_serve.engine import Sampling
from tests.phase4_serve.conftest import Running
from tests.phase4_serve.test_engine import SUFFIX, Ask, Path, answer, engine, run

PAUSE = st.floats(0.0, STOPPED - 0.01)


@given(st.lists(PAUSE, max_size=30))
def test_nothing_begins_while_the_next_key_is_due(pauses: list[float]) -> None:
    pace, now = Pace(), 1000.0
    for pause in pauses:
        pace.answered("s", now)
        pace.asked("s", now := now + pause)
    assert SETTLE <= pace.settle("s") <= LONGEST_SETTLE
    for _ in range(20):  # whoever types so from now on is known to
        pace.answered("s", now)
        pace.asked("s", now := now + 0.3)
    assert pace.settle("s") > 0.3 * 1.9


def test_who_stops_to_think_does_not_type_slowly_and_sessions_do_not_mix() -> None:
    pace, now = Pace(), 0.0
    for number in range(50):
        pace.answered("s", now)
        pace.asked("s", now := now + (60.0 if number % 5 == 0 else 0.1))
    assert pace.settle("s") == SETTLE == pace.settle("another")
    pace.asked("never answered", now)
    assert pace.settle("never answered") == SETTLE


def test_sessions_are_forgotten_in_the_end() -> None:
    pace = Pace()
    for number in range(4 * SESSIONS):
        pace.answered(f"s{number}", number)
        if number % 2:
            pace.asked(f"s{number}", number + 0.1)
    assert len(pace._usual) <= SESSIONS and len(pace._answered) <= SESSIONS


def test_an_answer_as_long_as_was_asked_for_leaves_the_slot_idle_by_itself(server: Running, tiny: Path) -> None:
    async def main() -> None:
        async with engine(server, tiny) as made:
            cancels: list[float] = []
            made.scheduler.on_freed = cancels.append
            for number in range(8):
                prefix = f"value_{number} = 1\nother = "
                _, done = await answer(made, Ask(prefix, SUFFIX, "limit.py", automatic=False), Sampling(max_tokens=3))
                if done.finish_reason != "length":
                    continue
                for _ in range(100):
                    if made.scheduler.idle_since() is not None:
                        break
                    await asyncio.sleep(0.01)
                assert made.scheduler.idle_since() is not None and not cancels
            assert not [slot for slot in made.scheduler.pool.slots if slot.entry or slot.ending]

    run(main)
