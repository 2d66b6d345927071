"""Promises of ingest: what is read, what is turned down and why, and one line for every mistake."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from core import canary
from core.records import read_parquet
from phase1_data import environment, folder
from phase1_data.cli import app
from phase1_data.decode import text_of
from phase1_data.ingest import row_of
from phase1_data.params import EnvironmentSource, FolderSource
from phase1_data.sources import Refused

from .conftest import MIT, code, git


def ingest(params: Path, out: Path):
    return CliRunner().invoke(app, ["ingest", "--params", str(params), "--out", str(out)])


def rows(out: Path) -> dict[str, dict]:
    return {row["path"]: row for row in read_parquet(out / "ingest" / "files.parquet", "")}


def rejects(out: Path) -> dict[str, tuple[str, str]]:
    found = read_parquet(out / "ingest" / "rejects.parquet", "")
    return {row["path"].split("/", 1)[1]: (row["reason"], row["value"]) for row in found}


@pytest.mark.parametrize(
    ("data", "text", "how"),
    [
        (b"a = 1\r\nb = 2\r", "a = 1\nb = 2\n", "utf8"),
        (b"\xef\xbb\xbfa = 1\n", "a = 1\n", "utf8"),
        ("x = '日本'\n".encode(), "x = '日本'\n", "utf8"),
        ("\ufeffa\r\n", "a\n", "utf8"),
        (b"", "", "utf8"),
        ("a = 'é'\r\n".encode("utf-16"), "a = 'é'\n", "utf16"),
        (b"\xfe\xff" + "a = '日'\n".encode("utf-16-be"), "a = '日'\n", "utf16"),
        ("a = 'é'\n".encode("utf-32"), "a = 'é'\n", "utf16"),
        ("a = 'é'\n".encode("utf-16-le"), "a = 'é'\n", "utf16"),
        ("a = 'é'\n".encode("utf-16-be"), "a = 'é'\n", "utf16"),
        (b"# -*- coding: latin-1 -*-\nname = '\xe9'\n", "# -*- coding: latin-1 -*-\nname = 'é'\n", "declared"),
        ("# coding: shift_jis\nx = 'テスト'\n".encode("shift_jis"), "# coding: shift_jis\nx = 'テスト'\n", "declared"),
        (b"name = '\xe9'\n", "name = 'é'\n", "cp1252"),
        ("# “naïve” – Größe, façade\n".encode("cp1252"), "# “naïve” – Größe, façade\n", "cp1252"),
        (b"# coding: no-such-codec\n\xe9\n", "# coding: no-such-codec\né\n", "cp1252"),
        (b"# coding: punycode\n\xe9\n", "# coding: punycode\né\n", "cp1252"),
    ],
)
def test_text_is_normalised(data, text, how):
    assert text_of(data, "python") == (text, how)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"MZ\0\0", "binary"),
        (b"a = 1\0\n", "binary"),
        (b"\xff\xfea\0\0\0", "binary"),
        (b"\xff\xfe\0\0a\0", "undecodable"),
        (b"\xff\xfea\0b", "undecodable"),
        ("a\0b".encode("utf-16"), "binary"),
        (b"\xff\xfe\0\xd8a\0", "undecodable"),
        ("a\0", "binary"),
        ("bad \ud800", "undecodable"),
        ("# テスト データ\n".encode("shift_jis"), "undecodable"),
        ("# 这是一个测试文件\n".encode("gbk"), "undecodable"),
        ("# привет, мир\n".encode("cp1251"), "undecodable"),
        (b"caf\xe9 \x01\x02", "undecodable"),
        (b"\x80\x81\x82\x83", "undecodable"),
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
    (root / "cyrillic.py").write_bytes("# привет, мир\n".encode("cp1251"))
    (root / "latin.py").write_bytes(b"a = '\xe9'\n")
    (root / "wide.py").write_bytes("a = 'é'\n".encode("utf-16"))
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
        "latin.py": ("MIT", "license_file"),
        "wide.py": ("MIT", "license_file"),
    }
    assert got["latin.py"]["content"] == got["wide.py"]["content"] == "a = 'é'\n"
    counts = json.loads((tmp_path / "out/ingest/manifest.json").read_text())["counts"]
    assert counts["decoded_cp1252"] == counts["decoded_utf16"] == 1 and counts["files_seen"] == 12
    assert rejects(tmp_path / "out") == {
        "nul.py": ("binary", ""),
        "cyrillic.py": ("undecodable", "byte 2"),
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
    files = list(environment.raw_files(EnvironmentSource(kind="environment", stdlib=False, packages=["Typer", "h11"], exclude=["h11"])))
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


def test_canaries_are_planted_beside_the_files_and_count_for_none_of_them(tmp_path, params_file, repo):
    source = {"kind": "folder", "paths": [str(repo("shop", 12))], "license": "MIT"}
    done = ingest(params_file([source], ingest={"max_files": 5, "canaries": 4}), tmp_path / "out")
    assert done.exit_code == 0
    planted = [row for row in read_parquet(tmp_path / "out/ingest/files.parquet", "") if row["repo"] == canary.REPO]
    assert {row["path"]: row["content"] for row in planted} == {one.path: one.text for one in canary.plant(4, 17)}
    assert len(list(read_parquet(tmp_path / "out/ingest/files.parquet", ""))) == 9
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no code")
    alone = ingest(params_file([source | {"paths": [str(tmp_path / "texts")]}], ingest={"canaries": 4}), tmp_path / "none")
    assert alone.exit_code == 2 and "no file to train on" in alone.output


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


def append(file: Path) -> None:
    with file.open("a") as more:
        more.write("y = 2\n")


def become_a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def become_a_link(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


def become_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("change", [Path.unlink, append, lambda file: os.truncate(file, 3), become_a_pipe, become_a_link, become_a_folder])
def test_a_file_that_changes_between_look_and_read_is_counted(tmp_path, change):
    (tmp_path / "a.py").write_text("x = 1\n")
    (file,) = folder.raw_files(FolderSource(kind="folder", paths=[str(tmp_path)], license="MIT"))
    change(tmp_path / "a.py")
    with pytest.raises(Refused) as refused:
        row_of(file)
    assert refused.value.reason == "changed_while_read"


def test_a_file_that_grows_without_end_is_read_no_further_than_its_size(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    (file,) = folder.raw_files(FolderSource(kind="folder", paths=[str(tmp_path)], license="MIT"))
    os.truncate(tmp_path / "a.py", 1 << 40)  # sparse: read whole, it would end this test
    with pytest.raises(Refused, match="changed_while_read"):
        file.read()


@pytest.mark.parametrize("tracked", [True, False], ids=["git", "no git"])
def test_a_folder_full_of_traps_is_read_in_seconds_with_a_reason_for_each(tmp_path, params_file, tracked):
    root = tmp_path / "mine"
    (root / "sub").mkdir(parents=True)
    (root / "a.py").write_text(code(1))
    (root / "two\nlines \x1b[31m.py").write_text(code(2))
    (root / "pipe.py").symlink_to("/nowhere")
    os.mkfifo(root / "sub" / "pipe.py")
    listener = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(root)  # the name of a socket must be short
    listener.bind("socket.py")
    os.chdir(here)
    (root / "up.py").symlink_to("../../../../../../../../etc/passwd")
    (root / "device.py").symlink_to("/dev/zero")
    (root / "self.py").symlink_to("self.py")
    (root / "sub" / "loop").symlink_to("..")
    if tracked:
        git(root, "init", "-q")
        git(root, "add", "a.py")
    started = time.monotonic()
    done = ingest(params_file([{"kind": "folder", "paths": [str(root)], "license": "MIT"}]), tmp_path / "out")
    listener.close()
    assert done.exit_code == 0, done.output
    assert time.monotonic() - started < 10
    assert sorted(rows(tmp_path / "out")) == ["a.py", "two\ufffdlines \ufffd[31m.py"]
    reasons = {path: reason for path, (reason, _) in rejects(tmp_path / "out").items()}
    links = dict.fromkeys(["pipe.py", "up.py", "device.py", "self.py", "sub/loop"], "link")
    assert reasons == links | {"sub/pipe.py": "special_file", "socket.py": "special_file"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_counted(tmp_path, params_file):
    root = tmp_path / "mine"
    (root / "closed").mkdir(parents=True)
    (root / "closed" / "b.py").write_text(code(2))
    for name in ("a.py", "c.py"):
        (root / name).write_text(code(1))
    (root / "a.py").chmod(0)
    (root / "closed").chmod(0)
    done = ingest(params_file([{"kind": "folder", "paths": [str(root)], "license": "MIT"}]), tmp_path / "out")
    (root / "closed").chmod(0o700)
    assert done.exit_code == 0 and rejects(tmp_path / "out") == {"a.py": ("unreadable", "Permission denied"), "closed": ("unreadable", "")}


@pytest.mark.parametrize("outer", [True, False], ids=["in a repository", "in a folder"])
def test_a_repository_inside_is_read_with_its_own_commit_and_licence(tmp_path, outer):
    root = tmp_path / "work"
    for name in ("app", "deep/lib", "mine"):
        (root / name).mkdir(parents=True)
        (root / name / "m.py").write_text(f"x = '{name}'\n")
    for name in ("app", "deep/lib"):
        git(root / name, "init", "-q")
        git(root / name, "add", ".")
        git(root / name, "commit", "-qm", "one")
    (root / "app" / "LICENSE").write_text(MIT)
    if outer:
        git(root, "init", "-q")
        git(root, "add", "mine", "deep/lib")  # the second becomes a submodule without .gitmodules
        git(root, "commit", "-qm", "one")
        (root / "gone").mkdir()
    files = list(folder.raw_files(FolderSource(kind="folder", paths=[str(root)], license="Apache-2.0")))
    found = {(file.repo, file.path): file.license for file in files}
    assert found == {
        ("work", "mine/m.py"): "Apache-2.0",
        ("work/app", "m.py"): "MIT",
        ("work/app", "LICENSE"): "MIT",
        ("work/deep/lib", "m.py"): "Apache-2.0",
    }
    commits = {file.repo: file.repo_rev for file in files}
    assert len(set(commits.values())) == 3 and commits["work/deep/lib"] == folder.commit(root / "deep/lib") != ""
    assert not any(file.refuse for file in files)


def test_without_git_a_repository_inside_is_still_its_own(tmp_path, monkeypatch):
    (tmp_path / "w" / "app" / ".git").mkdir(parents=True)
    for name in ("w/a.py", "w/app/b.py"):
        (tmp_path / name).write_text("x = 1\n")
    monkeypatch.setenv("PATH", "")
    files = folder.raw_files(FolderSource(kind="folder", paths=[str(tmp_path / "w")], license="MIT"))
    assert {(file.repo, file.path) for file in files} == {("w", "a.py"), ("w/app", "b.py")}


def test_a_repository_that_names_a_program_as_its_filter_does_not_get_it_run(tmp_path):
    root = tmp_path / "work"
    root.mkdir()
    (root / "a.py").write_text("x = 1\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    for key, program in (("filter.some.name.clean", "touch"), ("filter.some.name.process", "touch"), ("core.fsmonitor", "touch")):
        git(root, "config", key, f"{program} {tmp_path}/ran; cat")
    (root / ".git" / "info" / "attributes").write_text("*.py filter=some.name\n")
    os.utime(root / "a.py", (1, 1))
    assert len(folder.commit(root)) == 40
    (root / "a.py").write_text("x = 2\n")
    assert folder.commit(root).endswith("-dirty")
    assert [file.path for file in folder.raw_files(FolderSource(kind="folder", paths=[str(root)], license="MIT"))] == ["a.py"]
    assert not (tmp_path / "ran").exists()


def test_a_tracked_folder_that_is_a_link_by_now_is_not_followed(tmp_path):
    root = tmp_path / "work"
    (root / "sub").mkdir(parents=True)
    for name in ("a.py", "sub/b.py"):
        (root / name).write_text("x = 1\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    (root / "sub").rename(tmp_path / "outside")
    (root / "sub").symlink_to(tmp_path / "outside")
    (tmp_path / "way").symlink_to(root)  # the folder itself may be named by a link
    files = folder.raw_files(FolderSource(kind="folder", paths=[str(tmp_path / "way")], license="MIT"))
    assert {file.path: file.refuse for file in files} == {"a.py": "", "sub": "link", "sub/b.py": "link"}


def test_an_empty_submodule_and_a_deleted_file_are_named(tmp_path):
    root = tmp_path / "work"
    (root / "sub").mkdir(parents=True)
    for name in ("a.py", "sub/b.py"):
        (root / name).write_text("x = 1\n")
    git(root / "sub", "init", "-q")
    git(root / "sub", "add", ".")
    git(root / "sub", "commit", "-qm", "one")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    (root / "a.py").unlink()
    shutil.rmtree(root / "sub")
    (root / "sub").mkdir()
    files = folder.raw_files(FolderSource(kind="folder", paths=[str(root)], license="MIT"))
    assert {file.path: file.refuse for file in files} == {"a.py": "missing", "sub": "submodule"}


def test_a_long_line_is_read_in_bounded_time_where_the_limit_allows_it(tmp_path, params_file):
    root = tmp_path / "mine"
    root.mkdir()
    (root / "long.py").write_bytes(b"x = '" + b"a" * 30_000_000 + b"'\n")
    source = [{"kind": "folder", "paths": [str(root)], "license": "MIT"}]
    assert ingest(params_file(source), tmp_path / "small").exit_code == 2
    started = time.monotonic()
    done = ingest(params_file(source, ingest={"max_file_bytes": 50_000_000}), tmp_path / "out")
    assert done.exit_code == 0 and rows(tmp_path / "out")["long.py"]["n_bytes"] == 30_000_007
    assert time.monotonic() - started < 10


def test_bytes_at_random_never_raise_anything_else():
    rng = random.Random(3)
    for _ in range(300):
        data = rng.randbytes(rng.randrange(60))
        with contextlib.suppress(Refused):
            assert "\r" not in text_of(data, "python")[0]
