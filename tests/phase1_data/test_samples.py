"""Promises of the rows, from a folder to the data card, through the commands people run."""

from __future__ import annotations

import gzip
import itertools
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from core.errors import InputError
from core.fim import Chunk, Hole
from core.records import read_json, read_parquet
from phase1_data.cli import app
from phase1_data.decontaminate import RUN, heldout_index, shared
from phase1_data.params import SamplesParams
from phase1_data.rows import LAST_TICKET, ROUND, draw
from phase1_data.tokenizer import Ruler, locate

from .conftest import SAMPLES, code

SPLITS = ("train", "valid", "test_file", "test_repo")


def command(name: str, params: Path, out: Path, *more: str):
    return CliRunner().invoke(app, [name, "--params", str(params), "--out", str(out), *more])


def make(tmp_path: Path, params: Path, out: str = "out") -> dict[str, list[dict]]:
    done = command("run", params, tmp_path / out)
    assert done.exit_code == 0, done.output
    return {split: list(read_parquet(tmp_path / out / f"samples/{split}.parquet", "")) for split in SPLITS}


@pytest.fixture
def sources(tmp_path, repo) -> list[dict]:
    """Two repositories; one file of the first holds an address, which is masked."""
    first, second = repo("first", 22), repo("second", 5, 200)
    with_address = code(77).replace('"""Turn', '"""Written by ada.byron@analytical-engine.org. Turn', 1)
    (first / "pkg" / "contact.py").write_text(with_address)
    return [{"kind": "folder", "paths": [str(first), str(second)], "license": None}]


def test_every_row_keeps_every_promise(tmp_path, params_file, sources, tokenizer_file):
    params = params_file(sources, samples={"heldout_repos": ["second"], "test_holes": 30})
    rows = make(tmp_path, params)
    ruler = Ruler(tokenizer_file)
    files = {row["file_id"]: row for row in read_parquet(tmp_path / "out/samples/files.parquet", "")}
    assert len(rows["test_file"]) == len(rows["test_repo"]) == 30 and len(rows["train"]) > 150 and rows["valid"]
    assert {row["repo"] for row in rows["test_repo"]} == {"second"} and {row["repo"] for row in rows["train"]} == {"first"}
    everything = [row for split in SPLITS for row in rows[split]]
    assert len({row["sample_id"] for row in everything}) == len(everything)
    train_text = {row["content"] for row in files.values() if row["split"] == "train"}
    for row in everything:
        file = files[row["file_id"]]
        assert file["split"] == row["split"] and (row["repo"], row["path"], row["lang"]) == (file["repo"], file["path"], file["lang"])
        context = tuple(Chunk(chunk["path"], chunk["text"]) for chunk in row["context"])
        hole = Hole(row["prefix"], row["suffix"], row["middle"], row["path"], row["repo"], context)
        assert row["n_tokens"] == len(ruler.codec.row(hole, row["order"])[0]) <= 160
        start = file["content"].find(row["prefix"] + row["middle"] + row["suffix"])
        assert start >= 0 and row["middle"].strip()
        assert all(row["middle"] not in chunk.text for chunk in context)
        if row["split"] in ("train", "test_file"):
            assert all(any(chunk.text in text for text in train_text) for chunk in context)
        if row["order"] == "ltr":
            assert row["split"] in ("train", "valid") and row["span_kind"] == "none" and not row["prefix"] + row["suffix"]
        else:
            assert ruler.count(row["middle"]) <= 48
        for mask in file["redactions"]:
            masked = file["content"][mask["start"] : mask["end"]]
            assert masked not in row["middle"]
    held = heldout_index(row["content"] for row in files.values() if row["split"] != "train")
    assert not any(shared(row["prefix"] + row["middle"] + row["suffix"], held, RUN) for row in rows["train"])
    assert any(row["context"] for row in rows["train"]) and any(not row["suffix"] for row in rows["train"])
    kinds = {row["span_kind"].split(":")[0] for row in rows["train"]}
    assert kinds == {"line_rest", "lines", "node", "chars", "none"} and {row["order"] for row in rows["train"]} == {"psm", "spm", "ltr"}


def test_a_secret_reaches_no_output(tmp_path, params_file, sources):
    make(tmp_path, params_file(sources))
    for file in (tmp_path / "out").rglob("*"):
        if file.is_file() and "ingest" not in file.parts and "clean" not in file.parts:
            assert b"analytical-engine" not in file.read_bytes(), file
    rows = [row for split in SPLITS for row in read_parquet(tmp_path / f"out/samples/{split}.parquet", "")]
    assert not any("analytical-engine" in str(row) for row in rows)
    card = read_json(tmp_path / "out/reports/data_card.json", "")
    assert card["redactions"].get("email") == 1


def test_neither_workers_nor_a_second_run_change_a_byte(tmp_path, params_file, sources):
    changed = {"heldout_repos": ["second"], "max_train": 100}
    workers = {step: {"workers": 2} for step in ("clean", "scrub")}
    make(tmp_path, params_file(sources, samples=changed), "one")
    first = (tmp_path / "one/reports/data_card.json").read_bytes()
    make(tmp_path, params_file(sources, samples=changed), "one")
    assert (tmp_path / "one/reports/data_card.json").read_bytes() == first
    make(tmp_path, params_file(sources, samples=changed | {"workers": 2}, **workers), "two")
    outputs = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.parquet")]
    assert len(outputs) == 13
    for path in outputs:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes(), path


def test_max_train_takes_a_sample_of_the_same_rows(tmp_path, params_file, sources):
    every = {row["sample_id"] for row in make(tmp_path, params_file(sources), "all")["train"]}
    some = {row["sample_id"] for row in make(tmp_path, params_file(sources, samples={"max_train": 50}), "some")["train"]}
    assert len(some) == 50 and some < every
    for name, rows in (("all", len(every)), ("some", 50)):  # every hole is a row, or is counted
        counts = read_json(tmp_path / name / "samples/manifest.json", "")["counts"]
        lost = sum(count for reason, count in counts["holes_lost"].items() if reason.startswith("train: "))
        assert rows + lost == counts["splits"]["train"]["holes"]


def test_too_little_code_for_the_test_is_counted(tmp_path, params_file, sources):
    rows = make(tmp_path, params_file(sources, samples={"heldout_repos": ["second"], "test_holes": 100_000}))
    short = read_json(tmp_path / "out/samples/manifest.json", "")["counts"]["test_holes_short"]
    assert short == {split: 100_000 - len(rows[split]) for split in ("test_file", "test_repo")}
    assert "holes short" in (tmp_path / "out/reports/data_card.md").read_text()


def test_a_benchmark_is_kept_out_and_named(tmp_path, params_file, sources):
    stolen = (tmp_path / "first/pkg/mod5.py").read_text()
    bench = tmp_path / "bench.jsonl"
    bench.write_text(json.dumps({"task": "t/1", "solution": "\n".join(stolen.split("\n")[:14])}) + "\n")
    make(tmp_path, params_file(sources, samples={"decontaminate": [str(bench)]}))
    assert ("first", "pkg/mod5.py") not in {(row["repo"], row["path"]) for row in read_parquet(tmp_path / "out/samples/files.parquet", "")}
    (reject,) = read_parquet(tmp_path / "out/samples/rejects.parquet", "")
    assert (reject["path"], reject["reason"]) == ("first/pkg/mod5.py", "benchmark")
    assert read_json(tmp_path / "out/reports/data_card.json", "")["benchmark_hits"] == {str(bench): 1}


def test_every_suite_counts_its_hits_and_a_missing_one_stops_before_any_work(tmp_path, params_file, sources):
    texts = [(tmp_path / f"first/pkg/mod{number}.py").read_text() for number in (5, 6)]
    one, two, three = (tmp_path / name for name in ("one.jsonl", "two.jsonl.gz", "three.parquet"))
    one.write_text(json.dumps({"solution": texts[0]}) + "\n")
    two.write_bytes(gzip.compress("\n".join(json.dumps({"prompt": text}) for text in texts).encode()))
    pq.write_table(pa.table({"text": ["nothing of ours"]}), three)
    suites = [str(one), str(two), str(three)]
    make(tmp_path, params_file(sources, samples={"decontaminate": suites}))
    counts = read_json(tmp_path / "out/samples/manifest.json", "")["counts"]
    assert counts["benchmark_hits"] == {str(one): 1, str(two): 2, str(three): 0} and counts["dropped"] == {"benchmark": 2}
    rejects = {row["path"]: row["value"] for row in read_parquet(tmp_path / "out/samples/rejects.parquet", "")}
    assert rejects == {"first/pkg/mod5.py": f"{one}, {two}", "first/pkg/mod6.py": str(two)}
    three.unlink()
    shutil.rmtree(tmp_path / "out/samples")
    done = command("samples", params_file(sources, samples={"decontaminate": suites}), tmp_path / "out")
    assert done.exit_code == 2 and f"{three} is missing" in done.stderr and "look" not in done.stderr
    assert not (tmp_path / "out/.work").exists()


def test_the_card_adds_up(tmp_path, params_file, sources):
    make(tmp_path, params_file(sources))
    card = read_json(tmp_path / "out/reports/data_card.json", "")
    left = {step["step"]: step["files"] for step in card["funnel"]}
    lost = {step: sum(reasons.values()) for step, reasons in card["dropped"].items()}
    assert left["ingest"] - lost["clean"] == left["clean"] and left["clean"] - lost["scrub"] == left["scrub"]
    assert left["scrub"] - lost["samples"] == left["samples"] == sum(split["files"] for split in card["splits"].values())
    assert all(pair["similarity"] < 0.7 for pair in card["largest_similarity"].values())
    page = (tmp_path / "out/reports/data_card.md").read_text()
    assert all(f"## {head}" in page for head in ("What each step left", "Licences", "Masked", "Rows", "Across splits")) and "MIT" in page


def test_test_holes_are_spread_over_files_and_windows(samples_params):
    params = samples_params()
    by_file = {name: draw("test_file", name, windows, params, -1, 4 * ROUND - 1) for name, windows in (("a", 9), ("b", 1), ("c", 3))}
    assert [len(picks) for picks in by_file.values()] == [4, 4, 4]
    ranked = sorted((pick.ticket, name) for name, picks in by_file.items() for pick in picks)
    assert all({name for _, name in ranked[turn : turn + 3]} == set("abc") for turn in (0, 3, 6, 9))  # one of each file in turn
    assert len({pick.window for pick in by_file["a"]}) == 4 and {pick.hole for pick in by_file["b"]} == {0, 1, 2, 3}


@given(windows=st.integers(0, 40), cuts=st.lists(st.integers(0, LAST_TICKET), max_size=4), split=st.sampled_from(SPLITS))
def test_every_hole_is_drawn_once_however_the_tickets_are_divided(windows, cuts, split):
    params = SamplesParams.model_validate(SAMPLES)
    every = draw(split, "repo/path:id", windows, params, -1, LAST_TICKET)
    edges = [-1, *sorted(cuts), LAST_TICKET]
    assert every == [pick for low, high in itertools.pairwise(edges) for pick in draw(split, "repo/path:id", windows, params, low, high)]
    assert len({pick[1:] for pick in every}) == windows * (16 if split.startswith("test") else params.holes_per_window)
    assert every == sorted(every) and all(pick.window < windows for pick in every)


@pytest.mark.parametrize(
    ("changed", "code_", "says"),
    [
        ({"tokenizer": "phase2_train/tiny_base_absent"}, 3, "phase2_train/tiny_base_absent"),  # reads as a Hub id
        ({"tokenizer": "./no/such"}, 2, "mend samples.tokenizer"),
        ({"heldout_repos": ["absent"]}, 2, "names 'absent'"),
        ({"heldout_file_share": 1.0}, 2, "left to train on"),
        ({"row_tokens": 20}, 2, "row_tokens"),
        ({"decontaminate": ["none.jsonl"]}, 2, "none.jsonl is missing"),
        ({"span_mix": {"words": 1.0}}, 2, "span_mix"),
        ({"spm_rate": 1.5}, 2, "spm_rate"),
        ({"surprise": 1}, 2, "samples.surprise: no such key"),
    ],
)
def test_a_wrong_section_is_one_line_and_leaves_nothing(tmp_path, params_file, sources, monkeypatch, changed, code_, says):
    params = params_file(sources)
    for step in ("ingest", "clean", "scrub"):
        assert command(step, params, tmp_path / "out").exit_code == 0
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = command("samples", params_file(sources, samples=changed), tmp_path / "out")
    assert done.exit_code == code_ and says in done.stderr and done.stderr.count("error:") == 1, done.output
    assert not (tmp_path / "out/samples").exists() or not list((tmp_path / "out/samples").iterdir())


@pytest.mark.parametrize(
    ("folder", "command_"),
    [
        ("phase2_train/tiny_base", "python -m phase2_train pretrain --profile base"),
        ("phase2_train/out/base", "python -m phase2_train base"),
    ],
)
def test_a_missing_base_names_the_command_that_makes_it(tmp_path, monkeypatch, folder, command_):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=command_):
        locate(folder, None)


def test_a_tokenizer_without_markers_is_refused(tmp_path, params_file, sources):
    (tmp_path / "bad.json").write_text('{"model": 1}')
    params = params_file(sources, samples={"tokenizer": str(tmp_path / "bad.json")})
    for step in ("ingest", "clean", "scrub"):
        assert command(step, params, tmp_path / "out").exit_code == 0
    done = command("samples", params, tmp_path / "out")
    assert done.exit_code == 2 and "is no tokenizer" in done.stderr


def test_no_argument_shows_the_commands():
    done = CliRunner().invoke(app, [])
    assert all(name in done.output for name in ("ingest", "clean", "scrub", "samples", "run"))
