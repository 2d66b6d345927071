"""A small tokenizer, a small corpus of people's code, and a params file, for every test of phase 1."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from core.fim import CONTROL
from phase1_data.params import SamplesParams
from phase1_data.tokenizer import Ruler

WORDS = (
    "order",
    "price",
    "total",
    "item",
    "count",
    "user",
    "name",
    "path",
    "line",
    "value",
    "index",
    "table",
    "state",
    "queue",
    "batch",
    "offset",
)
MIT = """MIT License

Permission is hereby granted, free of charge, to any person obtaining a copy
...
The above copyright notice shall be included
"""

CLEAN = {
    "licenses": "permissive",
    "min_lines": 3,
    "max_line": 1000,
    "mean_line": 100,
    "min_alnum": 0.25,
    "drop_generated": True,
    "drop_unparsable": True,
    "dedup_threshold": 0.7,
    "dedup_permutations": 256,
    "engine": "local",
    "workers": 1,
}
SAMPLES = {
    "tokenizer": "set by a fixture",
    "tokenizer_revision": None,
    "seed": 17,
    "heldout_repos": [],
    "heldout_repo_share": 0.0,
    "heldout_file_share": 0.15,
    "valid_share": 0.05,
    "row_tokens": 160,
    "max_middle_tokens": 48,
    "holes_per_window": 2,
    "spm_rate": 0.5,
    "ltr_rate": 0.1,
    "span_mix": {"line_rest": 0.4, "lines": 0.2, "node": 0.3, "chars": 0.1},
    "empty_suffix_rate": 0.1,
    "context_rate": 0.3,
    "context_tokens": 48,
    "test_holes": 20,
    "max_train": 0,
    "decontaminate": [],
    "ngram": 10,
    "engine": "local",
    "workers": 1,
}


def code(seed: int, functions: int = 5) -> str:
    """A Python module that nobody else wrote: other seeds share no run of words with it."""
    rng = random.Random(seed)
    lines = ["import json", "from pathlib import Path", ""]
    for _ in range(functions):
        name, a, b, c = (f"{rng.choice(WORDS)}_{rng.choice(WORDS)}{rng.randrange(1000)}" for _ in range(4))
        lines += ["", f"def {name}({a}, {b}=None):", f'    """Turn {a} into {b}, which {c} needs {rng.randrange(100)} times."""']
        for _ in range(rng.randint(2, 5)):
            lines.append(f"    {c} = {rng.choice(WORDS)}({a}, {b} + {rng.randrange(1000)}) if {a} else [{a}, '{rng.choice(WORDS)}']")
        lines += [f"    for {rng.choice(WORDS)} in {c}:", f"        print({c}, {rng.randrange(100)})", f"    return {c}", ""]
    return "\n".join(lines)


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE of 600 entries with every control token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator([code(seed) for seed in range(900, 910)], trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in CONTROL])
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(file))
    return file


@pytest.fixture(scope="session")
def ruler(tokenizer_file: Path) -> Ruler:
    return Ruler(tokenizer_file)


@pytest.fixture
def samples_params() -> Callable[..., SamplesParams]:
    return lambda **changed: SamplesParams.model_validate(SAMPLES | changed)


@pytest.fixture
def params_file(tmp_path: Path, tokenizer_file: Path) -> Callable[..., Path]:
    """Write a params file; sections are given as changes to those above."""

    def write(sources: list[dict[str, Any]], **changed: dict[str, Any]) -> Path:
        ingest = {"sources": sources, "languages": ["python"], "max_files": 0, "max_repo_bytes": 0, "max_file_bytes": 100_000}
        ingest |= {"canaries": 0, "canary_seed": 17}
        profile = {
            "ingest": ingest | changed.get("ingest", {}),
            "clean": CLEAN | changed.get("clean", {}),
            "scrub": {"max_masked_share": 0.05, "engine": "local", "workers": 1} | changed.get("scrub", {}),
            "samples": SAMPLES | {"tokenizer": str(tokenizer_file)} | changed.get("samples", {}),
        }
        file = tmp_path / "params.yaml"
        file.write_text(yaml.safe_dump({"profile": "p", "p": profile}))
        return file

    return write


@pytest.fixture
def repo(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder with an MIT licence and `files` modules."""

    def make(name: str, files: int, first_seed: int = 0) -> Path:
        folder = tmp_path / name
        (folder / "pkg").mkdir(parents=True)
        (folder / "LICENSE").write_text(MIT)
        for number in range(files):
            (folder / "pkg" / f"mod{number}.py").write_text(code(first_seed + number))
        return folder

    return make


def git(folder: Path, *args: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=n", "-c", "user.email=e@example.com", "-C", str(folder), *args], check=True, capture_output=True
    )
