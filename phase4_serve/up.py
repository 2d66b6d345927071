"""The long-lived server: llama-server and the gateway, started and stopped together.

In:  a GGUF, a workspace or none, a port
Out: a server on 127.0.0.1 until a signal; then neither process is left
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from core.errors import InputError, MachineError
from core.fim import Codec
from phase4_serve import binary, gateway, model_file
from phase4_serve.backend import Backend
from phase4_serve.compose import Composer
from phase4_serve.engine import Engine
from phase4_serve.index import Index
from phase4_serve.knowledge import Knowledge
from phase4_serve.metrics import Metrics
from phase4_serve.params import ServeParams
from phase4_serve.supervisor import Supervisor
from phase4_serve.workspace import Workspace

HOST = "127.0.0.1"  # nobody else's machine is served
LONGEST_ADDRESS = 103  # bytes of a Unix socket's path that every system takes
GRACE = 1  # seconds that running answers get when we stop
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(model: Path, workspace: Path | None, port: int, params: ServeParams, address: Path | None = None) -> None:
    """Serve until a signal.

    Args:
        address: Unix socket for llama-server; None: one in a private folder.

    Raises:
        InputError: the model or the workspace is not usable.
        MachineError: no llama-server, it does not run, or the port is taken.
    """
    if workspace is not None and not workspace.is_dir():
        raise InputError(f"{workspace} is no folder: name the root of your code with --workspace")
    checked = model_file.check(model)
    fitted = params.within(checked.context)
    if fitted != params:
        print(f"{model} was trained on {checked.context:,} tokens: prompts are cut to that", file=sys.stderr)
    executable = binary.find()
    listening = bind(port)
    with listening, private_folder() as folder:
        where = address or folder / "llama.sock"
        if len(bytes(where)) > LONGEST_ADDRESS:
            raise MachineError(f"{where} is too long for a Unix socket: name a shorter one with --socket, or set TMPDIR")
        asyncio.run(serve(checked, executable, where, workspace, listening, fitted))


def bind(port: int) -> socket.socket:
    """A listening socket on loopback.

    Raises:
        MachineError: the port is taken or not allowed.
    """
    # With its protocol named: asyncio turns Nagle's algorithm off (40 ms an answer) only on sockets that say they are TCP
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise MachineError(f"port {port} {why}: choose another with --port") from None
    return listening


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that only this user can enter, for llama-server's socket."""
    folder = Path(tempfile.mkdtemp(prefix="tabsmith-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def serve(
    model: model_file.Model, executable: Path, address: Path, workspace: Path | None, listening: socket.socket, params: ServeParams
) -> None:
    """Run everything until a signal or until llama-server cannot be kept running."""
    started = time.perf_counter()
    supervisor = Supervisor(binary.command(executable, model.path, address, params), address)
    backend = Backend(address)
    known = Knowledge(Workspace(workspace, params.max_file_bytes), Index(params.chunk_lines)) if workspace and params.max_chunks else None
    codec = Codec(backend.ids, model.tokens)
    composer = Composer(codec, params, known.workspace if known else None, known.index if known else None)
    engine = Engine(model, params, backend, composer, Metrics())
    server = uvicorn.Server(
        uvicorn.Config(
            gateway.build(engine, supervisor, known),
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
            lifespan="off",
        )
    )
    stop = asyncio.Event()
    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    supervising = asyncio.create_task(supervisor.run())
    answering = asyncio.create_task(server._serve([listening]))  # `serve` would raise the signal again before we have cleaned up
    others = [asyncio.create_task(stop.wait()), asyncio.create_task(announce(supervisor, listening, model, started))]
    if known:
        others.append(asyncio.create_task(known.run()))
    try:
        await asyncio.wait([supervising, answering, others[0]], return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True  # running answers get GRACE seconds
        await asyncio.wait([answering], timeout=GRACE + 1)
        if supervising.done():
            supervising.result()
    finally:
        for task in (*others, answering, supervising):
            task.cancel()
        await asyncio.gather(*others, answering, supervising, return_exceptions=True)
        engine.close()
        await backend.close()


async def announce(supervisor: Supervisor, listening: socket.socket, model: model_file.Model, started: float) -> None:
    """Say where and when it can be asked."""
    await supervisor.ready.wait()
    url = f"http://{HOST}:{listening.getsockname()[1]}"
    print(f"{model.name} ready after {time.perf_counter() - started:.1f} s on {url} (Ctrl-C stops)", flush=True)
