"""A tiny model and a few dozen FIM rows, made here: no download."""

import random
from pathlib import Path
from typing import get_args

import pytest

from core.records import FILE, SAMPLE, write_parquet
from phase2_train import tokenizer
from phase2_train.params import FilterParams, Kind, LoraParams, MonitorParams, PairsParams

CODE = Path(__file__).parents[2] / "core"
LORA = LoraParams(r=4, alpha=8, dropout=0.0)
FILTER = FilterParams(top_share=0.0, bottom_share=0.0, max_nats=0.0, rows_per_file=1)  # off
MONITOR = MonitorParams(
    every=1000, holes=2, max_new_tokens=8, patience=3, max_chosen_fall=0.15, max_accuracy=1.0, length_ratio=(0.0, 1000.0)
)  # sees nothing
PAIRS = PairsParams(
    prompts=14, spm_share=0.5, samples=2, temperature=1.0, top_p=1.0, max_new_tokens=40, extra_tokens=4, continue_below=1.0, batch=4,
    per_prompt=2, tests="off", min_similarity=0.0, max_similarity=1.0, max_length_ratio=1e6, seed=1,
    kinds=dict.fromkeys(get_args(Kind), 1.0),
)  # fmt: skip


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
    files = [{"file_id": path.name, "content": path.read_text()} for path in sorted(CODE.glob("*.py"))]
    write_parquet(folder / "files.parquet", [{name: file.get(name) for name in FILE.names} for file in files], FILE)
    return folder
