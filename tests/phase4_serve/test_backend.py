"""llama-server's answers as they arrive, and the vocabulary in this process: exactly what llama-server says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path

import gguf
import pytest
from gguf import TokenType
from hypothesis import given, settings
from hypothesis import strategies as st

from core.fim import CONTROL
from phase4_serve import backend as module
from phase4_serve.backend import Aborted, Backend, BackendDown, BackendHangs, BackendRefused, Event, Stream
from phase4_serve.vocabulary import Asked, Vocabulary
from tests.phase4_serve.conftest import ROOT, Running

GREEDY = {"temperature": 0.0, "ignore_eos": True}
BASE = ROOT / "phase2_train" / "tiny_base" / "tokenizer.json"


@pytest.fixture(scope="module")
def merging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vocabulary]:
    """The vocabulary of the shipped base, which has merges, as a GGUF without weights."""
    tokenizer = json.loads(BASE.read_text())
    ids = {**tokenizer["model"]["vocab"], **{token["content"]: token["id"] for token in tokenizer["added_tokens"]}}
    tokens = sorted(ids, key=lambda token: ids[token])
    special = {token["content"] for token in tokenizer["added_tokens"]}
    path = tmp_path_factory.mktemp("vocabulary") / "v.gguf"
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in special else TokenType.NORMAL for token in tokens])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    vocabulary = Vocabulary(path)
    yield vocabulary
    vocabulary.close()


CODE = st.lists(
    st.sampled_from(["def f(x):\n", "    return x\n", "\n", "  \n", "\t", "    ", "\r\n", "\u2028", "\x0b", "\u00a0", "\x85", "é", "日本"])
    | st.sampled_from(["'s", "'LL", "😀", "!!\n", "}\n", "12345", " ", "\n ", "x = 'a'", "class A:", "# note\n", *CONTROL])
    | st.text(max_size=6)
).map("".join)  # fmt: skip


@given(CODE)
@settings(max_examples=400, deadline=None)
def test_lines_encoded_apart_are_the_text_encoded_whole(merging: Vocabulary, text: str) -> None:
    assert merging._cut is not None
    assert tuple(merging.ids(text)) == merging._encode(text)


@given(CODE.filter(lambda text: "<|" not in text))
@settings(max_examples=200, deadline=None)
def test_the_bytes_of_the_ids_are_the_text(merging: Vocabulary, text: str) -> None:
    assert b"".join(map(merging.piece, merging.ids(text))) == text.encode("utf-8", "replace")


def test_real_files_are_cut_where_no_token_lies_across(merging: Vocabulary) -> None:
    for path in sorted((ROOT / "phase4_serve").glob("*.py")):
        text = path.read_text()
        assert tuple(merging.ids(text)) == merging._encode(text)


def test_a_control_token_written_in_the_text_stays_text(merging: Vocabulary) -> None:
    for control in CONTROL:
        ids = merging.ids(f"x = '{control}'")
        assert merging._api.llama_vocab_n_tokens(merging._vocab) == merging.n_vocab
        assert b"".join(map(merging.piece, ids)) == f"x = '{control}'".encode()


def test_a_token_that_is_none_is_refused(merging: Vocabulary) -> None:
    for token in (-1, merging.n_vocab):
        with pytest.raises(ValueError, match="token"):
            merging.piece(token)


def test_a_file_that_is_no_model_has_no_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(RuntimeError):
        Vocabulary(tmp_path / "x.gguf")


def test_llama_server_is_asked_where_the_binding_fails(server: Running, tiny: Path) -> None:
    own, asked, text = Vocabulary(tiny), Asked(server.socket), "def f(é):\n    return '😀'\n"
    assert asked.ids(text) == own.ids(text) and asked.n_vocab == own.n_vocab
    assert [asked.piece(token) for token in own.ids("abc\n")] == [own.piece(token) for token in own.ids("abc\n")]


# ---- the wire

MESSAGES = [b'data: {"content":"a"}\n\n', b"data: " + b"x" * 5000 + b"\n\n", b":\n\n", b'data: {"stop":true}\n\n']
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"".join(b"%x\r\n%b\r\n" % (len(message), message) for message in MESSAGES)
    + b"0\r\n\r\n"
)
WHOLE = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 5\r\n\r\nabcde"


def read(pieces: list[bytes]) -> tuple[int, list[bytes]]:
    async def reading() -> tuple[int, list[bytes]]:
        stream, found = Stream(b""), []
        for piece in pieces:
            stream.data_received(piece)
        with contextlib.suppress(EOFError):
            while True:
                found.append(await stream.next(1))
        return stream.status, found

    return asyncio.run(reading())


@given(st.lists(st.integers(0, len(CHUNKED)), max_size=12))
@settings(max_examples=60, deadline=None)
def test_however_the_bytes_arrive_the_messages_are_the_same(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(CHUNKED)]
    assert read([CHUNKED[a:b] for a, b in pairwise(edges)]) == (200, MESSAGES)
    edges = [0, *sorted(cut % len(WHOLE) for cut in cuts), len(WHOLE)]
    assert read([WHOLE[a:b] for a, b in pairwise(edges)]) == (503, [b"abcde"])


@contextlib.asynccontextmanager
async def pretender(folder: Path, said: list[bytes], hold: float = 0.0) -> AsyncIterator[Backend]:
    """Somebody who listens where llama-server should, says something, and waits before hanging up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in said:
            writer.write(part)
            await writer.drain()
        await asyncio.sleep(hold)
        writer.close()

    async with await asyncio.start_unix_server(answer, str(folder / "p.sock")):
        yield Backend(folder / "p.sock")


async def collect(backend: Backend, ids: list[int], asked: dict[str, object]) -> list[Event]:
    return [event async for event in backend.complete(ids, asked)]


@pytest.mark.parametrize(
    "said",
    [[], [b"nonsense\r\n\r\n"], [CHUNKED[:60]], [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"], [CHUNKED[:-5]], [WHOLE]],
    ids=["nothing", "no HTTP", "cut header", "no chunk", "cut stream", "unavailable"],
)
def test_an_answer_that_is_none_means_llama_server_is_down(tmp_path: Path, said: list[bytes]) -> None:
    async def ask() -> None:
        async with pretender(tmp_path, said) as backend:
            with pytest.raises((BackendDown, ValueError)):
                await collect(backend, [1], {})

    asyncio.run(ask())


def test_a_llama_server_that_says_nothing_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.05)

    async def ask() -> int:
        told: list[int] = []
        async with pretender(tmp_path, [CHUNKED[:70]], hold=1.0) as backend:
            backend.on_silence = lambda: told.append(1)
            with pytest.raises(BackendHangs):
                await collect(backend, [1], {})
        return len(told)

    assert asyncio.run(ask()) == 1


def test_nobody_there_is_llama_server_down(tmp_path: Path) -> None:
    with pytest.raises(BackendDown):
        asyncio.run(collect(Backend(tmp_path / "none.sock"), [1], {}))


# ---- the real llama-server


def test_events_carry_tokens_whose_bytes_are_the_content(server: Running, tiny: Path) -> None:
    backend = Backend(server.socket, tiny)
    for text in ("abc", "def f(x):\n    return", "é😀", "x" * 40):
        events = asyncio.run(collect(backend, backend.ids(text), {**GREEDY, "n_predict": 48, "n_probs": 1}))
        assert events[-1].stop and events[-1].stop_type == "limit" and events[-1].timings["predicted_n"] == 48
        for event in events:
            if event.content and "\ufffd" not in event.content:
                assert b"".join(map(backend.piece, event.tokens)) == event.content.encode()
            assert event.probability is None or 0 <= event.probability <= 1
        assert any(event.probability is not None for event in events)


def test_a_wrong_request_is_refused_and_the_next_is_answered(server: Running, tiny: Path) -> None:
    backend = Backend(server.socket, tiny)
    with pytest.raises(BackendRefused):
        asyncio.run(collect(backend, [1] * 5000, {"n_predict": 1}))  # longer than a slot
    with pytest.raises(BackendRefused):
        asyncio.run(collect(backend, [1], {"grammar": "root ::= ("}))
    assert asyncio.run(collect(backend, [1, 2, 3], {"n_predict": 1}))[-1].stop


def test_a_stream_that_is_aborted_by_another_task_says_so(server: Running, tiny: Path) -> None:
    async def ask() -> bool:
        backend = Backend(server.socket, tiny)
        answer = await backend.open([1, 2, 3], {**GREEDY, "n_predict": 500})
        await answer.next()
        asyncio.get_running_loop().call_soon(answer.abort)
        with contextlib.suppress(Aborted):
            while not (await answer.next()).stop:
                pass
            raise AssertionError("it was not aborted")
        for _ in range(100):
            if all([await backend.is_idle(slot) for slot in range(3)]):
                return True
            await asyncio.sleep(0.01)
        return False

    assert asyncio.run(ask())


def test_ids_may_be_asked_from_several_threads(tiny: Path, server: Running) -> None:
    backend, found = Backend(server.socket, tiny), []
    texts = [f"def f{n}(x):\n    return {n}\n" * 20 for n in range(20)]
    threads = [threading.Thread(target=lambda: found.append([backend.ids(text) for text in texts])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(ids == found[0] for ids in found)


def test_a_vocabulary_that_is_closed_while_others_read_it_is_freed_behind_them(tiny: Path) -> None:
    vocabulary = Vocabulary(tiny)
    known = vocabulary.pieces()
    ended: list[str] = []

    def read() -> None:
        try:
            for number in range(100_000):
                assert vocabulary._piece(number % len(known)) == known[number % len(known)]
                vocabulary._encode(f"value_{number} = {number}")
        except RuntimeError as error:
            ended.append(str(error))

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    time.sleep(0.05)
    vocabulary.close()
    vocabulary.close()
    for reader in readers:
        reader.join()
    assert ended == ["the vocabulary is closed"] * 4 and vocabulary._model is None and vocabulary.pieces() == []
