"""A tiny random Qwen2 with its tokenizer, made once; one whose columns fit K-quants (256) and one whose do not (224)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from core.fim import CONTROL, END, PAD
from core.records import SAMPLE, write_json, write_parquet
from phase3_quantize.splits import QWEN2_SPLIT

TEXTS = ["def add(a, b):\n    return a + b\n\n\nclass Point:\n    x: int = 0\n", "for i in range(10):\n    print(i, 'naïve 你好')\n"] * 20


def make_tokenizer(folder: Path, control: tuple[str, ...] = CONTROL, special: bool = True, split: str = QWEN2_SPLIT) -> int:
    """A byte-level BPE of some 300 tokens; returns its size."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(split), behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    add = tokenizer.add_special_tokens if special else tokenizer.add_tokens
    add([AddedToken(text, special=special, normalized=False) for text in control])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "pad_token": PAD, "add_bos_token": False}
    write_json(folder / "tokenizer_config.json", settings)
    return int(tokenizer.get_vocab_size())


def make_model(
    folder: Path, hidden: int = 256, tied: bool = True, padding: int = 5, seed: int = 3, dtype: torch.dtype = torch.float32
) -> Path:
    """A Hugging Face folder with two layers of random weights, large enough that logits do not tie."""
    size = make_tokenizer(folder)
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=size + padding,
        hidden_size=hidden,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        initializer_range=0.08,
        bos_token_id=None,
        eos_token_id=size - len(CONTROL),
    )
    model = Qwen2ForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    model.to(dtype).save_pretrained(folder)
    torch.random.set_rng_state(state)
    (folder / "LICENSE").write_text("Apache License\nVersion 2.0, January 2004\n")
    return folder


@pytest.fixture(scope="session")
def model_256(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("m256") / "base")


@pytest.fixture(scope="session")
def model_224(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("m224") / "base", hidden=224)


@pytest.fixture
def base(model_256: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(model_256, tmp_path / "base"))


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Held-out holes, one with repository context, one with awkward text."""
    holes = [
        ("def add(a, b):\n    ", "a + b", "\n\nprint(add(1, 2))\n", []),
        ("class Point:\n    x", ": int", " = 0\n", [{"path": "other.py", "text": "x = 1\n"}]),
        ("s = '<|fim_middle|>' + ", "'naïve 你好'", "\r\n\tend", []),
        ("", "import os\n", "os.exit()", []),
    ]
    rows = [
        {
            "sample_id": str(i), "file_id": "f", "repo": "r", "path": "a.py", "lang": "python", "split": "test_file", "order": "psm",
            "span_kind": "chars", "prefix": prefix, "middle": middle, "suffix": suffix, "context": context, "n_tokens": 50,
        }
        for i, (prefix, middle, suffix, context) in enumerate(holes)
    ]  # fmt: skip
    file = tmp_path_factory.mktemp("samples") / "test_file.parquet"
    write_parquet(file, rows, SAMPLE)
    return file


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
LLAMAS: dict[str, dict[str, Any]] = {
    "tied": {"tie_word_embeddings": True, "num_key_value_heads": 2},
    "untied": {"tie_word_embeddings": False, "num_key_value_heads": 4},
    "llama3": {"tie_word_embeddings": True, "num_key_value_heads": 1, "head_dim": 64, "rope_parameters": {**LLAMA3, "rope_theta": 1e4}},
    "biased": {"tie_word_embeddings": False, "num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True},
}


def make_llama(folder: Path, kind: str, seed: int = 4) -> Path:
    """A Hugging Face folder of a Llama with two layers of random weights and the tokenizer of `make_model`."""
    size = make_tokenizer(folder)
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    settings = {
        "vocab_size": size, "hidden_size": 160, "intermediate_size": 320, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 512, "initializer_range": 0.08, "bos_token_id": None, "eos_token_id": size - len(CONTROL),
    }  # fmt: skip
    model = LlamaForCausalLM(LlamaConfig(**settings, **LLAMAS[kind]))
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    torch.random.set_rng_state(state)
    return folder
