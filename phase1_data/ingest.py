"""Read the sources into one schema.

In:  ingest.sources: installed packages, folders, code sets; ingest.canaries: files to plant among them
Out: files.parquet (core.records.FILE, quality properties still empty), rejects.parquet, manifest.json

Size and language are looked at before a file is opened. Everything that is turned down has a row in rejects.parquet; rows
and rejects go to disk as they come, so memory does not grow with what is read (by some hundred bytes per file name).
"""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import IO

from core import canary
from core.errors import InputError
from core.manifest import Run
from core.progress import track
from core.records import FILE, REJECT, Row, write_parquet
from phase1_data import environment, folder, hub, license
from phase1_data.decode import text_of
from phase1_data.params import EnvironmentSource, FolderSource, IngestParams
from phase1_data.sources import RawFile, Refused


def row_of(file: RawFile) -> tuple[Row, str]:
    """The record of an accepted candidate, and how its bytes were read (decode.text_of).

    Raises:
        Refused: its content cannot be used.
    """
    data = file.read()
    text, read_as = text_of(data, file.lang)
    if isinstance(data, str):
        read_as = file.read_as
    if not text.strip():
        raise Refused("empty")
    stated = license.of_header(text)
    license_id, license_how = (stated, "spdx_header") if stated != license.UNKNOWN else (file.license, file.license_how)
    encoded = text.encode()
    row: Row = {
        "file_id": sha256(encoded).hexdigest(),
        "content": text,
        "path": file.path,
        "repo": file.repo,
        "repo_rev": file.repo_rev,
        "source": file.source,
        "source_rev": file.source_rev,
        "license": license_id,
        "license_how": license_how,
        "lang": file.lang,
        "n_bytes": len(encoded),
        "split": "",
        "dup_cluster": "",
        "redactions": [],
    }
    return row, read_as


class Intake:
    """Judges candidates one by one against the limits, and notes what it turned down."""

    def __init__(self, params: IngestParams, rejects: IO[str]) -> None:
        self.params, self.rejects = params, rejects
        self.dropped: Counter[str] = Counter()
        self.read_as: Counter[str] = Counter()
        self.repo_bytes: Counter[bytes] = Counter()  # by hash: a code set has a million repositories
        self.files = self.bytes = self.seen = self.planted = 0

    def reject(self, file: RawFile, reason: str, value: str = "") -> None:
        self.dropped[reason] += 1
        row = {"path": f"{file.repo}/{file.path}", "stage": "ingest", "reason": reason, "value": value}
        self.rejects.write(json.dumps(row) + "\n")

    def refusal(self, file: RawFile) -> tuple[str, str] | None:
        """Why a file is turned down before it is opened, None if it is not."""
        limits = self.params
        if file.refuse:
            return file.refuse, file.detail
        if file.lang not in limits.languages:
            return "language", file.lang or Path(file.path).suffix[:16]
        if file.size > limits.max_file_bytes:
            return "file_bytes", str(file.size)
        if limits.max_repo_bytes and self.repo_bytes[_key(file.repo)] + file.size > limits.max_repo_bytes:
            return "repo_bytes", str(file.size)
        return None

    def rows(self, files: Iterable[RawFile]) -> Iterator[Row]:
        """Records of the files that are let in."""
        for file in files:
            if self.params.max_files and self.files - self.planted >= self.params.max_files:
                return
            self.seen += 1
            refusal = self.refusal(file)
            if refusal:
                self.reject(file, *refusal)
                continue
            try:
                row, read_as = row_of(file)
            except Refused as refused:
                self.reject(file, refused.reason, refused.value)
                continue
            self.files += 1
            self.planted += file.repo == canary.REPO
            self.read_as[read_as] += 1
            self.bytes += row["n_bytes"]
            self.repo_bytes[_key(file.repo)] += file.size
            yield row

    def counts(self) -> dict[str, object]:
        """What came in, for the manifest; texts that were no UTF-8 by how they were read."""
        return {
            "files_seen": self.seen,
            "files": self.files,
            "bytes": self.bytes,
            "dropped": dict(sorted(self.dropped.items())),
            "repos": len(+self.repo_bytes),
            **({"canaries": self.planted} if self.params.canaries else {}),
            **{f"decoded_{how}": count for how, count in sorted(self.read_as.items()) if how != "utf8"},
        }

    def require_files(self) -> None:
        """Raises:
        InputError: nothing was let in; names the rule that turned down most.
        """
        if self.files == self.planted:
            most = self.dropped.most_common(1)
            why = f"most were turned down as {most[0][0]!r} ({most[0][1]} of {self.seen})" if most else "the sources are empty"
            raise InputError(f"no file to train on: {why}; change ingest in params.yaml and run `python -m phase1_data ingest` again")


def _key(repo: str) -> bytes:
    return sha256(repo.encode()).digest()[:8]


def planted(params: IngestParams) -> Iterator[RawFile]:
    """The canaries as candidates; first, so that no limit leaves them out."""
    for one in canary.plant(params.canaries, params.canary_seed):
        data = one.text.encode()
        read = functools.partial(bytes, data)
        yield RawFile(one.path, canary.REPO, "", "canary", "", canary.LICENSE, "metadata", "python", len(data), read)


def raw_files(params: IngestParams, work: Path) -> Iterator[RawFile]:
    """Canaries, then candidates of every source, one source after the other; `work` takes what a stream must not lose."""
    yield from planted(params)
    for source in params.sources:
        if isinstance(source, EnvironmentSource):
            yield from environment.raw_files(source)
        elif isinstance(source, FolderSource):
            yield from folder.raw_files(source)
        else:
            yield from hub.raw_files(source, params.max_file_bytes, work)


def run(out: Path, params: IngestParams) -> Intake:
    """Write files.parquet, rejects.parquet and manifest.json under `out`."""
    run = Run("ingest", out)
    work = out.parent / ".work"
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile("w+", encoding="utf-8", dir=out) as rejects:  # without a name: gone however this ends
        intake = Intake(params, rejects)

        def rows() -> Iterator[Row]:
            yield from intake.rows(track(raw_files(params, work), "ingest"))
            intake.require_files()

        with run.step("read") as step:
            write_parquet(out / "files.parquet", rows(), FILE)
            step.bytes = intake.bytes
        rejects.seek(0)
        write_parquet(out / "rejects.parquet", map(json.loads, rejects), REJECT)
    for kept in work.glob("hub-*"):
        shutil.rmtree(kept)
    if work.is_dir() and not any(work.iterdir()):
        work.rmdir()
    run.finish({"ingest": params}, [], intake.counts(), ["pyarrow", "license-expression"])
    return intake
