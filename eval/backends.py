"""The engines that complete prompts: transformers, llama.cpp in this process, or a server.

In:  a name such as hf:FOLDER, gguf:FILE, server:URL or server:FILE
Out: Backend: what its answers depend on, its vocabulary, and Written per Prompt as they are ready

Nothing heavy is loaded before `answer` is asked for; a run whose rows are all there loads no weights.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from core.errors import InputError
from core.manifest import sha256_of, versions_of
from eval import llama_server, server_model
from eval.prompts import Prompt
from eval.server_model import Address, Kind
from eval.words import Words, Written, words_of_folder, words_of_gguf

BATCH = 64  # rows decoded together by transformers,
BATCH_TOKENS = 32768  # and no more than hold this many tokens
FORMS = "hf:FOLDER, gguf:FILE, server:URL or server:FILE"


class Backend(Protocol):
    """Something that completes prompts greedily."""

    def identity(self) -> dict[str, Any]:
        """What its answers depend on, prompts and limit aside."""
        ...

    def words(self) -> Words | None:
        """Its vocabulary; None for a server that composes the prompt itself."""
        ...

    def answer(self, prompts: Sequence[Prompt], limit: int) -> Iterator[tuple[int, Written]]:
        """Complete the prompts; index and completion, in any order."""
        ...


def find(model: str) -> Backend:
    """The engine that a name asks for.

    Raises:
        InputError: no such form, or nothing lies there.
        AccessError: a server does not answer.
    """
    form, _, place = model.partition(":")
    if form == "hf" and place:
        return HfModel(Path(place))
    if form == "gguf" and place:
        return GgufFile(Path(place))
    if form == "server" and place.startswith(("http://", "https://")):
        return Server(Address(place))
    if form == "server" and place:
        return ServedFile(Path(place))
    raise InputError(f"--model {model!r} is none of {FORMS}")


class HfModel:
    """A Hugging Face folder, run by transformers on the GPU where there is one, else in float32 on the CPU."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder: name one of a Hugging Face model, such as hf:phase2_train/out/base")
        if not list(folder.glob("*.safetensors")):
            raise InputError(f"{folder} holds no *.safetensors: name the folder of a whole model, such as hf:phase3_quantize/out/merge")
        self.folder = folder

    def identity(self) -> dict[str, Any]:
        from eval.models import machine

        return {"engine": "hf", "sha256": _hash(self.folder), "device": machine("any").reason, **versions_of(("torch", "transformers"))}

    def words(self) -> Words:
        return words_of_folder(self.folder)

    def answer(self, prompts: Sequence[Prompt], limit: int) -> Iterator[tuple[int, Written]]:
        from core import decode  # here: torch and transformers, which a server does not need
        from eval.models import load, machine

        words, questions = self.words(), [decode.Question(prompt.ids, prompt.draft) for prompt in prompts]
        network = decode.Network.of(load(self.folder, None, 16, machine("any")))
        rows = max(1, min(BATCH, BATCH_TOKENS // max((len(one.prompt) + limit for one in questions), default=1)))
        for batch in decode.batches(questions, rows):
            asked = [questions[at] for at in batch]
            found = decode.answer(decode.TorchBatch(network, asked, limit), asked, words.codec.tokens.end, words.stops, limit)
            yield from ((at, Written(words.decode(one.ids), len(one.ids), one.stop)) for at, one in zip(batch, found, strict=True))


class GgufFile:
    """A GGUF file, run by llama.cpp in this process; the cache in float32."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def identity(self) -> dict[str, Any]:
        return {"engine": "gguf", "sha256": _hash_of_file(self.file), **versions_of(("llama-cpp-python",))}

    def words(self) -> Words:
        return words_of_gguf(self.file)

    def answer(self, prompts: Sequence[Prompt], limit: int) -> Iterator[tuple[int, Written]]:
        from core.decode import Question, answer, batches
        from eval.gguf_model import SEQUENCES, GgufBatch, GgufModel

        words, questions = self.words(), [Question(prompt.ids, prompt.draft) for prompt in prompts]
        with GgufModel(self.file, max((len(one.prompt) for one in questions), default=0) + limit + 1) as model:
            for batch in batches(questions, SEQUENCES):
                asked = [questions[at] for at in batch]
                found = answer(GgufBatch(model, asked), asked, words.codec.tokens.end, words.stops, limit)
                yield from ((at, Written(words.decode(one.ids), len(one.ids), one.stop)) for at, one in zip(batch, found, strict=True))


class ServedFile:
    """A GGUF file behind a llama-server that is started for it and stopped after it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def identity(self) -> dict[str, Any]:
        slots = llama_server.SLOTS
        return {"engine": "llama-server", "sha256": _hash_of_file(self.file), "slots": slots, **versions_of(("llama-cpp-python",))}

    def words(self) -> Words:
        return words_of_gguf(self.file)

    def answer(self, prompts: Sequence[Prompt], limit: int) -> Iterator[tuple[int, Written]]:
        slots = max(1, min(llama_server.SLOTS, len(prompts)))
        with llama_server.fleet(self.file, slots, llama_server.room(prompts, limit)) as addresses:
            yield from server_model.ask_llama(addresses, server_model.look(addresses[0]), self.words(), prompts, limit)


class Server:
    """A server that runs already."""

    def __init__(self, address: Address) -> None:
        self.address = address

    @functools.cached_property
    def kind(self) -> Kind:
        """What it says it is."""
        return server_model.look(self.address)

    def identity(self) -> dict[str, Any]:
        return {"engine": "llama-server" if self.kind.llama else "completions", **self.kind.identity}

    def words(self) -> Words | None:
        return server_model.words_of_server(self.address, self.kind) if self.kind.llama else None

    def answer(self, prompts: Sequence[Prompt], limit: int) -> Iterator[tuple[int, Written]]:
        words = self.words()
        if words is None:
            return server_model.ask_openai(self.address, self.kind, prompts, limit)
        return server_model.ask_llama([self.address], self.kind, words, prompts, limit)


def _hash_of_file(file: Path) -> str:
    if not file.is_file():
        raise InputError(f"{file} is missing: name a GGUF file, such as phase3_quantize/out/quantize/model-q4_k_m.gguf")
    return sha256_of(file)


@functools.cache
def _hash(folder: Path) -> str:
    return sha256_of(folder)
