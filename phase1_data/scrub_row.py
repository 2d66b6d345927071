"""Mask one key of one JSON object, and change nothing else of it.

In:  a line
Out: the line with the text masked and the redactions noted, or why it is no row

The line is edited, not written anew: every other character stays (order and spelling of keys, numbers of any size, escapes).
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from core.scrub import Redaction, find, mask
from phase1_data.jsonl import BadLine, Line, bad_json, decoded, paired

_SHOWN = 8  # keys named in an error
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)


class Member(NamedTuple):
    """One key of an object, its value, and the characters of the line on which the value stands."""

    key: str
    value: Any
    start: int
    end: int


def members(line: str) -> list[Member]:
    """The keys of the object on a line, in order, duplicates too.

    Raises:
        BadLine: not_object. json.JSONDecodeError: not JSON.
    """
    at = _after_space(line, 0)
    if line[at : at + 1] != "{":
        raise BadLine("not_object", type(_DECODER.decode(line)).__name__)
    found: list[Member] = []
    at = _after_space(line, at + 1)
    while line[at : at + 1] != "}" or found:
        if line[at : at + 1] != '"':
            raise json.JSONDecodeError("Expecting property name enclosed in double quotes", line, at)
        key, at = json.decoder.scanstring(line, at + 1)  # type: ignore[attr-defined]
        at = _after_space(line, at)
        if line[at : at + 1] != ":":
            raise json.JSONDecodeError("Expecting ':' delimiter", line, at)
        start = _after_space(line, at + 1)
        value, end = _DECODER.raw_decode(line, start)
        found.append(Member(key, value, start, end))
        at = _after_space(line, end)
        if line[at : at + 1] == "}":
            break
        if line[at : at + 1] != ",":
            raise json.JSONDecodeError("Expecting ',' delimiter", line, at)
        at = _after_space(line, at + 1)
    if _after_space(line, at + 1) != len(line):
        raise json.JSONDecodeError("Extra data", line, at + 1)
    return found


def _after_space(line: str, at: int) -> int:
    match = _SPACE.match(line, at)
    return match.end() if match else at


class Scrubbed(NamedTuple):
    """A row as it goes out, and what was masked in it."""

    data: bytes
    redactions: list[Redaction]
    read_as: str  # as jsonl.decoded says


def scrub(line: Line, key: str, noted: str) -> Scrubbed:
    """Mask the value of `key` in one row and put the redactions under `noted`.

    Raises:
        BadLine: no object with that key, or a finding is left.
    """
    if line.too_long:
        raise BadLine("row_bytes", str(line.size))
    text, read_as = decoded(line.data)
    try:
        found = members(text)
    except json.JSONDecodeError as error:
        raise BadLine(*bad_json(line, error)) from None
    except RecursionError:
        raise BadLine("bad_json", "nested too deeply") from None
    value = _only(found, key)
    if value is None:
        keys = mask(", ".join([repr(member.key) for member in found[:_SHOWN]]))[0]
        raise BadLine("no_text", f"it has {keys or 'no keys'}{', ...' if len(found) > _SHOWN else ''}")
    if value.value is not None and not (isinstance(value.value, str) and text[value.start] == '"'):
        raise BadLine("text_not_string", _kind(text[value.start]))
    earlier = _only(found, noted)
    if earlier is not None and not _ours(earlier.value):
        raise BadLine("redactions_taken", noted)
    masked, redactions = mask(_whole(value.value or ""))
    if redactions:
        if find(masked):
            raise BadLine("residual", ",".join(sorted({finding.rule for finding in find(masked)})))
        spans = json.dumps([redaction._asdict() for redaction in redactions])
        edits = [(value.start, value.end, json.dumps(masked, ensure_ascii=text.isascii()))]
        edits.append((earlier.start, earlier.end, spans) if earlier else (found[-1].end, found[-1].end, f", {json.dumps(noted)}: {spans}"))
    else:  # a row that was scrubbed before stays as it is
        edits = [] if earlier else [(found[-1].end, found[-1].end, f", {json.dumps(noted)}: []")]
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return Scrubbed(text.encode("utf-8", "backslashreplace"), redactions, read_as)  # half a surrogate pair becomes \\udXXX again


def _whole(text: str) -> str:
    """The text as a reader of the output will see it: a pair of surrogates, however it was written, is one character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return paired(text)
    return text


def _only(found: list[Member], key: str) -> Member | None:
    named = [member for member in found if member.key == key]
    if len(named) > 1:
        raise BadLine("duplicate_key", key)
    return named[0] if named else None


def _kind(first: str) -> str:
    return {"{": "an object", "[": "an array", "t": "true", "f": "false"}.get(first, "a number")


def _ours(value: object) -> bool:
    """Whether a value is a list of redactions as this module writes it."""
    return isinstance(value, list) and all(isinstance(entry, dict) and entry.keys() == set(Redaction._fields) for entry in value)


SAYS = {  # reason: what to say of the line
    "bad_json": "not JSON",
    "torn_line": "breaks off, so it is not JSON",
    "not_object": "not a JSON object",
    "row_bytes": "longer than --max-row-mb",
    "no_text": "no such key",
    "text_not_string": "neither a string nor null",
    "duplicate_key": "stands twice in one object",
    "redactions_taken": "a key that is to be added is there and is something else",
    "residual": "a finding is left after masking",
}
