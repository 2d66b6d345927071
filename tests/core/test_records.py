"""Files are whole or absent, and equal rows are equal bytes."""

import pytest

from core.errors import InputError
from core.records import REJECT, partial, read_group, read_groups, read_jsonl, read_parquet, write_jsonl, write_parquet

ROWS = [{"path": f"a{n}.py", "stage": "clean", "reason": "too_short", "value": str(n)} for n in range(5000)]


def test_a_failed_write_leaves_nothing(tmp_path):
    target = tmp_path / "out.txt"
    target.write_text("old")

    def fail_half_way():
        with partial(target) as unfinished:
            unfinished.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_parquet_comes_back_and_is_the_same_bytes_twice(tmp_path):
    for name in ("a", "b"):
        assert write_parquet(tmp_path / name, iter(ROWS), REJECT) == len(ROWS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert list(read_parquet(tmp_path / "a", "x")) == ROWS


def test_no_rows_are_a_file_too(tmp_path):
    write_parquet(tmp_path / "a", [], REJECT)
    assert list(read_parquet(tmp_path / "a", "x")) == []


def test_a_missing_or_cut_file_names_the_command(tmp_path):
    with pytest.raises(InputError, match="run `make it` first"):
        list(read_parquet(tmp_path / "no", "make it"))
    write_parquet(tmp_path / "a", ROWS, REJECT)
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:-40])
    with pytest.raises(InputError, match="damaged"):
        list(read_parquet(tmp_path / "a", "make it"))


def test_a_bad_jsonl_line_is_named_by_its_number(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"x": 1}, {"x": "ü\n"}])
    assert list(read_jsonl(tmp_path / "a.jsonl", "x")) == [{"x": 1}, {"x": "ü\n"}]
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n\n{"x": \n')
    with pytest.raises(InputError, match=r"a\.jsonl:3"):
        list(read_jsonl(tmp_path / "a.jsonl", "x"))


def test_row_groups_end_at_500_rows_or_4_mb_of_text_whatever_the_rows_around(tmp_path):
    short = [{"path": "p", "stage": "s", "reason": "r", "value": "v"}] * 700
    long = [{"path": "p", "stage": "s", "reason": "r", "value": "v" * size} for size in (1_500_000, 1_500_000, 1_500_000, 9_000_000, 10)]
    write_parquet(tmp_path / "a", short + long, REJECT)
    groups = list(read_groups(tmp_path / "a", "x", ["path"]))
    assert [group.num_rows for group in groups] == [500, 202, 1, 1, 1]
    assert read_group(tmp_path / "a", 3, "x")["value"][0].as_py() == "v" * 9_000_000


def test_a_group_with_a_broken_page_names_the_command(tmp_path):
    write_parquet(tmp_path / "a", [{"path": "p", "stage": "s", "reason": "r", "value": str(n) * 50} for n in range(400)], REJECT)
    data = bytearray((tmp_path / "a").read_bytes())
    data[40:400] = b"\xff" * 360
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(InputError, match="run `make it` again"):
        read_group(tmp_path / "a", 0, "make it")
