"""Tokenizers for every cut that llama.cpp knows, and llama.cpp's own reading of them.

Merges are learnt on text that was not cut, so that they reach over every border: a cut at another place gives other tokens.
"""

from __future__ import annotations

import ctypes
import json
from pathlib import Path

import gguf
import llama_cpp
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from core.fim import CONTROL, END
from core.records import write_json
from phase3_quantize import gguf_write
from phase3_quantize.splits import GPT2, Steps
from phase3_quantize.vocab import add_vocab, read_vocab

# Cases of llama.cpp's own tokenizer tests (models/ggml-vocab-*.gguf.inp) and what code adds: spaces, breaks, digits, scripts, markers
HARD = [
    "",
    " ",
    "  ",
    "   ",
    "\t",
    "\n",
    "\n\n",
    "\n\n\n",
    "\t\n",
    " \n \n\n \n\n\n",
    "\r\n\r\n\tx\r",
    "Hello world",
    " Hello world!",
    "Hello, y'all! 😁 ?我想在apple工作1314151天～",
    "w048 7tuijk dsdfhu",
    "нещо на Български",
    "កាន់តែពិសេសអាចខលចេញ",
    "🚀 (normal) 😶\u200d🌫️ (multiple emojis concatenated) ✅",
    "3 33 333 3333 33333 333333 3333333 33333333 333333333",
    "ied 4 ½ months",
    "I'm you're WE'LL He'S don't 'tis o'clock'd 'RE you sure?",
    "''''''```````\"\"\"\"......!!!!!!??????",
    "    def f(self, *args):\r\n        return 0x1F + 1_000 - 1e-3  # ²\n\n\n",
    "a\u00a0b\u2003c\u3000d\u2028e\x0bf\x0cg\x85h",
    "x" * 70,
    " " * 70 + "end",
    "Führer",
    "\n =",
    "' era",
    "Ⅷ①٣৪",
    "naïve cafe\u0301 Å",
    "안녕하세요 こんにちは 你好，世界",
    "שלום مرحبا हिन्दी ภาษาไทย",
    "\x00\x01\x7f",
    "camelCaseHTTP2XML_snake__x",
    "!!!???...---===<<<>>>&&&|||",
    "[baz]{qux};\n}\n\n  }",
    "$100 +5 ^~`|<=>",
]


def tokenizer_of(steps: Steps, ignore_merges: bool) -> Tokenizer:
    """A byte-level BPE of 900 tokens that cuts by `steps`."""
    tokenizer = Tokenizer(models.BPE())
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer, tokenizer.decoder = whole, decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    tokenizer.train_from_iterator([text + other for text in HARD for other in HARD], trainer)
    tokenizer.add_special_tokens(list(CONTROL))
    description = json.loads(tokenizer.to_str())
    described = [step_of(step) for step in steps]
    if steps[-1] != GPT2:
        described.append(json.loads(whole.__getstate__()))
    description["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": described}
    description["model"]["ignore_merges"] = ignore_merges
    return Tokenizer.from_str(json.dumps(description))


def step_of(step: str) -> dict[str, object]:
    if step == "digits":
        return {"type": "Digits", "individual_digits": True}
    if step == GPT2:
        return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"type": "Split", "pattern": {"Regex": step}, "behavior": "Isolated", "invert": False}


class LlamaTokenizer:
    """llama.cpp's tokenizer, loaded from a GGUF that holds nothing else; as long as the process lives."""

    def __init__(self, folder: Path, tokenizer: Tokenizer) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(str(folder / "tokenizer.json"))
        write_json(folder / "tokenizer_config.json", {"eos_token": END})
        writer = gguf.GGUFWriter(None, "llama")
        for add in (writer.add_block_count, writer.add_context_length, writer.add_embedding_length, writer.add_head_count):
            add(1)
        writer.add_layer_norm_rms_eps(1e-6)
        add_vocab(writer, read_vocab(folder, tokenizer.get_vocab_size()))
        (folder / "vocab.gguf").write_bytes(gguf_write.header(gguf_write.entries_of(writer), []))
        settings = llama_cpp.llama_model_default_params()
        settings.vocab_only = True
        model = llama_cpp.llama_model_load_from_file(str(folder / "vocab.gguf").encode(), settings)
        assert model
        self.vocab = llama_cpp.llama_model_get_vocab(model)

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Ids of a text; markers are looked for if `special`."""
        raw = text.encode()
        room = (ctypes.c_int32 * (len(raw) + 8))()
        count = llama_cpp.llama_tokenize(self.vocab, raw, len(raw), room, len(room), False, special)
        assert count >= 0
        return list(room[:count])
