"""Two runs side by side: paired where the same holes were asked, refused by name where nothing can be said."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from core.errors import InputError
from core.records import read_parquet, write_json, write_parquet
from core.statistics import wilson
from eval import compare, kept
from eval.cli import app
from eval.rows import ROW


@pytest.fixture
def runs(evaluated, tmp_path):
    """Two copies of the finished evaluation, as run folders."""
    for name in ("one", "two"):
        shutil.copytree(evaluated.rows.parent, tmp_path / name)
    return tmp_path / "one", tmp_path / "two"


def change(run, model, with_row) -> None:
    file = run / "rows" / f"{model}.parquet"
    rows = [with_row(at, row) for at, row in enumerate(list(read_parquet(file, "")))]
    write_parquet(file, [row for row in rows if row], ROW)


def set_manifest(run, with_manifest) -> None:
    file = run / "rows" / "manifest.json"
    manifest = json.loads(file.read_text())
    with_manifest(manifest)
    write_json(file, manifest)


def text(runs, tmp_path) -> str:
    return compare.run(str(runs[0]), str(runs[1]), tmp_path / "compare.html", tmp_path / "kept")


def test_a_run_beside_itself_differs_in_nothing(runs, tmp_path):
    md = text(runs, tmp_path)
    assert md.count("**no visible difference**") == 3 and "Nothing: the same params, inputs, models and versions." in md
    assert "Nothing is left out." in md
    page = (tmp_path / "compare.html").read_text()
    assert "default-src 'none'" in page and "<script" not in page
    text(runs, tmp_path)
    assert (tmp_path / "compare.html").read_text() == page  # to the byte


def test_equal_holes_are_paired_and_settings_that_differ_are_named(runs, tmp_path):
    change(runs[1], "base", lambda at, row: row | {"exact": True, "similarity": 100.0})
    set_manifest(runs[1], lambda manifest: manifest["params"]["evaluate"].update(max_new_tokens=9, batch=2))
    md = text(runs, tmp_path)
    assert "| base | B against A, 14 common holes | **better** | +100.0" in md
    assert "| params.evaluate.batch | 4 | 2 |" in md and "Completions end after 8 tokens in A and 9 in B" in md
    page = (tmp_path / "compare.html").read_text()
    assert "+14 −0" in page and "B better" in page and "smallest visible" in page


def test_holes_of_one_run_alone_are_told_and_not_tested(runs, tmp_path):
    change(runs[1], "base", lambda at, row: row if at >= 4 else None)
    assert "base, SPM: 2 holes only in A and 0 only in B" in text(runs, tmp_path)
    change(runs[1], "base", lambda at, row: row | {"sample_id": f"other-{at}"})
    md = text(runs, tmp_path)
    assert "base, SPM: no hole is common, so nothing is tested." in md and "| base | B against A | **not compared** |" in md
    assert "different holes" in (tmp_path / "compare.html").read_text()


def test_another_tokenizer_takes_the_loss_out_and_leaves_bits_per_byte(runs, tmp_path):
    change(runs[1], "base", lambda at, row: row | {"n_tokens": row["n_tokens"] + 1})
    assert "base, SPM, loss, nats per token: the runs cut the same truth into different tokens" in text(runs, tmp_path)


def test_what_cannot_be_compared_is_refused_by_name(runs, tmp_path):
    def only(*names):
        return lambda manifest: manifest["counts"].update(models=[m for m in manifest["counts"]["models"] if m["name"] in names])

    set_manifest(runs[0], only("base"))
    assert "merged: only in" in text(runs, tmp_path)
    set_manifest(runs[1], only("merged"))
    with pytest.raises(InputError, match=r"one holds base in spm, psm and .*two holds merged in spm, psm: no model and order in both"):
        text(runs, tmp_path)
    shutil.copy(runs[0] / "rows" / "manifest.json", runs[1] / "rows" / "manifest.json")
    change(runs[1], "base", lambda at, row: row | {"n_bytes": 9999})
    with pytest.raises(InputError, match="call different holes by the same id"):
        text(runs, tmp_path)
    (runs[1] / "rows" / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="is not of an evaluation"):
        text(runs, tmp_path)
    for given in ("gone", str(tmp_path)):
        with pytest.raises(InputError, match=r"is no run \(kept: none\)"):
            compare.run(given, str(runs[0]), tmp_path / "c.html", tmp_path / "kept")


def test_a_run_is_kept_whole_and_once(runs, tmp_path):
    root = tmp_path / "root"
    write_json(root / "phase2_train" / "out" / "sft" / "manifest.json", {"params": {"sft": {"lr": 0.002}}})
    write_json(root / "phase4_serve" / "out" / "serve.json", {"generated_per_second": {"gateway": 123.0}})
    write_json(runs[0] / "leakage.json", {"redactions": {"prompts_with_secret": 0}})
    folder = tmp_path / "kept"
    kept.keep(runs[0], root, "first", folder)
    write_json(root / "phase2_train" / "out" / "sft" / "manifest.json", {"params": {"sft": {"lr": 0.001}}})
    kept.keep(runs[1], root, "second", folder)
    md = compare.run("first", "second", tmp_path / "compare.html", folder)
    assert "| params.sft.lr | 0.002 | 0.001 |" in md and "<td>123</td><td>123</td>" in (tmp_path / "compare.html").read_text()
    assert sorted(path.name for path in folder.iterdir()) == ["first", "second"]
    with pytest.raises(InputError, match="is there already"):
        kept.keep(runs[0], root, "first", folder)
    for name in ("", "a/b", "..", ".hidden"):
        with pytest.raises(InputError, match="no plain name"):
            kept.keep(runs[0], root, name, folder)
    done = CliRunner().invoke(app, ["compare", "nowhere", str(runs[0])])
    assert done.exit_code == 2 and done.output.startswith("error: nowhere is no run")


def test_independent_samples_have_newcombes_interval():
    """56 of 70 against 48 of 80, the worked example of Newcombe 1998: 0.2 [0.0524, 0.3339]."""
    gap, low, high = compare.independent(wilson(48, 80), wilson(56, 70))
    assert (round(gap, 4), round(low, 4), round(high, 4)) == (0.2, 0.0524, 0.3339)
