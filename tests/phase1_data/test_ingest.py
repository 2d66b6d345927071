"""Promises of ingest: what is read, what is turned down and why, and one line for every mistake."""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from core.records import read_parquet
from phase1_data import environment, folder
from phase1_data.cli import app
from phase1_data.ingest import Refused, row_of, text_of
from phase1_data.params import EnvironmentSource, FolderSource

from .conftest import MIT, code, git


def ingest(params: Path, out: Path):
    return CliRunner().invoke(app, ["ingest", "--params", str(params), "--out", str(out)])


def rows(out: Path) -> dict[str, dict]:
    return {row["path"]: row for row in read_parquet(out / "ingest" / "files.parquet", "")}


def rejects(out: Path) -> dict[str, tuple[str, str]]:
    found = read_parquet(out / "ingest" / "rejects.parquet", "")
    return {row["path"].split("/", 1)[1]: (row["reason"], row["value"]) for row in found}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a = 1\r\nb = 2\r", "a = 1\nb = 2\n"),
        (b"\xef\xbb\xbfa = 1\n", "a = 1\n"),
        (b"# -*- coding: latin-1 -*-\nname = '\xe9'\n", "# -*- coding: latin-1 -*-\nname = 'é'\n"),
        ("x = '日本'\n".encode(), "x = '日本'\n"),
        ("\ufeffa\r\n", "a\n"),
    ],
)
def test_text_is_normalised(data, text):
    assert text_of(data, "python") == text


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"MZ\0\0", "binary"),
        ("a = 1".encode("utf-16"), "binary"),
        (b"name = '\xe9'\n", "undecodable"),
        (b"# coding: no-such-codec\n\xe9\n", "undecodable"),
        ("a\0", "binary"),
        ("bad \ud800", "undecodable"),
    ],
)
def test_what_is_no_text_is_refused(data, reason):
    with pytest.raises(Refused) as refused:
        text_of(data, "python")
    assert refused.value.reason == reason


def test_a_folder_gives_its_code_and_a_reason_for_every_other_file(tmp_path, params_file):
    root = tmp_path / "mine"
    (root / "sub").mkdir(parents=True)
    (root / "LICENSE").write_text(MIT)
    (root / "sub" / "good.py").write_text(code(1))
    (root / "spdx.py").write_text("# SPDX-License-Identifier: BSD-3-Clause\n" + code(2))
    (root / "nul.py").write_bytes(b"a = 1\0")
    (root / "latin.py").write_bytes(b"a = '\xe9'\n")
    (root / "empty.py").write_text("  \n")
    (root / "notes.txt").write_text("text")
    (root / "link.py").symlink_to(root / "sub" / "good.py")
    (root / "loop").symlink_to(root)
    with (root / "huge.py").open("wb") as huge:
        huge.truncate(1_000_000_000)  # sparse: read, it would take a gigabyte
    done = ingest(params_file([{"kind": "folder", "paths": [str(root)], "license": None}]), tmp_path / "out")
    assert done.exit_code == 0, done.output
    got = rows(tmp_path / "out")
    assert {path: (row["license"], row["license_how"]) for path, row in got.items()} == {
        "sub/good.py": ("MIT", "license_file"),
        "spdx.py": ("BSD-3-Clause", "spdx_header"),
    }
    assert rejects(tmp_path / "out") == {
        "nul.py": ("binary", ""),
        "latin.py": ("undecodable", "byte 5"),
        "empty.py": ("empty", ""),
        "notes.txt": ("language", ".txt"),
        "LICENSE": ("language", ""),
        "link.py": ("link", ""),
        "loop": ("link", ""),
        "huge.py": ("file_bytes", "1000000000"),
    }


@pytest.mark.parametrize("tracked", [True, False], ids=["git", "no git"])
def test_ignored_files_stay_out(tmp_path, tracked):
    (tmp_path / "build").mkdir()
    (tmp_path / ".gitignore").write_text("build/\n*_local.py\n")
    for name in ("build/made.py", "a.py", "b_local.py"):
        (tmp_path / name).write_text("x = 1\n")
    if tracked:
        git(tmp_path, "init", "-q")
        git(tmp_path, "add", "a.py")
        git(tmp_path, "commit", "-qm", "one")
    (tmp_path / "new.py").write_text("x = 2\n")
    assert [path for path in folder.paths(tmp_path) if path.endswith(".py")] == ["a.py", "new.py"]
    assert (len(folder.commit(tmp_path)) == len("-dirty") + 40) is tracked


def test_a_folder_that_an_outer_repository_ignores_is_still_read(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("inner/\n")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a.py").write_text("x = 1\n")
    assert folder.paths(tmp_path / "inner") == ["a.py"]


def test_without_git_the_folder_is_walked(tmp_path, monkeypatch):
    (tmp_path / "sub" / ".venv").mkdir(parents=True)
    for name in ("sub/a.py", "sub/.venv/b.py"):
        (tmp_path / name).write_text("x = 1\n")
    monkeypatch.setenv("PATH", "")
    assert folder.paths(tmp_path) == ["sub/a.py"]


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX only")
def test_a_file_name_that_is_not_utf8_is_carried_with_replacements(tmp_path):
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.py"))).write_text("x = 1\n")
    files = folder.raw_files(FolderSource(kind="folder", paths=[str(tmp_path)], license="MIT"))
    assert [(file.path, file.read()) for file in files] == [("caf\ufffd.py", b"x = 1\n")]


def test_two_folders_of_the_same_name_stay_two_repositories(tmp_path):
    for parent in ("a", "b"):
        (tmp_path / parent / "app").mkdir(parents=True)
        (tmp_path / parent / "app" / "m.py").write_text(f"x = '{parent}'\n")
    files = folder.raw_files(FolderSource(kind="folder", paths=[str(tmp_path / "a/app"), str(tmp_path / "b/app")], license="MIT"))
    assert len({file.repo for file in files}) == 2


def test_the_environment_gives_installed_code_without_its_tests():
    files = environment.raw_files(EnvironmentSource(kind="environment", stdlib=False, packages=["Typer", "h11"], exclude=["h11"]))
    assert {file.repo for file in files} == {"typer"}
    code_of = {file.path: file for file in files if file.lang == "python"}
    assert code_of["typer/main.py"].license == "MIT" and code_of["typer/main.py"].read().startswith(b"import")
    assert not any(file.path.startswith("..") or "__pycache__" in file.path for file in files)


@pytest.mark.parametrize(
    ("path", "test"),
    [("pkg/tests/a.py", True), ("pkg/test_a.py", True), ("pkg/conftest.py", True), ("pkg/testing.py", False), ("pkg/latest/a.py", False)],
)
def test_tests_of_packages_are_known_by_their_path(path, test):
    assert environment.is_test(path) is test


def test_a_limit_takes_the_same_fair_sample_every_time(tmp_path, params_file, repo):
    root = repo("lib", 30)
    params = params_file([{"kind": "folder", "paths": [str(root)], "license": "MIT"}], ingest={"max_files": 5})
    for out in ("one", "two"):
        assert ingest(params, tmp_path / out).exit_code == 0
    assert (tmp_path / "one/ingest/files.parquet").read_bytes() == (tmp_path / "two/ingest/files.parquet").read_bytes()
    assert len(rows(tmp_path / "one")) == 5 and sorted(rows(tmp_path / "one")) != [f"pkg/mod{n}.py" for n in range(5)]


def test_no_repository_drowns_the_others(tmp_path, params_file, repo):
    big, small = repo("big", 30), repo("small", 2, 100)
    sources = [{"kind": "folder", "paths": [str(big), str(small)], "license": "MIT"}]
    done = ingest(params_file(sources, ingest={"max_repo_bytes": 8000}), tmp_path / "out")
    assert done.exit_code == 0
    sizes = {"big": 0, "small": 0}
    for row in read_parquet(tmp_path / "out/ingest/files.parquet", ""):
        sizes[row["repo"]] += row["n_bytes"]
    assert 0 < sizes["big"] <= 8000 and sizes["small"] > 0


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"kind": "folder", "paths": ["{tmp}/absent"], "license": None}, "absent is missing"),
        ({"kind": "folder", "paths": ["{tmp}/empty"], "license": None}, "empty holds no files"),
        ({"kind": "folder", "paths": ["{tmp}/params.yaml"], "license": None}, "not a folder"),
        ({"kind": "folder", "paths": ["{tmp}/texts"], "license": None}, "no file to train on: most were turned down as 'language'"),
        ({"kind": "folder", "paths": ["{tmp}/texts"], "license": "Not A Licence!"}, "no SPDX licence"),
        ({"kind": "environment", "stdlib": False, "packages": ["no-such-dist"], "exclude": []}, "pip install no-such-dist"),
        ({"kind": "folder", "paths": ["{tmp}/texts"], "license": None, "path": "x"}, "sources.0.folder.path: no such key"),
        ({"kind": "ftp"}, "sources.0"),
    ],
)
def test_a_wrong_source_is_one_line_and_leaves_nothing(tmp_path, params_file, source, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("text")
    if "paths" in source:
        source = source | {"paths": [path.format(tmp=tmp_path) for path in source["paths"]]}
    done = ingest(params_file([source]), tmp_path / "out")
    assert done.exit_code == 2 and says in done.stderr and done.stderr.strip().count("error:") == 1
    assert not list((tmp_path / "out").rglob("*")) or not list((tmp_path / "out").rglob("*.p*"))


def test_a_file_that_vanishes_is_counted_as_unreadable(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    file = folder.raw_files(FolderSource(kind="folder", paths=[str(tmp_path)], license="MIT"))[0]
    (tmp_path / "a.py").unlink()
    with pytest.raises(Refused) as refused:
        row_of(file)
    assert refused.value.reason == "unreadable"


def test_bytes_at_random_never_raise_anything_else():
    rng = random.Random(3)
    for _ in range(300):
        data = rng.randbytes(rng.randrange(60))
        with contextlib.suppress(Refused):
            assert "\r" not in text_of(data, "python")
