"""What editors report stays here, says nothing by default, and becomes training pairs where somebody wants that."""

from __future__ import annotations

import json
import stat
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models
from typer.testing import CliRunner

from core.errors import InputError
from core.fim import CONTROL, codec_of
from phase2_train import editor_pairs
from phase4_serve import events as module
from phase4_serve import pairs
from phase4_serve.cli import app
from phase4_serve.compose import Ask
from phase4_serve.events import Events, Shown, open_private, written_at
from phase4_serve.metrics import Metrics
from phase4_serve.wire import EventRequest
from phase4_serve.workspace import Workspace
from tests.phase4_serve.conftest import CANARY, HTTP, Guarded

PREFIX, SUFFIX = "import math\n\n\ndef area(r):\n    ", "\n\n\nprint(area(2))\n"
PLACE = Ask(PREFIX, SUFFIX, "shapes.py")


def event(kind: str, **more: Any) -> EventRequest:
    return EventRequest.model_validate({"event": kind, **more})


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def told(folder: Path, keep_text: bool, *given: EventRequest, answers: dict[str, tuple[Ask, str]] | None = None) -> list[dict[str, Any]]:
    """The rows that some events leave."""
    kept = Events(folder / "state" / "events.jsonl", keep_text, Metrics(), Workspace(folder, 10_000))
    for name, (ask, text) in (answers or {"a": (PLACE, "return math.pi * r * r")}).items():
        kept.remember(name, ask, text)
    for one in given:
        kept.took(one)
    kept.close()
    return rows(folder / "state" / "events.jsonl")


def test_a_flood_of_saved_files_is_counted_and_not_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, free = Metrics(), threading.Event()
    kept = Events(tmp_path / "events.jsonl", False, metrics, None)
    monkeypatch.setattr(kept, "_compare", lambda *given: free.wait(10))
    for _ in range(20):
        kept.took(event("saved", path="a.py", text="x" * 4_000_000))
    assert kept._waiting_text <= module.WAITING_TEXT
    free.set()
    kept.close()
    assert kept._waiting_text == kept._waiting == 0
    assert b'tabsmith_events_total{kind="lost"} 12.0' in metrics.text()


def test_by_default_no_text_is_kept(tmp_path: Path) -> None:
    found = told(
        tmp_path, False, event("shown", id="a"), event("accepted", id="a", how="line", elapsed_ms=120), event("saved", path="shapes.py")
    )
    assert [row["event"] for row in found] == ["shown", "accepted", "saved"]
    assert {key for row in found for key in row} == {"time", "event", "id", "how", "elapsed_ms", "lang", "characters", "lines"}
    assert stat.S_IMODE((tmp_path / "state" / "events.jsonl").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_texts_that_were_asked_for_hold_no_secret(tmp_path: Path) -> None:
    place = PLACE._replace(prefix=f"GITHUB_TOKEN = '{CANARY}'\n{PREFIX}")
    answers = {"a": (place, "return 1"), "b": (PLACE, f"token = '{CANARY}'")}
    found = told(tmp_path, True, event("accepted", id="a"), event("dismissed", id="b"), answers=answers)
    assert found[0]["text"] == "return 1" and found[0]["prefix"].endswith(PREFIX) and found[0]["path"] == "shapes.py"
    assert "text" not in found[1] and found[1]["characters"] > len(CANARY) and CANARY not in json.dumps(found)


@pytest.mark.parametrize("secret_file", ["../outside.py", "/etc/passwd", "link.py", ".env", "%2e%2e/outside.py"])
def test_a_saved_path_is_read_in_the_workspace_only(tmp_path: Path, secret_file: str) -> None:
    root = tmp_path / "work"
    root.mkdir()
    (tmp_path / "outside.py").write_text(f"{PREFIX}return 7{SUFFIX}")
    (root / ".env").write_text(f"{PREFIX}return 7{SUFFIX}")
    (root / "link.py").symlink_to(tmp_path / "outside.py")
    found = told(
        root, True, event("dismissed", id="a"), event("saved", path=secret_file), answers={"a": (PLACE._replace(path=secret_file), "x")}
    )
    assert [row["event"] for row in found] == ["dismissed", "saved"]


def test_what_lasts_and_what_was_written_instead_is_found_when_the_file_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AFTER", (0, 0.05))
    other = PLACE._replace(prefix=PREFIX.replace("area", "volume"), suffix="\n\n\nprint(volume(2))\n")
    lost = PLACE._replace(prefix=PREFIX.replace("area", "length"), suffix="\n\n\nprint(length(2))\n")
    texts = {"a": (PLACE, "return math.pi * r * r"), "b": (other, "return 0"), "c": (lost, "return r")}
    kept = Events(tmp_path / "state" / "events.jsonl", True, Metrics(), Workspace(tmp_path, 10_000))
    for name, (ask, text) in texts.items():
        kept.remember(name, ask, text)
    (tmp_path / "shapes.py").write_text(
        f"{PREFIX}return math.pi * r * r{SUFFIX}\n{other.prefix}return 4 * r ** 3{other.suffix}\n{lost.prefix}return 2 * r{lost.suffix}"
    )
    for one in (event("accepted", id="a"), event("dismissed", id="b"), event("accepted", id="c"), event("saved", path="shapes.py")):
        kept.took(one)
    time.sleep(0.1)
    kept.took(event("saved", path=str(tmp_path / "shapes.py")))
    kept.close()
    found = rows(tmp_path / "state" / "events.jsonl")
    lasted = {(row["id"], row["kept"]) for row in found if row["event"] == "kept"}
    assert lasted == {("a", True), ("c", False)}
    assert {row["id"]: row["written"] for row in found if "written" in row} == {"b": "return 4 * r ** 3", "c": "return 2 * r"}

    out = tmp_path / "pairs.jsonl"
    counts = pairs.run(tmp_path / "state" / "events.jsonl", out)
    assert counts["pairs"] == 2
    tokenizer = Tokenizer(models.BPE())
    tokenizer.add_tokens([chr(number) for number in range(9, 127)])
    tokenizer.add_special_tokens(list(CONTROL))
    good, bad = editor_pairs.read(out, codec_of(tokenizer), 4096, 4.0)
    assert not bad and {(pair["chosen"], pair["rejected"]) for pair in good} == {
        ("return 4 * r ** 3", "return 0"),
        ("return 2 * r", "return r"),
    }


def test_accepted_against_dismissed_at_one_place_is_a_pair() -> None:
    at = {"prefix": "a = ", "suffix": "\n", "path": "a.py", "repo": ""}
    counts: Counter[str] = Counter()
    found = list(
        pairs.pairs_of(
            [
                {"event": "dismissed", "id": "1", "text": "1", **at},
                {"event": "accepted", "id": "2", "how": "full", "text": "2", **at},
                {"event": "accepted", "id": "3", "how": "word", "text": "3 + 4", **at},
                {"event": "dismissed", "id": "4", "text": "9", **{**at, "prefix": "b = "}},
                {"event": "accepted", "id": "5"},
                {"event": "shown", "id": "5"},
            ],
            counts,
        )
    )
    assert found == [{**at, "chosen": "2", "rejected": "1", "kind": "user_reject", "origin": "editor"}]
    assert counts == {"accepted_in_part": 1, "nothing_better_known": 1, "without_text": 1}


@pytest.mark.parametrize(
    ("content", "written"),
    [
        (f"{PREFIX}return 7{SUFFIX}", "return 7"),
        (f"{PREFIX}x = 1\n    return x{SUFFIX}", "x = 1"),  # as many lines as the completion had
        (f"{PREFIX}shown{SUFFIX}", None),  # that is it
        (f"{PREFIX}{SUFFIX}", None),
        (f"{PREFIX}a{SUFFIX}{PREFIX}b{SUFFIX}", None),  # twice: who knows which
        ("nothing of it", None),
    ],
)
def test_what_was_written_is_found_between_what_stood_around(content: str, written: str | None) -> None:
    assert written_at(content, Shown(PLACE, "shown")) == written


def test_the_file_is_bounded_and_older_ones_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 2000)
    told(tmp_path, False, *(event("shown", id=f"{number:04}") for number in range(400)))
    files = sorted((tmp_path / "state").iterdir())
    assert [file.name for file in files] == ["events.jsonl", *(f"events.jsonl.{number}" for number in (1, 2, 3))]
    assert all(file.stat().st_size < 2200 and stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    assert rows(files[0])[-1]["id"] == "0399"


def test_a_link_or_a_pipe_is_no_place_for_events(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "folder").mkdir()
    for name in ("link", "folder"):
        with pytest.raises(InputError, match="--events"):
            open_private(tmp_path / name)
    (tmp_path / "open").write_text("")
    (tmp_path / "open").chmod(0o644)
    open_private(tmp_path / "open").close()
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o600


def test_a_full_disk_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(file: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "rotate", full)
    metrics = Metrics()
    kept = Events(tmp_path / "e.jsonl", False, metrics, None)
    for _ in range(3):
        kept.took(event("shown"))
    kept.close()
    assert capsys.readouterr().err.count("events are not kept") == 1
    assert metrics.registry.get_sample_value("tabsmith_events_total", {"kind": "lost"}) == 3


def test_events_over_http_name_the_answers_that_were_given(guarded: Guarded) -> None:
    def post(path: str, body: dict[str, Any]) -> Any:
        return HTTP.post(f"{guarded.server.url}{path}", json=body, headers={"X-Api-Key": guarded.key})

    answer = post("/v1/completions", {"prompt": PREFIX, "suffix": SUFFIX, "path": "shapes.py", "manual": True})
    name, text = answer.json()["id"], answer.json()["choices"][0]["text"]
    assert answer.headers["x-tabsmith-id"] == name and text.strip()
    assert [post("/v1/events", {"event": kind, "id": name}).json()["known"] for kind in ("shown", "accepted")] == [True, True]
    assert not post("/v1/events", {"event": "dismissed", "id": "cmpl-unknown"}).json()["known"]
    deadline = time.monotonic() + 5
    while not (found := [row for row in rows(guarded.events) if row.get("id") == name and row["event"] == "accepted"]):
        assert time.monotonic() < deadline
    assert found[0]["text"] == text and found[0]["prefix"] == PREFIX
    place = {"path": "shapes.py", "prefix": PREFIX, "suffix": SUFFIX, "user": "me"}
    assert post("/v1/events", {"event": "opened", **place}).status_code == 202
    for wrong in ({}, {"event": "eaten"}, {"event": "accepted", "how": "half"}, {"event": "kept", "after": 7}, {"event": "shown", "id": 5}):
        assert post("/v1/events", wrong).status_code == 400


def test_pairs_without_texts_say_how_to_get_them(tmp_path: Path) -> None:
    told(tmp_path, False, event("accepted", id="a"))
    for file, says in ((tmp_path / "none.jsonl", "--keep-text"), (tmp_path / "state" / "events.jsonl", "without_text")):
        result = CliRunner().invoke(app, ["pairs", "--events", str(file), "--out", str(tmp_path / "out.jsonl")])
        assert result.exit_code == 2 and says in result.stderr and not (tmp_path / "out.jsonl").exists()
