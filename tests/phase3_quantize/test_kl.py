"""KL divergence is llama-perplexity's, and exact match is what greedy decoding writes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from phase3_quantize import convert, quantize
from phase3_quantize.engine import GgufModel
from phase3_quantize.kl import Reference, Scored
from tests.phase3_quantize.conftest import TEXTS
from tests.phase3_quantize.peers import tool

WINDOW = 64  # tokens; llama-perplexity judges the second half of each


@pytest.fixture(scope="module")
def files(model_224: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("kl")
    convert.run(model_224, folder / "full.gguf", "f32")
    quantize.run(folder / "full.gguf", folder / "small.gguf", "Q4_0", 1)
    return folder / "full.gguf", folder / "small.gguf"


def llama_perplexity(full: Path, small: Path, folder: Path) -> dict[str, float]:
    """The statistics that llama-perplexity prints; asked again where its logger lost some of them, which it does now and then."""
    exact = ["-fa", "off", "-ctk", "f32", "-ctv", "f32"]  # as GgufModel reads; its own cache is float16
    common = ["-f", "text.txt", "-c", str(WINDOW), "-t", "1", "-ngl", "0", *exact, "--kl-divergence-base", "logits.bin"]
    subprocess.run([tool("llama-perplexity"), "-m", str(full), *common], cwd=folder, capture_output=True, check=True)
    command = [tool("llama-perplexity"), "-m", str(small), "--kl-divergence", *common]
    said: dict[str, float] = {}
    for _ in range(10):
        printed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
        said |= {name: float(value) for name, value in re.findall(r"^(\S.*?) *: +(-?[\d.]+)", printed, re.M)}
        if {"Mean    KLD", "99.0%   KLD", "Same top p"} <= said.keys():
            break
    return said


def test_divergence_is_llama_perplexitys_on_the_same_text(files: tuple[Path, Path], tmp_path: Path) -> None:
    full, small = files
    text = "".join(TEXTS)
    (tmp_path / "text.txt").write_text(text)
    with GgufModel(full, 8, 1) as model:
        ids = model.encode(text)
    rows = [Scored(ids[start : start + WINDOW], WINDOW // 2 + 1) for start in range(0, len(ids) - WINDOW + 1, WINDOW)]
    with Reference(full, rows, 1, tmp_path) as reference:
        ours = reference.compare(small)
        assert reference.compare(full).largest < 1e-6  # the full file's are kept in float32
    said = llama_perplexity(full, small, tmp_path)
    assert ours.mean == pytest.approx(said["Mean    KLD"], abs=1e-4)
    assert ours.p99 == pytest.approx(said["99.0%   KLD"], abs=1e-3)
    assert ours.same_top1 == pytest.approx(said["Same top p"] / 100, abs=2 / ours.tokens)
    assert ours.mean > 0.001


def test_exact_is_what_greedy_decoding_writes(files: tuple[Path, Path], tmp_path: Path) -> None:
    full, small = files
    prompt, written = [5, 9, 20], []
    with GgufModel(small, 32, 1) as model:
        ids = list(prompt)
        for _ in range(6):
            written.append(int(model.extend(ids)[0].argmax()))
            ids = written[-1:]
    other = [*written[:-1], (written[-1] + 1) % 200]
    rows = [Scored([*prompt, *written], 3), Scored([*prompt, *other], 3)]
    with Reference(full, rows, 1, tmp_path) as reference:
        assert reference.compare(small).exact == (True, False)
