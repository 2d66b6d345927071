"""Token healing: a word that is being typed is completed as if its last tokens had not been cut where the cursor stands.

In:  ids of a prompt that ends with the text before the cursor, and that text
Out: `Healed`: the ids without the last few, and the text they stood for; `Lead`: makes the model write that text again first

A tokenizer cuts `pri` of `print` into tokens that no training text has there, so that the model goes on with what never follows
them. The prompt is cut back to where a longer token may have begun, and the first tokens are asked for one at a time: a bias lets only
those win that agree with what was typed. Each finds its prompt evaluated but for one token, as the next token of a generation does, so
that healing costs what the bias costs: nothing to be seen for a hundred tokens, a millisecond for `MOST`. (A grammar does it in one
request; it costs 10 to 14 ms at 151,936 tokens, as llama.cpp then tries every token, and breaks off with an error where the model
writes half a character.) Prompts that end otherwise (psm) cannot be healed.

    healed = healer.heal(prompt.ids, ask.prefix)          # None: nothing to heal, ask as always
    job = Job(..., healed.ids, {**settings, "n_predict": n}, lead=healer.lead(healed.typed, settings))
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import accumulate, takewhile
from typing import Any, NamedTuple, Protocol

from phase4_serve.backend import Event
from phase4_serve.scheduler import One

LONGEST = 64  # characters typed of one word; beyond it nobody types a word
TEXT = 6000  # characters before the cursor in which a word shows that it is whole
TYPED = re.compile(r"(?<!\w)[^\W\d]\w*\Z")  # a number is no word: nobody knows how it goes on
MOST = 1024  # tokens that begin with what was typed: of a single letter's thousands those with the lowest ids, the vocabulary's commonest
BIAS = 100  # logits; the spread of a model's is some 40
REMEMBERED = 64  # fragments whose tokens are kept; 8 kB at most each


class Words(Protocol):
    """A vocabulary."""

    def ids(self, text: str) -> list[int]: ...
    def piece(self, token: int) -> bytes: ...
    def pieces(self) -> list[bytes]: ...


class Healed(NamedTuple):
    """A prompt cut back to where a token may begin."""

    ids: list[int]
    typed: str  # what the cut tokens stood for; the answer begins with it


class Pieces:
    """The pieces of a vocabulary in the order of their bytes; 3 MB for 151,936.

    Control tokens are left out, and those that are no whole characters: llama-server says nothing of one that it wrote last.
    """

    def __init__(self, pieces: Sequence[bytes]) -> None:
        ids = sorted((token for token, piece in enumerate(pieces) if piece and _whole_text(piece)), key=pieces.__getitem__)
        self._ids, self._text, self._ends = array("I", ids), b"".join(pieces[token] for token in ids), array("I", [0])
        for token in ids:
            self._ends.append(self._ends[-1] + len(pieces[token]))
        self.agreeing = lru_cache(REMEMBERED)(self._agreeing)

    def piece(self, at: int) -> bytes:
        """The piece at a place of the order."""
        return self._text[self._ends[at] : self._ends[at + 1]]

    def _place(self, text: bytes, first: int = 0) -> int:
        return bisect_left(range(len(self._ids)), text, first, key=self.piece)

    def begin_with(self, text: bytes) -> range:
        """Places of the pieces that begin with a text."""
        first = self._place(text)
        return range(first, self._place(text + b"\xff", first))  # no UTF-8 has this byte

    def _agreeing(self, text: bytes, stop: tuple[str, ...]) -> dict[int, bytes]:
        """Tokens with which a text may begin to be written, and their bytes.

        Args:
            stop: texts that end an answer; a token that goes on with one, or with the beginning of one, does not agree: llama-server
                must see such a text whole in what is written freely.
        """
        found, ends = {}, _ending(stop)
        for size in range(1, len(text)):
            at = self._place(text[:size])
            if at < len(self._ids) and self.piece(at) == text[:size]:
                found[self._ids[at]] = text[:size]
        places: Sequence[int] = self.begin_with(text)
        if len(places) > MOST:
            places = sorted(places, key=self._ids.__getitem__)[:MOST]
        for at in places:
            piece = self.piece(at)
            if ends is None or not ends.search(piece, len(text)):
                found[self._ids[at]] = piece
        return found


def _whole_text(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


def _ending(stop: tuple[str, ...]) -> re.Pattern[bytes] | None:
    """Finds a stop text, or at the end the beginning of one."""
    texts = [text.encode("utf-8", "replace") for text in stop if text]
    begun = {text[:size] for text in texts for size in range(1, len(text))}
    return re.compile(b"|".join([*map(re.escape, texts), *(re.escape(text) + rb"\Z" for text in begun)])) if texts else None


class Healer:
    """Cuts prompts back for one vocabulary, whose pieces are put in order in the background."""

    def __init__(self, words: Words) -> None:
        self.words = words
        ordering = ThreadPoolExecutor(1, thread_name_prefix="pieces")
        self._pieces = ordering.submit(lambda: Pieces(words.pieces()))
        ordering.shutdown(wait=False)

    @property
    def pieces(self) -> Pieces:
        """The vocabulary's pieces; waits until they are in order, which takes less than loading the model."""
        return self._pieces.result()

    def heal(self, ids: Sequence[int], prefix: str) -> Healed | None:
        """The prompt without those of its last tokens that a longer one may stand for; None where the prefix ends in no word, or in
        one that no token goes on with."""
        tail = prefix[-LONGEST - 2 :]
        word = TYPED.search(tail)
        if word is None or len(word[0]) > LONGEST or _whole(word[0], prefix[-TEXT:]):
            return None
        wanted, text, dropped, at = len(word[0].encode()), tail.encode("utf-8", "replace"), b"", len(ids)
        healed = None
        while len(dropped) < wanted and at > 1:
            at -= 1
            piece = self.words.piece(ids[at])
            dropped = piece + dropped
            if not piece or not text.endswith(dropped):  # a marker: the prompt does not end in this text
                return None
            longer = len(self.pieces.begin_with(dropped)) > (len(ids) - at == 1)  # than the token that stands there
            if longer and _whole_text(dropped):
                healed = Healed(list(ids[:at]), dropped.decode())
        return healed

    def lead(self, typed: str, settings: dict[str, Any]) -> Lead:
        """What makes a completion with these settings begin with a text."""
        return Lead(self, typed, settings)


class Lead:
    """Has a text written at the beginning of a completion, token by token."""

    def __init__(self, healer: Healer, typed: str, settings: dict[str, Any]) -> None:
        self.healer, self.typed = healer, typed.encode()
        self.stop, self.bias = tuple(settings.get("stop", ())), list(settings.get("logit_bias", ()))

    def inside(self, written: Sequence[int]) -> int:
        """Tokens that say nothing but the text: they do not count among those that were asked for."""
        sizes = accumulate(len(self.healer.words.piece(token)) for token in written)
        return sum(1 for _ in takewhile(lambda size: size <= len(self.typed), sizes))

    async def __call__(self, written: Sequence[int], one: One) -> AsyncGenerator[Event, None]:
        """Events until the text is written.

        Args:
            written: tokens that were written of it before.
        """
        rest = self.typed[sum(len(self.healer.words.piece(token)) for token in written) :] if written else self.typed
        while rest:
            agreeing = self.healer.pieces.agreeing(rest, self.stop)
            event = await one({"logit_bias": [*self.bias, *([token, BIAS] for token in agreeing)], "stop": []}) if agreeing else None
            if event is None or not event.tokens or event.tokens[0] not in agreeing:  # no token says it: its own do
                yield Event(rest.decode(), False, "", {}, self.healer.words.ids(rest.decode()))
                return
            piece = agreeing[event.tokens[0]]
            yield event._replace(content=piece.decode())
            rest = rest[len(piece) :]


def _whole(word: str, text: str) -> bool:
    """Whether a word at the end of a text is one by itself: it stands in it before."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text[: -len(word)]) is not None


class Strip:
    """Takes the typed text off the front of a streamed answer."""

    def __init__(self, typed: str) -> None:
        self.left: str | None = typed

    def feed(self, text: str) -> str:
        """The part of this piece that goes beyond what was typed; nothing more of an answer that does not begin with it."""
        if self.left is None:
            return ""
        size = min(len(self.left), len(text))
        self.left = self.left[size:] if self.left[:size] == text[:size] else None
        return text[size:] if self.left is not None else ""
