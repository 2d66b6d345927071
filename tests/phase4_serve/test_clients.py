"""Programs that people have: the openai package, Continue, llama.vscode and llama.vim, by what they send and what they read."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from core.fim import CONTROL
from tests.phase4_serve.conftest import HTTP, PARAMS, Running, connect, make_workspace, start, wait_until

PREFIX, SUFFIX = "def area(r):\n    pi = 3\n    return pi", "\n\n\nprint(area(2))\n"
HOLE: dict[str, Any] = {"prompt": PREFIX, "suffix": SUFFIX, "temperature": 0.0, "extra_body": {"manual": True, "path": "a.py"}}
KEY = "k" + "3y-" + "Hn4wQz8vT5Xb2cJ7mRfLsPd9"


@pytest.fixture(scope="module")
def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def locked(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that asks for a key and lets nobody wait."""
    folder = tmp_path_factory.mktemp("k")
    running = start(tiny, folder, make_workspace(folder / "myrepo"), environment={"TABSMITH_API_KEY": KEY})
    yield running
    running.stop()


# --- the openai package


def test_openai_fills_a_hole_and_streams_the_same(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="any", max_tokens=12, **HOLE)
    assert whole.object == "text_completion" and whole.id.startswith("cmpl-") and whole.choices[0].index == 0
    assert whole.choices[0].finish_reason in ("stop", "length")
    assert whole.usage is not None
    assert 0 < whole.usage.completion_tokens <= 12
    pieces = list(client.completions.create(model="any", max_tokens=12, stream=True, stream_options={"include_usage": True}, **HOLE))
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == whole.choices[0].text
    assert [piece.choices[0].finish_reason for piece in pieces if piece.choices][-1] == whole.choices[0].finish_reason
    assert pieces[-1].usage is not None


def test_openai_asynchronously_and_several_at_once(server: Running) -> None:
    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=5) as client:

            async def one(number: int) -> str:
                answer = await client.completions.create(model="m", prompt=f"x{number} = ", user=f"u{number}", extra_body={"manual": True})
                stream = await client.completions.create(
                    model="m", prompt=f"x{number} = ", user=f"u{number}", stream=True, extra_body={"manual": True}
                )
                text = "".join([piece.choices[0].text async for piece in stream if piece.choices])
                assert text == answer.choices[0].text
                return text

            return await asyncio.gather(*(one(number) for number in range(6)))

    assert len(asyncio.run(ask())) == 6


def test_openai_breaks_out_of_a_stream_and_the_generation_ends(sluggish: Running) -> None:
    client = openai.OpenAI(base_url=f"{sluggish.url}/v1", api_key="none", max_retries=0)
    cancelled = 'tabsmith_requests_total{outcome="cancelled"}'
    before = sluggish.metric(cancelled)
    with client.completions.create(model="m", prompt="x = ", stream=True, extra_body={"manual": True}) as stream:
        for _ in stream:
            break
    wait_until(lambda: sluggish.metric(cancelled) == before + 1, 2)
    wait_until(lambda: not any(slot["is_processing"] for slot in sluggish.slots()), 2)


def test_openai_lists_models_chats_and_embeds(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    said = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "what is triangle_area?"}], max_tokens=8)
    assert said.object == "chat.completion" and said.choices[0].message.role == "assistant" and said.choices[0].message.content is not None
    pieces = list(client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hi"}], max_tokens=8, stream=True))
    assert pieces[0].object == "chat.completion.chunk" and pieces[-1].choices[0].finish_reason in ("stop", "length")
    vectors = client.embeddings.create(model="tiny", input=["triangle area", "http header", "triangle area"])
    numbers = [item.embedding for item in vectors.data]
    assert [item.index for item in vectors.data] == [0, 1, 2] and numbers[0] == numbers[2] != numbers[1]
    assert all(math.isclose(sum(x * x for x in row), 1, rel_tol=1e-3) for row in numbers)


def test_openais_exceptions_are_what_its_users_expect(server: Running, locked: Running, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        client.completions.create(model="m", prompt="a", temperature=99)
    assert bad.value.param == "temperature" and bad.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError):
        client.get("/nothing", cast_to=object)
    with pytest.raises(openai.AuthenticationError) as unknown:
        openai.OpenAI(base_url=f"{locked.url}/v1", api_key="wrong", max_retries=0).models.list()
    assert unknown.value.code == "invalid_api_key"
    assert openai.OpenAI(base_url=f"{locked.url}/v1", api_key=KEY).models.list().data[0].id == "tiny"
    with pytest.raises(openai.PermissionDeniedError):
        client.completions.create(model="m", prompt="a", extra_headers={"Origin": "https://evil.example"})


def test_openai_is_told_to_wait_and_its_retries_succeed(sluggish: Running) -> None:
    asked: dict[str, Any] = {"model": "m", "prompt": "x = ", "max_tokens": 8, "extra_body": {"manual": True}}
    strict = openai.OpenAI(base_url=f"{sluggish.url}/v1", api_key="none", max_retries=0)
    wait_until(lambda: sluggish.metric("tabsmith_running") == 0 and not any(slot["is_processing"] for slot in sluggish.slots()))
    llama = sluggish.llama()
    llama.suspend()
    try:
        room = PARAMS.slots + PARAMS.queue
        waiting = [connect(sluggish, {"prompt": "y = ", "user": f"w{n}", "manual": True, "max_tokens": 4}) for n in range(room)]
        wait_until(lambda: sluggish.metric("tabsmith_running") == room)
        with pytest.raises(openai.RateLimitError) as refused:
            strict.completions.create(user="one more", **asked)
        assert refused.value.response.headers["retry-after"] and refused.value.code == "busy"
        timer = threading.Timer(0.3, llama.resume)
        timer.start()
        patient = openai.OpenAI(base_url=f"{sluggish.url}/v1", api_key="none", max_retries=4)
        assert patient.completions.create(user="patient", **asked).choices[0].text
    finally:
        llama.resume()
    for one in waiting:
        assert one.recv(64).startswith(b"HTTP/1.1 200")
        one.close()


def test_openai_gets_an_empty_answer_where_completing_makes_no_sense(client: openai.OpenAI) -> None:
    """A status without a body would reach its user as an empty string in place of an object."""
    asked = {"model": "m", "prompt": "value = compute", "suffix": "d_total(1)\n"}
    whole = client.completions.with_raw_response.create(**asked)  # type: ignore[arg-type]
    assert whole.headers["x-tabsmith-reason"] and whole.parse().choices[0].text == ""
    streamed = list(client.completions.create(stream=True, **asked))  # type: ignore[call-overload]
    assert "".join(piece.choices[0].text for piece in streamed) == "" and streamed[-1].choices[0].finish_reason == "stop"


# --- Continue, as its core 1.1.0 was recorded (providers llama.cpp and openai)


CONTINUE_STOPS = [*CONTROL[:1], *CONTROL[1:4], *CONTROL[4:], "/src/", "#- coding: utf-8", "```"]
CONTINUE_PROMPT = f"<|fim_prefix|>\n# a.py\n{PREFIX}<|fim_suffix|>{SUFFIX}<|fim_middle|>"
CONTINUE_HEADERS = {"Authorization": "Bearer k", "User-Agent": "node-fetch", "Accept-Encoding": "gzip, deflate, br"}


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream, read as Continue reads them: an object per line, an error in one of them is an exception."""
    assert answer.status_code == 200, answer.text  # whatever is not 200 is thrown, 204 as well
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n") if line.startswith("data:")]
    found = [json.loads(line) for line in lines if line != "[DONE]"]
    assert not any("error" in event for event in found) and ": ping" not in answer.text
    return found


def test_continue_with_its_llama_cpp_provider(server: Running) -> None:
    body = {"prompt": CONTINUE_PROMPT, "stream": True, "n_predict": 4096, "stop": CONTINUE_STOPS, "temperature": 0.01}
    events = events_of(HTTP.post(f"{server.url}/completion", json=body, headers=CONTINUE_HEADERS))
    assert all(isinstance(event["content"], str) for event in events) and [event["stop"] for event in events][-1] is True
    assert events[-1]["tokens_predicted"] <= PARAMS.most_generated and "timings" in events[-1]


def test_continue_with_its_openai_provider(server: Running) -> None:
    body = {"model": "qwen2.5-coder:0.5b", "max_tokens": 4096, "temperature": 0.01, "stream": True, "stop": CONTINUE_STOPS}
    body["prompt"] = CONTINUE_PROMPT
    answer = HTTP.post(f"{server.url}/v1/completions", json=body, headers={**CONTINUE_HEADERS, "api-key": "k"})
    events = events_of(answer)
    assert answer.text.rstrip().endswith("data: [DONE]")
    assert all(isinstance(event["choices"][0]["text"], str) and event.get("finish_reason") != "eos" for event in events)


def test_both_of_continues_shapes_and_a_plain_suffix_are_one_hole(server: Running) -> None:
    """Markers in a raw prompt are taken apart, so such a client gets what one that sends a suffix gets."""
    asked = {"temperature": 0.0, "manual": True, "stop": CONTINUE_STOPS, "max_tokens": 16, "n_predict": 16}
    plain = HTTP.post(f"{server.url}/v1/completions", json={**asked, "prompt": f"\n# a.py\n{PREFIX}", "suffix": SUFFIX}).json()
    raw = HTTP.post(f"{server.url}/v1/completions", json={**asked, "prompt": CONTINUE_PROMPT}).json()
    llama = HTTP.post(f"{server.url}/completion", json={**asked, "prompt": CONTINUE_PROMPT}).json()
    spm = f"<|fim_prefix|><|fim_suffix|>{SUFFIX}<|fim_middle|>\n# a.py\n{PREFIX}"
    swapped = HTTP.post(f"{server.url}/v1/completions", json={**asked, "prompt": spm}).json()
    texts = [plain["choices"][0]["text"], raw["choices"][0]["text"], llama["content"], swapped["choices"][0]["text"]]
    assert len(set(texts)) == 1


# --- llama.vim and llama.vscode


def vscode(**more: Any) -> dict[str, Any]:
    """What llama.vscode 0.0.63 sends."""
    return {
        "id_slot": 0, "input_prefix": "def area(r):\n    pi = 3\n", "input_suffix": SUFFIX, "prompt": "    return pi",
        "input_extra": [{"text": "def triangle_width(area):\n    return area\n", "time": 1, "filename": "b.py"}],
        "n_predict": 12, "n_cmpl": 1, "top_k": 40, "top_p": 0.99, "stream": False, "samplers": ["top_k", "top_p", "infill"],
        "cache_prompt": True, "n_indent": 4, "t_max_prompt_ms": 500, "t_max_predict_ms": 2500, "manual": True, "model": "", **more,
    }  # fmt: skip


VIM_FIELDS = [
    "content", "timings/prompt_n", "timings/prompt_ms", "timings/prompt_per_token_ms", "timings/prompt_per_second", "timings/predicted_n",
    "timings/predicted_ms", "timings/predicted_per_token_ms", "timings/predicted_per_second", "truncated", "tokens_cached",
]  # fmt: skip


def test_llama_vscode_gets_what_it_reads(server: Running) -> None:
    said = HTTP.post(f"{server.url}/infill", json=vscode()).json()
    assert isinstance(said["content"], str) and said["stop"] is True and said["truncated"] is False and said["tokens_predicted"] <= 12
    assert {name.split("/")[1] for name in VIM_FIELDS if "/" in name} <= set(said["timings"]) and said["tokens_cached"] > 0
    assert said["stop_type"] in ("eos", "limit", "word", "none")
    streamed = events_of(HTTP.post(f"{server.url}/infill", json=vscode(stream=True)))
    assert "".join(event["content"] for event in streamed) == said["content"]
    assert [event["stop"] for event in streamed] == [False] * (len(streamed) - 1) + [True]


def test_llama_vscode_asks_for_three_answers(server: Running) -> None:
    said = HTTP.post(f"{server.url}/infill", json=vscode(n_cmpl=3)).json()
    assert isinstance(said, list)
    assert len(said) == 3
    assert [one["index"] for one in said] == [0, 1, 2] and said[0]["content"] == HTTP.post(f"{server.url}/infill", json=vscode()).json()[
        "content"
    ]


def test_llama_vim_gets_the_fields_it_names_and_no_others(server: Running) -> None:
    said = HTTP.post(f"{server.url}/infill", json=vscode(response_fields=VIM_FIELDS)).json()
    assert set(said) == set(VIM_FIELDS) or set(said) == {name.split("/")[0] for name in VIM_FIELDS}, said
    assert isinstance(said["content"], str)


@pytest.mark.parametrize("place", [{}, {"input_prefix": "", "input_suffix": "", "prompt": ""}])
def test_their_prefill_generates_nothing(server: Running, place: dict[str, Any]) -> None:
    """With a place it warms the cache for the next key; llama.vscode also sends its chunks without any place."""
    body = vscode(n_predict=0, samplers=[], t_max_predict_ms=1, t_max_prompt_ms=1, response_fields=[""], **place)
    answer = HTTP.post(f"{server.url}/infill", json=body)
    assert answer.status_code == 200 and answer.json().get("content", "") == ""


def test_a_prefill_spares_the_next_key_its_prompt(sluggish: Running) -> None:
    lines = "".join(f"    area_{n} = radius * {n}\n" for n in range(12))
    place = {"input_prefix": f"def areas(radius):\n{lines}", "input_extra": [], "prompt": "    return area", "user": "warmed"}
    assert HTTP.post(f"{sluggish.url}/infill", json=vscode(n_predict=0, **place)).status_code == 200
    said = HTTP.post(f"{sluggish.url}/infill", json=vscode(n_predict=4, **{**place, "prompt": "    return area_"})).json()
    assert said["timings"]["prompt_n"] <= 8, said["timings"]


@pytest.mark.parametrize(
    "wrong", [{"input_prefix": 1}, {"input_suffix": None}, {"input_extra": "x"}, {"input_extra": [{}]}, {"n_predict": "x"}, {"n_cmpl": 0}]
)
def test_a_malformed_infill_is_refused(server: Running, wrong: dict[str, Any]) -> None:
    answer = HTTP.post(f"{server.url}/infill", json={"input_prefix": "a", "input_suffix": "", **wrong})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == next(iter(wrong))


def test_every_client_pins_slot_0_and_none_gets_it(sluggish: Running) -> None:
    """Passed through, `id_slot: 0` would put every user into one cache."""
    for round_ in range(2):
        for user in ("one", "two"):
            text = f"    {user}_total = " + "abc"[: round_ + 1]
            place = {"input_prefix": f"def {user}():\n" + "    # nothing here yet\n" * 5, "prompt": text, "user": user, "input_extra": []}
            said = HTTP.post(f"{sluggish.url}/infill", json=vscode(n_predict=2, **place)).json()
    assert said["timings"]["prompt_n"] <= 8, said["timings"]  # the second user's cache survived the first's
