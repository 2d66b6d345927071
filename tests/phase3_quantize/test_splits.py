"""llama.cpp cuts text as the tokenizer does, for every cut that has a name here; another is refused with its steps."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from pathlib import Path

import llama_cpp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from core.errors import InputError
from core.fim import CONTROL
from core.records import write_json
from phase3_quantize.splits import NAMED, QWEN2_SPLIT, Steps, split_name
from phase3_quantize.vocab import read_tokenizer, read_vocab
from tests.phase3_quantize.tokenizers_of import HARD, LlamaTokenizer, tokenizer_of

MADE: dict[str, tuple[Tokenizer, LlamaTokenizer]] = {}
TEXTS = st.lists(st.one_of(st.sampled_from([*HARD, *CONTROL]), st.text(max_size=20), st.text("a1 ,'\n\r\t._é你٣", max_size=20)), max_size=4)


@llama_cpp.llama_log_callback
def quiet(level: int, text: bytes, _: ctypes.c_void_p) -> None: ...


@pytest.fixture(scope="module", autouse=True)
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    for (steps, ignore_merges), name in NAMED.items():
        tokenizer = tokenizer_of(steps, ignore_merges)
        MADE[name] = tokenizer, LlamaTokenizer(tmp_path_factory.mktemp(name), tokenizer)
    yield
    MADE.clear()


def differing(name: str, texts: list[str]) -> list[str]:
    tokenizer, llama = MADE[name]
    return [text for text in texts if tokenizer.encode(text, add_special_tokens=False).ids != llama.encode(text, special=True)]


@pytest.mark.parametrize("name", NAMED.values())
def test_hard_texts_and_control_tokens_give_the_same_ids(name: str) -> None:
    assert differing(name, HARD) == []
    assert (
        differing(name, [f"a{marker}b  {marker}{marker}\n" for marker in CONTROL] + ["<|fim", "<|fim_prefix", "|>", "<|endoftext|"]) == []
    )
    assert (
        differing(name, [f" a1{chr(point)}b {chr(point) * 2}." for point in range(1, 0x20000, 331) if not 0xD800 <= point < 0xE000]) == []
    )


@settings(max_examples=400, deadline=None)
@given(name=st.sampled_from(sorted(NAMED.values())), parts=TEXTS)
def test_any_text_gives_the_same_ids(name: str, parts: list[str]) -> None:
    assert differing(name, ["".join(parts)]) == []


# llama.cpp's tables lack the symbols that came with Unicode 16, and its cut for DeepSeek-Coder reads one blank otherwise
UNICODE_16 = {
    *range(0x2427, 0x242A), *range(0x1F8B2, 0x1F8BC), 0x1F8C0, 0x1F8C1, 0x1FA89, 0x1FA8F, 0x1FABE, 0x1FAC6, 0x1FADC, 0x1FADF, 0x1FAE9,
    *range(0x1FBCB, 0x1FBF0),
}  # fmt: skip
UNLIKE = {"deepseek-coder": {0x205F}, "deepseek-v3": UNICODE_16}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED.values())
def test_every_character_gives_the_same_ids_but_for_those_that_are_known(name: str) -> None:
    points = [*range(1, 0xD800), *range(0xE000, 0x20000), 0x2A6D6, 0xE0001]
    text_of = {point: f" a1{chr(point)}b {chr(point) * 2}." for point in points}
    assert differing(name, list(text_of.values())) == [text_of[point] for point in points if point in UNLIKE.get(name, set())]


@pytest.mark.parametrize(("cut", "named"), [("qwen2", "llama-bpe"), ("llama-bpe", "qwen2"), ("gpt-2", "smollm"), ("deepseek-v3", "qwen2")])
def test_these_texts_tell_one_cut_from_another(cut: str, named: str) -> None:
    tokenizer, llama = MADE[cut][0], MADE[named][1]
    assert any(tokenizer.encode(text, add_special_tokens=False).ids != llama.encode(text, special=True) for text in HARD)


def edited(folder: Path, **model: object) -> Path:
    """A tokenizer of Qwen2's cut with something changed; keys of the file but for those of its model."""
    folder.mkdir(exist_ok=True)
    description = json.loads(tokenizer_of((QWEN2_SPLIT,), False).to_str())
    top = {key: model.pop(key) for key in list(model) if key in description}
    write_json(folder / "tokenizer.json", {**description, "model": {**description["model"], **model}, **top})
    return folder


def split(expression: str) -> dict[str, object]:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pre_tokenizer": split(r"\w+|\W")}, r"cuts text by '\\\\w\+\|\\\\W'"),
        ({"pre_tokenizer": {**split(QWEN2_SPLIT), "behavior": "Removed"}}, "Removed"),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}}, "add_prefix_space True"),
        ({"pre_tokenizer": {"type": "Metaspace", "replacement": "▁"}}, "Metaspace"),
        ({"pre_tokenizer": None}, "no step"),
        ({"ignore_merges": True}, "with ignore_merges"),
        ({"normalizer": {"type": "Lowercase"}}, "normalizes text .Lowercase."),
        ({"decoder": {"type": "Sequence", "decoders": [{"type": "Replace"}, {"type": "ByteFallback"}]}}, "SentencePiece"),
        ({"type": "Unigram"}, "no byte-level BPE but Unigram"),
        ({"byte_fallback": True}, "byte_fallback"),
        ({"dropout": 0.1}, "dropout 0.1"),
        ({"continuing_subword_prefix": "##"}, "continuing_subword_prefix"),
        ({"merges": []}, "no merges"),
        ({"added_tokens": []}, "no <|endoftext|>".replace("|", r"\|")),
    ],
)
def test_what_llama_cpp_would_cut_otherwise_is_refused_by_name(tmp_path: Path, change: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_vocab(edited(tmp_path / "t", **change), 2000)


def test_a_sentencepiece_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e")
    with pytest.raises(InputError, match="SentencePiece"):
        read_tokenizer(tmp_path)


@pytest.mark.parametrize(("steps", "ignore_merges"), NAMED)
def test_a_cut_is_known_by_its_steps_whatever_the_vocabulary(steps: Steps, ignore_merges: bool) -> None:
    description = json.loads(tokenizer_of(steps, ignore_merges).to_str())
    description["model"]["vocab"] = {"a": 0}
    assert split_name(description) == NAMED[steps, ignore_merges]
