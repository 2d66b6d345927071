"""What slots hold, over a restart: there again if it is exactly what was written, otherwise deleted and never served."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from phase4_serve import warm
from phase4_serve.backend import Backend
from phase4_serve.scheduler import Job, Scheduler
from phase4_serve.warm import Warm, default_folder, private
from tests.phase4_serve.conftest import CANARY, HTTP, Running, start, wait_until
from tests.phase4_serve.test_scheduler import SLOTS, Llama, follow, job

IDS = list(range(33, 90)) * 4


@pytest.fixture(scope="module")
def llama(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Llama]:
    running = Llama(tiny, tmp_path_factory.mktemp("w"))
    yield running
    running.process.kill()
    running.process.wait()


async def restarted(llama: Llama, folder: Path, model: str = "m", build: str = "b") -> tuple[int, Scheduler, Backend]:
    """A scheduler as after a restart: slots that hold nothing, and what was saved given back."""
    backend = Backend(llama.socket, llama.model)
    for slot in range(SLOTS + 1):
        await backend.erase(slot)
    who = Scheduler(backend, SLOTS, 2)
    return await Warm(folder, build).restore(model, backend, who), who, backend


async def saved(llama: Llama, folder: Path, *jobs: Job) -> int:
    _, who, backend = await restarted(llama, folder)
    for what in jobs or (job("a", IDS, 4),):
        await follow(who, what)
    return await Warm(folder, "b").save("m", backend, who)


def folder_of(llama: Llama) -> Path:
    return llama.socket.parent / "saves"


def test_the_first_completion_after_a_restart_evaluates_one_token(llama: Llama) -> None:
    async def scenario() -> None:
        assert await saved(llama, folder_of(llama), job("a", IDS, 4), job("b", IDS[::-1], 4)) == 2
        files = sorted(folder_of(llama).iterdir())
        assert len(files) == 4 and all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
        count, who, _ = await restarted(llama, folder_of(llama))
        assert count == 2 and not list(folder_of(llama).iterdir())
        for name, ids in (("one", IDS), ("two", IDS[::-1])):  # sessions have other names than before
            result = await follow(who, job(name, [*ids, 40], 4))
            assert result.events[-1].timings["prompt_n"] <= 1 + 4

    asyncio.run(scenario())


def of(folder: Path, kind: str) -> Path:
    (path,) = folder.glob(f"*.{kind}")
    return path


def edit(folder: Path, **changes: object) -> None:
    path = of(folder, "json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def cut(folder: Path) -> None:
    path = of(folder, "bin")
    path.write_bytes(path.read_bytes()[:-1000])


def flip(folder: Path) -> None:
    content = bytearray(of(folder, "bin").read_bytes())
    content[len(content) // 2] ^= 1
    of(folder, "bin").write_bytes(content)


def link(folder: Path) -> None:
    path = of(folder, "bin")
    path.rename(folder.parent / "elsewhere")
    path.symlink_to(folder.parent / "elsewhere")


def header(folder: Path) -> None:
    """Another version of llama.cpp's format, with a hash that fits."""
    path = of(folder, "bin")
    content = bytearray(path.read_bytes())
    content[4:8] = (99).to_bytes(4, "little")
    path.write_bytes(content)
    edit(folder, sha256=warm.hash_of(path))


DAMAGES: list[tuple[str, Callable[[Path], object]]] = [
    ("cut", cut),
    ("a bit", flip),
    ("a link", link),
    ("readable by others", lambda folder: of(folder, "bin").chmod(0o644)),
    ("its description readable by others", lambda folder: of(folder, "json").chmod(0o640)),
    ("no description", lambda folder: of(folder, "json").unlink()),
    ("no slot", lambda folder: of(folder, "bin").unlink()),
    ("cut description", lambda folder: of(folder, "json").write_text('{"version": 1')),
    ("a list", lambda folder: of(folder, "json").write_text("[1]")),
    ("another model", lambda folder: edit(folder, model="other")),
    ("another build", lambda folder: edit(folder, build="other")),
    ("another version", lambda folder: edit(folder, version=2)),
    ("ids that are none", lambda folder: edit(folder, ids=["x"] * 100)),
    ("fewer tokens", lambda folder: edit(folder, tokens=70)),
    ("another format", header),
    ("empty", lambda folder: of(folder, "bin").write_bytes(b"")),
]


@pytest.mark.parametrize(("damage"), [pytest.param(damage, id=name) for name, damage in DAMAGES])
def test_what_is_not_what_was_written_is_deleted_and_the_server_fine(llama: Llama, damage: Callable[[Path], object]) -> None:
    """Promise 18."""

    async def scenario() -> None:
        folder = folder_of(llama)
        assert await saved(llama, folder) == 1
        damage(folder)
        count, who, _ = await restarted(llama, folder)
        assert count == 0 and not list(folder.iterdir())
        result = await follow(who, job("a", IDS, 4))
        assert result.error is None and result.events[-1].timings["prompt_n"] == len(IDS)

    asyncio.run(scenario())
    with contextlib.suppress(FileNotFoundError):
        (folder_of(llama).parent / "elsewhere").unlink()


@pytest.mark.parametrize("secret", ["a canary", "a job that says so"])
def test_a_place_that_looks_secret_and_a_short_one_are_not_written(llama: Llama, secret: str) -> None:
    text = "def client():\n    return connect()\n" * 4 + f"TOKEN = '{CANARY}'"
    typed = Backend(llama.socket, llama.model).ids(text) if secret == "a canary" else IDS
    jobs = [job("secret", typed, 0, keep=secret == "a canary"), job("short", IDS[:20], 4)]
    assert asyncio.run(saved(llama, folder_of(llama), *jobs)) == 0
    assert not list(folder_of(llama).iterdir())


def test_a_full_disk_is_one_line_and_leaves_nothing(
    llama: Llama, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(Warm, "_describe", full)
    assert asyncio.run(saved(llama, folder_of(llama))) == 0
    assert not list(folder_of(llama).iterdir())
    assert capsys.readouterr().err.count("\n") == 1


def test_saving_takes_two_seconds_at_most(llama: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "SAVE_SECONDS", 0.1)

    async def scenario() -> float:
        _, who, backend = await restarted(llama, folder_of(llama))
        await follow(who, job("a", IDS, 4))
        with llama.frozen():
            started = asyncio.get_running_loop().time()
            assert await Warm(folder_of(llama), "b").save("m", backend, who) == 0
            return asyncio.get_running_loop().time() - started

    assert asyncio.run(scenario()) < 0.5
    wait_until(lambda: asyncio.run(Backend(llama.socket).is_idle(0)))
    Warm(folder_of(llama), "b").clear()


def test_the_folder_is_private_or_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = default_folder()
    folder.mkdir(parents=True, mode=0o755)
    assert stat.S_IMODE(private(folder).stat().st_mode) == 0o700
    folder.rmdir()
    (tmp_path / "target").mkdir()
    folder.symlink_to(tmp_path / "target")
    with pytest.raises(PermissionError):
        private(folder)


def test_up_is_warm_after_a_restart(tiny: Path, tmp_path: Path) -> None:
    text = "def area(radius):\n    return 3 * radius\n\n\n" * 4 + "def volume(radius):\n    return "
    body = {"prompt": text, "suffix": "\n", "path": "a.py", "max_tokens": 4, "manual": True}

    def evaluated(server: Running) -> int:
        try:
            return int(HTTP.post(f"{server.url}/v1/completions", json=body).json()["timings"]["prompt_n"])
        finally:
            assert server.stop() == 0

    cache = tmp_path / "s" / "cache" / "tabsmith" / "slots"
    assert evaluated(start(tiny, tmp_path / "s")) > 100 and len(list(cache.iterdir())) == 2
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert evaluated(start(tiny, tmp_path / "s")) <= 8
