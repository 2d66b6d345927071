"""What of a workspace may be read, found and shown; nothing else ever is."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from phase4_serve.index import Index, pieces, put_all, terms
from phase4_serve.knowledge import Knowledge
from phase4_serve.retrieve import Around, candidates, fill
from phase4_serve.workspace import Source, Workspace, looks_secret, relative
from tests.phase4_serve.conftest import CANARY, HELPER, wait_until

BYTES = 20_000


def paths(root: Path) -> set[str]:
    return {source.path for source in Workspace(root, BYTES).sources()}


def test_only_code_that_git_knows_is_read(workspace: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "private.py").write_text("SECRET_PLAN = 1\n")
    (workspace / "link.py").symlink_to(outside / "private.py")
    (workspace / "folder").symlink_to(outside)
    (workspace / "huge.py").write_text("x = 1\n" * BYTES)
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
    assert {source.path for source in known.sources()} == {"headers.py", "settings.py", "geometry.py", "kept/a.py", "kept/b.py"}
    for reason, count in {
        "ignored": 0,
        "secret_name": 1,
        "binary": 2,
        "long_line": 1,
        "huge_or_special": 2,
        "link_or_unreadable": 1,
    }.items():
        assert known.left_out[reason] == count, reason


def test_what_git_ignores_is_what_we_ignore(tmp_path: Path) -> None:
    root = tmp_path / "repo"
    for name in ("a.py", "b.py", "sub/a.py", "sub/deep/c.py", "logs/x.py", "sub/logs/y.py", "doc/k.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x = 1\n")
    (root / ".gitignore").write_text("/a.py\nlogs/\n**/deep/*.py\n")
    (root / "sub" / ".gitignore").write_text("logs/\n!a.py\n")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    (root / ".git" / "info" / "exclude").write_text("doc/\n")
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-co", "--exclude-standard"], check=True, capture_output=True, text=True
    ).stdout
    assert paths(root) == {line for line in listed.split() if line.endswith(".py")}
    assert paths(root / "sub") == {"a.py"}  # the folders above speak too


@pytest.mark.parametrize(
    "name", [".env", ".env.local", "server.pem", "id_rsa", "aws_credentials.py", "secrets.yaml", "PASSWORDS.txt", ".npmrc"]
)
def test_names_of_secrets(name: str) -> None:
    assert looks_secret(name) and looks_secret(f"some/where/{name}")


@pytest.mark.parametrize(
    ("sent", "inside"),
    [("{root}/a/b.py", "a/b.py"), ("a/b.py", "a/b.py"), ("file://{root}/a.py", "a.py"), ("/etc/passwd", "passwd"), ("../../x.py", "x.py"),
     ("a/../../x.py", "x.py"), ("a\\b.py", "a/b.py"), ("", ""), ("a\nb.py", "a b.py"), ("nul\0.py", "nul.py")],
)  # fmt: skip
def test_a_path_from_outside_tells_only_its_name(tmp_path: Path, sent: str, inside: str) -> None:
    assert relative(sent.format(root=tmp_path), tmp_path) == inside


def test_a_secret_is_never_indexed(workspace: Path) -> None:
    index = Index(24)
    put_all(index, Workspace(workspace, BYTES).sources())
    assert len(index) >= 3
    assert all(CANARY not in piece.text for piece in index._pieces.values())
    assert any("github_client" in piece.text for piece in index._pieces.values())


def test_a_file_the_scrubber_fails_on_is_left_out(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.scrub.mask", lambda text: 1 / 0)
    known = Workspace(workspace, BYTES)
    assert not list(known.sources()) and known.left_out["scrub_failed"] == 3


def test_identifiers_meet_in_their_parts() -> None:
    assert {"parse", "http", "header"} <= set(terms("parseHTTPHeader")) & set(terms("parse_http_header"))


def test_pieces_know_their_lines() -> None:
    text = "import os\n\n\ndef a():\n    return 1\n\n\ndef b():\n    return 2\n"
    for piece in pieces(Source("x.py", "python", text), 24):
        assert text.split("\n")[piece.line].strip() == piece.text.lstrip("\n").split("\n")[0].strip() or piece.text.startswith("\n")


def around(prefix: str, suffix: str = "", path: str = "") -> Around:
    return Around(prefix, suffix, path)


def test_the_right_piece_is_found_and_the_file_itself_is_not(workspace: Path) -> None:
    index = Index(24)
    put_all(index, Workspace(workspace, BYTES).sources())
    found = list(candidates(index, around("def read(raw):\n    name, value = parseHttpHeader(raw_header", path="client.py")))
    assert found[0].path == "headers.py"
    assert all(piece.path != "headers.py" for piece in candidates(index, around("raw_header = parse_http_header(", path="headers.py")))
    assert all(
        piece.path != "headers.py" for piece in candidates(index, around(HELPER + "\nparse_http_header(raw_header"))
    )  # no path: a copy


def test_pieces_fit_and_stand_in_the_order_of_paths(workspace: Path) -> None:
    index = Index(24)
    put_all(index, Workspace(workspace, BYTES).sources())
    wanted = list(candidates(index, around("parse_http_header github_client triangle_area(base, height) raw_header connect return")))
    chosen = fill(wanted, 260, 4, len)
    assert len(chosen) >= 2 and chosen == sorted(chosen)
    assert sum(1 + len(f"{p.path}\n{p.text}") for p in chosen) <= 260
    assert fill(wanted, 5, 4, len) == []


def test_the_index_follows_the_files(workspace: Path) -> None:
    async def follow() -> None:
        index = Index(24)
        knowledge = Knowledge(Workspace(workspace, BYTES), index)
        task = asyncio.create_task(knowledge.run())
        await asyncio.wait_for(knowledge.complete.wait(), 20)
        await asyncio.sleep(0.3)
        (workspace / "geometry.py").write_text("def circle_circumference(radius):\n    return 6.28 * radius\n")
        (workspace / "new").mkdir()
        (workspace / "new" / "area.py").write_text("def pentagon(side):\n    return side\n")
        (workspace / "headers.py").unlink()
        (workspace / "sneaky.py").symlink_to("/etc/hostname")
        expected = {"geometry.py", "new/area.py", "settings.py"}
        await asyncio.to_thread(wait_until, lambda: index.paths() == expected and index.search(["circumference"], 5))
        (workspace / ".gitignore").write_text("new/\n")
        await asyncio.to_thread(wait_until, lambda: index.paths() == expected - {"new/area.py"})
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(follow())
