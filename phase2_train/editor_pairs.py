"""Preference pairs that a person made: what was accepted and kept, against what was shown and dismissed.

In:  a JSONL file of rows {prefix, suffix, chosen, rejected, path, repo, kind: user_reject, origin: editor}, context if there is any
Out: rows of pairs.jsonl without a secret or personal data, cut to the tokens a row may have; bad lines counted by reason

A line with nothing to learn from is left out and named by file and line, never by its text.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from core import scrub
from core.errors import InputError
from core.fim import Codec
from core.records import Row
from core.syntax import lang_of
from phase2_train.negatives import similarity
from phase2_train.pair_mix import SHORTEST
from phase2_train.rows import hole_of

TEXTS = ("prefix", "suffix", "chosen", "rejected")
NAMED = 5  # bad lines that are printed; all are counted
MARKERS = 4  # three FIM markers and the end token
SUFFIX_SHARE = 0.25  # of the room beside the answer that the suffix gets where both sides are too long


class Bad(NamedTuple):
    """A line that makes no pair."""

    number: int
    reason: str


def read(file: Path, codec: Codec, max_tokens: int, max_length_ratio: float) -> tuple[list[Row], list[Bad]]:
    """The pairs of a file, and what of it makes none.

    Raises:
        InputError: no such file, or not one line of it makes a pair.
    """
    if not file.is_file():
        raise InputError(f"{file} is missing: name a JSONL file of pairs from an editor, or leave --editor out")
    found: dict[str, Row] = {}
    bad = list[Bad]()
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            pair = pair_of(line, codec, max_tokens, max_length_ratio)
            if isinstance(pair, str):
                bad.append(Bad(number, pair))
            elif pair["pair_id"] in found:
                bad.append(Bad(number, "duplicate"))
            else:
                found[pair["pair_id"]] = pair
    if not found:
        first = f"; line {bad[0].number}: {bad[0].reason}" if bad else ""
        raise InputError(f"{file}: no line makes a pair ({len(bad)} bad{first}): see phase2_train/README.md for the format")
    return list(found.values()), bad


def pair_of(line: bytes, codec: Codec, max_tokens: int, max_length_ratio: float) -> Row | str:
    """One line as a pair, or why it is none."""
    try:
        given = json.loads(line)
    except (ValueError, RecursionError):
        return "not_json"
    if not isinstance(given, dict):
        return "not_an_object"
    if reason := _refused(given):
        return reason
    row = scrubbed(given)
    if row is None:
        return "secret"
    shorter, longer = sorted(len(row[name].strip()) for name in ("chosen", "rejected"))
    if longer > max_length_ratio * max(SHORTEST, shorter):
        return "length_ratio"
    return fitted(row, codec, max_tokens) or "too_long"


def _refused(given: Row) -> str | None:
    """What is wrong with the fields of a line."""
    for name in TEXTS:
        if not isinstance(given.get(name), str):
            return f"lacks_{name}" if name not in given else f"{name}_is_no_text"
    if given.get("origin", "editor") != "editor" or given.get("kind", "user_reject") != "user_reject":
        return "not_from_an_editor"
    if any(not isinstance(given.get(name, ""), str) for name in ("path", "repo")):
        return "path_is_no_text"
    chunks = given.get("context", [])
    if not isinstance(chunks, list) or any(not _is_chunk(chunk) for chunk in chunks):
        return "context_is_no_list_of_chunks"
    try:
        "".join(given[name] for name in TEXTS).encode()
    except UnicodeEncodeError:
        return "lone_surrogate"
    if not given["chosen"].strip() or not given["rejected"].strip():
        return "empty_chosen" if not given["chosen"].strip() else "empty_rejected"
    return "same" if given["chosen"].strip() == given["rejected"].strip() else None


def _is_chunk(chunk: Any) -> bool:
    return isinstance(chunk, dict) and all(isinstance(chunk.get(name), str) for name in ("path", "text"))


def scrubbed(given: Row) -> Row | None:
    """The row without a secret or personal data; None where an answer holds, or completes, one.

    What stands around is masked. An answer is never: a placeholder would be learnt.
    """
    row: Row = {name: scrub.mask(given.get(name, ""))[0] for name in ("prefix", "suffix", "path", "repo")}
    row["context"] = [{name: scrub.mask(chunk[name])[0] for name in ("path", "text")} for chunk in given.get("context", [])]
    for name in ("chosen", "rejected"):
        answer = given[name]
        begin, end = len(given["prefix"]), len(given["prefix"]) + len(answer)
        around = scrub.find(given["prefix"] + answer + given["suffix"])
        if any(found.start < end and begin < found.end for found in around) or scrub.find(answer):
            return None
        if scrub.find(row["prefix"] + answer + row["suffix"]):  # only the three together say that there is one
            return None
        row[name] = answer
    return row


def fitted(row: Row, codec: Codec, max_tokens: int) -> Row | None:
    """A pair whose longer answer fits a row of `max_tokens`: P cut on the left, S on the right; None where nothing would be left.

    Context goes first: it is the furthest from the hole.
    """
    answer = max(len(codec.plain(row[name])) for name in ("chosen", "rejected")) + MARKERS
    room = max_tokens - answer
    if room < max_tokens // 4:
        return None
    header = len(codec.header(hole_of({**row, "middle": ""})))
    if header + len(codec.plain(row["prefix"])) + len(codec.plain(row["suffix"])) > room:
        row = {**row, "context": []}
    prefix, suffix = len(codec.plain(row["prefix"])), len(codec.plain(row["suffix"]))
    if not row["context"] and prefix + suffix > room:
        after = min(suffix, max(int(SUFFIX_SHARE * room), room - prefix))
        row = {**row, "prefix": cut(row["prefix"], room - after, codec, left=True), "suffix": cut(row["suffix"], after, codec, left=False)}
    identity = "\0".join(row[name] for name in TEXTS)
    return {
        "pair_id": hashlib.sha256(identity.encode()).hexdigest()[:16],
        "sample_id": "",
        **row,
        "lang": lang_of(row["path"]) or "",
        "order": "spm",
        "kind": "user_reject",
        "similarity": round(similarity(row["chosen"], row["rejected"]), 4),
        "evidence": {"how": "editor", "ended": True},
        "origin": "editor",
    }


def cut(text: str, tokens: int, codec: Codec, left: bool) -> str:
    """As much of the text as has `tokens` tokens, cut on the left or on the right, between characters."""
    low, high = 0, len(text)  # characters kept: `low` fit, more than `high` do not
    while low < high:
        keep = (low + high + 1) // 2
        low, high = (keep, high) if len(codec.plain(_kept(text, keep, left))) <= tokens else (low, keep - 1)
    return _kept(text, low, left)


def _kept(text: str, keep: int, left: bool) -> str:
    return text[len(text) - keep :] if left else text[:keep]


def report(file: Path, bad: list[Bad]) -> Counter[str]:
    """Print the first bad lines with their number; return how many there are of each reason."""
    for number, reason in bad[:NAMED]:
        print(f"pairs: {file}:{number}: left out: {reason}", flush=True)
    if len(bad) > NAMED:
        print(f"pairs: {file}: {len(bad) - NAMED} more lines left out", flush=True)
    return Counter(one.reason for one in bad)
