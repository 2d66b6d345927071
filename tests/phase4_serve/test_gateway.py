"""What a client meets on the wire: shapes, streams, ends, refusals, and a description of all of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import httpx
import openai
import pytest
import uvicorn
from uvicorn.server import ServerState

from phase4_serve import connections, streams
from phase4_serve.answers import CompletionShape, LlamaShape
from phase4_serve.connections import Connection
from phase4_serve.engine import Done, Superseded
from phase4_serve.gateway import messages, numbered, within
from phase4_serve.openapi import OPERATIONS
from tests.phase4_serve.conftest import HTTP, Running, wait_until

PLACE = {"prompt": "def area(r):\n    pi = 3\n    return pi", "suffix": "\n\n\nprint(area(2))\n", "path": "a.py", "manual": True}
RIGHT_OF_TEXT = {"prompt": "total = pri", "suffix": "ce * count\n", "path": "a.py"}  # in a word: the trigger declines
DONE = Done("stop", "eos", {"prompt_n": 3, "cache_n": 4, "predicted_n": 2})


def post(server: Running, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    return HTTP.post(f"{server.url}{path}", json=body, headers=headers)


@contextlib.contextmanager
def connected(server: Running) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])), timeout=10) as connection:
        yield connection


def raw(path: str, body: dict[str, Any], *lines: str) -> bytes:
    data = json.dumps(body).encode()
    head = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(data)}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + data


def until_closed(connection: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            received += part
    return received


def test_every_event_of_a_stream_is_whole_and_together_they_are_the_answer(server: Running) -> None:
    """Random bytes of a random model: half characters everywhere, none of them on the wire."""
    for seed in range(6):
        asked = {**PLACE, "temperature": 1.5, "seed": seed, "max_tokens": 24}
        whole = post(server, "/v1/completions", asked).json()["choices"][0]["text"]
        texts = []
        with HTTP.stream("POST", f"{server.url}/v1/completions", json={**asked, "stream": True}) as answer:
            for part in answer.iter_raw():
                for line in part.decode("utf-8").splitlines():
                    if line.startswith("data: {"):
                        texts += [choice["text"] for choice in json.loads(line[6:])["choices"]]
        assert "".join(texts) == whole


@pytest.mark.parametrize("path", ["/completion", "/completions", "/infill"])
def test_llama_servers_streams_are_messages_with_content_and_stop(server: Running, path: str) -> None:
    hole = {"prompt": f"<|fim_prefix|>{PLACE['prompt']}<|fim_suffix|>{PLACE['suffix']}<|fim_middle|>", "n_predict": 6, "manual": True}
    if path == "/infill":
        hole = {"input_prefix": PLACE["prompt"], "input_suffix": PLACE["suffix"], "n_predict": 6, "manual": True}
    whole = post(server, path, hole).json()
    events = [json.loads(line[6:]) for line in post(server, path, {**hole, "stream": True}).text.splitlines() if line]
    assert "".join(event["content"] for event in events) == whole["content"]
    assert [event["stop"] for event in events] == [False] * (len(events) - 1) + [True]


def test_several_answers_are_as_many_choices_or_an_array(server: Running) -> None:
    choices = post(server, "/v1/completions", {**PLACE, "n": 3, "max_tokens": 8}).json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2] and len({choice["text"] for choice in choices}) > 1
    infill = {"input_prefix": PLACE["prompt"], "input_suffix": "\n", "n_cmpl": 3, "n_predict": 4, "manual": True, "id_slot": 7}
    assert [one["index"] for one in post(server, "/infill", infill).json()] == [0, 1, 2]
    lines = post(server, "/v1/completions", {**PLACE, "n": 2, "max_tokens": 8, "stream": True}).text.splitlines()
    indexes = [json.loads(line[6:])["choices"][0]["index"] for line in lines if line.startswith("data: {")]
    assert indexes == sorted(indexes) and set(indexes) == {0, 1}


def test_only_the_fields_that_were_asked_for(server: Running) -> None:
    fields = ["content", "timings/prompt_n", "timings/predicted_per_second", "tokens_cached", "truncated", "no/such"]
    infill = {"input_prefix": PLACE["prompt"], "input_suffix": "\n", "n_predict": 4, "response_fields": fields, "manual": True}
    assert set(post(server, "/infill", infill).json()) == set(fields) - {"no/such"}


def test_a_ring_of_chunks_without_a_place_is_taken(server: Running) -> None:
    """What llama.vscode sends while nobody types; an error there is an unhandled rejection in the editor."""
    ring = {"input_prefix": "", "input_suffix": "", "prompt": "", "n_predict": 0, "samplers": [], "t_max_predict_ms": 1,
            "input_extra": [{"text": "x = 1\n", "time": 1, "filename": "b.py"}]}  # fmt: skip
    answer = post(server, "/infill", ring)
    assert answer.status_code == 200 and answer.json()["content"] == ""


def test_mistrals_clients_find_their_field_beside_openais(server: Running) -> None:
    choice = post(server, "/v1/fim/completions", {**PLACE, "max_tokens": 8, "random_seed": 3}).json()["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": choice["text"]}
    lines = post(server, "/v1/fim/completions", {**PLACE, "max_tokens": 8, "stream": True}).text.splitlines()
    streamed = [json.loads(line[6:])["choices"][0] for line in lines if line.startswith("data: {")]
    assert "".join(one["delta"]["content"] for one in streamed) == "".join(one["text"] for one in streamed)


def test_where_completing_makes_no_sense_each_client_gets_what_it_can_take(server: Running) -> None:
    plain = post(server, "/v1/completions", RIGHT_OF_TEXT)
    assert plain.status_code == 204 and plain.headers["x-tabsmith-reason"] and plain.content == b""
    streamed = post(server, "/v1/completions", {**RIGHT_OF_TEXT, "stream": True})  # Continue throws on anything but 200
    assert streamed.status_code == 200 and streamed.text.endswith("data: [DONE]\n\n") and streamed.headers["x-tabsmith-reason"]
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)  # makes "" of a 204
    extra = {"path": "a.py"}
    answer = client.completions.create(model="any", prompt=RIGHT_OF_TEXT["prompt"], suffix=RIGHT_OF_TEXT["suffix"], extra_body=extra)
    assert answer.choices[0].text == "" and answer.choices[0].finish_reason == "stop"
    assert post(server, "/v1/completions", {**RIGHT_OF_TEXT, "manual": True}).status_code == 200


def test_who_does_not_read_holds_a_connection_and_no_slot(server: Running) -> None:
    with connected(server) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        connection.sendall(raw("/v1/completions", {**PLACE, "prompt": PLACE["prompt"] + " #slow", "stream": True}))
        wait_until(lambda: server.metric("tabsmith_running") == 0 and not any(slot["is_processing"] for slot in server.slots()), 3)
        assert connection.recv(9) == b"HTTP/1.1 "


def test_requests_sent_ahead_are_answered_in_order(server: Running) -> None:
    with connected(server) as connection:
        asked = [{**PLACE, "max_tokens": n} for n in (1, 2, 3)]
        connection.sendall(b"".join(raw("/v1/completions", body, "Connection: keep-alive") for body in asked))
        received = b""
        while received.count(b"HTTP/1.1 200") < 3 or not received.rstrip().endswith(b"}"):
            received += connection.recv(65536)
        found = [json.loads(part[part.index(b"{") :].split(b"HTTP/1.1")[0]) for part in received.split(b"\r\n\r\n") if b"{" in part]
        alone = [post(server, "/v1/completions", body).json()["choices"][0]["text"] for body in asked]
        assert [one["choices"][0]["text"] for one in found] == alone and len(set(alone)) > 1


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", b"431", id="a huge header"),
        pytest.param(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 70_000, b"431", id="a header without an end"),
        pytest.param(b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: 127.0.0.1\r\n\r\n", b"400", id="two hosts"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", b"400", id="TLS"),
        pytest.param(b"GET / HTTP/9.9\r\n\r\n", b"400", id="no such version"),
        pytest.param(b"GET /health HTTP/1.1\r\n\r\n", b"403", id="no host"),
        pytest.param(b"PUT /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", b"405", id="another method"),
        pytest.param(b"GET /v1/../slots HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404", id="climbing"),
        pytest.param(b"GET http://localhost/slots HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404", id="as to a proxy"),
    ],
)
def test_what_is_no_proper_request_is_refused_in_one_shape(server: Running, sent: bytes, status: bytes) -> None:
    with connected(server) as connection:
        connection.sendall(sent)
        head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
        assert head.split(b" ", 2)[1] == status
        assert set(json.loads(body or connection.recv(65536))["error"]) == {"message", "type", "param", "code"}
    assert HTTP.get(f"{server.url}/ready").status_code == 200


@pytest.mark.parametrize(
    "path", ["/slots", "/props", "/lora-adapters", "/tokenize", "/slots/0?action=save", "/v1/models/../../props", "/docs"]
)
def test_nothing_of_llama_servers_own_is_reachable(server: Running, path: str) -> None:
    for answer in (HTTP.get(f"{server.url}{path}"), HTTP.post(f"{server.url}{path}", json={"content": "x", "filename": "x"})):
        assert answer.status_code in (404, 405)


def test_the_description_says_everything_that_is_served(server: Running) -> None:
    document = HTTP.get(f"{server.url}/openapi.json").json()
    assert {(path, method.upper()) for path, operations in document["paths"].items() for method in operations} == {
        (operation.path, operation.method) for operation in OPERATIONS
    }
    text = json.dumps(document)
    names = set(document["components"]["schemas"])
    assert {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]} <= names
    for operation in OPERATIONS:
        if operation.body is not None:
            assert operation.example and HTTP.post(f"{server.url}{operation.path}", json=operation.example).status_code in (200, 202, 204)
            fields = document["components"]["schemas"][operation.body.__name__]["properties"]
            assert set(fields) == set(operation.body.model_fields) and all(field["description"] for field in fields.values())
        else:
            assert HTTP.get(f"{server.url}{operation.path}").status_code == 200


def test_embeddings_as_the_openai_package_reads_them(server: Running) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)  # asks for base64
    found = client.embeddings.create(model="any", input=["parse a header", "area of a circle", "parse a header"])
    numbers = post(server, "/v1/embeddings", {"input": "parse a header"}).json()["data"][0]["embedding"]
    assert found.data[0].embedding == found.data[2].embedding == pytest.approx(numbers, abs=1e-6)
    assert found.data[0].embedding != found.data[1].embedding and sum(x * x for x in numbers) == pytest.approx(1, abs=1e-4)


def test_search_names_file_and_line(server: Running) -> None:
    found = post(server, "/v1/search", {"query": "where is parse_http_header?", "limit": 2}).json()["data"]
    assert (found[0]["path"], found[0]["line"]) == ("headers.py", 1) and "def parse_http_header" in found[0]["text"]
    assert post(server, "/v1/search", {"query": ""}).status_code == 400


async def pieces(*given: str | Done, then: type[Exception] | None = None) -> AsyncGenerator[str | Done, None]:
    for piece in given:
        yield piece
    if then:
        raise then


def collected(source: AsyncGenerator[Any, None]) -> list[Any]:
    async def all_of_it() -> list[Any]:
        return [piece async for piece in source]

    return asyncio.run(all_of_it())


def test_the_answer_breaks_lines_as_the_file_does() -> None:
    for stream in (False, True):
        found = collected(messages(numbered(pieces("a\n", "\n", "b", DONE)), LlamaShape("m"), stream, crlf=True))
        bodies = [json.loads(data.removeprefix(b"data: ")) for data in found]
        assert "".join(body["content"] for body in bodies) == "a\r\n\r\nb"


def test_a_newer_request_ends_an_answer_that_has_begun_and_refuses_one_that_has_not() -> None:
    begun = collected(messages(numbered(pieces("a", then=Superseded)), CompletionShape("m"), True))
    assert json.loads(begun[-2][6:])["tabsmith"]["reason"] == "superseded" and begun[-1] == b"data: [DONE]\n\n"
    for stream, given in ((True, ()), (False, ("a",))):
        with pytest.raises(Superseded):
            collected(messages(numbered(pieces(*given, then=Superseded)), CompletionShape("m"), stream))


def test_past_its_time_an_answer_ends_with_its_first_line() -> None:
    async def slow() -> AsyncGenerator[str | Done, None]:
        yield "a"
        time.sleep(0.02)
        yield "b\nc"
        yield "never"

    assert collected(within(slow(), 0.01)) == ["a", "b\n", Done("length", "limit", {})]
    assert collected(within(pieces("a", "b\n", "c", DONE), 5)) == ["a", "b\n", "c", DONE]


def talk(app: Any, *clients: bytes) -> list[bytes]:
    """What each of some clients gets who are there at once; all our own connections, nothing of llama-server's."""

    async def run() -> list[bytes]:
        config = uvicorn.Config(app, http=Connection, ws="none", log_level="critical", access_log=False, lifespan="off")
        config.load()
        state = ServerState()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(config, state, {}), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in clients]
        for (_, writer), sent in zip(opened, clients, strict=True):
            writer.write(sent)
        found = []
        for reader, writer in opened:
            with contextlib.suppress(ConnectionError):
                found.append(await asyncio.wait_for(reader.read(), 5))
            writer.close()
        server.close()
        return found

    return asyncio.run(run())


async def says_ok(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2"), (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": b"ok"})


def test_a_head_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.1)
    for sent in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\n"):
        assert talk(says_ok, sent)[0].startswith(b"HTTP/1.1 408 ")


OFFER = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk")


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_offers_http_2_is_answered_in_http_1_with_its_body(server: Running, chunked: bool, apart: bool) -> None:
    """java.net.http offers it with the first request of every connection, and so does `curl --http2`."""
    data = json.dumps({**PLACE, "max_tokens": 2}).encode()
    sized = raw("/v1/completions", {**PLACE, "max_tokens": 2}, *OFFER)
    head = "\r\n".join(["POST /v1/completions HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked", *OFFER]).encode()
    request = head + b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if chunked else sized
    with connected(server) as connection:
        for _ in range(2):  # the connection is used again
            for part in (request[:-40], request[-40:]) if apart else (request,):
                connection.sendall(part)
                time.sleep(0.02)
            answer = b""
            while b"tabsmith" not in answer.partition(b"\r\n\r\n")[2]:
                answer += connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 "), answer
        connection.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_who_sends_requests_ahead_and_hangs_up_ends_the_one_that_runs() -> None:
    told = []

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            pass
        told.append(message)

    async def run() -> None:
        config = uvicorn.Config(waits, http=Connection, ws="none", log_level="critical", access_log=False, lifespan="off")
        config.load()
        server = await asyncio.get_running_loop().create_server(lambda: Connection(config, ServerState(), {}), "127.0.0.1", 0)
        _, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2)
        await asyncio.sleep(0.1)
        writer.close()
        for _ in range(100):
            await asyncio.sleep(0 if told else 0.02)
        server.close()

    asyncio.run(run())
    assert told


@pytest.mark.parametrize("sent", [b"\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n"], ids=["breaks", "body"])
def test_a_connection_on_which_nothing_is_asked_is_not_kept(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.3)

    async def keeps(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def run() -> bool:
        more = {"timeout_keep_alive": 0.3, "log_level": "critical", "access_log": False, "lifespan": "off"}
        config = uvicorn.Config(keeps, http=Connection, ws="none", **more)  # type: ignore[arg-type]
        config.load()
        server = await asyncio.get_running_loop().create_server(lambda: Connection(config, ServerState(), {}), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
        for _ in range(40):
            with contextlib.suppress(ConnectionError):
                writer.write(sent)
                await asyncio.sleep(0.05)
            if reader.at_eof() or reader.exception() or writer.is_closing():
                break
        server.close()
        return reader.at_eof() or reader.exception() is not None or writer.is_closing()

    assert asyncio.run(run())


def test_there_is_an_end_to_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 2)
    whole = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    answers = talk(says_ok, b"GET", b"GET", whole)
    assert answers[2].startswith(b"HTTP/1.1 503 ") and b"Retry-After: 1" in answers[2]


def test_who_takes_nothing_of_a_long_stream_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "WRITE_SECONDS", 0.2)

    async def long() -> AsyncGenerator[bytes, None]:
        for _ in range(300):
            yield b"x" * 100_000

    async def run() -> tuple[bool, int]:
        made = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            pump = streams.Pump(long())
            pump.task.add_done_callback(lambda _: made.set())
            await streams.EventStream(pump, {})(scope, receive, send)

        config = uvicorn.Config(app, http=Connection, ws="none", log_level="critical", access_log=False, lifespan="off")
        config.load()
        state = ServerState()
        server = await asyncio.get_running_loop().create_server(lambda: Connection(config, state, {}), "127.0.0.1", 0)
        with socket.create_connection(("127.0.0.1", server.sockets[0].getsockname()[1])) as deaf:
            deaf.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await asyncio.wait_for(made.wait(), 2)  # the answer is made, whoever reads it
            open_then = len(state.connections)
            for _ in range(40):
                await asyncio.sleep(0.05)
                if not state.connections:
                    break
            server.close()
            return open_then == 1, len(state.connections)

    assert asyncio.run(run()) == (True, 0)


def test_a_client_that_dismisses_five_times_in_a_row_is_left_alone_for_a_moment(server: Running) -> None:
    place = {**PLACE, "manual": False, "user": "tired", "max_tokens": 1}
    report = {"event": "dismissed", "user": "tired"}
    assert post(server, "/v1/completions", place).status_code == 200
    for _ in range(8):
        assert post(server, "/v1/events", report).status_code == 202
    declined = post(server, "/v1/completions", {**place, "prompt": place["prompt"] + " * "})
    assert (declined.status_code, declined.headers["X-Tabsmith-Reason"]) == (204, "dismissed")
    assert post(server, "/v1/events", {**report, "event": "accepted"}).status_code == 202
    assert post(server, "/v1/completions", {**place, "prompt": place["prompt"] + " * "}).status_code == 200
