"""Keep what is tested on out of what is trained on.

In:  benchmarks as JSONL (.gz or not) or Parquet; our own held-out files
Out: an index of word n-grams, and what of a text is in it

Against a benchmark one shared n-gram ends a file (10 words: Qwen2.5-Coder, arXiv 2409.12186, section 3). Against our own
held-out files, which share idioms with their repository, a window that has RUN words in a row in common is left out
(50 tokens: Lee et al. 2022, arXiv 2107.06499).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from core.errors import InputError
from core.records import partial, read_parquet
from phase1_data.dedup import normalised
from phase1_data.shingles import Hashes, grams

RUN = 50  # words
BUCKETS = 64  # of an index that is being made: one is in memory at a time


def require(suites: Iterable[str]) -> None:
    """Before any work is done.

    Raises:
        InputError: a benchmark is no file; names it.
    """
    for suite in suites:
        if not Path(suite).is_file():
            raise InputError(f"{suite} is missing: mend samples.decontaminate in params.yaml")


def texts_of(value: object) -> Iterator[str]:
    """Every text in a JSON value, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from texts_of(part)
    elif isinstance(value, list):
        for part in value:
            yield from texts_of(part)


def benchmark_texts(file: Path) -> Iterator[str]:
    """Texts of a benchmark's rows.

    Raises:
        InputError: missing, or a line that is no JSON; names file and line.
    """
    require([str(file)])
    if file.suffix == ".parquet":
        for row in _rows(file):
            yield from texts_of(row)
        return
    number = 1
    try:
        with _opened(file) as lines:
            for number, line in enumerate(lines, 1):  # noqa: B007  # named in the error
                if line.strip():
                    yield from texts_of(json.loads(line))
    except (ValueError, EOFError, gzip.BadGzipFile):
        raise InputError(f"{file}:{number}: not JSON: mend or delete that line") from None


def _rows(file: Path) -> Iterator[object]:
    try:
        yield from read_parquet(file, "")
    except InputError:
        raise InputError(f"{file} is no Parquet file: fetch it again, or mend samples.decontaminate in params.yaml") from None


def _opened(file: Path) -> IO[str]:
    return gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8")


def index_of(texts: Iterable[str], n: int) -> Hashes:
    """The different n-grams of the texts, sorted; a text of fewer than n words has none."""
    parts = [grams(text.lower(), n) for text in texts]
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.uint64)


def heldout_index(contents: Iterable[str]) -> Hashes:
    """Runs of RUN words of held-out files, without their licence headers."""
    return index_of(map(normalised, contents), RUN)


def merge(parts: Sequence[Path], path: Path) -> None:
    """Join sorted indexes (.npy) into one file of hashes, sorted and different, a range of hashes at a time."""
    edges = np.arange(1, BUCKETS, dtype=np.uint64) << np.uint64(58)
    with partial(path) as unfinished, unfinished.open("wb") as sink:
        bounds = [[0, *np.searchsorted(index, edges).tolist(), index.size] for index in map(_mapped, parts)]
        for bucket in range(BUCKETS):
            found = [np.array(_mapped(part)[at[bucket] : at[bucket + 1]]) for part, at in zip(parts, bounds, strict=True)]
            np.unique(np.concatenate([np.empty(0, np.uint64), *found])).tofile(sink)


def _mapped(part: Path) -> Hashes:
    return np.load(part, mmap_mode="r")  # type: ignore[no-any-return]


def opened(path: Path) -> Hashes:
    """An index that `merge` wrote, on disk: workers share its pages."""
    return np.memmap(path, np.uint64, "r") if path.stat().st_size else np.empty(0, np.uint64)


def shared(text: str, index: Hashes, n: int) -> int:
    """How many of the text's n-grams are in the index."""
    return matches(grams(text.lower(), n), index) if index.size else 0


def matches(hashes: Hashes, index: Hashes) -> int:
    """How many of the hashes are in the index."""
    if not hashes.size or not index.size:
        return 0
    places = np.minimum(np.searchsorted(index, hashes), index.size - 1)
    return int((index[places] == hashes).sum())
