"""Starting and stopping `up`: what is wrong is one line with the next step and a documented exit code, at every moment."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from phase4_serve import binary
from phase4_serve.cli import app
from tests.phase4_serve.conftest import HTTP, PARAMS, ROOT, wait_until

KEY = "0123456789abcdef" * 2


@pytest.fixture(scope="module")
def stage(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of things that a careless user may name."""
    folder = tmp_path_factory.mktemp("u")
    whole = tiny.read_bytes()
    for name, content in {"empty": b"", "text": b"hello\n", "four": b"GGUF", "cut": whole[:20_000], "tail": whole[:-100]}.items():
        (folder / f"{name}.gguf").write_bytes(content)
    (folder / "model.gguf").write_bytes(whole)
    (folder / "precious.txt").write_text("precious\n")
    (folder / "link").symlink_to(folder / "precious.txt")
    (folder / "broken.yaml").write_text("[")
    (folder / "no program").write_text("no program")
    (folder / "no program").chmod(0o755)
    (folder / "params.yaml").write_text(f"profile: t\nt:\n  serve: {PARAMS.model_dump_json()}\n")
    return folder


WRONG = [
    (["--model", "none.gguf"], 2, "--model"),
    (["--model", "."], 2, "is a folder"),
    *((["--model", f"{name}.gguf"], 2, "phase3_quantize quantize") for name in ("empty", "text", "four", "cut", "tail")),
    (["--workspace", "none"], 2, "--workspace"),
    (["--workspace", "precious.txt"], 2, "--workspace"),
    (["--adapter", "none"], 2, "--adapter"),
    (["--adapter", "model.gguf"], 2, "--adapter"),
    (["--host", "0.0.0.0"], 2, "TABSMITH_API_KEY"),
    (["--host", "203.0.113.7", "--key-file", "key"], 2, "--host"),
    *((["--host", host, "--key-file", "key"], 2, "--host") for host in (".", "a" * 70 + ".example", "a b", "\udcff")),
    (["--key-file", "none"], 2, "--key-file"),
    (["--key-file", "."], 2, "--key-file"),
    (["--allow-origin", "localhost"], 2, "--allow-origin"),
    (["--order", "random"], 2, "--order"),
    (["--slots", "1000"], 2, "--slots"),
    (["--ctx", "100"], 2, "--ctx"),
    (["--prefix-tokens", "4000"], 2, "--ctx"),
    (["--params", "none.yaml"], 2, "--params"),
    (["--params", "broken.yaml"], 2, "mend it"),
    (["--socket", "none/l.sock"], 2, "--socket"),
    (["--socket", "."], 2, "--socket"),
    (["--socket", "precious.txt"], 2, "--socket"),
    (["--socket", "link"], 2, "--socket"),
    (["--socket", "a" * 120], 5, "--socket"),
    (["--socket", "taken.sock"], 5, "--socket"),
    (["--events", "."], 2, "--events"),
    (["--events", "/dev/full"], 2, "--events"),
    (["--chat-url", "nonsense", "--chat-model", "m"], 2, "--chat-url"),
    (["--chat-url", "http://127.0.0.1:1/v1"], 2, "--chat-model"),
    (["--chat-model", "m"], 2, "--chat-url"),
    (["--port", "{taken}"], 5, "--port"),
]


@pytest.fixture
def taken(stage: Path) -> Iterator[int]:
    """A port and a Unix socket on which somebody listens."""
    with socket.socket() as one, socket.socket(socket.AF_UNIX) as other:
        one.bind(("127.0.0.1", 0))
        one.listen()
        other.bind(str(stage / "taken.sock"))
        other.listen()
        yield one.getsockname()[1]
        (stage / "taken.sock").unlink()


def up_command(stage: Path, *flags: str) -> list[str]:
    return [
        "up",
        *([] if "--model" in flags else ["--model", "model.gguf"]),
        *([] if "--port" in flags else ["--port", "0"]),
        "--no-warm",
        *flags,
    ]


@pytest.mark.parametrize(("flags", "code", "says"), WRONG, ids=lambda value: ascii(value)[:50] if isinstance(value, list) else "")
def test_what_is_wrong_at_the_start_is_one_line(
    stage: Path, taken: int, monkeypatch: pytest.MonkeyPatch, flags: list[str], code: int, says: str
) -> None:
    monkeypatch.chdir(stage)
    monkeypatch.setenv("XDG_STATE_HOME", str(stage / "state"))
    monkeypatch.delenv("TABSMITH_API_KEY", raising=False)
    (stage / "key").write_text(KEY)
    (stage / "key").chmod(0o600)
    ended = CliRunner().invoke(app, up_command(stage, *(flag.format(taken=taken) for flag in flags)))
    lines = ended.stderr.strip().splitlines()
    assert ended.exit_code == code and len(lines) == 1 and lines[0].startswith("error: ") and says in lines[0], (
        ended.stderr,
        ended.exception,
    )
    assert KEY not in ended.output and (stage / "precious.txt").read_text() == "precious\n" and (stage / "link").is_symlink()


@pytest.mark.parametrize("tool", ["no program", "nowhere"])
def test_a_llama_server_that_is_none_is_one_line(stage: Path, tool: str) -> None:
    environment = {**os.environ, "LLAMA_SERVER": str(stage / tool), "XDG_STATE_HOME": str(stage / "state")}
    command = [sys.executable, "-m", "phase4_serve", *up_command(stage, "--model", str(stage / "model.gguf"))]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60)
    lines = ended.stderr.strip().splitlines()
    assert ended.returncode == 5 and len(lines) == 1 and lines[0].startswith("error: ") and "LLAMA_SERVER" in lines[0], ended.stderr


WAITS = """#!/bin/sh
[ "$1" = --version ] && {{ touch {folder}/version; sleep 0.3; exec {real} --version; }}
touch {folder}/loading
while :; do sleep 0.02; done
"""


def processes(marker: str) -> list[str]:
    """Command lines in which a text stands."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.append((entry / "cmdline").read_bytes().decode(errors="replace"))
    return [line for line in found if marker in line]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    ("moment", "how", "code"),
    [
        ("import core.errors", signal.SIGINT, 75),
        ("import typer", signal.SIGINT, 75),
        ("import uvicorn", signal.SIGINT, 75),
        ("version", signal.SIGINT, 75),
        ("loading", signal.SIGINT, 0),
        ("loading", signal.SIGTERM, 0),
    ],
)
def test_a_signal_at_any_moment_of_the_start_is_no_traceback(
    stage: Path, tmp_path: Path, moment: str, how: signal.Signals, code: int
) -> None:
    waits, log = tmp_path / "llama-server", tmp_path / "log"
    waits.write_text(WAITS.format(folder=tmp_path, real=binary.find()))
    waits.chmod(0o755)
    short = Path(tempfile.mkdtemp(prefix="up-"))  # pytest's own folder may be too long for a socket
    homes = {"TMPDIR": short, "XDG_STATE_HOME": tmp_path / "s", "XDG_CACHE_HOME": tmp_path / "c", "LLAMA_SERVER": waits}
    flags = [flag for flag in up_command(stage, "--model", str(stage / "model.gguf")) if flag != "--no-warm"]
    command = [sys.executable, "-X", "importtime", "-m", "phase4_serve", *flags]  # says on stderr what has been imported
    with log.open("w") as out:
        environment = {**os.environ, **{name: str(path) for name, path in homes.items()}}
        process = subprocess.Popen(  # with Ctrl-C as a terminal leaves it: who runs in the background inherits that it is ignored
            command, stdout=out, stderr=out, text=True, cwd=ROOT, env=environment, preexec_fn=lambda: signal.signal(how, signal.SIG_DFL)
        )
    imported = re.compile(rf"\| +{moment.removeprefix('import ')}\n")
    wait_until(lambda: imported.search(log.read_text()) or (tmp_path / moment).exists(), 60)
    process.send_signal(how)
    assert process.wait(20) == code and "Traceback" not in log.read_text(), log.read_text()[-2000:]
    wait_until(lambda: not processes(str(tmp_path)) and not processes(str(short)), 5)
    assert not list(short.glob("tabsmith-*"))
    shutil.rmtree(short)


def test_two_on_one_cache_folder_and_a_closed_stdin_stop_cleanly(stage: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "s"), "XDG_CACHE_HOME": str(tmp_path / "c")}
    flags = ["--model", str(stage / "model.gguf"), "--port", "0", "--params", str(stage / "params.yaml")]
    command = f"exec {sys.executable} -m phase4_serve up {' '.join(flags)} <&-"
    logs = [tmp_path / "a", tmp_path / "b"]
    running = []
    for log in logs:
        with log.open("w") as out:
            running.append(subprocess.Popen(["sh", "-c", command], stdout=out, stderr=out, cwd=ROOT, env=environment))
    try:
        for log in logs:
            wait_until(lambda log=log: " ready after " in log.read_text(), 60)  # type: ignore[misc]
            url = "http" + log.read_text().split(" on http")[1].split()[0]
            lines = "".join(f"    value_{line} = {line} + 1\n" for line in range(8))
            with contextlib.suppress(httpx.HTTPError):
                answer = HTTP.post(f"{url}/v1/completions", json={"prompt": f"def f():\n{lines}    x = ", "suffix": "\n", "manual": True})
            assert answer.status_code == 200
    finally:
        for one in running:
            one.terminate()
        codes = [one.wait(30) for one in running]
    assert codes == [0, 0] and not [log for log in logs if "Traceback" in log.read_text()]
