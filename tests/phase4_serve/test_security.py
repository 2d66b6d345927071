"""Who may ask, what a request may name, and where a secret never turns up."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import openai
import psutil
import pytest
from typer.testing import CliRunner

from core.errors import InputError
from phase4_serve.cli import app
from phase4_serve.security import digest, door, inside, is_loopback, take_key
from tests.phase4_serve.conftest import HTTP, ROOT, Guarded


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace with links out of it, beside what nobody may name."""
    home = tmp_path / "work"
    (home / "src").mkdir(parents=True)
    (home / "src" / "a.py").write_text("x = 1\n")
    (tmp_path / "outside.py").write_text("secret = 1\n")
    (home / "leak.py").symlink_to(tmp_path / "outside.py")
    (home / "out").symlink_to(tmp_path)
    (home / "in.py").symlink_to(home / "src" / "a.py")
    return home


@pytest.mark.parametrize(
    "path",
    [
        "../outside.py", "src/../../outside.py", "/etc/passwd", "//etc/passwd", "leak.py", "out/outside.py", "out/../outside.py", "", ".",
        "/", "a\0.py", "src/a.py\0.txt", "%2e%2e/outside.py", "..%2foutside.py", "file:///%2e%2e/%2e%2e/etc/passwd", "file:///etc/passwd",
        "..\\outside.py", "src\\..\\..\\outside.py", "\u2025/outside.py\u2028", "..\u2215outside.py", "..\uff0foutside.py", "src\u2044a.py",
        "http://evil.example/a.py", "a\nb.py", "src/\u202eyp.a", "~/../outside.py", "C:\\Windows\\..\\..\\x", "./../outside.py",
    ],
)  # fmt: skip
def test_a_path_out_of_the_workspace_is_no_path(root: Path, path: str) -> None:
    assert inside(path, root) is None


def test_a_path_of_the_workspace_is_known_however_it_is_written(root: Path) -> None:
    written = [
        "src/a.py",
        str(root / "src" / "a.py"),
        f"file://{root}/src/a.py",
        f"file://localhost{root}/src/a.py",
        "src\\a.py",
        "./src/a.py",
    ]
    assert {inside(path, root) for path in [*written, "in.py", f"file://{root}/src/%61.py"]} == {"src/a.py"}


@pytest.mark.parametrize(
    ("host", "only_us"),
    [
        *((host, True) for host in ("127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]")),
        *((host, False) for host in ("0.0.0.0", "::", "192.168.1.5", "example.org", "", "127.0.0.1.example.org")),
    ],
)
def test_an_address_that_others_reach_needs_a_key(host: str, only_us: bool) -> None:
    assert is_loopback(host) is only_us
    if only_us:
        assert door(host, (), (), "").key == b""
    else:
        with pytest.raises(InputError, match="TABSMITH_API_KEY"):
            door(host, (), (), "")
        assert door(host, (), (), "k" * 16).key == digest("k" * 16)


@pytest.mark.parametrize("origin", ["*", "localhost:3000", "http://", "https://*.example.org", "null", "http://a/b"])
def test_an_origin_is_one_page(origin: str) -> None:
    with pytest.raises(InputError, match="allow-origin"):
        door("127.0.0.1", (), (origin,), "")


def test_a_key_comes_from_a_private_file_or_leaves_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "visible-ascii-" + "0" * 20
    file = tmp_path / "key"
    file.write_text(f"{key}\n")
    file.chmod(0o600)
    monkeypatch.setenv("TABSMITH_API_KEY", "another-key-entirely")
    assert take_key("TABSMITH_API_KEY", None) == "another-key-entirely" and "TABSMITH_API_KEY" not in os.environ
    assert take_key("TABSMITH_API_KEY", file) == key
    for mode in (0o640, 0o604, 0o644):
        file.chmod(mode)
        with pytest.raises(InputError, match="chmod 600"):
            take_key("TABSMITH_API_KEY", file)
    file.chmod(0o600)
    for wrong in ("", "short", "two words " * 5, "umlaut-ä" * 5, "line\nbreak" * 3):
        file.write_text(wrong)
        with pytest.raises(InputError) as refused:
            take_key("TABSMITH_API_KEY", file)
        assert not wrong.strip() or wrong.strip() not in str(refused.value)
    with pytest.raises(InputError, match="FileNotFoundError"):
        take_key("TABSMITH_API_KEY", tmp_path / "none")


def test_the_server_does_not_start_open_to_others(tiny: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TABSMITH_API_KEY"}
    command = [sys.executable, "-m", "phase4_serve", "up", "--model", str(tiny), "--port", "0", "--host", "0.0.0.0"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert ended.returncode == 2 and len(ended.stderr.strip().splitlines()) == 1 and "TABSMITH_API_KEY" in ended.stderr


def test_only_who_knows_the_key_is_answered(guarded: Guarded) -> None:
    url, key = guarded.server.url, guarded.key
    place = {"prompt": "a = ", "max_tokens": 1, "manual": True}
    wrong = ["", "Bearer", f"Bearer {key}x", f"Bearer {key[:-1]}", f"Basic {key}", key, "Bearer " + "ü".encode().decode("latin-1")]
    for value in wrong:
        headers = {"Authorization": value} if value else {}
        answer = HTTP.post(f"{url}/v1/completions", json=place, headers={k: v.encode("latin-1") for k, v in headers.items()})
        assert answer.status_code == 401 and answer.json()["error"]["type"] == "authentication_error"
    for path in ("/metrics", "/v1/models", "/openapi.json", "/nope"):
        assert HTTP.get(f"{url}{path}").status_code == 401
    for headers in ({"Authorization": f"Bearer {key}"}, {"authorization": f"bearer  {key}"}, {"X-Api-Key": key}):
        assert HTTP.post(f"{url}/v1/completions", json=place, headers=headers).status_code == 200
    assert HTTP.get(f"{url}/health").status_code == HTTP.get(f"{url}/ready").status_code == 200  # a probe has no key
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0).models.list()


def test_a_page_that_was_named_may_read_answers_and_no_other(guarded: Guarded) -> None:
    def asked(origin: str, method: str = "POST") -> httpx.Response:
        headers = {"Origin": origin, "X-Api-Key": guarded.key, "Access-Control-Request-Method": "POST"}
        return HTTP.request(method, f"{guarded.server.url}/v1/search", json={"query": "x"}, headers=headers)

    page = guarded.origin
    assert asked(page).headers["access-control-allow-origin"] == page and "access-control-allow-credentials" not in asked(page).headers
    assert asked(page, "OPTIONS").status_code == 204
    for other in ("https://evil.example", "null", f"{page}.evil.example", page.replace("http:", "https:"), "http://localhost:3001"):
        answer = asked(other)
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert answer.status_code == (200 if other in (page.replace("http:", "https:"), "http://localhost:3001") else 403)


def test_the_key_is_nowhere_but_in_the_head_of_who_asks(guarded: Guarded) -> None:
    server = guarded.server
    headers = {"X-Api-Key": guarded.key}
    HTTP.post(f"{server.url}/v1/completions", json={"prompt": guarded.key, "suffix": {}}, headers=headers)  # into an error, perhaps
    shown = [HTTP.get(f"{server.url}{path}", headers=headers).text for path in ("/metrics", "/health", "/openapi.json", "/nope")]
    shown.append((server.folder / "log").read_text())
    processes = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
    shown += [" ".join(process.cmdline()) for process in processes]
    shown += [" ".join(process.environ().values()) for process in processes[1:]]  # what it starts does not inherit it
    assert all(secret not in text for text in shown for secret in (guarded.key, guarded.chat_key))


def test_the_files_of_a_user_are_his(guarded: Guarded) -> None:
    HTTP.post(f"{guarded.server.url}/v1/events", json={"event": "shown"}, headers={"X-Api-Key": guarded.key})
    found = guarded.events.stat()
    assert stat.S_IMODE(found.st_mode) == 0o600


def test_ask_knows_the_key_too(guarded: Guarded, tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("x = \n")
    place = ["ask", "--file", str(file), "--line", "1", "--col", "5", "--url", guarded.server.url]
    refused = CliRunner().invoke(app, place)
    assert refused.exit_code == 3 and "TABSMITH_API_KEY" in refused.stderr
    assert CliRunner().invoke(app, place, env={"TABSMITH_API_KEY": guarded.key}).exit_code == 0
    assert CliRunner().invoke(app, [*place, "--key-file", str(guarded.server.folder / "key")]).exit_code == 0


def test_settings_for_editors_name_the_place_of_the_key() -> None:
    result = CliRunner().invoke(app, ["editors", "--url", "http://127.0.0.1:9000/", "--key"])
    assert result.exit_code == 0 and result.stdout.count("YOUR_KEY") == 5 and "http://127.0.0.1:9000/infill" in result.stdout
    assert "YOUR_KEY" not in CliRunner().invoke(app, ["editors"]).stdout
    assert CliRunner().invoke(app, ["editors", "emacs"]).exit_code == 2
