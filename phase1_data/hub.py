"""A code set on the Hub, or a local Parquet or JSONL file of the same shape.

In:  a HubSource; HF_TOKEN or `hf auth login` for gated sets
Out: RawFiles, in the order of the set

Columns are probed, because every set names them differently. Whether the set may be read is asked first, with a
timeout, because `datasets` alone retries for half a minute.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import AccessError, InputError
from core.records import Row, read_jsonl
from core.syntax import lang_of
from phase1_data.license import of_column
from phase1_data.params import HubSource
from phase1_data.sources import RawFile, clean_path

COLUMNS = {  # ours: theirs, first come first
    "content": ("content", "code", "text", "body"),
    "repo": ("max_stars_repo_name", "repo_name", "repository_name", "repo"),
    "path": ("max_stars_repo_path", "path", "file_path", "filename"),
    "license": ("max_stars_repo_licenses", "licenses", "license", "detected_licenses"),
    "lang": ("lang", "language", "programming_language"),
    "revision": ("max_stars_repo_head_hexsha", "revision_id", "commit", "hexsha"),
}
LANGS = {"c++": "cpp", "c#": "csharp", "bash": "shell"}
TIMEOUT = 10  # seconds until the Hub counts as out of reach


def raw_files(source: HubSource, max_file_bytes: int) -> Iterator[RawFile]:
    """Every row of the set; text longer than the limit is carried as its size only.

    Raises:
        InputError: nothing there, damaged, or columns that we do not know (lists them).
        AccessError: gated, no such set, or out of reach; says what to do.
    """
    local = Path(source.id)
    if local.exists() or local.is_absolute() or source.id.startswith(".") or local.suffix in (".parquet", ".jsonl"):
        name, revision, rows = local.name, "", local_rows(local)
    else:
        revision = preflight(source)
        name, rows = source.id, hub_rows(source, revision)
    mapping: dict[str, str] = {}
    for number, row in enumerate(rows):
        if not mapping:
            mapping = probe(list(row), source.id)
        yield _raw(row, mapping, f"hub:{name}", revision, number, max_file_bytes)


def probe(columns: list[str], where: str) -> dict[str, str]:
    """Our names to the set's.

    Raises:
        InputError: no column holds code; lists what there is.
    """
    found = {ours: next(name for name in theirs if name in columns) for ours, theirs in COLUMNS.items() if set(theirs) & set(columns)}
    if "content" not in found:
        hint = "; this set holds ids only, its code is fetched elsewhere" if "blob_id" in columns else ""
        raise InputError(
            f"{where} has no column content, code or text (it has {', '.join(columns)}{hint}): choose another set in params.yaml"
        )
    return found


def _raw(row: Row, mapping: dict[str, str], source: str, revision: str, number: int, max_bytes: int) -> RawFile:
    def value(name: str) -> Any:
        return row.get(mapping.get(name, ""))

    content = value("content")
    text = content if isinstance(content, str) else ""
    stated = value("lang")
    path = clean_path(str(value("path") or f"row{number}"))
    lang = LANGS.get(stated.lower(), stated.lower()) if isinstance(stated, str) else lang_of(path)
    license_id, how = of_column(value("license"))
    size = len(text.encode("utf-8", "replace"))
    text = text if size <= max_bytes else ""
    refuse = "" if isinstance(content, str) else "no_content"
    repo = str(value("repo") or "unknown")
    return RawFile(path, repo, str(value("revision") or ""), source, revision, license_id, how, lang, size, lambda: text, refuse)


def local_rows(path: Path) -> Iterator[Row]:
    """Rows of a .jsonl file, a .parquet file, or a folder of .parquet files.

    Raises:
        InputError: missing, empty, of another kind, or damaged (names file, and line of JSONL).
    """
    if path.suffix == ".jsonl":
        yield from read_jsonl(path, "mend ingest.sources in params.yaml")
        return
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not path.exists() or not files:
        raise InputError(f"{path} {'holds no .parquet file' if path.exists() else 'is missing'}: mend ingest.sources in params.yaml")
    for file in files:
        try:
            with pq.ParquetFile(file) as table:
                for batch in table.iter_batches(batch_size=256):
                    yield from batch.to_pylist()
        except (pa.ArrowInvalid, pa.ArrowException, OSError) as error:
            raise InputError(f"{file} is damaged or no Parquet ({str(error)[:80]}): fetch it again or take it away") from None


def preflight(source: HubSource) -> str:
    """The commit that the set's revision is, after asking whether we may read it.

    Raises:
        AccessError: gated without access, no such set or revision, offline, or no answer in TIMEOUT seconds.
    """
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(TIMEOUT))
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    api = HfApi()
    page = f"{api.endpoint}/datasets/{source.id}"
    try:
        info = api.dataset_info(source.id, revision=source.revision, timeout=TIMEOUT)
        api.auth_check(source.id, repo_type="dataset")
    except HFValidationError:
        raise InputError(f"{source.id!r} is neither a file here nor the id of a code set: mend ingest.sources in params.yaml") from None
    except GatedRepoError:
        raise AccessError(f"{source.id} is gated: accept its terms at {page}, run `hf auth login`, then run this again") from None
    except RevisionNotFoundError:
        raise AccessError(f"{source.id} has no revision {source.revision}: see {page}/commits/main") from None
    except RepositoryNotFoundError:
        raise AccessError(f"{source.id} is not on the Hub, or private: check the id, or run `hf auth login`") from None
    except OfflineModeIsEnabled:
        raise AccessError(f"{source.id}: HF_HUB_OFFLINE is set: unset it, or name a local Parquet or JSONL file in params.yaml") from None
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "an error")
        raise AccessError(
            f"{source.id}: the Hub answered {status}: try later, or name a local Parquet or JSONL file in params.yaml"
        ) from None
    except Exception as error:  # noqa: BLE001  # the transport's own errors differ between versions of huggingface_hub
        why = f"the Hub is out of reach ({type(error).__name__})"
        raise AccessError(f"{source.id}: {why}: go online, or name a local Parquet or JSONL file in params.yaml") from None
    return str(info.sha)


def hub_rows(source: HubSource, revision: str) -> Iterator[Row]:
    """Rows of a set on the Hub, streamed.

    Raises:
        AccessError: access ended. InputError: a loading script, or no such folder or split.
    """
    try:
        from datasets import load_dataset
    except ImportError:
        raise InputError(f"{source.id} is on the Hub and `datasets` is not installed: run `pip install 'tabsmith[train]'`") from None
    try:
        stream = load_dataset(source.id, revision=revision, data_dir=source.data_dir, split=source.split, streaming=True)
    except RuntimeError as error:
        if "script" not in str(error):
            raise
        hint = "set `revision: refs/convert/parquet`, or choose another set"
        raise InputError(f"{source.id} is a loading script, which `datasets` no longer runs: {hint} in params.yaml") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{source.id}: {' '.join(str(error).split())[:160]}: mend data_dir or split in params.yaml") from None
    rows = iter(stream)
    try:
        yield from rows
    except Exception as error:  # noqa: BLE001  # the stream's own errors differ between transports
        why = f"the stream broke off ({type(error).__name__})"
        raise AccessError(f"{source.id}: {why}: run the same command again, or fetch the set and name its folder in params.yaml") from None
    finally:  # a stream that is not read to its end can hang at exit (datasets 7467): close it ourselves
        close = getattr(rows, "close", None)
        if close:
            close()
        del rows, stream
        gc.collect()
