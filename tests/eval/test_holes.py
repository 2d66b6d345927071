"""Held-out holes as questions: prompts are core.fim's, the choice is fixed, what is left out is counted."""

import json

import pytest

from core.errors import InputError
from core.fim import CONTROL, Chunk, Hole, codec_of
from core.records import SAMPLE, read_parquet, write_parquet
from eval.holes import Vocabulary, ask, digest, read

SPLITS = ["test_file", "test_repo"]


def test_prompts_are_those_of_core_fim(samples, vocabulary):
    held, dropped = read(samples, SPLITS, 0)
    asked, too_long = ask(held, ["spm", "psm"], vocabulary, 8)
    assert not +dropped and not too_long and len(asked) == 2 * len(held) == 48
    codec = codec_of(vocabulary.tokenizer)
    rows = {row["sample_id"]: row for split in SPLITS for row in read_parquet(samples / f"{split}.parquet", "")}
    for one in asked:
        row = rows[one.held.row["sample_id"]]
        context = [Chunk(c["path"], c["text"]) for c in row["context"]]
        hole = Hole(row["prefix"], row["suffix"], row["middle"], row["path"], row["repo"], context)
        ids, start = codec.row(hole, one.order)
        assert one.question.prompt == ids[:start] and [*one.question.middle, codec.tokens.end] == ids[start:]
    assert any(row["context"] for row in rows.values())
    assert len({one.key for one in asked}) == len(asked)


def test_no_prompt_holds_the_truth_where_only_the_hole_had_it(tmp_path, samples, vocabulary):
    row = {**next(read_parquet(samples / "test_file.parquet", "")), "middle": "zzqqy_unseen"}
    write_parquet(tmp_path / "test_file.parquet", [row], SAMPLE)
    asked, _ = ask(read(tmp_path, ["test_file"], 0)[0], ["spm", "psm"], vocabulary, 8)
    assert all("zzqqy" not in vocabulary.tokenizer.decode(one.question.prompt, skip_special_tokens=False) for one in asked)


def test_the_orders_after_the_first_may_ask_fewer_holes_of_every_split(samples, vocabulary):
    held, _ = read(samples, ["test_file", "test_repo"], 0)
    asked, _ = ask(held, ["spm", "psm"], vocabulary, 8, others=3)
    first, others = ([one for one in asked if one.order == order] for order in ("spm", "psm"))
    assert len(first) == len(held) and [one.held.row["split"] for one in others] == ["test_file"] * 3 + ["test_repo"] * 3
    assert {one.key[:-4] for one in others} < {one.key[:-4] for one in first}


def test_the_choice_is_fixed_and_whatever_the_order_of_the_file(tmp_path, samples):
    few, dropped = read(samples, SPLITS, 5)
    assert len(few) == 10 and dropped["over_limit"] == 14
    for split in SPLITS:
        rows = list(read_parquet(samples / f"{split}.parquet", ""))
        write_parquet(tmp_path / f"{split}.parquet", [*rows[::-1], rows[0]], SAMPLE)
    again, _ = read(tmp_path, SPLITS, 5)
    assert [one.row["sample_id"] for one in again] == [one.row["sample_id"] for one in few]
    more, _ = read(samples, ["test_file"], 8)
    assert {one.row["sample_id"] for one in few if one.row["split"] == "test_file"} < {one.row["sample_id"] for one in more}


def test_rows_without_a_hole_and_holes_too_long_are_counted(tmp_path, samples, vocabulary):
    rows = list(read_parquet(samples / "test_file.parquet", ""))
    rows[0] |= {"order": "ltr"}
    rows[1] |= {"middle": " \n\t"}
    rows[2] |= {"prefix": "x = 1\n" * 400}
    write_parquet(tmp_path / "test_file.parquet", rows, SAMPLE)
    held, dropped = read(tmp_path, ["test_file"], 0)
    asked, too_long = ask(held, ["spm", "psm"], vocabulary, 8)
    assert dropped["no_middle"] == 2 and too_long == {"too_long": 1}
    assert len(asked) == 2 * (len(rows) - 3)
    assert max(len(one.question.prompt) for one in asked) + 8 <= vocabulary.context


def test_a_marker_in_somebodys_code_is_no_marker(tmp_path, samples, vocabulary):
    row = {**next(read_parquet(samples / "test_file.parquet", "")), "prefix": "".join(CONTROL), "middle": CONTROL[0], "context": []}
    write_parquet(tmp_path / "test_file.parquet", [row], SAMPLE)
    (one, *_), _ = ask(read(tmp_path, ["test_file"], 0)[0], ["spm"], vocabulary, 8)
    assert not vocabulary.stops.intersection(one.question.middle)
    assert sum(token in vocabulary.stops for token in one.question.prompt) == 3


def test_the_digest_sees_what_is_asked_and_what_judges_it(samples, vocabulary):
    held, _ = read(samples, SPLITS, 3)
    asked, _ = ask(held, ["spm", "psm"], vocabulary, 8)
    changed = [asked[0]._replace(question=asked[0].question._replace(middle=[1])), *asked[1:]]
    assert digest(asked) == digest(list(asked)) and len({digest(asked), digest(asked[1:]), digest(changed)}) == 3


def test_what_is_missing_is_named_with_its_command(tmp_path, samples, base):
    with pytest.raises(InputError, match="phase1_data samples"):
        read(tmp_path, ["test_file"], 0)
    write_parquet(tmp_path / "test_file.parquet", [], SAMPLE)
    with pytest.raises(InputError, match="no holes to ask for"):
        read(tmp_path, ["test_file"], 0)
    with pytest.raises(InputError, match="phase2_train base"):
        Vocabulary.of(tmp_path)
    document = json.loads((base / "tokenizer.json").read_text())
    document["added_tokens"] = []
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="fill-in-the-middle"):
        Vocabulary.of(tmp_path)
