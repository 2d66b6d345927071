"""The rules by which BigCode redacted its training sets, written again from what it published, to be compared with.

In:  a file on disk, under its name, and its text
Out: keys, e-mail and network addresses

From bigcode-dataset's `pii` folder: 18 plugins of detect-secrets without BasicAuth, Keyword and PrivateKey; four filters; no
key of 32, 40 or 64 characters on a line that speaks of a digest, and none at all in a file where "sha" or "hash" is more
frequent than one in fifty lines; every place of a key. One expression each for e-mail and network addresses; of these no
private ones, no public resolvers, no dates and no versions of single digits. Placeholders as in StarCoderData.

Left out: the gibberish filter of keys (a model trained on a book that is not at hand). It turns some keys down, so with it
both recall and the harmless rows changed would be lower.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager

from detect_secrets.settings import transient_settings

from core.findings import Finding, words
from eval.bench.detect_secrets_peer import values
from eval.bench.masking import Case, Masked, System, everywhere, merged, replaced

PLUGINS = (
    "ArtifactoryDetector", "AWSKeyDetector", "Base64HighEntropyString", "HexHighEntropyString", "AzureStorageKeyDetector",
    "CloudantDetector", "DiscordBotTokenDetector", "GitHubTokenDetector", "IbmCloudIamDetector", "IbmCosHmacDetector",
    "JwtTokenDetector", "MailchimpDetector", "NpmDetector", "SendGridDetector", "SlackDetector", "SoftlayerDetector",
    "StripeDetector", "TwilioKeyDetector",
)  # fmt: skip
FILTERS = ("is_potential_uuid", "is_likely_id_string", "is_templated_secret", "is_sequential_string")
RESOLVERS = words(
    "8.8.8.8 8.8.4.4 1.1.1.1 1.0.0.1 76.76.19.19 76.223.122.150 9.9.9.9 149.112.112.112 208.67.222.222 208.67.220.220 "
    "8.26.56.26 8.20.247.20 94.140.14.14 94.140.15.15"
)
DIGEST_LENGTHS, DIGEST_WORDS = (32, 40, 64), ("sha", "md5", "hash", "byte")
HASHES_PER_LINE = 0.02
NEAR = 100  # characters around an address where "dns" or "server" says that it is no version

HAN = "\u4e00-\u9fff"
BEFORE = rf"\s@,?!;:'\"(.{HAN})"
AFTER = rf"\s@,?!;:'\"(.{HAN}"
EMAIL = re.compile(
    rf"(?<![^{BEFORE}<])"
    r"[^\b\s@?!;,:)('\"<]+@[^\b\s@!?;,/]*[^\b\s@?!;,/:)('\">.]\.[^\W\d_]\w+"
    rf"(?=$|[{AFTER})>])",
    re.MULTILINE,
)


def _ip_forms() -> str:
    """IPv4, then IPv6 whole, with `::` in each place, and with an IPv4 tail."""
    byte, group = r"(?:25[0-5]|2[0-4]\d|[01]?\d?\d)", "[0-9a-fA-F]{1,4}"
    ipv4 = rf"{byte}(?:\.{byte}){{3}}"
    gaps = [rf"(?:{group}:){{1,{left}}}(?::{group}){{1,{7 - left}}}" for left in range(6, 0, -1)]
    tails = [rf"::(?:ffff(?::0{{1,4}})?:)?{ipv4}", rf"(?:{group}:){{1,4}}:{ipv4}"]
    return "|".join([ipv4, rf"(?:{group}:){{7}}{group}", rf"(?:{group}:){{1,7}}:", *gaps, rf":(?:(?::{group}){{1,7}}|:)", *tails])


IP = re.compile(rf"(?<![^{BEFORE}])(?:{_ip_forms()})(?=$|[{AFTER}])", re.MULTILINE)
DATE = re.compile(r"[0-3]\d\.[0-3]\d\.(?:\d\d|[12]\d{3})(?:$|\.)")  # the one date form that an address can have


def settings() -> AbstractContextManager[object]:
    """detect-secrets with BigCode's plugins and filters."""
    filters = [{"path": f"detect_secrets.filters.heuristic.{name}"} for name in FILTERS]
    return transient_settings({"plugins_used": [{"name": name} for name in PLUGINS], "filters_used": filters})


def is_digest(text: str, key: str) -> bool:
    """Whether a key is as long as a digest and the words before it on its line name one."""
    at = text.find(key)
    before = text[text.rfind("\n", 0, max(at, 0)) + 1 : max(at, 0)].lower()
    return len(key) in DIGEST_LENGTHS and any(word in before for word in DIGEST_WORDS)


def has_hashes(text: str) -> bool:
    """Whether "sha" or "hash" is so frequent in a file that none of its keys is redacted; in one under 50 lines once is enough."""
    allowed, low = int(HASHES_PER_LINE * text.count("\n")), text.lower()
    return low.count("sha") > allowed or low.count("hash") > allowed


def keys(case: Case) -> Iterator[Finding]:
    """Every place of every key."""
    found = values(case.file)
    if found and not has_hashes(case.text):
        for key in found:
            if not is_digest(case.text, key):
                yield from everywhere(case.text, key, "key", "bigcode")


def emails(text: str) -> Iterator[Finding]:
    """What looks like an e-mail address."""
    return (Finding(*match.span(), "email", "bigcode") for match in EMAIL.finditer(text))


def addresses(text: str) -> Iterator[Finding]:
    """Network addresses that may be somebody's."""
    for match in IP.finditer(text):
        start, end = match.span()
        near = text[max(0, start - NEAR) : end + NEAR].lower()
        version = match[0].count(".") == 3 and len(match[0]) == 7 and "dns" not in near and "server" not in near
        if not version and not DATE.match(match[0]) and _is_public(match[0]):
            yield Finding(start, end, "ipv6" if ":" in match[0] else "ipv4", "bigcode")


def _is_public(text: str) -> bool:
    try:
        return text not in RESOLVERS and any(map(str.isdigit, text)) and not ipaddress.ip_address(text).is_private
    except ValueError:
        return False


def find(case: Case) -> list[Finding]:
    """Everything that the rules redact."""
    return merged([*keys(case), *emails(case.text), *addresses(case.text)])


_PLACEHOLDERS = {"key": "<KEY>", "email": "<EMAIL>", "ipv4": "192.168.127.12", "ipv6": "fd00::1"}


def mask(case: Case) -> Masked:
    """The text with placeholders for what the rules redact."""
    return replaced(case.text, find(case), lambda kind, _: _PLACEHOLDERS[kind])


SYSTEM = System("BigCode's rules", settings, find, mask)
