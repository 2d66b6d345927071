"""A tiny random Qwen2, held-out holes, and one finished evaluation of a chain of three."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Qwen2Config, Qwen2ForCausalLM

from core.fim import CONTROL, END, PAD
from core.records import SAMPLE, Row, write_json, write_parquet
from eval import evaluate
from eval.holes import Vocabulary
from eval.models import Places
from eval.params import EvaluateParams

ROOT = Path(__file__).parents[2]
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"  # Qwen2's
WORDS = ["user", "price", "order", "path", "token", "widget", "score", "event"]
CODE = {  # files written here, so that no figure moves when the project's own code does
    f"{one}s.py": f'''"""Every {one}, and what it belongs to."""

import json


class {one.title()}:
    """A {one} with its {two}."""

    def __init__(self, name: str, {two}: int = {at}) -> None:
        self.name = name
        self.{two} = {two}

    def total(self, others: list[int]) -> int:
        """Sum of {two} and others."""
        found = self.{two}
        for other in others:
            if other > {at}:
                found += other * {at + 2}
        return found


def load_{one}(file: str) -> list[{one.title()}]:
    with open(file) as lines:
        return [{one.title()}(**json.loads(line)) for line in lines if line.strip()]


def best_{two}({one}s: list[{one.title()}]) -> str:
    ranked = sorted({one}s, key=lambda {one}: ({one}.{two}, {one}.name))
    return ranked[-1].name if ranked else "no {one}"
'''
    for at, (one, two) in enumerate(zip(WORDS, WORDS[3:] + WORDS[:3], strict=True))
}
PARAMS = EvaluateParams(
    models=["base", "merged", "q4_k_m"], splits=["test_file", "test_repo"], orders=["spm", "psm"], holes=7, other_holes=0,
    max_new_tokens=8, batch=4, device="any", bootstrap=200, seed=17, gate="warn", max_gguf_loss_points=3.0, examples=3,
    leakage_prompts=6, leakage_tries=1, leakage_tokens=8, leakage_values=15,
)  # fmt: skip


class Evaluated(NamedTuple):
    """What an evaluation read and left."""

    places: Places
    samples: Path
    rows: Path


def sample_rows(count: int, split: str, seed: int) -> list[Row]:
    """Rows cut from CODE: a piece of a line as the middle; every third with another file as context."""
    rng, rows = random.Random(seed), []
    while len(rows) < count:
        name, text = rng.choice(list(CODE.items()))
        start, cut = rng.randrange(0, len(text) - 300), rng.randrange(20, 120)
        window = text[start : start + 250]
        middle = window[cut : cut + rng.randrange(1, 40)]
        if not middle.strip():
            continue
        context = [{"path": "other.py", "text": "def other(x):\n    return x\n"}] if len(rows) % 3 == 0 else []
        rows.append(
            {
                "sample_id": f"{split}-{len(rows):03}", "file_id": f"{name}-{len(rows) % 11}", "repo": f"owner/r{len(rows) % 3}",
                "path": name, "lang": "python", "split": split, "order": rng.choice(["psm", "spm"]),
                "span_kind": rng.choice(["chars", "line_rest", "node:Call"]), "prefix": window[:cut], "middle": middle,
                "suffix": window[cut + len(middle) :], "context": context, "n_tokens": 0,
            }
        )  # fmt: skip
    return rows


def make_model(folder: Path) -> Path:
    """A Hugging Face folder: byte-level BPE of some 300 tokens, two layers of random weights."""
    tokenizer = Tokenizer(models.BPE())
    pieces = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(CODE.values(), trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in CONTROL])
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "pad_token": PAD, "add_bos_token": False}
    write_json(folder / "tokenizer_config.json", settings)
    size = tokenizer.get_vocab_size()
    config = Qwen2Config(
        vocab_size=size, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=512, tie_word_embeddings=True, initializer_range=0.08, bos_token_id=None,
        eos_token_id=tokenizer.token_to_id(END),
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = Qwen2ForCausalLM(config)
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                torch.nn.init.normal_(parameter, std=0.1)
        model.save_pretrained(folder)
    (folder / "LICENSE").write_text("Apache License\nVersion 2.0, January 2004\n")
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="session")
def network_model(base: Path) -> Qwen2ForCausalLM:
    """The base as transformers runs it, untouched by eval; stops only where it is told to."""
    model = Qwen2ForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    return model


@pytest.fixture(scope="session")
def vocabulary(base: Path) -> Vocabulary:
    return Vocabulary.of(base)


@pytest.fixture(scope="session")
def worse(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """The base with eightfold logits: it writes the same and is far too sure of it, so its loss is visibly higher."""
    folder = Path(shutil.copytree(base, tmp_path_factory.mktemp("worse") / "merge"))
    model = Qwen2ForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        model.model.norm.weight *= 8
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def gguf(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """The base as GGUF in float32, converted by the command of phase 3."""
    out = tmp_path_factory.mktemp("gguf") / "model-f32.gguf"
    command = [sys.executable, "-m", "phase3_quantize", "convert", "--model", str(base), "--out", str(out), "--outtype", "f32"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    for seed, split in enumerate(("test_file", "test_repo")):
        write_parquet(folder / f"{split}.parquet", sample_rows(12, split, seed), SAMPLE)
    return folder


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory, base: Path, worse: Path, gguf: Path) -> Places:
    nowhere = tmp_path_factory.mktemp("nowhere")
    return Places(base, nowhere / "sft", nowhere / "dpo", worse, gguf)


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory, samples: Path, places: Places) -> Evaluated:
    """A finished evaluation; tests that change it work on a copy."""
    rows = tmp_path_factory.mktemp("eval") / "out" / "rows"
    evaluate.run(samples, places, rows, PARAMS)
    return Evaluated(places, samples, rows)
