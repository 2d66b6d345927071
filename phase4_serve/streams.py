"""How a request is read and how an answer leaves, at the client's speed and without it.

In:  an ASGI request; an answer as it is made
Out: the body, bounded in size and time; the answer, sent as it comes; work that ends when the client is gone

An answer is made at its own speed: a client that reads slowly keeps its connection waiting, never a slot.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator

from fastapi import Request
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from core.errors import TabsmithError
from phase4_serve.answers import dumps
from phase4_serve.api_error import ApiError, busy
from phase4_serve.backend import BackendDown, BackendRefused
from phase4_serve.connections import abort, drain
from phase4_serve.engine import Busy, Declined, Late, Superseded

MAX_BODY = 4_000_000  # bytes; a file of 100,000 lines, escaped, is smaller
BODY_SECONDS = 10.0  # until a request's body is there
MOST_UNREAD = 64_000_000  # bytes of bodies that are still on their way, all together
AT_ONCE = 65_536  # bytes handed on before it is seen whether they are taken
WRITE_SECONDS = 10.0  # until a piece of an answer is taken; then the connection is cut
log = logging.getLogger("tabsmith")


def event(data: bytes) -> bytes:
    """One server-sent event."""
    return b"data: %b\n\n" % data


class Pump:
    """Runs an answer at its own speed and keeps what nobody has taken yet; an answer is bounded, and so is this."""

    def __init__(self, source: AsyncGenerator[bytes, None]) -> None:
        self._parts: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._error: Exception | None = None
        self._ended = False
        self.task = asyncio.create_task(self._run(source))
        self.task.add_done_callback(self._end)  # a task that is cancelled before it begins runs no `finally`

    async def _run(self, source: AsyncGenerator[bytes, None]) -> None:
        try:
            async with contextlib.aclosing(source):
                async for part in source:
                    self._parts.append(part)
                    self._news.set()
        except Exception as error:  # noqa: BLE001  whoever takes gets it
            self._error = error
        finally:
            self._ended = True  # before whoever takes the last part looks, so that the end goes with it

    def _end(self, task: asyncio.Task[None]) -> None:
        self._ended = True
        self._news.set()

    async def begun(self) -> None:
        """Wait for the first part; what goes wrong before it still has a status.

        Raises:
            Exception: the answer's own.
        """
        while not self._parts and not self._ended:
            await self._wait()
        if self._error is not None and not self._parts:
            raise self._error

    async def take(self) -> tuple[bytes, bool]:
        """What there is, at least something and about AT_ONCE bytes at most, and whether it was the last."""
        while not self._parts and not self._ended:
            await self._wait()
        parts, size = list[bytes](), 0
        while self._parts and size < AT_ONCE:
            size += len(self._parts[0])
            parts.append(self._parts.popleft())
        taken, ended = b"".join(parts), self._ended and not self._parts
        if ended and self._error is not None and not isinstance(self._error, Superseded):
            taken, self._error = taken + event(dumps(as_api_error(self._error).body)), None
        return taken, ended

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()


class EventStream(Response):
    """Server-sent events out of a pump; an error in the middle is an event, as the status has been sent."""

    media_type = "text/event-stream"

    def __init__(self, pump: Pump, headers: dict[str, str]) -> None:
        self.pump = pump
        super().__init__(b"", 200, headers)
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what there is whenever there is something; stop working when the client is gone."""
        watching = asyncio.create_task(self._end_with_client(receive))
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        ended = False
        try:
            while not ended:
                data, ended = await self.pump.take()
                async with asyncio.timeout(WRITE_SECONDS):
                    await send({"type": "http.response.body", "body": data, "more_body": not ended})
        except TimeoutError:
            abort(scope)
        except asyncio.CancelledError:  # the server stops
            await send({"type": "http.response.body", "body": event(dumps(stopping().body)), "more_body": False})
        finally:
            watching.cancel()
            self.pump.task.cancel()

    async def _end_with_client(self, receive: Receive) -> None:
        await hung_up(receive)
        self.pump.task.cancel()


class Bodies:
    """Reads bodies, as long as they are not too long, come in time, and do not fill the memory together."""

    def __init__(self) -> None:
        self._unread = 0  # bytes that are held of bodies without an end

    async def read(self, request: Request) -> bytes:
        """A request's body.

        Raises:
            ApiError: 413, 408; 429 where others send too much now; 499 where the client is gone.
        """
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length[:20]) > MAX_BODY:
            await drain(request.receive)
            raise too_long()
        body, more = b"", True
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while more:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise ApiError(499, "the client hung up", "cancelled")
                    part, more = message.get("body", b""), message.get("more_body", False)
                    self._unread += len(part)
                    body = body + part if body else part
                    if len(body) > MAX_BODY:
                        await drain(request.receive)
                        raise too_long()
                    if more and self._unread > MOST_UNREAD:
                        raise busy()
        except TimeoutError:
            raise ApiError(408, f"the body did not come within {BODY_SECONDS:.0f} seconds") from None
        finally:
            self._unread -= len(body)
        return body


def too_long() -> ApiError:
    """A body that is larger than any file's surroundings."""
    return ApiError(413, f"the body is larger than {MAX_BODY:,} bytes: send the text around the cursor")


@contextlib.asynccontextmanager
async def until_hung_up(receive: Receive) -> AsyncIterator[None]:
    """Do something for a client; it is cancelled when the client hangs up, or the server is stopped, before it is done.

    Raises:
        ApiError: 499, 503.
    """
    doing, gone = asyncio.current_task(), False

    async def watch() -> None:
        nonlocal gone
        await hung_up(receive)
        gone = True
        assert doing is not None
        doing.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not gone:
            raise stopping() from None
        assert doing is not None
        doing.uncancel()
        raise ApiError(499, "the client hung up", "cancelled") from None
    finally:
        watching.cancel()


async def hung_up(receive: Receive) -> None:
    """Return when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def stopping() -> ApiError:
    """The server was told to stop, and the grace is over."""
    return ApiError(503, "the server is stopping", "unavailable_error", code="stopping")


def as_api_error(error: Exception) -> ApiError:
    """What a client is told; of an error nobody foresaw only that it happened, its text may hold code."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, Busy):
        return busy()
    if isinstance(error, Superseded):
        return ApiError(499, "a newer request of the same session came", "cancelled", code="superseded")
    if isinstance(error, Late):
        return ApiError(503, "the deadline passed before a slot was free: ask again", "unavailable_error", code="deadline")
    if isinstance(error, Declined):
        return ApiError(400, f"no completion makes sense here: {error.reason}", code="declined")
    if isinstance(error, BackendDown):
        return ApiError(503, "llama-server went away and is being started again: ask again", "unavailable_error", code="restarting")
    if isinstance(error, BackendRefused):
        return ApiError(400, "llama-server does not take this request: its prompt or a setting is out of its bounds")
    if isinstance(error, TabsmithError):
        return ApiError(500, str(error), "server_error")
    where = traceback.extract_tb(error.__traceback__)
    at = f"{where[-1].filename}:{where[-1].lineno}" if where else "?"
    log.error("%s at %s while answering", type(error).__name__, at)
    return ApiError(500, "internal error", "server_error")
