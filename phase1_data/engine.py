"""Apply a function to the shards of a file: in processes of this machine, or on a Ray cluster, from where it stopped.

In:  a function, shards (row groups of a Parquet file), and where the work is done
Out: parts in a work folder, and what the function returned for each shard, in the order of the shards

A function reads its row group and writes its parts under `shard.part()`; what it returns is saved as JSON beside them
when the parts are whole. A shard with that JSON is done: a run that was killed goes on with the others. Neither the engine,
nor the number of processes, nor a kill changes a byte. On a cluster every machine must see the files under the same path.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import hashlib
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import wait as futures_wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from core.errors import InputError, MachineError, TabsmithError, one_line
from core.manifest import HOW, sha256_of, versions_of
from core.params import StageParams
from core.progress import track
from core.records import GROUP_BYTES, GROUP_ROWS, Row, partial, read_group, read_groups, write_json

PACKAGES = ("detect-secrets", "rensa", "numpy", "pyarrow", "tokenizers", "tree-sitter")  # whose versions shape a part
ROOT = Path(__file__).parents[1]
ANSWERS_IN = 5.0  # seconds


class Where(Protocol):
    """The keys of a section of params.yaml that say where its work is done."""

    @property
    def engine(self) -> Literal["local", "ray"]: ...
    @property
    def workers(self) -> int: ...


class Engine(NamedTuple):
    """Where shards are worked on."""

    kind: Literal["local", "ray"]
    workers: int  # processes; a cluster that is there already uses all its cores

    @classmethod
    def of(cls, params: Where) -> Engine:
        return cls(params.engine, params.workers)


class Shard(NamedTuple):
    """A row group of a Parquet file, and the folder that takes its parts."""

    source: Path
    made_by: str  # the command that makes `source`
    number: int
    rows: int
    size: int  # bytes of text
    folder: Path

    def table(self, columns: list[str] | None = None) -> pa.Table:
        return read_group(self.source, self.number, self.made_by, columns)

    def part(self, suffix: str = ".parquet") -> Path:
        return self.folder / f"part-{self.number:05d}{suffix}"

    @property
    def done(self) -> Path:
        return self.part(".json")


def work_folder(out: Path, stage: str, params: StageParams, inputs: Iterable[Path]) -> Path:
    """The folder of a stage's unfinished work: the same for the same params, inputs and code; others of the stage are removed.

    It need not be there yet: `shards_of` makes it.

    Args:
        out: the stage's output folder; the work lies beside it, outside everything that DVC tracks.
    """
    key = hashlib.sha256(json.dumps(params.model_dump(mode="json", exclude=set(HOW)), sort_keys=True).encode())
    key.update(json.dumps([sha256_of(path) for path in inputs if path.exists()]).encode())
    key.update(json.dumps(versions_of(PACKAGES), sort_keys=True).encode() + _code().encode())
    folder = (out.parent / ".work" / f"{stage}-{key.hexdigest()[:16]}").resolve()
    for old in folder.parent.glob(f"{stage}-*"):
        if old != folder:
            shutil.rmtree(old)
    return folder


@functools.cache
def _code() -> str:
    """sha256 of the modules that a shard function may call."""
    total = hashlib.sha256()
    for module in sorted(path for package in ("core", "phase1_data") for path in (ROOT / package).rglob("*.py")):
        total.update(module.read_bytes())
    return total.hexdigest()


def remove_work(folder: Path) -> None:
    """Remove a stage's work folder when its outputs are in place."""
    shutil.rmtree(folder)
    if not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def shards_of(source: Path, folder: Path, made_by: str) -> list[Shard]:
    """One shard per row group of `source`, with parts under `folder`.

    Raises:
        InputError: `source` is missing or damaged; names `made_by`.
    """
    shards = [
        Shard(source.resolve(), made_by, number, group.num_rows, pa.compute.sum(group["n_bytes"]).as_py() or 0, folder.resolve())
        for number, group in enumerate(read_groups(source, made_by, ["n_bytes"]))
    ]
    folder.mkdir(parents=True, exist_ok=True)
    return shards


def pending_bytes(shards: Iterable[Shard]) -> int:
    """Bytes of text in the shards that are still to be done."""
    return sum(shard.size for shard in shards if not shard.done.is_file())


def run_shards(work: Callable[[Shard], Row], shards: Sequence[Shard], engine: Engine, label: str) -> Iterator[Row]:
    """Yield work(shard) for every shard, in order; those done before are not done again.

    Args:
        work: a function of a module, or a functools.partial of one; what it returns goes through JSON. What is dear to
            build (a tokenizer) it keeps in a functools.cache: a process sees many shards.

    Raises:
        TabsmithError, OSError: as `work` raised it, for the first shard that failed.
        MachineError: a process was killed, or Ray is not there.
    """
    todo = [shard for shard in shards if not shard.done.is_file()]
    if len(todo) < len(shards):
        print(f"{label}: continues: {len(shards) - len(todo)} of {len(shards)} shards done", file=sys.stderr, flush=True)
    finished = iter(()) if not todo else _on_ray(work, todo, engine.workers) if engine.kind == "ray" else _here(work, todo, engine.workers)
    waiting = {shard.number for shard in todo}
    for shard in track(shards, label, sum(shard.rows for shard in todo), amount=lambda shard: shard.rows if shard.number in waiting else 0):
        if shard.number in waiting:
            next(finished)
        yield json.loads(shard.done.read_text(encoding="utf-8"))


def _finish(work: Callable[[Shard], Row], shard: Shard) -> None:
    """Do one shard; its JSON comes last.

    Without the search for cycles: syntax trees have none, and parsing takes two thirds of the time.
    """
    searching = gc.isenabled()
    gc.disable()
    try:
        write_json(shard.done, work(shard))
    finally:
        if searching:
            gc.enable()


def _here(work: Callable[[Shard], Row], shards: list[Shard], workers: int) -> Iterator[None]:
    if workers == 1 or len(shards) == 1:
        for shard in shards:
            _finish(work, shard)
            yield None
        return
    try:
        waiting = [_pool(workers).submit(_finish, work, shard) for shard in shards]
        try:
            for done in waiting:
                yield done.result()
        finally:
            for left in waiting:
                left.cancel()
            futures_wait(waiting)
    except BrokenProcessPool:
        _pool.cache_clear()
        raise MachineError("a worker process was killed, for lack of memory as a rule: lower `workers` in params.yaml and rerun") from None


@functools.cache
def _pool(workers: int) -> ProcessPoolExecutor:
    """The processes of this one: started once, because each takes a second to import what it needs."""
    spawn = multiprocessing.get_context("spawn")  # a fork would copy Arrow's threads in an unknown state
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_end_with_parent)
    atexit.register(pool.shutdown, wait=True, cancel_futures=True)  # without waiting, Python 3.11 may trip over its own thread at exit
    return pool


def _end_with_parent() -> None:
    """Leave Ctrl-C to the parent, and end when it is gone, however it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: wait([parent.sentinel]) and os._exit(1), daemon=True).start()


def ray_data(workers: int) -> ModuleType:
    """`ray.data`, joined to the cluster that RAY_ADDRESS names or to one of `workers` processes on this machine.

    Raises:
        MachineError: Ray is not installed, or the cluster does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import logging

        import ray
        import ray.data
    except ImportError:
        raise MachineError("`engine: ray` needs Ray, which is not installed: run `pip install 'tabsmith[ray]'`") from None
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if not ray.is_initialized():
        try:
            if address := os.environ.get("RAY_ADDRESS"):
                _answers(address)
                ray.init(address="auto", **quiet)
            else:
                ray.init(num_cpus=workers, include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
        except (ConnectionError, RuntimeError, OSError) as error:
            raise MachineError(f"Ray does not start ({error}): check RAY_ADDRESS, or set `engine: local` in params.yaml") from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return ray.data


def _answers(address: str) -> None:
    """Try a cluster's host:port, because Ray itself waits for minutes.

    Raises:
        OSError: nobody listens there.
    """
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if port.isdecimal():
        socket.create_connection((host, int(port)), timeout=ANSWERS_IN).close()


def _on_ray(work: Callable[[Shard], Row], shards: list[Shard], workers: int) -> Iterator[None]:
    """A block of one row per shard, so that each is a task of its own."""
    data = ray_data(workers)
    places = data.from_items([{"at": at} for at in range(len(shards))], override_num_blocks=len(shards))
    with ray_failures():
        for row in places.map(functools.partial(_one, work=work, shards=shards)).iter_rows():
            if row["failure"]:
                raise pickle.loads(row["failure"])
            yield None


@contextlib.contextmanager
def ray_failures() -> Iterator[None]:
    """Turn the loss of a worker or of the cluster into one line; a bug in the function keeps its traceback.

    Raises:
        MachineError: workers were lost more often than Ray tries again.
    """
    from ray.exceptions import RayError, RayTaskError

    try:
        yield
    except RayTaskError:
        raise
    except RayError as error:
        raise MachineError(f"Ray lost workers ({one_line(error)[:200]}): see to the cluster and rerun; what is done is kept") from None


def _one(row: dict[str, Any], work: Callable[[Shard], Row], shards: list[Shard]) -> dict[str, Any]:
    """One shard on a worker of Ray: a foreseen failure travels as a value, so that it arrives as itself."""
    try:
        _finish(work, shards[row["at"]])
    except (TabsmithError, OSError) as error:
        return {"at": row["at"], "failure": pickle.dumps(error)}
    return {"at": row["at"], "failure": b""}


def join_parts(path: Path, parts: Iterable[Path], schema: pa.Schema) -> int:
    """Write the parts one after the other as one file; return the number of rows."""
    return join_tables(path, (table for part in parts for table in tables_of(part)), schema)


def tables_of(part: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The row groups of a part."""
    with _opened(part) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number, columns)


def join_tables(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> int:
    """Write the tables one after the other as one file, small row groups joined; return the number of rows.

    One row group is in memory at a time. Groups are joined up to the limits of core.records, so the bytes depend on the
    tables alone.
    """
    count = 0
    with partial(path) as unfinished, pq.ParquetWriter(unfinished, schema, compression="zstd") as sink:
        held: list[pa.Table] = []
        for table in tables:
            rows, size = sum(t.num_rows for t in held), sum(t.nbytes for t in held)
            if held and (rows + table.num_rows > GROUP_ROWS or size + table.nbytes > GROUP_BYTES):
                sink.write_table(pa.concat_tables(held).combine_chunks())
                held = []
            if table.num_rows:
                held.append(table)
            count += table.num_rows
        if held:
            sink.write_table(pa.concat_tables(held).combine_chunks())
    return count


def _opened(part: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(part)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{part} is missing or damaged ({error}): delete {part.parent} and rerun") from None
