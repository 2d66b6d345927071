"""Another OpenAI-compatible service that answers chat questions, where somebody configured one.

In:  messages that were masked, the service's URL, a key from the environment
Out: pieces of its answer

Nothing is sent anywhere unless a URL was given; then questions, and the pieces of the repository that go with them, leave
this process for that service. The key goes into one header and nowhere else: not into a log, an error or a redirect.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from core.errors import InputError
from phase4_serve.api_error import ApiError
from phase4_serve.engine import Done, Sampling
from phase4_serve.security import is_loopback

KEY_VARIABLE = "TABSMITH_CHAT_KEY"
ATTEMPTS = 3
BACKOFF, LONGEST_WAIT = 0.25, 8.0  # seconds before the second attempt, doubled after; and at most, whatever Retry-After says
TIMEOUT = httpx.Timeout(60.0, connect=5.0, write=10.0, pool=5.0)  # seconds; 60 without a word
AGAIN = frozenset({408, 409, 425, 429, *range(500, 600)})
LONGEST_ANSWER = 400_000  # characters
MOST_BYTES = 64_000_000  # of an answer, with what stands around each of its words
LONGEST_LINE = 4_000_000  # bytes of it
LONGEST_SECONDS = 900.0  # from an answer's head to its end
_KEY = re.compile(r"[\x21-\x7e]*")
Turn = dict[str, str]


class Remote:
    """A chat service."""

    def __init__(self, url: str, model: str, key: str = "") -> None:
        """Raises:
        InputError: the URL is none, no model is named, the key is none that a header can carry, or the proxy is none.
        """
        scheme, host = _place_of(url)
        if not model:
            raise InputError("--chat-url needs the model that the service is asked for: name it with --chat-model")
        if not _KEY.fullmatch(key):
            raise InputError(f"{KEY_VARIABLE}: a key is visible ASCII characters: set it again, or unset it where none is needed")
        self.url, self.model = f"{url.rstrip('/')}/chat/completions", model
        self.host, self.local = host, is_loopback(host)
        self.plain = scheme == "http" and not self.local
        headers = {"Accept-Encoding": "identity", **({"Authorization": f"Bearer {key}"} if key else {})}  # no bomb is unpacked
        # A service on this machine is never reached through a proxy; redirects would carry the question elsewhere
        try:
            self._client = httpx.AsyncClient(headers=headers, timeout=TIMEOUT, follow_redirects=False, trust_env=not self.local)
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise InputError(f"the proxy that the environment names is not usable ({type(error).__name__}): correct HTTPS_PROXY") from None

    async def close(self) -> None:
        """Close what is open."""
        await self._client.aclose()

    async def answer(self, messages: list[Turn], sampling: Sampling) -> AsyncGenerator[str | Done, None]:
        """Pieces, then how it ended. Closing the iterator ends the request.

        Raises:
            ApiError: 502 it refuses or sends what is no answer, 504 it does not answer; after ATTEMPTS where that may help.
        """
        body = {"model": self.model, "messages": messages, "stream": True, **_settings(sampling)}
        for attempt in range(ATTEMPTS):
            last, wait = attempt == ATTEMPTS - 1, BACKOFF * 2**attempt * random.uniform(0.8, 1.2)
            try:
                async with self._client.stream("POST", self.url, json=body) as response:
                    if response.status_code == httpx.codes.OK:
                        async for piece in self._pieces(response):
                            yield piece
                        return
                    if response.status_code not in AGAIN or last:
                        raise _refused(response.status_code)
                    wait = max(wait, _retry_after(response))
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout):
                if last:
                    raise ApiError(
                        502, f"the chat service at {self.host} cannot be reached", "unavailable_error", code="provider_unreachable"
                    ) from None
            except httpx.TimeoutException:
                raise ApiError(504, "the chat service does not answer in time", "unavailable_error", code="provider_timeout") from None
            except httpx.HTTPError as error:
                raise _broken(f"broke off ({type(error).__name__})") from None
            await asyncio.sleep(min(LONGEST_WAIT, wait))

    async def _pieces(self, response: httpx.Response) -> AsyncGenerator[str | Done, None]:
        reason, length = "", 0
        if response.headers.get("content-type", "").startswith("application/json"):  # it does not stream
            choice = _choice(b"\n".join([line async for line in _lines(response)]))
            yield _content(choice.get("message"))
            yield Done(_reason(choice.get("finish_reason")), "eos", {}, source="provider")
            return
        async for line in _lines(response):
            data = line.removeprefix(b"data:").strip()
            if not line.startswith(b"data:") or not data:
                continue
            if data == b"[DONE]":
                reason = reason or "stop"
                break
            choice = _choice(data)
            text = _content(choice.get("delta"))
            reason = _reason(choice["finish_reason"]) if choice.get("finish_reason") else reason
            if text:
                length += len(text)
                yield text
            if length > LONGEST_ANSWER:
                reason = "length"
                break
        if not reason:
            raise _broken("broke off")
        yield Done(reason, "eos", {}, source="provider")


def _place_of(url: str) -> tuple[str, str]:
    """Scheme and host.

    Raises:
        InputError: it is no URL, or holds more than the place of a service; it is not repeated, as that may be a key.
    """
    with contextlib.suppress(ValueError, httpx.InvalidURL):
        parts = urlsplit(url)
        plain = httpx.URL(url).scheme in ("http", "https") and parts.port != 0 and "@" not in parts.netloc and not set("?# ") & set(url)
        if plain and parts.hostname:
            return parts.scheme, parts.hostname
    raise InputError("--chat-url is no URL of a service: give it as in http://127.0.0.1:11434/v1")


async def _lines(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The lines of an answer.

    Raises:
        ApiError: 502 it has more than any answer, or no end.
    """
    held: list[bytes] = []  # parts of a line
    taken, size, deadline = 0, 0, time.monotonic() + LONGEST_SECONDS
    async for part in response.aiter_bytes():
        taken += len(part)
        first, *more = part.split(b"\n")
        held.append(first)
        size += len(first)
        if more:
            for line in (b"".join(held), *more[:-1]):
                yield line
            held, size = [more[-1]], len(more[-1])
        if taken > MOST_BYTES or size > LONGEST_LINE or time.monotonic() > deadline:
            raise _broken("sends more than any answer")
    yield b"".join(held)


def _settings(sampling: Sampling) -> dict[str, Any]:
    given = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _choice(data: bytes) -> dict[str, Any]:
    """The first choice of a message; empty where it has none, as a message of counts.

    Raises:
        ApiError: it is no message, or an error.
    """
    try:
        message = orjson.loads(data)
    except ValueError:
        message = None
    if isinstance(message, dict) and not message.get("error"):
        choices = message.get("choices") or [{}]
        if isinstance(choices, list) and isinstance(choices[0], dict):
            return choices[0]
    raise _broken("sent what is no answer")


def _content(said: object) -> str:
    """The text of a `delta` or a `message`; none where it is not the shape that has one."""
    content = said.get("content") if isinstance(said, dict) else None
    return content if isinstance(content, str) else ""


def _broken(how: str) -> ApiError:
    return ApiError(502, f"the chat service {how}", "unavailable_error", code="provider_broken")


def _reason(given: object) -> str:
    return "length" if given == "length" else "stop"


def _refused(status: int) -> ApiError:
    """What it said stays unsaid: it may repeat the question or the key."""
    if status in (401, 403):
        return ApiError(502, f"the chat service refuses the key ({status}): set {KEY_VARIABLE}", "unavailable_error", code="provider_key")
    kind, code = ("rate_limit_error", "provider_busy") if status == 429 else ("unavailable_error", "provider_refused")
    return ApiError(429 if status == 429 else 502, f"the chat service answers {status}", kind, code=code)


def _retry_after(response: httpx.Response) -> float:
    try:
        return max(0.0, float(response.headers.get("retry-after", "")))
    except ValueError:
        return 0.0
