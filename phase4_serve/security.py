"""Who may ask the server, and which files a request may name.

In:  an address to listen on, names and origins that are allowed, a key from the environment or a private file
Out: `Gate`, which refuses before anything is read; `inside`, which turns a client's path into one of the workspace, or none

A page in a browser can reach loopback as well. It is known by its Host (DNS rebinding sends the site's name) and by its
Origin; both are checked on every request, and no CORS header is sent unless an origin was named.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import InputError
from phase4_serve.api_error import ApiError, busy
from phase4_serve.connections import drain

KEY_VARIABLE = "TABSMITH_API_KEY"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
ANY_ADDRESS = frozenset({"0.0.0.0", "::", ""})  # named in order to be recognised
PUBLIC = frozenset({"/health", "/ready"})  # what a probe without a key may see
SHORTEST_KEY = 16  # characters: `openssl rand -hex 16` gives 32
_KEY = re.compile(r"[\x21-\x7e]+")
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/?#@\[\]\\]+))(?::\d{1,5})?")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s*]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SLASH_LIKE = frozenset("\u2044\u2215\u29f8\uff0f\uff3c\u2216\ufe68")  # what normalisation elsewhere may turn into a separator
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class Door(NamedTuple):
    """Who may come in."""

    hosts: frozenset[str] = LOOPBACK  # names that a Host header may carry
    origins: frozenset[str] = frozenset()  # web pages that may ask: exact origins
    key: bytes = b""  # sha256 of the key; empty: none is asked for


def door(host: str, allow_hosts: tuple[str, ...], allow_origins: tuple[str, ...], key: str) -> Door:
    """Who may come in when the server listens on an address.

    Raises:
        InputError: an address that other machines reach, and no key; an origin that is none.
    """
    if not is_loopback(host) and not key:
        raise InputError(
            f"--host {host} lets other machines ask: set {KEY_VARIABLE} (`openssl rand -hex 32` makes a good one) or give --key-file"
        )
    for origin in allow_origins:
        if not _ORIGIN.fullmatch(origin.lower()):
            raise InputError(f"--allow-origin {origin}: give scheme, host and port of one page, as in http://localhost:3000")
    names = {name.lower().strip("[]") for name in (*allow_hosts, host) if name not in ANY_ADDRESS}
    return Door(LOOPBACK | names, frozenset(origin.lower() for origin in allow_origins), digest(key) if key else b"")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def take_key(variable: str, file: Path | None) -> str:
    """The key from a private file, or from the environment, from which it is taken out: programs that we start do not get it.

    Raises:
        InputError: the file is missing or others can read it; a key that is too short or holds what a header cannot carry.
    """
    given = os.environ.pop(variable, "").strip()
    where = variable
    if file is not None:
        where = f"--key-file {file}"
        try:
            found = file.stat()
            if stat.S_IMODE(found.st_mode) & 0o077 or found.st_uid not in (os.getuid(), 0):
                raise InputError(f"{where}: others can read it: chmod 600 {file}")
            given = file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{where} cannot be read ({type(error).__name__}): name a file that holds the key alone") from None
        if not given:
            raise InputError(f"{where} is empty: write the key into it")
    if given and (not _KEY.fullmatch(given) or len(given) < SHORTEST_KEY):
        raise InputError(f"{where}: a key is {SHORTEST_KEY} or more visible ASCII characters: make one with `openssl rand -hex 32`")
    return given


def digest(key: str | bytes) -> bytes:
    """What is kept and compared instead of the key, so that lengths do not show either."""
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()


class Gate:
    """Refuses what may not come in, or not now, before the body is read.

    Args:
        full: whether a request for a path has to come back later.
    """

    def __init__(self, app: ASGIApp, who: Door, full: Callable[[str], bool] = lambda path: False) -> None:
        self.app, self.who, self.full = app, who, full

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = single(scope)
        refusal = self._refusal(scope, headers)
        allowed = self._cors(headers)
        if refusal is None and allowed and scope["method"] == "OPTIONS":
            return await respond(send, 204, b"", [*allowed, *_PREFLIGHT])
        if refusal is not None:
            await drain(receive)
            return await refuse(send, refusal, allowed)
        await self.app(scope, receive, _with(send, allowed) if allowed else send)

    def _refusal(self, scope: Scope, headers: Mapping[bytes, bytes] | None) -> ApiError | None:
        if headers is None:
            return ApiError(400, "a header that may be there once is there twice")
        server = scope.get("server") or ("", 0)
        # An address as Host cannot be DNS rebinding: that needs a name of the attacker's
        if (host := hostname(text(headers, b"host"))) not in self.who.hosts and host != server[0]:
            return ApiError(
                403, "this name is not one the server answers to: use 127.0.0.1, or name it with --allow-host", "permission_error"
            )
        origin = text(headers, b"origin").lower()
        if origin and origin not in self.who.origins and not self._own(origin):
            return ApiError(403, "web pages may not ask: name yours with --allow-origin", "permission_error")
        preflight = scope["method"] == "OPTIONS" and origin in self.who.origins
        if self.who.key and scope["path"] not in PUBLIC and not preflight and not self._knows_key(headers):
            return ApiError(
                401, "the key is missing or wrong: send it as Authorization: Bearer KEY", "authentication_error", code="invalid_api_key"
            )
        return busy() if self.full(scope["path"]) else None

    def _own(self, origin: str) -> bool:
        """Editors send origins of their own (vscode-webview://...); a page on a loopback name is on this machine."""
        if origin == "null":
            return False
        scheme, _, authority = origin.partition("://")
        own = scheme not in ("http", "https") and ":" not in scheme and bool(authority)
        return own or hostname(authority) in LOOPBACK

    def _knows_key(self, headers: Mapping[bytes, bytes]) -> bool:
        scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
        given = bearer.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        return hmac.compare_digest(digest(given), self.who.key)

    def _cors(self, headers: Mapping[bytes, bytes] | None) -> list[tuple[bytes, bytes]]:
        origin = (headers or {}).get(b"origin", b"")
        if origin.decode("latin-1").lower() not in self.who.origins:
            return []
        return [(b"access-control-allow-origin", origin), (b"vary", b"Origin")]


_PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, POST"),
    (b"access-control-allow-headers", b"authorization, content-type, x-api-key, x-session-id"),
    (b"access-control-max-age", b"600"),
]
_ONCE = frozenset({b"host", b"origin", b"authorization", b"x-api-key", b"content-length", b"x-session-id"})


def single(scope: Scope) -> dict[bytes, bytes] | None:
    """The headers that we read; None where one of them comes twice, so that no two programs read two different things."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _ONCE:
            if name in found:
                return None
            found[name] = value
    return found


def text(headers: Mapping[bytes, bytes], name: bytes) -> str:
    """A header; empty where it is missing."""
    return headers.get(name, b"").decode("latin-1")


def hostname(authority: str) -> str:
    """The host of `host[:port]`, lower case, without brackets; empty where it is not exactly that.

    Not by urllib: it takes `[::1].evil.example` for ::1.
    """
    found = _AUTHORITY.fullmatch(authority)
    return (found[1] or found[2]).lower() if found else ""


async def respond(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """A whole answer."""
    length = [] if status == 204 else [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await send({"type": "http.response.body", "body": body})


async def refuse(send: Send, error: ApiError, extra: list[tuple[bytes, bytes]] | None = None) -> None:
    """An error in OpenAI's shape."""
    given = [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
    await respond(send, error.status, orjson.dumps(error.body), [(b"content-type", b"application/json"), *given, *(extra or [])])


def _with(send: Send, extra: list[tuple[bytes, bytes]]) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *extra]}
        await send(message)

    return sending


def inside(path: str, root: Path) -> str | None:
    """A path that a client sent, relative to the workspace with forward slashes; None where it is not in it.

    Refused: what climbs (`..`, also as %2e in a file URI), absolute paths elsewhere, links that lead out, NUL and other
    control characters, characters that look like a separator.
    """
    if path.startswith("file://"):
        path = unquote(path.removeprefix("file://").removeprefix("localhost"))
    elif _SCHEME.match(path):
        return None
    if not path or _CONTROL.search(path) or _SLASH_LIKE & set(path) or "%2e" in path.lower() or "%2f" in path.lower():
        return None
    path = path.replace("\\", "/")
    if ".." in path.split("/"):
        return None
    home = root.resolve()
    try:
        real = (home / path).resolve()  # an absolute path replaces the root; links are followed
        return real.relative_to(home).as_posix() if real != home else None
    except (ValueError, OSError, RuntimeError):
        return None
