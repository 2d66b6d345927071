"""What clients get back: the shapes of OpenAI, Mistral and llama-server around the same text.

In:  pieces of text and how each answer ended
Out: JSON bodies, and the data of server-sent events
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import orjson

from phase4_serve.engine import Done

NO_TIMINGS = {
    "cache_n": 0, "prompt_n": 0, "prompt_ms": 0.0, "prompt_per_token_ms": 0.0, "prompt_per_second": 0.0,
    "predicted_n": 0, "predicted_ms": 0.0, "predicted_per_token_ms": 0.0, "predicted_per_second": 0.0,
}  # fmt: skip


class Answer(NamedTuple):
    """One finished answer."""

    text: str
    done: Done


class Shape(Protocol):
    """How one kind of client wants its answers."""

    id: str

    def whole(self, answers: Sequence[Answer]) -> Any: ...
    def piece(self, text: str, index: int) -> Any: ...
    def end(self, answer: Answer, index: int) -> Any: ...
    def closing(self, answers: Sequence[Answer]) -> list[bytes]: ...


def dumps(value: Any) -> bytes:
    """JSON in UTF-8."""
    try:
        return orjson.dumps(value)
    except TypeError:  # a lone surrogate: no text of ours holds one, but an answer is worth more than a rule
        return json.dumps(value).encode()


def timings(done: Done) -> dict[str, float]:
    """llama-server's figures; zeros where it was not asked, because clients compute with them."""
    return {**NO_TIMINGS, **done.timings}


def usage(answers: Sequence[Answer]) -> dict[str, Any]:
    """OpenAI's counts: the prompt once, the answers together."""
    prompt = max((a.done.prompt_tokens for a in answers), default=0)
    cached = max((a.done.cached_tokens for a in answers), default=0)
    generated = sum(a.done.generated_tokens for a in answers)
    counts = {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}
    return {**counts, "prompt_tokens_details": {"cached_tokens": cached}}


def about(done: Done) -> dict[str, Any]:
    """What only this server says: where an answer comes from, why there is none."""
    return {"source": done.source, "reason": done.reason}


class CompletionShape:
    """OpenAI's completions."""

    def __init__(self, model: str, fingerprint: str = "", include_usage: bool = False) -> None:
        self.id = f"cmpl-{uuid.uuid4().hex}"
        self.head: dict[str, Any] = {"id": self.id, "object": "text_completion", "created": int(time.time()), "model": model}
        self.head["system_fingerprint"] = fingerprint
        self.include_usage = include_usage
        self._begun: set[int] = set()  # answers of which a piece was sent: the first says who speaks

    def _delta(self, text: str, index: int) -> dict[str, str]:
        role = {} if index in self._begun else {"role": "assistant"}
        self._begun.add(index)
        return {**role, "content": text}

    def _choice(self, text: str, reason: str | None, index: int, streams: bool) -> dict[str, Any]:
        return {"text": text, "index": index, "logprobs": None, "finish_reason": reason}

    def whole(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """The answer to a request that does not stream."""
        choices = [self._choice(a.text, a.done.finish_reason, i, False) for i, a in enumerate(answers)]
        first = answers[0].done
        return {**self.head, "choices": choices, "usage": usage(answers), "timings": timings(first), "tabsmith": about(first)}

    def piece(self, text: str, index: int) -> dict[str, Any]:
        """A piece of a stream."""
        return {**self.head, "choices": [self._choice(text, None, index, True)]}

    def end(self, answer: Answer, index: int) -> dict[str, Any]:
        """The end of one answer of a stream."""
        last = self._choice("", answer.done.finish_reason, index, True)
        return {**self.head, "choices": [last], "timings": timings(answer.done), "tabsmith": about(answer.done)}

    def closing(self, answers: Sequence[Answer]) -> list[bytes]:
        """What ends a stream."""
        counts = [dumps({**self.head, "choices": [], "usage": usage(answers)})] if self.include_usage else []
        return [*counts, b"[DONE]"]


class FimShape(CompletionShape):
    """Mistral's answer to the same request is a chat's; `text` stays for clients that expect OpenAI's."""

    def _choice(self, text: str, reason: str | None, index: int, streams: bool) -> dict[str, Any]:
        said = {"delta": self._delta(text, index)} if streams else {"message": {"role": "assistant", "content": text}}
        return {**super()._choice(text, reason, index, streams), **said}


class ChatShape(CompletionShape):
    """OpenAI's chat."""

    def __init__(self, model: str, fingerprint: str = "", include_usage: bool = False, streams: bool = False) -> None:
        super().__init__(model, fingerprint, include_usage)
        self.id = self.id.replace("cmpl-", "chatcmpl-")
        self.head.update(id=self.id, object="chat.completion.chunk" if streams else "chat.completion")

    def _choice(self, text: str, reason: str | None, index: int, streams: bool) -> dict[str, Any]:
        if not streams:
            message = {"role": "assistant", "content": text, "refusal": None}
            return {"index": index, "message": message, "logprobs": None, "finish_reason": reason}
        return {"index": index, "delta": {} if reason else self._delta(text, index), "logprobs": None, "finish_reason": reason}


class LlamaShape:
    """llama-server's own, of `/completion` and `/infill`."""

    def __init__(self, model: str, fields: list[str] | None = None, several: bool = False) -> None:
        self.id = f"cmpl-{uuid.uuid4().hex}"
        self.model, self.fields, self.several = model, fields, several

    def whole(self, answers: Sequence[Answer]) -> Any:
        """The answer: an object, or an array where several were asked for."""
        found = [self._selected(self._one(a, i)) for i, a in enumerate(answers)]
        return found if self.several else found[0]

    def _one(self, answer: Answer, index: int) -> dict[str, Any]:
        text, done = answer
        return {
            "index": index,
            "content": text,
            "tokens": [],
            "id_slot": 0,
            "stop": True,
            "model": self.model,
            "tokens_predicted": done.generated_tokens,
            "tokens_evaluated": done.prompt_tokens,
            "has_new_line": "\n" in text,
            "truncated": False,
            "stop_type": "word" if done.stop_type == "rule" else done.stop_type,
            "stopping_word": "",
            "tokens_cached": done.prompt_tokens + done.generated_tokens,
            "timings": timings(done),
            "id": self.id,
            "tabsmith": about(done),
        }

    def _selected(self, message: dict[str, Any]) -> dict[str, Any]:
        """`response_fields`, as llama-server names them: the path is the key."""
        if not self.fields:
            return message
        found = ((field, _at(message, field.split("/"))) for field in self.fields)
        return {field: value for field, value in found if value is not None}

    def piece(self, text: str, index: int) -> dict[str, Any]:
        """A piece of a stream."""
        return {"index": index, "content": text, "tokens": [], "stop": False}

    def end(self, answer: Answer, index: int) -> dict[str, Any]:
        """The last message of one answer of a stream: its text has been sent."""
        return self._selected({**self._one(answer, index), "content": ""})

    def closing(self, answers: Sequence[Answer]) -> list[bytes]:
        """llama-server's own streams end with the last message."""
        return []


def _at(value: Any, names: list[str]) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value
