"""The tokenizer that rows are measured with.

In:  samples.tokenizer: a folder with tokenizer.json, that file, or a Hub id with its revision
Out: the file's path; how many tokens a text has, where they begin, and how long a row is

Every text of the corpus is measured several times, and `tokenizers` encodes 4 MB/s on a core. Where the tokenizer cuts
words by Qwen's pattern, as ours and Qwen's own do, the words are cut here and the tokens of each are asked once: the same
counts at 25 MB/s.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from core.errors import AccessError, InputError
from core.fim import Codec, Hole, Order, codec_of

MADE_HERE = {  # folders that look like Hub ids, and the command that makes each
    "phase2_train/tiny_base": "python -m phase2_train pretrain --profile base",
    "phase2_train/out/base": "python -m phase2_train base",
}
QWEN = (  # words of Qwen2, Qwen2.5 and Qwen3
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ASCII_WORD = re.compile(  # the same, of a text in ASCII
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+", re.ASCII
)
BYTE_LEVEL = {**{byte: chr(256 + byte) for byte in range(33)}, 127: chr(289)}  # what a byte-level vocabulary writes for them (GPT-2)
OTHER = re.compile(r"[^\x00-\x7f]")
WRITTEN = re.compile(r"[ \t]*[!-~]")  # the beginning of a line before which a word always ends, by the pattern above
MOST_WORDS = 80_000  # remembered, and as many older ones: 40 MB
Known = TypeVar("Known")
TIMEOUT = 10  # seconds until the Hub counts as out of reach


def locate(name: str, revision: str | None) -> Path:
    """The tokenizer.json that `name` means.

    Raises:
        InputError: nothing there. AccessError: a Hub id that cannot be fetched.
    """
    path = Path(name)
    file = path / "tokenizer.json" if path.is_dir() else path
    if file.is_file():
        return file
    if command := MADE_HERE.get(path.as_posix()):
        raise InputError(f"{path / 'tokenizer.json'} is missing: run `{command}` first")
    if path.exists() or path.is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise InputError(f"{file} is missing: mend samples.tokenizer in params.yaml")
    return _fetch(name, revision)


def _fetch(name: str, revision: str | None) -> Path:
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(TIMEOUT))
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", str(TIMEOUT))
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise InputError(f"{name} is on the Hub and huggingface_hub is not installed: run `pip install huggingface_hub`") from None
    try:
        return Path(hf_hub_download(name, "tokenizer.json", revision=revision, etag_timeout=TIMEOUT))
    except Exception as error:  # noqa: BLE001  # the transport's own errors differ between versions of huggingface_hub
        why = f"cannot be fetched from the Hub ({type(error).__name__})"
        raise AccessError(f"the tokenizer {name} {why}: go online, or name a folder in samples.tokenizer of params.yaml") from None


class Ruler:
    """Measures text in tokens of one vocabulary.

    Raises:
        InputError: the file is no tokenizer, or one without fill-in-the-middle markers.
    """

    def __init__(self, file: Path) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the processes are ours
        try:
            self.tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # noqa: BLE001  # the library raises bare Exception
            raise InputError(f"{file} is no tokenizer ({error}): mend samples.tokenizer in params.yaml") from None
        try:
            self.codec: Codec = codec_of(self.tokenizer)
        except ValueError as error:
            raise InputError(f"{file}: {error}") from None
        self._lengths = Codec(lambda text: range(self._count(text)), self.codec.tokens)  # type: ignore[arg-type,return-value]
        self.cuts_words = _cuts_like_qwen(self.tokenizer)
        self._sizes: dict[str, int] = {}  # word to its number of tokens
        self._parts: dict[str, tuple[int, ...]] = {}  # and to the characters of each
        self._older: dict[str, tuple[int, ...]] = {}
        added = sorted((token.content for token in self.tokenizer.get_added_tokens_decoder().values()), reverse=True)
        self._added = re.compile("|".join(map(re.escape, added)))

    def token_starts(self, text: str) -> NDArray[np.int64]:
        """Offset in characters at which each token of the text begins."""
        parts = [self._starts(text[start:stop], known) + start for start, stop, known in self._blocks(text)]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def count(self, text: str) -> int:
        """Tokens of the text, in which nothing is a control token."""
        return len(self._lengths.plain(text))

    def row_length(self, hole: Hole, order: Order) -> int:
        """Tokens of the whole row, with its markers."""
        return len(self._lengths.row(hole, order)[0])

    def _count(self, text: str) -> int:
        total = 0
        for start, stop, known in self._blocks(text):
            if known:
                total += sum(self._by_word(text[start:stop], self._sizes))
            else:
                total += len(self.codec.encode(text[start:stop]))
        return total

    def _starts(self, text: str, known: bool) -> NDArray[np.int64]:
        if not known:
            return np.array([start for start, _ in self.tokenizer.encode(text, add_special_tokens=False).offsets], np.int64)
        lengths = np.fromiter(chain.from_iterable(self._by_word(text, self._parts)), np.int64)
        return np.cumsum(lengths) - lengths

    def _blocks(self, text: str) -> Iterator[tuple[int, int, bool]]:
        """The text in pieces whose tokens are those of the whole, and whether words of a piece may be cut here."""
        if not self.cuts_words or self._added.search(text):
            yield 0, len(text), False
            return
        at = 0
        while found := OTHER.search(text, at):
            first = text.rfind("\n", at, found.start()) + 1
            while first > at and not WRITTEN.match(text, first):
                first = text.rfind("\n", at, first - 1) + 1
            last = text.find("\n", found.end()) + 1
            while last and not WRITTEN.match(text, last):
                last = text.find("\n", last) + 1
            first, last = max(first, at), last or len(text)
            if first > at:
                yield at, first, True
            yield first, last, False
            at = last
        if at < len(text):
            yield at, len(text), True

    def _by_word(self, text: str, known: Mapping[str, Known]) -> list[Known]:
        """What is known of each word of an ASCII text."""
        words = ASCII_WORD.findall(text)
        try:
            return list(map(known.__getitem__, words))
        except KeyError:
            self._learn(set(words))
            return list(map(known.__getitem__, words))

    def _learn(self, words: set[str]) -> None:
        if len(self._parts) > MOST_WORDS:  # forget those that were not met since the last time
            self._older = self._parts.copy()
            self._parts.clear()
            self._sizes.clear()
        tokenize = self.tokenizer.model.tokenize  # a third of the time of encoding a word
        for word in words.difference(self._parts):
            parts = self._older.get(word) or tuple([len(token.value) for token in tokenize(word.translate(BYTE_LEVEL))])
            self._parts[word] = parts
            self._sizes[word] = len(parts)


def _cuts_like_qwen(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer cuts words by QWEN's pattern and encodes each by itself, and nothing else."""
    made = json.loads(tokenizer.to_str())
    cutters = (made["pre_tokenizer"] or {}).get("pretokenizers", [])
    if [cutter["type"] for cutter in cutters] != ["Split", "ByteLevel"] or made["model"]["type"] != "BPE":
        return False
    split, by_byte = cutters
    if any(made["model"].get(key) for key in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")):
        return False
    whole = split["pattern"] == {"Regex": QWEN} and split["behavior"] == "Isolated" and not split["invert"]
    plain = not by_byte["add_prefix_space"] and not by_byte["use_regex"] and made["truncation"] is None and made["padding"] is None
    return whole and plain and made["normalizer"] in (None, {"type": "NFC"})  # which leaves ASCII as it is
