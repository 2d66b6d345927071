"""The two shapes in which editors ask, and the answers they expect.

In:  a JSON body of `/v1/completions` (OpenAI) or `/infill` (llama-server)
Out: `Ask` and `Sampling`; answers in the same shape; errors in OpenAI's for both
"""

from __future__ import annotations

import json
import time
import uuid
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from core.fim import Chunk, Order, parse
from phase4_serve.compose import Ask
from phase4_serve.engine import Done, Sampling

MAX_STOPS, MAX_SEED = 32, 2**32 - 1


class ApiError(Exception):
    """A request that gets an error: OpenAI's object with an HTTP status."""

    def __init__(
        self, status: int, message: str, kind: str = "invalid_request_error", param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
        self.headers = {"Retry-After": "1"} if status in (429, 503) else {}


def mend(text: Any) -> Any:
    """Text that UTF-8 can carry: surrogates that stand alone become U+FFFD, pairs become the character they mean."""
    if isinstance(text, str) and any("\ud800" <= c <= "\udfff" for c in text):
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


Text = Annotated[str, BeforeValidator(mend)]
Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
TopP = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class Request(BaseModel):
    """What both shapes share; fields we do not know are passed over, as other servers do."""

    model_config = ConfigDict(extra="ignore")

    model: Text | None = None
    stream: bool = False
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: int | None = Field(None, ge=0, le=1000)
    seed: int | None = Field(None, ge=-1)
    stop: Text | list[Text] | None = None
    order: Order | None = None
    path: Text | None = None
    file: Text | None = None  # another name for path
    repo: Text | None = None

    def sampling(self, max_tokens: int | None) -> Sampling:
        """How tokens are chosen."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        stops = tuple(text.replace("\r\n", "\n") for text in given if text)
        if len(stops) > MAX_STOPS:
            raise ApiError(400, f"stop: at most {MAX_STOPS} texts", param="stop")
        seed = None if self.seed is None or self.seed < 0 else self.seed & MAX_SEED
        return Sampling(max_tokens, self.temperature, self.top_p, self.top_k, seed, stops)


class StreamOptions(BaseModel):
    """OpenAI's."""

    include_usage: bool = False


class CompletionRequest(Request):
    """`POST /v1/completions`; `path` and `repo` are ours (extra_body)."""

    prompt: Text | list[Text]
    suffix: Text | None = None
    max_tokens: int | None = Field(None, ge=0)
    n: Literal[1] | None = 1
    stream_options: StreamOptions | None = None

    @property
    def prompts(self) -> list[str]:
        """OpenAI allows several; we complete one."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    def ask(self) -> Ask:
        """The place to complete; a prompt that holds FIM markers already is taken apart."""
        if len(self.prompts) != 1:
            raise ApiError(400, "prompt: send one text", param="prompt")
        prompt, suffix = self.prompts[0], self.suffix
        raw = parse(prompt) if suffix is None else None
        if raw:
            prompt, suffix = raw
        if not prompt and not suffix:
            raise ApiError(400, "prompt: is empty, and so is suffix: there is nothing to complete", param="prompt")
        return place(prompt, suffix, self.path or self.file, self.repo, (), self.order)


class Extra(BaseModel):
    """A piece of another file that an editor sends along."""

    text: Text
    filename: Text = ""


class InfillRequest(Request):
    """`POST /infill`, as llama.vim and llama.vscode send it; `prompt` is the cursor's line up to the cursor."""

    input_prefix: Text
    input_suffix: Text
    input_extra: list[Extra] = []
    prompt: Text = ""
    n_predict: int | None = Field(None, ge=-1)

    def ask(self) -> Ask:
        """The place to complete."""
        prefix = self.input_prefix + self.prompt
        if not prefix and not self.input_suffix:
            raise ApiError(400, "input_prefix: is empty, and so is input_suffix: there is nothing to complete", param="input_prefix")
        extra = tuple(Chunk(item.filename, item.text.replace("\r\n", "\n")) for item in self.input_extra)
        return place(prefix, self.input_suffix, self.path or self.file, self.repo, extra, self.order)

    @property
    def max_tokens(self) -> int | None:
        """None where no bound is given."""
        return None if self.n_predict is None or self.n_predict < 0 else self.n_predict


def place(prefix: str, suffix: str | None, path: str | None, repo: str | None, extra: tuple[Chunk, ...], order: Order | None) -> Ask:
    """A place with the line breaks that the model was trained on."""
    after = None if suffix is None else suffix.replace("\r\n", "\n")
    before = prefix.replace("\r\n", "\n")
    if before.endswith("\r") and after is not None and after.startswith("\n"):  # the cursor stands between the two
        before = before[:-1]
    return Ask(before, after, path or "", repo or "", extra, order)


def breaks_with_crlf(*texts: str | None) -> bool:
    """Whether a file's lines end in \\r\\n, so that the answer's must too."""
    return any(text and "\r\n" in text for text in texts)


def parse_body(model: type[Any], body: bytes) -> Any:
    """A request from its JSON.

    Raises:
        ApiError: 400 that names the field.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is not JSON") from None
    if not isinstance(document, dict):
        raise ApiError(400, "the body is not a JSON object")
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ApiError(400, f"{where}: {first['msg']}", param=str(first["loc"][0])) from None


class CompletionShape:
    """Answers as OpenAI gives them."""

    def __init__(self, model: str, include_usage: bool = False) -> None:
        self.head = {"id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion", "created": int(time.time()), "model": model}
        self.include_usage = include_usage

    def _choice(self, text: str, reason: str | None) -> dict[str, Any]:
        return {"text": text, "index": 0, "logprobs": None, "finish_reason": reason}

    @staticmethod
    def _usage(done: Done) -> dict[str, Any]:
        total = done.prompt_tokens + done.generated_tokens
        details = {"cached_tokens": done.cached_tokens}
        counts = {"prompt_tokens": done.prompt_tokens, "completion_tokens": done.generated_tokens, "total_tokens": total}
        return {**counts, "prompt_tokens_details": details}

    def whole(self, text: str, done: Done) -> dict[str, Any]:
        """The answer to a request that does not stream."""
        return {**self.head, "choices": [self._choice(text, done.finish_reason)], "usage": self._usage(done), "timings": done.timings}

    def piece(self, text: str) -> dict[str, Any]:
        """A piece of a stream."""
        return {**self.head, "choices": [self._choice(text, None)]}

    def last(self, done: Done) -> list[str]:
        """What ends a stream."""
        messages: list[Any] = [{**self.head, "choices": [self._choice("", done.finish_reason)], "timings": done.timings}]
        if self.include_usage:
            messages.append({**self.head, "choices": [], "usage": self._usage(done)})
        return [*map(json.dumps, messages), "[DONE]"]


class InfillShape:
    """Answers as llama-server gives them."""

    def __init__(self, model: str) -> None:
        self.model = model

    def whole(self, text: str, done: Done) -> dict[str, Any]:
        """The answer, and the last message of a stream."""
        return {
            "index": 0,
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
            "timings": done.timings,
        }

    def piece(self, text: str) -> dict[str, Any]:
        """A piece of a stream."""
        return {"index": 0, "content": text, "tokens": [], "stop": False}

    def last(self, done: Done) -> list[str]:
        """What ends a stream."""
        return [json.dumps(self.whole("", done))]
