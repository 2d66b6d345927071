"""Rows of a code set on the Hub, streamed, and kept on disk as they come, so that a stream of hours goes on where it broke off.

In:  a HubSource; HF_TOKEN or `hf auth login` for gated sets
Out: rows in the order of the set; part-00000.parquet with the rows and part-00000.json with the stream's position after them, in
     a folder of the set's id, commit, folder and split

Whether the set may be read is asked first, with a timeout, because `datasets` alone retries for half a minute.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import AccessError, InputError
from core.records import Row, partial, read_json, read_parquet, write_json
from phase1_data.params import HubSource

TIMEOUT = 10  # seconds until the Hub counts as out of reach
PART_ROWS = 1000
PART_BYTES = 32_000_000  # of text


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


def kept_rows(source: HubSource, revision: str, work: Path, columns: frozenset[str]) -> Iterator[Row]:
    """Rows of the set: those an earlier run kept, then the rest of the stream, which is kept too.

    Args:
        columns: those that are kept; the first row of a new stream comes with all it has, so that others can be named.

    Raises:
        AccessError, InputError: as hub_rows.
    """
    key = json.dumps([source.id, revision, source.data_dir, source.split, sorted(columns)])
    folder = work / f"hub-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    number, state, kept = 0, None, 0
    while (done := folder / f"part-{number:05d}.json").is_file():
        for row in read_parquet(done.with_suffix(".parquet"), "python -m phase1_data ingest"):
            yield row
            kept += 1
        state = read_json(done, "python -m phase1_data ingest")
        number += 1
    if kept:
        print(f"{source.id}: continues after {kept:,} rows", file=sys.stderr, flush=True)
    part: list[Row] = []
    size = 0
    for row, position in hub_rows(source, revision, state):
        yield row
        part.append({name: value for name, value in row.items() if name in columns})
        size += sum(len(value) for value in row.values() if isinstance(value, str | bytes))
        if len(part) == PART_ROWS or size >= PART_BYTES:
            _keep(folder / f"part-{number:05d}.parquet", part, position())
            part, size, number = [], 0, number + 1


def _keep(path: Path, rows: list[Row], state: Any) -> None:
    """The position comes last: with it the part counts."""
    with partial(path) as unfinished:
        pq.write_table(pa.Table.from_pylist(rows), unfinished, compression="zstd")
    write_json(path.with_suffix(".json"), state)


def hub_rows(source: HubSource, revision: str, state: dict[str, Any] | None) -> Iterator[tuple[Row, Callable[[], dict[str, Any]]]]:
    """Rows of a set on the Hub, streamed, each with a function that tells the stream's position after it.

    Args:
        state: a position to go on from.

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
    if state:
        stream.load_state_dict(state)
    rows = iter(stream)
    try:
        for row in rows:
            yield row, stream.state_dict
    except Exception as error:  # noqa: BLE001  # the stream's own errors differ between transports
        why = f"the stream broke off ({type(error).__name__})"
        raise AccessError(f"{source.id}: {why}: run the same command again, or fetch the set and name its folder in params.yaml") from None
    finally:  # a stream that is not read to its end can hang at exit (datasets 7467): close it ourselves
        close = getattr(rows, "close", None)
        if close:
            close()
        del rows, stream
        gc.collect()
