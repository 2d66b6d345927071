"""Who is served when, against a real llama-server: newest wins, nobody is hurt, nobody starves, chat gives way and goes on."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.fim import CONTROL
from phase4_serve import binary, scheduler
from phase4_serve.backend import Answer, Backend, BackendDown, BackendRefused, Event
from phase4_serve.scheduler import Busy, Job, Late, Rank, Scheduler, Superseded, common
from tests.phase4_serve.conftest import PARAMS

# Only visible ASCII: of half a character llama-server never says the token, and this model writes random bytes
ASCII = [[token, False] for token in range(94, 256 + len(CONTROL))]
GREEDY = {"temperature": 0.0, "ignore_eos": True, "logit_bias": ASCII}
SLOTS, QUEUE = 2, 2


class Llama:
    """A llama-server without a gateway."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.socket, self.model = folder / "l.sock", model
        saves = folder / "saves"
        saves.mkdir(mode=0o700)
        command = binary.command(binary.find(), model, self.socket, PARAMS.model_copy(update={"slots": SLOTS}), saves)
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, umask=0o077)
        self.handle = psutil.Process(self.process.pid)
        asyncio.run(self._until_ready())

    async def _until_ready(self) -> None:
        backend = Backend(self.socket)
        for _ in range(1000):
            with contextlib.suppress(BackendDown, BackendRefused):
                await backend.ask("/health", None, 2)
                return
            await asyncio.sleep(0.02)
        raise AssertionError("llama-server does not start")

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Whatever is asked now takes as long as we like."""
        self.handle.suspend()
        try:
            yield
        finally:
            self.handle.resume()


@pytest.fixture(scope="module")
def llama(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Llama]:
    running = Llama(tiny, tmp_path_factory.mktemp("l"))
    yield running
    running.process.kill()
    running.process.wait()


class Counting(Backend):
    """Notes what llama-server is asked."""

    def __init__(self, socket: Path, model: Path) -> None:
        super().__init__(socket, model)
        self.opened: list[dict[str, Any]] = []

    async def open(self, ids: list[int], settings: dict[str, Any]) -> Answer:
        self.opened.append({"length": len(ids), **settings})
        return await super().open(ids, settings)


def ids_of(text: str) -> list[int]:
    return [ord(character) % 256 for character in text]


def job(session: str, text: str | list[int], tokens: int = 20, rank: Rank = Rank.TYPING, **other: Any) -> Job:
    ids = ids_of(text) if isinstance(text, str) else text
    settings = {**GREEDY, "n_predict": tokens, **other.pop("settings", {})}
    return Job(session, rank, ids, settings, **other)


class Result:
    """What a job came to."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.error: BaseException | None = None
        self.first = self.done = 0.0

    @property
    def text(self) -> str:
        return "".join(event.content for event in self.events)

    @property
    def tokens(self) -> list[int]:
        return [token for event in self.events for token in event.tokens]


async def follow(who: Scheduler, what: Job, result: Result | None = None) -> Result:
    result, started = result or Result(), time.perf_counter()
    try:
        async with contextlib.aclosing(who.run(what)) as events:
            async for event in events:
                result.first = result.first or time.perf_counter() - started
                result.events.append(event)
    except (Busy, Superseded, Late, BackendDown) as error:
        result.error = error
    result.done = time.perf_counter() - started
    return result


async def assert_same(backend: Backend, prompt: list[int], alone: Result, paused: Result) -> None:
    """The same tokens; where they part, the two were equally likely but for the last bits, which a batch of two changes."""
    at = common(alone.tokens, paused.tokens)
    assert len(alone.tokens) == len(paused.tokens)
    if at < len(alone.tokens):
        body = {"prompt": [*prompt, *alone.tokens[:at]], "n_predict": 1, "n_probs": 2, **GREEDY}
        top = (await backend.ask("/completion", body))["completion_probabilities"][0]["top_logprobs"]
        assert {entry["id"] for entry in top} == {alone.tokens[at], paused.tokens[at]}
        assert abs(top[0]["logprob"] - top[1]["logprob"]) < 0.02


@pytest.fixture
def run(llama: Llama) -> Callable[..., Any]:
    """Run a scenario with a scheduler of its own and slots that hold nothing."""

    def running(scenario: Callable[[Scheduler, Counting], Coroutine[Any, Any, Any]], at_once: int = SLOTS) -> Any:
        async def main() -> Any:
            backend = Counting(llama.socket, llama.model)
            for slot in range(SLOTS + 1):
                await backend.erase(slot)
            who = Scheduler(backend, SLOTS, QUEUE, at_once)
            found = await asyncio.wait_for(scenario(who, backend), 60)
            assert not who._running and not who._waiting and not who._aside
            assert all(slot.entry is None for slot in who.pool.slots)
            for _ in range(200):
                if all([await backend.is_idle(slot) for slot in range(SLOTS + 1)]):
                    return found
                await asyncio.sleep(0.01)
            raise AssertionError("llama-server goes on with something that nobody wants")

        return asyncio.run(main())

    return running


def test_a_keystroke_evaluates_one_token_though_others_type_too(run: Any) -> None:
    async def scenario(who: Scheduler, backend: Counting) -> None:
        texts = {"a": "import os\n" * 20, "b": "class B:\n    pass\n" * 12}
        for _ in range(3):
            for session in texts:
                result = await follow(who, job(session, texts[session], 4))
                texts[session] += "x"
        assert result.events[-1].timings["prompt_n"] == 1
        assert result.events[-1].timings["cache_n"] == len(texts["b"]) - 2
        assert common(who.holds("a"), ids_of(texts["a"])) == len(texts["a"]) - 1 and who.holds("c") == []

    run(scenario)


def test_the_newest_request_of_a_session_wins_and_the_others_are_told(run: Any, llama: Llama) -> None:
    """Promise 3: thirty requests in no time, at most two started, the last answered."""

    async def scenario(who: Scheduler, backend: Counting) -> list[Result]:
        with llama.frozen():
            tasks = []
            for number in range(30):
                tasks.append(asyncio.create_task(follow(who, job("a", "x = " + "y" * number))))
                await asyncio.sleep(0.005)
        return [*await asyncio.gather(*tasks), len(backend.opened)]  # type: ignore[list-item]

    *results, started = run(scenario)
    assert all(isinstance(result.error, Superseded) for result in results[:-1])
    assert results[-1].error is None and results[-1].events[-1].stop
    assert started == 2 and all(result.done < 0.1 for result in results[:-1])


@pytest.mark.parametrize("when", ["queued", "streaming"])
def test_superseding_reaches_a_job_wherever_it_is(run: Any, llama: Llama, when: str) -> None:
    async def scenario(who: Scheduler, backend: Counting) -> tuple[Result, Result]:
        others = [asyncio.create_task(follow(who, job(name, name * 50, 300))) for name in "bc"] if when == "queued" else []
        await asyncio.sleep(0)
        older = Result()
        first = asyncio.create_task(follow(who, job("a", "abc", 700), older))
        while when == "streaming" and not older.events:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.002)
        newer = await follow(who, job("a", "abcd", 5))
        for other in await asyncio.gather(*others):
            assert other.error is None and len(other.tokens) >= 0 and other.events[-1].stop
        return await first, newer

    older, newer = run(scenario, 1 if when == "queued" else SLOTS)
    assert isinstance(older.error, Superseded) and newer.error is None
    assert bool(older.events) is (when == "streaming")


def test_one_clients_cancel_never_hurts_another(run: Any) -> None:
    """Promise 2: cancelled while queued, running or about to start, the other's text is that of a run alone."""

    async def scenario(who: Scheduler, backend: Counting) -> None:
        alone = (await follow(who, job("a", "def solo(x):\n", 200))).text
        for wait in (0.0, 0.005, 0.02, 0.05):
            running = asyncio.create_task(follow(who, job("a", "def solo(x):\n", 200)))
            await asyncio.sleep(0.002)
            others = [asyncio.create_task(follow(who, job(name, name * 200, 300))) for name in ("b", "c")]
            await asyncio.sleep(wait)
            for other in others:
                other.cancel()
            result = await running
            await asyncio.gather(*others, return_exceptions=True)
            assert result.error is None and result.text == alone

    run(scenario, 1)


def test_who_hangs_up_in_the_moment_a_newer_request_comes_breaks_nothing(run: Any, llama: Llama) -> None:
    async def scenario(who: Scheduler, backend: Counting) -> None:
        with llama.frozen():
            running = asyncio.create_task(follow(who, job("a", "abc", 5)))
            await asyncio.sleep(0.01)
            waiting = asyncio.create_task(follow(who, job("b", "abc", 5)))
            await asyncio.sleep(0.01)
            waiting.cancel()
            newer = asyncio.create_task(follow(who, job("b", "abcd", 5)))
            await asyncio.sleep(0.01)
        assert (await running).error is None and (await newer).error is None
        await asyncio.gather(waiting, return_exceptions=True)

    run(scenario, 1)


def test_a_cancel_while_the_prompt_is_evaluated_ends_with_the_step(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "LONGEST_STEP", 64)

    async def scenario(who: Scheduler, backend: Counting) -> tuple[int, list[float]]:
        freed: list[float] = []
        who.on_freed = freed.append
        task = asyncio.create_task(follow(who, job("a", "z" * 900, 20)))
        while len(backend.opened) < 3:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        asked = len(backend.opened)
        await asyncio.sleep(0.2)
        assert len(backend.opened) == asked  # nothing more was sent
        return asked, freed

    asked, freed = run(scenario)
    assert asked < 14 and freed and max(freed) < 0.3


def test_steps_change_neither_the_text_nor_the_count(run: Any) -> None:
    async def scenario(who: Scheduler, backend: Counting) -> list[tuple[Result, int]]:
        found = []
        for per_token in (0.0001, 0.001, 0.1):
            who.pool.per_token, asked = per_token, len(backend.opened)
            await backend.erase(0)
            who.pool.forget()
            found.append((await follow(who, job("a", "some text that is long\n" * 30, 30)), len(backend.opened) - asked))
        return found

    found = run(scenario)
    assert [asked for _, asked in found] == [3, 4, 11]
    for result, _ in found:
        timings = result.events[-1].timings
        assert timings["prompt_n"] + timings["cache_n"] == 23 * 30 and timings["predicted_n"] == 30
        assert result.tokens == found[0][0].tokens


def test_overload_is_bounded_and_told_at_once(run: Any, llama: Llama) -> None:
    """Promise 4."""

    async def scenario(who: Scheduler, backend: Counting) -> list[Result]:
        with llama.frozen():
            tasks = [asyncio.create_task(follow(who, job(f"s{number}", "abc", 5))) for number in range(200)]
            await asyncio.sleep(0.1)
            assert sum(task.done() for task in tasks) == 200 - SLOTS - QUEUE
        return await asyncio.gather(*tasks)

    results = run(scenario)
    busy = [result for result in results if isinstance(result.error, Busy)]
    assert len(busy) == 200 - SLOTS - QUEUE and max(result.done for result in busy) < 0.05
    assert all(result.events[-1].stop for result in results if result.error is None)


def test_what_cannot_start_in_time_is_not_started(run: Any, llama: Llama) -> None:
    """Promise 6."""

    async def scenario(who: Scheduler, backend: Counting) -> tuple[Result, Result, int]:
        with llama.frozen():
            running = asyncio.create_task(follow(who, job("a", "abc", 5)))
            await asyncio.sleep(0.01)
            deadline = asyncio.get_running_loop().time() + 0.05
            late = await follow(who, job("b", "abc", 5, deadline=deadline))
            past = await follow(who, job("c", "abc", 5, deadline=deadline))
            asked = len(backend.opened)
        await running
        started = await follow(who, job("d", "abc", 5, deadline=deadline))  # nobody is before it
        assert started.error is None
        return late, past, asked

    late, past, asked = run(scenario, 1)
    assert isinstance(late.error, Late) and isinstance(past.error, Late) and asked == 1
    assert 0.04 < late.done < 0.2 and past.done < 0.02


def test_a_chat_that_was_paused_says_the_same(run: Any) -> None:
    """Promise 5: completion never waits for a chat, and the chat does not notice."""

    async def scenario(who: Scheduler, backend: Counting) -> None:
        alone = await follow(who, job("chat", "tell me\n", 600, Rank.CHAT))
        paused: list[int] = []
        who.on_preempted = lambda: paused.append(1)
        result = Result()
        chat = asyncio.create_task(follow(who, job("chat2", "tell me\n", 600, Rank.CHAT), result))
        for number in range(3):
            while len(result.tokens) < 100 * number + 20:
                await asyncio.sleep(0.001)
            typed = await follow(who, job("a", "typed" + "x" * number, 8))
            assert typed.error is None and not chat.done()
        await chat
        assert len(paused) == 3
        timings = result.events[-1].timings
        await assert_same(backend, ids_of("tell me\n"), alone, result)
        assert timings["predicted_n"] == 600 and timings["cache_n"] + timings["prompt_n"] <= len("tell me\n") + 2 * len(paused)

    run(scenario)


def test_chat_goes_on_under_constant_typing(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "PATIENCE", 0.15)
    monkeypatch.setattr(scheduler, "TURN", 0.05)

    async def scenario(who: Scheduler, backend: Counting) -> tuple[Result, int]:
        chat = asyncio.create_task(follow(who, job("chat", "tell me\n", 300, Rank.CHAT)))
        keys = 0
        while not chat.done():
            keys += 1
            assert (await follow(who, job("a", "x" * (keys % 300), 30))).error is None
        return await chat, keys

    chat, keys = run(scenario)
    assert chat.error is None and len(chat.tokens) > 0 and chat.events[-1].stop and keys > 3


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("tick", [0.0, 0.001])
def test_a_chat_starts_when_its_time_has_come_however_the_clock_rounds(
    run: Any, monkeypatch: pytest.MonkeyPatch, tick: float, beside: bool
) -> None:
    """uvloop's clock counts milliseconds: a timer meets its time exactly, (t + 0.4) - t may be below 0.4, and it may go on meanwhile."""
    clock = [0.0]

    def now() -> float:
        clock[0] = round(clock[0] + tick, 3)
        return clock[0]

    monkeypatch.setattr(scheduler, "_now", now)

    async def scenario(ours: Scheduler, backend: Counting) -> None:
        times = random.Random(1)
        for turn in range(200):
            who = Scheduler(backend, SLOTS, QUEUE)
            clock[0] = times.randrange(10**6, 10**9) / 1000
            typing, chat = who._admit(job("typist", "abc")), who._admit(job("chat", "abc", rank=Rank.CHAT))
            if not beside:
                who._leave(typing)
            due = chat.since + scheduler.PATIENCE if beside else who._typed + scheduler.RESUME
            clock[0] = round(due - turn % 5 * tick, 3)
            who._pump()
            assert chat.slot is not None or who._timer is not None, f"at {clock[0]} nobody looks again"
            for entry in (typing, chat):
                who._leave(entry)

    run(scenario)


def test_a_sampled_chat_goes_on_with_other_random_numbers(run: Any) -> None:
    async def scenario(who: Scheduler, backend: Counting) -> list[dict[str, Any]]:
        result = Result()
        sampled = job("chat", "tell me\n", 400, Rank.CHAT, settings={"temperature": 1.0, "seed": 7})
        chat = asyncio.create_task(follow(who, sampled, result))
        while len(result.tokens) < 20:
            await asyncio.sleep(0.001)
        await follow(who, job("a", "typed", 3))
        await chat
        return [asked for asked in backend.opened if "seed" in asked]

    first, second = run(scenario)
    assert second["seed"] > first["seed"] and second["length"] > first["length"]
    assert second["n_predict"] + second["length"] == first["n_predict"] + first["length"]


def test_what_nobody_waits_for_ends_when_somebody_types(run: Any) -> None:
    async def scenario(who: Scheduler, backend: Counting) -> None:
        result = Result()
        ahead = asyncio.create_task(follow(who, job("a", "ahead" * 10, 700, Rank.BACKGROUND), result))
        while not result.events:
            await asyncio.sleep(0.001)
        assert who.idle_since() is not None
        typed = await follow(who, job("b", "typed", 5))
        assert typed.error is None
        await ahead
        assert isinstance(result.error, Superseded)

    run(scenario)


def test_a_step_that_nobody_waits_for_any_more_ends_by_itself_and_the_key_follows(run: Any) -> None:
    """llama-server would hear of nothing before: asking whether it is done would only take time from it."""

    async def scenario(who: Scheduler, backend: Counting) -> None:
        result, looks, freed = Result(), list[int](), list[float]()
        is_idle = backend.is_idle

        async def looking(slot: int) -> bool:
            looks.append(slot)
            return await is_idle(slot)

        backend.is_idle = looking  # type: ignore[method-assign]
        who.on_freed = freed.append
        prompt = ids_of("ahead" * 60)
        ahead = asyncio.create_task(follow(who, job("a", prompt, 0, Rank.BACKGROUND), result))
        while len(backend.opened) < 3:
            await asyncio.sleep(0)
        assert backend.opened[-1]["n_predict"] == 0 and backend.opened[-1]["length"] < len(prompt)
        typed = await follow(who, job("b", "typed", 5))
        await ahead
        assert typed.error is None and len(typed.tokens) == 5 and isinstance(result.error, Superseded)
        assert freed and not looks
        held = len(who.holds("a"))
        again = await follow(who, job("a", prompt, 0, Rank.BACKGROUND))
        assert again.error is None and again.events[-1].timings["prompt_n"] <= len(prompt) - held

    run(scenario)


def test_what_nobody_waits_for_never_takes_a_cache_that_is_in_use(run: Any) -> None:
    async def scenario(who: Scheduler, backend: Counting) -> None:
        for name in ("a", "b"):
            await follow(who, job(name, name * 60, 2))
        ahead = asyncio.create_task(follow(who, job("c", "c" * 60, 0, Rank.BACKGROUND)))
        await asyncio.sleep(0.05)
        assert not ahead.done() and len(who.holds("a")) >= 60 and len(who.holds("b")) >= 60
        own = await follow(who, job("a", "a" * 60 + "bc", 0, Rank.BACKGROUND))  # its own it may
        assert own.error is None and own.events[-1].timings["cache_n"] >= 60
        ahead.cancel()
        await asyncio.gather(ahead, return_exceptions=True)

    run(scenario)


def test_eight_sessions_on_two_slots_are_served_alike(run: Any) -> None:
    async def scenario(who: Scheduler, backend: Counting) -> list[float]:
        who.queue = 8
        ended = asyncio.get_running_loop().time() + 2.0

        async def typing(name: str) -> list[float]:
            times, text = [], name * 30
            while asyncio.get_running_loop().time() < ended:
                text += "x"
                result = await follow(who, job(name, text[-400:], 24))
                assert result.error is None
                times.append(result.done)
                await asyncio.sleep(0.005)
            return times

        each = await asyncio.gather(*(typing(f"s{number}") for number in range(8)))
        assert min(map(len, each)) >= 5
        return [sorted(times)[int(0.95 * len(times))] for times in each]

    p95 = run(scenario, 1)
    assert max(p95) <= 2 * sum(p95) / len(p95)


def test_a_keystroke_passes_a_file_just_opened(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "LONGEST_STEP", 64)

    async def scenario(who: Scheduler, backend: Counting) -> None:
        await follow(who, job("a", "x" * 50, 2))
        who.pool.per_token = 0.1
        opened = asyncio.create_task(follow(who, job("b", "y" * 900, 60)))
        while len(backend.opened) < 3:
            await asyncio.sleep(0)
        key = await follow(who, job("a", "x" * 51, 2))
        assert key.error is None and not opened.done()
        assert backend.opened[-1]["length"] < 900
        assert (await opened).error is None and opened.result().events[-1].timings["prompt_n"] == 900

    run(scenario, 1)


def test_a_long_answer_makes_way_and_goes_on(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "QUANTUM", 0.01)

    async def scenario(who: Scheduler, backend: Counting) -> None:
        alone = await follow(who, job("a", "some text", 700))
        results = [Result(), Result()]
        tasks = [asyncio.create_task(follow(who, job("bc"[at], "some text", 700), results[at])) for at in (0, 1)]
        while not results[1].events:  # it does not wait for the end of the first
            await asyncio.sleep(0)
        assert len(results[0].tokens) < 700
        await asyncio.gather(*tasks)
        for result in results:
            await assert_same(backend, ids_of("some text"), alone, result)
        assert len(backend.opened) > 3
        assert [result.events[-1].timings["predicted_n"] for result in results] == [700] * 2

    run(scenario, 1)


def test_a_reader_who_takes_his_time_holds_no_slot(run: Any) -> None:
    """Promise 6: what llama-server has said is kept for him."""

    async def scenario(who: Scheduler, backend: Counting) -> None:
        async with contextlib.aclosing(who.run(job("slow", "abc", 100))) as events:
            await anext(events)
            await asyncio.sleep(0.3)
            assert not who._running
            quick = await follow(who, job("quick", "abc", 5))
            assert quick.error is None
            rest = [event async for event in events]
        assert rest[-1].stop and rest[-1].timings["predicted_n"] == 100

    run(scenario, 1)


def test_jobs_go_to_another_llama_server_and_who_came_before_is_answered_where_his_ids_are_known(run: Any, llama: Llama) -> None:
    async def scenario(who: Scheduler, backend: Counting) -> None:
        result, other = Result(), Counting(llama.socket, llama.model)
        running = asyncio.create_task(follow(who, job("a", "abc", 300), result))
        while not result.events:
            await asyncio.sleep(0.001)
        others = [asyncio.create_task(follow(who, job(name, name, 40))) for name in ("waits", "runs")]
        await asyncio.sleep(0)
        assert who._waiting
        who.replace(other)
        assert who.uses(backend) and not who.uses(other)
        assert (await follow(who, job("b", "abc", 3))).error is None and len(other.opened) == 1
        assert [result.error for result in await asyncio.gather(*others)] == [None, None] and len(other.opened) == 1
        await running
        assert result.error is None and result.events[-1].timings["predicted_n"] == 300 and not who.uses(backend)

    run(scenario)


def test_only_what_may_be_kept_is_named_for_keeping(run: Any) -> None:
    async def scenario(who: Scheduler, backend: Counting) -> None:
        await follow(who, job("a", "a" * 70, 2))
        await follow(who, job("b", "b" * 70, 2, keep=False))
        assert [held[:70] for _, held in who.kept()] == [ids_of("a" * 70)]

    run(scenario)


def test_a_llama_server_that_is_killed_is_an_error_and_its_caches_are_forgotten(tiny: Path, tmp_path: Path) -> None:
    llama = Llama(tiny, tmp_path)

    async def scenario() -> Result:
        who, result = Scheduler(Backend(llama.socket, tiny), SLOTS, QUEUE), Result()
        task = asyncio.create_task(follow(who, job("a", "abc", 900), result))
        while not result.events:
            await asyncio.sleep(0.001)
        llama.process.kill()
        await asyncio.wait_for(task, 5)
        assert who.holds("a") == [] and not who._running
        return result

    try:
        result = asyncio.run(scenario())
    finally:
        llama.process.kill()
        llama.process.wait()
    assert isinstance(result.error, BackendDown)


def test_nobody_gives_way_to_one_who_waits_for_a_slot_of_its_own(run: Any, llama: Llama) -> None:
    """It would begin anew at once, and give way again, without an end; where several may run at a time."""

    async def scenario(who: Scheduler, backend: Counting) -> None:
        begun = Result()
        older = asyncio.create_task(follow(who, job("x", "abc" * 4, 400), begun))
        while not begun.events:
            await asyncio.sleep(0.002)
        with llama.frozen():
            newer = asyncio.create_task(follow(who, job("x", "abc" * 5, 4)))  # its slot is not idle yet
            await asyncio.sleep(0.01)
            other = asyncio.create_task(follow(who, job("y", "def " * 60, 4)))  # may start, and is dearer
            await asyncio.sleep(0.05)
        assert isinstance((await older).error, Superseded)
        assert [len((await task).tokens) for task in (newer, other)] == [4, 4]

    run(scenario)
