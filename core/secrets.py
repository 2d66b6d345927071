"""Secrets by their shape: detect-secrets' plugins on the lines that can matter to them, PEM blocks, passwords in URLs.

In:  a Source
Out: Findings that cover the whole secret

The plugins' own patterns and checks run (`denylist`, `is_formally_valid`, `calculate_shannon_entropy`), never the library's
driver: that one skips files by name, honours "allowlist" comments, asks services whether a secret is alive, and returns
values without a place. Each plugin sees only lines that hold a literal or a run of characters its pattern cannot do without,
which loses nothing (a test compares with every line) and is some 20 times faster.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from detect_secrets.plugins.artifactory import ArtifactoryDetector
from detect_secrets.plugins.aws import AWSKeyDetector
from detect_secrets.plugins.azure_storage_key import AzureStorageKeyDetector
from detect_secrets.plugins.base import RegexBasedDetector
from detect_secrets.plugins.cloudant import CloudantDetector
from detect_secrets.plugins.discord import DiscordBotTokenDetector
from detect_secrets.plugins.github_token import GitHubTokenDetector
from detect_secrets.plugins.gitlab_token import GitLabTokenDetector
from detect_secrets.plugins.high_entropy_strings import Base64HighEntropyString, HexHighEntropyString
from detect_secrets.plugins.ibm_cloud_iam import IbmCloudIamDetector
from detect_secrets.plugins.ibm_cos_hmac import IbmCosHmacDetector
from detect_secrets.plugins.jwt import JwtTokenDetector
from detect_secrets.plugins.mailchimp import MailchimpDetector
from detect_secrets.plugins.npm import NpmDetector
from detect_secrets.plugins.openai import OpenAIDetector
from detect_secrets.plugins.pypi_token import PypiTokenDetector
from detect_secrets.plugins.sendgrid import SendGridDetector
from detect_secrets.plugins.slack import SlackDetector
from detect_secrets.plugins.softlayer import SoftlayerDetector
from detect_secrets.plugins.square_oauth import SquareOAuthDetector
from detect_secrets.plugins.stripe import StripeDetector
from detect_secrets.plugins.telegram_token import TelegramBotTokenDetector
from detect_secrets.plugins.twilio import TwilioKeyDetector

from core.encoded import decoded
from core.findings import AFTER, BEFORE, Finding, Source, entropy, words
from core.secret_names import beside, is_public_name
from core.secret_values import is_digest, is_hex, is_placeholder, is_public_example, is_template, is_unlike_words, is_uuid

Hits = Callable[[Source], Iterator[int]]


def _literals(*texts: str) -> Hits:
    return lambda source: (at for text in texts for at in source.everywhere(text.encode()))


def _any_case(*texts: str) -> Hits:
    return lambda source: (at for text in texts for at in source.any_case(text.encode()))


def _in_runs(*texts: str) -> Hits:
    return lambda source: (at for text in texts for at in source.in_runs(text.encode()))


def _long_runs(size: int) -> Hits:
    return lambda source: (start for start, end in source.runs if end - start >= size)


class _Plugin(NamedTuple):
    """A plugin, where its matches can be, and whether the match or its group is the secret."""

    rule: str
    plugin: RegexBasedDetector
    hits: Hits
    whole: bool = True
    patterns: slice = slice(None)  # of the plugin's, where they find different things


_ASSIGNED_RUN = re.compile(rb"key|pwd|pw|pass|token")  # the names in the patterns of IBM, Cloudant and SoftLayer


def _named_runs(size: int) -> Hits:
    """Long runs on a line that also holds one of the names."""

    def hits(source: Source) -> Iterator[int]:
        for start, end in source.runs:
            if end - start >= size and _ASSIGNED_RUN.search(source.low, max(0, start - 80), end):
                yield start

    return hits


_PLUGINS = (
    _Plugin("artifactory", ArtifactoryDetector(), _literals("AKC", *(f"AP{c}" for c in "0123456789ABCDEF"))),
    _Plugin("aws_access_key", AWSKeyDetector(), _in_runs("A3T", "ABIA", "ACCA", "AKIA", "ASIA"), patterns=slice(1)),
    _Plugin("aws_secret_key", AWSKeyDetector(), _any_case("aws"), whole=False, patterns=slice(1, None)),
    _Plugin("azure_storage_key", AzureStorageKeyDetector(), _literals("AccountKey=")),
    _Plugin("cloudant", CloudantDetector(), _named_runs(24), whole=False),
    _Plugin("cloudant", CloudantDetector(), _any_case("cloudant.com")),
    _Plugin("discord", DiscordBotTokenDetector(), _long_runs(24)),
    _Plugin("github", GitHubTokenDetector(), _in_runs("ghp_", "gho_", "ghu_", "ghs_", "ghr_")),
    _Plugin("gitlab", GitLabTokenDetector(), _in_runs("glpat-", "gldt-", "glft-", "glsoat-", "glrt-", "GR1348941", "glcbt-")),
    _Plugin("gitlab", GitLabTokenDetector(), _in_runs("glimt-", "glptt-", "glagent-", "gloas-")),
    _Plugin("ibm_cloud_iam", IbmCloudIamDetector(), _named_runs(44), whole=False),
    _Plugin("ibm_cos_hmac", IbmCosHmacDetector(), _named_runs(48), whole=False),
    _Plugin("jwt", JwtTokenDetector(), _literals("eyJ")),
    _Plugin("mailchimp", MailchimpDetector(), _in_runs("-us")),
    _Plugin("npm", NpmDetector(), _literals(":_authToken="), whole=False),
    _Plugin("openai", OpenAIDetector(), _in_runs("T3BlbkFJ")),
    _Plugin("pypi", PypiTokenDetector(), _in_runs("pypi-AgE")),
    _Plugin("sendgrid", SendGridDetector(), _literals("SG.")),
    _Plugin("slack", SlackDetector(), _any_case("xoxa-", "xoxb-", "xoxp-", "xoxo-", "xoxs-", "xoxr-", "hooks.slack.com")),
    _Plugin("softlayer", SoftlayerDetector(), _named_runs(64), whole=False),
    _Plugin("softlayer", SoftlayerDetector(), _any_case("api.softlayer.com/soap/"), whole=False),
    _Plugin("square", SquareOAuthDetector(), _literals("sq0csp-")),
    _Plugin("stripe", StripeDetector(), _in_runs("k_live_")),
    _Plugin("telegram", TelegramBotTokenDetector(), _long_runs(35)),
    _Plugin("twilio", TwilioKeyDetector(), _long_runs(34)),
)

_TOKEN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def find_by_plugins(source: Source) -> Iterator[Finding]:
    """What detect-secrets' token plugins find, each widened to the whole run of token characters."""
    for entry in _PLUGINS:
        seen = -1
        for at in sorted(entry.hits(source)):
            if at < seen:
                continue  # this stretch was looked at for an earlier hit
            start, end = source.line_around(at)
            seen = end if end < at + AFTER else end - BEFORE
            yield from _matches(entry, source, start, end)


def _matches(entry: _Plugin, source: Source, start: int, end: int) -> Iterator[Finding]:
    line = source.text[start:end]
    for pattern in list(entry.plugin.denylist)[entry.patterns]:
        for match in pattern.finditer(line):
            group = 0 if entry.whole or not match.re.groups else next((n for n, found in enumerate(match.groups(), 1) if found), 0)
            left, right = match.span(group)
            left, right = _trimmed(line, left, right)
            value = line[left:right]
            if isinstance(entry.plugin, JwtTokenDetector) and not entry.plugin.is_formally_valid(value):
                continue
            if entry.rule == "azure_storage_key":
                left += len("AccountKey=")
            if group == 0 and line[left - 1 : left].isalnum() and line[left - 2 : left - 1] != "\\":
                continue  # inside a longer word or blob
            if len(set(value)) < 8 or is_public_example(value) or is_placeholder(value) or is_digest(value, line[:left]):
                source.stay(start + left, start + right, entry.rule, "a placeholder, public example or digest")
                continue
            yield Finding(start + left, start + _widened(line, left, right), "secret", entry.rule)


def _trimmed(line: str, left: int, right: int) -> tuple[int, int]:
    """Without the quotes, blanks and operators that a pattern swallows at its ends."""
    while left < right and line[left] in " \t\"'=:`":
        left += 1
    while left < right and line[right - 1] in " \t\"'`;,":
        right -= 1
    return left, right


def _widened(line: str, left: int, right: int) -> int:
    """The end of the run that the match stands in, and over the third part of a JWT that the plugin leaves."""
    dotted = line.startswith("eyJ", left)
    while right < len(line) and (line[right] in _TOKEN or (dotted and line[right] == "." and line[right + 1 : right + 2] in _TOKEN)):
        right += 1
    return right


_QUOTED = re.compile(rb"""(['"])([A-Za-z0-9+/=_\-\\]{9,})\1""")  # nine: eight hex digits have 3.0 bits at most, the limit is more than that
_BASE64, _HEX = Base64HighEntropyString(), HexHighEntropyString()
_SECRET_NAME = re.compile(
    r"(?i)(?<!public)(?:secret|passw|pwd|token|cred|salt|nonce|_key\b|bearer|\bauth(?!or)"
    r"|(?:api|access|auth|private|priv|encrypt\w*|signing|account|master|client|service|app|consumer|license)[_\- ]?key)"
)
_IDENTIFIED = re.compile(r"(?i)::|(?<![a-z])id['\"]?\s?[=:]\s?['\"]\Z")  # a namespace before the name, or the value is somebody's id
_JWK_PUBLIC = re.compile(r"\"kty\".*\"(?:x|y|n|x5c)\":\s?\[?\"\Z")  # RFC 7518 section 6: the public members
_MAX_NEUTRAL = 256  # characters; longer blobs without a telling name are images, test vectors, pickles


def find_by_entropy(source: Source) -> Iterator[Finding]:
    """Quoted random-looking strings: detect-secrets' two entropy plugins, less digests, UUIDs, words and examples."""
    for match in _QUOTED.finditer(source.raw):
        start, end = match.span(2)
        value = source.text[start:end].rstrip("\\")  # of an escaped quote
        end = start + len(value)
        if len(value) < 23 and not is_hex(value):
            continue  # 4.5 bits per character take 23 different ones
        by_hex = is_hex(value) and _HEX.calculate_shannon_entropy(value) > _HEX.entropy_limit
        if not by_hex and entropy(value) <= _BASE64.entropy_limit:  # the plugin's own figure, four times as fast
            continue
        before = source.text[max(source.line_around(start)[0], start - 200) : start]
        named = bool(_SECRET_NAME.search(before)) and not _IDENTIFIED.search(before)
        if (is_hex(value) or len(value) > _MAX_NEUTRAL) and not named:
            source.stay(start, end, "entropy", "a bare constant of digits, as digests are, or a blob")
            continue
        harmless = is_public_example(value) or is_uuid(value) or is_digest(value, before) or not is_unlike_words(value)
        if (
            harmless or is_public_name(beside(before)) or _JWK_PUBLIC.search(before) or (not named and decoded(value) is not None)
        ):  # find_encoded looks into it
            source.stay(start, end, "entropy", "a digest, an identifier, words or a public example")
            continue
        yield Finding(start, end, "secret", "hex_entropy" if by_hex else "base64_entropy")


_PEM_BEGIN = re.compile(r"---(?:--| )BEGIN (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)? ?---(?:--|-)")
_PEM_END = re.compile(r"-----END (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----")
_PEM_TAIL = re.compile(r"[A-Za-z0-9+/=\\nr\s]{64,16384}\Z")
_PEM_BODY = re.compile(r"[A-Za-z0-9+/=]{16}|\\[nr]")
_PEM_LIMIT = 16384  # characters; an RSA key of 8192 bits has 6,400
_PUTTY = re.compile(r"Private-Lines: \d{1,3}\r?\n((?:[A-Za-z0-9+/=]{1,80}\r?\n){1,200})")
_JWK = re.compile(r"\"(?:d|p|q|dp|dq|qi|k)\"\s{0,4}:\s{0,4}\"([\w\-+/=]{16,8192})\"")  # RFC 7518 section 6: the private members
_RSA_XML = re.compile(r"<(D|P|Q|DP|DQ|InverseQ)>([A-Za-z0-9+/=\s]{16,8192})</\1>")  # .NET's RSA.ToXmlString
_BYTES = re.compile(r"(?:0x[0-9A-Fa-f]{1,2}|\d{1,3})(?:\s{0,16},\s{0,16}(?:\(byte\)\s?)?(?:0x[0-9A-Fa-f]{1,2}|\d{1,3})){15,511}")
_KEY_BYTES = re.compile(
    r"(?i)(?<!public)(?<!pub)[_ ]?(?:key|secret|iv|salt|seed|token|password)\w{0,12}(?:\[\w{0,16}\])?[^\n;]{0,64}[{(\[]\s{0,16}\Z"
)


def find_pem(source: Source) -> Iterator[Finding]:
    """Private keys in PEM, SSH2, PuTTY, JWK and .NET's XML form: all between the first line and the last, or to the end of the base64."""
    done = 0
    for at in source.everywhere(b"BEGIN "):
        begin = _PEM_BEGIN.match(source.text, max(0, at - 5)) if at >= done else None
        if begin is None:
            continue
        close = source.raw.find(b"END", begin.end(), begin.end() + _PEM_LIMIT)
        close = source.raw.rfind(b"---", begin.end(), close) if close != -1 else close
        close -= len(source.raw[begin.end() : close]) - len(source.raw[begin.end() : close].rstrip(b"-")) if close != -1 else 0
        end = close if close != -1 else _base64_end(source.text, begin.end())
        body = source.text[begin.end() : end]
        if _PEM_BODY.search(body) and len(set(body)) > 20 and not is_template(body.strip()):
            left = len(body) - len(body.lstrip())
            done = end
            yield Finding(begin.end() + left, begin.end() + len(body.rstrip()), "secret", "private_key")
    yield from _headless(source)
    for at in source.everywhere(b"Private-Lines: "):
        match = _PUTTY.match(source.text, at)
        if match:
            yield Finding(match.start(1), match.end(1) - 1, "secret", "private_key")
    if b'"kty"' in source.raw:
        yield from (Finding(*match.span(1), "secret", "jwk") for match in _JWK.finditer(source.text))
    if b"<RSAKeyValue>" in source.raw or b"<InverseQ>" in source.raw:
        yield from (Finding(*match.span(2), "secret", "rsa_xml") for match in _RSA_XML.finditer(source.text))


def _headless(source: Source) -> Iterator[Finding]:
    """The end of a private key whose first line was cut off."""
    last = 0
    for at in source.everywhere(b"-----END "):
        end = _PEM_END.match(source.text, at)
        if end and source.raw.rfind(b"-----BEGIN", last, at) == -1:
            body = _PEM_TAIL.search(source.text, max(last, at - _PEM_LIMIT), at)
            if body and len(set(body.group())) > 20:
                start = body.end() - len(body.group().lstrip())
                yield Finding(start, start + len(body.group().strip()), "secret", "private_key")
        last = at


def find_key_bytes(source: Source) -> Iterator[Finding]:
    """Keys as arrays of 16 bytes or more: `aes_key[16] = { 0x.., ... }`."""
    for opening in (b"{", b"[", b"("):
        for at in source.everywhere(opening + b"0x") if opening != b"{" else _arrays(source):
            match = _BYTES.match(
                source.text,
                at + len(opening) + len(source.text[at + len(opening) : at + 16]) - len(source.text[at + len(opening) : at + 16].lstrip()),
            )
            if match and len(set(match.group())) > 10 and _KEY_BYTES.search(source.text, max(0, at - 96), at + len(opening)):
                yield Finding(*match.span(), "key_bytes", "key_bytes")


def _arrays(source: Source) -> Iterator[int]:
    return (at for at in source.everywhere(b"{") if source.raw[at + 1 : at + 8].lstrip()[:1].isdigit())


_BASE64_LINES = re.compile(r"(?:[A-Za-z0-9+/=]|\\[nr]|[\s\"'+,]){0,16384}")


def _base64_end(text: str, at: int) -> int:
    match = _BASE64_LINES.match(text, at)
    return match.end() if match else at


_DER = re.compile(rb"MII[A-Za-z0-9+/\\\s]{200,}")


def find_der(source: Source) -> Iterator[Finding]:
    """Private keys as bare base64: a DER sequence that begins with version 0 (RFC 8017 A.1.2, RFC 5958)."""
    end = 0
    for at in source.everywhere(b"MII"):
        if at < end or (at and source.raw[at - 1 : at].isalnum()):
            continue
        try:
            head = base64.b64decode(source.raw[at : at + 12], validate=True)
        except binascii.Error:
            continue
        match = _DER.match(source.raw, at)
        if match and head[:2] == b"\x30\x82" and head[4:7] == b"\x02\x01\x00":
            end = match.end()
            yield Finding(at, at + len(match.group().rstrip(b"\\ \r\n")), "secret", "private_key")


_URL_PASSWORD = re.compile(  # up to the last @ before a slash; a password with a bare slash only if nothing else fits
    r"://[^\s/:@'\"`<>\\?#]{0,128}:(?:([^\s/'\"`<>\\]{2,256})|([^\s@'\"`<>\\]{2,256}))@[\w\[.$({%\-]"
)


def find_url_passwords(source: Source) -> Iterator[Finding]:
    """The password of `scheme://user:password@host` (RFC 3986 section 3.2.1; detect-secrets' BasicAuthDetector)."""
    for at in source.everywhere(b"://"):
        match = _URL_PASSWORD.match(source.text, at)
        if match and _is_url_password(match[match.lastindex or 0]):
            yield Finding(*match.span(match.lastindex or 0), "secret", "url_password")
        elif match:
            source.stay(*match.span(match.lastindex or 0), "url_password", "a stock word, a placeholder or no password")


_STOCK_PASSWORDS = words(  # of documentation and containers: masking them would only make examples unreadable
    """password pass passwd pwd secret user username token postgres root admin guest test mysql rabbitmq redis mongo minioadmin host
    port pw key apikey api_key api-key xxx credentials foo bar baz tiger"""
)


def _is_url_password(value: str) -> bool:
    if "/" in value and not any(map(str.isdigit, value)):
        return False  # `://host:port/path@ref`, not userinfo
    if re.match(r"\d{1,5}/", value):
        return False
    return value.lower() not in _STOCK_PASSWORDS and not re.fullmatch("[A-Z_]+", value) and not is_placeholder(value)
