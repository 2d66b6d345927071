"""Whether a value looks like a secret, judged by the value itself: placeholder, words, digest, public example.

In:  a value, and where needed the text before it on its line
Out: yes or no
"""

from __future__ import annotations

import itertools
import re

from detect_secrets.filters.heuristic import is_potential_uuid, is_sequential_string

from core.findings import entropy, words

_TEMPLATE = re.compile(
    r"^<[^<>]*>$|^\[[^\[\]]*\]$|^\$[A-Za-z_][\w.>\-\[\]:'\"]*$|^[&*]\w+$|^@@|^@\w+@$|^![a-z_]+$|^\{[^{}]*\}$"
    r"|\$\{[\w.:\-]+[^{}]*\}|\{\{.*\}\}|\{\{\s*\w+"
    r"|%\(\w+\)|#\{[^{}]*\}|<%.*%>|\$\([\w ./\-]+\)?|%[sdr]$|^%\w+%$|\{[A-Za-z_][\w.!:\[\]]{0,40}\}|\{\d?\}|<[A-Z_0-9]+>|^__\w+__$"
)
_THICKET = re.compile(r"[!#$%^&*()\[\]{}|;?<>+=~]")
_SEEN = 160  # characters of a value that are enough to judge it
_PLACEHOLDER = re.compile(
    r"(?i)your|example|change.?(?:me|it|this)|placeholder|dummy|sample|insert|replace|redacted|to.?do|fixme|(?<![a-z0-9])fake|mock|foo.?bar"
    r"|(?<![a-z0-9])(?:none|null|nil|true|false|undefined|default|empty|optional|required|string|hidden|masked|removed|unset)(?![a-z0-9])"
    r"|x{4,}|^x+$|\*{3,}|\.{3,}|_{4,}|-{5,}|0{6,}|(?<![a-z0-9])here$|goes.?here|\\[bwdsS]|\(\?[=:!<]|\[[A-Za-z0-9]-[A-Za-z0-9]|^![a-z]+$"
)
_SEQUENCE = re.compile(r"(?i)1234567|abcdefg|abc123|qwerty")
_PUBLIC = re.compile(
    r"EXAMPLE|example|AKIAIOSFODNN7|wJalrXUtnFEMI"  # AWS documentation
    r"|^eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9\.eyJzdWIiOiIxMjM0NTY3ODkwIi"  # the sample of jwt.io
)
# Encrypted by SOPS or sealed-secrets; ids and publishable tokens of Mapbox, PostHog, Stripe; how PNG, JPEG, GIF, WebP, SVG, PDF
# and fonts begin in base64; public keys of age, SSH, Bitcoin, RSA.
_DATA = re.compile(
    r"ENC\[|Ag[A-D][A-Za-z0-9+/]{20}|pk\.eyJ|phc_|price_|prod_|cus_"
    r"|iVBORw0KGgo|/9j/|R0lGOD|UklGR|PHN2Z|JVBER|AAEAAA|d09GR|T1RUT|pk_(?:live|test)_|age1[a-z0-9]{50}|AAAA[BCE]3Nza"
    r"|bc1[a-z0-9]{30}|MII[A-Za-z]{2}jANBgkq|MFkwEwYHKoZI|MCowBQYDK2Vw|0x[0-9a-fA-F]{40}$"
)
_WORDS = re.compile(r"[A-Z][a-z]{2,}|[a-z]{3,}|[A-Z]{3,}")
_SEPARATORS = re.compile(r"[_\-./:]")
_PAIRS = words(  # the 160 commonest pairs of letters in the names of Python's packages: 83% of all pairs there, 24% in random letters
    """ab ac ad ag ai al am an ap ar as at ba be bi bl bo ca ce ch ci ck cl co cr ct cu da de di do ds ea ec ed ee ef eg el em
    en ep er es et ev ex ff fi fo ge gr ha he hi ho ia ib ic id ie if ig il im in io ip ir is it iv iz ke la le li ll lo ls lt
    ly ma me mi mo mp na nc nd ne ng ni no ns nt oc od ol om on oo op or os ot ou ow pa pe pi pl po pp pr pt qu ra rd re ri rm
    ro rr rs rt sa sc se sh si so sp ss st su ta te th ti to tr ts tt tu ty ub ul um un up ur us ut va ve vi wa yp ze"""
)
_LIKE_A_WORD = 0.6  # of its pairs; a random string of 16 letters and digits is half such words once in 80 times, names 11 times in 12
_HEX = re.compile(r"[0-9a-fA-F]+\Z")
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-]+={0,2}\Z")
_DIGEST_HEX = frozenset({32, 40, 48, 56, 64, 96, 128})  # md5, sha1, tiger, sha224, sha256, sha384, sha512
_DIGEST_BASE64 = frozenset({22, 24, 27, 28, 38, 40, 43, 44, 64, 86, 88})
_DIGEST_NAME = re.compile(
    r"(?i)sha-?_?(?:1|2|3|224|256|384|512)(?![a-z])|md5|checksum|digest|integrity|commit|revision|\brev\b|hash(?!i?corp)|fingerprint|etag"
    r"|\bh1:|uses: |git\+|@$|blake|crc|\bsum\b|signature|oid sha|expected|resolved|blob|\btree\b|\bparent\b"
)
_DIGEST_HEAD = re.compile(r"(?i)^(?:sha\d{1,3}|md5|blake\w*)[-:=$]|^h1:|^scram-sha")
_DIGEST_RIGHT_BEFORE = re.compile(
    r"(?i)(?:(?:sha-?_?\d{1,3}|md5|checksum|etag|integrity)[\"']?\s{0,3}[=:]\s{0,3}(?:W/)?\\?[\"']{0,2}\\?[\"']?"
    r"|site-verification[\"'] content=[\"'])\Z"
)


def is_template(value: str) -> bool:
    """Something to be filled in at run time: `${NAME}`, `{{ name }}`, `<name>`, `%(name)s`, `$NAME`.

    A value whose remainder is a thicket of symbols is a password that has braces in it.
    """
    value = value[:_SEEN]
    if not _TEMPLATE.search(value):
        return False
    rest = _TEMPLATE.sub("", value)
    return len(rest) < 8 or len(set(_THICKET.findall(rest))) < 3


def is_placeholder(value: str) -> bool:
    """A stand-in that somebody wrote instead of a secret."""
    return is_stand_in(value) or bool(_SEQUENCE.search(value[:_SEEN])) or is_sequential_string(value)


def is_stand_in(value: str) -> bool:
    """A word or a template where a secret will stand; what people also choose as a password, such as `qwerty1`, is none."""
    return len(set(value)) <= 3 or is_template(value) or bool(_PLACEHOLDER.search(value[:_SEEN]))


def is_public_example(value: str) -> bool:
    """A value that is for everyone: one of a vendor's documentation, a publishable key, a public key, an image or a font."""
    return bool(_PUBLIC.search(value) or _DATA.match(value))


def is_wordy(value: str, share: float = 0.5) -> bool:
    """At least this share of it is words: an identifier, a path, a sentence."""
    value = value[:_SEEN]
    needed = share * len(_SEPARATORS.sub("", value))
    runs = _WORDS.findall(value)
    return sum(map(len, runs)) >= needed and sum(len(run) for run in runs if _is_word(run)) >= needed


def _is_word(run: str) -> bool:
    """A run of letters that follow each other as letters of words do."""
    low = run.lower()
    return sum(low[at : at + 2] in _PAIRS for at in range(len(low) - 1)) >= _LIKE_A_WORD * (len(low) - 1)


def is_digest(value: str, before: str) -> bool:
    """A checksum, commit or lockfile hash: the length of one, and the text before it on the line says so."""
    if _DIGEST_HEAD.match(value) or _DIGEST_RIGHT_BEFORE.search(before[-48:]):
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
    if len(value) < 16 or entropy(value) < (2.8 if is_hex(value) else 3.2):
        return False
    return is_unlike_words(value)


def is_unlike_words(value: str) -> bool:
    """Letters and digits, not made of words, and no placeholder."""
    mixed = any(map(str.isdigit, value)) and any(map(str.isalpha, value))
    return mixed and not is_wordy(value) and not is_placeholder(value)


_PATH = re.compile(
    r"^(?:[a-z][a-z0-9+.\-]*:)?/{1,2}[A-Za-z]|^\.{1,2}/|/[a-z]{3,}/|^[a-z]{3,}/[a-z]{2,}|\.(?:com|org|net|io|py|js|html?"
    r"|json|ya?ml|txt|md|png)(?:$|[/:])"
)


def is_path(value: str) -> bool:
    """A file's or a web page's place."""
    return bool(_PATH.search(value))


_NAME_PATH = re.compile(r"[a-z]{2,16}\d{0,2}(?:[._\-/][a-z]{2,16}\d{0,2}){1,8}\Z")  # `lin0.base_layer.weight`


def looks_generated(value: str, shortest: int = 10) -> bool:
    """Characters mixed as no person writes them: what `is_random` asks, of a shorter value or of letters alone."""
    if _NAME_PATH.match(value):
        return False
    if is_random(value):
        return True
    if value.isalpha() and value.isascii():
        return len(value) >= 20 and not is_wordy(value, 0.4) and not value.isupper() and entropy(value) > 3.2
    kinds = ["d" if c.isdigit() else "u" if c.isupper() else "l" if c.islower() else "s" for c in value]
    turns = sum(a != b for a, b in itertools.pairwise(kinds))
    return (
        shortest <= len(value)
        and value.isascii()
        and kinds.count("d") >= (2 if len(value) > 9 and turns < 5 else 1)
        and turns >= 3
        and entropy(value) >= 2.7
        and not is_wordy(value, 0.4)
        and not is_placeholder(value)
    )
