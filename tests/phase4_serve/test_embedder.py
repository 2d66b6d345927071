"""A service for vectors may be slow, broken, gone or hostile: retrieval goes on without it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import InputError
from phase4_serve import knowledge
from phase4_serve.embedder import PATIENCE, Embedder, Failed
from phase4_serve.index import Index, put_all
from phase4_serve.params import ServeParams
from phase4_serve.vectors import of_model
from phase4_serve.workspace import Source
from tests.phase4_serve.conftest import CANARY, wait_until


def vector_of(text: str, length: int = 400) -> list[float]:
    """Counts of words by a fixed hash: texts that share words are near."""
    found = np.zeros(length)
    for word in text.replace("(", " ").replace(")", " ").split():
        found[sum(map(ord, word)) % length] += 1
    return (found + 0.01).tolist()


def openai(asked: dict[str, Any]) -> Any:
    return {"data": [{"index": at, "embedding": vector_of(text)} for at, text in enumerate(asked["input"])][::-1]}


class Service:
    """A real HTTP server whose answer a test may change."""

    def __init__(self) -> None:
        self.answer: Callable[[dict[str, Any]], Any] = openai
        self.status, self.delay, self.headers = 200, 0.0, dict[str, str]()
        self.asked: list[dict[str, Any]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.asked.append({**asked, "path": self.path, "key": self.headers.get("Authorization")})
                time.sleep(service.delay)
                answer = service.answer(asked)
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(service.status)
                for name, value in {"Content-Length": str(len(data)), **service.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def service() -> Iterator[Service]:
    found = Service()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.mark.parametrize(
    "url", ["", "localhost:80", "file:///etc/passwd", "ftp://x/v1", "http://", "http://me:pass@host/v1", "http://h/v1?key=1"]
)
def test_what_is_no_url_is_one_clear_line(url: str) -> None:
    with pytest.raises(InputError, match=r"serve\.embedder"):
        Embedder(url)


def test_texts_are_asked_in_batches_and_come_back_in_order(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TABSMITH_EMBEDDER_KEY", "open-sesame")
    embedder = Embedder(f"{service.url}/#some-model")
    texts = [f"word{n} text{n}" for n in range(40)]
    found = embedder.embed(texts)
    assert found.shape == (40, 256) and np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert [len(asked["input"]) for asked in service.asked] == [16, 16, 8]
    assert {(a["path"], a["model"], a["key"]) for a in service.asked} == {("/v1/embeddings", "some-model", "Bearer open-sesame")}
    assert np.argmax(found @ embedder.embed([texts[7]])[0]) == 7 and embedder.healthy
    assert not np.allclose(found[0], found[1]) and np.allclose(found[39], Embedder(service.url).embed([texts[39]])[0])


WRONG: list[tuple[str, Any]] = [
    ("no JSON", b"<html>"), ("empty", b""), ("null", None), ("a list", []), ("no data", {}), ("fewer", {"data": []}),
    ("text", {"data": "x"}),
    ("other lengths", {"data": [{"embedding": [1.0]}, {"embedding": [1.0, 2.0]}]}), ("words", {"data": [{"embedding": ["a"]}] * 2}),
    ("not finite", b'{"data": [{"embedding": [NaN, 1]}, {"embedding": [Infinity, 1]}]}'), ("scalars", {"data": [{"embedding": 1}] * 2}),
    ("nothing in it", {"data": [{"embedding": []}] * 2}), ("deep", b"[" * 100_000),
    ("too long", {"data": [{"embedding": [1.0] * 20_000}] * 2}),
]  # fmt: skip


@pytest.mark.parametrize("wrong", [answer for _, answer in WRONG], ids=[name for name, _ in WRONG])
def test_an_answer_that_is_none_is_a_failure_that_says_nothing_of_it(service: Service, wrong: Any) -> None:
    embedder = Embedder(service.url)
    service.answer = lambda asked: wrong
    with pytest.raises(Failed) as failed:
        embedder.embed(["one", "two"])
    assert len(str(failed.value)) < 40 and not embedder.healthy and embedder.rests > 0
    asked = len(service.asked)
    assert embedder.query("three") is None and not embedder.check() and len(service.asked) == asked, "it rests"


@pytest.mark.parametrize("status", [301, 307, 401, 404, 429, 500, 503])
def test_a_refusal_or_a_redirect_is_a_failure(service: Service, status: int) -> None:
    service.status, service.headers = status, {"Location": f"{service.url}/elsewhere"}
    with pytest.raises(Failed):
        Embedder(service.url).embed(["one"])
    assert [asked["path"] for asked in service.asked] == ["/v1/embeddings"]


def test_nobody_there_is_a_failure(service: Service) -> None:
    service.server.shutdown()
    service.server.server_close()
    assert not Embedder(service.url).check()


def test_a_question_waits_no_longer_than_it_may_and_the_answer_is_kept(service: Service) -> None:
    embedder = Embedder(service.url)
    assert embedder.query("before the first answer") is None
    embedder.embed(["warm"])
    service.delay = 0.3
    times = []
    for number in range(4):
        started = time.perf_counter()
        assert embedder.query(f"slow {number}") is None
        times.append(time.perf_counter() - started)
    assert max(times) < PATIENCE + 0.1
    wait_until(lambda: embedder.query("slow 0") is not None)
    assert len(service.asked) <= 4, "questions do not pile up"


def test_another_model_behind_the_same_url_is_noticed(service: Service) -> None:
    embedder = Embedder(service.url)
    embedder.embed(["one"])
    service.answer = lambda asked: {"data": [{"embedding": [1.0] * 7} for _ in asked["input"]]}
    with pytest.raises(Failed):
        embedder.embed(["one"])


def test_no_secret_leaves_with_a_question(service: Service) -> None:
    embedder = Embedder(service.url)
    embedder.embed(["one"])
    embedder.query(f"TOKEN = '{CANARY}'\nconnect(TOKEN)")
    wait_until(lambda: len(service.asked) == 2)
    assert CANARY not in json.dumps(service.asked) and "connect" in json.dumps(service.asked)


def test_likeness_falls_back_to_our_own_vectors_and_comes_back(service: Service, tiny: Path) -> None:
    embedder = Embedder(service.url)
    index = Index(24, "hybrid", of_model(tiny), embedder)
    texts = {"a.py": "def triangle_area(base, height): pass\n", "b.py": "def parse_header(raw): pass\n", "c.py": "def other(): pass\n"}
    put_all(index, [Source(path, "python", text) for path, text in texts.items()])
    assert index.like("def triangle_area ( base", 1)[0].piece.path == "a.py" and not service.asked, "it has seen nothing yet"
    while index.embed_next():
        pass
    assert index.unseen == 0 and len(service.asked) == 3
    wait_until(lambda: index.like("parse_header raw", 1)[0].piece.path == "b.py" and len(service.asked) >= 4)
    service.status = 500
    assert index.like("height triangle_area base,", 1)[0].piece.path == "a.py"
    wait_until(lambda: not embedder.healthy)
    index.put(Source("d.py", "python", "def fresh(): pass\n"))
    index.commit()
    with pytest.raises(Failed):
        index.embed_next()
    assert index.unseen == 1
    service.status, embedder._rests_until = 200, 0.0
    assert index.embed_next() and index.unseen == 0 and embedder.healthy


def test_nothing_is_asked_unless_it_is_set(params: ServeParams, workspace: Path, tiny: Path) -> None:
    known = knowledge.of(workspace, params, tiny)
    assert known is not None and known.index.service is None and known.model is None
    with pytest.raises(InputError, match=r"serve\.embedder"):
        knowledge.of(workspace, params.model_copy(update={"embedder": "nonsense"}), tiny)
