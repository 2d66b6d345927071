"""Which pieces stand in a prompt: definitions first, nothing that stands at the cursor, few of a file, within the budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from phase4_serve.index import Hit, Index, Piece, put_all
from phase4_serve.retrieve import PER_FILE, Around, candidates, comes_from, fill, fused, search
from phase4_serve.workspace import Source, Workspace
from tests.phase4_serve.conftest import HELPER

BYTES = 20_000


def around(prefix: str, suffix: str = "", path: str = "") -> Around:
    return Around(prefix, suffix, path)


def indexed(root: Path) -> Index:
    index = Index(24)
    put_all(index, Workspace(root, BYTES).sources())
    return index


def of(*sources: tuple[str, str]) -> Index:
    index = Index(24)
    put_all(index, [Source(path, "python", text) for path, text in sources])
    return index


def test_the_right_piece_is_found_and_the_file_itself_is_not(workspace: Path) -> None:
    index = indexed(workspace)
    found = list(candidates(index, around("def read(raw):\n    name, value = parseHttpHeader(raw_header", path="client.py")))
    assert found[0].path == "headers.py"
    assert all(piece.path != "headers.py" for piece in candidates(index, around("raw_header = parse_http_header(", path="headers.py")))
    assert all(
        piece.path != "headers.py" for piece in candidates(index, around(HELPER + "\nparse_http_header(raw_header"))
    )  # no path: a copy


WORDY = "def helper():\n    return retry_policy(timeout, backoff, session, retries)\n"
DEFINES = "class RetryPolicy:\n    def __init__(self, count):\n        self.count = count\n"


@pytest.mark.parametrize(("mode", "first"), [("definitions", "policy.py"), ("bm25", "wordy.py")])
def test_a_definition_comes_before_what_shares_words(mode: str, first: str) -> None:
    index = of(("policy.py", DEFINES), ("wordy.py", WORDY))
    index.mode = mode  # type: ignore[assignment]
    prefix = "from .policy import RetryPolicy\n\nsession = open_session(timeout, backoff, retries)\npolicy = RetryPolicy("
    if mode == "bm25":
        prefix = prefix.replace("RetryPolicy(", "retry_policy(timeout, backoff, session, retries")
    assert next(candidates(index, around(prefix, path="app.py"))).path == first


def test_the_call_at_the_cursor_comes_first_then_words_and_definitions_in_turn() -> None:
    words = "session = open_session(timeout, backoff, retries)\n"
    index = of(
        ("called.py", "def called(a, b):\n    return a\n"),
        ("imported.py", "class Imported:\n    pass\n"),
        ("wordy.py", "def unrelated():\n    return timeout, backoff, retries, open_session, session\n"),
    )
    prefix = "from imported import Imported\n" + words
    for call in ("x = called(", "x = called(\n    first,\n    second(1), "):
        found = [piece.path for piece in candidates(index, around(prefix + call, path="app.py"))]
        assert found == ["called.py", "wordy.py", "imported.py"], call
    found = [
        piece.path for piece in candidates(index, around("from imported import Imported\nx = called(1)\n" + words + "y = ", path="app.py"))
    ]
    assert found[0] == "wordy.py" and set(found[1:]) == {"called.py", "imported.py"}


def test_an_import_says_which_of_two_is_meant() -> None:
    index = of(
        ("a/io.py", "def load(x):\n    return x\n"),
        ("b/io.py", "def load(y):\n    return y\n"),
        ("b/net.py", "def load(z):\n    return z\n"),
    )
    first = [next(candidates(index, around(f"from {module} import load\nx = load(", path="c/app.py"))).path for module in ("b.net", "..a")]
    assert first == ["b/net.py", "a/io.py"]


def test_what_the_file_imports_far_above_the_window_is_known() -> None:
    app = "from b.net import load\n" + "x = 1\n" * 60 + "y = 2\n"
    index = of(("a.py", "def load(x):\n    return x\n"), ("b/net.py", "def load(z):\n    return z\n"), ("app.py", app))
    assert next(candidates(index, around("y = load(", path="app.py"))).path == "b/net.py"


def test_no_file_takes_all_the_room() -> None:
    many = "".join(f"def handler_{n}(request):\n    return request.value_{n}\n\n\n" for n in range(9))
    index = of(("many.py", many), ("one.py", "def handler_other(request):\n    return request\n"))
    found = [piece.path for piece in candidates(index, around("handler(request, value)\nhandler_1(handler_2(handler_3(handler_4("))]
    assert found.count("many.py") == PER_FILE


def test_twins_are_shown_once() -> None:
    body = "def encode(value):\n    header = value.header\n    body = value.body\n    return header + body\n"
    index = of(("a.py", body), ("copy_of_a.py", body))
    assert len(list(candidates(index, around("encode(value, header, body")))) == 1


def test_look_alikes_of_the_text_at_the_cursor_are_left_out() -> None:
    lines = [f"    step_{n} = advance(step_{n - 1})\n" for n in range(1, 9)]
    index = of(("alike.py", "def run():\n" + "".join(lines)), ("other.py", "def advance(step):\n    return step + 1\n"))
    found = [piece.path for piece in candidates(index, around("def go():\n" + "".join(lines[:6]) + "    step_7 = advance("))]
    assert found == ["other.py"]


def test_pieces_fit_and_stand_in_the_order_of_paths(workspace: Path) -> None:
    wanted = list(
        candidates(indexed(workspace), around("parse_http_header github_client triangle_area(base, height) raw_header connect return"))
    )
    chosen = fill(wanted, 260, 4, len)
    assert len(chosen) >= 2 and chosen == sorted(chosen)
    assert sum(1 + len(f"{p.path}\n{p.text}") for p in chosen) <= 260
    assert fill(wanted, 5, 4, len) == []


def test_ranks_are_fused_as_the_paper_says() -> None:
    a, b, c = (Hit(Piece(name, 0, name), 9.0, number) for number, name in enumerate("abc"))
    found = fused([[a, b], [b, c]])
    assert [hit.piece.path for hit in found] == ["b", "a", "c"]
    assert found[0].score == pytest.approx(1 / 62 + 1 / 61) and found[1].score == pytest.approx(1 / 61)


@pytest.mark.parametrize(
    ("path", "module", "fits"),
    [("pkg/net.py", ".net", True), ("pkg/net/__init__.py", "pkg.net", True), ("lib/io.ts", "./io.js", True),
     ("src/io.rs", "crate::io", True),
     ("a/text/x.go", "example.com/lib/text", True), ("pkg/internet.py", ".net", False), ("a.py", "", False), ("a.py", ".", False)],
)  # fmt: skip
def test_where_an_import_leads(path: str, module: str, fits: bool) -> None:
    assert comes_from(path, module) is fits


def test_a_search_finds_names_and_words_and_says_by_what(workspace: Path) -> None:
    index = indexed(workspace)
    first = search(index, "what does parse_http_header return?", 3)[0]
    assert (first.path, first.line, first.via) == ("headers.py", 0, "definition")
    assert search(index, "area of a triangle", 3)[0].via == "words"
    assert {found.path for found in search(index, "return value base", 9, "geometry.py")} == {"geometry.py"}
    assert search(index, "", 3) == search(index, "?? !!", 3) == search(index, "area", 0) == []
