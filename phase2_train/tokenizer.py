"""Train the byte-level BPE of the small base.

In:  files.parquet of phase 1 (profile `base`)
Out: tokenizer.json and tokenizer_config.json in the base's folder

Same pre-tokenizer as Qwen2.5 (so llama.cpp's `qwen2` splits alike), no normalizer (llama.cpp has none for it), and the
same control tokens, at the end of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from core.errors import InputError
from core.fim import CONTROL, END, PAD
from core.records import read_parquet, write_json

# Qwen2's split: contractions, words with one leading mark, single digits, runs of punctuation, line breaks, spaces
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_bpe(texts: Iterable[str], vocab: int) -> Tokenizer:
    """A byte-level BPE with `vocab` entries, control tokens included and last.

    The 256 bytes are always in it, so every text can be written; fewer entries come out where the texts hold too
    few different pairs.
    """
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - len(CONTROL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in CONTROL])
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """Write the tokenizer the way transformers loads it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END,
            "pad_token": PAD,
            "add_bos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": context,
        },
    )


def run(files: Path, folder: Path, vocab: int, context: int, max_bytes: int = 40_000_000) -> int:
    """Train on files of every package, up to `max_bytes` (merges settle long before), and return the vocabulary's size."""
    rows = read_parquet(files, "python -m phase1_data scrub --profile base --out phase1_data/out-base", ["file_id", "content"])
    texts: list[str] = []
    for row in sorted(rows, key=lambda row: str(row["file_id"])):  # a hash: mixes the packages
        texts.append(row["content"])
        max_bytes -= len(row["content"])
        if max_bytes < 0:
            break
    if not texts:
        raise InputError(f"{files} holds no files: run `python -m phase1_data ingest --profile base` and see its rejects")
    tokenizer = train_bpe(texts, vocab)
    save(tokenizer, folder, context)
    return int(tokenizer.get_vocab_size())
