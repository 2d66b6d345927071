"""Pieces go in, are found by words, names and likeness, and are gone when their file is."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from phase4_serve.index import Index, Piece, pieces, prepare, put_all, terms
from phase4_serve.workspace import Source, Workspace
from tests.phase4_serve.conftest import CANARY


def filled(**files: str) -> Index:
    index = Index(24)
    put_all(index, [Source(f"{name}.py", "python", text) for name, text in files.items()])
    return index


def test_identifiers_meet_in_their_parts() -> None:
    assert {"parse", "http", "header"} <= set(terms("parseHTTPHeader")) & set(terms("parse_http_header"))


def test_pieces_know_their_lines() -> None:
    text = "import os\n\n\ndef a():\n    return 1\n\n\ndef b():\n    return 2\n"
    for piece in pieces(Source("x.py", "python", text), 24):
        assert text.split("\n")[piece.line].strip() == piece.text.lstrip("\n").split("\n")[0].strip() or piece.text.startswith("\n")


def test_every_text_comes_back_as_it_was() -> None:
    text = "def naïve():\n    return 'π 😀 \\x00'\n" + "x = 1\n" * 500
    index = filled(a=text)
    assert sorted(index.everything()) == sorted(pieces(Source("a.py", "python", text), 24))


def test_the_first_words_decide() -> None:
    index = filled(near="def wanted(alpha):\n    pass\n", far="def other(beta, gamma, delta, epsilon):\n    pass\n")
    assert [hit.piece.path for hit in index.search(["alpha", "beta", "gamma"], 5)] == ["near.py", "far.py"]
    assert [hit.piece.path for hit in index.search(["beta", "alpha", "gamma"], 5)] == ["far.py", "near.py"]
    assert [hit.piece.path for hit in index.search(["alpha", "beta"], 5, without="near.py")] == ["far.py"]
    assert index.search([], 5) == index.search(["nowhere"], 5) == index.search(["alpha"], 0) == []


def test_a_name_is_found_where_it_is_defined() -> None:
    index = filled(a="def wanted():\n    pass\n", b="wanted()\nwanted()\nwanted()\n")
    assert [hit.piece.path for hit in index.defining("wanted", 4)] == ["a.py"] and index.defining("Wanted", 4) == []


def test_a_name_is_found_however_often_its_file_was_saved() -> None:
    index = Index(24)
    for number in range(30):
        index.put(Source("a.py", "python", f"def wanted():\n    return {number}\n"))
        index.commit()
    assert len(index.defining("wanted", 4)) == 1


def test_a_name_that_many_define_tells_nothing() -> None:
    index = filled(**{f"f{number}": "def run():\n    pass\n" for number in range(5)})
    assert index.defining("run", 4) == [] and len(index.defining("run", 5)) == 5


def test_a_file_is_replaced_and_forgotten() -> None:
    index = filled(a="def first():\n    pass\n", b="def second():\n    pass\n")
    old = index.defining("first", 4)[0].piece
    assert old in index and old._replace(text=old.text[:8]) in index and old._replace(line=3) not in index
    index.put(Source("a.py", "python", "def third():\n    pass\n"))
    assert index.defining("first", 4) and old in index, "found as it was"
    index.put(Source("a.py", "python", "def third():\n    return 3\n"))
    index.commit()
    assert old not in index and index.defining("third", 4)[0].piece.path == "a.py" and index.files == len(index) == 2
    index.put(Source("a.py", "python", "def fourth():\n    pass\n"))
    index.remove("a.py")
    assert {piece.path for piece in index.everything()} == index.paths() == {"b.py"}, "gone at once"
    index.commit()
    assert {piece.path for piece in index.everything()} == index.paths() == {"b.py"} and len(index) == 1
    assert index._index.searcher().num_docs == 1, "nothing of it is kept"


def test_a_folder_is_forgotten_with_all_that_is_in_it() -> None:
    index = Index(24)
    put_all(index, [Source(path, "python", "def f():\n    pass\n") for path in ("a/x.py", "a/b/y.py", "ab.py")])
    index.remove("a")
    index.commit()
    assert index.paths() == {"ab.py"}


def test_a_file_without_pieces_is_none() -> None:
    assert filled(a="\n\n").files == 0


@pytest.mark.parametrize("name", ["or", "AND", "a:b", '"', "*", "\\", "π", "(" * 50, "terms:x", " "])
def test_no_word_is_a_query_language(name: str) -> None:
    index = filled(a="def f():\n    pass\n")
    assert index.search([name], 5) == [] or name
    assert index.defining(name, 4) == []


def test_a_secret_is_never_indexed(workspace: Path) -> None:
    index = Index(24)
    put_all(index, Workspace(workspace, 20_000).sources())
    assert len(index) >= 3 and any("github_client" in piece.text for piece in index.everything())
    assert all(CANARY not in piece.text for piece in index.everything())
    assert index.search([CANARY.lower(), *terms(CANARY)], 5) == []


def test_questions_while_files_come_and_go() -> None:
    index, wrong, stop = Index(24), list[str](), threading.Event()

    def ask() -> None:
        while not stop.is_set():
            for hit in [*index.search(["value"], 8), *index.defining("value_3", 8)]:
                if "value_" not in hit.piece.text or hit.piece.path not in {f"f{n}.py" for n in range(20)}:
                    wrong.append(hit.piece.path)

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    for number in range(200):
        index.put(Source(f"f{number % 20}.py", "python", f"def value_{number % 7}():\n    return {number}\n"))
        if number % 9 == 0:
            index.remove(f"f{(number + 5) % 20}.py")
        if number % 5 == 0:
            index.commit()
    stop.set()
    for thread in asking:
        thread.join()
    assert not wrong


def test_what_another_process_prepares_is_what_goes_in() -> None:
    prepared = prepare(Source("a.py", "python", "from .b import thing\n\n\ndef f():\n    return thing()\n"), 24)
    index = Index(24)
    index.add(prepared)
    index.commit()
    assert index.imports("a.py") == {"thing": ".b"} and index.imports("b.py") == {}
    assert Piece("a.py", 3, "def f():\n    return thing()\n") in index
