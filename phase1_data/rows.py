"""Turn one file into rows.

In:  a file with its split, a Ruler, the index of held-out text, SamplesParams
Out: core.records.SAMPLE rows, and how many holes came to nothing, by reason

Every hole has its own random numbers, from a hash of seed, file, window and number: neither the order of the files nor
the number of processes changes a row. Rows of train and valid stay inside their window, so that a file is read once;
a test hole sees the file as an editor would, as much of it as the budget allows.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from typing import NamedTuple

from core.fim import Hole, Order
from core.records import Row
from phase1_data.budget import fit
from phase1_data.context import choose
from phase1_data.decontaminate import RUN, shared
from phase1_data.infill import Scene, Window, find_span, windows
from phase1_data.params import SamplesParams
from phase1_data.shingles import Hashes
from phase1_data.tokenizer import Ruler

MARKER_TOKENS = 8  # of a row beside its text: four markers, and what cutting a text in three costs
MOST_PER_WINDOW = 16  # test holes: more in one place would ask the same thing again
TEST_SPLITS = ("test_file", "test_repo")


class Made(NamedTuple):
    """What a file gave."""

    rows: list[Row]
    lost: Counter[str]  # holes that came to nothing, by reason


class Cutter:
    """Cuts files into rows.

    Args:
        heldout: index of the runs of words that train must not hold.
    """

    def __init__(self, params: SamplesParams, ruler: Ruler, heldout: Hashes) -> None:
        self.params, self.ruler, self.heldout = params, ruler, heldout

    def make(self, file: Row, others: list[tuple[str, str]], test_holes: int) -> Made:
        """Rows of one file; `others` are files that context may come from, `test_holes` how many a test file should give."""
        scene = Scene(file["content"], file["lang"], file["redactions"])
        tiles = windows(scene.text, self.ruler, self.params.row_tokens - MARKER_TOKENS)
        rows: dict[str, Row] = {}
        lost: Counter[str] = Counter()
        for number, hole in self._plan(tiles, file["split"], test_holes):
            window = tiles[number]
            if not scene.text[window.start : window.end].strip():
                lost["blank_window"] += 1
            elif file["split"] == "train" and shared(scene.text[window.start : window.end], self.heldout, RUN):
                lost["overlaps_heldout"] += 1
            else:
                rng = random.Random(sha256(f"{self.params.seed}:{file['file_id']}:{number}:{hole}".encode()).digest())
                row, reason = self._row(scene, file, window, others, rng)
                if row is None or row["sample_id"] in rows:
                    lost[reason or "same_hole"] += 1
                else:
                    rows[row["sample_id"]] = row
        return Made(list(rows.values()), lost)

    def _plan(self, tiles: list[Window], split: str, test_holes: int) -> Iterator[tuple[int, int]]:
        """(window, hole in it): all of them to train on, spread over the file to test on."""
        if split not in TEST_SPLITS:
            yield from ((number, hole) for number in range(len(tiles)) for hole in range(self.params.holes_per_window))
            return
        spread = sorted(range(len(tiles)), key=lambda number: sha256(f"{self.params.seed}:{number}".encode()).digest())
        most = min(test_holes, MOST_PER_WINDOW * len(tiles))
        yield from ((spread[hole % len(tiles)], hole // len(tiles)) for hole in range(most))

    def _row(self, scene: Scene, file: Row, window: Window, others: list[tuple[str, str]], rng: random.Random) -> tuple[Row | None, str]:
        params, test = self.params, file["split"] in TEST_SPLITS
        draw, cut_suffix, with_context = rng.random(), rng.random() < params.empty_suffix_rate, rng.random() < params.context_rate
        order: Order = "spm" if draw < params.spm_rate else "ltr" if draw < params.spm_rate + params.ltr_rate else "psm"
        if test:
            order = "psm"
        if order == "ltr" and not scene.touches_mask(window.start, window.end):
            return self._plain(scene, file, window)
        if order == "ltr":
            order = "psm"  # a whole window around a mask would train on the mask
        span = find_span(scene, window, params, self.ruler, rng)
        if span is None:
            return None, "no_span"
        around = Window(0, len(scene.text)) if test else window
        prefix, middle = scene.text[around.start : span.start], scene.text[span.start : span.end]
        suffix = "" if cut_suffix else scene.text[span.end : around.end]
        context = choose(prefix, suffix, middle, others, file["lang"], self.ruler, params.context_tokens) if with_context and others else ()
        if file["split"] == "train":
            context = tuple(chunk for chunk in context if not shared(chunk.text, self.heldout, RUN))
        fitted = fit(Hole(prefix, suffix, middle, file["path"], file["repo"], context), order, self.ruler, params.row_tokens)
        if fitted is None:
            return None, "over_budget"
        return _record(file, fitted[0], order, span.kind, fitted[1], window.start, span.start), ""

    def _plain(self, scene: Scene, file: Row, window: Window) -> tuple[Row | None, str]:
        """A whole window, left to right."""
        hole = Hole("", "", scene.text[window.start : window.end], file["path"], file["repo"])
        n_tokens = len(self.ruler.codec.row(hole, "ltr")[0])
        if n_tokens > self.params.row_tokens:  # only text that spells out control tokens
            return None, "over_budget"
        return _record(file, hole, "ltr", "none", n_tokens, window.start, window.start), ""


def _record(file: Row, hole: Hole, order: Order, kind: str, n_tokens: int, *place: int) -> Row:
    parts = (file["file_id"], order, hole.prefix, hole.middle, hole.suffix, *map(str, place))
    return {
        "sample_id": sha256("\0".join(parts).encode()).hexdigest()[:32],
        "file_id": file["file_id"],
        "repo": file["repo"],
        "path": file["path"],
        "lang": file["lang"],
        "split": file["split"],
        "order": order,
        "span_kind": kind,
        "prefix": hole.prefix,
        "middle": hole.middle,
        "suffix": hole.suffix,
        "context": [chunk._asdict() for chunk in hole.context],
        "n_tokens": n_tokens,
    }
