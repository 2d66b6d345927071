"""A tiny model and a few dozen FIM rows, made here: no download."""

import random
from pathlib import Path

import pytest

from core.records import SAMPLE, write_parquet
from phase2_train import tokenizer

CODE = Path(__file__).parents[2] / "core"


def sample_rows(count: int, seed: int = 0) -> list[dict]:
    """Rows cut from this project's own code: the rest of a line as the middle."""
    rng = random.Random(seed)
    texts = sorted((path.name, path.read_text()) for path in CODE.glob("*.py"))
    rows = []
    while len(rows) < count:
        name, text = rng.choice(texts)
        start = rng.randrange(0, max(1, len(text) - 400))
        window = text[start : start + 400]
        cut = rng.randrange(100, 250)
        end = window.find("\n", cut)
        if end == -1 or not window[cut:end].strip():
            continue
        rows.append(
            {
                "sample_id": f"{seed}-{len(rows):04}", "file_id": name, "repo": "core", "path": name, "lang": "python", "split": "train",
                "order": rng.choice(["psm", "spm"]), "span_kind": "line_rest", "prefix": window[:cut], "middle": window[cut:end],
                "suffix": window[end:], "context": [], "n_tokens": 0,
            }
        )  # fmt: skip
    return rows


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(tokenizer.train_bpe([path.read_text() for path in sorted(CODE.glob("*.py"))], 600), folder, 512)
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory, tokenizer_folder) -> Path:
    from phase2_train.base import random_model

    folder = tmp_path_factory.mktemp("base")
    random_model(tokenizer_folder, folder, 3)
    return folder


@pytest.fixture(scope="session")
def samples(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    for name, count, seed in (("train", 48, 1), ("valid", 8, 2)):
        write_parquet(folder / f"{name}.parquet", sample_rows(count, seed), SAMPLE)
    return folder
