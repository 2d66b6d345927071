"""Secrets inside a layer of base64: `Authorization: Basic ...`, Kubernetes secrets, a key or a token that was encoded once.

In:  a Source, and what finds secrets in a decoded text
Out: Findings that cover the encoded text

Only base64 whose first characters decode to printable text is decoded whole: of random bytes, one in a million does.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator

from core.findings import Finding, Source

_ALPHABET = "+/ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_HEAD = 24  # characters decoded to see whether the rest is worth it
_LONGEST = 65536  # characters
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-]{8,65536}={0,2}")
_PRINTABLE = re.compile(rb"[\t\r\n\x20-\x7e]+\Z")
_USER_PASSWORD = re.compile(r"[^\s:@/]{1,64}:[^\s:/][^\s]{2,128}\Z")
_BEFORE = re.compile(
    r"(?i)(?:basic[\s\"'+,]{1,6}|_?auth\w{0,20}[\"'\]]{0,2}\s{0,3}[=:]\s{0,3}(?:basic )?[\"']?|credentials?[\"']?\s?[=:]\s?[\"']?)\Z"
)
_UPPER, _LOWER = re.compile(rb"[A-Z]"), re.compile(rb"[a-z]")
_MANIFEST = re.compile(rb"kind[\"']?:\s{0,4}[\"']?Secret\b")
_DATA = re.compile(r"\b(?:string)?[dD]ata[\"']?:[ \t]{0,4}[{\n]")
_ENTRY = re.compile(r"[ \t\n,{]{1,40}[\"']?[\w.\-]{1,128}[\"']?:[ \t]{0,4}[\"']?(?P<value>[A-Za-z0-9+/]{4,65536}={0,2})[\"']?(?=[\s,}]|\Z)")
_ENTRIES = 200


def find_encoded(source: Source, inside: Callable[[str], bool]) -> Iterator[Finding]:
    """Every base64 text that holds a secret; `inside` says whether a decoded text does."""
    yield from _in_manifests(source)
    done = 0
    for start, end in source.runs:
        if start < done or end - start > _LONGEST or not (_UPPER.search(source.raw, start, end) and _LOWER.search(source.raw, start, end)):
            continue  # base64 of text has both
        start -= len(head := source.text[max(0, start - 16) : start]) - len(
            head.rstrip("+/ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
        )
        if decoded(source.text[start : start + _HEAD]) is None:
            continue
        match = _BASE64.match(source.text, start)
        if match is None:
            continue
        done = match.end()
        plain = decoded(match.group())
        if plain is None:
            continue
        basic = _USER_PASSWORD.match(plain) and _BEFORE.search(source.text, max(0, start - 40), start)
        if basic or inside(plain):
            yield Finding(start, match.end(), "secret", "base64")
        else:
            source.stay(start, match.end(), "base64", "it decodes to text without a secret")


def decoded(encoded: str) -> str | None:
    """The text that base64 stands for, None where it is none or not printable."""
    encoded = encoded.rstrip("=").replace("-", "+").replace("_", "/")
    if len(encoded) % 4 == 1:
        encoded = encoded[:-1]
    try:
        plain = base64.b64decode(encoded + "=" * (-len(encoded) % 4))
    except (binascii.Error, ValueError):
        return None
    return plain.decode("ascii") if _PRINTABLE.match(plain) else None


def _in_manifests(source: Source) -> Iterator[Finding]:
    """Every value under `data:` of a Kubernetes Secret: the manifest itself says that they are secret."""
    if not _MANIFEST.search(source.raw):
        return
    for block in _DATA.finditer(source.text):
        at = block.end() - 1
        for _ in range(_ENTRIES):
            match = _ENTRY.match(source.text, at)
            if match is None:
                break
            if len(match["value"]) > 7:
                yield Finding(*match.span("value"), "secret", "kubernetes_secret")
            at = match.end()
