"""Hugging Face folders with random weights, in the shapes that a converter must get right.

In:  the name of a shape
Out: config.json, tokenizer files, a card, generation_config.json, model.safetensors; an adapter as peft saves it
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from core.fim import CONTROL, END, PAD, QWEN
from core.records import Row, write_json, write_text

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {"qwen2": rf"{WORDS}\p{{N}}{REST}", "llama-bpe": rf"{WORDS}\p{{N}}{{1,3}}{REST}"}  # the expressions of Qwen2.5 and Llama 3
BYTES: Row = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
TEXT = ["def add(a, b):\n    return a + b\n\n\nclass Point:\n    x: int = 12345\n", "for i in range(10):\n    print(i, 'naïve 你好')\n"] * 9
CARD = (
    "---\nlicense: apache-2.0\nbase_model: Qwen/Qwen2.5-Coder-0.5B\nlanguage:\n- en\ntags:\n- code\n- fill-in-the-middle\n---\n# A model\n"
)
SCALE = 0.02


class Shape(NamedTuple):
    """A model to make: its config, the cut of its tokenizer, the type its weights are stored in."""

    config: Row
    pre: str
    stored: torch.dtype
    tokens: int | None = None  # of the vocabulary; None: as many as the text gives
    card: bool = False


QWEN2 = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "rope_theta": 1e6, "max_position_embeddings": 32768}
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "rope_theta": 1e5, "max_position_embeddings": 8192}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def dimensions(hidden: int, ffn: int, layers: int, heads: int, kv_heads: int, tied: bool, **more: Any) -> Row:
    """The numbers of a config.json."""
    return {
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "tie_word_embeddings": tied,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        **more,
    }


SHAPES = {
    "Qwen2.5-Coder-0.5B": Shape({**QWEN2, **dimensions(896, 4864, 24, 14, 2, True)}, "qwen2", torch.bfloat16, 151936, True),
    "qwen2-256-untied": Shape({**QWEN2, **dimensions(256, 512, 2, 4, 2, False)}, "qwen2", torch.float32),
    "qwen2-100-tied": Shape({**QWEN2, **dimensions(100, 200, 2, 4, 2, True, head_dim=24)}, "qwen2", torch.float32),
    "llama-576-tied": Shape({**LLAMA, **dimensions(576, 1536, 3, 9, 3, True)}, "smollm", torch.bfloat16, None, True),
    "llama-256-untied": Shape(
        {**LLAMA, **dimensions(256, 512, 2, 4, 1, False, head_dim=32, attention_bias=True, rope_scaling=LLAMA3_ROPE)},
        "llama-bpe",
        torch.float16,
    ),
}


def make(folder: Path, shape: Shape, seed: int = 17) -> Path:
    """Write the folder of a shape."""
    folder.mkdir(parents=True)
    size = make_tokenizer(folder, shape)
    config = {**shape.config, "vocab_size": shape.tokens or size + 5, "eos_token_id": size - len(CONTROL)}
    write_json(folder / "config.json", config)
    if shape.card:
        write_text(folder / "README.md", CARD)
        write_json(folder / "generation_config.json", {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.1})
    save_file(dict(tensors(config, shape.stored, seed)), folder / "model.safetensors", {"format": "pt"})
    return folder


def tensors(config: Row, stored: torch.dtype, seed: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Random tensors of a Qwen2 or a Llama, by name."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) * SCALE).to(stored)

    hidden, ffn, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    q, kv = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    biased = ("q", "k", "v") if config["model_type"] == "qwen2" else ("q", "k", "v", "o") if config.get("attention_bias") else ()
    yield "model.embed_tokens.weight", drawn(vocab, hidden)
    for at in (f"model.layers.{i}" for i in range(config["num_hidden_layers"])):
        for name, rows, columns in (("q", q, hidden), ("k", kv, hidden), ("v", kv, hidden), ("o", hidden, q)):
            yield f"{at}.self_attn.{name}_proj.weight", drawn(rows, columns)
            if name in biased:
                yield f"{at}.self_attn.{name}_proj.bias", drawn(rows)
        for name, rows, columns in (("gate", ffn, hidden), ("up", ffn, hidden), ("down", hidden, ffn)):
            yield f"{at}.mlp.{name}_proj.weight", drawn(rows, columns)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{at}.{name}.weight", 1 + drawn(hidden)
    yield "model.norm.weight", 1 + drawn(hidden)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", drawn(vocab, hidden)


def make_tokenizer(folder: Path, shape: Shape) -> int:
    """tokenizer.json and tokenizer_config.json; return how many tokens there are."""
    vocab, merges = made_up(shape.tokens) if shape.tokens else trained()
    added = [
        {
            "id": len(vocab) + i,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for i, text in enumerate(CONTROL)
    ]
    if shape.pre in SPLITS:
        split = {"type": "Split", "pattern": {"Regex": SPLITS[shape.pre]}, "behavior": "Isolated", "invert": False}
        steps = [split, {**BYTES, "use_regex": False}]
    else:
        steps = [{"type": "Digits", "individual_digits": True}, BYTES]
    bos = {"SpecialToken": {"id": END, "type_id": 0}}
    single = [bos, {"Sequence": {"id": "A", "type_id": 0}}]
    template = {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, bos, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {END: {"id": END, "ids": [len(vocab)], "tokens": [END]}},
    }
    llama3 = shape.pre == "llama-bpe"
    tokenizer = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if shape.pre == "qwen2" else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": {"type": "Sequence", "processors": [BYTES, template]} if llama3 else BYTES,
        "decoder": BYTES,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "ignore_merges": llama3, "vocab": vocab, "merges": merges},
    }
    write_json(folder / "tokenizer.json", tokenizer)
    settings: Row = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "pad_token": PAD}
    more: Row = {"bos_token": END} if llama3 else {"add_prefix_space": False, "chat_template": "{{ messages }}"}
    write_json(folder / "tokenizer_config.json", {**settings, **more})
    return len(vocab) + len(CONTROL)


def trained() -> tuple[dict[str, int], list[list[str]]]:
    """A byte-level BPE of 400 tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], model["merges"]


def made_up(size: int) -> tuple[dict[str, int], list[list[str]]]:
    """As many tokens as Qwen2.5 has before its control tokens: all bytes, all pairs of them, then triples of letters."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    common = [letter for letter in letters if letter.isalpha() and letter.isascii()] + list("Ġ_.()=:,")
    pairs = [[a, b] for a, b in itertools.product(letters, letters)]
    triples = ([a + b, c] for (a, b), c in itertools.product(itertools.product(common, common), common))
    count = QWEN.end if size > QWEN.end else size - len(CONTROL)
    merges = [*pairs, *itertools.islice(triples, count - len(letters) - len(pairs))]
    return {text: i for i, text in enumerate([*letters, *("".join(pair) for pair in merges)])}, merges


def make_adapter(folder: Path, base: Row, seed: int = 18, rank: int = 16) -> Path:
    """A peft adapter on all linear layers of a base with this config."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    found: dict[str, torch.Tensor] = {}
    for name, weight in tensors({**base, "vocab_size": 1}, torch.float32, seed):
        if name.endswith("_proj.weight"):
            rows, columns = weight.shape
            module = f"base_model.model.{name.removesuffix('.weight')}"
            for half, shape in (("A", (rank, columns)), ("B", (rows, rank))):
                found[f"{module}.lora_{half}.weight"] = torch.from_numpy(generator.standard_normal(shape, np.float32) * np.float32(SCALE))
    save_file(found, folder / "adapter_model.safetensors", {"format": "pt"})
    targets = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank, "target_modules": targets, "bias": "none"}
    write_json(folder / "adapter_config.json", {**settings, "base_model_name_or_path": "base"})
    return folder
