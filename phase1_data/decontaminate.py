"""Keep what is tested on out of what is trained on.

In:  JSONL files of benchmarks; our own held-out files
Out: an index of word n-grams, and what of a text is in it

Against a benchmark one shared n-gram ends a file (10 words: Qwen2.5-Coder, arXiv 2409.12186, section 3). Against our own
held-out files, which share idioms with their repository, a window that has RUN words in a row in common is left out
(50 tokens: Lee et al. 2022, arXiv 2107.06499).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from core.errors import InputError
from phase1_data.dedup import normalised
from phase1_data.shingles import WORD, Hashes, gram_hashes

RUN = 50  # words


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
    if not file.is_file():
        raise InputError(f"{file} is missing: mend samples.decontaminate in params.yaml")
    number = 1
    try:
        with _opened(file) as lines:
            for number, line in enumerate(lines, 1):  # noqa: B007  # named in the error
                if line.strip():
                    yield from texts_of(json.loads(line))
    except (ValueError, EOFError, gzip.BadGzipFile):
        raise InputError(f"{file}:{number}: not JSON: mend or delete that line") from None


def _opened(file: Path) -> IO[str]:
    return gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8")


def index_of(texts: Iterable[str], n: int) -> Hashes:
    """The different n-grams of the texts, sorted; a text of fewer than n words has none."""
    parts = [gram_hashes(WORD.findall(text.lower()), n) for text in texts]
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.uint64)


def heldout_index(contents: Iterable[str]) -> Hashes:
    """Runs of RUN words of held-out files, without their licence headers."""
    return index_of(map(normalised, contents), RUN)


def shared(text: str, index: Hashes, n: int) -> int:
    """How many of the text's n-grams are in the index."""
    if not index.size:
        return 0
    grams = gram_hashes(WORD.findall(text.lower()), n)
    if not grams.size:
        return 0
    places = np.minimum(np.searchsorted(index, grams), index.size - 1)
    return int((index[places] == grams).sum())
