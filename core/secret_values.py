"""Whether a value looks like a secret, judged by the value itself: placeholder, words, digest, public example.

In:  a value, and where needed the text before it on its line
Out: yes or no
"""

from __future__ import annotations

import re

from detect_secrets.filters.heuristic import is_potential_uuid, is_sequential_string

from core.findings import entropy

_TEMPLATE = re.compile(r"^<.*>$|^\[.*\]$|^\$[A-Za-z_]|^[&*]\w+$|^@@|^\{|\}$|\$\{|\{\{|%\(|#\{|<%|\$\(|%[sdr]$|\{\w{0,40}\}|<[A-Z_0-9]+>")
_SEEN = 160  # characters of a value that are enough to judge it
_PLACEHOLDER = re.compile(
    r"(?i)your|example|change.?(?:me|it|this)|placeholder|dummy|sample|insert|replace|redacted|to.?do|fixme|(?<![a-z])fake|mock|foo.?bar"
    r"|(?<![a-z])(?:none|null|nil|true|false|undefined|default|empty|optional|required|string|hidden|masked|removed|unset)(?![a-z])"
    r"|x{3,}|\*{3,}|\.{3,}|_{4,}|-{5,}|0{6,}|1234567|abcdefg|abc123|qwerty|here$|goes.?here"
)
_PUBLIC = re.compile(
    r"EXAMPLE|example|AKIAIOSFODNN7|wJalrXUtnFEMI"  # AWS documentation
    r"|^eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9\.eyJzdWIiOiIxMjM0NTY3ODkwIi"  # the sample of jwt.io
)
_WORDS = re.compile(r"[A-Z]?[a-z]{3,}|[A-Z]{4,}(?![a-z])")
_SEPARATORS = re.compile(r"[_\-./:]")
_VOWEL = re.compile(r"[aeiouyAEIOUY]")
_HEX = re.compile(r"[0-9a-fA-F]+\Z")
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-]+={0,2}\Z")
_DIGEST_HEX = frozenset({32, 40, 48, 56, 64, 96, 128})  # md5, sha1, tiger, sha224, sha256, sha384, sha512
_DIGEST_BASE64 = frozenset({22, 24, 27, 28, 38, 40, 43, 44, 64, 86, 88})
_DIGEST_NAME = re.compile(
    r"(?i)sha-?_?(?:1|2|3|224|256|384|512)(?![a-z])|md5|checksum|digest|integrity|commit|revision|\brev\b|hash(?!i?corp)|fingerprint|etag"
    r"|\bh1:|uses: |git\+|@$|blake|crc|\bsum\b|signature|oid sha|expected|resolved|blob|\btree\b|\bparent\b"
)
_DIGEST_HEAD = re.compile(r"(?i)^(?:sha\d{1,3}|md5|blake\w*)[-:=$]|^h1:")


def is_template(value: str) -> bool:
    """Something to be filled in at run time: `${NAME}`, `{{ name }}`, `<name>`, `%(name)s`, `$NAME`."""
    return bool(_TEMPLATE.search(value[:_SEEN]))


def is_placeholder(value: str) -> bool:
    """A stand-in that somebody wrote instead of a secret."""
    return len(set(value)) <= 3 or is_template(value) or bool(_PLACEHOLDER.search(value[:_SEEN])) or is_sequential_string(value)


def is_public_example(value: str) -> bool:
    """A value that a vendor's documentation shows to everyone."""
    return bool(_PUBLIC.search(value))


def is_wordy(value: str, share: float = 0.5) -> bool:
    """At least this share of it is words: an identifier, a path, a sentence. Random text of 16 characters is hardly ever half words."""
    value = value[:_SEEN]
    return sum(len(word) for word in _WORDS.findall(value) if _VOWEL.search(word)) >= share * len(_SEPARATORS.sub("", value))


def is_digest(value: str, before: str) -> bool:
    """A checksum, commit or lockfile hash: the length of one, and the text before it on the line says so."""
    if _DIGEST_HEAD.match(value):
        return True
    size = len(value)
    shaped = (size in _DIGEST_HEX and _HEX.match(value)) or (size in _DIGEST_BASE64 and _BASE64.match(value))
    return bool(shaped and _DIGEST_NAME.search(before[-120:]))


def is_uuid(value: str) -> bool:
    """A UUID: an identifier, not a secret, unless its name says otherwise."""
    return bool(is_potential_uuid(value))


def is_hex(value: str) -> bool:
    """Hexadecimal digits only."""
    return bool(_HEX.match(value))


def is_random(value: str) -> bool:
    """Letters and digits mixed as a generator mixes them, 16 characters or more."""
    if len(value) < 16 or not (any(map(str.isdigit, value)) and any(map(str.isalpha, value))):
        return False
    return entropy(value) >= (2.8 if is_hex(value) else 3.2) and not is_wordy(value) and not is_placeholder(value)
