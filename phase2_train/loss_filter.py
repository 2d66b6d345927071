"""Files that training is better without, found by the loss that the base has on them.

In:  rows and the files they come from, the base in memory
Out: which files go and why (the hardest are noise: data, generated or broken text; the easiest the base knows by heart); a cache of
     scores by content, so that a second run, or one that was killed, scores nothing twice

The idea of both tails: refact's fine-tuning drops files above an absolute loss, and rows of middling difficulty teach the most.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core.fim import FimTokens
from core.progress import track
from core.records import Row
from phase2_train.params import FilterParams
from phase2_train.row_loss import mean, row_losses
from phase2_train.rows import TokenRow

AT_ONCE = 64  # files scored between two writes to the cache


class File(NamedTuple):
    """A source file and the rows of it that are scored."""

    file_id: str
    path: str  # repo/path
    rows: list[TokenRow]

    def key(self, base: str) -> str:
        """What its score depends on: the base and the tokens."""
        return hashlib.sha256(f"{base} {[row.ids for row in self.rows]}".encode()).hexdigest()


def wanted(params: FilterParams) -> bool:
    """Whether anything is to be filtered."""
    return bool(params.top_share or params.bottom_share or params.max_nats)


def files_of(rows: Sequence[TokenRow], places: Sequence[Row], rows_per_file: int) -> list[File]:
    """The files, by id, with at most `rows_per_file` of their rows, chosen by hash."""
    found: dict[str, File] = {}
    for row, place in zip(rows, places, strict=True):
        found.setdefault(place["file_id"], File(place["file_id"], f"{place['repo']}/{place['path']}", [])).rows.append(row)
    return [file._replace(rows=sorted(file.rows, key=_by_hash)[:rows_per_file]) for _, file in sorted(found.items())]


def _by_hash(row: TokenRow) -> bytes:
    return hashlib.sha256(row.sample_id.encode()).digest()


def score(files: Sequence[File], model: Any, tokens: FimTokens, batch: int, base: str, cache: Path) -> dict[str, float]:
    """Mean nats per token of each file's own text, by file id.

    Args:
        base: what the model is (hash and bits); part of the key of the cache.
        cache: JSON lines that only grow; a torn last line is passed over.
    """
    known = dict(_read(cache))
    missing = [file for file in files if file.key(base) not in known]
    if missing:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with cache.open("a", encoding="utf-8") as sink:
            sink.write("\n")  # after a torn line
            parts = [missing[at : at + AT_ONCE] for at in range(0, len(missing), AT_ONCE)]
            for part in track(parts, "loss filter", total=len(missing), amount=len):
                losses = iter(row_losses(model, [row for file in part for row in file.rows], tokens, batch, whole=True))
                for file in part:
                    known[file.key(base)] = round(mean([next(losses) for _ in file.rows]), 4)  # rounded: batches shift the last digits
                    sink.write(json.dumps({"key": file.key(base), "nats": known[file.key(base)]}) + "\n")
                sink.flush()
    return {file.file_id: known[file.key(base)] for file in files}


def _read(cache: Path) -> Iterator[tuple[str, float]]:
    if cache.is_file():
        for line in cache.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
                yield entry["key"], float(entry["nats"])
            except (ValueError, KeyError, TypeError):
                continue


def verdicts(scores: dict[str, float], params: FilterParams) -> dict[str, str]:
    """Why a file goes, by file id; those that stay are not in it. Shares are rounded down, ties go by id."""
    ranked = sorted(scores, key=lambda file_id: (scores[file_id], file_id))
    reasons = dict.fromkeys(ranked[: int(params.bottom_share * len(ranked))], "loss_in_bottom_share")
    reasons |= dict.fromkeys(ranked[len(ranked) - int(params.top_share * len(ranked)) :], "loss_in_top_share")
    return reasons | {file_id: "loss_above_bound" for file_id in ranked if params.max_nats and scores[file_id] >= params.max_nats}


def rejects(files: Sequence[File], scores: dict[str, float], reasons: dict[str, str]) -> list[Row]:
    """One core.records.REJECT row per file that goes, by path."""
    return sorted(
        (
            {"path": file.path, "stage": "sft", "reason": reasons[file.file_id], "value": f"{scores[file.file_id]:.4f} nats/token"}
            for file in files
            if file.file_id in reasons
        ),
        key=lambda row: row["path"],
    )
