"""A completion from the shell: what a running server would write at a place in a file.

In:  file, line and column (both from 1, as editors count), the server's URL, its key from a file or the environment
Out: the completion's text
"""

from __future__ import annotations

from pathlib import Path

import httpx

from core.errors import AccessError, InputError, TabsmithError
from phase4_serve.security import KEY_VARIABLE, is_loopback, take_key

SECONDS = 120.0
AROUND = 500_000  # characters before and after the place that are sent: more than any model reads, less than the server takes


def offset_of(text: str, line: int, column: int, file: Path) -> int:
    """Characters before a place.

    Raises:
        InputError: the file has no such place.
    """
    lines = text.split("\n")
    if not 1 <= line <= len(lines):
        raise InputError(f"{file} has {len(lines)} lines: choose --line among them")
    length = len(lines[line - 1].removesuffix("\r"))
    if not 1 <= column <= length + 1:
        raise InputError(f"line {line} of {file} has {length} characters: choose --col from 1 to {length + 1}")
    return sum(len(earlier) + 1 for earlier in lines[: line - 1]) + column - 1


def run(file: Path, line: int, column: int, url: str, key_file: Path | None = None) -> str:
    """Ask a running server.

    Raises:
        InputError: no such file or place, or no usable key in the file that was named.
        AccessError: nobody answers there, or the key is refused.
        TabsmithError: the server refuses.
    """
    if not file.is_file():
        raise InputError(f"{file} is missing: name a file with --file")
    try:
        text = file.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{file} is not UTF-8 text: convert it first") from None
    at = offset_of(text, line, column, file)
    key = take_key(KEY_VARIABLE, key_file)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    question = {"prompt": text[max(0, at - AROUND) : at], "suffix": text[at : at + AROUND], "path": str(file.resolve()), "manual": True}
    nobody = AccessError(f"no tabsmith answers at {url}: start one with `python -m phase4_serve up --model M.gguf`")
    try:
        proxied = not is_loopback(httpx.URL(url).host)  # what is on this machine is asked directly, whatever HTTP_PROXY says
        answer = httpx.post(f"{url.rstrip('/')}/v1/completions", json=question, headers=headers, timeout=SECONDS, trust_env=proxied)
        document = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, ImportError):
        raise nobody from None
    if not isinstance(document, dict):
        raise nobody
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        raise AccessError(f"{url} asks for its key: set {KEY_VARIABLE}, or name a file that holds it with --key-file")
    if answer.status_code != httpx.codes.OK:
        error = document.get("error")
        said = error.get("message") if isinstance(error, dict) else None
        raise TabsmithError(f"the server refuses: {said or answer.status_code}")
    try:
        return str(document["choices"][0]["text"])
    except (LookupError, TypeError):
        raise nobody from None
