"""How a tokenizer cuts text before it merges bytes, and what llama.cpp calls the same cut.

In:  tokenizer.json
Out: the value of `tokenizer.ggml.pre`

llama.cpp's own converter knows a tokenizer by the hash of what it makes of a test text, so a vocabulary of one's own is refused even
where it cuts like a known one. The cut does not depend on the vocabulary: it is named by its steps. The names and their expressions are
those of llama.cpp, src/llama-vocab.cpp (llm_tokenizer_bpe); a test compares every entry with the `tokenizers` library on hard text and
on every character. Qwen's and Llama's cuts agree on all of them; llama.cpp cuts 59 symbols of Unicode 16 differently for deepseek-v3, and
the blank U+205F for deepseek-coder.
"""

from __future__ import annotations

from typing import Any

Steps = tuple[str, ...]

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2_SPLIT = rf"{CONTRACTIONS}|{WORDS}|\p{{N}}|{REST}"
LLAMA3_SPLIT = rf"{CONTRACTIONS}|{WORDS}|\p{{N}}{{1,3}}|{REST}"
QWEN35_SPLIT = (
    rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SEED_CODER_SPLIT = rf"{CONTRACTIONS}|{WORDS}|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", "digits")
DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+",
)
GPT2 = "gpt-2"  # ByteLevel with its own expression

# Steps, and whether merges are skipped for a word that is a token (`ignore_merges`), to llama.cpp's name
NAMED: dict[tuple[Steps, bool], str] = {
    ((QWEN2_SPLIT,), False): "qwen2",
    ((LLAMA3_SPLIT,), True): "llama-bpe",
    ((LLAMA3_SPLIT,), False): "smaug-bpe",
    ((QWEN35_SPLIT,), False): "qwen35",
    ((SEED_CODER_SPLIT,), False): "seed-coder",
    ((GPT2,), False): "gpt-2",
    (("digits", GPT2), False): "smollm",  # starcoder and refact cut alike, and remove spaces before punctuation when text is put together
    (DEEPSEEK_CODER, False): "deepseek-coder",
    (DEEPSEEK_V3, False): "deepseek-v3",
}


def steps_of(tokenizer: dict[str, Any]) -> Steps:
    """The steps of a pre-tokenizer, each as its expression or its name.

    Raises:
        KeyError, TypeError: the description is damaged.
    """
    pre = tokenizer["pre_tokenizer"]
    if not pre:
        return ()
    found = [_step(step) for step in pre.get("pretokenizers", [pre])]
    return tuple(step for step in found if step)


def _step(step: dict[str, Any]) -> str:
    kind = step.get("type")
    if kind == "ByteLevel" and not step.get("add_prefix_space"):
        return GPT2 if step.get("use_regex", True) else ""
    if kind == "Digits" and step.get("individual_digits"):
        return "digits"
    if kind == "Split" and step["behavior"] == "Isolated" and not step.get("invert"):
        (expression,) = step["pattern"].values()
        return str(expression)
    return ", ".join([str(kind), *(f"{key} {value}" for key, value in sorted(step.items()) if key != "type")])


def split_name(tokenizer: dict[str, Any]) -> str | None:
    """What llama.cpp calls this tokenizer's cut; None where it has none like it."""
    return NAMED.get((steps_of(tokenizer), bool(tokenizer["model"].get("ignore_merges"))))


def described(tokenizer: dict[str, Any]) -> str:
    """The steps of a cut in a few words, for an error."""
    steps = " then ".join(repr(step if len(step) < 80 else step[:77] + "...") for step in steps_of(tokenizer)) or "no step"
    return steps + (" with ignore_merges" if tokenizer["model"].get("ignore_merges") else "")
