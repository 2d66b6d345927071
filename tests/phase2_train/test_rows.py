"""Rows are whole or refused; loss stands on the middle."""

import pytest

from core.errors import InputError
from core.fim import labels
from phase2_train.rows import load_codec, load_tokenizer, read_rows, token_rows
from phase2_train.sft import dataset
from phase2_train.tokenizer import train_bpe


def test_a_row_decodes_to_its_sample_with_the_markers_in_order(tokenizer_folder, samples):
    codec, tokenizer = load_codec(tokenizer_folder), load_tokenizer(tokenizer_folder)
    for row in read_rows(samples / "train.parquet", codec, 512):
        text = tokenizer.decode(row.ids, skip_special_tokens=False)
        assert text.startswith("<|fim_prefix|><|fim_suffix|>" if row.order == "spm" else "<|fim_prefix|>")
        assert text.endswith("<|endoftext|>")
        counted = [token for token in labels(row.ids, row.start) if token != -100]
        assert counted == row.ids[row.start :]
    assert set(dataset(read_rows(samples / "train.parquet", codec, 512)).column_names) == {"input_ids", "labels"}


def test_a_row_too_long_is_refused_not_cut(tokenizer_folder, samples):
    with pytest.raises(InputError, match=r"tokens and the model takes 50: lower samples\.row_tokens"):
        read_rows(samples / "train.parquet", load_codec(tokenizer_folder), 50)


def test_an_empty_middle_is_refused(tokenizer_folder):
    row = {
        "sample_id": "x",
        "order": "psm",
        "span_kind": "chars",
        "prefix": "a",
        "middle": "",
        "suffix": "b",
        "path": "",
        "repo": "",
        "context": None,
    }
    with pytest.raises(InputError, match="empty middle"):
        list(token_rows([row], load_codec(tokenizer_folder), 50))


def test_missing_samples_name_the_command(tokenizer_folder, tmp_path):
    with pytest.raises(InputError, match="python -m phase1_data samples"):
        read_rows(tmp_path / "train.parquet", load_codec(tokenizer_folder), 50)


@pytest.mark.parametrize(
    "text", ["    if x:\n\t\treturn  1.25e-3\r\n", "日本 ümläut 🎉 \u200b", "a" * 3000, "<|fim_middle|> <|endoftext|>", "\x00\x7f"]
)
def test_the_tokenizer_loses_nothing(text):
    tokenizer = train_bpe(["def f(x): return x"], 400)
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text
