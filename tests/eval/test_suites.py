"""Suites: rows of any form, judged raw and as an editor shows them; a parent, no context; bad rows by file and line."""

import gzip
import json
import math

import pytest
from typer.testing import CliRunner

from core.errors import InputError
from core.fim import Chunk
from core.records import read_parquet
from core.stops import shown
from eval import generate, suites
from eval.cli import app
from eval.suite_rows import read
from tests.eval.conftest import sample_rows

SETTINGS = suites.Settings("spm", 8, 200, 17)


def cross_file(row: dict) -> dict:
    """A row of our samples as CrossCodeEval would write it."""
    pieces = [{"retrieved_chunk": one["text"], "filename": one["path"], "score": 1.0} for one in row["context"]]
    about = {"task_id": f"project_cc_python/{row['sample_id']}", "repository": row["repo"], "file": row["path"]}
    found = {"text": "# Here are some relevant code fragments", "list": pieces}
    return {
        "prompt": row["prefix"],
        "groundtruth": row["middle"],
        "right_context": row["suffix"],
        "crossfile_context": found,
        "metadata": about,
    }


@pytest.fixture(scope="module")
def rows():
    return sample_rows(14, "test_file", 11)


@pytest.fixture(scope="module")
def file(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "cross.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as sink:
        sink.writelines(json.dumps(cross_file(row)) + "\n" for row in rows)
    return path


@pytest.fixture(scope="module")
def finished(file, base, gguf, tmp_path_factory):
    """A suite with a parent and with and without context; figures and folder."""
    out = tmp_path_factory.mktemp("suites")
    return suites.run(file, f"gguf:{gguf}", f"hf:{base}", "both", "cross", out, SETTINGS, None, 0), out


def test_a_suite_says_all_that_is_needed_to_read_and_repeat_it(finished, file):
    figures, out = finished
    assert figures == json.loads((out / "cross.json").read_text())
    assert {"suite", "model", "n", "metrics", "prompt_sha256", "stops"} <= figures.keys() and figures["n"] == 14
    assert figures["stops"][0] == "<|endoftext|>" and len(figures["prompt_sha256"]) == 64
    raw = {"exact_match", "edit_similarity", "identifier_f1", "identifier_match", "chrf", "bleu4", "overrun_rate", "suffix_repeat_rate"}
    assert raw <= figures["metrics"].keys() and {f"shown_{name}" for name in raw} <= figures["metrics"].keys()
    for name, cell in figures["metrics"].items():
        assert set(cell) == {"value", "low", "high", "n"} and cell["low"] <= cell["value"] <= cell["high"], name
        assert 0 < cell["n"] <= 14 and not math.isnan(cell["value"])
    assert figures["parent"]["prompt_sha256"] == figures["prompt_sha256"]
    assert figures["without_context"]["prompt_sha256"] != figures["prompt_sha256"]


def test_equal_weights_differ_nowhere_and_say_how_little_would_show(finished):
    gaps = finished[0]["parent"]["differences"]
    assert all(gap["value"] == 0 and not gap["visible"] for gap in gaps.values())
    assert gaps["exact_match"]["p"] == 1 and gaps["exact_match"]["smallest_visible"] == pytest.approx(6 / 14, abs=1e-6)


def test_gain_and_harm_count_rows(finished):
    without = finished[0]["without_context"]
    assert without["nearer"] + without["further"] + without["same"] == 14 and without["gain"] <= without["nearer"]
    one, other = {"exact": True, "similarity": 100.0}, {"exact": False, "similarity": 40.0}
    moved = suites.gain_and_harm([one, other, one], [other, one, one])
    assert moved == {"gain": 1, "harm": 1, "nearer": 1, "further": 1, "same": 1}


def test_rows_hold_what_was_written_and_what_is_shown_of_it(finished, rows):
    kept = list(read_parquet(finished[1] / "cross.rows.parquet", ""))
    assert len(kept) == 3 * 14 and {(row["model"][:2], row["context"]) for row in kept} == {("gg", "on"), ("hf", "on"), ("gg", "off")}
    for row, sample in zip(kept, rows * 3, strict=True):
        assert row["shown"] == shown(sample["prefix"], sample["suffix"], "python", row["completion"])


def test_a_rerun_asks_nothing_and_writes_the_same_bytes(finished, file, base, gguf, monkeypatch):
    figures, out = finished
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setattr("eval.backends.GgufFile.answer", None)  # whoever asks fails
    monkeypatch.setattr("eval.backends.HfModel.answer", None)
    assert suites.run(file, f"gguf:{gguf}", f"hf:{base}", "both", "cross", out, SETTINGS, None, 0) == figures
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_the_three_forms_and_samples_give_the_same_holes(rows, file, samples, tmp_path):
    theirs, _ = read(file)
    plain = tmp_path / "plain.jsonl"
    keys = ("prefix", "middle", "suffix", "context", "path", "repo", "lang", "sample_id")
    plain.write_text("\n\n".join(json.dumps({key: row[key] for key in keys}) for row in rows))
    ours, _ = read(plain)
    assert [one.hole for one in ours] == [one.hole for one in theirs] and {one.lang for one in ours + theirs} == {"python"}
    assert [one.group for one in ours] == [one.group for one in theirs]
    infilling = tmp_path / "infilling.jsonl"
    infilling.write_text(
        '{"task_id": "T/0", "prompt": "a = ", "canonical_solution": "1", "suffix": "\\n", "entry_point": "f", "test": ""}\n'
    )
    (only,), _ = read(infilling)
    assert (only.key, only.hole.prefix, only.hole.middle, only.hole.suffix) == ("T/0", "a = ", "1", "\n")
    held, _ = read(samples / "test_file.parquet")
    assert len(held) == 12 and held[0].hole.context == [Chunk("other.py", "def other(x):\n    return x\n")] and not held[0].alone.context


def test_a_part_of_the_rows_is_chosen_by_hash_and_counted(file, tmp_path):
    some, dropped = read(file, limit=5)
    assert len(some) == 5 and dropped == {"over_limit": 9} and some == [one for one in read(file)[0] if one in some]
    (tmp_path / "blank.jsonl").write_text('{"prefix": "a", "middle": " \\n", "suffix": ""}\n{"prefix": "a", "middle": "b", "suffix": ""}\n')
    rows, dropped = read(tmp_path / "blank.jsonl")
    assert [one.key for one in rows] == ["2"] and dropped == {"no_middle": 1}


GOOD = '{"id": "a", "prefix": "x", "middle": "y", "suffix": "z"}\n'


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "has no rows"), (b"\n \n", "has no rows"), (GOOD.encode() + b"{torn", ":2: not JSON"), (b"[1]\n", ":1: not a JSON object"),
        (GOOD.encode() * 2, "two rows are named 'a'"), (b'{"prefix": "x", "suffix": "z"}\n', ":1: no 'middle'"),
        (b'{"prompt": "x", "groundtruth": "z"}\n', ":1: no 'right_context'"),
        (GOOD.replace('"y"', "1").encode(), ":1: 'middle' is no text"),
        (GOOD.replace('"x"', '"\\u0000"').encode(), ":1: 'prefix' holds a NUL"),
        (GOOD.replace('"z"', '"\\ud83d"').encode(), ":1: 'suffix' holds half"),
        (b'\n{"prefix": "\xff", "middle": "y", "suffix": "z"}\n', ":2: not JSON in UTF-8"), (b"[" * 100_000 + b"\n", ":1: not JSON"),
        (GOOD.replace('"z"', '"z", "context": [{"path": "p"}]').encode(), ":1: a piece of context has no text"),
        (GOOD.replace('"z"', '"z", "context": [7]').encode(), ":1: 'context' is no list"),
        (GOOD.replace('"y"', '" "').encode(), "the truth of every row is blank"),
    ],
)  # fmt: skip
def test_bad_rows_are_one_line_with_file_and_line(tmp_path, data, says):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"rows\.jsonl") as error:
        read(path)
    assert says in str(error.value)


@pytest.mark.parametrize("keep", [3, 12, 200, -9, -1])
def test_a_torn_gz_is_one_line(file, tmp_path, keep):
    path = tmp_path / "torn.jsonl.gz"
    path.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError, match="torn after line"):
        read(path)
    path.write_bytes(b"not gz at all\n")
    with pytest.raises(InputError, match="torn after line"):
        read(path)


def test_the_command_prints_the_table_and_its_failures_in_one_line(finished, file, base, gguf, tmp_path):
    out = finished[1]
    started = ["suite", "--rows", str(file), "--model", f"gguf:{gguf}", "--name", "cross", "--out", str(out), "--limit", "8"]
    done = CliRunner().invoke(app, [*started, "--parent", f"hf:{base}", "--context", "both"])
    assert done.exit_code == 0, done.output
    assert "14 rows, spm" in done.output and "identifier f1" in done.output and "rows gained" in done.output
    alone = tmp_path / "alone.jsonl"
    alone.write_text(GOOD)
    for options, code, says in (
        (["--context", "maybe"], 2, "--context 'maybe' is none of"), (["--order", "ltr"], 2, "--order 'ltr'"),
        (["--name", "../x"], 2, "--name '../x'"), (["--rows", str(tmp_path / "gone")], 2, "gone is missing"),
        (["--model", "server:http://127.0.0.1:9"], 3, "does not answer"),
        (["--rows", str(alone), "--context", "both"], 2, "no row has context"),
    ):  # fmt: skip
        done = CliRunner().invoke(app, [*started, *options])
        lines = [line for line in done.output.splitlines() if line.strip()]
        assert done.exit_code == code and len(lines) == 1 and lines[0].startswith("error: ") and says in lines[0], done.output


def test_a_secret_in_a_completion_is_counted_and_never_stored(file, base, tmp_path, monkeypatch):
    key = "gh" + "p_" + "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"
    monkeypatch.setattr(
        "eval.backends.HfModel.answer",
        lambda self, prompts, limit: ((at, generate.Written(f'"{key}"', 9, "end")) for at in range(len(prompts))),
    )
    figures = suites.run(file, f"hf:{base}", None, "off", "leaky", tmp_path, SETTINGS, None, 4)
    assert figures["metrics"]["leak_rate"]["value"] == 1 and "parent" not in figures
    assert not any(key.encode() in path.read_bytes() for path in tmp_path.iterdir())
    assert all(key not in row["completion"] + row["shown"] for row in read_parquet(tmp_path / "leaky.rows.parquet", ""))
