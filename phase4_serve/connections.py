"""HTTP connections that cannot hold the server up: bounded heads, bounded waiting, a bounded number of them.

In:  bytes of a client, honest or not
Out: ASGI requests as uvicorn makes them; for what is no request, an error in OpenAI's shape and a closed connection

uvicorn's parser takes headers of any length and waits for their end for ever; both are bounded here. It also drops the body of a
request that offers to go on in HTTP/2, as Java's clients do with every first one; here the offer is passed over.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import httptools
import orjson
from starlette.types import Receive
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from phase4_serve.api_error import ApiError
from phase4_serve.corked import Corked

LARGEST_HEAD = 32_768  # bytes of a request line with its headers
HEAD_SECONDS = 10.0  # from the connection, or the head's first byte, to its end
BODY_SECONDS = 10.0  # for what comes of a body after its answer, which did not wait for it
MOST_CONNECTIONS = 1000
DRAIN_SECONDS = 1.0  # for what a refused client still sends
MOST_PIPELINED = 8  # requests sent ahead on one connection
REASONS = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large", 503: "Service Unavailable"}


class Connection(HttpToolsProtocol):
    """One connection of a client."""

    _head = 0  # bytes of the head that has begun
    _in_head = True
    _deadline: asyncio.TimerHandle | None = None
    _again = False  # the parser is told the length of a body whose head it has read already

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take it, or say that there are too many."""
        super().connection_made(Corked(transport, self.loop))  # type: ignore[arg-type]
        self._cycles: list[RequestResponseCycle] = []  # requests without a whole answer, oldest first
        if len(self.connections) > MOST_CONNECTIONS:
            self._refuse(ApiError(503, "too many connections are open: ask again", "unavailable_error", code="connections"))
            return
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._late)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and count while the head has no end."""
        if self.parser is None or self.transport.is_closing():
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offered:
            self._stay(data[offered.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("")
        if self._in_head:
            self._head += len(data)
            if self._head > LARGEST_HEAD:
                self._too_large()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it, and tell everybody who still answers."""
        self._no_deadline()
        super().connection_lost(exc)
        for cycle in self._cycles:  # uvicorn tells the newest only
            cycle.disconnected = not cycle.response_complete
            cycle.message_event.set()

    def _stay(self, rest: bytes) -> None:
        """Go on in HTTP/1.1 with a client that offered another protocol; its parser stops there, before the body."""
        self.parser = httptools.HttpRequestParser(self)
        if sized := self._sized():
            self._again = True
            self.parser.feed_data(b"POST / HTTP/1.1\r\n" + b"".join(b"%b: %b\r\n" % field for field in sized) + b"\r\n")
            self._again = False
        if rest:
            self.data_received(rest)

    def _sized(self) -> list[tuple[bytes, bytes]]:
        """Headers that say how long a body is."""
        return [(name, value) for name, value in self.headers if name in (b"content-length", b"transfer-encoding")]

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._again:
            return
        self._unset_keepalive_if_required()  # here and not with every byte: line breaks between two requests are none
        super().on_message_begin()
        self._head, self._in_head = 0, True
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._late)
        self.scope["extensions"] = {"tabsmith.abort": {"now": self.transport.abort}}

    def on_url(self, url: bytes) -> None:
        """A part of the request line."""
        if not self._again:
            super().on_url(url)
            self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; of a head that came at once, too."""
        if not self._again:
            super().on_header(name, value)
            self._count(len(name) + len(value))

    def _count(self, size: int) -> None:
        self._head += size
        if self._head > LARGEST_HEAD:
            raise ValueError("the head is too large")  # the parser turns it into its own error: `send_400_response`

    def on_headers_complete(self) -> None:
        """The head has ended."""
        if self._again:
            return
        self._in_head = False
        self._no_deadline()
        if len(self.pipeline) >= MOST_PIPELINED:
            self.transport.abort()
            return
        super().on_headers_complete()
        self._cycles = [cycle for cycle in self._cycles if not cycle.response_complete] + [self.cycle]

    def on_message_complete(self) -> None:
        """The body has ended; not that of a request whose parser stopped before it."""
        if not (self.parser.should_upgrade() and self._sized()):
            self._no_deadline()
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is whole; a body that nobody wanted may still come, for a while."""
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body:
            self._deadline = self.loop.call_later(BODY_SECONDS, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        """What the parser does not take."""
        if self._head > LARGEST_HEAD:
            self._too_large()
        else:
            self._refuse(ApiError(400, "this is no HTTP request"))

    def timeout_keep_alive_handler(self) -> None:
        """Nothing came for a while: a client that does not read its answer is not waited for either."""
        if not self.transport.is_closing():
            self.transport.abort()

    def _too_large(self) -> None:
        self._refuse(ApiError(431, f"the headers are larger than {LARGEST_HEAD:,} bytes"))

    def _late(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self._refuse(ApiError(408, f"the request's headers did not come within {HEAD_SECONDS:.0f} seconds"))

    def _no_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, error: ApiError) -> None:
        if self.transport.is_closing():
            return
        self._no_deadline()
        body = orjson.dumps(error.body)
        head = f"HTTP/1.1 {error.status} {REASONS[error.status]}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        more = "".join(f"{name}: {value}\r\n" for name, value in error.headers.items())
        self.transport.write(f"{head}{more}connection: close\r\n\r\n".encode() + body)
        self.transport.close()


async def drain(receive: Receive) -> None:
    """Take what a client still sends for a moment: a connection that is closed before that loses the answer on its way."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
                pass


def abort(scope: dict[str, Any] | Any) -> None:
    """Cut the connection of a request, whatever is still to be sent."""
    extension = scope.get("extensions", {}).get("tabsmith.abort")
    if extension:
        extension["now"]()
