"""What clients send: the bodies of every endpoint, checked, and errors in OpenAI's shape.

In:  JSON as OpenAI's, Mistral's and llama-server's clients write it
Out: requests; of those for completions the `Ask` and the `Sampling`

Every number of a client has bounds. Fields that we do not know are passed over, as other servers do.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.fim import Chunk, Order, parse
from phase4_serve.api_error import ApiError
from phase4_serve.compose import Ask
from phase4_serve.engine import Sampling

MAX_STOPS, MAX_SEED, MAX_STOP_LENGTH = 32, 2**32 - 1, 200
MOST_ANSWERS = 3  # n, n_cmpl: what llama.vscode asks for at most
LONGEST_CLIENT = 200  # characters of a `user` or X-Session-Id
HUGE = 2**31 - 1

Model = TypeVar("Model", bound=BaseModel)


def mend(text: Any) -> Any:
    """Text that UTF-8 can carry: surrogates that stand alone become U+FFFD, pairs become the character they mean."""
    if isinstance(text, str) and not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def mended(document: Any) -> Any:
    """The same JSON value with every text mended."""
    if isinstance(document, dict):
        return {mend(name): mended(value) for name, value in document.items()}
    if isinstance(document, list):
        return [mended(value) for value in document]
    return mend(document)


Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
TopP = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Tokens = Annotated[int, Field(ge=0, le=HUGE)]
BOUND = "Most tokens of an answer; the server's own bound holds where it is lower."
GREEDY = "0, the default, always takes the likeliest token."
STREAM = "Answer in server-sent events, as the text becomes certain."
NUCLEUS = "Only the likeliest tokens that have this share together."
SEED = "Of chance; -1 or none: another one each time."
STOPS = f"At most {MAX_STOPS} texts that end the answer."


class Body(BaseModel):
    """A JSON object."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class Asked(Body):
    """What every kind of completion request shares."""

    model: str | None = Field(None, description="Any name: the one model that is loaded answers.")
    stream: bool = Field(False, description=STREAM)
    temperature: Temperature | None = Field(None, description=GREEDY)
    top_p: TopP | None = Field(None, description=NUCLEUS)
    top_k: int | None = Field(None, ge=0, le=HUGE, description="Only so many of the likeliest tokens; 1000 at most.")
    seed: int | None = Field(None, ge=-1, description=SEED)
    stop: str | list[str] | None = Field(None, description=STOPS)
    user: str | None = Field(None, description="Names an editing session: its newest request ends its older one.")
    manual: bool = Field(False, description="Somebody asked by hand: the smart trigger does not decline.")
    path: str | None = Field(None, description="The file's path, absolute or in the workspace.")
    file: str | None = Field(None, description="Another name for path.")
    repo: str | None = Field(None, description="The repository's name; default: the workspace's folder.")
    order: Order | None = Field(None, description="Of prefix and suffix in the prompt; default: the server's.")

    def sampling(self, max_tokens: int | None) -> Sampling:
        """How tokens are chosen."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        stops = tuple(text.replace("\r\n", "\n")[:MAX_STOP_LENGTH] for text in given if text)
        if len(stops) > MAX_STOPS:
            raise ApiError(400, f"stop: at most {MAX_STOPS} texts", param="stop")
        seed = None if self.seed is None or self.seed < 0 else self.seed & MAX_SEED
        top_k = None if self.top_k is None else min(self.top_k, 1000)
        return Sampling(max_tokens, self.temperature, self.top_p, top_k, seed, stops)

    def place(self, prefix: str, suffix: str | None, session: str, extra: tuple[Chunk, ...] = ()) -> Ask:
        """A place with the line breaks that the model was trained on."""
        client = (self.user or session)[:LONGEST_CLIENT]
        return place(prefix, suffix, self.path or self.file, self.repo, extra, self.order, client, not self.manual)


class StreamOptions(Body):
    """OpenAI's."""

    include_usage: bool = Field(False, description="A last event with the counts of tokens.")


class CompletionRequest(Asked):
    """`POST /v1/completions` and Mistral's `/v1/fim/completions`."""

    prompt: str | list[str] = Field(description="The text before the cursor; or a prompt with FIM markers, which is taken apart.")
    suffix: str | None = Field(None, description="The text after the cursor.")
    max_tokens: Tokens | None = Field(None, description=BOUND)
    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] | None = Field(1, description="How many answers; the first is the likeliest.")
    random_seed: int | None = Field(None, ge=-1, description="Mistral's name for seed.")
    stream_options: StreamOptions | None = Field(None, description="Of a stream.")

    @property
    def prompts(self) -> list[str]:
        """OpenAI allows several; we complete one."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    def ask(self, session: str = "") -> Ask:
        """The place to complete; a prompt that holds FIM markers already is taken apart."""
        if len(self.prompts) != 1:
            raise ApiError(400, "prompt: send one text", param="prompt")
        return self.place(*hole_of(self.prompts[0], self.suffix), session)


class LlamaRequest(Asked):
    """What llama-server's own endpoints share; `id_slot`, `cache_prompt` and `samplers` are the gateway's to choose."""

    n_predict: int | None = Field(None, ge=-2, le=HUGE, description="0 warms the cache and answers with no text; below 0: no bound.")
    n_cmpl: int | None = Field(1, ge=1, description=f"More than one answers with an array; at most {MOST_ANSWERS} are made.")
    response_fields: list[str] | None = Field(None, max_length=64, description="Only these fields, as `timings/prompt_n`.")
    t_max_predict_ms: float | None = Field(None, allow_inf_nan=False, description="Ends the answer after its first line.")

    @property
    def max_tokens(self) -> int | None:
        """None where no bound is given."""
        return None if self.n_predict is None or self.n_predict < 0 else self.n_predict

    @property
    def answers(self) -> int:
        """How many are made."""
        return min(self.n_cmpl or 1, MOST_ANSWERS)


class RawRequest(LlamaRequest):
    """`POST /completion`, as clients send it that render FIM prompts themselves."""

    prompt: str | list[str] = Field(description="FIM markers in it are taken apart; without any it is gone on with.")

    def ask(self, session: str = "") -> Ask:
        """The place to complete."""
        texts = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        if len(texts) != 1:
            raise ApiError(400, "prompt: send one text", param="prompt")
        return self.place(*hole_of(texts[0], None), session)


class Extra(Body):
    """A piece of another file that an editor sends along."""

    text: str = Field(description="Masked like any file, and left out where it repeats what stands at the cursor.")
    filename: str = Field("", description="Its path.")


class InfillRequest(LlamaRequest):
    """`POST /infill`, as llama.vim and llama.vscode send it."""

    input_prefix: str = Field(description="The lines before the cursor's line.")
    input_suffix: str = Field(description="The text after the cursor.")
    input_extra: list[Extra] = Field([], max_length=1000, description="Pieces of other files; they come before the server's own.")
    prompt: str = Field("", description="The cursor's line up to the cursor.")

    @property
    def only_warms(self) -> bool:
        """llama.vscode sends its ring of chunks without any place."""
        return self.n_predict == 0 and not (self.input_prefix or self.prompt or self.input_suffix)

    def ask(self, session: str = "") -> Ask:
        """The place to complete."""
        prefix = self.input_prefix + self.prompt
        if not prefix and not self.input_suffix:
            raise ApiError(400, "input_prefix: is empty, and so is input_suffix: there is nothing to complete", param="input_prefix")
        extra = tuple(Chunk(item.filename, item.text.replace("\r\n", "\n")) for item in self.input_extra)
        return self.place(prefix, self.input_suffix, session, extra)


class TextPart(Body):
    """A part of a message."""

    type: Literal["text"] = Field(description="Only texts are understood.")
    text: str = Field(description="What was said.")


class Message(Body):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"] = Field(description="Who speaks.")
    content: str | list[TextPart] = Field(description="What was said; secrets are masked before anybody reads it.")

    @property
    def text(self) -> str:
        """Its text."""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class ChatRequest(Body):
    """`POST /v1/chat/completions`."""

    model: str | None = Field(None, description="`local` or the local model's name: never the configured service.")
    messages: list[Message] = Field(min_length=1, max_length=200, description="The oldest are left out where room is short.")
    stream: bool = Field(False, description=STREAM)
    stream_options: StreamOptions | None = Field(None, description="Of a stream.")
    max_tokens: Annotated[int, Field(ge=-1, le=HUGE)] | None = Field(None, description=BOUND)
    max_completion_tokens: Annotated[int, Field(ge=1, le=HUGE)] | None = Field(None, description="Another name for max_tokens.")
    temperature: Temperature | None = Field(None, description=GREEDY)
    top_p: TopP | None = Field(None, description=NUCLEUS)
    seed: int | None = Field(None, ge=-1, description=SEED)
    stop: str | list[str] | None = Field(None, description=STOPS)
    n: Literal[1] | None = Field(1, description="One answer.")
    user: str | None = Field(None, description="Passed over.")
    path: str | None = Field(None, description="The file the question is about: its pieces come first.")
    context: bool = Field(True, description="false: no pieces of the repository are shown to the model.")

    def sampling(self) -> Sampling:
        """How tokens are chosen."""
        tokens = self.max_completion_tokens or self.max_tokens
        asked = Asked.model_validate(self.model_dump(include={"temperature", "top_p", "seed", "stop"}))
        return asked.sampling(None if tokens is None or tokens < 0 else tokens)


class EmbeddingsRequest(Body):
    """`POST /v1/embeddings`."""

    model: str | None = Field(None, description="Any name.")
    input: str | Annotated[list[str], Field(min_length=1, max_length=256)] = Field(description="One text, or up to 256.")
    encoding_format: Literal["float", "base64"] | None = Field("float", description="base64: of little-endian float32.")
    user: str | None = Field(None, description="Passed over.")


class SearchRequest(Body):
    """`POST /v1/search`."""

    query: str = Field(min_length=1, max_length=20_000, description="Words, names, or code.")
    limit: int = Field(10, ge=1, le=50, description="Most pieces.")
    path: str = Field("", max_length=4096, description="Only in this file or folder of the workspace.")


class EventRequest(Body):
    """`POST /v1/events`: what became of a completion, or what happened to a file."""

    event: Literal["shown", "accepted", "dismissed", "kept", "saved", "opened", "closed"] = Field(description="What happened.")
    id: str | None = Field(None, max_length=64, description="The completion's id (`id`, or the header X-Tabsmith-Id).")
    how: Literal["full", "line", "word"] | None = Field(None, description="How much was accepted.")
    after: Literal[30, 300] | None = Field(None, description="Of `kept`: seconds since it was accepted.")
    kept: bool | None = Field(None, description="Of `kept`: whether the accepted text still stands there.")
    elapsed_ms: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None = Field(None, description="From shown to now.")
    path: str | None = Field(None, max_length=4096, description="Of `saved`, `opened`, `closed`: the file.")
    prefix: str | None = Field(None, description="Of `opened` and `saved`: the text before the cursor; its prompt is evaluated ahead.")
    suffix: str | None = Field(None, description="The text after the cursor.")
    text: str | None = Field(None, description="Of `saved`: the file's text, where the server cannot read it itself.")
    user: str | None = Field(None, max_length=LONGEST_CLIENT, description="As in the completions of the same session.")


def hole_of(prompt: str, suffix: str | None) -> tuple[str, str | None]:
    """Prefix and suffix; out of a prompt with FIM markers where no suffix was sent.

    Raises:
        ApiError: there is neither.
    """
    raw = parse(prompt) if suffix is None else None
    if raw:
        prompt, suffix = raw
    if not prompt and not suffix:
        raise ApiError(400, "prompt: is empty, and so is suffix: there is nothing to complete", param="prompt")
    return prompt, suffix


def place(
    prefix: str,
    suffix: str | None,
    path: str | None,
    repo: str | None,
    extra: tuple[Chunk, ...],
    order: Order | None,
    client: str = "",
    automatic: bool = True,
) -> Ask:
    """A place with the line breaks that the model was trained on."""
    after = None if suffix is None else without_crlf(suffix)
    before = without_crlf(prefix)
    if before.endswith("\r") and after is not None and after.startswith("\n"):  # the cursor stands between the two
        before = before[:-1]
    return Ask(before, after, path or "", repo or "", extra, order, client, automatic)


def breaks_with_crlf(*texts: str | None) -> bool:
    """Whether a file's lines end in \\r\\n, so that the answer's must too."""
    return any(text and "\r" in text and "\r\n" in text for text in texts)


def without_crlf(text: str) -> str:
    """A text whose lines end in \\n. To look for one character first is 20 times quicker than for two."""
    return text.replace("\r\n", "\n") if "\r" in text else text


def parse_body(model: type[Model], body: bytes) -> Model:
    """A request from its JSON.

    Raises:
        ApiError: 400 that names the field.
    """
    document = _document(body)
    if not isinstance(document, dict):
        raise ApiError(400, "the body is not a JSON object")
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ApiError(400, f"{where}: {first['msg']}", param=str(first["loc"][0]) if first["loc"] else None) from None


def _document(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:  # refuses lone surrogates, which editors do send: the slower parser takes them
        try:
            return mended(json.loads(body, parse_constant=_no_number))
        except (ValueError, RecursionError):
            raise ApiError(400, "the body is not JSON") from None


def _no_number(name: str) -> Any:
    raise ValueError(name)
