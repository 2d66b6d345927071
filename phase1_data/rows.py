"""Turn one file into rows.

In:  a file with its split and windows, the holes that were drawn, a Ruler, the index of held-out text, SamplesParams
Out: core.records.SAMPLE rows, and how many holes came to nothing, by reason

Which holes are cut is drawn before they are: each has a ticket, a hash of seed, file, window and number, and those with
the smallest are cut, as many as are asked for. Every hole has its own random numbers, from such a hash too: neither the
order of the files nor the number of processes changes a row. Rows of train and valid stay inside their window, so that a
file is read once; a test hole sees the file as an editor would, as much of it as the budget allows.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.canary import REPO
from core.fim import Hole, Order
from core.records import Row
from phase1_data.budget import fit
from phase1_data.context import choose
from phase1_data.decontaminate import RUN, shared
from phase1_data.infill import Scene, Window, find_span
from phase1_data.params import SamplesParams
from phase1_data.shingles import Hashes
from phase1_data.tokenizer import Ruler

MARKER_TOKENS = 8  # of a row beside its text: four markers, and what cutting a text in three costs
MOST_PER_WINDOW = 16  # test holes: more in one place would ask the same thing again
TEST_SPLITS = ("test_file", "test_repo")
ROUND = 1 << 40  # tickets of test holes: the first hole of each file, then the second of each
LAST_TICKET = (1 << 64) - 1
Others = Callable[[], Sequence[tuple[str, str]]]  # files that context may come from


class Made(NamedTuple):
    """What a file gave."""

    rows: list[Row]
    lost: Counter[str]  # holes that came to nothing, by reason


class Pick(NamedTuple):
    """A hole to cut."""

    ticket: int
    window: int
    hole: int  # in its window


def draw(split: str, key: str, windows: int, params: SamplesParams, low: int, high: int) -> list[Pick]:
    """The holes of a file with low < ticket <= high, smallest ticket first.

    To train on, every hole of every window has an equal chance, but those of canaries come first: a model that was not shown them
    cannot give them away. To test on, holes are spread over the windows of a file, and the second of a file comes after the first
    of all files.

    Args:
        key: repository, path and file_id.
    """
    if not windows:
        return []
    of_file = int.from_bytes(sha256(f"{params.seed}:{key}".encode()).digest()[:8], "big")
    if split in TEST_SPLITS:
        first, stop = max((low - of_file // (1 << 24)) // ROUND + 1, 0), (high - of_file // (1 << 24)) // ROUND + 1
        order = _spread(windows, params.seed) if first < stop else []
        numbers = range(first, min(stop, MOST_PER_WINDOW * windows))
        return [Pick(number * ROUND + of_file // (1 << 24), order[number % windows], number // windows) for number in numbers]
    tickets = _mixed(np.uint64(of_file) + np.arange(1, windows * params.holes_per_window + 1, dtype=np.uint64) * GOLDEN)
    if key.startswith(f"{REPO}/"):
        tickets >>= np.uint64(32)
    drawn = np.flatnonzero((tickets <= np.uint64(high)) & ((tickets > np.uint64(low)) if low >= 0 else True))
    drawn = drawn[np.argsort(tickets[drawn], kind="stable")]
    return [Pick(int(tickets[at]), *divmod(int(at), params.holes_per_window)) for at in drawn]


def _spread(windows: int, seed: int) -> list[int]:
    return sorted(range(windows), key=lambda number: sha256(f"{seed}:{number}".encode()).digest())


GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # a step of SplitMix64, whose finalizer follows


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class Cutter:
    """Cuts files into rows.

    Args:
        heldout: index of the runs of words that train must not hold.
    """

    def __init__(self, params: SamplesParams, ruler: Ruler, heldout: Hashes) -> None:
        self.params, self.ruler, self.heldout = params, ruler, heldout

    def make(self, file: Row, tiles: Sequence[Window], picks: Sequence[Pick], others: Others) -> Made:
        """Rows of one file, in their order in it, each with its ticket; of two equal holes the one with the smaller ticket."""
        scene = Scene(file["content"], file["lang"], file["redactions"])
        rows: dict[str, tuple[Pick, Row]] = {}
        lost: Counter[str] = Counter()
        held = self._held(file, tiles, {pick.window for pick in picks})
        for pick in picks:
            window = tiles[pick.window]
            if not scene.text[window.start : window.end].strip():
                lost["blank_window"] += 1
            elif pick.window in held:
                lost["overlaps_heldout"] += 1
            else:
                rng = random.Random(sha256(f"{self.params.seed}:{file['file_id']}:{pick.window}:{pick.hole}".encode()).digest())
                row, reason = self._row(scene, file, window, others, rng)
                if row is None or row["sample_id"] in rows:
                    lost[reason or "same_hole"] += 1
                else:
                    rows[row["sample_id"]] = pick, row | {"ticket": pick.ticket}
        return Made([row for _, row in sorted(rows.values(), key=lambda made: made[0][1:])], lost)

    def _held(self, file: Row, tiles: Sequence[Window], wanted: set[int]) -> set[int]:
        """Which of the wanted windows share a run of words with held-out text."""
        text = file["content"]
        if file["split"] != "train":
            return set()
        if 4 * len(wanted) > len(tiles) and not shared(text, self.heldout, RUN):  # then no window of whole lines does
            wanted = {number for number in wanted if not _whole_lines(text, tiles[number])}
        return {number for number in wanted if shared(text[tiles[number].start : tiles[number].end], self.heldout, RUN)}

    def _row(self, scene: Scene, file: Row, window: Window, others: Others, rng: random.Random) -> tuple[Row | None, str]:
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
        near = others() if with_context else ()
        context = choose(prefix, suffix, middle, near, file["lang"], self.ruler, params.context_tokens) if near else ()
        if file["split"] == "train":
            context = tuple(chunk for chunk in context if not shared(chunk.text, self.heldout, RUN))
        fitted = fit(Hole(prefix, suffix, middle, file["path"], file["repo"], context), order, self.ruler, params.row_tokens)
        if fitted is None:
            return None, "over_budget"
        return _record(file, fitted[0], order, span.kind, fitted[1], window.start, span.start), ""

    def _plain(self, scene: Scene, file: Row, window: Window) -> tuple[Row | None, str]:
        """A whole window, left to right."""
        hole = Hole("", "", scene.text[window.start : window.end], file["path"], file["repo"])
        n_tokens = self.ruler.row_length(hole, "ltr")
        if n_tokens > self.params.row_tokens:  # only text that spells out control tokens
            return None, "over_budget"
        return _record(file, hole, "ltr", "none", n_tokens, window.start, window.start), ""


def _whole_lines(text: str, window: Window) -> bool:
    return all(at in (0, len(text)) or text[at - 1] == "\n" for at in window)


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
