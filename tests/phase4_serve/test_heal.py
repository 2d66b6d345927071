"""A word that is being typed: cut back where a longer token may have begun, and written again by the model before anything else."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phase4_serve import scheduler
from phase4_serve.backend import Backend, Event
from phase4_serve.compose import Ask
from phase4_serve.engine import Done, Sampling
from phase4_serve.heal import LONGEST, MOST, Healer, Pieces, Strip
from phase4_serve.scheduler import Job, Rank, Scheduler, Superseded
from tests.phase4_serve.conftest import write_gguf
from tests.phase4_serve.test_engine import agree, answer, engine
from tests.phase4_serve.test_scheduler import Counting, Llama, follow

PIECES = [
    b"", b"x", b" =", b" ", b" pri", b"nt", b"pri", b"p", b"(", b"\n", b"    ", b"1", b"2", b"caf", b"\xc3", b"\xa9", b"foo_", b"bar",
    b"\xf0\x9f", b"\x98\x80", b" print", b"print", b"priv", b"12345", b"cafe", "cafés".encode(), b"bars", b"foo_bar", b"n", b"xy",
]  # fmt: skip
ID = {piece: number for number, piece in enumerate(PIECES)}


class Known:
    """A vocabulary of these pieces; a text is written with the longest that fits."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = list(pieces)

    def pieces(self) -> list[bytes]:
        return self._pieces

    def piece(self, token: int) -> bytes:
        return self._pieces[token]

    def ids(self, text: str) -> list[int]:
        found, data = [], text.encode()
        while data:
            token = max((t for t, piece in enumerate(self._pieces) if piece and data.startswith(piece)), key=lambda t: len(self._pieces[t]))
            found.append(token)
            data = data[len(self._pieces[token]) :]
        return found


HEALER = Healer(Known(PIECES))


def ids(*pieces: bytes) -> list[int]:
    return [ID[piece] for piece in pieces]


# ---- where a prompt is cut


@pytest.mark.parametrize(
    ("pieces", "left", "typed"),
    [
        ((b"", b"x", b" =", b" pri"), 3, " pri"),  # a token that begins before the word goes as a whole
        ((b"", b"x", b" =", b" ", b"pri"), 4, "pri"),
        ((b"", b"foo_", b"bar"), 1, "foo_bar"),  # at the start of the file; some token is all of it
        ((b"", b"x", b"\n", b"    ", b"p"), 4, "p"),
        ((b"", b"(", b"pri", b"n"), 2, "prin"),
        ((b"", b"(", b"caf", b"\xc3", b"\xa9"), 2, "café"),  # a character of two tokens
    ],
)
def test_a_word_is_taken_back_to_where_a_longer_token_may_begin(pieces: tuple[bytes, ...], left: int, typed: str) -> None:
    healed = HEALER.heal(ids(*pieces), b"".join(pieces).decode())
    assert healed is not None
    assert (healed.ids, healed.typed) == (ids(*pieces)[:left], typed)


def test_what_no_token_goes_on_with_stays_in_the_prompt() -> None:
    """Writing it again would cost a token's time and could only come to the same."""
    assert HEALER.heal(ids(b"", b"x", b" =", b" print"), "x = print") is None
    healed = HEALER.heal(ids(b"", b"(", b"foo_", b"nt", b"bar"), "(foo_ntbar")
    assert healed is not None and (healed.ids, healed.typed) == (ids(b"", b"(", b"foo_", b"nt"), "bar")


@pytest.mark.parametrize(
    "pieces",
    [
        (b"", b"x", b" ="),  # no word
        (b"", b"x", b"\n", b"    "),  # indentation
        (b"", b"x", b" =", b" ", b"1", b"2"),  # digits: nobody knows the rest of a number
        (b"", b"(", b"\xf0\x9f", b"\x98\x80"),  # an emoji
        (b"", b"pri", b"(", b"pri"),  # it stands in the text before: it is whole
        (b"",),
    ],
)
def test_what_is_no_word_is_left_alone(pieces: tuple[bytes, ...]) -> None:
    assert HEALER.heal(ids(*pieces), b"".join(pieces).decode()) is None


def test_a_prompt_that_does_not_end_in_the_text_is_left_alone() -> None:
    assert HEALER.heal([*ids(b"", b" pri"), 0], "x pri") is None  # psm: a marker stands last
    assert HEALER.heal(ids(b"", b"x"), "pri") is None
    assert HEALER.heal(ids(b"", b"p"), "a" * (LONGEST + 1)) is None


def test_a_vocabulary_that_only_llama_server_knows_heals_nothing() -> None:
    class Asked(Known):
        def pieces(self) -> list[bytes]:
            return []

    assert Healer(Asked(PIECES)).heal(ids(b"", b" pri"), " pri") is None


# ---- which tokens agree


def is_text(piece: bytes) -> bool:
    try:
        return bool(piece) and bool(piece.decode())
    except UnicodeDecodeError:
        return False


vocabularies = st.lists(st.one_of(st.text("ab é", min_size=1, max_size=4).map(str.encode), st.binary(max_size=3)), max_size=40)
fragments = st.text("ab é", min_size=1, max_size=5)
stops = st.lists(st.text("ab é", max_size=2), max_size=2).map(tuple)


@settings(deadline=None)
@given(vocabularies, fragments)
def test_those_agree_that_begin_with_what_was_typed_or_are_its_beginning(vocabulary: list[bytes], typed: str) -> None:
    text, pieces = typed.encode(), Pieces(vocabulary)
    expected = {t: p for t, p in enumerate(vocabulary) if is_text(p) and (p.startswith(text) or text.startswith(p))}
    found = pieces.agreeing(text, ())
    assert {vocabulary[token] for token in found} == set(expected.values()) and found.items() <= expected.items()
    assert sorted(map(pieces.piece, pieces.begin_with(text))) == sorted(p for p in expected.values() if p.startswith(text))


def test_of_very_many_the_commonest_are_asked_for() -> None:
    pieces = Pieces([f"w{number:05}".encode() for number in range(3 * MOST)] + [b"w"])
    found = pieces.agreeing(b"w", ())
    assert set(found) == set(range(MOST))
    assert 3 * MOST in pieces.agreeing(b"w0", ())  # what is a part of it is always among them


@settings(deadline=None)
@given(vocabularies, fragments, stops, st.integers(0), st.integers(0, 3))
def test_an_answer_begins_with_what_was_typed_whatever_the_model_says(
    vocabulary: list[bytes], typed: str, stop: tuple[str, ...], seed: int, disobeys: int
) -> None:
    """Also where a stop forbids tokens, where no token agrees, and where a model does not care for the bias."""
    alphabet = [character.encode() for character in "ab "] + [b"\xc3", b"\xa9"]
    known = Known([*vocabulary, *alphabet])
    chance, said = random.Random(seed), []

    async def one(settings: dict[str, Any]) -> Event:
        allowed = [token for token, bias in settings["logit_bias"] if bias]
        token = chance.randrange(len(known.pieces())) if disobeys == 1 else chance.choice(allowed)
        assert settings["stop"] == [] and [7, False] in settings["logit_bias"]
        return Event("?", False, "", {"predicted_n": 1}, [] if disobeys == 2 else [token], 0.5)

    async def main() -> None:
        lead = Healer(known).lead(typed, {"stop": list(stop), "logit_bias": [[7, False]]})
        async for event in lead([], one):
            said.append(event)
            assert b"".join(map(known.piece, event.tokens)) == event.content.encode()
            assert len(said) <= len(typed.encode())

    asyncio.run(main())
    text = "".join(event.content for event in said)
    assert text.startswith(typed) and sum(len(event.content) for event in said[:-1]) < len(typed)
    beyond = text[len(typed) :]
    for ending in filter(None, stop):
        assert ending not in beyond and not any(beyond.endswith(ending[:size]) for size in range(1, len(ending)))


@given(st.text(min_size=1, max_size=12), st.text(max_size=12), st.lists(st.integers(0, 24), max_size=4))
def test_what_was_typed_is_taken_off_whatever_the_pieces(typed: str, rest: str, cuts: list[int]) -> None:
    text, strip = typed + rest, Strip(typed)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert "".join(strip.feed(text[a:b]) for a, b in itertools.pairwise(edges)) == rest


def test_an_answer_that_does_not_begin_with_what_was_typed_shows_nothing() -> None:
    strip = Strip("pri")
    assert strip.feed("pu") + strip.feed("t(1)") == ""


def test_a_vocabulary_is_freed_only_when_its_pieces_have_been_read(wordy: Path) -> None:
    async def main() -> None:
        for _ in range(4):
            backend = Backend(wordy.parent / "nobody.sock", wordy)
            healer = Healer(backend)
            await backend.close()
            assert len(healer.pieces.begin_with(b"abc")) in (0, 2)

    asyncio.run(main())


# ---- against llama-server

WORDS = (" print", " private", " préfix", "self", "selected", "naïve", "word_of", "ab", "abc", "abcd")
TYPED = ("x = pri", "x = pr", "(se", "self.na", "y = préf", "(naï", "word_of_wo", "= abcdabc")
GREEDY = {"temperature": 0.0, "ignore_eos": True}
GREEDILY = Sampling()


@pytest.fixture(scope="module")
def wordy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "wordy.gguf", words=WORDS)


@pytest.fixture(scope="module")
def llama(wordy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Llama]:
    running = Llama(wordy, tmp_path_factory.mktemp("l"))
    yield running
    running.process.kill()
    running.process.wait()


class Bench:
    """A scheduler and a healer of our own."""

    def __init__(self, llama: Llama) -> None:
        self.backend = Counting(llama.socket, llama.model)
        self.scheduler, self.healer = Scheduler(self.backend, 2, 4, 1), Healer(self.backend)
        # Of tokens that are no whole characters llama-server says nothing, and this model would write them at random
        self.never = [[token, False] for token, piece in enumerate(self.backend.pieces()) if not is_text(piece)]

    def job(self, prompt: str, typed: str, session: str = "a", tokens: int = 12, rank: Rank = Rank.TYPING, **settings: Any) -> Job:
        settings = {**GREEDY, "n_predict": tokens, "logit_bias": self.never, **settings}
        return Job(session, rank, self.backend.ids(prompt), settings, lead=self.healer.lead(typed, settings))


def test_what_is_written_is_what_a_grammar_would_have_written(llama: Llama) -> None:
    """The likeliest tokens that agree, then free: the same by one request with a grammar, which is slower."""

    async def main() -> None:
        bench = Bench(llama)
        for text in filter(str.isascii, TYPED):  # a character of two tokens that say nothing alone is beyond a grammar
            healed = bench.healer.heal(bench.backend.ids(text), text)
            assert healed is not None, text
            escaped = "".join(f"\\U{ord(character):08X}" for character in healed.typed)
            settings = {**GREEDY, "n_predict": 12, "logit_bias": bench.never, "cache_prompt": False}
            lead = bench.healer.lead(healed.typed, settings)
            found = await follow(bench.scheduler, Job("b", Rank.TYPING, healed.ids, settings, lead=lead))
            most = 12 + lead.inside(found.tokens)  # what only says what was typed is not counted
            grammar = {"grammar": f'root ::= "{escaped}" [\\U00000000-\\U0010FFFF]*', "n_predict": most}
            expected = await follow(bench.scheduler, Job("g", Rank.TYPING, healed.ids, {**settings, **grammar}))
            assert found.text == expected.text and found.tokens == expected.tokens and found.text.startswith(healed.typed)
            assert len(found.tokens) == found.events[-1].timings["predicted_n"] == most

    asyncio.run(main())


def test_tokens_cost_what_they_cost_without_healing(llama: Llama) -> None:
    """One token of prompt at every key, as many requests as tokens that the typed text took and one, the bias in none of them after it."""

    async def main() -> None:
        bench = Bench(llama)
        prompt = "import os\n" * 12
        await follow(bench.scheduler, bench.job(prompt, "sel"))
        bench.backend.opened.clear()
        found = await follow(bench.scheduler, bench.job(prompt, "sele"))
        *steps, free = bench.backend.opened
        assert found.events[-1].timings["prompt_n"] == 1
        assert all(step["n_predict"] == 1 and len(step["logit_bias"]) > len(bench.never) for step in steps)
        assert free["logit_bias"] == bench.never
        assert [request["length"] for request in bench.backend.opened] == [len(prompt) + at for at in range(len(steps) + 1)]
        inside = bench.healer.lead("sele", {}).inside(found.tokens)
        assert free["n_predict"] == 12 + inside - len(steps) and inside in (len(steps), len(steps) - 1)
        assert bench.scheduler.holds("a")[: len(prompt)] == bench.backend.ids(prompt)

    asyncio.run(main())


@pytest.mark.parametrize("typed", ["abcdeé", "é", "\N{GRINNING FACE}b", " préfi", "zq"])
def test_texts_that_no_token_begins_with_and_bytes_of_characters(llama: Llama, typed: str) -> None:
    async def main() -> None:
        bench = Bench(llama)
        for sampling in ({}, {"temperature": 1.5, "seed": 3}):
            found = await follow(bench.scheduler, bench.job("value = ", typed, tokens=24, **sampling))
            assert found.error is None and found.text.startswith(typed) and len(found.tokens) <= 24 + len(typed.encode())
            assert b"".join(map(bench.backend.piece, found.tokens)).startswith(typed.encode())
            again = await follow(bench.scheduler, bench.job("value = ", typed, tokens=24, **sampling))
            assert again.text == found.text

    asyncio.run(main())


def test_a_stop_text_is_seen_behind_what_was_typed_and_not_in_it(llama: Llama) -> None:
    async def main() -> None:
        bench = Bench(llama)
        free = await follow(bench.scheduler, bench.job("x =", " pri", tokens=10))
        beyond = free.text.removeprefix(" pri")
        for stop in (beyond[:1], beyond[1:3], "r", " p", "vate", "ate" + beyond[:1]):
            found = await follow(bench.scheduler, bench.job("x =", " pri", tokens=30, stop=[stop]))
            assert found.text.startswith(" pri") and stop not in found.text.removeprefix(" pri")
            most = 30 + bench.healer.lead(" pri", {}).inside(found.tokens)
            assert found.events[-1].stop_type == ("word" if len(found.tokens) < most else "limit")

    asyncio.run(main())


def test_ended_while_the_word_is_written_nothing_more_is_asked(llama: Llama) -> None:
    async def main() -> None:
        bench = Bench(llama)
        events = bench.scheduler.run(bench.job("x = ", "qwertyuiop"))
        assert (await anext(events)).content == "q"
        await events.aclose()
        assert len(bench.backend.opened) == 1 and bench.scheduler.idle_since() is not None
        await asyncio.sleep(0.05)
        assert await bench.backend.is_idle(0) and len(bench.backend.opened) == 1
        after = await follow(bench.scheduler, bench.job("x = ", "qwertyuiop"))
        assert after.text.startswith("qwertyuiop")

    asyncio.run(main())


def test_a_newer_request_supersedes_one_that_writes_its_word(llama: Llama) -> None:
    async def main() -> None:
        bench = Bench(llama)
        alone = await follow(bench.scheduler, bench.job("x = ", "qwertyuiopa"))
        older = bench.scheduler.run(bench.job("x = ", "qwertyuiop"))
        await anext(older)
        newer = asyncio.ensure_future(follow(bench.scheduler, bench.job("x = ", "qwertyuiopa")))
        await asyncio.sleep(0)
        with pytest.raises(Superseded):
            async for _ in older:
                pass
        assert (await newer).text == alone.text
        frozen = asyncio.ensure_future(follow(bench.scheduler, bench.job("x = ", "qwertyuiop")))
        with llama.frozen():  # while llama-server is asked for one of the letters
            await asyncio.sleep(0.02)
            last = asyncio.ensure_future(follow(bench.scheduler, bench.job("x = ", "qwertyuiopa")))
            await asyncio.sleep(0.02)
        assert isinstance((await frozen).error, Superseded) and (await last).text == alone.text

    asyncio.run(main())


def test_paused_while_a_word_is_written_it_goes_on_there(llama: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "QUANTUM", 0.0)

    async def main() -> None:
        bench = Bench(llama)
        jobs = [bench.job("x = ", "qwertyuiop", "a", 24), bench.job("y = ", "asdfghjkl", "b", 24)]
        alone = [(await follow(bench.scheduler, job)).text for job in jobs]
        bench.backend.opened.clear()
        both = await asyncio.gather(*(follow(bench.scheduler, job) for job in jobs))
        assert [found.text for found in both] == alone
        slots = [request["id_slot"] for request in bench.backend.opened]
        assert len([1 for one, other in itertools.pairwise(slots) if one != other]) > 2  # they took turns, within the words too

    asyncio.run(main())


def test_a_healed_answer_typed_as_predicted_gives_its_own_tails(llama: Llama, wordy: Path) -> None:
    async def main() -> None:
        async with engine(llama, wordy, heal=True) as made:  # type: ignore[arg-type]
            typed = 0
            for prefix in TYPED:
                text, done = await answer(made, Ask(prefix, "", "typed.py", automatic=False))
                assert done.source == "model"
                for size in range(1, min(len(text), 6)):
                    tail, again = await answer(made, Ask(prefix + text[:size], "", "typed.py", automatic=False))
                    assert again.source in ("typed", "resumed") and agree(tail, text[size:])
                    typed += again.source == "typed"
            assert made.metrics.healed._value.get() == len(TYPED) and typed > 10

    asyncio.run(main())


def test_streamed_or_whole_the_answer_is_the_same_and_goes_on_from_what_was_typed(llama: Llama, wordy: Path) -> None:
    async def main() -> None:
        async with engine(llama, wordy, heal=True) as made:  # type: ignore[arg-type]
            assert made.healer is not None
            for text in TYPED:
                ask, texts = Ask("import os\n" + text, "\n", "healed.py", automatic=False), []
                for whole in (False, True):
                    made.typed.clear()
                    shown, done = await answer(made, ask, whole=whole)
                    texts.append(shown)
                    assert done.source == "model" and done.generated_tokens > 0
                assert texts[0] == texts[1]
            assert made.metrics.healed._value.get() == 2 * len(TYPED)
            pieces = made.complete(Ask("import os\nx = pri", "\n", "ended.py", automatic=False), GREEDILY)
            with contextlib.suppress(StopAsyncIteration):
                assert not isinstance(await anext(pieces), Done)
            await pieces.aclose()
            assert not made._turns and not made._writing

    asyncio.run(main())
