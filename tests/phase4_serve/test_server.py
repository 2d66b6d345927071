"""The server as clients and users meet it: real llama-server, real processes, the real OpenAI client."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from typer.testing import CliRunner

from phase4_serve.cli import app
from tests.phase4_serve.conftest import CANARY, HTTP, ROOT, Running, wait_until

PREFIX, SUFFIX = "def area(r):\n    pi = 3\n    return pi", "\n\n\nprint(area(2))\n"


@pytest.fixture(scope="module")
def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def complete(server: Running, **body: Any) -> httpx.Response:
    return HTTP.post(f"{server.url}/v1/completions", json=body)


def test_the_openai_client_gets_a_hole_filled(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="any", prompt=PREFIX, suffix=SUFFIX, max_tokens=12, extra_body={"path": "a.py"})
    assert answer.object == "text_completion" and answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage is not None and 0 < answer.usage.completion_tokens <= 12
    assert [model.id for model in client.models.list()] == [answer.model] == ["tiny"]


@pytest.mark.parametrize("number", range(6))
def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI, number: int) -> None:
    asked: dict[str, Any] = {"model": "tiny", "prompt": PREFIX + str(number), "suffix": SUFFIX, "temperature": 0.0}
    whole = client.completions.create(**asked)
    pieces = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == whole.choices[0].text
    assert pieces[-1].usage is not None and pieces[-1].usage.completion_tokens == whole.usage.completion_tokens  # type: ignore[union-attr]


def test_infill_answers_in_llama_servers_shape(server: Running) -> None:
    body = {
        "id_slot": 0, "input_prefix": "def area(r):\n    pi = 3\n", "input_suffix": SUFFIX, "prompt": "    return pi", "n_predict": 9,
        "input_extra": [{"text": "x = 1\n", "time": 1, "filename": "b.py"}], "n_cmpl": 1, "samplers": ["top_k", "top_p", "infill"],
        "cache_prompt": True, "n_indent": 4, "t_max_prompt_ms": 500, "t_max_predict_ms": 1000, "top_k": 40, "top_p": 0.9, "stream": False,
    }  # fmt: skip
    whole = HTTP.post(f"{server.url}/infill", json=body).json()
    assert whole["stop"] is True and whole["tokens_predicted"] <= 9 and whole["timings"]["prompt_n"] >= 1
    streamed = HTTP.post(f"{server.url}/infill", json={**body, "stream": True}).text
    events = [json.loads(line.removeprefix("data: ")) for line in streamed.splitlines() if line]
    assert "".join(event["content"] for event in events) == whole["content"] and [e["stop"] for e in events][-1] is True


def test_prefill_generates_nothing(server: Running) -> None:
    answer = HTTP.post(f"{server.url}/infill", json={"input_prefix": "a = ", "input_suffix": "", "n_predict": 0})
    assert answer.status_code == 200 and answer.json()["content"] == ""


def test_a_prompt_that_a_client_rendered_is_the_same_hole(server: Running) -> None:
    asked = complete(server, prompt=PREFIX, suffix=SUFFIX).json()["choices"][0]["text"]
    for raw in (
        f"<|fim_prefix|>{PREFIX}<|fim_suffix|>{SUFFIX}<|fim_middle|>",
        f"<|fim_prefix|><|fim_suffix|>{SUFFIX}<|fim_middle|>{PREFIX}",
    ):
        assert complete(server, prompt=raw, max_tokens=4096).json()["choices"][0]["text"] == asked


def test_typing_evaluates_the_typed_token_in_spm_and_the_suffix_in_psm(server: Running) -> None:
    def evaluated(order: str) -> list[int]:
        text = "    total = radius + offset"
        bodies = [
            {"prompt": PREFIX + "\n" + text[:n], "suffix": SUFFIX, "path": "t.py", "max_tokens": 1, "order": order}
            for n in range(1, len(text))
        ]
        return [int(complete(server, **body).json()["timings"]["prompt_n"]) for body in bodies]

    spm, psm = evaluated("spm")[1:], evaluated("psm")[1:]
    assert max(spm) <= 2 and min(psm) >= len(SUFFIX)


BAD: list[tuple[str, bytes, int]] = [
    ("not JSON", b"{", 400),
    ("a list", b"[1]", 400),
    ("nested", b"[" * 100_000, 400),
    ("a number for prompt", b'{"prompt": 5}', 400),
    ("no prompt", b"{}", 400),
    ("empty prompt", b'{"prompt": ""}', 400),
    ("two prompts", b'{"prompt": ["a", "b"]}', 400),
    ("token ids", b'{"prompt": [1, 2]}', 400),
    ("two answers", b'{"prompt": "a", "n": 2}', 400),
    ("negative tokens", b'{"prompt": "a", "max_tokens": -5}', 400),
    ("hot", b'{"prompt": "a", "temperature": 99}', 400),
    ("no number", b'{"prompt": "a", "temperature": NaN}', 400),
    ("object for suffix", b'{"prompt": "a", "suffix": {}}', 400),
    ("too many stops", json.dumps({"prompt": "a", "stop": ["x"] * 99}).encode(), 400),
    ("ten megabytes", b'{"prompt": "' + b"a" * 10_000_000 + b'"}', 413),
    ("not UTF-8", b'{"prompt": "\xff\xfe"}', 400),
    ("lone surrogate", b'{"prompt": "x = \\ud800", "suffix": "\\udc00"}', 200),
    ("surrogate pair", b'{"prompt": "x = \'\\ud83d\\ude00"}', 200),
    ("marker in the code", b'{"prompt": "x = \'<|fim_middle|>\'", "suffix": "<|endoftext|>"}', 200),
    ("carriage returns", b'{"prompt": "a = 1\\r\\nb = \\r", "suffix": "\\n\\r\\nc = 2\\r\\n"}', 200),
    ("a zero byte", b'{"prompt": "a\\u0000b"}', 200),
    ("one long line", b'{"prompt": "' + b"a" * 1_000_000 + b'", "suffix": "' + b"b" * 1_000_000 + b'"}', 200),
    ("cursor at the start", b'{"prompt": "", "suffix": "import os\\n"}', 200),
]


@pytest.mark.parametrize(("body", "status"), [pytest.param(body, status, id=name) for name, body, status in BAD])
def test_whatever_is_sent_the_answer_is_proper_and_the_server_lives(server: Running, body: bytes, status: int) -> None:
    answer = HTTP.post(f"{server.url}/v1/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    if status == 200:
        assert isinstance(answer.json()["choices"][0]["text"], str)
    else:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert HTTP.get(f"{server.url}/ready").status_code == 200


@pytest.mark.parametrize(
    "wrong", [{"input_prefix": 1}, {"input_suffix": None}, {"input_extra": "x"}, {"input_extra": [{}]}, {"n_predict": "x"}]
)
def test_a_malformed_infill_is_refused(server: Running, wrong: dict[str, Any]) -> None:
    assert HTTP.post(f"{server.url}/infill", json={"input_prefix": "a", "input_suffix": "", **wrong}).status_code == 400


def test_a_body_without_length_is_bounded_too(server: Running) -> None:
    answer = HTTP.post(f"{server.url}/v1/completions", content=(b"a" * 500_000 for _ in range(20)))
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Host": "127.0.0.1.evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "null"}]
)
def test_a_web_page_is_refused(server: Running, headers: dict[str, str]) -> None:
    answer = HTTP.post(f"{server.url}/v1/completions", json={"prompt": "a"}, headers=headers)
    assert answer.status_code == 403 and answer.json()["error"]["type"] == "permission_error"


def test_no_page_is_ever_allowed_to_read_an_answer(server: Running) -> None:
    for origin in ("https://evil.example", "http://localhost:3000"):
        answer = HTTP.options(f"{server.url}/v1/completions", headers={"Origin": origin, "Access-Control-Request-Method": "POST"})
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert HTTP.get(f"{server.url}/health", headers={"Host": "localhost"}).status_code == 200


def test_unknown_places_are_errors_in_the_same_shape(server: Running) -> None:
    for answer in (HTTP.get(f"{server.url}/nope"), HTTP.get(f"{server.url}/infill"), HTTP.get(f"{server.url}/docs")):
        assert answer.status_code in (404, 405) and answer.json()["error"]["type"] == "invalid_request_error"


def test_metrics_count_what_happened(server: Running) -> None:
    def count() -> tuple[float, ...]:
        names = ("tabsmith_request_seconds_count", "tabsmith_prompt_tokens_evaluated_total", "tabsmith_prompt_tokens_cached_total")
        return tuple(server.metric(name) for name in names)

    def ended() -> float:
        return sum(server.metric(f'tabsmith_requests_total{{outcome="{how}"}}') for how in ("shown", "empty"))

    before, ended_before = count(), ended()
    for stream in (False, True):
        complete(server, prompt=PREFIX + "#metrics", suffix=SUFFIX, stream=stream)
    after = count()
    assert ended() == ended_before + 2
    assert after[0] == before[0] + 2 and after[1] > before[1] and after[2] > before[2]


def test_the_workspace_is_known_and_its_secret_is_not(server: Running) -> None:
    body = {"prompt": "def use():\n    return github_client(connect, GITHUB_TOKEN", "suffix": "\n", "path": "use.py", "max_tokens": 1}
    with_context = complete(server, **body).json()["usage"]["prompt_tokens"]
    assert with_context > len(body["prompt"]) + 30  # type: ignore[arg-type]
    assert HTTP.get(f"{server.url}/health").json()["index"]["files"] == 3
    shown = HTTP.get(f"{server.url}/metrics").text + HTTP.get(f"{server.url}/health").text + (server.folder / "log").read_text()
    assert CANARY not in shown and "github_client" not in shown


def test_ask_completes_at_a_place_in_a_file(server: Running, tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(PREFIX + SUFFIX)
    result = CliRunner().invoke(app, ["ask", "--file", str(file), "--line", "3", "--col", "14", "--url", server.url])
    assert result.exit_code == 0, result.stderr
    expected = complete(server, prompt=PREFIX, suffix=SUFFIX, path=str(file)).json()["choices"][0]["text"]
    assert result.stdout == expected + "\n"


@pytest.mark.parametrize(("place", "says"), [(["--line", "99", "--col", "1"], "lines"), (["--line", "1", "--col", "99"], "characters")])
def test_ask_knows_where_a_file_ends(tmp_path: Path, place: list[str], says: str) -> None:
    file = tmp_path / "a.py"
    file.write_text("x = 1\n")
    result = CliRunner().invoke(app, ["ask", "--file", str(file), *place])
    assert result.exit_code == 2 and says in result.stderr


def test_ask_without_a_server_names_the_command(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("x = 1\n")
    result = CliRunner().invoke(app, ["ask", "--file", str(file), "--line", "1", "--col", "1", "--url", "http://127.0.0.1:9"])
    assert result.exit_code == 3 and "phase4_serve up" in result.stderr


LONG = {"prompt": "# notes\nx = [", "suffix": "\n", "temperature": 2.0}


def idle(server: Running) -> bool:
    return not any(slot["is_processing"] for slot in server.slots()) and server.metric("tabsmith_running") == 0


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_ends_its_generation(server: Running, stream: bool) -> None:
    cancelled = 'tabsmith_requests_total{outcome="cancelled"}'
    before = server.metric(cancelled)
    server.llama().suspend()  # whatever is asked now takes as long as we like
    try:
        connection = socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))
        body = json.dumps({**LONG, "stream": stream}).encode()
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        wait_until(lambda: server.metric("tabsmith_running") == 1)
        connection.close()
        time.sleep(0.2)
    finally:
        server.llama().resume()
    wait_until(lambda: server.metric(cancelled) == before + 1)
    wait_until(lambda: idle(server))


def test_too_many_requests_are_told_to_come_back(server: Running) -> None:
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda: answers.append(complete(server, **LONG))) for _ in range(8)]
    server.llama().suspend()
    try:
        for thread in threads:
            thread.start()
        wait_until(lambda: sum(answer.status_code == 429 for answer in answers) == 4)  # 2 slots and 2 that wait
    finally:
        server.llama().resume()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [429] * 4
    assert all(answer.headers["retry-after"] for answer in answers if answer.status_code == 429)


def test_the_port_that_is_taken_is_one_line_and_exit_5(server: Running, tiny: Path) -> None:
    command = [sys.executable, "-m", "phase4_serve", "up", "--model", str(tiny), "--port", server.url.rsplit(":", 1)[1]]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 5 and "is in use: choose another with --port" in ended.stderr.splitlines()[-1]


def test_a_llama_server_that_cannot_start_is_one_line(tiny: Path, tmp_path: Path) -> None:
    broken = tmp_path / "llama-server"
    broken.write_text("#!/bin/sh\necho 'E error: no such instruction: avx9' >&2\nexit 3\n")
    broken.chmod(0o755)
    command = [sys.executable, "-m", "phase4_serve", "up", "--model", str(tiny), "--port", "0"]
    ended = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, timeout=60, env={"LLAMA_SERVER": str(broken), "PATH": "/usr/bin:/bin"}
    )
    assert ended.returncode == 5 and "avx9" in ended.stderr.splitlines()[-1] and "Traceback" not in ended.stderr


def test_a_killed_llama_server_comes_back(own_server: Running) -> None:
    killed = own_server.llama()
    killed.suspend()
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(complete(own_server, **LONG)))
    thread.start()
    wait_until(lambda: own_server.metric("tabsmith_running") == 1)
    killed.kill()
    thread.join(20)
    assert answers[0].status_code == 503 and answers[0].headers["retry-after"] and answers[0].json()["error"]["type"] == "unavailable_error"
    wait_until(lambda: HTTP.get(f"{own_server.url}/health").json()["llama_server_deaths"] == 1)
    wait_until(lambda: HTTP.get(f"{own_server.url}/ready").status_code == 200)
    assert complete(own_server, prompt="a = ").status_code == 200


def end_with_int(server: Running) -> None:
    assert server.stop(signal.SIGINT) == 0


def end_with_term(server: Running) -> None:
    assert server.stop(signal.SIGTERM) == 0


def end_with_kill(server: Running) -> None:
    server.stop(signal.SIGKILL)


@pytest.mark.parametrize("end", [end_with_int, end_with_term, end_with_kill])
def test_no_process_is_left_behind(own_server: Running, end: Callable[[Running], None]) -> None:
    llama = own_server.llama()
    end(own_server)
    wait_until(lambda: not llama.is_running() or llama.status() == psutil.STATUS_ZOMBIE, 10)


def test_stopping_does_not_wait_for_a_slow_answer(own_server: Running) -> None:
    own_server.llama().suspend()

    def ask() -> None:
        with contextlib.suppress(httpx.HTTPError):
            answers.append(complete(own_server, **LONG))

    answers: list[httpx.Response] = []
    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: own_server.metric("tabsmith_running") == 1)
    started = time.monotonic()
    own_server.stop(signal.SIGINT)
    thread.join(20)
    assert time.monotonic() - started < 12 and all(answer.status_code == 503 for answer in answers)


def test_the_launcher_ends_its_child_where_the_kernel_does_not(tmp_path: Path) -> None:
    """What other systems than Linux use: the child goes when the pipe closes."""
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'phase4_serve')!r}); import launch; launch.guard(['/bin/sleep', '60'])"
    guard = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    wait_until(lambda: psutil.Process(guard.pid).children())
    (child,) = psutil.Process(guard.pid).children()
    assert guard.stdin is not None
    guard.stdin.close()
    guard.wait(10)
    assert not child.is_running()
