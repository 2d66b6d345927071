"""What llama-server is asked: ids of a text, and a completion of ids.

In:  text; or token ids and sampling settings
Out: token ids; or a stream of `Event`s, the last of them with `stop` set
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import httpx

SECONDS = 60.0  # without a word from llama-server
REMEMBERED = 1024  # texts whose ids are kept: suffixes and chunks come again with every keystroke


class BackendDown(Exception):
    """llama-server is not there, or went away in the middle."""


class BackendRefused(Exception):
    """llama-server does not accept the request; the text is its message."""


class Event(NamedTuple):
    """A piece of a completion."""

    content: str
    stop: bool
    stop_type: str  # eos | limit | word, "" before the end
    timings: dict[str, float]  # prompt_n, cache_n, prompt_ms, predicted_n, predicted_ms


class Backend:
    """llama-server behind a Unix socket."""

    def __init__(self, socket: Path) -> None:
        # A connection after a stream is closed by llama-server, so none is kept there. There is no TLS on a socket file;
        # `verify` only spares reading the certificates
        once = httpx.Limits(max_keepalive_connections=0)
        self._stream = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(verify=False, uds=str(socket), limits=once), base_url="http://llama", timeout=SECONDS
        )
        self._sync = httpx.Client(transport=httpx.HTTPTransport(verify=False, uds=str(socket)), base_url="http://llama", timeout=SECONDS)
        self.encode = lru_cache(REMEMBERED)(self._encode)

    async def close(self) -> None:
        """Close what is open."""
        self._sync.close()
        await self._stream.aclose()

    def ids(self, text: str) -> list[int]:
        """Ids of a text, nothing added, control tokens not looked for; asked once per text.

        Raises:
            BackendDown: no answer.
        """
        return list(self.encode(text))

    def _encode(self, text: str) -> tuple[int, ...]:
        question = {"content": text, "add_special": False, "parse_special": False}
        for attempt in (1, 2):
            try:
                answer = self._sync.post("/tokenize", json=question)
                answer.raise_for_status()
                return tuple(answer.json()["tokens"])
            except httpx.RemoteProtocolError as error:  # a kept connection that was closed meanwhile
                if attempt == 2:
                    raise BackendDown(str(error)) from None
            except (httpx.HTTPError, ValueError, KeyError) as error:
                raise BackendDown(str(error)) from None
        raise AssertionError("unreachable")

    async def complete(self, ids: list[int], settings: dict[str, Any]) -> AsyncGenerator[Event, None]:
        """Complete ids; closing the iterator ends the generation.

        Raises:
            BackendDown: no answer, or none to the end.
            BackendRefused: the request is wrong.
        """
        body = {"prompt": ids, "stream": True, "cache_prompt": True, "timings_per_token": True, **settings}
        try:
            async with self._stream.stream("POST", "/completion", json=body) as answer:
                if answer.status_code != httpx.codes.OK:
                    _raise_refusal(answer.status_code, await answer.aread())
                async for line in answer.aiter_lines():
                    if line.startswith("data: "):
                        event = _event(line.removeprefix("data: "))
                        yield event
                        if event.stop:
                            return
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise BackendDown(type(error).__name__) from None
        raise BackendDown("the stream ended early")


def _event(data: str) -> Event:
    message = json.loads(data)
    if "error" in message:
        raise BackendDown("llama-server reported an error")
    return Event(message.get("content", ""), bool(message.get("stop")), message.get("stop_type", ""), message.get("timings") or {})


def _raise_refusal(status: int, body: bytes) -> None:
    try:
        message = str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"llama-server answered {status}"
    if status < httpx.codes.INTERNAL_SERVER_ERROR:
        raise BackendRefused(message)
    raise BackendDown(message)
