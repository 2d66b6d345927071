"""The server as a user meets it: its commands, its processes, what it counts; promises and clients have files of their own."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from typer.testing import CliRunner

from phase4_serve.cli import app
from tests.phase4_serve.conftest import CANARY, HTTP, ROOT, Running, ask, wait_until

PREFIX, SUFFIX = "def area(r):\n    pi = 3\n    return pi", "\n\n\nprint(area(2))\n"


@pytest.fixture(scope="module")
def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@pytest.mark.parametrize("number", range(6))
def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI, number: int) -> None:
    asked: dict[str, Any] = {"model": "tiny", "prompt": PREFIX + str(number), "suffix": SUFFIX, "temperature": 0.5, "seed": number}
    asked["extra_body"] = {"manual": True}
    whole = client.completions.create(**asked, user="whole")
    pieces = list(client.completions.create(**asked, user="streamed", stream=True, stream_options={"include_usage": True}))
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == whole.choices[0].text
    assert pieces[-1].usage is not None and pieces[-1].usage.completion_tokens == whole.usage.completion_tokens  # type: ignore[union-attr]


def test_typing_evaluates_the_typed_token_in_spm_and_the_suffix_in_psm(server: Running) -> None:
    def evaluated(order: str) -> list[int]:
        text = "    total = radius + offset"
        bodies = [
            {"prompt": PREFIX + "\n" + text[:n], "suffix": SUFFIX, "path": "t.py", "max_tokens": 1, "order": order}
            for n in range(1, len(text))
        ]
        return [int(ask(server, **body).json()["timings"]["prompt_n"]) for body in bodies]

    spm, psm = evaluated("spm")[1:], evaluated("psm")[1:]
    assert max(spm) <= 2 and min(psm) >= len(SUFFIX)


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
        ask(server, prompt=PREFIX + "#metrics", suffix=SUFFIX, stream=stream)
    after = count()
    assert ended() == ended_before + 2
    assert after[0] == before[0] + 2 and after[1] > before[1] and after[2] > before[2]


def test_the_workspace_is_known_and_its_secret_is_not(server: Running) -> None:
    body = {"prompt": "def use():\n    return github_client(connect, GITHUB_TOKEN", "suffix": "\n", "path": "use.py", "max_tokens": 1}
    with_context = ask(server, **body).json()["usage"]["prompt_tokens"]
    assert with_context > len(body["prompt"]) + 30  # type: ignore[arg-type]
    assert HTTP.get(f"{server.url}/health").json()["index"]["files"] == 3
    shown = HTTP.get(f"{server.url}/metrics").text + HTTP.get(f"{server.url}/health").text + (server.folder / "log").read_text()
    assert CANARY not in shown and "github_client" not in shown


def test_ask_completes_at_a_place_in_a_file(server: Running, tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(PREFIX + SUFFIX)
    result = CliRunner().invoke(app, ["ask", "--file", str(file), "--line", "3", "--col", "14", "--url", server.url])
    assert result.exit_code == 0, result.stderr
    expected = ask(server, prompt=PREFIX, suffix=SUFFIX, path=str(file)).json()["choices"][0]["text"]
    assert result.stdout == expected + "\n"


@pytest.mark.parametrize(("place", "says"), [(["--line", "99", "--col", "1"], "lines"), (["--line", "1", "--col", "99"], "characters")])
def test_ask_knows_where_a_file_ends(tmp_path: Path, place: list[str], says: str) -> None:
    file = tmp_path / "a.py"
    file.write_text("x = 1\n")
    result = CliRunner().invoke(app, ["ask", "--file", str(file), *place])
    assert result.exit_code == 2 and says in result.stderr


@pytest.mark.parametrize("answer", [b"[]", b"5", b'{"choices": []}', b'{"choices": 5}', b"<html>"])
def test_ask_at_something_else_names_the_command(tmp_path: Path, answer: bytes) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            pass

    (tmp_path / "a.py").write_text("x = \n")
    other = ThreadingHTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{other.server_port}"
    ended = CliRunner().invoke(app, ["ask", "--file", str(tmp_path / "a.py"), "--line", "1", "--col", "5", "--url", url])
    other.shutdown()
    assert ended.exit_code == 3 and "phase4_serve up" in ended.stderr and len(ended.stderr.strip().splitlines()) == 1


def test_ask_takes_a_large_file_and_no_proxy(server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # would see the code, and the key
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    file = tmp_path / "large.py"
    file.write_text("value = 1\n" * 700_000 + "x = \n")
    ended = CliRunner().invoke(app, ["ask", "--file", str(file), "--line", "700001", "--col", "5", "--url", server.url])
    assert ended.exit_code == 0, ended.output


def test_ask_without_a_server_names_the_command(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("x = 1\n")
    result = CliRunner().invoke(app, ["ask", "--file", str(file), "--line", "1", "--col", "1", "--url", "http://127.0.0.1:9"])
    assert result.exit_code == 3 and "phase4_serve up" in result.stderr


LONG = {"prompt": "# notes\nx = [", "suffix": "\n", "temperature": 2.0}


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

    def asking() -> None:
        with contextlib.suppress(httpx.HTTPError):
            answers.append(ask(own_server, **LONG))

    answers: list[httpx.Response] = []
    thread = threading.Thread(target=asking)
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
