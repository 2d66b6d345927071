"""The index follows the files, whatever happens to them, and the process that reads them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from watchfiles import Change

from phase4_serve.index import File, Index, prepare
from phase4_serve.knowledge import Knowledge
from phase4_serve.reader import MANY, Changed, Commit, Complete, Job, Progress, Reader, Said, worth
from phase4_serve.up import tell_progress
from phase4_serve.workspace import Source, Workspace
from tests.phase4_serve.conftest import CANARY, ROOT

BYTES = 20_000


@contextlib.asynccontextmanager
async def following(root: Path, model: Path | None = None) -> AsyncIterator[Knowledge]:
    """Knowledge that has read everything and goes on following."""
    known = Knowledge(Workspace(root, BYTES), Index(24, "hybrid" if model else "definitions"), model)
    task = asyncio.create_task(known.run())
    try:
        await asyncio.wait_for(known.complete.wait(), 20)
        await asyncio.sleep(0.3)  # the watch has begun
        yield known
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert known._process is not None and known._process.wait(5) is not None


async def until(true: object, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.02)


def test_the_index_follows_the_files(workspace: Path) -> None:
    async def follow() -> None:
        async with following(workspace) as known:
            index = known.index
            (workspace / "geometry.py").write_text("def circle_circumference(radius):\n    return 6.28 * radius\n")
            (workspace / "new").mkdir()
            (workspace / "new" / "area.py").write_text("def pentagon(side):\n    return side\n")
            (workspace / "headers.py").unlink()
            (workspace / "sneaky.py").symlink_to("/etc/hostname")
            expected = {"geometry.py", "new/area.py", "settings.py"}
            await until(lambda: index.paths() == expected and index.search(["circumference"], 5))
            (workspace / ".gitignore").write_text("new/\n")
            await until(lambda: index.paths() == expected - {"new/area.py"})
            (workspace / ".gitignore").unlink()
            await until(lambda: index.paths() == expected)
            (workspace / "new").rename(workspace / "old")
            await until(lambda: index.paths() == {"geometry.py", "old/area.py", "settings.py"})
            (workspace / "old" / "area.py").unlink()
            (workspace / "old" / "area.py").mkdir()
            await until(lambda: index.paths() == {"geometry.py", "settings.py"})
            os.truncate(workspace / "geometry.py", 0)
            await until(lambda: index.paths() == {"settings.py"})
            assert all(CANARY not in piece.text for piece in index.everything())

    asyncio.run(follow())


def test_what_a_client_says_it_saved_is_in_the_index_when_it_is_told_so(workspace: Path) -> None:
    async def save() -> None:
        async with following(workspace) as known:
            times = []
            for number in range(12):
                (workspace / "geometry.py").write_text(f"def version_{number}():\n    return {number}\n")
                begun = time.perf_counter()
                assert await known.saved("geometry.py" if number % 2 else f"file://{workspace}/geometry.py")
                times.append(time.perf_counter() - begun)
                assert known.index.defining(f"version_{number}", 4) and not known.index.defining(f"version_{number - 1}", 4)
            assert sorted(times)[6] < 0.05
            for path in ("../outside.py", "/etc/passwd", "gone.py", ".env", "nul\0.py", ".", "x" * 5000):
                await known.saved(path)
            assert known.index.paths() == {"geometry.py", "headers.py", "settings.py"}

    asyncio.run(save())


def test_a_checkout_of_many_files_is_followed(workspace: Path) -> None:
    many = MANY + 100

    async def check_out() -> None:
        async with following(workspace) as known:
            for number in range(many):
                (workspace / f"f{number}.py").write_text(f"def value_{number}():\n    return {number}\n")
            await until(lambda: known.index.files == many + 3, 30)
            for number in range(many):
                if number % 3 == 0:
                    (workspace / f"f{number}.py").unlink()
                elif number % 3 == 1:
                    (workspace / f"f{number}.py").write_text(f"def other_{number}():\n    return 'longer now'\n")
            await until(lambda: known.index.files == many + 3 - many // 3 and known.index.defining(f"other_{many - 2}", 4), 30)
            await until(lambda: not known.index.defining("value_1", 4) and known.index.defining("value_2", 4))

    asyncio.run(check_out())


def test_files_that_come_and_go_at_random_end_as_they_are(tmp_path: Path) -> None:
    dice = random.Random(4)
    root = tmp_path / "repo"
    root.mkdir()

    def name() -> Path:
        return root / "/".join(dice.choice("ab") for _ in range(dice.randint(1, 2))) / f"{dice.choice('xyz')}.py"

    def step() -> None:
        path = name()
        with contextlib.suppress(OSError):
            match dice.randint(0, 4):
                case 0 | 1:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(f"def f{dice.randint(0, 9)}():\n    return {dice.randint(0, 9)}\n")
                case 2:
                    path.unlink()
                case 3:
                    path.parent.rename(name().parent)
                case 4:
                    path.write_bytes(dice.choice([b"", b"\0", b"x = 1\n", b"\xff", b"a" * BYTES]))

    async def play() -> None:
        async with following(root) as known:
            for number in range(300):
                step()
                if number % 20 == 0:
                    await asyncio.sleep(0.03)
            expected = {source.path: source.text for source in Workspace(root, BYTES).sources() if source.text.strip()}
            await until(lambda: known.index.paths() == set(expected))
            await until(
                lambda: all(
                    any(p.path == path and p.text.strip() in text for p in known.index.everything()) for path, text in expected.items()
                )
            )

    asyncio.run(play())


def test_a_reader_that_is_killed_is_started_again(workspace: Path) -> None:
    async def kill() -> None:
        async with following(workspace) as known:
            assert known._process is not None
            first = known._process.pid
            (workspace / "headers.py").unlink()
            known._process.send_signal(signal.SIGKILL)
            (workspace / "late.py").write_text("def late_function():\n    return 1\n")
            await until(lambda: known.index.paths() == {"geometry.py", "late.py", "settings.py"})
            assert known._process.pid != first and not psutil.pid_exists(first)

    asyncio.run(kill())


def reader(root: Path, *lines: object) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-m", "phase4_serve.reader"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdin is not None
    process.stdin.write(b"".join(json.dumps(line).encode() + b"\n" for line in (Job(str(root), BYTES, 24), *lines)))
    process.stdin.flush()
    return process


def test_the_reader_ends_with_whoever_started_it_and_tells_no_secret(workspace: Path) -> None:
    process = reader(workspace, "nonsense", {"a": 1}, [1], ["settings.py", 1, 2])
    assert process.stdin is not None and process.stdout is not None
    told: list[object] = []
    while not told or not isinstance(told[-1], Complete):
        told.append(pickle.load(process.stdout))
    assert {one.path for one in told if isinstance(one, File)} == {"geometry.py", "headers.py", "settings.py"}
    assert CANARY.encode() not in pickle.dumps(told)
    process.stdin.close()
    assert process.wait(5) == 0
    process.stdout.close()


def test_a_file_that_trips_the_cutting_is_left_out_alone(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trips(source: Source, *rest: object) -> File:
        if source.path == "headers.py":
            raise RecursionError
        return prepare(source, 24)

    monkeypatch.setattr("phase4_serve.reader.prepare", trips)
    told: list[object] = []
    one = Reader(Workspace(workspace, BYTES), 24, None, told.append)
    assert all(one._all())
    assert isinstance(told[-1], Complete) and told[-1].paths == {"geometry.py", "settings.py"} and told[-1].left_out == {"failed": 1}


def read_through(root: Path, told: list[object]) -> Reader:
    """A reader that has told everything."""
    one = Reader(Workspace(root, BYTES), 24, None, told.append)
    while one._step():
        pass
    return one


def old_files(root: Path, many: int) -> None:
    """Files whose time tells whether they changed."""
    for number in range(many):
        (root / f"f{number}.py").write_text(f"def value_{number}():\n    return {number}\n")
    time.sleep(0.06)


def test_a_folder_that_is_touched_is_not_read_again(workspace: Path) -> None:
    (workspace / "sub").mkdir()
    old_files(workspace / "sub", 40)
    told: list[object] = []
    one = read_through(workspace, told)
    (workspace / "sub" / "f7.py").write_text("def changed():\n    return 7\n")
    told.clear()
    for path in (workspace / "sub", workspace):
        path.touch()
        one._heed(Changed([str(path)]))
    one._heed(Said(str(workspace / "sub"), 5))
    while one._step():
        pass
    assert {told_one.path for told_one in told if isinstance(told_one, File)} == {"sub/f7.py"}
    assert any(isinstance(told_one, Commit) and told_one.numbers == (5,) for told_one in told), "who asks about a folder is answered"


def test_a_save_that_the_system_tells_of_too_is_told_once(workspace: Path) -> None:
    told: list[object] = []
    one, path = read_through(workspace, told), str(workspace / "geometry.py")
    for _ in range(3):
        told.clear()
        number = len(told)
        (workspace / "geometry.py").write_text(f"def saved_{time.time_ns()}():\n    return {number}\n")
        one._heed(Said(path, 1))
        one._heed(Changed([path]))
        one._heed(Said(path, 2))
        one._step()
        time.sleep(0.06)
        one._heed(Changed([path]))
        one._step()
        assert [type(message).__name__ for message in told] == ["File", "Commit", "Commit"]


def test_what_a_client_says_goes_before_any_look_at_everything(workspace: Path) -> None:
    for number in range(2000):
        (workspace / f"{number}.txt").touch()
    told: list[object] = []
    one = read_through(workspace, told)
    one._heed(None)
    steps = 0
    while one._step():
        steps += 1
    assert steps >= 2000 / 200, "a look comes in small steps"
    one._heed(None)
    one._heed(Changed([str(workspace / f"{number}.py") for number in range(MANY)]))
    one._step()
    told.clear()
    (workspace / "geometry.py").write_text("def saved():\n    return 1\n")
    one._heed(Said(str(workspace / "geometry.py"), 9))
    assert isinstance(told[0], File) and told[-1] == Commit((9,))


def test_a_repository_that_never_rests_is_looked_through_to_the_end(workspace: Path) -> None:
    told: list[object] = []
    old_files(workspace, 60)
    one = Reader(Workspace(workspace, BYTES), 24, None, told.append)
    for _ in range(200):  # an ignore file, and more files than anybody reads one by one, change all the time
        one._heed(Changed([str(workspace / ".gitignore"), *(str(workspace / f"{number}.py") for number in range(MANY))]))
        one._step()
    assert sum(isinstance(message, Complete) for message in told) >= 2 and len(one._pending) <= MANY


def test_how_far_it_is_is_told(workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("phase4_serve.reader.TOLD", 0.0)
    monkeypatch.setattr("phase4_serve.up.TOLD_SECONDS", 0.05)
    old_files(workspace, 100)
    told: list[object] = []
    read_through(workspace, told)
    far = [message for message in told if isinstance(message, Progress)]
    assert {one.of for one in far} == {103} and far[-1].done == 103 and [one.done for one in far] == sorted(one.done for one in far)

    async def look() -> None:
        known = Knowledge(Workspace(workspace, BYTES), Index(24))
        assert known.state()["progress"] is None
        known._do(Progress(25, 100, 2.0), asyncio.get_running_loop())
        assert known.state()["progress"] == {"done": 25, "of": 100, "seconds_left": 6.0}
        telling = asyncio.create_task(tell_progress(known))
        await asyncio.sleep(0.12)
        known._do(Complete(frozenset(), {}, 3.0), asyncio.get_running_loop())
        await asyncio.wait_for(telling, 5)
        assert known.state()["progress"] is None

    asyncio.run(look())
    assert "index: 25/100 files, 12.5/s, 6 s left" in capsys.readouterr().out


def test_a_build_wakes_nobody(tmp_path: Path) -> None:
    matters = worth(tmp_path / "node_modules")  # a folder above the workspace has no say

    def wakes(path: str) -> bool:
        return matters(Change.modified, f"{tmp_path}/node_modules/{path}")

    assert all(map(wakes, ("a.py", "a/b.py", "a", ".gitignore", "a/.gitignore", ".git/info/exclude", ".git", ".hidden.js", "")))
    assert not any(map(wakes, ("target/a.rs", "a/node_modules/b.js", ".git/index", ".venv/a.py", "a/.git/x.py", ".a.swp")))


def test_a_workspace_that_goes_and_comes_back_is_followed(workspace: Path) -> None:
    async def move() -> None:
        async with following(workspace) as known:
            away = workspace.with_name("away")
            workspace.rename(away)
            await until(lambda: known.index.files == 0)
            workspace.mkdir()
            (workspace / "new.py").write_text("def new():\n    return 1\n")
            await until(lambda: known.index.paths() == {"new.py"})
            await asyncio.sleep(1.2)  # the watch has begun
            (workspace / "newer.py").write_text("def newer():\n    return 1\n")
            await until(lambda: known.index.paths() == {"new.py", "newer.py"})

    asyncio.run(move())


def test_a_file_that_trips_the_index_is_left_out_alone(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known, loop = Knowledge(Workspace(workspace, BYTES), Index(24)), asyncio.new_event_loop()
    good = prepare(Source("good.py", "python", "def good():\n    return 1\n"), 24)
    bad = File("bad.py", {}, [good.entries[0]._replace(terms="\ud800")])
    for message in (bad, bad, good, Commit()):
        known._do(message, loop)
    loop.close()
    assert known.index.paths() == {"good.py"} and len(known.index) == 1
    assert capsys.readouterr().err.count("cannot be indexed") == 1


def test_an_index_with_vectors_is_filled_by_the_reader(workspace: Path, tiny: Path) -> None:
    async def fill() -> None:
        async with following(workspace, tiny) as known:
            assert known.index.rows is not None and len(known.index.rows) == len(known.index) >= 3
            assert known.index.like("triangle area base height", 1)[0].piece.path == "geometry.py"

    asyncio.run(fill())


def test_typing_is_not_slowed_while_many_files_are_read(tmp_path: Path) -> None:
    """The event loop is asked every 2 ms while 250 files go into the index; a thread that reads them would keep Python's lock."""
    body = "".join(f"def function_{n}(argument, other):\n    '''Say {n}.'''\n    return argument + other * {n}\n\n\n" for n in range(60))
    for number in range(250):
        (tmp_path / f"f{number}.py").write_text(body.replace("function", f"function_{number}"))

    async def lateness(until: asyncio.Event) -> float:
        late = []
        while not until.is_set() or len(late) < 50:
            begun = time.perf_counter()
            await asyncio.sleep(0.002)
            late.append(time.perf_counter() - begun - 0.002)
        return sorted(late)[int(len(late) * 0.9)]

    async def measure() -> tuple[float, float]:
        known, alone = Knowledge(Workspace(tmp_path, BYTES), Index(24)), asyncio.Event()
        asyncio.get_running_loop().call_later(0.5, alone.set)
        before = await lateness(alone)
        task = asyncio.create_task(known.run())
        during = await lateness(known.complete)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return before, during

    before, during = asyncio.run(measure())
    assert during < 0.004 + 2 * before  # what a busy machine adds is in both


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_nothing_opens_a_connection(workspace: Path) -> None:
    async def look() -> None:
        open_before = psutil.Process().net_connections("inet")  # other tests of this process may listen
        async with following(workspace) as known:
            assert known._process is not None
            assert os.getpgid(known._process.pid) == known._process.pid, (
                "Ctrl-C in the server's terminal ends it by its stdin, without a word"
            )
            own = psutil.Process(known._process.pid)
            assert own.net_connections("inet") == [] and psutil.Process().net_connections("inet") == open_before

    asyncio.run(look())
