"""What of a workspace may be read; nothing else ever is."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from phase4_serve import ignored
from phase4_serve import workspace as module
from phase4_serve.workspace import Candidate, Source, Workspace, looks_secret, relative
from tests.phase4_serve.conftest import CANARY, ROOT

BYTES = 20_000


def paths(root: Path) -> set[str]:
    return {source.path for source in Workspace(root, BYTES).sources()}


def test_only_code_that_git_knows_is_read(workspace: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "private.py").write_text("SECRET_PLAN = 1\n")
    (workspace / "link.py").symlink_to(outside / "private.py")
    (workspace / "folder").symlink_to(outside)
    (workspace / "etc").symlink_to("/etc")
    (workspace / "huge.py").write_text("x = 1\n" * BYTES)
    with (workspace / "sparse.py").open("wb") as sparse:
        sparse.truncate(2 << 30)
    with (workspace / "app.min.js").open("wb") as minified:
        minified.truncate(50 << 20)
    (workspace / "binary.py").write_bytes(b"\x00\x01\x02" * 50)
    (workspace / "latin.py").write_bytes("naïve = 1\n".encode("latin-1"))
    (workspace / "minified.js").write_text("a=1;" * 1000)
    (workspace / ".env").write_text("KEY=1\n")
    (workspace / "my_secrets.py").write_text("KEY = 1\n")
    os.mkfifo(workspace / "pipe.py")
    (workspace / "generated").mkdir()
    (workspace / "generated" / "a.py").write_text("a = 1\n")
    (workspace / "kept").mkdir()
    (workspace / "kept" / "a.py").write_text("a = 1\n")
    (workspace / "kept" / "b.py").write_text("b = 1\n")
    (workspace / ".gitignore").write_text("generated/\n*b.py\n")
    (workspace / "kept" / ".gitignore").write_text("!b.py\n")
    (workspace / ".git").mkdir()
    (workspace / ".git" / "hook.py").write_text("g = 1\n")
    known = Workspace(workspace, BYTES)
    started = time.perf_counter()
    assert {source.path for source in known.sources()} == {"headers.py", "settings.py", "geometry.py", "kept/a.py", "kept/b.py"}
    assert time.perf_counter() - started < 1
    expected = {"secret_name": 1, "binary": 2, "long_line": 1, "huge_or_special": 4, "link_or_unreadable": 1, "folder": 2}
    assert {reason: known.left_out[reason] for reason in expected} == expected


def test_what_git_ignores_is_what_we_ignore(tmp_path: Path) -> None:
    root = tmp_path / "repo"
    names = (
        "a.py",
        "b.py",
        "sub/a.py",
        "sub/deep/c.py",
        "logs/x.py",
        "sub/logs/y.py",
        "doc/k.py",
        "keep/one.py",
        "keep/two.py",
        "sp ace.py",
    )
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x = 1\n")
    (root / ".gitignore").write_text("/a.py\nlogs/\n**/deep/*.py\nkeep/*\n!keep/two.py\n# no\n\\#x\nsp\\ ace.py\n")
    (root / "sub" / ".gitignore").write_text("logs/\n!a.py\n")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    (root / ".git" / "info" / "exclude").write_text("doc/\n")
    command = ["git", "-C", str(root), "ls-files", "-zco", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert paths(root) == {line for line in listed.split("\0") if line.endswith(".py")}
    assert paths(root / "sub") == {"a.py"}  # the folders above speak too


NAMES = ("a", "b", "ab", "B", "a b", "[x]", "x!", "#h", "é", "a.b")
ATOMS = (
    "a", "ab", "*", "**", "?", "a*", "*b", "[ab]", "[!a]", "[^a]", "[a-b]", "\\#h", "\\!x", "x\\!", "a\\ b", "a b ", "a\\ ", "*.py", "a.py",
    "[x].py", "\\[x\\].py", "é", "*.b", "[]a]", "[!]a]", "B", "[[:alpha:]]", "a**", "**b", "[[:digit:]x]", "[z-a]", "[a-]", "[a", "!",
    "*a*b", "a\\",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_any_patterns_mean_to_us_what_they_mean_to_git(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(30):
        file = tmp_path.joinpath(*(dice.choice(NAMES) for _ in range(dice.randint(0, 2))), f"{dice.choice(NAMES)}.py")
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("x = 1\n")

    def pattern() -> str:
        text = "/".join(dice.choice(ATOMS) for _ in range(dice.randint(1, 3)))
        return f"{dice.choice(['', '', '!', '/', '!/'])}{text}{dice.choice(['', '', '/', '  ', chr(13)])}"

    kept = dice.choice([path.relative_to(tmp_path).parts for path in tmp_path.rglob("*.py")])
    lines = ["\ufeff*.c", *(pattern() for _ in range(3)), f"/{kept[0]}/*", f"!/{'/'.join(kept[:2])}"]
    (tmp_path / ".gitignore").write_text("\n".join(lines))
    for folder in [path for path in tmp_path.rglob("*") if path.is_dir()][:2]:
        (folder / ".gitignore").write_text("\n".join(pattern() for _ in range(3)))
    assert paths(tmp_path) == listed_by_git(tmp_path), lines


def listed_by_git(root: Path) -> set[str]:
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    command = ["git", "-C", str(root), "ls-files", "-zco", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True).stdout
    return {name for name in os.fsdecode(listed).split("\0") if name.endswith(".py")}


def test_a_workspace_in_a_folder_that_git_ignores_is_empty(tmp_path: Path) -> None:
    root = tmp_path / "built" / "sub"
    root.mkdir(parents=True)
    (root / "a.py").write_text("x = 1\n")
    (root / ".gitignore").write_text("!a.py\n")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert paths(root) == {"a.py"}
    (tmp_path / ".gitignore").write_text("built/\n")
    assert paths(root) == listed_by_git(tmp_path) == set() and Workspace(root, BYTES).source(root / "a.py") is None


@pytest.mark.parametrize("bad", ["!", "\\", "[z-a].py", "[", "\0", "*" * 3000])
def test_a_pattern_that_makes_no_sense_takes_no_other_with_it(workspace: Path, bad: str) -> None:
    (workspace / ".gitignore").write_text(f"{bad}\nheaders.py\n")
    assert paths(workspace) - {"settings.py"} <= {"geometry.py"}


def test_no_pattern_takes_long() -> None:
    started = time.perf_counter()
    said = ignored.patterns(("*a" * 60 + "*b\n" + "/**/*a*a*a*a*a*a/**/x\n").encode()).say("a" * 250 + "/" + "a" * 250)
    assert said is None and time.perf_counter() - started < 0.5


def test_an_ignore_file_that_is_no_ignore_file_hides_its_folder(workspace: Path) -> None:
    (workspace / ".gitignore").write_text("# a\n" * 300_000)
    assert paths(workspace) == set()


def git(where: Path, *command: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "protocol.file.allow=always")
    subprocess.run(["git", "-C", str(where), *who, *command], check=True, capture_output=True)


def test_work_trees_submodules_and_the_users_own_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, main, other, tree = (tmp_path / name for name in ("home", "main", "other", "tree"))
    for folder in (home, main, other):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    for repository in (main, other):
        git(repository, "init", "-q")
        (repository / "known.py").write_text("x = 1\n")
        git(repository, "add", ".")
        git(repository, "commit", "-qm", "a")
    git(main, "submodule", "add", "-q", str(other), "sub")
    git(main, "worktree", "add", "-q", str(tree))
    (main / ".git" / "info" / "exclude").write_text("excluded.py\n")
    (main / ".git" / "modules" / "sub" / "info" / "exclude").write_text("of_sub.py\n")
    (main / ".gitignore").write_text("parents.py\n")
    for name in ("excluded.py", "of_sub.py", "parents.py", "users.py"):
        for folder in (main, main / "sub", tree):
            (folder / name).write_text("x = 1\n")
    (home / ".config" / "git").mkdir(parents=True)
    (home / ".config" / "git" / "ignore").write_text("users.py\n")
    sub = {"known.py", "excluded.py", "parents.py"}  # what the repository around it ignores is nothing to it
    assert paths(main) == {"known.py", "of_sub.py", *(f"sub/{name}" for name in sub)}
    assert paths(main / "sub") == sub
    assert paths(tree) == {"known.py", "of_sub.py", "parents.py"}
    known = Workspace(main, BYTES)
    assert known.source(main / "sub" / "of_sub.py") is None and known.source(main / "sub" / "parents.py") is not None
    (home / "mine").write_text("known.py\n")
    git(main, "config", "--global", "core.excludesFile", "~/mine")
    assert "known.py" not in paths(main) and "users.py" in paths(main)
    monkeypatch.setenv("PATH", "")
    assert "known.py" in paths(main) and "users.py" not in paths(main), "without git, git's own default"


@pytest.mark.parametrize("name", ["line\nbreak", "esc\x1b[31m", "bad\udcff", "right\u202eleft", "a\rb", "sep\u2028"])
def test_a_name_that_would_break_a_prompt_is_left_out(workspace: Path, name: str) -> None:
    try:
        (workspace / f"{name}.py").write_text("x = 1\n")
        (workspace / name).mkdir()
        (workspace / name / "a.py").write_text("x = 1\n")
    except OSError:
        pytest.skip("the file system takes no such name")
    known = Workspace(workspace, BYTES)
    assert paths(workspace) == {"geometry.py", "headers.py", "settings.py"}
    assert known.source(workspace / f"{name}.py") is None and known.source(workspace / name / "a.py") is None


def test_no_name_that_a_client_can_send_breaks_anything(workspace: Path) -> None:
    known = Workspace(workspace, BYTES)
    for name in ("\ud800/a.py", "a\0b/c.py", "x" * 5000, "/" * 5000 + "a.py", "a/" * 3000 + "b.py"):
        assert known.source(workspace / name) is None and not list(known.under(workspace / name))
        assert relative(f"/{name}", workspace) is not None


def test_a_workspace_that_is_gone_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "repo" / "sub").mkdir(parents=True)
    known = Workspace(tmp_path / "repo", BYTES)
    (tmp_path / "repo" / "sub").rmdir()
    (tmp_path / "repo").rmdir()
    assert not list(known.sources()) and known.source(tmp_path / "repo" / "sub" / "a.py") is None


def test_an_editor_may_come_by_a_link_and_write_uris(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(workspace)
    known = Workspace(tmp_path / "link", BYTES)
    for path in (f"{tmp_path}/link/sub/a.py", f"file://{tmp_path}/link/sub/a.py", f"{workspace}/sub/a.py", "sub/a.py", "./sub//a.py"):
        assert relative(path, known.root) == "sub/a.py"
    assert relative(f"file://{workspace}/my%20file.py", known.root) == "my file.py"
    assert relative(f"{workspace}/my%20file.py", known.root) == "my%20file.py"
    assert relative("/etc/passwd", known.root) == relative("../../etc/passwd", known.root) == "passwd"


@pytest.mark.parametrize(
    "name", [".env", ".env.local", "server.pem", "id_rsa", "aws_credentials.py", "secrets.yaml", "PASSWORDS.txt", ".npmrc"]
)
def test_names_of_secrets(name: str) -> None:
    assert looks_secret(name) and looks_secret(f"some/where/{name}") and looks_secret(f"{name}/x.py")


@pytest.mark.parametrize("name", ["environment.py", "keys.py", "a/monkey.py", "lib/pem.rs", "id.py"])
def test_names_that_only_look_alike(name: str) -> None:
    assert not looks_secret(name)


@pytest.mark.parametrize(
    ("sent", "inside"),
    [("{root}/a/b.py", "a/b.py"), ("a/b.py", "a/b.py"), ("file://{root}/a.py", "a.py"), ("/etc/passwd", "passwd"), ("../../x.py", "x.py"),
     ("a/../../x.py", "x.py"), ("a\\b.py", "a/b.py"), ("", ""), ("a\nb.py", "a b.py"), ("nul\0.py", "nul.py")],
)  # fmt: skip
def test_a_path_from_outside_tells_only_its_name(tmp_path: Path, sent: str, inside: str) -> None:
    assert relative(sent.format(root=tmp_path), tmp_path) == inside


def test_a_file_the_scrubber_fails_on_is_left_out(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.scrub.mask", lambda text: 1 / 0)
    known = Workspace(workspace, BYTES)
    assert not list(known.sources()) and known.left_out["scrub_failed"] == 3


def test_what_changes_between_the_look_and_the_reading(workspace: Path, tmp_path: Path) -> None:
    """Gone, a folder, a link, cut short, grown, and a folder above that became a link to the outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("gone", "folder", "link", "short", "grown"):
        (workspace / f"{name}.py").write_text("x = 1\n" * 100)
    (workspace / "inner").mkdir()
    (workspace / "inner" / "a.py").write_text("x = 1\n")
    (outside / "a.py").write_text("PLAN = 'private'\n")
    known = Workspace(workspace, BYTES)
    found = {candidate.path.name: candidate for candidate in known.candidates()}
    (workspace / "gone.py").unlink()
    (workspace / "folder.py").unlink()
    (workspace / "folder.py").mkdir()
    (workspace / "link.py").unlink()
    (workspace / "link.py").symlink_to("/etc/hostname")
    os.truncate(workspace / "short.py", 3)
    (workspace / "grown.py").write_text("x = 1\n" * BYTES)
    (workspace / "inner").rename(workspace / "moved")
    (workspace / "inner").symlink_to(outside)
    assert {name: known.read(found[f"{name}.py"]) for name in ("gone", "folder", "link", "grown", "a")} == {
        "gone": "link_or_unreadable", "folder": "huge_or_special", "link": "link_or_unreadable", "grown": "huge_or_special",
        "a": "link_or_unreadable",
    }  # fmt: skip
    assert known.read(found["short.py"]) == Source("short.py", "python", "x =")
    assert known.source(workspace / "inner" / "a.py") is None and not list(known.under(workspace / "inner"))


@pytest.mark.parametrize("path", ["../outside/a.py", "/etc/passwd", "sub/../../outside/a.py", ".git/hook.py", "node_modules/a.py", "a.py/"])
def test_a_path_elsewhere_is_not_read(workspace: Path, tmp_path: Path, path: str) -> None:
    for folder in (tmp_path / "outside", workspace / ".git", workspace / "node_modules", workspace / "sub"):
        folder.mkdir()
        (folder / "a.py").write_text("x = 1\n")
    assert Workspace(workspace, BYTES).source(workspace / path) is None


def test_a_name_with_a_nul_is_no_file(workspace: Path) -> None:
    known = Workspace(workspace, BYTES)
    assert known.read(Candidate(workspace / "nul\0.py", "python")) == "link_or_unreadable"


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_left_out(workspace: Path) -> None:
    (workspace / "headers.py").chmod(0)
    known = Workspace(workspace, BYTES)
    assert "headers.py" not in {source.path for source in known.sources()} and known.left_out["link_or_unreadable"] == 1


def test_another_file_system_is_not_entered(workspace: Path) -> None:
    (workspace / "mounted").mkdir()
    made = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("no user namespaces here")
    look = f"print(sorted(s.path for s in Workspace(Path('{workspace}'), 9999).sources()))"
    program = f"from pathlib import Path; from phase4_serve.workspace import Workspace; {look}"
    mount = f"mount -t tmpfs none {workspace}/mounted && echo 'x = 1' > {workspace}/mounted/a.py"
    command = ["unshare", "-rm", "sh", "-c", f'{mount} && {sys.executable} -c "{program}"']
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode and "mount" in done.stderr:
        pytest.skip("nothing can be mounted here")
    assert done.stdout.strip() == "['geometry.py', 'headers.py', 'settings.py']"


def test_folders_nest_deeper_than_python_calls(tmp_path: Path) -> None:
    here, depth = os.open(tmp_path, os.O_RDONLY), 1200
    for _ in range(depth):  # longer than a path may be: each step from the one before
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    (tmp_path / "a.py").write_text("x = 1\n")
    assert paths(tmp_path) == {"a.py"}
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


def test_more_files_than_anyone_writes_are_counted_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FILES", 5)
    monkeypatch.setattr(module, "MOST_SEEN", 30)
    for number in range(40):
        (tmp_path / f"f{number:02}.py").write_text("x = 1\n")
    known = Workspace(tmp_path, BYTES)
    assert len(list(known.sources())) == 5
    assert dict(known.left_out) == {"too_many": 25, "not_looked_at": 1}


@pytest.mark.slow
def test_two_hundred_thousand_files_are_looked_at_in_seconds(tmp_path: Path) -> None:
    for folder in range(200):
        (tmp_path / f"d{folder}").mkdir()
        for number in range(1000):
            (tmp_path / f"d{folder}" / f"{number}{'.py' if number % 4 == 0 else '.txt'}").touch()
    (tmp_path / ".gitignore").write_text("*.log\nbuild/\n/d7/\n")
    known, started = Workspace(tmp_path, BYTES), time.perf_counter()
    assert sum(1 for _ in known.candidates()) == module.MOST_FILES
    assert time.perf_counter() - started < 10
    assert known.left_out["too_many"] == 49_750 - module.MOST_FILES and known.left_out["language"] == 149_251  # and .gitignore


def test_secrets_are_masked(workspace: Path) -> None:
    text = "".join(source.text for source in Workspace(workspace, BYTES).sources())
    assert CANARY not in text and "github_client" in text
