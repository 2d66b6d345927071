"""Every endpoint with its fields, answers, errors and an example: the routes, and the document that describes them.

In:  the gateway's handlers, the models of what clients send
Out: routes of an application, among them `/openapi.json`, which needs nothing from any network
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from phase4_serve import wire
from phase4_serve.answers import dumps

REF = "#/components/schemas/{model}"


class ErrorText(BaseModel):
    """What went wrong."""

    message: str
    type: str = Field(description="invalid_request_error, authentication_error, permission_error, rate_limit_error, ...")
    param: str | None = Field(description="The field that is wrong.")
    code: str | None = Field(description="busy, deadline, superseded, loading, restarting, stopping, provider_..., or null.")


class ErrorAnswer(BaseModel):
    """OpenAI's shape."""

    error: ErrorText


class About(BaseModel):
    """What only this server says."""

    source: str = Field(description="model; typed: known already; resumed: known in part; provider.")
    reason: str = Field(description="Why there is no text: unsure, superseded, or why the trigger declined.")


class Usage(BaseModel):
    """Tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int] = Field(description="cached_tokens: those that llama-server did not have to evaluate.")


class Choice(BaseModel):
    """One completion."""

    text: str
    index: int
    logprobs: None
    finish_reason: str | None = Field(description="stop, length; null in a piece of a stream.")


class CompletionAnswer(BaseModel):
    """A completion; streamed, each event has the same shape with a piece of the text."""

    id: str = Field(description="Named in events; also in the header X-Tabsmith-Id.")
    object: str
    created: int
    model: str
    system_fingerprint: str = Field(description="Of the model file's content.")
    choices: list[Choice]
    usage: Usage
    timings: dict[str, float] = Field(description="llama-server's.")
    tabsmith: About


class ChatText(BaseModel):
    """An answer's text."""

    role: str
    content: str


class ChatChoice(BaseModel):
    """One answer; streamed, `delta` stands for `message`."""

    index: int
    message: ChatText
    finish_reason: str | None


class ChatAnswer(BaseModel):
    """An answer to a conversation."""

    id: str
    object: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    tabsmith: About


class LlamaAnswer(BaseModel):
    """llama-server's shape; an array of it where n_cmpl is more than 1."""

    index: int
    content: str
    stop: bool
    model: str
    tokens_predicted: int
    tokens_evaluated: int
    tokens_cached: int
    truncated: bool
    stop_type: str
    timings: dict[str, float]
    id: str
    tabsmith: About


class Embedding(BaseModel):
    """A unit vector."""

    object: str
    index: int
    embedding: list[float] | str = Field(description="Numbers, or base64 of little-endian float32.")


class EmbeddingsAnswer(BaseModel):
    """Vectors in the order of the texts."""

    object: str
    data: list[Embedding]
    model: str


class Piece(BaseModel):
    """Lines of a file of the workspace, without secrets."""

    path: str
    line: int = Field(description="Of its first line, from 1.")
    text: str
    score: float
    via: str = Field(description="definition, words or likeness: what put it there first.")


class SearchAnswer(BaseModel):
    """Pieces, best first."""

    object: str
    data: list[Piece]
    complete: bool = Field(description="Whether every file has been read yet.")


class EventAnswer(BaseModel):
    """An event was taken."""

    object: str
    known: bool = Field(description="Whether the answer that it names is still remembered.")


class ModelCard(BaseModel):
    """A model."""

    id: str
    object: str
    owned_by: str


class ModelsAnswer(BaseModel):
    """What answers here."""

    object: str
    data: list[ModelCard]


class HealthAnswer(BaseModel):
    """The server's parts."""

    status: str = Field(description="ok, or loading model.")
    llama_server_deaths: int
    index: dict[str, Any] | None


ERRORS = {
    400: "The body is wrong; `param` names the field.",
    401: "The server asks for a key: Authorization: Bearer KEY, or X-Api-Key.",
    403: "A web page asked, or the Host is a name that the server does not answer to.",
    404: "No such endpoint; nothing is passed on to llama-server.",
    405: "Another method.",
    408: "The body did not come in time.",
    413: "The body is larger than 4 MB.",
    429: "As many requests as may wait are waiting; see Retry-After.",
    499: "A newer request of the same session came (`superseded`), or the client hung up.",
    500: "Our mistake.",
    502: "The configured chat service refuses, or sends what is no answer.",
    503: "Loading, restarting, stopping, or the deadline passed (`code` says which); see Retry-After.",
    504: "The configured chat service does not answer in time.",
}
ALWAYS = (401, 403, 500)
POSTED = (*ALWAYS, 400, 408, 413)
COMPLETING = (*POSTED, 429, 499, 503)
HOLE = {"prompt": "def area(r):\n    return ", "suffix": "\n\nprint(area(2))\n", "path": "src/shapes.py", "max_tokens": 32}
INFILL = {"input_prefix": "def area(r):\n", "prompt": "    return ", "input_suffix": "\n", "n_predict": 32, "t_max_predict_ms": 1000}


class Operation(NamedTuple):
    """One endpoint."""

    method: str
    path: str
    handler: str  # of the gateway
    body: type[BaseModel] | None
    answer: type[BaseModel] | None
    errors: tuple[int, ...]
    example: dict[str, Any] | None = None
    streams: bool = False


RAW = {"prompt": "<|fim_prefix|>def f():\n<|fim_suffix|>\n<|fim_middle|>", "n_predict": 64, "stream": True}
ASKED = {"messages": [{"role": "user", "content": "Where are headers parsed?"}], "stream": True}
OPERATIONS = (
    Operation("POST", "/v1/completions", "completions", wire.CompletionRequest, CompletionAnswer, COMPLETING, HOLE, True),
    Operation("POST", "/v1/fim/completions", "fim_completions", wire.CompletionRequest, CompletionAnswer, COMPLETING, HOLE, True),
    Operation("POST", "/completion", "completion", wire.RawRequest, LlamaAnswer, COMPLETING, RAW, True),
    Operation("POST", "/completions", "completion", wire.RawRequest, LlamaAnswer, COMPLETING, RAW, True),
    Operation("POST", "/infill", "infill", wire.InfillRequest, LlamaAnswer, COMPLETING, INFILL, True),
    Operation("POST", "/v1/chat/completions", "chat", wire.ChatRequest, ChatAnswer, (*COMPLETING, 502, 504), ASKED, True),
    Operation("POST", "/v1/embeddings", "embeddings", wire.EmbeddingsRequest, EmbeddingsAnswer, POSTED, {"input": ["parse a header"]}),
    Operation("POST", "/v1/search", "search", wire.SearchRequest, SearchAnswer, (*POSTED, 404), {"query": "parse_http_header", "limit": 5}),
    Operation(
        "POST", "/v1/events", "events", wire.EventRequest, EventAnswer, POSTED, {"event": "accepted", "id": "cmpl-...", "how": "full"}
    ),
    Operation("GET", "/v1/models", "models", None, ModelsAnswer, ALWAYS),
    Operation("GET", "/health", "health", None, HealthAnswer, ()),
    Operation("GET", "/ready", "ready", None, None, (503,)),
    Operation("GET", "/metrics", "metrics", None, None, ALWAYS),
)

COMPLETIONS = frozenset(operation.path for operation in OPERATIONS if operation.streams)


def add_routes(app: FastAPI, gateway: Any) -> None:
    """Serve every operation, and the document."""
    for operation in OPERATIONS:
        methods = ["GET", "HEAD"] if operation.method == "GET" else [operation.method]
        app.router.add_route(operation.path, getattr(gateway, operation.handler), methods)  # bodies are read and checked by ourselves
    written = dumps(document())

    async def described(request: Request) -> Response:
        return Response(written, media_type="application/json")

    app.router.add_route("/openapi.json", described, ["GET"])


def document() -> dict[str, Any]:
    """OpenAPI 3.1."""
    from phase4_serve.gateway import Gateway

    models: dict[type[BaseModel], None] = {ErrorAnswer: None}
    for operation in OPERATIONS:
        models |= {model: None for model in (operation.body, operation.answer) if model is not None}
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=REF)
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, getattr(Gateway, operation.handler).__doc__)
    keys = {"key": {"type": "http", "scheme": "bearer"}, "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"}}
    info = {"title": "tabsmith", "version": "1", "description": "Code completion on this machine, with the repository's context."}
    components = {"schemas": schemas["$defs"], "securitySchemes": keys}
    return {"openapi": "3.1.0", "info": info, "security": [{}, {"key": []}, {"header": []}], "paths": paths, "components": components}


def _described(operation: Operation, summary: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation.path.strip("/").replace("/", "_").replace(".", "_"),
        "summary": " ".join((summary or "").split()),
        "responses": {str(code): _error(code) for code in sorted(operation.errors)},
    }
    content: dict[str, Any] = {}
    if operation.answer is not None:
        content["application/json"] = {"schema": {"$ref": REF.format(model=operation.answer.__name__)}}
    if operation.streams:
        content["text/event-stream"] = {"schema": {"type": "string", "description": "`data: {...}` events; OpenAI's end with [DONE]."}}
        headers = {
            "X-Tabsmith-Id": {"schema": {"type": "string"}, "description": "The answer's id, to be named in events."},
            "X-Tabsmith-Reason": {"schema": {"type": "string"}, "description": "Why there is no text."},
        }
        found["responses"]["204"] = {"description": "No completion makes sense here.", "headers": headers}
    code = "202" if operation.handler == "events" else "200"
    found["responses"][code] = {"description": "The answer.", **({"content": content} if content else {})}
    if operation.body is not None:
        schema: dict[str, Any] = {"schema": {"$ref": REF.format(model=operation.body.__name__)}}
        found["requestBody"] = {"required": True, "content": {"application/json": {**schema, "example": operation.example}}}
    return found


def _error(code: int) -> dict[str, Any]:
    shape = {"application/json": {"schema": {"$ref": REF.format(model="ErrorAnswer")}}}
    return {"description": ERRORS[code], "content": shape}
