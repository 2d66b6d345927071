"""Read the sources into one schema.

In:  ingest.sources: installed packages, folders, code sets
Out: files.parquet (core.records.FILE, quality properties still empty), rejects.parquet, manifest.json

Text is UTF-8 (or what a Python file's coding line declares), without a byte order mark, with \\n line breaks. Size is
looked at before a file is opened.
"""

from __future__ import annotations

import io
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

from core.errors import InputError
from core.manifest import Run
from core.progress import track
from core.records import FILE, REJECT, Row, write_parquet
from phase1_data import environment, folder, hub, license
from phase1_data.params import EnvironmentSource, FolderSource, IngestParams
from phase1_data.sources import RawFile


class Refused(Exception):
    """A file that cannot be used: reason and value as they go into rejects.parquet."""

    def __init__(self, reason: str, value: str = "") -> None:
        self.reason, self.value = reason, value


def text_of(data: bytes | str, lang: str | None) -> str:
    """The file's text, normalised.

    Raises:
        Refused: binary (a NUL byte) or in no encoding that it declares.
    """
    if isinstance(data, str):
        text = data
        if "\0" in text:
            raise Refused("binary")
        if not _encodes(text):
            raise Refused("undecodable", "lone surrogate")
    else:
        if b"\0" in data:
            raise Refused("binary")
        text = _decoded(data, lang)
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _decoded(data: bytes, lang: str | None) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.start
    if lang == "python":  # PEP 263: a coding line may name another encoding
        try:
            return data.decode(tokenize.detect_encoding(io.BytesIO(data).readline)[0])
        except (SyntaxError, UnicodeDecodeError, LookupError):
            pass
    raise Refused("undecodable", f"byte {at}")


def row_of(file: RawFile) -> Row:
    """The record of an accepted candidate.

    Raises:
        Refused: its content cannot be used.
    """
    try:
        data = file.read()
    except OSError as error:
        raise Refused("unreadable", error.strerror or "") from None
    text = text_of(data, file.lang)
    if not text.strip():
        raise Refused("empty")
    stated = license.of_header(text)
    license_id, how = (stated, "spdx_header") if stated != license.UNKNOWN else (file.license, file.license_how)
    encoded = text.encode()
    return {
        "file_id": sha256(encoded).hexdigest(),
        "content": text,
        "path": file.path,
        "repo": file.repo,
        "repo_rev": file.repo_rev,
        "source": file.source,
        "source_rev": file.source_rev,
        "license": license_id,
        "license_how": how,
        "lang": file.lang,
        "n_bytes": len(encoded),
        "split": "",
        "dup_cluster": "",
        "redactions": [],
    }


class Intake:
    """Judges candidates one by one against the limits, and remembers what it turned down."""

    def __init__(self, params: IngestParams) -> None:
        self.params = params
        self.rejects: list[Row] = []
        self.dropped: Counter[str] = Counter()
        self.repo_bytes: Counter[str] = Counter()
        self.files = self.bytes = self.seen = 0

    def reject(self, file: RawFile, reason: str, value: str = "") -> None:
        self.dropped[reason] += 1
        self.rejects.append({"path": f"{file.repo}/{file.path}", "stage": "ingest", "reason": reason, "value": value})

    def refusal(self, file: RawFile) -> tuple[str, str] | None:
        """Why a file is turned down before it is opened, None if it is not."""
        limits = self.params
        if file.refuse:
            return file.refuse, ""
        if file.lang not in limits.languages:
            return "language", file.lang or Path(file.path).suffix[:16]
        if file.size > limits.max_file_bytes:
            return "file_bytes", str(file.size)
        if limits.max_repo_bytes and self.repo_bytes[file.repo] + file.size > limits.max_repo_bytes:
            return "repo_bytes", str(file.size)
        return None

    def rows(self, files: Iterable[RawFile]) -> Iterator[Row]:
        """Records of the files that are let in."""
        for file in files:
            if self.params.max_files and self.files >= self.params.max_files:
                return
            self.seen += 1
            refusal = self.refusal(file)
            if refusal:
                self.reject(file, *refusal)
                continue
            try:
                row = row_of(file)
            except Refused as refused:
                self.reject(file, refused.reason, refused.value)
                continue
            self.files += 1
            self.bytes += row["n_bytes"]
            self.repo_bytes[file.repo] += file.size
            yield row

    def require_files(self) -> None:
        """Raises:
        InputError: nothing was let in; names the rule that turned down most.
        """
        if not self.files:
            most = self.dropped.most_common(1)
            why = f"most were turned down as {most[0][0]!r} ({most[0][1]} of {self.seen})" if most else "the sources are empty"
            raise InputError(f"no file to train on: {why}; change ingest in params.yaml and run `python -m phase1_data ingest` again")


def raw_files(params: IngestParams) -> Iterator[RawFile]:
    """Candidates of every source, one source after the other."""
    for source in params.sources:
        if isinstance(source, EnvironmentSource):
            yield from environment.raw_files(source)
        elif isinstance(source, FolderSource):
            yield from folder.raw_files(source)
        else:
            yield from hub.raw_files(source, params.max_file_bytes)


def run(out: Path, params: IngestParams) -> Intake:
    """Write files.parquet, rejects.parquet and manifest.json under `out`."""
    run = Run("ingest", out)
    intake = Intake(params)

    def rows() -> Iterator[Row]:
        yield from intake.rows(track(raw_files(params), "ingest"))
        intake.require_files()

    write_parquet(out / "files.parquet", rows(), FILE)
    write_parquet(out / "rejects.parquet", intake.rejects, REJECT)
    counts = {
        "files_seen": intake.seen,
        "files": intake.files,
        "bytes": intake.bytes,
        "dropped": dict(sorted(intake.dropped.items())),
        "repos": len(+intake.repo_bytes),
    }
    run.finish({"ingest": params}, [], counts, ["pyarrow", "license-expression"])
    return intake
