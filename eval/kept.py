"""Runs that can be compared: the last one where it lies, and those that were kept under a name.

In:  eval/out of a checkout; a name
Out: eval/out/kept/NAME: rows/, what else lies beside them, stages/*.json (manifests and figures of the other phases)

A run folder is eval/out of any checkout, a kept run, or a copy of either.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import InputError
from core.manifest import MANIFEST
from core.records import Row, read_json, read_parquet
from eval.report_method import manifests

KEPT = Path("eval/out/kept")
FIGURES = {  # files of other phases, by the name they are kept under
    "quantize": "phase3_quantize/out/quantize/quantize.json",
    "choose": "phase3_quantize/out/choose/choose.json",
    "serve": "phase4_serve/out/serve.json",
    "data_card": "eval/reports/data_card.json",
}


class Kept(NamedTuple):
    """One run, read."""

    name: str
    manifest: dict[str, Any]  # of the evaluation
    rows: dict[str, list[Row]]  # by model
    stages: dict[str, dict[str, Any]]  # manifests of the other stages
    figures: dict[str, dict[str, Any]]  # quantize, choose, serve, data_card, leakage; those that are there


def keep(out: Path, root: Path, name: str, kept: Path = KEPT) -> Path:
    """Copy the last run so that later ones can be compared with it.

    Raises:
        InputError: the name is taken or no plain name, or nothing was evaluated.
    """
    if not name or Path(name).name != name or name.startswith("."):
        raise InputError(f"{name!r} is no plain name for a run: give letters, digits and dashes")
    folder = kept / name
    if folder.exists():
        raise InputError(f"{folder} is there already: give another name, or delete that folder")
    read_json(out / "rows" / MANIFEST, "python -m eval run")
    unfinished = kept / f".{name}.partial"
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(out / "rows", unfinished / "rows", ignore=shutil.ignore_patterns("*.jsonl"))
    for part in ("leakage.json", "suites"):
        if (out / part).is_dir():
            shutil.copytree(out / part, unfinished / part)
        elif (out / part).is_file():
            shutil.copy(out / part, unfinished / part)
    (unfinished / "stages").mkdir()
    for stage in manifests(root):
        phase, _, step = stage.partition("/")
        shutil.copy(root / phase / "out" / step / MANIFEST, unfinished / "stages" / f"{phase}.{step}.json")
    for figure, file in FIGURES.items():
        if (root / file).is_file():
            shutil.copy(root / file, unfinished / f"{figure}.json")
    unfinished.rename(folder)
    return folder


def read_run(given: str, kept: Path = KEPT) -> Kept:
    """A run by its folder or by the name it was kept under.

    Raises:
        InputError: there is none, or it is damaged.
    """
    folder = Path(given) if Path(given).is_dir() else kept / given
    if not (folder / "rows" / MANIFEST).is_file():
        names = ", ".join(sorted(path.name for path in kept.glob("[!.]*"))) or "none"
        raise InputError(f"{given} is no run (kept: {names}): give eval/out of a checkout, or keep one with `python -m eval keep {given}`")
    manifest = read_json(folder / "rows" / MANIFEST, "python -m eval run")
    try:
        models = [str(one["name"]) for one in manifest["counts"]["models"]]
        manifest["params"]["evaluate"]["orders"][0]
    except (KeyError, TypeError, IndexError):
        raise InputError(f"{folder / 'rows' / MANIFEST} is not of an evaluation: run `python -m eval run` in that checkout again") from None
    rows = {name: list(read_parquet(folder / "rows" / f"{name}.parquet", "python -m eval run")) for name in models}
    stages: dict[str, dict[str, Any]] = {}
    where = {"leakage": folder / "leakage.json"}
    if (folder / "stages").is_dir():
        stages = {file.stem.replace(".", "/"): _mapping(file) for file in sorted((folder / "stages").glob("*.json"))}
        where |= {figure: folder / f"{figure}.json" for figure in FIGURES}
    elif folder.resolve().parts[-2:] == ("eval", "out"):  # a checkout: the phases lie beside it
        root = folder.resolve().parents[1]
        stages = manifests(root)
        where |= {figure: root / file for figure, file in FIGURES.items()}
    return Kept(given, manifest, rows, stages, {figure: _mapping(file) for figure, file in where.items() if file.is_file()})


def _mapping(file: Path) -> dict[str, Any]:
    found = read_json(file, "python -m eval keep")
    return dict(found) if isinstance(found, Mapping) else {}
