"""What is typed for the latency bench is real text, key by key, and the same every time."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from core.errors import InputError
from eval.bench import keystrokes


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = keystrokes.copy_package(tmp_path_factory.mktemp("w"))
    return (root / "rich/console.py").read_text()


def test_each_key_changes_what_its_kind_says(text: str) -> None:
    keys = keystrokes.recording(text, 200)
    assert keys == keystrokes.recording(text, 200) and len(keys) == 201 and keys[0].kind == "open"
    assert {key.kind for key in keys} == {"open", "typed", "newline", "backspace", "accept", "jump"}
    for before, key in pairwise(keys):
        added = key.prefix.removeprefix(before.prefix)
        if key.kind == "jump":
            assert key.prefix + key.suffix == before.prefix + before.suffix and abs(len(key.prefix) - len(before.prefix)) > 2000
        elif key.kind == "backspace":
            assert key.prefix == before.prefix[:-1] and key.suffix == before.suffix
        else:
            assert key.prefix.startswith(before.prefix) and added and key.suffix == before.suffix
            assert (key.kind == "typed") == (len(added) == 1 and added != "\n") and (key.kind == "newline") == added.startswith("\n")


def test_what_was_typed_is_what_stood_there(text: str) -> None:
    keys = keystrokes.recording(text, 200)
    last = next(key for key, after in pairwise(keys) if after.kind == "jump")
    line = last.prefix.rsplit("\n", 2)[1]
    assert line.strip()
    assert line in text


def test_places_are_far_apart(text: str) -> None:
    places = keystrokes.places(text, 24)
    assert len({len(place.prefix) for place in places}) == 24 and all(place.prefix + place.suffix == text for place in places)
    assert min(abs(len(a.prefix) - len(b.prefix)) for a, b in pairwise(places)) > 2000


def test_a_file_with_nothing_to_type_is_refused() -> None:
    with pytest.raises(InputError, match="too few functions"):
        keystrokes.recording("x = 1\n", 20)


def test_the_package_is_copied_without_caches(tmp_path: Path) -> None:
    root = keystrokes.copy_package(tmp_path)
    assert (root / "rich/console.py").is_file() and not list(root.rglob("*.pyc"))
