"""The server that editors talk to.

In:  HTTP on the loopback interface: `/v1/completions`, `/infill`, `/v1/models`, `/health`, `/ready`, `/metrics`
Out: completions, streamed as server-sent events or whole; every error in OpenAI's shape

A page in a browser can reach loopback too: a Host that is not loopback (DNS rebinding) and an Origin that is a web page
are refused, and no CORS header is ever sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Awaitable
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors import TabsmithError
from phase4_serve.backend import BackendDown, BackendRefused
from phase4_serve.compose import Ask
from phase4_serve.engine import Busy, Done, Engine, Sampling
from phase4_serve.knowledge import Knowledge
from phase4_serve.supervisor import Supervisor
from phase4_serve.wire import ApiError, CompletionRequest, CompletionShape, InfillRequest, InfillShape, breaks_with_crlf, parse_body

MAX_BODY = 4_000_000  # bytes; a file of 100,000 lines, escaped, is smaller
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
Shape = CompletionShape | InfillShape
log = logging.getLogger("tabsmith")


def build(engine: Engine, supervisor: Supervisor, knowledge: Knowledge | None) -> FastAPI:
    """The application around an engine."""
    app = FastAPI(title="tabsmith", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(OnlyLoopback)
    _errors(app)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        asked: CompletionRequest = parse_body(CompletionRequest, await read_body(request))
        shape = CompletionShape(engine.model.name, bool(asked.stream_options and asked.stream_options.include_usage))
        crlf = breaks_with_crlf(*asked.prompts, asked.suffix)
        return await answer(request, asked.ask(), asked.sampling(asked.max_tokens), shape, asked.stream, crlf)

    @app.post("/infill")
    async def infill(request: Request) -> Response:
        asked: InfillRequest = parse_body(InfillRequest, await read_body(request))
        crlf = breaks_with_crlf(asked.input_prefix, asked.prompt, asked.input_suffix)
        return await answer(request, asked.ask(), asked.sampling(asked.max_tokens), InfillShape(engine.model.name), asked.stream, crlf)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": engine.model.name, "object": "model", "created": 0, "owned_by": "tabsmith"}]}

    @app.get("/health")
    async def health() -> dict[str, Any]:
        state = "ok" if supervisor.ready.is_set() else "loading model"
        return {"status": state, "llama_server_deaths": supervisor.deaths, "index": knowledge.state() if knowledge else None}

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        if not supervisor.ready.is_set():
            raise loading()
        return {"status": "ready"}

    @app.get("/metrics")
    async def metrics() -> Response:
        engine.metrics.restarts.set(supervisor.deaths)
        engine.metrics.pieces.set(len(knowledge.index) if knowledge else 0)
        return Response(engine.metrics.text(), media_type="text/plain; version=0.0.4")

    async def answer(request: Request, ask: Ask, sampling: Sampling, shape: Shape, stream: bool, crlf: bool) -> Response:
        if not supervisor.ready.is_set():
            raise loading()
        pieces = with_crlf(engine.complete(ask, sampling)) if crlf else engine.complete(ask, sampling)
        if not stream:
            return JSONResponse(await until_hung_up(request, whole(pieces, shape)))
        first = await until_hung_up(request, anext(pieces))  # what goes wrong before the first piece still has a status
        return StreamingResponse(events(first, pieces, shape), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    return app


def loading() -> ApiError:
    """llama-server is not there yet, or not again."""
    return ApiError(503, "the model is loading: ask again", "unavailable_error", code="loading")


async def read_body(request: Request) -> bytes:
    """The body, as long as it is not too long.

    Raises:
        ApiError: 413.
    """
    too_long = ApiError(413, f"the body is larger than {MAX_BODY:,} bytes: send the text around the cursor")
    if request.headers.get("content-length", "0").isdigit() and int(request.headers.get("content-length", "0")) > MAX_BODY:
        raise too_long
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY:
                raise too_long
    except ClientDisconnect:
        raise ApiError(499, "the client hung up", "cancelled") from None
    return bytes(body)


async def until_hung_up(request: Request, work: Awaitable[Any]) -> Any:
    """Wait for work; end it when the client hangs up, or the server is stopped, before it is done."""
    doing = asyncio.ensure_future(work)
    listening = asyncio.create_task(hung_up(request))
    try:
        await asyncio.wait({doing, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise ApiError(499, "the client hung up", "cancelled")
        return doing.result()
    except asyncio.CancelledError:
        raise ApiError(503, "the server is stopping", "unavailable_error", code="stopping") from None
    finally:
        for task in (doing, listening):
            task.cancel()
        await asyncio.gather(doing, listening, return_exceptions=True)


async def hung_up(request: Request) -> None:
    """Return when the client is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def whole(pieces: AsyncGenerator[str | Done, None], shape: Shape) -> dict[str, Any]:
    """The answer to a request that does not stream."""
    text: list[str] = []
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            if isinstance(piece, Done):
                return shape.whole("".join(text), piece)
            text.append(piece)
    raise BackendDown("no end")


async def events(first: str | Done, pieces: AsyncGenerator[str | Done, None], shape: Shape) -> AsyncGenerator[str, None]:
    """Server-sent events; an error in the middle is an event, as the status has been sent."""
    try:
        async with contextlib.aclosing(pieces):
            for message in messages(first, shape):
                yield message
            async for piece in pieces:
                for message in messages(piece, shape):
                    yield message
    except Exception as error:  # noqa: BLE001  reported to the client; the log has its kind
        yield f"data: {json.dumps(as_api_error(error).body)}\n\n"


def messages(piece: str | Done, shape: Shape) -> list[str]:
    """Events of one piece."""
    data = shape.last(piece) if isinstance(piece, Done) else [json.dumps(shape.piece(piece))]
    return [f"data: {item}\n\n" for item in data]


async def with_crlf(pieces: AsyncGenerator[str | Done, None]) -> AsyncGenerator[str | Done, None]:
    """The same text with the file's line breaks."""
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            yield piece.replace("\n", "\r\n") if isinstance(piece, str) else piece


def as_api_error(error: Exception) -> ApiError:
    """What a client is told; of an error nobody foresaw only that it happened, its text may hold code."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, Busy):
        return ApiError(429, "too many requests wait already: ask again", "rate_limit_error", code="busy")
    if isinstance(error, BackendDown):
        return ApiError(503, "llama-server went away and is being started again: ask again", "unavailable_error", code="restarting")
    if isinstance(error, BackendRefused):
        return ApiError(400, str(error))
    if isinstance(error, TabsmithError):
        return ApiError(500, str(error), "server_error")
    log.error("%s while answering", type(error).__name__)
    return ApiError(500, "internal error", "server_error")


def _respond(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body, error.status, error.headers)


def _errors(app: FastAPI) -> None:
    """One shape for every error."""

    async def foreseen(request: Request, error: Exception) -> Response:
        return _respond(as_api_error(error))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _respond(ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}"))

    for kind in (ApiError, Busy, BackendDown, BackendRefused, Exception):
        app.add_exception_handler(kind, foreseen)
    app.add_exception_handler(HTTPException, http)


class OnlyLoopback:
    """Refuses what a web page could have sent: a Host that is not loopback, an Origin that is a site."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not allowed(scope):
            refusal = ApiError(403, "only programs on this machine may ask", "permission_error")
            await _respond(refusal)(scope, receive, send)
            return
        await self.app(scope, receive, send)


def allowed(scope: Scope) -> bool:
    """Whether the headers are those of a program on this machine."""
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in (b"host", b"origin") and name in headers:
            return False
        headers[name] = value
    host = _hostname("//" + headers.get(b"host", b"").decode("latin-1"))
    origin = headers.get(b"origin", b"").decode("latin-1")
    if host not in LOOPBACK or origin == "null":
        return False
    return not origin.startswith(("http:", "https:")) or _hostname(origin) in LOOPBACK


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
