"""The format of a hole in the code: the only place that knows the markers and their order.

In:  prefix P, suffix S, middle M, and chunks of other files; a function that encodes plain text
Out: token ids in one of the orders below, and which of them carry loss

    psm  <|fim_prefix|> P <|fim_suffix|> S <|fim_middle|> M <|endoftext|>      what Qwen2.5-Coder was trained on
    spm  <|fim_prefix|><|fim_suffix|> S <|fim_middle|> P M <|endoftext|>       Bavarian et al. 2022 (arXiv 2207.14255), section 4.3
    ltr  P M S <|endoftext|>                                                   plain left to right

Context from other files stands before either: <|repo_name|>name then, per file, <|file_sep|>path\\ntext, and last
<|file_sep|>path\\n of the file with the hole. Without context there is no header.

In SPM, P and M are neighbours: a typed character is one new token at the end, and everything before it stays in the
server's cache. P, S and M are encoded apart, so that training and serving cut at the same places.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

Order = Literal["psm", "spm", "ltr"]

PREFIX, MIDDLE, SUFFIX, PAD = "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"
REPO_NAME, FILE_SEP, END = "<|repo_name|>", "<|file_sep|>", "<|endoftext|>"
IM_START, IM_END = "<|im_start|>", "<|im_end|>"
MARKERS = (END, PREFIX, MIDDLE, SUFFIX, PAD, REPO_NAME, FILE_SEP)
CONTROL = (*MARKERS, IM_START, IM_END)  # texts that must never become control tokens when they stand in somebody's code
_CONTROL_TEXT = re.compile("|".join(map(re.escape, CONTROL)))

Encode = Callable[[str], list[int]]


class FimTokens(NamedTuple):
    """Ids of the markers, in the order of MARKERS."""

    end: int
    prefix: int
    middle: int
    suffix: int
    pad: int
    repo_name: int
    file_sep: int

    @classmethod
    def of(cls, id_of: Callable[[str], int | None]) -> FimTokens:
        """Look the markers up in a vocabulary.

        Raises:
            ValueError: a marker is not one token of it; the model was not made for fill-in-the-middle.
        """
        ids = [id_of(marker) for marker in MARKERS]
        missing = [marker for marker, token in zip(MARKERS, ids, strict=True) if token is None]
        if missing:
            raise ValueError(f"the tokenizer has no {', '.join(missing)}: choose a fill-in-the-middle model such as Qwen2.5-Coder")
        return cls(*(token for token in ids if token is not None))


QWEN = FimTokens(end=151643, prefix=151659, middle=151660, suffix=151661, pad=151662, repo_name=151663, file_sep=151664)


class Chunk(NamedTuple):
    """A piece of another file of the repository."""

    path: str
    text: str


@dataclass(frozen=True)
class Hole:
    """A place in a file, with what stands around it; `middle` is known in training only."""

    prefix: str
    suffix: str
    middle: str = ""
    path: str = ""
    repo: str = ""
    context: Sequence[Chunk] = field(default=())


def encode_plain(encode: Encode, text: str) -> list[int]:
    """Encode text so that a control token written in it stays text.

    Qwen's tokenizer matches its FIM markers even where special tokens are off, so each is broken after its second
    character and both halves are encoded apart.
    """
    cuts = [0, *(match.start() + 2 for match in _CONTROL_TEXT.finditer(text)), len(text)]
    return [token for start, stop in itertools.pairwise(cuts) if stop > start for token in encode(text[start:stop])]


class Codec:
    """Writes holes as token ids for one vocabulary.

    Args:
        encode: text to ids, adding nothing at either end.
        tokens: ids of the markers in the same vocabulary.
    """

    def __init__(self, encode: Encode, tokens: FimTokens) -> None:
        self.encode, self.tokens = encode, tokens

    def plain(self, text: str) -> list[int]:
        """Ids of text in which nothing is a control token."""
        return encode_plain(self.encode, text)

    def header(self, hole: Hole) -> list[int]:
        """Ids of the repository context; empty where there is none."""
        if not hole.context:
            return []
        ids = [self.tokens.repo_name, *self.plain(hole.repo)]
        for chunk in hole.context:
            ids += [self.tokens.file_sep, *self.plain(f"{chunk.path}\n{chunk.text}")]
        return [*ids, self.tokens.file_sep, *self.plain(f"{hole.path}\n")]

    def prompt(self, hole: Hole, order: Order) -> list[int]:
        """Ids up to where the middle begins."""
        t, prefix = self.tokens, self.plain(hole.prefix)
        if order == "ltr":
            return [*self.header(hole), *prefix]
        suffix = self.plain(hole.suffix)
        if order == "psm":
            return [*self.header(hole), t.prefix, *prefix, t.suffix, *suffix, t.middle]
        return [*self.header(hole), t.prefix, t.suffix, *suffix, t.middle, *prefix]

    def row(self, hole: Hole, order: Order) -> tuple[list[int], int]:
        """Ids of a whole training row, and the index at which its middle begins."""
        prompt, middle = self.prompt(hole, order), self.plain(hole.middle)
        rest = self.plain(hole.suffix) if order == "ltr" else []
        return [*prompt, *middle, *rest, self.tokens.end], len(prompt)


def labels(ids: Sequence[int], start: int, ignore: int = -100) -> list[int]:
    """Labels that put loss on the middle and its end token only; `start` is where the middle begins."""
    return [ignore] * start + list(ids[start:])


class RawPrompt(NamedTuple):
    """What a client rendered by itself, taken apart again."""

    prefix: str
    suffix: str


def parse(prompt: str) -> RawPrompt | None:
    """Take apart a prompt that a client rendered with the markers, in either order; None if it holds none.

    A header before the prefix marker is dropped: the server puts its own context there. One pass, however many markers there are.
    """
    begin = prompt.find(PREFIX + SUFFIX)
    middle = prompt.rfind(MIDDLE, begin + len(PREFIX + SUFFIX)) if begin != -1 else -1
    if middle != -1:
        return RawPrompt(prompt[middle + len(MIDDLE) :], prompt[begin + len(PREFIX + SUFFIX) : middle])
    begin, body = prompt.find(PREFIX), prompt.rstrip()
    if begin == -1 or not body.endswith(MIDDLE):
        return None
    body = body.removesuffix(MIDDLE)
    end = body.rfind(SUFFIX, begin + len(PREFIX))
    return RawPrompt(body[begin + len(PREFIX) : end], body[end + len(SUFFIX) :]) if end != -1 else None


class PlainTokenizer(Protocol):
    """The part of `tokenizers.Tokenizer` that is used here."""

    def encode(self, sequence: str, *, add_special_tokens: bool) -> object: ...
    def token_to_id(self, token: str) -> int | None: ...


def codec_of(tokenizer: PlainTokenizer) -> Codec:
    """A codec from a `tokenizers.Tokenizer`.

    Raises:
        ValueError: the vocabulary lacks a marker.
    """

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids  # type: ignore[attr-defined,no-any-return]

    return Codec(encode, FimTokens.of(tokenizer.token_to_id))
