"""Questions about the repository: with its pieces, without its secrets, here or at a service that somebody chose."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from typing import Any

import openai
import pytest

from core.errors import InputError
from phase4_serve.api_error import ApiError
from phase4_serve.chat import cited, fitting, newest, with_pieces
from phase4_serve.engine import Sampling
from phase4_serve.provider import Remote
from phase4_serve.retrieve import Found
from phase4_serve.wire import ChatRequest, Message
from tests.phase4_serve.conftest import CANARY, HTTP, Guarded, Running
from tests.phase4_serve.provider_peer import WORDS

QUESTION = {"role": "user", "content": "Where does parse_http_header split the value?"}


@pytest.fixture
def remote(guarded: Guarded) -> openai.OpenAI:
    guarded.peer.next.clear()
    return openai.OpenAI(base_url=f"{guarded.server.url}/v1", api_key=guarded.key, max_retries=0)


def ask(client: openai.OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(model="peer", messages=[QUESTION], **more)


def test_a_local_answer_streams_what_it_says_whole(server: Running) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    asked: dict[str, Any] = {"model": "any", "messages": [QUESTION], "max_tokens": 12, "temperature": 0.0}
    whole = client.chat.completions.create(**asked)
    pieces = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(p.choices[0].delta.content or "" for p in pieces if p.choices) == whole.choices[0].message.content
    assert whole.model == "tiny" and whole.usage is not None and whole.usage.completion_tokens <= 12
    assert pieces[-1].usage == whole.usage or pieces[-1].usage is not None


def test_a_local_prompt_holds_the_pieces_that_fit(server: Running) -> None:
    def prompt_tokens(**more: Any) -> int:
        body = {"messages": [QUESTION], "max_tokens": 1, **more}
        return int(HTTP.post(f"{server.url}/v1/chat/completions", json=body).json()["usage"]["prompt_tokens"])

    assert prompt_tokens() > prompt_tokens(context=False) + 200  # one token is one character here
    long = [{"role": "user", "content": "x" * 300}, {"role": "assistant", "content": "y" * 300}, QUESTION]
    assert prompt_tokens(messages=[{"role": "system", "content": "Be brief."}, *long]) <= 1024 - 1024 // 3  # the oldest turns went
    too_long = HTTP.post(f"{server.url}/v1/chat/completions", json={"messages": [{"role": "user", "content": "z" * 2000}]})
    assert too_long.status_code == 400 and too_long.json()["error"]["param"] == "messages"


def test_the_service_gets_files_and_lines_and_no_secret(guarded: Guarded, remote: openai.OpenAI) -> None:
    guarded.peer.asked.clear(), guarded.peer.heads.clear()
    messages: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Does github_client use {CANARY}?"}]
    answer = remote.chat.completions.create(model="peer", messages=messages, temperature=0.3, max_tokens=50)
    assert answer.choices[0].message.content == "".join(WORDS) and answer.model == "peer"
    (asked,) = guarded.peer.asked
    assert asked["model"] == "peer" and asked["temperature"] == 0.3 and asked["max_tokens"] == 50
    system = asked["messages"][0]["content"]
    assert system.startswith("Be brief.") and "settings.py:1-" in system and "def github_client" in system
    assert CANARY not in json.dumps(asked) and "github_client use" in asked["messages"][1]["content"]
    assert guarded.peer.heads[0]["authorization"] == f"Bearer {guarded.chat_key}" and guarded.key not in json.dumps(guarded.peer.heads)


def test_a_stream_of_the_service_is_passed_on_in_our_shape(remote: openai.OpenAI) -> None:
    pieces = list(ask(remote, stream=True))
    assert [p.choices[0].delta.content for p in pieces if p.choices[0].delta.content] == WORDS
    assert pieces[-1].choices[0].finish_reason == "stop" and {p.id for p in pieces} == {pieces[0].id}


def test_a_service_that_does_not_stream_is_understood(guarded: Guarded, remote: openai.OpenAI) -> None:
    guarded.peer.next[:] = ["whole"]
    assert ask(remote).choices[0].message.content == "".join(WORDS)


def test_what_may_pass_is_tried_again(guarded: Guarded, remote: openai.OpenAI) -> None:
    guarded.peer.asked.clear()
    guarded.peer.next[:] = [429, 503]
    assert ask(remote).choices[0].message.content == "".join(WORDS)
    assert len(guarded.peer.asked) == 3


@pytest.mark.parametrize(
    ("next_", "status", "code", "tries"),
    [
        ([401], 502, "provider_key", 1),
        ([400], 502, "provider_refused", 1),
        ([307], 502, "provider_refused", 1),  # the question goes nowhere else
        ([500, 500, 500], 502, "provider_refused", 3),
        ([429, 429, 429], 429, "provider_busy", 3),
        (["error"], 502, "provider_broken", 1),
    ],
)
def test_a_service_that_fails_is_an_error_that_says_so(
    guarded: Guarded, remote: openai.OpenAI, next_: list[int | str], status: int, code: str, tries: int
) -> None:
    guarded.peer.asked.clear()
    guarded.peer.next[:] = next_
    with pytest.raises(openai.APIStatusError) as failed:
        ask(remote)
    assert failed.value.status_code == status and failed.value.code == code and len(guarded.peer.asked) == tries
    assert "repeat" not in str(failed.value) and guarded.chat_key not in str(failed.value)


def event(choice: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


NO_ANSWERS = {
    "HTML": b"<html>not found</html>",
    "a list": b"[1, 2]",
    "a word": b'"ok"',
    "no choice": b'{"choices": 5}',
    "choices of words": b'{"choices": ["a"]}',
    "cut": b'{"choices": [{"message": {"cont',
    "not UTF-8": b'{"choices": [{"message": {"content": "\xff\xfe"}}]}',
    "an event of no JSON": b"data: {nope\n\n",
    "an event of a list": b"data: [[1]]\n\n",
    "a line without end": b"data: " + b"a" * 5_000_000,
    "no end": event({"delta": {"content": "a"}}),
    "nothing": b"data:\n\n",
    "nested": b"data: " + b"[" * 100_000 + b"\n\n",
}


@pytest.mark.parametrize("sent", [pytest.param(sent, id=name) for name, sent in NO_ANSWERS.items()])
@pytest.mark.parametrize("stream", [True, False])
def test_what_is_no_answer_is_a_broken_service(guarded: Guarded, remote: openai.OpenAI, sent: bytes, stream: bool) -> None:
    guarded.peer.next[:] = [sent]
    with pytest.raises(openai.APIError) as failed:
        list(ask(remote, stream=True)) if stream else ask(remote)
    assert failed.value.code == "provider_broken"  # in the middle of a stream there is no status any more


WORDLESS = [
    {"delta": "text"},
    {"delta": ["a"]},
    {"delta": {"content": ["a"]}},
    {"delta": {"content": 5}},
    {"delta": None},
    {"message": 5},
    {},
]


@pytest.mark.parametrize("choice", WORDLESS, ids=str)
def test_a_choice_without_words_says_nothing(guarded: Guarded, remote: openai.OpenAI, choice: Any) -> None:
    for sent in (event(choice) + event({"finish_reason": {"a": 1}}), json.dumps({"choices": [choice]}).encode()):
        guarded.peer.next[:] = [sent]
        assert ask(remote).choices[0].message.content == ""


def test_an_answer_has_an_end_though_the_service_finds_none(monkeypatch: pytest.MonkeyPatch, guarded: Guarded) -> None:
    async def asked() -> list[Any]:
        service = Remote(guarded.peer.url, "m")
        async with contextlib.aclosing(service.answer([QUESTION], Sampling())) as pieces:
            return [piece async for piece in pieces]

    for name, bound in (("MOST_BYTES", 500), ("LONGEST_SECONDS", 0.1)):
        guarded.peer.next[:] = ["hang"]
        with monkeypatch.context() as bounded:
            bounded.setattr(f"phase4_serve.provider.{name}", bound)
            with pytest.raises(ApiError, match="more than any answer"):
                asyncio.run(asked())


def test_a_service_that_breaks_off_in_the_middle_is_an_error_in_the_stream(guarded: Guarded, remote: openai.OpenAI) -> None:
    guarded.peer.next[:] = ["break"]
    text = ""
    with pytest.raises(openai.APIError):  # noqa: PT012
        for piece in ask(remote, stream=True):
            text += piece.choices[0].delta.content or ""
    assert text == "".join(WORDS)


def test_who_hangs_up_ends_the_question_to_the_service(guarded: Guarded, remote: openai.OpenAI) -> None:
    guarded.peer.hung_up.clear()
    guarded.peer.next[:] = ["hang"]
    stream = ask(remote, stream=True)
    next(iter(stream))
    stream.close()
    assert guarded.peer.hung_up.wait(2)


def test_this_servers_own_model_is_still_there(guarded: Guarded, remote: openai.OpenAI) -> None:
    guarded.peer.asked.clear()
    for name in ("local", "tiny"):
        assert remote.chat.completions.create(model=name, messages=[QUESTION], max_tokens=2).model == "tiny"  # type: ignore[list-item]
    assert not guarded.peer.asked and [model.id for model in remote.models.list()] == ["tiny", "peer"]


@pytest.mark.parametrize(
    "url",
    [
        "", "ftp://a/v1", "a.example/v1", "https://user:secret@a.example/v1", "https://a.example/v1?key=secret", "http://",
        "https://:secret@a.example/v1", "http://[::1", "http://a.example:99999/v1", "http://a.example:port/v1", "http://a\0b/v1",
        "http://a.example/v1#secret", "http://a.example:0/v1", "http://a b/v1",
    ],
)  # fmt: skip
def test_a_url_of_no_service_is_refused_unsaid(url: str) -> None:
    with pytest.raises(InputError) as refused:
        Remote(url, "m")
    assert "secret" not in str(refused.value)


def test_a_key_that_no_header_can_carry_and_a_service_without_a_model_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("schl\u00fcssel-geheim", "secret\nsecret", "secret secret"):
        with pytest.raises(InputError, match="TABSMITH_CHAT_KEY") as refused:
            Remote("http://127.0.0.1:1/v1", "m", key)
        assert key not in str(refused.value) and "secret" not in str(refused.value)
    with pytest.raises(InputError, match="--chat-model"):
        Remote("http://127.0.0.1:1/v1", "")
    monkeypatch.setenv("ALL_PROXY", "nonsense://user:secret@a")
    with pytest.raises(InputError, match="proxy") as refused:
        Remote("https://a.example/v1", "m")
    assert "secret" not in str(refused.value)
    assert Remote("http://127.0.0.1:1/v1", "m").local


def test_a_service_nobody_runs_is_502(monkeypatch: pytest.MonkeyPatch) -> None:
    async def asked(url: str) -> None:
        service = Remote(url, "m")
        async with contextlib.aclosing(service.answer([QUESTION], Sampling())) as pieces:
            await anext(pieces)

    monkeypatch.setattr("phase4_serve.provider.BACKOFF", 0.001)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ApiError, match="cannot be reached") as failed:
            asyncio.run(asked(f"http://127.0.0.1:{unused.getsockname()[1]}/v1"))
    assert failed.value.status == 502
    assert Remote("http://192.168.1.5/v1", "m").plain and not Remote("https://a.example/v1", "m").plain


PIECES = [Found(f"{name}.py", 4, "def f():\n    return 1\n", 1.0, "words") for name in "abc"]


def test_pieces_stand_under_file_and_lines_in_the_system_message() -> None:
    assert cited(PIECES[0]).startswith("a.py:5-6\n```python\ndef f():")
    turns = [{"role": "user", "content": "q"}]
    assert [turn["role"] for turn in with_pieces(turns, "here")] == ["system", "user"] and with_pieces(turns, "") is turns
    assert with_pieces([{"role": "system", "content": "s"}, *turns], "here")[0]["content"] == "s\n\nhere"
    assert fitting(PIECES, 2 * len(cited(PIECES[0])), len) == PIECES[:2]


def test_a_conversation_too_long_for_any_model_costs_the_time_of_its_newest_messages(server: Running) -> None:
    lines = "".join(f"value_{i} = compute_{i}(x, {i})\n" for i in range(2000))  # 60,000 characters
    asked = {
        "messages": [{"role": "system", "content": "Be brief."}, *([{"role": "user", "content": lines}] * 50), QUESTION],
        "max_tokens": 1,
    }
    started = time.monotonic()
    answer = HTTP.post(f"{server.url}/v1/chat/completions", json=asked)
    assert answer.status_code == 200 and time.monotonic() - started < 5
    long = HTTP.post(f"{server.url}/v1/chat/completions", json={"messages": [{"role": "user", "content": lines * 2}]})
    assert long.status_code == 400 and "the last one" in long.json()["error"]["message"]


def test_the_newest_messages_and_the_system_message_are_kept() -> None:
    said = [Message(role="system", content="s"), *(Message(role="user", content=letter * 10) for letter in "abc")]
    assert [m.content[0] for m in newest(said, 21)] == ["s", "b", "c"] and newest(said, 999) == said
    with pytest.raises(ApiError, match="shorten"):
        newest(said, 5)


def test_wrong_conversations_are_refused(server: Running) -> None:
    for body in (
        {},
        {"messages": []},
        {"messages": "hi"},
        {"messages": [{"role": "robot", "content": "x"}]},
        {"messages": [{"role": "user"}]},
    ):
        assert HTTP.post(f"{server.url}/v1/chat/completions", json=body).status_code == 400
    assert ChatRequest.model_validate({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}).messages[0].text == "a"
