"""Secrets that a generator made, by their name: `adafruit_key = "..."`, a UUID beside `heroku`, a value on the next line or after a comma.

In:  a Source
Out: Findings that cover the value alone

It works backwards: code holds few runs of characters that look random (20 in a megabyte of Python), so each is taken and what
stands in front of it is read. A name that speaks of a secret or of a service that issues keys makes it one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from core.encoded import decoded
from core.findings import Finding, Source
from core.secret_names import Strength, beside, is_public_name, names_vendor, strength
from core.secret_values import is_digest, is_path, is_placeholder, is_public_example, is_random, is_uuid, is_wordy
from core.secret_words import reads_as_code

_LEFT = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-+/.~"
_DIGIT = re.compile(rb"[0-9]")
_RIGHT = re.compile(r"[\w\-+/.~=:%]{0,2048}")
_REACH = 128  # characters in front of a value in which its name stands
_LONGEST = 1024  # characters; longer ones are data
_FINGERPRINT = re.compile(r"[0-9A-F]{40}\Z")  # OpenPGP, RFC 9580 section 5.5.4; certificates
_ID = re.compile(r"(?i)(?:^|[_\-.])(?:u?u?id|guid|request|trace|correlation|tenant|object|resource|node|user|org|project)s?[_\-]?(?:id)?$")


def find_generated(source: Source) -> Iterator[Finding]:
    """Random runs of 16 characters or more with a telling name in front."""
    done = 0
    for run_start, run_end in source.runs:
        if run_start < done or not _DIGIT.search(source.raw, run_start, run_end):
            continue  # names, mostly
        start, end = _grown(source.text, run_start, run_end)
        before = source.text[max(0, start - _REACH) : start]
        name = beside(before)
        value = source.text[run_start:run_end]
        if not name or end - start > _LONGEST or not (is_random(value) or is_uuid(value)):
            continue
        done, value = end, source.text[start:end]
        why = "a name in code" if reads_as_code(source.text, start, end) else _why_not(name, value, before)
        if why:
            source.stay(start, end, "generated", why)
        else:
            yield Finding(start, end, "secret", "generated")


def _grown(text: str, start: int, end: int) -> tuple[int, int]:
    """The value that a run belongs to: tokens have dots, slashes and plus signs in them."""
    head = text[max(0, start - 64) : start]
    left = start - (len(head) - len(head.rstrip(_LEFT)))
    match = _RIGHT.match(text, end)
    right = match.end() if match else end
    right -= len(text[end:right]) - len(text[end:right].rstrip(".:/"))
    return left, right


def _why_not(name: str, value: str, before: str) -> str:
    said, vendor = strength(name), names_vendor(name)
    if is_public_name(name):
        return "its name says that it is for everyone"
    if said is Strength.NONE and not vendor:
        return "its name says nothing"
    if is_placeholder(value) or is_public_example(value):
        return "a placeholder or public example"
    if is_path(value):
        return "a path or address"
    if before.endswith("base64,") or "recv-key" in before or "keyserver" in before:
        return "embedded data, or a public key's fingerprint"
    if is_digest(value, before) or (said < Strength.STRONG and _FINGERPRINT.match(value)):
        return "a digest"
    if said < Strength.STRONG and not vendor and decoded(value) is not None:
        return "base64 of text, which is looked into"
    if is_uuid(value):
        if not vendor and (said < Strength.STRONG or _ID.search(name)):
            return "an identifier"
        return ""
    named = value.isidentifier() and before[-1:] not in ('"', "'", "`", "=")
    return "" if is_random(value) and not is_wordy(value, 0.25 if named else 0.4) else "words"
