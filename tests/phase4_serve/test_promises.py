"""What the server promises about holding up and keeping secrets, one group of tests per promise, over HTTP and with the real llama-server.

1 cancelled when the client is gone      8 honest while loading           15 whole characters in every event
2 a cancel harms nobody else             9 a key where others can reach   16 the same question, the same answer
3 the newest request wins               10 no web page may ask            17 completions end
4 overload is bounded                   11 no path leads out              18 damaged state is not served
5 chat does not slow typing             12 the index stays inside         19 another model without a failed request
6 deadlines                             13 control tokens in text         20 no network
7 a crash is survived                   14 malformed input
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import pytest
from gguf import GGUFReader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import ByteLevel

from core.fim import CONTROL, END
from phase4_serve.openapi import OPERATIONS
from tests.phase4_serve.conftest import (
    CANARY,
    HTTP,
    PARAMS,
    ROOT,
    Running,
    ask,
    connect,
    make_workspace,
    start,
    text_of,
    wait_until,
    write_gguf,
)

PREFIX, SUFFIX = "def area(r):\n    pi = 3\n    return pi", "\n\n\nprint(area(2))\n"
SOON = 0.3  # seconds until a closed connection has ended its generation
CANCELLED = 'tabsmith_requests_total{outcome="cancelled"}'
numbers = itertools.count()


def fresh(**more: Any) -> dict[str, Any]:
    """A place nobody asked about before, in a session of its own: nothing of it is in any cache."""
    number = f"{next(numbers):04}"
    lines = "".join(f"    total_{number}_{line} = {line} + 1\n" for line in range(6))
    return {
        "prompt": f"def work_{number}():\n{lines}    x = ",
        "suffix": f"\n\n\nwork_{number}()\n",
        "user": f"u{number}",
        "manual": True,
        **more,
    }


def idle(server: Running) -> bool:
    """Whether nothing runs, by llama-server's word and by ours."""
    return server.metric("tabsmith_running") == 0 and not any(slot["is_processing"] for slot in server.slots())


def core_waits(*processes: int) -> dict[tuple[int, str], float]:
    """Per thread the seconds that it was ready to run and no core was free: the kernel counts them. Empty where it does not."""
    found: dict[tuple[int, str], float] = {}
    for process in processes:
        for thread in Path(f"/proc/{process}/task").glob("*"):
            with contextlib.suppress(OSError, IndexError, ValueError):
                found[process, thread.name] = int((thread / "schedstat").read_text().split()[1]) / 1e9
    return found


class OwnTime:
    """How long something took without the time in which this machine gave its cores to others.

    A promise in milliseconds is about a machine that has a core for the server. Beside other tests it has none for whole tenths
    of a second. What the kernel counted for the thread of each process that waited longest is taken off, and nothing else.
    """

    def __init__(self, *processes: int) -> None:
        self.processes = (os.getpid(), *processes)
        self.waited = core_waits(*self.processes)
        self.began = time.monotonic()

    def seconds(self) -> float:
        """Until now."""
        took, now = time.monotonic() - self.began, core_waits(*self.processes)
        lost = dict.fromkeys(self.processes, 0.0)
        for (process, thread), waited in now.items():
            lost[process] = max(lost[process], waited - self.waited.get((process, thread), 0.0))
        return took - sum(lost.values())


def in_threads(calls: list[Callable[[], Any]]) -> list[Any]:
    """What calls return that are made at the same time."""
    found: list[Any] = [None] * len(calls)

    def one(number: int) -> None:
        found[number] = calls[number]()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@contextlib.contextmanager
def standing_still(server: Running) -> Iterator[None]:
    """llama-server answers nothing meanwhile: whoever comes waits as long as we like."""
    wait_until(lambda: idle(server))
    llama = server.llama()
    busy = []
    try:
        llama.suspend()
        busy = [connect(server, fresh(stream=True)) for _ in range(PARAMS.slots)]
        wait_until(lambda: server.metric("tabsmith_running") == PARAMS.slots)
        yield
    finally:
        llama.resume()
        for one in busy:
            one.close()
        wait_until(lambda: idle(server))


# --- 1: a client that closes ends its generation: while it streams, while its prompt is read, while it waits


def seconds_until_cancelled(server: Running, close: Callable[[], None], before: float) -> float:
    own = OwnTime(server.process.pid)
    close()
    wait_until(lambda: server.metric(CANCELLED) == before + 1, 5)
    return own.seconds()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("state", ["streaming", "prefilling"])
def test_1_a_closed_connection_ends_the_generation(sluggish: Running, state: str, stream: bool) -> None:
    for _ in range(2):
        wait_until(lambda: idle(sluggish))
        before = sluggish.metric(CANCELLED)
        one = connect(sluggish, fresh(stream=stream))
        if state == "streaming" and stream:
            while b"data:" not in one.recv(4096):
                pass
        else:
            wait_until(lambda: any(slot["is_processing"] for slot in sluggish.slots()))
            time.sleep(0.02 if state == "prefilling" else 0.4)
        assert seconds_until_cancelled(sluggish, one.close, before) <= SOON
        wait_until(lambda: not any(slot["is_processing"] for slot in sluggish.slots()), 1)


@pytest.mark.parametrize("stream", [True, False])
def test_1_a_closed_connection_ends_the_wait_for_a_slot(sluggish: Running, stream: bool) -> None:
    for _ in range(2):
        with standing_still(sluggish):
            before = sluggish.metric(CANCELLED)
            one = connect(sluggish, fresh(stream=stream))
            wait_until(lambda: sluggish.metric("tabsmith_running") == PARAMS.slots + 1)
            assert seconds_until_cancelled(sluggish, one.close, before) <= SOON


# --- 2: a cancel never touches another's generation


def test_2_a_cancel_leaves_the_answers_of_others_as_they_are(sluggish: Running) -> None:
    wait_until(lambda: idle(sluggish))
    body = fresh(max_tokens=120)
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(ask(sluggish, **body)))
    asking.start()
    wait_until(lambda: any(slot["is_processing"] for slot in sluggish.slots()))
    for stream in (False, True):
        before = sluggish.metric(CANCELLED)
        waiting = connect(sluggish, fresh(stream=stream))
        wait_until(lambda: sluggish.metric("tabsmith_running") == 2)
        waiting.close()
        wait_until(lambda before=before: sluggish.metric(CANCELLED) == before + 1)  # type: ignore[misc]
    assert asking.is_alive()
    asking.join()
    alone = ask(sluggish, **{**body, "user": "alone", "max_tokens": 121})
    assert text_of(answers[0]) == text_of(alone)[:120] and len(text_of(answers[0])) > 40


# --- 3: of thirty requests of one session the last is answered, and the others cost next to nothing


def processor_seconds(server: Running) -> float:
    return sum(server.llama().cpu_times()[:2])


def test_3_the_newest_request_of_a_session_wins(sluggish: Running) -> None:
    wait_until(lambda: idle(sluggish))
    before = processor_seconds(sluggish)
    body = fresh()
    text_of(ask(sluggish, **body))
    single = processor_seconds(sluggish) - before
    text = "compute_everything_at_once(first"[:30]
    body = fresh()

    wait_until(lambda: idle(sluggish))
    before = processor_seconds(sluggish)
    asked = []
    for number in range(len(text)):  # from one thread, so that they arrive in the order they were typed
        asked.append(connect(sluggish, {**body, "prompt": body["prompt"] + text[: number + 1]}))
        time.sleep(0.01)
    answers = [HTTPResponse(one) for one in asked]
    for answer in answers:
        answer.begin()
    statuses = [answer.status for answer in answers]
    last = json.loads(answers[-1].read())
    spent = processor_seconds(sluggish) - before
    for one in asked:
        one.close()
    assert statuses[-1] == 200 and last["choices"][0]["text"]
    assert set(statuses[:-1]) <= {204, 499}, statuses
    assert spent <= 2 * single + 0.3, f"{spent:.2f} s of llama-server for thirty keys, {single:.2f} s for one"


def test_3_the_overtaken_request_is_told_at_once(sluggish: Running) -> None:
    body = fresh()
    old = connect(sluggish, body)
    wait_until(lambda: sluggish.metric("tabsmith_running") == 1)
    asked = time.monotonic()
    new = connect(sluggish, {**body, "prompt": body["prompt"] + "f"})
    status = old.recv(4096).split()[1]
    took = time.monotonic() - asked
    assert status in (b"499", b"204") and took <= 3 * SOON
    for one in (old, new):
        one.close()


# --- 4: more than slots and queue hold is refused at once


def test_4_more_than_may_wait_are_told_to_come_back(sluggish: Running) -> None:
    health: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            own = OwnTime(sluggish.process.pid)
            assert HTTP.get(f"{sluggish.url}/health").status_code == 200
            health.append(own.seconds())

    def one() -> tuple[httpx.Response, float]:
        own = OwnTime(sluggish.process.pid)
        answer = ask(sluggish, **fresh(max_tokens=100))
        return answer, own.seconds()

    wait_until(lambda: idle(sluggish))
    watching = threading.Thread(target=watch)
    watching.start()
    found = in_threads([one] * 12)
    done.set()
    watching.join()
    refused = [(answer, seconds) for answer, seconds in found if answer.status_code == 429]
    room = PARAMS.slots + PARAMS.queue
    assert sorted(answer.status_code for answer, _ in found) == [200] * room + [429] * (12 - room)
    assert all(answer.headers["retry-after"] and answer.json()["error"]["type"] == "rate_limit_error" for answer, _ in refused)
    assert min(seconds for _, seconds in refused) < 0.05 and max(seconds for _, seconds in refused) < 1
    assert max(health) < 0.1, sorted(health)[-5:]
    assert not sluggish.metric("tabsmith_running")


# --- 5: chat makes way


def chat(server: Running, **more: Any) -> httpx.Response:
    asked = {"messages": [{"role": "user", "content": "what is a table?"}], "temperature": 0.0, "context": False, **more}
    return HTTP.post(f"{server.url}/v1/chat/completions", json=asked)


def first_text(server: Running, body: dict[str, Any]) -> float:
    """Seconds until a stream's first text."""
    started = time.monotonic()
    with HTTP.stream("POST", f"{server.url}/v1/completions", json={**body, "stream": True}) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {") and json.loads(line[6:])["choices"][0]["text"]:
                return time.monotonic() - started
    return time.monotonic() - started


def test_5_typing_beside_a_long_chat_is_as_quick_and_the_chat_is_whole(sluggish: Running) -> None:
    wait_until(lambda: idle(sluggish))
    alone = chat(sluggish, max_tokens=160)
    assert alone.status_code == 200, alone.text
    body = fresh(max_tokens=4)
    typed = [{**body, "prompt": body["prompt"] + "abcdefghijklmnop"[:n]} for n in range(1, 13)]
    quiet = [first_text(sluggish, one) for one in typed][1:]
    answers: list[httpx.Response] = []
    chatting = threading.Thread(target=lambda: answers.append(chat(sluggish, max_tokens=160, user="chat")))
    chatting.start()
    wait_until(lambda: any(slot["is_processing"] for slot in sluggish.slots()))
    other = fresh(max_tokens=4)
    beside = [first_text(sluggish, {**other, "prompt": other["prompt"] + "abcdefghijklmnop"[:n]}) for n in range(1, 13)][1:]
    still = chatting.is_alive()
    chatting.join()
    assert still, "the chat was over before it could be in the way"
    assert statistics.median(beside) < 2 * statistics.median(quiet) + 0.02, (beside, quiet)
    said, whole = (one.json()["choices"][0] for one in (answers[0], alone))
    assert said["message"]["content"] == whole["message"]["content"] and said["finish_reason"] == whole["finish_reason"]


# --- 6: nobody waits longer than it is worth


def test_6_a_file_of_one_huge_line_is_answered_within_the_deadline(sluggish: Running) -> None:
    wait_until(lambda: idle(sluggish))
    for manual in (True, False):
        started = time.monotonic()
        answer = ask(sluggish, prompt="x = [" + "1, " * 300_000, suffix="2, " * 300_000, user="huge", manual=manual, max_tokens=8)
        assert answer.status_code in (200, 204), answer.text[:200]
        assert time.monotonic() - started < PARAMS.deadline_ms / 1000 + 2


def test_6_what_was_not_started_in_time_is_given_up(sluggish: Running) -> None:
    sluggish.llama().suspend()
    try:
        busy = [connect(sluggish, fresh()) for _ in range(PARAMS.slots)]
        wait_until(lambda: sluggish.metric("tabsmith_running") == PARAMS.slots)
        started = time.monotonic()
        answer = ask(sluggish, **fresh(manual=False))
        took = time.monotonic() - started
    finally:
        sluggish.llama().resume()
    for one in busy:
        one.close()
    assert answer.status_code in (204, 503), answer.text
    assert answer.status_code == 204 or answer.json()["error"]["code"] == "deadline"
    assert PARAMS.deadline_ms / 1000 * 0.8 <= took <= PARAMS.deadline_ms / 1000 + 1


def test_6_a_slow_reader_does_not_hold_a_slot(sluggish: Running) -> None:
    wait_until(lambda: idle(sluggish))
    slow = [connect(sluggish, fresh(stream=True), receive_bytes=1024) for _ in range(PARAMS.slots)]
    wait_until(lambda: sluggish.metric("tabsmith_running") == PARAMS.slots)
    for one in slow:
        one.recv(1)
    wait_until(lambda: idle(sluggish), 10)
    for one in slow:
        one.close()


# --- 7: llama-server is killed


def test_7_a_killed_llama_server_is_a_clean_error_and_comes_back(own_server: Running) -> None:
    killed = own_server.llama()
    killed.suspend()
    stream, whole = connect(own_server, fresh(stream=True)), connect(own_server, fresh())
    wait_until(lambda: own_server.metric("tabsmith_running") == 2)
    at = time.monotonic()
    killed.kill()
    for one in (stream, whole):
        answer = one.recv(8192)
        while b"error" not in answer and (more := one.recv(8192)):
            answer += more
        assert b"503" in answer.split(b"\r\n")[0] and b"retry-after" in answer.lower() and b"unavailable_error" in answer, answer
    assert time.monotonic() - at < 5
    wait_until(lambda: HTTP.get(f"{own_server.url}/health").json()["llama_server_deaths"] == 1, 5)
    wait_until(lambda: HTTP.get(f"{own_server.url}/ready").status_code == 200, 5)
    assert time.monotonic() - at < 5
    assert ask(own_server, **fresh()).status_code == 200


@pytest.mark.slow
def test_7_a_llama_server_that_keeps_dying_is_given_up(own_server: Running) -> None:
    for death in range(1, 6):
        own_server.llama().kill()
        if death < 5:
            wait_until(lambda death=death: HTTP.get(f"{own_server.url}/health").json()["llama_server_deaths"] == death)  # type: ignore[misc]
            wait_until(lambda: HTTP.get(f"{own_server.url}/ready").status_code == 200)
    assert own_server.process.wait(20) == 5
    last = (own_server.folder / "log").read_text().splitlines()[-1]
    assert "died 5 times" in last and "Traceback" not in last


# --- 8: honest while loading


def test_8_while_the_model_loads_it_says_so(tiny: Path, tmp_path: Path) -> None:
    real = shutil.which("llama-server", path=f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}") or next(
        str(path) for path in Path(sys.prefix).glob("lib/python*/site-packages/bin/llama-server")
    )
    gate = tmp_path / "gate"
    slow = tmp_path / "llama-server"
    slow.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && exec {real} --version\nwhile [ ! -e {gate} ]; do sleep 0.05; done\nexec {real} "$@"\n'
    )
    slow.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "params.yaml").write_text(f"profile: t\nt:\n  serve: {PARAMS.model_dump_json()}\n")
    command = [sys.executable, "-m", "phase4_serve", "up", "--model", str(tiny), "--port", str(port)]
    environment = {**os.environ, "LLAMA_SERVER": str(slow), "XDG_CACHE_HOME": str(tmp_path / "c"), "XDG_STATE_HOME": str(tmp_path / "s")}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*command, "--params", str(tmp_path / "params.yaml")], stdout=log, stderr=log, cwd=ROOT, env=environment)
    url = f"http://127.0.0.1:{port}"

    def status(path: str) -> int:
        with contextlib.suppress(httpx.HTTPError):
            return HTTP.get(f"{url}{path}").status_code
        return 0

    try:
        wait_until(lambda: status("/health") == 200)
        refused = [HTTP.get(f"{url}/ready"), HTTP.post(f"{url}/v1/completions", json={"prompt": "a = "})]
        refused.append(HTTP.post(f"{url}/infill", json={"input_prefix": "a = ", "input_suffix": ""}))
        for answer in refused:
            assert answer.status_code == 503 and answer.headers["retry-after"], answer.text
            assert answer.json()["error"]["type"] == "unavailable_error"
        gate.touch()
        wait_until(lambda: status("/ready") == 200)
        assert HTTP.post(f"{url}/v1/completions", json={"prompt": "a = ", "manual": True}).status_code == 200
    finally:
        gate.touch()
        process.terminate()
        process.wait(20)


# --- 9: a key


KEY = "k" + "3y-" + "Zq8vT5nWb2XcJ7mRf4LsPd9H"


def test_9_other_machines_need_a_key_and_a_page_of_the_manual_is_not_one(tiny: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "phase4_serve", "up", "--model", str(tiny), "--port", "0", "--host", "0.0.0.0"]
    environment = {name: value for name, value in os.environ.items() if name != "TABSMITH_API_KEY"}
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60)
    assert ended.returncode == 2 and "TABSMITH_API_KEY" in ended.stderr.splitlines()[-1] and "Traceback" not in ended.stderr


@pytest.fixture(scope="module")
def locked(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that asks for a key."""
    folder = tmp_path_factory.mktemp("k")
    running = start(tiny, folder, make_workspace(folder / "myrepo"), environment={"TABSMITH_API_KEY": KEY})
    yield running
    running.stop()


def test_9_only_who_knows_the_key_is_answered(locked: Running) -> None:
    right = [{"Authorization": f"Bearer {KEY}"}, {"X-Api-Key": KEY}, {"Authorization": f"bearer {KEY}"}]
    wrong = [{}, {"Authorization": f"Bearer {KEY}x"}, {"Authorization": KEY}, {"X-Api-Key": KEY[:-1]}, {"Authorization": "Bearer none"}]
    assert [ask(locked, headers=headers, prompt="a = ").status_code for headers in right] == [200] * 3
    for headers in wrong:
        for answer in (ask(locked, headers=headers, prompt="a = "), HTTP.get(f"{locked.url}/metrics", headers=headers)):
            assert answer.status_code == 401 and answer.json()["error"]["type"] == "authentication_error"
    assert HTTP.get(f"{locked.url}/health").status_code == HTTP.get(f"{locked.url}/ready").status_code == 200


def test_9_the_key_is_nowhere_to_be_read(locked: Running) -> None:
    given = {"Authorization": f"Bearer {KEY}"}
    shown = [HTTP.get(f"{locked.url}{path}", headers=given).text for path in ("/metrics", "/health", "/openapi.json", "/v1/models")]
    shown += [path.read_bytes().decode("latin-1") for path in locked.folder.rglob("*") if path.is_file()]
    llama = locked.llama()
    shown += [str(llama.cmdline()), str(llama.environ()), str(locked.process.args)]
    assert not [text for text in shown if KEY in text]


# --- 10: pages in a browser


HOSTS = [
    "evil.example",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "[::1].evil.example",
    "evil.example:8080",
    "",
    "localhost@evil.example",
]
ORIGINS = [
    "https://evil.example",
    "null",
    "http://127.0.0.1.evil.example",
    "http://localhost.evil.example:3000",
    "https://[::1].evil.example",
]


@pytest.mark.parametrize("headers", [*({"Host": host} for host in HOSTS), *({"Origin": origin} for origin in ORIGINS)], ids=str)
def test_10_a_web_page_is_refused_everywhere(server: Running, headers: dict[str, str]) -> None:
    for method, path in (("POST", "/v1/completions"), ("POST", "/infill"), ("GET", "/metrics"), ("GET", "/health"), ("POST", "/v1/events")):
        answer = HTTP.request(method, f"{server.url}{path}", json={"prompt": "a"} if method == "POST" else None, headers=headers)
        assert answer.status_code in (400, 403) and answer.json()["error"]["type"] in ("permission_error", "invalid_request_error")


def test_10_no_page_may_read_an_answer(server: Running) -> None:
    for origin in ("https://evil.example", "http://localhost:3000"):
        for method in ("OPTIONS", "GET", "POST"):
            given = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            answer = HTTP.request(method, f"{server.url}/v1/completions", headers=given)
            assert not [name for name in answer.headers if name.startswith("access-control")]


# --- 11: paths


LEADS_OUT = [
    "../outside/far.py", "{outside}/far.py", "link/far.py", "link.py", "myrepo/../../outside/far.py", "file://{outside}/far.py",
    "file:///..%2f..%2foutside/far.py", "..%2foutside/far.py", "%2e%2e/outside/far.py", "..\\outside\\far.py", "a\0/../../outside/far.py",
    "..\u2215outside\u2215far.py", "\uff0e\uff0e/outside/far.py", "/proc/self/environ", "~/far.py", "C:\\outside\\far.py", "/", "..", ".",
    "\u202e/far.py", "x" * 5000,
]  # fmt: skip
FAR = "reach_far_outside"


@pytest.fixture(scope="module")
def fenced(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server on a workspace full of things that are none of its business."""
    folder = tmp_path_factory.mktemp("w")
    root, outside = make_workspace(folder / "myrepo"), folder / "outside"
    outside.mkdir()
    (outside / "far.py").write_text(f"def {FAR}(body):\n    return body.{FAR}_again\n")
    (root / "link").symlink_to(outside)
    (root / "link.py").symlink_to(outside / "far.py")
    (root / "etc").symlink_to("/etc")
    for name, canary in SECRETS.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(canary)
    (root / "binary.py").write_bytes(b"binary_canary = 1\0\xff" * 99)
    with (root / "sparse.py").open("wb") as sparse:
        sparse.write(b"sparse_canary = 1\n")
        sparse.truncate(2 * 2**30)
    (root / ".gitignore").write_text("ignored/\n*.log.py\n")
    (root / "minified.py").write_text("minified_canary = [" + "1," * 40_000 + "]\n")
    running = start(tiny, folder / "s", root)
    yield running
    running.stop()


AWS = "AK" + "IA" + "Z7QXW3VN5TRB2LKM"
SECRETS = {
    ".git/config": "[remote]\nurl = git_canary\n",
    ".git/hook.py": "git_canary = 1\n",
    ".env": f"AWS_KEY={AWS}\nenv_canary=1\n",
    "prod.env.py": f"KEY = '{AWS}'\n",
    "cloud.py": f"AWS_ACCESS_KEY_ID = '{AWS}'\n\n\ndef cloud_bucket(name):\n    return connect(AWS_ACCESS_KEY_ID, name)\n",
    "id_rsa.py": "rsa_canary = 1\n",
    "credentials.py": "credentials_canary = 1\n",
    "ignored/thing.py": "ignored_canary = 1\n",
    "some.log.py": "log_canary = 1\n",
    "node_modules/x/index.js": "function modules_canary() { return 1 }\n",
}
OUT_OF_BOUNDS = [
    FAR, AWS, CANARY, "git_canary", "env_canary", "rsa_canary", "credentials_canary", "ignored_canary", "log_canary", "modules_canary",
    "binary_canary", "sparse_canary", "minified_canary",
]  # fmt: skip


def everything_found(server: Running) -> str:
    """What a search shows for any of the names, and all that is said about the server."""
    asked = [*OUT_OF_BOUNDS, "root:x:0:0", "return body", "cloud_bucket connect"]
    found = [HTTP.post(f"{server.url}/v1/search", json={"query": query, "limit": 50}) for query in asked]
    assert all(answer.status_code == 200 for answer in found), found[0].text
    shown = [hit["text"] + hit["path"] for answer in found for hit in answer.json()["data"]]
    return "\n".join([*shown, HTTP.get(f"{server.url}/metrics").text, HTTP.get(f"{server.url}/health").text])


@pytest.mark.parametrize("path", LEADS_OUT, ids=lambda path: ascii(path)[:40])
def test_11_no_path_leads_out_of_the_workspace(fenced: Running, path: str) -> None:
    path = path.format(outside=fenced.folder.parent / "outside")
    extra = [{"filename": path, "text": "x = 1\n"}]
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/v1/completions", {"prompt": f"{FAR}(", "suffix": ")\n", "path": path, "max_tokens": 2}),
        ("/infill", {"input_prefix": "x = ", "input_suffix": "\n", "input_extra": extra, "path": path, "n_predict": 2}),
        ("/v1/search", {"query": FAR, "path": path}),
        ("/v1/events", {"event": "saved", "path": path}),
        ("/v1/events", {"event": "opened", "path": path, "prefix": "x = ", "suffix": ""}),
    ]
    for place, body in asked:
        answer = HTTP.post(f"{fenced.url}{place}", json={**body, "manual": True})
        assert answer.status_code in (200, 202, 204, 400), answer.text
        assert f"{FAR}_again" not in answer.text


def test_11_nothing_of_llama_servers_management_is_reachable(server: Running) -> None:
    for method, path in (
        ("GET", "/slots"), ("POST", "/slots/0?action=save"), ("POST", "/slots/0?action=restore"), ("GET", "/props"), ("POST", "/props"),
        ("POST", "/lora-adapters"), ("GET", "/lora-adapters"), ("POST", "/tokenize"), ("POST", "/detokenize"), ("POST", "/apply-template"),
        ("POST", "/models/load"), ("GET", "/v1/../slots"), ("GET", "//slots"), ("GET", "/v1/%2e%2e/slots"),
    ):  # fmt: skip
        answer = HTTP.request(method, f"{server.url}{path}", json={"filename": "../x"} if method == "POST" else None)
        assert answer.status_code in (404, 405) and "error" in answer.json(), (method, path, answer.text)


# --- 12: what may not be indexed is not


def test_12_nothing_secret_or_outside_is_in_the_index_or_shown(fenced: Running) -> None:
    wait_until(lambda: HTTP.get(f"{fenced.url}/health").json()["index"]["complete"])
    shown = everything_found(fenced) + (fenced.folder / "log").read_text()
    assert not [name for name in OUT_OF_BOUNDS if name in shown]
    assert "cloud_bucket" in shown  # the file itself is known


def ids_of(text: str) -> bytes:
    """The ids of a text in the tiny vocabulary, as llama-server keeps them."""
    alphabet = sorted(ByteLevel.alphabet())
    shown = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return b"".join(alphabet.index(character).to_bytes(4, "little") for part, _ in shown for character in part)


def test_12_secrets_reach_neither_prompt_nor_cache(tiny: Path, tmp_path: Path) -> None:
    """What llama-server has read is what a saved slot holds, so the files of a stopped server show every prompt."""
    root = make_workspace(tmp_path / "myrepo")
    (root / "cloud.py").write_text(SECRETS["cloud.py"])
    running = start(tiny, tmp_path / "s", root)
    own = f"TOKEN = '{AWS}'\n\n\ndef harmless_marker():\n    return cloud_bucket(connect, AWS_ACCESS_KEY_ID"
    extra = [{"filename": "other.py", "text": f"def elsewhere():\n    return '{CANARY}'\n"}]
    text_of(ask(running, prompt=own, suffix=f")\n\n\nSECRET = '{CANARY}'\n", path="own.py", user="a", max_tokens=2))
    asked = {
        "input_prefix": "def other_marker():\n",
        "prompt": "    return elsewhere(",
        "input_suffix": "",
        "input_extra": extra,
        "manual": True,
    }
    assert HTTP.post(f"{running.url}/infill", json={**asked, "n_predict": 2, "user": "b"}).status_code == 200
    assert running.stop() == 0
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(root)}
    everything = b"".join(files.values())
    assert ids_of("harmless_marker") in everything, "no slot was saved: this test looks at nothing"
    for canary in (AWS, CANARY):
        assert canary.encode() not in everything and ids_of(canary) not in everything


# --- 13: control tokens that stand in somebody's text


@pytest.mark.parametrize("marker", CONTROL)
def test_13_a_marker_in_the_text_is_text(sluggish: Running, marker: str) -> None:
    def tokens(text: str) -> int:
        body = fresh(max_tokens=1)
        body["prompt"] += f"'{text}' + "
        body["suffix"] = f" '{text}'\n"
        return int(ask(sluggish, **body).json()["usage"]["prompt_tokens"])

    plain = "".join("abcdefghijklmnopqrstuvwxyz"[i % 26] for i in range(len(marker)))
    assert tokens(marker) == tokens(plain)  # a character of ASCII is a token here; as a marker it would be one


# --- 14: malformed input


BAD: list[tuple[str, bytes, int]] = [
    ("not JSON", b"{", 400),
    ("nothing", b"", 400),
    ("a list", b"[1]", 400),
    ("nested", b"[" * 100_000, 400),
    ("a number for prompt", b'{"prompt": 5}', 400),
    ("no prompt", b"{}", 400),
    ("empty prompt", b'{"prompt": ""}', 400),
    ("two prompts", b'{"prompt": ["a", "b"]}', 400),
    ("token ids", b'{"prompt": [1, 2]}', 400),
    ("a hundred answers", b'{"prompt": "a", "n": 100}', 400),
    ("negative tokens", b'{"prompt": "a", "max_tokens": -5}', 400),
    ("hot", b'{"prompt": "a", "temperature": 99}', 400),
    ("no number", b'{"prompt": "a", "temperature": NaN}', 400),
    ("endless", b'{"prompt": "a", "temperature": 1e999}', 400),
    ("object for suffix", b'{"prompt": "a", "suffix": {}}', 400),
    ("too many stops", json.dumps({"prompt": "a", "stop": ["x"] * 99}).encode(), 400),
    ("ten megabytes", b'{"prompt": "' + b"a" * 10_000_000 + b'"}', 413),
    ("not UTF-8", b'{"prompt": "\xff\xfe"}', 400),
    ("lone surrogate", b'{"manual": true, "prompt": "x = \\ud800", "suffix": "\\udc00"}', 200),
    ("surrogate pair", b'{"manual": true, "prompt": "x = \'\\ud83d\\ude00"}', 200),
    ("marker in the code", b'{"manual": true, "prompt": "x = \'<|fim_middle|>\'", "suffix": "<|endoftext|>"}', 200),
    ("carriage returns", b'{"manual": true, "prompt": "a = 1\\r\\nb = \\r", "suffix": "\\n\\r\\nc = 2\\r\\n"}', 200),
    ("a zero byte", b'{"manual": true, "prompt": "a\\u0000b"}', 200),
    ("tabs", b'{"manual": true, "prompt": "if a:\\n\\t\\tb = ", "suffix": "\\n\\t"}', 200),
    ("one long line", b'{"manual": true, "prompt": "' + b"a" * 1_000_000 + b'", "suffix": "' + b"b" * 1_000_000 + b'"}', 200),
    ("cursor at the start", b'{"manual": true, "prompt": "", "suffix": "import os\\n"}', 200),
    ("4096 tokens", b'{"manual": true, "prompt": "a = ", "max_tokens": 4096}', 200),
]


@pytest.mark.parametrize(("body", "status"), [pytest.param(body, status, id=name) for name, body, status in BAD])
def test_14_whatever_is_sent_the_answer_is_proper_and_the_server_lives(server: Running, body: bytes, status: int) -> None:
    answer = HTTP.post(f"{server.url}/v1/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    if status == 200:
        assert isinstance(answer.json()["choices"][0]["text"], str)
        assert answer.json()["usage"]["completion_tokens"] <= PARAMS.most_generated
    else:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert HTTP.get(f"{server.url}/ready").status_code == 200


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
ODD = st.sampled_from(
    [*CONTROL, "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>", "\0", "a\0b", "\r", "\ud800", "\udc00x", "\ufeff", "../../etc/passwd",
     "file:///etc/passwd", "%2e%2e/a", "x" * 5000, "(" * 3000, "\n" * 3000, "a." + "p" * 300, -1, -2, 2**31, 2**64, 10**30, 1e308, 1e-320]
)  # fmt: skip
POSTED = [operation for operation in OPERATIONS if operation.body is not None]


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A path and what its description gives as an example, with anything in some of its fields."""
    operation = draw(st.sampled_from(POSTED))
    assert operation.body is not None
    changed = draw(st.dictionaries(st.sampled_from(sorted(operation.body.model_fields)), ANYTHING | ODD, max_size=4))
    short = {name: 1 for name in ("max_tokens", "n_predict") if name in operation.body.model_fields}
    return operation.path, {**(operation.example or {}), "manual": True, **short, **changed}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(asked=bodies())
def test_14_no_body_is_a_server_error(server: Running, asked: tuple[str, dict[str, Any]]) -> None:
    place, body = asked
    answer = HTTP.post(f"{server.url}{place}", content=json.dumps(body).encode(), headers={"content-type": "application/json"}, timeout=20)
    assert answer.status_code < 500, (place, body, answer.text)
    if answer.status_code >= 400 and answer.status_code != 499:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_14_a_body_without_length_is_bounded_too(server: Running) -> None:
    answer = HTTP.post(f"{server.url}/v1/completions", content=(b"a" * 500_000 for _ in range(20)))
    assert answer.status_code == 413


# --- 15: characters of several bytes


@pytest.mark.parametrize("number", range(8))
def test_15_every_event_holds_whole_characters_and_together_they_are_the_answer(server: Running, number: int) -> None:
    body = fresh(temperature=0.0 if number % 2 else 1.5, seed=number, max_tokens=24)
    body["prompt"] += "'\u6f22\u5b57 \U0001f600 \u00e9"
    raw = HTTP.post(f"{server.url}/v1/completions", json={**body, "stream": True}).content
    events = [json.loads(line[6:].decode("utf-8")) for line in raw.split(b"\n") if line.startswith(b"data: {")]
    pieces = [event["choices"][0]["text"] for event in events if event["choices"]]
    assert "".join(pieces).encode() and not any("\ud800" <= character <= "\udfff" for piece in pieces for character in piece)
    if number % 2:  # a cached prompt differs from a fresh one in last bits, which sampling may turn into another word
        assert "".join(pieces) == text_of(ask(server, **{**body, "user": "whole"}))


# --- 16: determinism


@pytest.mark.parametrize("number", range(4))
def test_16_the_same_question_has_the_same_answer(server: Running, number: int) -> None:
    body = fresh(max_tokens=20, temperature=0.0)
    body["prompt"] += "abcd"[number]
    answers = [text_of(ask(server, **{**body, "user": f"same {number}"})) for number in range(3)]
    assert len(set(answers)) == 1 and answers[0]


# --- 17: completions end by themselves


SERVED = ROOT / "phase3_quantize/out/quantize/model-q4_k_m.gguf"


@pytest.mark.slow
@pytest.mark.skipif(not SERVED.is_file(), reason="no model was quantized in this checkout")
def test_17_completions_of_the_served_model_end_by_themselves(tmp_path: Path) -> None:
    running = start(SERVED, tmp_path / "s", None, "--prefix-tokens", "240", "--ctx", "1024")
    try:
        ended = []
        texts = {path: path.read_text().splitlines(keepends=True) for path in sorted((ROOT / "core").glob("*.py"))}
        for path, lines in [(path, lines) for path, lines in texts.items() if len(lines) >= 60][:10]:
            for at in random.Random(path.name).sample(range(20, len(lines) - 20), 10):
                before, line = "".join(lines[:at]), lines[at]
                cut = len(line) // 2
                body = {"input_prefix": before, "prompt": line[:cut], "input_suffix": line[cut:] + "".join(lines[at + 1 :]), "manual": True}
                answer = HTTP.post(f"{running.url}/infill", json={**body, "path": path.name, "user": f"{path.name} {at}"})
                ended.append(answer.json()["stop_type"])
    finally:
        running.stop()
    assert len(ended) == 100 and sum(how in ("eos", "word") for how in ended) >= 60, {how: ended.count(how) for how in set(ended)}


@pytest.mark.skipif(not SERVED.is_file(), reason="no model was quantized in this checkout")
def test_17_the_served_file_knows_its_end_and_its_markers() -> None:
    reader = GGUFReader(SERVED)
    tokens = [bytes(reader.fields["tokenizer.ggml.tokens"].parts[i]).decode() for i in reader.fields["tokenizer.ggml.tokens"].data]
    types = [int(reader.fields["tokenizer.ggml.token_type"].parts[i][0]) for i in reader.fields["tokenizer.ggml.token_type"].data]
    end = int(reader.fields["tokenizer.ggml.eos_token_id"].parts[-1][0])
    assert tokens[end] == END
    assert all(tokens.count(marker) == 1 and types[tokens.index(marker)] == 3 for marker in CONTROL[:7])  # 3: CONTROL


# --- 18: damaged state


def test_18_state_that_is_damaged_is_made_again(tiny: Path, tmp_path: Path) -> None:
    root = make_workspace(tmp_path / "myrepo")
    body = fresh(max_tokens=12, path="own.py")
    running = start(tiny, tmp_path / "s", root)
    expected = text_of(ask(running, **body))
    found = HTTP.post(f"{running.url}/v1/search", json={"query": "parse_http_header"}).json()["data"]
    running.stop()
    kept = [path for path in (tmp_path / "s").rglob("*") if path.is_file() and path.name not in ("log", "params.yaml")]
    assert kept, "nothing was kept: this test damages nothing"
    damages = [lambda data: data[: len(data) // 2], lambda data: random.Random(1).randbytes(len(data)), lambda data: b""]
    for path, damage in zip(sorted(kept), itertools.cycle(damages), strict=False):
        path.write_bytes(damage(path.read_bytes()))
    running = start(tiny, tmp_path / "s", root)
    try:
        assert text_of(ask(running, **body)) == expected
        again = HTTP.post(f"{running.url}/v1/search", json={"query": "parse_http_header"}).json()["data"]
        assert [hit["path"] for hit in again] == [hit["path"] for hit in found]
    finally:
        assert running.stop() == 0


# --- 19: another model while people type


def test_19_another_model_takes_over_without_a_failed_request(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "model.gguf", seed=1, letters=True)
    other = write_gguf(tmp_path / "other.gguf", seed=2, letters=True)
    running = start(model, tmp_path / "s")
    answers: list[tuple[float, httpx.Response]] = []
    stop = threading.Event()

    def typing(name: str) -> None:
        while not stop.is_set():
            for typed in range(1, 20):
                asked = time.monotonic()
                answers.append((asked, ask(running, prompt="value = compute_all("[:typed], suffix="\n", user=name, max_tokens=12)))

    threads = [threading.Thread(target=typing, args=(f"typist {n}",)) for n in range(2)]

    def fingerprint() -> str:
        return str(HTTP.get(f"{running.url}/v1/models").json()["data"][0]["fingerprint"])

    try:
        before, old = fingerprint(), text_of(ask(running, prompt="value = compute_all(", suffix="\n", max_tokens=12, user="me"))
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        other.replace(model)
        wait_until(lambda: fingerprint() != before)
        swapped = time.monotonic()
        new = text_of(ask(running, prompt="value = compute_all(", suffix="\n", max_tokens=12, user="me"))
        time.sleep(0.7)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        running.stop()
    assert {answer.status_code for _, answer in answers} == {200}
    assert {answer.json()["system_fingerprint"] for asked, answer in answers if asked > swapped} == {fingerprint_of(answers)}
    assert before in {answer.json()["system_fingerprint"] for _, answer in answers} and new != old


def fingerprint_of(answers: list[tuple[float, httpx.Response]]) -> str:
    """That of the last answer."""
    return str(max(answers, key=lambda one: one[0])[1].json()["system_fingerprint"])


# --- 20: no network


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("unshare"), reason="needs a network namespace")
def test_20_everything_works_where_there_is_no_route(tiny: Path, tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode:
        pytest.skip("this system does not let users make network namespaces")
    root = make_workspace(tmp_path / "myrepo")
    script = Path(__file__).with_name("offline.py")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "c"), "XDG_STATE_HOME": str(tmp_path / "s"), "PYTHONPATH": str(ROOT)}
    command = ["unshare", "-rn", sys.executable, str(script), str(tiny), str(root), str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    seen = json.loads(ended.stdout.splitlines()[-1])
    assert seen["interfaces"] == ["lo"] and seen["statuses"] == [200] * len(seen["statuses"])
    assert seen["files"] == 3 and not seen["outside"]
