"""What was generated for a place, kept so that text typed as predicted costs nothing.

In:  a place (key and text before the cursor); token ids and text as they are generated
Out: for a place further on, the answer whose text agrees with what was typed since, and from where on

An answer may still be written while somebody types along it. One that was ended early is trusted for what it has: it goes on from
its prompt and its ids, which the slot still holds. Memory only; the newest are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Hashable
from typing import NamedTuple

from core.stops import Cutter, Place
from phase4_serve.backend import Event
from phase4_serve.confidence import Gate

LOOK_BACK = 128  # characters typed since an answer began (llama.vim)
TAIL = 192  # characters before an answer's beginning that must be the same
PLACES, ANSWERS = 32, 48  # kept: places, and answers of each; an answer takes some 10 kB


class Answer:
    """Text that a prompt goes on with under greedy sampling, as far as it is known."""

    def __init__(self, prompt: list[int], seat: str, typed: str = "") -> None:
        self.prompt, self.seat = prompt, seat
        self.skip = len(typed)  # characters that healing took back from the prompt: the model writes them again
        self.ids: list[int] = []
        self.raw = ""
        self.marks: list[tuple[int, int, float | None]] = []  # tokens so far, characters so far, the newest token's probability
        self.end = ""  # eos | word | limit; "" while it runs, or where it was ended from outside
        self.stops: tuple[str, ...] = ()  # texts that ended it where `end` is "word"
        self.timings: dict[str, float] = {}
        self.running: Generation | None = None

    def grow(self, event: Event) -> None:
        """Take an event of the generation that writes it."""
        self.ids += event.tokens
        self.raw += event.content
        self.timings = event.timings or self.timings
        if event.content or event.tokens:
            self.marks.append((len(self.ids), len(self.raw), event.probability))
        if event.stop:
            self.end = event.stop_type

    @property
    def text(self) -> str:
        """What follows the text before the cursor."""
        return self.raw[self.skip :]

    def tokens_before(self, offset: int) -> int:
        """Tokens of the first characters of the text."""
        at = bisect_right([length for _, length, _ in self.marks], offset + self.skip)
        return self.marks[at - 1][0] if at else 0


class Generation:
    """One run of llama-server that writes an answer; whoever listens may come and go."""

    def __init__(self, answer: Answer, run: Callable[[], AsyncGenerator[Event, None]], stops: tuple[str, ...]) -> None:
        self.answer = answer
        self.error: BaseException | None = None
        self._news: asyncio.Future[None] | None = None
        answer.running, answer.end, answer.stops = self, "", stops
        self.task = asyncio.ensure_future(self._run(run))

    async def _run(self, run: Callable[[], AsyncGenerator[Event, None]]) -> None:
        try:
            async with contextlib.aclosing(run()) as events:
                async for event in events:
                    if self.over:
                        return
                    self.answer.grow(event)
                    self.wake()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001  whoever listens raises it
            self.error = error
        finally:
            if self.answer.running is self:
                self.answer.running = None
            self.wake()

    @property
    def over(self) -> bool:
        """Whether nothing more comes."""
        return self.answer.running is not self

    def wake(self) -> None:
        """Let whoever listens look again."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def more(self) -> None:
        """Wait until there may be more."""
        if self.over:
            return
        self._news = asyncio.get_running_loop().create_future()
        await self._news

    def stop(self) -> None:
        """Generate no more."""
        if not self.over:
            self.answer.running = None
            self.task.cancel()
            self.wake()


class Showing:
    """What one request shows of an answer: token by token, so that it is the same however fast the tokens came."""

    def __init__(self, answer: Answer, offset: int, place: Place, cap: int, stops: tuple[str, ...], floor: float) -> None:
        self.answer, self.offset, self.cap, self.stops = answer, offset, cap, stops
        self.cutter, self.gate = Cutter(place), Gate(floor)
        self.fed, self.at, self.tokens = offset, 0, 0  # characters, marks, tokens
        self.ended = ""  # eos | word | limit | rule
        self.unsure = False
        self.text = ""

    @property
    def most(self) -> int:
        """Tokens of the answer with which this request ends."""
        return self.answer.tokens_before(self.offset) + self.cap

    def take(self) -> str:
        """What can be shown now and could not before."""
        answer, most, pieces = self.answer, self.most, []
        while not self.ended and self.at < len(answer.marks):
            count, length, probability = answer.marks[self.at]
            if count > most:
                self.ended = "limit"
                break
            self.at, self.tokens = self.at + 1, count
            if length - answer.skip <= self.fed:
                continue
            new = answer.raw[self.fed + answer.skip : length]
            self.fed = length - answer.skip
            self.unsure = not self.gate.sure(new, probability)
            if not self.unsure:
                pieces.append(self.cutter.feed(new))
            if self.unsure or self.cutter.done:
                self.ended = "rule"
        if not self.ended and self.tokens >= most:
            self.ended = "limit"
        elif not self.ended and (answer.end == "eos" or (answer.end == "word" and answer.stops == self.stops)):
            self.ended = answer.end
        return self._show("".join(pieces))

    def finish(self) -> str:
        """The rest that is shown, now that it has ended."""
        return self._show(self.cutter.finish())

    def _show(self, text: str) -> str:
        self.text += text
        return text


class Hit(NamedTuple):
    """A remembered answer, and how much of it has been typed."""

    answer: Answer
    offset: int  # characters

    @property
    def tail(self) -> str:
        """What is left of it."""
        return self.answer.text[self.offset :]


class Typed:
    """Remembers answers by place."""

    def __init__(self) -> None:
        self._places: OrderedDict[Hashable, OrderedDict[str, tuple[Answer, int]]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._places.values()))

    def put(self, key: Hashable, prefix: str, answer: Answer, offset: int = 0) -> None:
        """Remember what follows a prefix.

        Args:
            key: everything else that an answer depends on.
            offset: characters of the answer's text that the prefix ends in already.
        """
        answers = self._places.setdefault(key, OrderedDict())
        self._places.move_to_end(key)
        tail = prefix[-TAIL:]
        answers[tail] = (answer, offset)
        answers.move_to_end(tail)
        while len(answers) > ANSWERS:
            answers.popitem(last=False)
        while len(self._places) > PLACES:
            self._places.popitem(last=False)

    def find(self, key: Hashable, prefix: str) -> Hit | None:
        """The answer that says most about what follows a prefix; None where no answer agrees with what was typed."""
        answers = self._places.get(key)
        if not answers:
            return None
        self._places.move_to_end(key)
        best: Hit | None = None
        for back in range(min(LOOK_BACK, len(prefix)) + 1):
            at = len(prefix) - back
            known = answers.get(prefix[max(0, at - TAIL) : at])
            if known is None:
                continue
            answer, offset = known
            text = answer.text
            if not text.startswith(prefix[at:], offset) or len(answer.raw) < answer.skip:
                continue
            if len(text) == offset + back and not answer.end and answer.running is None:
                continue  # nothing of it is left
            hit = Hit(answer, offset + back)
            if best is None or len(hit.tail) > len(best.tail):
                best = hit
        return best

    def clear(self) -> None:
        """Forget everything."""
        self._places.clear()
