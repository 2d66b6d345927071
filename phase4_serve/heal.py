"""Token healing: a word that is being typed is completed as if its first tokens had not been cut where the cursor stands.

In:  ids of a prompt that ends with the text before the cursor, and that text
Out: `Healed`: the ids without the last few, the text they stood for, and settings that make the model write it again first;
     `Strip` takes that text off the answer

A tokenizer cuts `pri` of `print` into tokens that no training text has there, so that the model goes on with what never follows
them. The prompt is cut back to where the word began instead, and a grammar lets through only tokens that agree with what was typed.
While the word is being typed the prompt is then the same with every key. Prompts that end otherwise (psm) cannot be healed.

    healed = healer.heal(prompt.ids, ask.prefix)          # None: nothing to heal, ask as always
    events = backend.complete(healed.ids, {**settings, **healed.settings, "n_predict": n + healed.tokens})
    strip = Strip(healed.typed); cutter.feed(strip.feed(event.content))
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

LONGEST = 64  # characters typed of one word; beyond it nobody types a word
TEXT = 6000  # characters before the cursor in which a word shows that it is whole
TYPED = re.compile(r"(?<!\w)[^\W\d]\w*\Z")  # a number is no word: nobody knows how it goes on


class Healed(NamedTuple):
    """A prompt cut back to where a word began."""

    ids: list[int]
    typed: str  # what the cut tokens stood for; the answer begins with it
    settings: dict[str, Any]  # for llama-server
    tokens: int  # that `typed` may take: to be added to n_predict


class Healer:
    """Cuts prompts back for one vocabulary.

    Args:
        piece: bytes that a token stands for (`Backend.piece`); empty for control tokens.
    """

    def __init__(self, piece: Callable[[int], bytes]) -> None:
        self.piece = piece

    def heal(self, ids: Sequence[int], prefix: str) -> Healed | None:
        """The prompt without the tokens of the word that the prefix ends in; None where it ends in none."""
        tail = prefix[-LONGEST - 2 :]
        word = TYPED.search(tail)
        if word is None or len(word[0]) > LONGEST or _whole(word[0], prefix[-TEXT:]):
            return None
        wanted, dropped, at = word[0].encode(), b"", len(ids)
        while len(dropped) < len(wanted) and at > 1:
            at -= 1
            piece = self.piece(ids[at])
            if not piece:  # a marker: the prompt does not end in this text
                return None
            dropped = piece + dropped
        if not dropped.endswith(wanted) or not tail.encode("utf-8", "replace").endswith(dropped):
            return None
        try:
            typed = dropped.decode()
        except UnicodeDecodeError:
            return None
        return Healed(list(ids[:at]), typed, {"grammar": grammar(typed)}, len(dropped))


def _whole(word: str, text: str) -> bool:
    """Whether a word at the end of a text is one by itself: it stands in it before."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text[: -len(word)]) is not None


def grammar(typed: str) -> str:
    """GBNF: the text, then anything."""
    escaped = "".join(f"\\U{ord(character):08X}" for character in typed)
    return f'root ::= "{escaped}" [\\U00000000-\\U0010FFFF]*'


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
