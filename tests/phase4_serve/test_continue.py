"""The real thing: Continue's own CompletionProvider, from npm, completes against `up`.

Installed once (a minute, 830 MB) into $TABSMITH_CONTINUE or the user's cache folder, never into the repository; left out where there is no
node or no npm registry. How to run its npm package outside an editor: continue/*.mjs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.phase4_serve.conftest import HTTP, Running, wait_until

VERSION = "1.1.0"
HERE = Path(__file__).parent / "continue"
CACHE = Path(os.environ.get("TABSMITH_CONTINUE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tabsmith-tests")
OWN_ABORT = "HTTP 499 Client Closed Request from \n\n"  # what its fetch makes of a request that it aborted itself, with any server
FILE = "def area(radius):\n    pi = 3\n    \n\n\nprint(area(2))\n"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("npm") or not shutil.which("node"), reason="needs node and npm")]


@pytest.fixture(scope="session")
def core() -> Path:
    """The folder of @continuedev/core."""
    folder = CACHE / f"continue-{VERSION}"
    found = folder / "node_modules/@continuedev/core"
    if not (found / "dist/core.js").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true}')
        command = ["npm", "install", f"@continuedev/core@{VERSION}", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
        if done.returncode:
            pytest.skip(f"npm could not install it: {done.stderr.strip().splitlines()[-1:]}")
    grammars = found / "dist/util/tree-sitter-wasms"
    if not grammars.exists():
        grammars.symlink_to(folder / "node_modules/tree-sitter-wasms/out")
    return found


def complete(core: Path, server: Running, folder: Path, provider: str, keys: str = "") -> dict[str, Any]:
    """What an editor would show at the end of the third line, some keys later."""
    file = folder / f"shapes_{provider.replace('.', '_')}_{len(keys)}.py"  # typed in another test already, it would be a backspace
    file.write_text(FILE)
    base = f"{server.url}/v1/" if provider == "openai" else f"{server.url}/"
    asked = {"provider": provider, "apiBase": base, "apiKey": "k", "folder": str(folder), "file": str(file), "line": 2, "character": 4}
    command = ["node", "--import", str(HERE / "register.mjs"), str(HERE / "complete.mjs"), json.dumps({**asked, "keys": keys})]
    environment = {**os.environ, "CONTINUE_CORE": str(core), "CONTINUE_GLOBAL_DIR": str(folder / "global"), "HOME": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    said["errors"] = [error for error in said["errors"] if error != OWN_ABORT]
    return said


@pytest.mark.parametrize("provider", ["llama.cpp", "openai"])
def test_continue_shows_our_completion(core: Path, sluggish: Running, tmp_path: Path, provider: str) -> None:
    said = complete(core, sluggish, tmp_path, provider)
    assert not said["errors"], said["errors"]
    assert said["completion"], said
    path = "completion" if provider == "llama.cpp" else "v1/completions"
    ours = HTTP.post(f"{sluggish.url}/{path}", json={"prompt": said["prompt"], "temperature": 0.01, "manual": True}).json()
    text = ours.get("content") or ours["choices"][0]["text"]
    assert said["completion"].strip()[:8] == text.strip()[:8]  # no more than that: a temperature of 0.01 is not quite greedy


@pytest.mark.parametrize("provider", ["llama.cpp", "openai"])
def test_continue_types_on_and_no_generation_is_left_running(core: Path, sluggish: Running, tmp_path: Path, provider: str) -> None:
    before = sluggish.metric("tabsmith_request_seconds_count")
    said = complete(core, sluggish, tmp_path, provider, keys="ret")
    assert not said["errors"], said["errors"]
    assert said["completion"], said
    wait_until(lambda: sluggish.metric("tabsmith_running") == 0 and not any(slot["is_processing"] for slot in sluggish.slots()), 5)
    assert sluggish.metric("tabsmith_request_seconds_count") > before


@pytest.mark.parametrize("provider", ["llama.cpp", "openai"])
def test_continue_shows_no_error_where_completing_makes_no_sense(core: Path, sluggish: Running, tmp_path: Path, provider: str) -> None:
    said = complete(core, sluggish, tmp_path, provider, keys="# a com")  # within a comment's word
    assert not said["errors"], said["errors"]


def test_continue_is_told_once_when_the_server_is_away(core: Path, sluggish: Running, tmp_path: Path) -> None:
    away = sluggish._replace(url="http://127.0.0.1:9")
    said = complete(core, away, tmp_path, "llama.cpp")
    assert said["completion"] is None and len(said["errors"]) == 1
