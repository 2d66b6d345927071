"""The engine against a real llama-server: what is asked of it, and what is answered without it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from core.fim import Codec
from phase4_serve import model_file
from phase4_serve.backend import Backend, Event
from phase4_serve.compose import Ask, Composer
from phase4_serve.engine import Declined, Done, Engine, Sampling, Superseded
from phase4_serve.index import Index, put_all
from phase4_serve.metrics import Metrics
from phase4_serve.params import ServeParams
from phase4_serve.scheduler import Job, common
from phase4_serve.workspace import Workspace
from tests.phase4_serve.conftest import PARAMS, Running

PREFIX = "import headers\n\n\ndef area(width, height):\n    return "
SUFFIX = "\n\n\nprint(area(2, 3))\n"
GREEDY = Sampling()


@contextlib.asynccontextmanager
async def engine(server: Running, tiny: Path, workspace: Path | None = None, **changed: object) -> AsyncIterator[Engine]:
    """An engine of our own on the llama-server of the session's server."""
    params = ServeParams.model_validate({**PARAMS.model_dump(), **changed})
    model, backend = model_file.check(tiny), Backend(server.socket, tiny)
    known = Workspace(workspace, 20_000) if workspace else None
    index = Index(params.chunk_lines) if known else None
    if known and index:
        put_all(index, known.sources())
    made = Engine(model, params, backend, Composer(Codec(backend.ids, model.tokens), params, known, index), Metrics())
    await made.behind.measure()
    try:
        yield made
    finally:
        made.close()
        await backend.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


async def answer(made: Engine, ask: Ask, sampling: Sampling = GREEDY, whole: bool = False) -> tuple[str, Done]:
    """The text and how it ended."""
    text = ""
    async with contextlib.aclosing(made.complete(ask, sampling, whole)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Done):
                return text, piece
            text += piece
    raise AssertionError("no end")


def agree(one: str, other: str) -> bool:
    """Whether one goes on as the other does, as far as both go."""
    one, other = one.rstrip(), other.rstrip()
    return one.startswith(other) or other.startswith(one)


@pytest.mark.parametrize("heal", [False, True])
def test_an_answer_typed_as_predicted_gives_its_own_tails(server: Running, tiny: Path, heal: bool) -> None:
    async def main() -> None:
        async with engine(server, tiny, heal=heal) as made:
            checked = typed = 0
            for number in range(12):
                prefix = PREFIX + f"value_{number}"
                text, done = await answer(made, Ask(prefix, SUFFIX, "typed.py", automatic=False))
                assert done.source == "model"
                for size in range(1, min(len(text), 12)):
                    tail, again = await answer(made, Ask(prefix + text[:size], SUFFIX, "typed.py", automatic=False))
                    assert again.source in ("typed", "resumed") and agree(tail, text[size:])
                    checked, typed = checked + 1, typed + (again.source == "typed")
            assert checked > 20 and typed > checked / 2

    run(main)


def test_nothing_is_answered_from_memory_that_was_sampled_or_had_other_stops(server: Running, tiny: Path) -> None:
    async def main() -> None:
        async with engine(server, tiny) as made:
            ask = Ask(PREFIX, SUFFIX, "memory.py", automatic=False)
            assert (await answer(made, ask))[1].source == "model"
            assert (await answer(made, ask))[1].source == "typed"
            for other in (Sampling(temperature=0.5), Sampling(stop=("zq",)), Sampling(temperature=0.5)):
                assert (await answer(made, ask, other))[1].source == "model"
            assert (await answer(made, ask._replace(client="somebody else")))[1].source == "model"
            assert (await answer(made, ask._replace(suffix="\n\nother = 1\n")))[1].source == "model"
            made.swap(made.model, made.backend)
            assert (await answer(made, ask))[1].source == "model"

    run(main)


def test_a_newer_request_ends_the_older_and_goes_on_with_what_it_wrote(server: Running, tiny: Path) -> None:
    async def main() -> None:
        async with engine(server, tiny) as made:
            ask = Ask("def area(width):\n", "", "newer.py", automatic=False)
            text, _ = await answer(made, ask)
            made.typed.clear()
            older = made.complete(ask, GREEDY)
            first = await anext(older)
            assert isinstance(first, str) and text.startswith(first)
            newer = asyncio.ensure_future(answer(made, ask._replace(prefix=ask.prefix + first[:1])))
            await asyncio.sleep(0)  # it comes now
            with pytest.raises(Superseded):
                async for _ in older:
                    pass
            tail, done = await newer
            assert done.source in ("typed", "resumed") and agree(tail, text[1:])
            assert not made._turns and all(generation.over for generation in made._writing.values())

    run(main)


def test_a_closed_request_generates_no_more_and_its_text_is_kept(server: Running, tiny: Path) -> None:
    async def main() -> None:
        async with engine(server, tiny) as made:
            ask = Ask("def area(height):\n", "", "closed.py", automatic=False)
            pieces = made.complete(ask, GREEDY)
            await anext(pieces)
            await pieces.aclose()
            assert not made._turns and not made._writing
            await asyncio.sleep(0.05)
            assert made.scheduler.idle_since() is not None
            assert (await answer(made, ask))[1].cached_tokens > 10  # goes on from what the slot holds

    run(main)


def test_streamed_or_not_it_is_the_same_text(server: Running, tiny: Path) -> None:
    async def main() -> None:
        async with engine(server, tiny) as made:
            for number in range(4):
                prefix = f"def f{number}(x):\n"
                ask = Ask(prefix, "", f"same{number}.py", automatic=False)
                whole, done = await answer(made, ask, whole=True)
                made.typed.clear()
                streamed, again = await answer(made, ask)
                assert (whole, done.finish_reason, done.generated_tokens) == (streamed, again.finish_reason, again.generated_tokens)

    run(main)


def test_who_does_not_stream_gets_whole_lines_in_time_and_the_rest_later(server: Running, tiny: Path) -> None:
    async def slowly(job: Job) -> AsyncGenerator[Event, None]:
        """A model that knows what it wants to say, which the random one does not."""
        for number, text in enumerate(("    a = 1\n", "    b", " = 2\n", "    return a\n")):
            yield Event(text, False, "", {}, (number,))
            await asyncio.sleep(0.05)
        yield Event("", True, "eos", {})

    async def main() -> None:
        async with engine(server, tiny, answer_ms=80) as made:
            made.scheduler.run = slowly  # type: ignore[method-assign]
            ask = Ask("def area(x):\n", "", "slow.py", automatic=False)
            text, done = await answer(made, ask, whole=True)
            assert (text, done.finish_reason) == ("    a = 1", "length")
            await asyncio.sleep(0.25)
            later, again = await answer(made, ask)
            assert later == "    a = 1\n    b = 2\n    return a" and again.source == "typed"

    run(main)


def test_a_prompt_got_ready_ahead_costs_the_first_key_one_token(server: Running, tiny: Path) -> None:
    async def main() -> None:
        async with engine(server, tiny) as made:
            ask = Ask(PREFIX, SUFFIX, "ahead.py", automatic=False)
            assert (await made.behind.prefill(ask)).timings["prompt_n"] > 50
            assert (await answer(made, ask))[1].timings["prompt_n"] == 1

    run(main)


def test_where_prompts_are_dear_a_small_window_answers_and_the_whole_one_follows(server: Running, tiny: Path, workspace: Path) -> None:
    async def main() -> None:
        async with engine(server, tiny, workspace) as made:
            made.clock.per_token = [0.004] * len(made.clock.per_token)
            made.clock.learn = lambda *_: None  # type: ignore[method-assign]  # a slow machine stays slow
            head = "".join(f"value_{number} = {number}\n" for number in range(60))
            prefix = head + "\n\ndef area(width):\n    return parse_http_header("
            _, done = await answer(made, Ask(prefix, SUFFIX, "dear.py", automatic=False))
            assert done.prompt_tokens < 160
            whole = made.composer.draft(Ask(prefix, SUFFIX, "dear.py", automatic=False)).ids("spm")
            assert len(whole) > 220
            for _ in range(100):
                await asyncio.sleep(0.05)
                if len(made.scheduler.holds("s1~")) >= len(whole):
                    break
            _, done = await answer(made, Ask(prefix + "#", SUFFIX, "dear.py", automatic=False))
            assert done.prompt_tokens > 220 and done.timings["prompt_n"] <= 2
            _, done = await answer(made, Ask(prefix + "#z", SUFFIX, "dear.py", automatic=False))
            assert done.prompt_tokens > 220 and done.timings["prompt_n"] <= 2

    run(main)


def test_typing_stays_on_the_small_window_until_the_whole_prompt_is_there(server: Running, tiny: Path) -> None:
    async def main() -> None:
        async with engine(server, tiny) as made:
            made.clock.per_token = [0.004] * len(made.clock.per_token)
            made.clock.learn = lambda *_: None  # type: ignore[method-assign]
            prefix = "".join(f"value_{number} = {number}\n" for number in range(60)) + "\n\nx = "
            evaluated = []
            for size in range(10):
                _, done = await answer(made, Ask(prefix + "0123456789"[:size], SUFFIX, "small.py", automatic=False), Sampling(max_tokens=2))
                evaluated.append(done.timings["prompt_n"])
            assert evaluated[0] <= 130 and max(evaluated[1:]) <= 2

    run(main)


def test_a_second_seat_is_used_only_where_prompts_are_dear(server: Running, tiny: Path) -> None:
    async def main() -> None:
        async with engine(server, tiny) as made:
            for number in range(3):
                await answer(made, Ask(f"x{number} = ", SUFFIX, "cheap.py"))
            assert {slot.session for slot in made.scheduler.pool.typing} - {""} == {"s1"}

    run(main)


def test_the_line_after_an_answer_is_written_while_nobody_types(server: Running, tiny: Path) -> None:
    async def main() -> None:
        async with engine(server, tiny, max_line_tokens=60, next_line=True) as made:
            for number in range(30):
                ask = Ask(f"def h{number}(x):\n    y = ", "\n", f"next{number}.py", automatic=False)
                text, _ = await answer(made, ask)
                for _ in range(200):
                    await asyncio.sleep(0.01)
                    if made.metrics.prefills.labels("next_line")._value.get():
                        break
                if text.strip() and (hit := made.typed.find(next(reversed(made.typed._places)), ask.prefix + text)) and hit.tail.strip():
                    used = made.metrics.evaluated._value.get()
                    _, done = await answer(made, ask._replace(prefix=ask.prefix + text), Sampling(max_tokens=2))
                    assert done.source == "typed" and made.metrics.evaluated._value.get() == used
                    return
            raise AssertionError("no second line was written")

    run(main)


def test_background_work_never_fills_the_queue(server: Running, tiny: Path) -> None:
    async def main() -> None:
        async with engine(server, tiny, queue=1) as made:
            for number in range(12):
                await answer(made, Ask(f"z{number} = ", "\n", f"many{number}.py", automatic=False))
            await asyncio.sleep(0.4)
            await asyncio.gather(*(answer(made, Ask("q = ", "\n", f"now{number}.py", automatic=False)) for number in range(3)))

    run(main)


def test_declined_by_the_trigger_unless_somebody_asked(server: Running, tiny: Path) -> None:
    async def main() -> None:
        async with engine(server, tiny) as made:
            with pytest.raises(Declined):
                await answer(made, Ask("x = wid", "th + 1\n", "word.py"))
            await answer(made, Ask("x = wid", "th + 1\n", "word.py", automatic=False))

    run(main)


def test_chat_goes_on_from_its_ids(server: Running, tiny: Path) -> None:
    async def main() -> None:
        async with engine(server, tiny) as made:
            ids = made.backend.ids("question: what is area?\nanswer:")
            pieces = [piece async for piece in made.chat(ids, Sampling(max_tokens=6), [])]
            assert isinstance(pieces[-1], Done) and pieces[-1].generated_tokens <= 6
            assert common(made.scheduler.holds("chat"), ids) == len(ids)

    run(main)
