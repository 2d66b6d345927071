"""Holes as prompts that fit a model: the same ids for every engine, written by core.fim alone.

In:  holes, an order, a model's Words, the most tokens that may be written
Out: Prompt per hole (ids, the hole as it fits, what was cut), sha256 over all of them

A prompt that is too long loses context from its end, then the far left of the prefix and the far right of the suffix. Context gets a
quarter of the room where the others want the rest, the suffix a quarter where the prefix does (Qwen2.5-Coder's CrossCodeEval: 2048 and
2048 of 8192 tokens).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from core.errors import InputError
from core.fim import Chunk, Hole, Order
from eval.words import Words

SPARE = 8  # tokens for the markers, and for words that fall apart where a text is cut
SHARE = 4  # context, and suffix, get this part of the room


class Prompt(NamedTuple):
    """What a model is asked."""

    ids: list[int]
    hole: Hole  # as it fits
    draft: list[int]  # the truth, where it is known: a draft for engines that check one, never seen by the model
    cut: tuple[str, ...]  # of prefix, suffix, context: what did not fit

    @property
    def key(self) -> str:
        """sha256 of the ids."""
        return hashlib.sha256(json.dumps(self.ids).encode()).hexdigest()


def prompts_of(holes: Sequence[Hole], order: Order, words: Words, limit: int) -> list[Prompt]:
    """One prompt per hole.

    Raises:
        InputError: the model's context leaves no room beside `limit` tokens.
    """
    return [prompt_of(hole, order, words, limit) for hole in holes]


def prompt_of(hole: Hole, order: Order, words: Words, limit: int) -> Prompt:
    """The prompt of one hole; see the top of the file for what is cut."""
    room = words.context - limit
    draft = words.codec.plain(hole.middle)[:limit]
    ids = words.codec.prompt(hole, order)
    if len(ids) <= room:
        return Prompt(ids, hole, draft, ())
    for spare in (SPARE, 4 * SPARE, 16 * SPARE):
        fitted = _fit(hole, words, room - spare)
        ids = words.codec.prompt(fitted, order)
        if len(ids) <= room:
            cut = [name for name in ("prefix", "suffix", "context") if len(getattr(fitted, name)) < len(getattr(hole, name))]
            return Prompt(ids, fitted, draft, tuple(cut))
    raise InputError(
        f"the model takes {words.context} tokens, {limit} of them are for the completion: lower --limit, or take another model"
    )


def _fit(hole: Hole, words: Words, room: int) -> Hole:
    def count(text: str) -> int:
        return len(words.codec.plain(text))

    wanted = count(hole.suffix)
    for_context = max(room // SHARE, room - wanted - count(hole.prefix))
    kept: list[Chunk] = []
    for chunk in hole.context:
        if len(words.codec.header(replace(hole, context=[*kept, chunk]))) > for_context:
            break
        kept.append(chunk)
    fitted = replace(hole, context=kept)
    room -= len(words.codec.header(fitted))
    prefix = tail(hole.prefix, room - min(wanted, room // SHARE), count)
    return replace(fitted, prefix=prefix, suffix=head(hole.suffix, room - count(prefix), count))


def tail(text: str, budget: int, count: Callable[[str], int]) -> str:
    """The end of a text that has `budget` tokens at most, from a line's start where one is near."""
    kept = _shrunk(text, budget, count, lambda chars: text[len(text) - chars :])
    at = kept.find("\n") + 1 if len(kept) < len(text) else 0
    return kept[at:] if 0 < at < len(kept) // 2 and count(kept[at:]) <= budget else kept


def head(text: str, budget: int, count: Callable[[str], int]) -> str:
    """The beginning of a text that has `budget` tokens at most, to a line's end where one is near."""
    kept = _shrunk(text, budget, count, lambda chars: text[:chars])
    at = kept.rfind("\n") + 1 if len(kept) < len(text) else 0
    return kept[:at] if at > len(kept) // 2 and count(kept[:at]) <= budget else kept


def _shrunk(text: str, budget: int, count: Callable[[str], int], part: Callable[[int], str]) -> str:
    """The longest of a few parts of a text that has no more tokens than `budget`."""
    chars = len(text)
    while chars > 0 and (tokens := count(part(chars))) > budget:
        chars = min(chars - 1, int(chars * max(budget, 0) / tokens))
    return part(max(chars, 0))


def digest(prompts: Iterable[Prompt]) -> str:
    """sha256 over the ids of all prompts, in their order."""
    total = hashlib.sha256()
    for prompt in prompts:
        total.update(prompt.key.encode())
    return total.hexdigest()
