"""What llama-server is asked: a completion of ids, and what a slot holds saved, restored or erased.

In:  token ids and sampling settings; a slot's number
Out: a stream of `Event`s, the last of them with `stop` set

HTTP/1.1 over a Unix socket, spoken here: a general client costs 2 ms a request and 4 ms a token, which is a tenth of a
first token's time. llama-server closes a connection after its stream, so each request has its own.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, cast

import orjson

from phase4_serve.vocabulary import Words, read

SILENCE = 30.0  # seconds without a word from llama-server after which it hangs; one batch of a large model takes a few
PROBE = 10.0  # seconds for what takes it milliseconds


class BackendDown(Exception):
    """llama-server is not there, or went away in the middle."""


class BackendHangs(BackendDown):
    """llama-server is there and says nothing."""


class BackendRefused(Exception):
    """llama-server does not accept the request; the text is its message."""


class Aborted(Exception):
    """We ended this stream ourselves."""


class Event(NamedTuple):
    """A piece of a completion. The tokens' bytes, joined over events, are the content's; an end token is none of them."""

    content: str
    stop: bool
    stop_type: str  # eos | limit | word, "" before the end
    timings: dict[str, float]  # prompt_n, cache_n, prompt_ms, predicted_n, predicted_ms
    tokens: Sequence[int] = ()
    probability: float | None = None  # of the token under the model, where the settings ask for `n_probs`


class Stream(asyncio.Protocol):
    """One request and its answer, read as it comes; `abort` may be called by anybody, the reader then gets `Aborted`."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._transport: asyncio.Transport | None = None
        self._head, self._chunk = b"", b""  # not yet taken apart: of the header, of the chunked body
        self._waiter: asyncio.Future[None] | None = None
        self._ended: Exception | None = None
        self._length: int | None = None
        self.status = 0
        self.chunked = False
        self.messages: deque[bytes] = deque()
        self.on_end: Callable[[], None] | None = None  # called once when the answer is whole, read or not
        self._left: Callable[[], None] | None = None  # called once when nothing comes any more

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)
        self._request = b""

    def data_received(self, data: bytes) -> None:
        try:
            if not self.status:
                self._head += data
                head, found, data = self._head.partition(b"\r\n\r\n")
                if not found:
                    return
                self._read_head(head)
            self._chunk += data
            if self.chunked:
                self._read_chunks()
            elif self._length is not None and len(self._chunk) >= self._length:
                self.messages.append(self._chunk)
                self._end(EOFError())
        except (ValueError, IndexError):
            self._end(BackendDown("an answer that is no HTTP"))
        self._wake()

    def _read_head(self, head: bytes) -> None:
        lines = head.split(b"\r\n")
        self.status = int(lines[0].split(b" ", 2)[1])
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                self._length = int(value)
            elif name.lower() == b"transfer-encoding":
                self.chunked = b"chunked" in value.lower()

    def _read_chunks(self) -> None:
        at, data = 0, self._chunk
        while (line := data.find(b"\r\n", at)) != -1:
            size = int(data[at:line], 16)
            if len(data) < line + 4 + size:
                break
            if not size:
                self._end(EOFError())
                break
            self.messages.append(data[line + 2 : line + 2 + size])
            at = line + 4 + size
        self._chunk = data[at:]

    def connection_lost(self, error: Exception | None) -> None:
        if self.status and not self.chunked and self._length is None:
            self.messages.append(self._chunk)
        self._end(EOFError())

    def abort(self, unread: bool = False) -> None:
        """Close the connection; llama-server ends the generation when it next has something to say.

        Args:
            unread: what has come may still be read.
        """
        if not unread:
            self.messages.clear()
        self.on_end = None
        self._end(Aborted())

    def leave(self, told: Callable[[], None]) -> None:
        """Let the answer come to its end unread: whoever reads it gets `Aborted` now, `told` is called when nothing comes any more."""
        self.messages.clear()
        self._ended = self._ended or Aborted()
        self._wake()
        if self._transport is None or self._transport.is_closing():
            told()
        else:
            self._left = told

    def _end(self, how: Exception) -> None:
        self._ended = self._ended or how
        (told, self.on_end), (left, self._left) = (self.on_end, None), (self._left, None)
        for call in (told, left):
            if call is not None:
                call()
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self, seconds: float) -> bytes:
        """The next message, a chunk or a whole body.

        Raises:
            EOFError: there are no more.
            Aborted: `abort` was called.
            BackendDown: nothing came for so long.
        """
        loop = asyncio.get_running_loop()
        while not self.messages:
            if self._ended is not None:
                raise self._ended
            self._waiter = loop.create_future()
            timer = loop.call_later(seconds, self._end, BackendHangs(f"nothing for {seconds:.0f} seconds"))
            try:
                await self._waiter
            finally:
                timer.cancel()
        return self.messages.popleft()


class Answer:
    """A completion as llama-server writes it; `abort` may be called by anybody, whoever waits for `next` gets `Aborted`."""

    def __init__(self, backend: Backend, stream: Stream) -> None:
        self._backend, self._stream = backend, stream
        self._held: list[int] = []  # tokens whose text llama-server holds back: it may begin a stop
        self._said, self._lost = 0, False  # tokens counted; whether one was never said: half a character's are not

    def abort(self, unread: bool = False) -> None:
        """Close the connection; `unread` leaves what has come to be read."""
        self._stream.abort(unread)

    def leave(self, told: Callable[[], None]) -> None:
        """Let it come to its end unread, and have a function called then."""
        self._stream.leave(told)

    def when_whole(self, told: Callable[[], None]) -> None:
        """Have a function called when llama-server has said all, whether it has been read or not."""
        self._stream.on_end = told

    async def next(self) -> Event:
        """The next event.

        Raises:
            Aborted: by `abort`.
            BackendDown: no answer, or none to the end.
            BackendRefused: the request is wrong.
        """
        while True:
            try:
                message = await self._stream.next(SILENCE)
            except EOFError:
                raise BackendDown("the stream ended early") from None
            except BackendHangs:
                self._backend.on_silence()
                raise
            if self._stream.status != 200:
                _raise_refusal(self._stream.status, message)
            event = _event(message.removeprefix(b"data: ")) if message.startswith(b"data: ") else None  # else it is a ping
            if event is not None:
                return self._with_tokens(event)

    def _with_tokens(self, event: Event) -> Event:
        self._held += event.tokens
        count = int(event.timings.get("predicted_n", self._said))
        self._lost, self._said = self._lost or count > self._said + len(event.tokens), count
        if not event.content:
            return event._replace(tokens=())
        tokens = self._backend.ids(event.content) if self._lost else self._held
        self._held, self._lost = [], False
        return event._replace(tokens=tokens)


class Backend:
    """llama-server behind a Unix socket."""

    def __init__(self, socket: Path, model: Path | None = None) -> None:
        """Args: model: the GGUF whose vocabulary is read, in the background; None: llama-server is asked for ids."""
        self._socket = socket
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="vocabulary")
        self._vocabulary = self._reading.submit(read, model, socket)
        self._reading.shutdown(wait=False)
        self.on_silence: Callable[[], None] = lambda: None  # called when a stream hung: whoever runs it should end it

    @property
    def vocabulary(self) -> Words:
        """The model's vocabulary; waits until it is read, which takes less than loading the model."""
        return self._vocabulary.result()

    @property
    def n_vocab(self) -> int:
        """How many tokens there are."""
        return self.vocabulary.n_vocab

    def ids(self, text: str) -> list[int]:
        """Ids of a text, nothing added, control tokens not looked for."""
        return self.vocabulary.ids(text)

    def piece(self, token: int) -> bytes:
        """Bytes of a token; none for a control token."""
        return self.vocabulary.piece(token)

    def pieces(self) -> list[bytes]:
        """Bytes of every token; an empty list where only llama-server knows them."""
        return self.vocabulary.pieces()

    async def close(self) -> None:
        """Free the vocabulary; no connection is kept between requests."""
        (await asyncio.wrap_future(self._vocabulary)).close()

    async def complete(self, ids: list[int], settings: dict[str, Any]) -> AsyncGenerator[Event, None]:
        """Complete ids; closing the iterator ends the generation.

        Raises:
            BackendDown: no answer, or none to the end.
            BackendRefused: the request is wrong.
        """
        answer = await self.open(ids, settings)
        try:
            while True:
                event = await answer.next()
                yield event
                if event.stop:
                    return
        finally:
            answer.abort()

    async def open(self, ids: list[int], settings: dict[str, Any]) -> Answer:
        """Send a completion's request.

        Raises:
            BackendDown: nobody listens.
        """
        always = {"stream": True, "cache_prompt": True, "timings_per_token": True, "return_tokens": True}
        return Answer(self, await self._send("/completion", {"prompt": ids, **always, **settings}))

    async def _send(self, path: str, body: object) -> Stream:
        data = b"" if body is None else orjson.dumps(body)
        kind = f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n" if data else ""
        head = f"{'POST' if data else 'GET'} {path} HTTP/1.1\r\nHost: llama\r\n{kind}\r\n"
        stream = Stream(head.encode() + data)
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: stream, str(self._socket))
        except OSError as error:
            raise BackendDown(type(error).__name__) from None
        return stream

    async def ask(self, path: str, body: object, seconds: float = PROBE) -> Any:
        """A question that is answered at once.

        Raises:
            BackendDown, BackendRefused: as `complete`.
        """
        stream = await self._send(path, body)
        try:
            answer = await stream.next(seconds)
        except EOFError:
            raise BackendDown("no answer") from None
        finally:
            stream.abort()
        if stream.status != 200:
            _raise_refusal(stream.status, answer)
        return orjson.loads(answer)

    async def save_slot(self, slot: int, filename: str, seconds: float = PROBE) -> int:
        """Write a slot's cache into `--slot-save-path`; how many tokens it holds."""
        return int((await self.ask(f"/slots/{slot}?action=save", {"filename": filename}, seconds))["n_saved"])

    async def restore_slot(self, slot: int, filename: str, seconds: float = PROBE) -> int:
        """Read it back; how many tokens it holds."""
        return int((await self.ask(f"/slots/{slot}?action=restore", {"filename": filename}, seconds))["n_restored"])

    async def is_idle(self, slot: int) -> bool:
        """Whether llama-server does nothing in a slot."""
        slots = await self.ask("/slots", None)
        return not any(entry["is_processing"] for entry in slots if entry["id"] == slot)

    async def erase(self, slot: int) -> None:
        """Forget what a slot holds."""
        await self.ask(f"/slots/{slot}?action=erase", {})


def _event(data: bytes) -> Event | None:
    """A message as an event; None for one that only says how far the prompt is."""
    message = orjson.loads(data)
    if "error" in message:
        raise BackendDown("llama-server reported an error")
    if "prompt_progress" in message:
        return None
    stop, probability = bool(message.get("stop")), None
    if not stop and (probabilities := message.get("completion_probabilities")):
        probability = math.exp(min(0.0, probabilities[0].get("logprob") or 0.0))
    tokens = () if stop else message.get("tokens", ())
    return Event(message.get("content", ""), stop, message.get("stop_type", ""), message.get("timings") or {}, tokens, probability)


def _raise_refusal(status: int, body: bytes) -> None:
    try:
        message = str(orjson.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"llama-server answered {status}"
    if status < 500:
        raise BackendRefused(message)
    raise BackendDown(message)
