"""Secrets and personal data in a text: where they are, and the text without them.

In:  text
Out: `find`: spans; `mask`: the text with placeholders in their stead, and where those stand

Phase 1 masks with it, phase 4 keeps secrets out of prompts, eval looks for leaks. Nothing here reads a file, asks a service
or keeps a value. The placeholders are reserved names and addresses (RFC 2606, 5737, 3849): code keeps its quotes and its
shape, equal values stay equal within a file, and no rule takes a placeholder for something to mask.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from core.assigned import find_assigned
from core.commands import find_in_commands
from core.encoded import find_encoded
from core.findings import Finding, Source, Stayed
from core.generated import find_generated
from core.pii import find_authors, find_emails, find_ipv4, find_ipv6, find_phones, find_trailers, find_user_paths
from core.secrets import find_by_entropy, find_by_plugins, find_der, find_key_bytes, find_pem, find_url_passwords
from core.vendor_tokens import find_tokens

__all__ = ["Finding", "Redaction", "Stayed", "explain", "find", "mask"]

_SECRETS = (
    find_tokens, find_by_plugins, find_pem, find_der, find_key_bytes, find_url_passwords, find_in_commands, find_assigned,
    find_generated, find_by_entropy,
)  # fmt: skip
_PERSONAL = (find_emails, find_ipv4, find_ipv6, find_user_paths, find_trailers, find_authors, find_phones)
_ROUNDS = 6  # masking once is enough nearly always; a placeholder may uncover a shorter match beside it
_PLAIN_FROM = 3  # rounds after which everything gets the placeholder that looks like nothing else
_MANY = 200  # secrets in one text
_MIN_REPEATED = 8  # characters; a shorter value elsewhere is a coincidence


class Redaction(NamedTuple):
    """Characters [start, end) of the redacted text, and what stood there (core.records.REDACTION)."""

    kind: str
    start: int
    end: int
    rule: str


def find(text: str) -> list[Finding]:
    """Everything that must not be passed on, in order, without overlaps.

    Findings that overlap become one that covers them all and has the name of the longest. A secret of 8 characters or more
    is found wherever it stands again.
    """
    return _found(Source(text))


def explain(text: str) -> tuple[list[Finding], list[Stayed]]:
    """What `find` finds, and what the rules looked at and left, with the reason; a place that both name is found."""
    source = Source(text, explain=True)
    findings = _found(source)
    left = {note for note in source.stayed or () if not any(f.start < note.end and note.start < f.end for f in findings)}
    return findings, sorted(left)


def _found(source: Source) -> list[Finding]:
    found = {finding for rule in (*_SECRETS, *_PERSONAL) for finding in rule(source)}
    found.update(find_encoded(source, _holds_secret))
    if not found:
        return []
    merged = _merge(sorted(found))
    return _merge(sorted({*merged, *_repeated(source.text, merged)}))


def _holds_secret(decoded: str) -> bool:
    """Whether a text that was decoded from base64 holds a secret; one layer is enough to look at."""
    source = Source(decoded)
    return any(True for rule in _SECRETS for _ in rule(source))


def _merge(findings: list[Finding]) -> list[Finding]:
    merged: list[Finding] = []
    for finding in findings:
        if merged and finding.start < merged[-1].end:
            last = merged[-1]
            longest = max(last, finding, key=lambda f: f.end - f.start)
            merged[-1] = longest._replace(start=last.start, end=max(last.end, finding.end))
        else:
            merged.append(finding)
    return merged


def _repeated(text: str, findings: list[Finding]) -> Iterator[Finding]:
    """The same secrets elsewhere; one that could be an identifier counts only inside quotes."""
    edges = [0, *(edge for finding in findings for edge in finding[:2]), len(text)]
    elsewhere = "\0".join(text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True))
    secrets = {text[f.start : f.end]: f for f in findings if f.kind == "secret" and f.end - f.start >= _MIN_REPEATED}
    if len(secrets) > _MANY:  # a search for each would take minutes in a file that is nothing but secrets
        heads = {elsewhere[at : at + _MIN_REPEATED] for at in range(len(elsewhere))}
        secrets = {value: finding for value, finding in secrets.items() if value[:_MIN_REPEATED] in heads}
    for value, finding in secrets.items():
        if value not in elsewhere:
            continue
        name_like = value.isidentifier() and len(value) < 20
        at = text.find(value)
        while at != -1:
            end = at + len(value)
            around = text[max(0, at - 1) : at] + text[end : end + 1]
            if not name_like or (len(around) == 2 and around[0] == around[1] and around[0] in "\"'`"):
                yield finding._replace(start=at, end=end)
            at = text.find(value, end)


def mask(text: str) -> tuple[str, list[Redaction]]:
    """The text with a placeholder for every finding, and where the placeholders stand in it.

    `find` returns nothing for the result, so masking twice changes nothing more.
    """
    redactions: list[Redaction] = []
    known: Known = {}
    for number in range(_ROUNDS):
        findings = find(text)
        if not findings:
            break
        if number >= _PLAIN_FROM:  # a placeholder of its kind was taken for another value
            findings = [finding._replace(kind="secret") for finding in findings]
        text, redactions = _replace(text, findings, redactions, known)
    return text, redactions


Known = dict[str, dict[str, str]]  # kind to value to placeholder, for one text


def _replace(text: str, findings: list[Finding], earlier: list[Redaction], known: Known) -> tuple[str, list[Redaction]]:
    """One round: the new text, and all redactions so far with their places in it."""
    pieces: list[str] = []
    redactions: list[Redaction] = []
    at = shift = 0
    left = deque(earlier)
    for finding in _over_whole_placeholders(findings, earlier):
        while left and left[0].start < finding.end:
            old = left.popleft()
            if old.end <= finding.start:  # else the new finding swallowed it
                redactions.append(old._replace(start=old.start + shift, end=old.end + shift))
        placeholder = _placeholder(finding.kind, text[finding.start : finding.end], known)
        pieces += [text[at : finding.start], placeholder]
        start = finding.start + shift
        redactions.append(Redaction(finding.kind, start, start + len(placeholder), finding.rule))
        shift += len(placeholder) - (finding.end - finding.start)
        at = finding.end
    redactions += [old._replace(start=old.start + shift, end=old.end + shift) for old in left]
    return "".join([*pieces, text[at:]]), redactions


def _over_whole_placeholders(findings: list[Finding], earlier: list[Redaction]) -> list[Finding]:
    """The findings, each widened over the placeholders that it would cut in half."""
    widened = []
    for finding in findings:
        cut = [old for old in earlier if old.start < finding.end and finding.start < old.end]
        start, end = min([finding.start, *(old.start for old in cut)]), max([finding.end, *(old.end for old in cut)])
        widened.append(finding._replace(start=start, end=end))
    return _merge(sorted(widened))


def _placeholder(kind: str, value: str, known: Known) -> str:
    """The same for equal values, another for each new one."""
    same_kind = known.setdefault(kind, {})
    if value not in same_kind:
        same_kind[value] = _PLACEHOLDERS[kind](len(same_kind) + 1)
    return same_kind[value]


def _documentation_ipv4(number: int) -> str:
    """The three /24 of RFC 5737, then from the start again."""
    nets = ("192.0.2", "198.51.100", "203.0.113")
    return f"{nets[(number - 1) // 254 % 3]}.{(number - 1) % 254 + 1}"


def _fictional_phone(number: int) -> str:
    """One of the hundred numbers of every area that the North American Numbering Plan keeps for fiction."""
    return f"+1-{201 + (number - 1) // 100 % 700}-555-{100 + (number - 1) % 100:04}"


_PLACEHOLDERS: dict[str, Callable[[int], str]] = {
    "secret": "<SECRET_{}>".format,
    "email": "user{}@example.com".format,
    "ipv4": _documentation_ipv4,
    "ipv6": "2001:db8::{:x}".format,
    "user_path": "user".format,
    "person": "User {}".format,
    "phone": _fictional_phone,
    "key_bytes": "0x00".format,
}
