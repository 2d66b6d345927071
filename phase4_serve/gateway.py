"""The server that editors talk to.

In:  HTTP: completions in the shapes of OpenAI, Mistral and llama-server, chat, embeddings, search, events, health and metrics
Out: answers, streamed as server-sent events or whole; every error in OpenAI's shape; nothing else is reachable
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from core.errors import TabsmithError
from phase4_serve import openapi
from phase4_serve.answers import Answer, ChatShape, CompletionShape, FimShape, LlamaShape, Shape, dumps
from phase4_serve.api_error import ApiError
from phase4_serve.backend import BackendDown, BackendRefused
from phase4_serve.chat import Chat
from phase4_serve.compose import Ask
from phase4_serve.engine import Busy, Declined, Done, Engine, Late, Sampling, Superseded
from phase4_serve.events import Events
from phase4_serve.knowledge import Knowledge
from phase4_serve.security import Door, Gate, inside
from phase4_serve.streams import Bodies, EventStream, Pump, as_api_error, event, until_hung_up
from phase4_serve.swap import Serving
from phase4_serve.vectors import TextVectors
from phase4_serve.wire import (
    Asked,
    ChatRequest,
    CompletionRequest,
    EmbeddingsRequest,
    EventRequest,
    InfillRequest,
    LlamaRequest,
    RawRequest,
    SearchRequest,
    breaks_with_crlf,
    parse_body,
)

SPARE = 16  # requests that are looked at beyond those that may run and wait: a newer one may take an older one's place
MOST_AHEAD = 4  # prompts that editors' events have evaluated ahead at once
VARIED = 0.6  # temperature of the second and third answer where the first is greedy: they would all be the same
NO_STORE = {"Cache-Control": "no-store"}
Pieces = AsyncGenerator[str | Done, None]
Numbered = AsyncGenerator[tuple[int, str | Done], None]


class JSON(Response):
    """A JSON answer."""

    media_type = "application/json"

    def __init__(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        super().__init__(content, status, {**NO_STORE, **(headers or {})})

    def render(self, content: Any) -> bytes:
        """As bytes."""
        return dumps(content)


class Gateway:
    """Handlers of every endpoint."""

    def __init__(self, engine: Engine, serving: Serving, knowledge: Knowledge | None, chat: Chat, events: Events) -> None:
        self.engine, self.serving, self.knowledge, self.conversation, self.kept = engine, serving, knowledge, chat, events
        self._held, self._most = 0, engine.params.slots + engine.params.queue + SPARE
        self._bodies = Bodies()
        self._vectors: tuple[str, TextVectors] | None = None
        self._learning = asyncio.Lock()
        self._ahead: set[asyncio.Task[Any]] = set()

    def full(self, path: str) -> bool:
        """Whether a request has to come back later, which is said before anything of it is read."""
        if path not in openapi.COMPLETIONS or self._held < self._most:
            return False
        self.engine.metrics.requests.labels("busy").inc()
        return True

    @contextlib.contextmanager
    def _admitted(self) -> Iterator[None]:
        """Hold a place among those that are looked at; a body is there by then, so that slow clients hold none.

        Raises:
            ApiError: the model is loading.
            Busy: too many have come while the body was on its way.
        """
        if not self.serving.ready.is_set():
            raise loading()
        if self._held >= 2 * self._most:
            self.engine.metrics.requests.labels("busy").inc()
            raise Busy
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    async def completions(self, request: Request) -> Response:
        """Complete a place in a file, or a text; OpenAI's shape with `suffix`."""
        return await self._openai(request, CompletionShape)

    async def fim_completions(self, request: Request) -> Response:
        """The same in Mistral's shape: `message` or `delta` beside `text`."""
        return await self._openai(request, FimShape)

    async def _openai(self, request: Request, kind: type[CompletionShape]) -> Response:
        body = await self._bodies.read(request)
        with self._admitted():
            asked = parse_body(CompletionRequest, body)
            if asked.seed is None:
                asked.seed = asked.random_seed
            model = self.engine.model
            shape = kind(model.name, model.fingerprint, bool(asked.stream_options and asked.stream_options.include_usage))
            crlf = breaks_with_crlf(*asked.prompts, asked.suffix)
            sampling = asked.sampling(asked.max_tokens)._replace(n=asked.n or 1)
            return await self._answer(request, asked.ask(session_of(request)), sampling, shape, asked.stream, crlf)

    async def completion(self, request: Request) -> Response:
        """llama-server's own shape for clients that render FIM prompts themselves: the hole in the prompt is found and completed."""
        body = await self._bodies.read(request)
        with self._admitted():
            asked = parse_body(RawRequest, body)
            texts = [asked.prompt] if isinstance(asked.prompt, str) else asked.prompt
            return await self._llama(request, asked, asked.ask(session_of(request)), breaks_with_crlf(*texts))

    async def infill(self, request: Request) -> Response:
        """llama-server's infill, as llama.vim and llama.vscode ask it."""
        body = await self._bodies.read(request)
        with self._admitted():
            asked = parse_body(InfillRequest, body)
            if asked.only_warms:
                return JSON(LlamaShape(self.engine.model.name, asked.response_fields).whole([Answer("", Done("length", "limit", {}))]))
            crlf = breaks_with_crlf(asked.input_prefix, asked.prompt, asked.input_suffix)
            return await self._llama(request, asked, asked.ask(session_of(request)), crlf)

    async def _llama(self, request: Request, asked: LlamaRequest, ask: Ask, crlf: bool) -> Response:
        shape = LlamaShape(self.engine.model.name, asked.response_fields, asked.answers > 1)
        if asked.max_tokens == 0:
            async with until_hung_up(request.receive):
                return JSON(shape.whole([Answer("", await self.engine.behind.prefill(ask))]))
        sampling = asked.sampling(asked.max_tokens)._replace(n=asked.answers)
        return await self._answer(request, ask, sampling, shape, asked.stream, crlf, asked.t_max_predict_ms)

    async def _answer(
        self, request: Request, ask: Ask, sampling: Sampling, shape: Shape, stream: bool, crlf: bool, milliseconds: float | None = None
    ) -> Response:
        def remember(number: int, text: str) -> None:
            self.kept.remember(f"{shape.id}:{number}" if number else shape.id, ask, text)

        work = messages(several(self.engine, ask, sampling, milliseconds, not stream), shape, stream, crlf, remember)
        headers = {**NO_STORE, "X-Tabsmith-Id": shape.id}
        try:
            return await respond(request, work, stream, headers)
        except Declined as declined:
            return nothing(request, shape, stream, {**headers, "X-Tabsmith-Reason": declined.reason})

    async def chat(self, request: Request) -> Response:
        """A conversation about the repository, answered here or by the service that was configured."""
        body = await self._bodies.read(request)
        with self._admitted():
            asked = parse_body(ChatRequest, body)
            usage = bool(asked.stream_options and asked.stream_options.include_usage)
            shape = ChatShape(self.conversation.model(asked), self.engine.model.fingerprint, usage, asked.stream)
            work = messages(numbered(self._counted(self.conversation.answer(asked))), shape, asked.stream)
            return await respond(request, work, asked.stream, {**NO_STORE, "X-Tabsmith-Id": shape.id})

    async def _counted(self, pieces: Pieces) -> Pieces:
        """Count how a chat ends."""
        outcome = "cancelled"
        try:
            async with contextlib.aclosing(pieces):
                async for piece in pieces:
                    outcome = "answered" if isinstance(piece, Done) else outcome
                    yield piece
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except Exception as error:
            outcome = str(as_api_error(error).body["error"]["code"] or "refused")
            raise
        finally:
            self.engine.metrics.chat_requests.labels(outcome).inc()

    async def embeddings(self, request: Request) -> Response:
        """Unit vectors of texts, from the model's own token embeddings."""
        asked = parse_body(EmbeddingsRequest, await self._bodies.read(request))
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        vectors = await self._text_vectors()
        found = await asyncio.to_thread(vectors.embed, texts)
        rows = [base64.b64encode(np.ascontiguousarray(row, "<f4").tobytes()).decode() for row in found]
        values: list[Any] = rows if asked.encoding_format == "base64" else found.tolist()
        data = [{"object": "embedding", "index": i, "embedding": value} for i, value in enumerate(values)]
        tokens = await asyncio.to_thread(lambda: sum(len(self.engine.backend.ids(text)) for text in texts))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSON({"object": "list", "data": data, "model": self.engine.model.name, "usage": usage})

    async def _text_vectors(self) -> TextVectors:
        """Made when somebody first asks, and again after the model was exchanged."""
        async with self._learning:
            now = self.serving.now
            if self._vectors is None or self._vectors[0] != now.model.fingerprint:
                self._vectors = now.model.fingerprint, await asyncio.to_thread(TextVectors, now.path, now.backend.ids)
            return self._vectors[1]

    async def search(self, request: Request) -> Response:
        """Pieces of the workspace that answer a question in words or names, best first."""
        asked = parse_body(SearchRequest, await self._bodies.read(request))
        if self.knowledge is None:
            raise ApiError(404, "no workspace is indexed: start `up` with --workspace", code="no_workspace")
        found = await asyncio.to_thread(self.knowledge.search, asked.query, asked.limit, asked.path)
        data = [{**piece._asdict(), "line": piece.line + 1} for piece in found]
        return JSON({"object": "list", "data": data, "complete": self.knowledge.complete.is_set()})

    async def events(self, request: Request) -> Response:
        """What became of a completion, or happened to a file: counted, and kept on this machine."""
        asked = parse_body(EventRequest, await self._bodies.read(request))
        known = self.kept.took(asked)
        client = self.kept.client_of(asked.id or "") or asked.user or session_of(request)
        if client and asked.event in ("accepted", "dismissed"):
            self.engine.patience.event(client, asked.event, time.monotonic())
        if asked.event == "saved" and self.knowledge is not None and (path := inside(asked.path or "", self.knowledge.workspace.root)):
            self._soon(self.knowledge.saved(path))
        if asked.event in ("opened", "saved") and asked.prefix is not None and self.serving.ready.is_set():
            place = Asked.model_validate({"path": asked.path, "user": asked.user, "manual": True})
            self._soon(self.engine.behind.prefill(place.place(asked.prefix, asked.suffix or "", session_of(request))))
        return JSON({"object": "event", "known": known}, 202)

    def _soon(self, work: Any) -> None:
        """Do it without anybody waiting; too much of it is not done at all."""
        if len(self._ahead) >= MOST_AHEAD:
            work.close()
            return
        task = asyncio.ensure_future(work)
        self._ahead.add(task)
        task.add_done_callback(self._done_ahead)

    def _done_ahead(self, task: asyncio.Task[Any]) -> None:
        self._ahead.discard(task)
        if not task.cancelled():
            task.exception()  # nobody waits for it

    async def models(self, request: Request) -> Response:
        """The model that is loaded, and the one that a configured chat service uses."""
        model, remote = self.engine.model, self.conversation.remote
        data = [{"id": model.name, "object": "model", "created": 0, "owned_by": "tabsmith", "fingerprint": model.fingerprint}]
        if remote is not None:
            data.append({"id": remote.model, "object": "model", "created": 0, "owned_by": remote.host})
        return JSON({"object": "list", "data": data})

    async def health(self, request: Request) -> Response:
        """Whether the process lives; with the state of its parts."""
        state = "ok" if self.serving.ready.is_set() else "loading model"
        known = self.knowledge.state() if self.knowledge else None
        return JSON({"status": state, "llama_server_deaths": self.serving.deaths, "index": known})

    async def ready(self, request: Request) -> Response:
        """200 where a completion would be answered now."""
        if not self.serving.ready.is_set():
            raise loading()
        return JSON({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        """Figures for Prometheus: counts and seconds, never text."""
        figures = self.engine.metrics
        figures.restarts.set(self.serving.deaths)
        figures.pieces.set(len(self.knowledge.index) if self.knowledge else 0)
        return Response(figures.text(), 200, NO_STORE, "text/plain; version=0.0.4")


def build(
    engine: Engine,
    serving: Serving,
    knowledge: Knowledge | None,
    who: Door | None = None,
    chat: Chat | None = None,
    events: Events | None = None,
) -> FastAPI:
    """The application around an engine."""
    gateway = Gateway(
        engine, serving, knowledge, chat or Chat(engine, knowledge, None), events or Events(None, False, engine.metrics, None)
    )
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.add_middleware(Gate, who=who or Door(), full=gateway.full)
    openapi.add_routes(app, gateway)
    _errors(app)
    return app


async def respond(request: Request, work: AsyncGenerator[bytes, None], stream: bool, headers: dict[str, str]) -> Response:
    """An answer as it is made, or whole. What goes wrong before its first piece still has a status."""
    if not stream:
        async with until_hung_up(request.receive), contextlib.aclosing(work):
            body = await anext(work)
        return Response(body, 200, headers, "application/json")
    pump = Pump(work)
    try:
        async with until_hung_up(request.receive):
            await pump.begun()
    except BaseException:
        pump.task.cancel()
        raise
    return EventStream(pump, headers)


def nothing(request: Request, shape: Shape, stream: bool, headers: dict[str, str]) -> Response:
    """No completion makes sense there: 204, or an answer with no text for clients that fail on a status without a body.

    Continue throws on a stream's status that is not 200 (fetch/stream.ts), and OpenAI's packages hand over "" where
    their caller expects an object; they name themselves in X-Stainless-Lang. llama.vim and llama.vscode take a 204.
    """
    if not stream and "x-stainless-lang" not in request.headers:
        return Response(status_code=204, headers=headers)
    empty = Answer("", Done("stop", "rule", {}, reason=headers["X-Tabsmith-Reason"]))
    if not stream:
        return JSON(shape.whole([empty]), 200, headers)
    data = b"".join(map(event, [dumps(shape.end(empty, 0)), *shape.closing([empty])]))
    return Response(data, 200, headers, "text/event-stream")


async def several(engine: Engine, ask: Ask, sampling: Sampling, milliseconds: float | None, whole: bool) -> Numbered:
    """The answers that were asked for, one after another, each piece with its answer's number."""
    for number in range(sampling.n):
        chosen = sampling._replace(n=1)
        if number:
            chosen = chosen._replace(temperature=max(sampling.temperature or 0.0, VARIED), seed=(sampling.seed or 0) + number)
        pieces = engine.complete(ask, chosen, whole)
        async with contextlib.aclosing(
            numbered(pieces if milliseconds is None else within(pieces, milliseconds / 1000), number)
        ) as bounded:
            async for piece in bounded:
                yield piece


async def numbered(pieces: Pieces, number: int = 0) -> Numbered:
    """Each piece with its answer's number."""
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            yield number, piece


async def within(pieces: Pieces, seconds: float) -> Pieces:
    """llama-server's t_max_predict_ms: past the time, an answer that has a whole line ends with it."""
    first, lines = 0.0, False
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            if isinstance(piece, Done):
                yield piece
                return
            first = first or time.monotonic()
            lines = lines or "\n" in piece
            late = lines and time.monotonic() - first > seconds
            yield piece[: piece.rfind("\n") + 1] if late and "\n" in piece else piece
            if late:
                break
    yield Done("length", "limit", {})


async def messages(
    pieces: Numbered, shape: Shape, stream: bool, crlf: bool = False, remember: Callable[[int, str], None] = lambda number, text: None
) -> AsyncGenerator[bytes, None]:
    """Events of a stream; or one whole body.

    Raises:
        Superseded: before the first piece; after it, the answer ends there.
    """
    texts: dict[int, list[str]] = {}
    answers: list[Answer] = []
    try:
        async with contextlib.aclosing(pieces):
            async for number, piece in pieces:
                parts = texts.setdefault(number, [])
                if isinstance(piece, str):
                    parts.append(piece)
                    if stream:
                        yield event(dumps(shape.piece(piece.replace("\n", "\r\n") if crlf else piece, number)))
                    continue
                text = "".join(parts)
                remember(number, text)
                answers.append(Answer(text.replace("\n", "\r\n") if crlf else text, piece))
                if stream:
                    yield event(dumps(shape.end(answers[-1], number)))
    except Superseded:
        if not stream or not texts:
            raise
        answers.append(Answer("", Done("length", "limit", {}, reason="superseded")))
        yield event(dumps(shape.end(answers[-1], max(texts))))
    if not answers:
        raise BackendDown("no end")
    for data in map(event, shape.closing(answers)) if stream else [dumps(shape.whole(answers))]:
        yield data


def session_of(request: Request) -> str:
    """Who asks, where the body does not say."""
    return request.headers.get("x-session-id", "")


def loading() -> ApiError:
    """llama-server is not there yet, or not again."""
    return ApiError(503, "the model is loading: ask again", "unavailable_error", code="loading")


def _errors(app: FastAPI) -> None:
    """One shape for every error."""

    def respond_with(error: ApiError) -> Response:
        return JSON(error.body, error.status, error.headers)

    async def foreseen(request: Request, error: Exception) -> Response:
        return respond_with(as_api_error(error))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return respond_with(ApiError(error.status_code, f"{request.method} {request.url.path[:200]}: {error.detail}"))

    for kind in (ApiError, Busy, Superseded, Late, Declined, BackendDown, BackendRefused, TabsmithError, Exception):
        app.add_exception_handler(kind, foreseen)
    app.add_exception_handler(HTTPException, http)
