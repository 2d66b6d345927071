"""A model behind HTTP: llama-server, or any server that speaks OpenAI's completions.

In:  the address of a server; Prompts
Out: Written per prompt, in the order they are ready

llama-server gets token ids, so that no template and no other tokenizer comes between. Every slot is kept busy: twice as many requests
as slots are under way, so that a slot that is done finds the next one waiting, and the longest prompts go first, so that none is
left over at the end. How to run one fast: eval/llama_server.py.
"""

from __future__ import annotations

import http.client
import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from core.errors import AccessError, InputError
from core.fim import CONTROL
from eval.prompts import Prompt
from eval.words import Words, Written, written

TIMEOUT = 600.0  # seconds until an answer must be there
PLAIN_SLOTS = 8  # requests at a time to a server that does not say how many it takes
UNKNOWN_CONTEXT = 1 << 30  # such a server is not asked with a budget


class Address(NamedTuple):
    """Where a server listens: a Unix socket, or a host and port."""

    url: str
    path: Path | None = None

    def connect(self) -> http.client.HTTPConnection:
        """A connection, not opened yet."""
        if self.path is not None:
            return _UnixConnection(self.path)
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.hostname or "", parts.port, timeout=TIMEOUT)

    @property
    def root(self) -> str:
        """What stands before the path of every request."""
        return urlsplit(self.url).path.rstrip("/").removesuffix("/v1") if self.path is None else ""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("llama", timeout=TIMEOUT)
        self.at = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(str(self.at))


class Line:
    """One kept-alive connection; a server may close it between two requests, so each is tried once more on a fresh one."""

    def __init__(self, address: Address) -> None:
        self.address, self.connection = address, address.connect()

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        """Status and JSON (None where it is none).

        Raises:
            AccessError: nobody answers.
        """
        for attempt in (0, 1):
            try:
                self.connection.request(method, self.address.root + path, body, {"Content-Type": "application/json"} if body else {})
                response = self.connection.getresponse()
                data = response.read()
                break
            except (http.client.HTTPException, OSError) as error:
                self.connection.close()
                if attempt or isinstance(error, TimeoutError):
                    raise AccessError(f"{self.address.url} does not answer ({error or type(error).__name__}): is the server up?") from None
        try:
            return response.status, json.loads(data)
        except ValueError:
            return response.status, None


def request(address: Address, method: str, path: str, value: object = None) -> tuple[int, Any]:
    """One request on a connection of its own."""
    line = Line(address)
    try:
        return line.ask(method, path, None if value is None else json.dumps(value).encode())
    finally:
        line.connection.close()


# --- what a server says


class Kind(NamedTuple):
    """What kind of server it is, and what its answers depend on."""

    slots: int
    context: int  # tokens a slot holds
    model: str
    identity: dict[str, Any]
    llama: bool  # takes token ids at /completion
    ours: bool = False  # knows `manual`


def look(address: Address) -> Kind:
    """Ask a server what it is.

    Raises:
        AccessError: it does not answer, or is neither llama-server nor speaks OpenAI's completions.
    """
    status, said = request(address, "GET", "/props")
    if status == 200 and isinstance(said, dict) and "total_slots" in said:
        settings = said.get("default_generation_settings", {})
        build = {key: said.get(key) for key in ("model_path", "build_info", "total_slots")}
        return Kind(int(said["total_slots"]), int(settings.get("n_ctx", 0)), str(said.get("model_path", "")), build, True)
    status, said = request(address, "GET", "/v1/models")
    names = [one.get("id") for one in said.get("data", [])] if status == 200 and isinstance(said, dict) else []
    if not names:
        raise AccessError(f"{address.url} is no llama-server and lists no models at /v1/models: check the URL")
    return Kind(
        PLAIN_SLOTS,
        UNKNOWN_CONTEXT,
        str(names[0]),
        {"url": address.url, "model": names[0]},
        False,
        said["data"][0].get("owned_by") == "tabsmith",
    )


def words_of_server(address: Address, kind: Kind) -> Words:
    """The vocabulary of a llama-server, asked over HTTP.

    Raises:
        InputError: its model has no markers of core.fim.
        AccessError: it does not tokenize.
    """
    line, lock = Line(address), threading.Lock()

    def post(path: str, value: object, key: str) -> Any:
        with lock:
            status, said = line.ask("POST", path, json.dumps(value).encode())
        if status != 200 or not isinstance(said, dict) or key not in said:
            raise AccessError(f"{address.url}{path} says {status}: is it a llama-server of this year?")
        return said[key]

    def encode(text: str, special: bool = False) -> list[int]:
        value = {"content": text, "add_special": False, "parse_special": special}
        return [int(token) for token in post("/tokenize", value, "tokens")] if text else []

    def id_of(text: str) -> int | None:
        ids = encode(text, special=True)
        return ids[0] if len(ids) == 1 and text in CONTROL and ids != encode(text) else None

    def decode(ids: Sequence[int]) -> str:
        return str(post("/detokenize", {"tokens": list(ids)}, "content")) if ids else ""

    return Words.of(encode, id_of, address.url, decode, kind.context)


# --- asking


def longest_first(prompts: Sequence[Prompt]) -> list[int]:
    """Indices in the order they are asked."""
    return sorted(range(len(prompts)), key=lambda i: (-len(prompts[i].ids), -len(prompts[i].hole.prefix), i))


def ask_llama(
    addresses: Sequence[Address], kind: Kind, words: Words, prompts: Sequence[Prompt], limit: int
) -> Iterator[tuple[int, Written]]:
    """Greedy completions of llama-servers alike; nothing of an earlier prompt is used again, so no row depends on the one before."""

    def body(at: int) -> dict[str, Any]:
        return {
            "prompt": prompts[at].ids,
            "n_predict": limit,
            "temperature": 0,
            "samplers": ["top_k"],
            "top_k": 1,
            "cache_prompt": False,
            "return_tokens": True,
            "response_fields": ["tokens", "stop_type"],
        }

    def taken(said: dict[str, Any]) -> Written:
        return written(said["tokens"], words, said.get("stop_type") == "eos")

    return _in_flight(addresses, "/completion", body, taken, longest_first(prompts), 2 * kind.slots)


def ask_openai(address: Address, kind: Kind, prompts: Sequence[Prompt], limit: int) -> Iterator[tuple[int, Written]]:
    """Completions of a server that takes text before and after the cursor and composes the prompt itself."""

    def body(at: int) -> dict[str, Any]:
        hole = prompts[at].hole
        asked = {"model": kind.model, "prompt": hole.prefix, "suffix": hole.suffix, "max_tokens": limit, "temperature": 0}
        # Each hole is a place of its own, not a newer request for the last; and it is asked for, whatever a trigger says
        return {**asked, "user": f"hole-{at}", **({"manual": True} if kind.ours else {})}

    def taken(said: dict[str, Any]) -> Written:
        choice = said["choices"][0]
        count = (said.get("usage") or {}).get("completion_tokens") or 0
        return Written(str(choice["text"]), int(count), "limit" if choice.get("finish_reason") == "length" else "end")

    return _in_flight([address], "/v1/completions", body, taken, longest_first(prompts), kind.slots)


Result = tuple[int, Written] | Exception


def _in_flight(
    addresses: Sequence[Address], path: str, body: Callable[[int], dict], taken: Callable[[dict], Written], order: list[int], many: int
) -> Iterator[tuple[int, Written]]:
    """Ask for all of `order`, `many` at a time of each server, each thread on a connection of its own."""
    waiting, ready, stop = iter(order), queue.SimpleQueue[Result](), threading.Event()
    lock = threading.Lock()

    def work(address: Address) -> None:
        line = Line(address)
        while not stop.is_set():
            with lock:
                at = next(waiting, None)
            if at is None:
                break
            try:
                status, said = line.ask("POST", path, json.dumps(body(at)).encode())
                if status != 200:
                    raise _refused(address, status, said)
                ready.put((at, taken(said)))
            except (KeyError, TypeError, IndexError, AttributeError):
                ready.put(AccessError(f"{address.url}{path} answers in a form that is not understood: is it a server for completions?"))
            except Exception as error:  # noqa: BLE001  raised again where the answers are read
                ready.put(error)
        line.connection.close()

    places = [address for _ in range(many) for address in addresses][: len(order)]
    threads = [threading.Thread(target=work, args=(address,), daemon=True) for address in places]
    for thread in threads:
        thread.start()
    try:
        for _ in order:
            found = ready.get()
            if isinstance(found, Exception):
                raise found
            yield found
    finally:
        stop.set()


def _refused(address: Address, status: int, said: Any) -> Exception:
    error = said.get("error") if isinstance(said, dict) else None
    why = str(error.get("message", "") if isinstance(error, dict) else error or "")[:200]
    if "context" in why:
        return InputError(f"{address.url}: a prompt is longer than its slots ({why}): start it with a larger --ctx-size, or lower --limit")
    return AccessError(f"{address.url} refuses with {status} {why}".rstrip() + ": look into the server's log")
