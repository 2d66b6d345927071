"""The long-lived server: llama-server and the gateway, started and stopped together.

In:  a GGUF, a workspace or none, an address, who may ask
Out: a server until a signal; then no process is left, and exit code 0
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import uvicorn
import uvloop

from core.errors import InputError, MachineError
from core.fim import Codec
from core.progress import plain_line
from phase4_serve import binary, gateway, knowledge, model_file
from phase4_serve.chat import Chat
from phase4_serve.compose import Composer
from phase4_serve.connections import MOST_CONNECTIONS, Connection
from phase4_serve.engine import Engine
from phase4_serve.events import Events, default_file, open_private
from phase4_serve.knowledge import Knowledge
from phase4_serve.metrics import Metrics
from phase4_serve.params import ServeParams
from phase4_serve.provider import KEY_VARIABLE as CHAT_KEY_VARIABLE
from phase4_serve.provider import Remote
from phase4_serve.security import ANY_ADDRESS, KEY_VARIABLE, LOOPBACK, Door, door, is_loopback, take_key
from phase4_serve.swap import Serving
from phase4_serve.warm import Warm, default_folder

HOST = "127.0.0.1"  # nobody else's machine is served unless somebody says so
LONGEST_ADDRESS = 103  # bytes of a Unix socket's path that every system takes
BACKLOG = 1024  # connections that the system keeps until we take them
GRACE = 1  # seconds that running answers get when we stop
TOLD_SECONDS = 3.0  # between two lines about the index
IDLE_SECONDS = 75  # that a connection is kept between two requests: longer than most pauses in typing


class Options(NamedTuple):
    """How `up` was asked to serve; what is not about the model's budgets."""

    model: Path
    workspace: Path | None = None
    host: str = HOST
    port: int = 8080
    socket: Path | None = None  # Unix socket for llama-server; None: one in a private folder
    adapter: Path | None = None
    key_file: Path | None = None
    allow_hosts: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    warm: bool = True  # what llama-server has read is kept for the next start
    chat_url: str = ""  # of a service that answers chat questions; "": this server's model does
    chat_model: str = ""
    events: Path | None = None  # file for what editors report; None: one in the user's state folder, where that can be written
    keep_text: bool = False  # write the texts of completions into it


def run(options: Options, params: ServeParams) -> None:
    """Serve until a signal.

    Raises:
        InputError: the model or the workspace is not usable, or somebody could ask who should not.
        MachineError: no llama-server, it does not run, or the port is taken.
    """
    who = door(options.host, options.allow_hosts, options.allow_origins, take_key(KEY_VARIABLE, options.key_file))
    chat_key = os.environ.pop(CHAT_KEY_VARIABLE, "").strip()
    if options.chat_model and not options.chat_url:
        raise InputError("--chat-model names a model of a service: name the service too, with --chat-url")
    remote = Remote(options.chat_url, options.chat_model, chat_key) if options.chat_url else None
    if options.workspace is not None and not options.workspace.is_dir():
        raise InputError(f"{options.workspace} is no folder: name the root of your code with --workspace")
    model = model_file.check(options.model, options.adapter)
    fitted = params.within(model.context)
    if fitted != params:
        print(f"{options.model} was trained on {model.context:,} tokens: prompts are cut to that", file=sys.stderr)
    executable = binary.find()
    allow_connections()
    listening = bind(options.host, options.port)
    with listening, private_folder() as folder:
        where = options.socket or folder / "llama1.sock"
        check_address(where)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(model, executable, folder, listening, options, fitted, who, remote))


def check_address(where: Path) -> None:
    """Look at the path of llama-server's socket; what stands there is deleted when it starts.

    Raises:
        MachineError: it is too long, or another server listens there.
        InputError: there is no such folder, or a file that is no socket.
    """
    if len(bytes(where)) > LONGEST_ADDRESS - 2:
        raise MachineError(f"{where} is too long for a Unix socket: name a shorter one with --socket, or set TMPDIR")
    if not where.parent.is_dir():
        raise InputError(f"--socket {where}: there is no folder {where.parent}: make it, or name another")
    if not (where.exists() or where.is_symlink()):
        return
    if not where.is_socket() or where.is_symlink():
        raise InputError(f"--socket {where} is a file and no socket: name a path that is free")
    with socket.socket(socket.AF_UNIX) as other, contextlib.suppress(OSError):
        other.connect(str(where))
        raise MachineError(f"another server listens on {where}: name another with --socket, or stop it")


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        InputError: the address is none of this machine's.
        MachineError: the port is taken or not allowed.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError):
        raise InputError(f"--host {host} is no address: use 127.0.0.1, or an address of this machine") from None
    # With its protocol named: asyncio turns Nagle's algorithm off (40 ms an answer) only on sockets that say they are TCP
    listening = socket.socket(family, kind, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise InputError(f"--host {host} is no address of this machine: use 127.0.0.1, or one that `ip addr` shows") from None
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise MachineError(f"port {port} {why}: choose another with --port") from None
    return listening


def allow_connections() -> None:
    """As many open files as MOST_CONNECTIONS need, where the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MOST_CONNECTIONS + 256  # a completion holds a connection to llama-server too
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that only this user can enter, for llama-server's socket."""
    folder = Path(tempfile.mkdtemp(prefix="tabsmith-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def serve(
    model: model_file.Model,
    executable: Path,
    folder: Path,
    listening: socket.socket,
    options: Options,
    params: ServeParams,
    who: Door,
    remote: Remote | None,
) -> None:
    """Run everything until a signal or until llama-server cannot be kept running."""
    started = time.perf_counter()
    kept = keeper(executable) if options.warm else None
    serving = Serving(executable, folder, params, model, options.socket, kept.folder if kept else None)
    root = options.workspace
    known = knowledge.of(root, params, model.path)
    backend = serving.now.backend
    codec = Codec(backend.ids, model.tokens)
    composer = Composer(codec, params, known.workspace if known else None, known.index if known else None)
    engine = Engine(model, params, backend, composer, Metrics())
    events = Events(events_file(options), options.keep_text, engine.metrics, known.workspace if known else None)
    serving.on_swap = lambda outcome: engine.metrics.swaps.labels(outcome).inc()
    server = uvicorn.Server(
        uvicorn.Config(
            gateway.build(engine, serving, known, who, Chat(engine, known, remote), events),
            http=Connection,
            ws="none",
            proxy_headers=False,
            log_level="critical",  # errors are logged by us, without the texts that a traceback would show
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=GRACE,
            lifespan="off",
        )
    )

    async def prepare() -> None:
        if kept:
            await kept.restore(model.fingerprint, backend, engine.scheduler)
        await engine.behind.measure()

    serving.now.supervisor.prepare = prepare
    stop = asyncio.Event()
    listen_to_signals(stop, serving)
    supervising = asyncio.create_task(serving.run())
    answering = asyncio.create_task(server._serve([listening]))  # `serve` would raise the signal again before we have cleaned up
    others = [
        asyncio.create_task(stop.wait()),
        asyncio.create_task(announce(serving, listening, options, started, remote)),
        asyncio.create_task(serving.watch(engine)),
    ]
    if known:
        others += [asyncio.create_task(known.run()), asyncio.create_task(tell_progress(known))]
    try:
        await asyncio.wait([supervising, answering, others[0]], return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True  # running answers get GRACE seconds
        await asyncio.wait([answering], timeout=GRACE + 1)
        if supervising.done():
            supervising.result()
        if kept and serving.ready.is_set():
            await kept.save(serving.now.model.fingerprint, serving.now.backend, engine.scheduler)
    finally:
        for task in (*others, answering, supervising):
            task.cancel()
        await asyncio.gather(*others, answering, supervising, return_exceptions=True)
        engine.close()
        await asyncio.to_thread(events.close)
        if remote is not None:
            await remote.close()
        await serving.now.backend.close()


def events_file(options: Options) -> Path | None:
    """Where events are kept; None, and a line, where nobody named a file and there is no private place.

    Raises:
        InputError: a file that was named, or is needed for texts, cannot be written.
    """
    file = options.events or default_file()
    try:
        open_private(file).close()
    except InputError as error:
        if options.events is not None or options.keep_text:
            raise
        print(f"{error} (events are only counted)", file=sys.stderr, flush=True)
        return None
    return file


def keeper(executable: Path) -> Warm | None:
    """Where slots are kept over a restart; None, and a line, where there is no private place."""
    try:
        return Warm(default_folder(), binary.build(executable))
    except (OSError, RuntimeError) as error:
        print(f"what the model has read is not kept for the next start ({type(error).__name__})", file=sys.stderr)
        return None


def listen_to_signals(stop: asyncio.Event, serving: Serving) -> None:
    """SIGINT and SIGTERM stop; SIGHUP looks at the model's file again, unless it says that the terminal is gone."""
    loop, interactive = asyncio.get_running_loop(), has_terminal()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: stop.set() if interactive and not has_terminal() else serving.reload())


def has_terminal() -> bool:
    """Whether there is a terminal that this process belongs to."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


async def announce(serving: Serving, listening: socket.socket, options: Options, started: float, remote: Remote | None) -> None:
    """Say where and when it can be asked, and by whom."""
    await serving.ready.wait()
    url = url_of(options.host, listening.getsockname()[1])
    print(f"{serving.now.model.name} ready after {time.perf_counter() - started:.1f} s on {url} (Ctrl-C stops)", flush=True)
    if not is_loopback(options.host):
        print("other machines can ask, with the key; what they send is not encrypted: put a TLS proxy in front", flush=True)
    if remote is not None and not remote.local:
        how = ", unencrypted" if remote.plain else ""
        print(f"chat questions, with pieces of your code, leave this machine for {remote.host}{how}; completions do not", flush=True)
    print(f"connect an editor: python -m phase4_serve editors --url {url}", flush=True)
    gc.freeze()  # what lives as long as the server is not looked through again while somebody waits for an answer


async def tell_progress(known: Knowledge) -> None:
    """Say how far the index is, how fast, and how long still, until everything was read."""
    while not known.complete.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(known.complete.wait(), TOLD_SECONDS)
            break
        if (far := known.looked) is not None:
            label = "index" if far.of else "index: looking for files"
            print(plain_line(label, far.done, far.of, "files", far.seconds), flush=True)
    gc.freeze()


def url_of(host: str, port: int) -> str:
    """Where a program on this machine finds the server."""
    name = HOST if host in ANY_ADDRESS or host in LOOPBACK - {"::1"} else host
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
