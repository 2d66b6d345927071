"""llama-server as a child: back after a crash, given up after five, its last words shown, two of them side by side."""

from __future__ import annotations

import asyncio
import contextlib
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from core.errors import MachineError
from phase4_serve import binary
from phase4_serve.backend import Answer, Backend, BackendDown
from phase4_serve.supervisor import RESTARTS, Supervisor
from tests.phase4_serve.conftest import CANARY, PARAMS


def supervised(model: Path, socket: Path) -> Supervisor:
    return Supervisor(binary.command(binary.find(), model, socket, PARAMS), socket)


@contextlib.asynccontextmanager
async def running(supervisor: Supervisor) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(supervisor.run())
    try:
        await asyncio.wait_for(supervisor.ready.wait(), 20)
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def read_on(answer: Answer) -> None:
    while not (await answer.next()).stop:
        pass


async def answers(backend: Backend) -> str:
    return "".join([event.content async for event in backend.complete([1, 2, 3], {"n_predict": 8, "temperature": 0.0})])


def test_a_killed_llama_server_is_a_clean_error_and_back_in_five_seconds(
    tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Promise 7."""

    async def scenario() -> float:
        supervisor, backend = supervised(tiny, tmp_path / "l.sock"), Backend(tmp_path / "l.sock", tiny)
        async with running(supervisor):
            before = await answers(backend)
            answer = await backend.open(backend.ids(CANARY), {"n_predict": 900, "ignore_eos": True})
            await answer.next()
            assert supervisor.process is not None
            supervisor.process.kill()
            with pytest.raises(BackendDown):
                await read_on(answer)
            killed = time.monotonic()
            while supervisor.deaths == 0:
                await asyncio.sleep(0.005)
            assert not supervisor.ready.is_set()
            await asyncio.wait_for(supervisor.ready.wait(), 5)
            assert await answers(backend) == before
            return time.monotonic() - killed

    assert asyncio.run(scenario()) < 5
    said = capfd.readouterr().err
    assert "llama-server died (SIGKILL" in said and CANARY not in said


def test_one_that_hangs_is_ended_and_another_started(tiny: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        supervisor = supervised(tiny, tmp_path / "l.sock")
        async with running(supervisor):
            assert supervisor.process is not None
            hung = psutil.Process(supervisor.process.pid)
            hung.suspend()
            supervisor.restart()
            assert not supervisor.ready.is_set()
            await asyncio.wait_for(supervisor.ready.wait(), 10)
            assert supervisor.deaths == 1 and not psutil.pid_exists(hung.pid)

    asyncio.run(scenario())


def test_after_five_deaths_it_is_given_up(tiny: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        supervisor = supervised(tiny, tmp_path / "l.sock")
        task = asyncio.create_task(supervisor.run())
        while not task.done():
            ready = asyncio.create_task(supervisor.ready.wait())
            await asyncio.wait({ready, task}, return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            if supervisor.process is not None and supervisor.ready.is_set():
                supervisor.ready.clear()
                supervisor.process.kill()
        assert supervisor.deaths == RESTARTS
        await task

    with pytest.raises(MachineError, match=f"died {RESTARTS} times within 60 seconds"):
        asyncio.run(asyncio.wait_for(scenario(), 40))


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("says", "shown"),
    [
        ("echo 'E error: no such instruction: avx9' >&2; exit 3", "exit code 3): E error: no such instruction: avx9"),
        ("exit 4", "exit code 4): it said nothing"),
        ("kill -SEGV $$", "SIGSEGV"),
        ("head -c 3000000 /dev/zero | tr '\\0' 'x' >&2; echo >&2; echo ' E out of memory' >&2; exit 1", "E out of memory"),
    ],
)
def test_one_that_cannot_start_is_one_line_with_its_last_words(tmp_path: Path, says: str, shown: str) -> None:
    supervisor = Supervisor([str(script(tmp_path / "fake", says))], tmp_path / "l.sock")
    with pytest.raises(MachineError) as failed:
        asyncio.run(asyncio.wait_for(supervisor.run(), 20))
    assert shown in str(failed.value)


def test_a_damaged_model_says_so(tiny: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(tiny.read_bytes()[:20_000])
    with pytest.raises(MachineError, match="ended at start"):
        asyncio.run(asyncio.wait_for(supervised(broken, tmp_path / "l.sock").run(), 20))


def test_two_run_side_by_side_and_nobody_else_can_reach_them(tiny: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        sockets = [tmp_path / "1.sock", tmp_path / "2.sock"]
        first, second = (supervised(tiny, socket) for socket in sockets)
        async with running(first), running(second):
            assert await answers(Backend(sockets[0], tiny)) == await answers(Backend(sockets[1], tiny))
            assert all(stat.S_IMODE(socket.stat().st_mode) & 0o077 == 0 for socket in sockets)
            for supervisor in (first, second):
                assert supervisor.process is not None
                assert not [c for c in psutil.Process(supervisor.process.pid).net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert not any(socket.exists() for socket in sockets)

    asyncio.run(scenario())


def test_what_it_must_know_is_done_before_it_counts_as_ready(tiny: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        supervisor, seen = supervised(tiny, tmp_path / "l.sock"), []

        async def prepare() -> None:
            seen.append(await answers(Backend(tmp_path / "l.sock", tiny)))
            assert not supervisor.ready.is_set()

        supervisor.prepare = prepare
        async with running(supervisor):
            assert len(seen) == 1

    asyncio.run(scenario())
