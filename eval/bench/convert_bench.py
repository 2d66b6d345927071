"""Our converter beside llama.cpp's: are the files the same, and what do they cost?

In:  a folder of llama.cpp with convert_hf_to_gguf.py, or none: the source package of the installed llama-cpp-python is fetched
Out: figures: per model and type how many tensors are identical and which metadata differs; seconds and peak memory of both, in turn

Every conversion is a process of its own (eval/bench/launcher.py). Models have random weights, which shows more than trained ones: no value
repeats. Memory is the largest resident set the system counted, pages of mapped files included.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import gguf

from core.errors import CheckFailed, InputError
from core.manifest import versions_of
from core.records import Row, read_json
from eval.bench.random_models import SHAPES, Shape, make, make_adapter

SCRIPT, LORA_SCRIPT = "convert_hf_to_gguf.py", "convert_lora_to_gguf.py"
OUTTYPES = ("f32", "f16", "bf16")
TINY = "tiny_base"
LARGE = "Qwen2.5-Coder-0.5B"  # the shape whose cost is measured
WEIGHTS = "model.safetensors"
KIND, THREADS = "Q4_K_M", 2  # of the quantization after it


class Model(NamedTuple):
    """A folder to convert, the name of its tokenizer's cut, an adapter for it if there is one."""

    name: str
    folder: Path
    pre: str
    adapter: Path | None = None


class Cost(NamedTuple):
    """Of one process."""

    seconds: float
    peak_mb: float


def run(peer: Path | None, tiny: Path, rounds: int, quick: bool, cache: Path) -> Row:
    """All figures.

    Args:
        peer: folder of llama.cpp.
        tiny: the shipped base.
        rounds: how often each side has its turn on the large model.
        quick: leave the large model out.
        cache: where a fetched source package is kept.

    Raises:
        InputError: the folder holds no converter, or nothing could be fetched.
        CheckFailed: a converter did not end well; what it said last is in the message.
    """
    source = peer_folder(peer, cache)
    with tempfile.TemporaryDirectory(prefix="convert-bench-") as scratch:
        rows: list[Row] = []
        cost: list[Row] = []
        merge = None
        for model in given(Path(scratch), tiny, quick):
            print(f"{model.name}: comparing", file=sys.stderr, flush=True)
            outtypes = OUTTYPES if model.name != LARGE else ("f16", "bf16")
            rows += [identity(model, outtype, source, Path(scratch)) for outtype in outtypes]
            if model.adapter is not None:
                rows.append(adapter_identity(model, source, Path(scratch)))
            if model.name == LARGE:
                cost = costs(model, source, Path(scratch), rounds)
                merge = merge_cost(model, Path(scratch))
            if model.name != TINY:
                shutil.rmtree(model.folder)
    packages = ("llama-cpp-python", "gguf", "numpy", "torch", "transformers")
    return {"models": rows, "cost": cost, "merge": merge, "rounds": rounds, "cpus": os.cpu_count(), "versions": versions_of(packages)}


def given(scratch: Path, tiny: Path, quick: bool) -> Iterator[Model]:
    """The models, each made when its turn comes."""
    for name, shape in SHAPES.items():
        if not (quick and name == LARGE):
            yield made(scratch, name, shape)
    yield Model(TINY, tiny, "qwen2")


def made(scratch: Path, name: str, shape: Shape) -> Model:
    folder = make(scratch / name, shape)
    adapter = make_adapter(scratch / f"{name}-adapter", shape.config) if name != LARGE else None
    return Model(name, folder, shape.pre, adapter)


# the peer


def peer_folder(folder: Path | None, cache: Path) -> Path:
    """A folder of llama.cpp with its converter: the one named, else out of the source package of the installed llama-cpp-python."""
    version = metadata.version("llama-cpp-python")
    found = folder or cache / f"llama_cpp_python-{version}" / "vendor" / "llama.cpp"
    if folder is None and not found.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        fetch = ["download", f"llama-cpp-python=={version}", "--no-binary", ":all:", "--no-deps", "--dest", str(cache)]
        done = subprocess.run([sys.executable, "-m", "pip", "--quiet", *fetch], check=False)
        archives = list(cache.glob(f"llama_cpp_python-{version}.tar.gz"))
        if done.returncode or not archives:
            raise InputError(f"llama-cpp-python {version} could not be fetched as source: name a folder of llama.cpp with --llama-cpp")
        with tarfile.open(archives[0]) as archive:
            archive.extractall(cache, filter="data")
    if not (found / SCRIPT).is_file():
        raise InputError(f"{found} holds no {SCRIPT}: name a folder of llama.cpp with --llama-cpp")
    return found.resolve()


def theirs(source: Path, model: Model, script: str, what: Path, out: Path, outtype: str) -> Cost:
    more = ["--base", str(model.folder)] if script == LORA_SCRIPT else []
    module = ["-m", "eval.bench.peer_converter", str(source), model.pre, script, str(what), *more]
    return measured([sys.executable, *module, "--outfile", str(out), "--outtype", outtype])


def ours(command: str, out: Path, outtype: str, *arguments: object) -> Cost:
    return measured([sys.executable, "-m", "phase3_quantize", command, *map(str, arguments), "--out", str(out), "--outtype", outtype])


def measured(command: Sequence[str]) -> Cost:
    """Run a process to its end.

    Raises:
        CheckFailed: it ended with another code than 0.
    """
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as said:
        took = Path(folder) / "took.json"
        subprocess.run([sys.executable, "-m", "eval.bench.launcher", str(took), *command], stdout=said, stderr=said, check=False)
        found = read_json(took, "python -m eval convert-bench")
        if found["code"]:
            said.seek(0)
            last = (said.read().strip().splitlines() or ["no message"])[-1]
            raise CheckFailed(f"`{' '.join(command[1:5])} ...` ended with {found['code']} ({last}): mend that and rerun")
    return Cost(found["seconds"], found["peak_mb"])


# the same?


def identity(model: Model, outtype: str, source: Path, scratch: Path) -> Row:
    """Both convert a model; compare the files."""
    mine, other = scratch / "ours.gguf", scratch / "theirs.gguf"
    ours("convert", mine, outtype, "--model", model.folder)
    theirs(source, model, SCRIPT, model.folder, other, outtype)
    return {"model": model.name, "outtype": outtype, **compared(mine, other)}


def adapter_identity(model: Model, source: Path, scratch: Path) -> Row:
    """Both convert an adapter; compare the files."""
    mine, other = scratch / "ours.gguf", scratch / "theirs.gguf"
    ours("convert-lora", mine, "f32", "--adapter", model.adapter, "--base", model.folder)
    theirs(source, model, LORA_SCRIPT, Path(str(model.adapter)), other, "f32")
    return {"model": f"adapter of {model.name}", "outtype": "f32", **compared(mine, other)}


def compared(mine: Path, other: Path) -> Row:
    """Two files tensor by tensor and key by key; both are removed."""
    a, b = gguf.GGUFReader(mine), gguf.GGUFReader(other)
    tensors, wanted = ({t.name: t for t in reader.tensors} for reader in (a, b))
    same = [name for name, tensor in wanted.items() if name in tensors and _same(tensors[name], tensor)]
    keys, expected = (_values(reader) for reader in (a, b))
    found: Row = {
        "tensors": len(wanted),
        "identical": len(same),
        "extra": sorted(tensors.keys() - wanted.keys()),
        "keys": len(expected),
        "missing": sorted(expected.keys() - keys.keys()),
        "different": sorted(key for key in expected.keys() & keys.keys() if keys[key] != expected[key]),
        "added": sorted(keys.keys() - expected.keys()),
    }
    mine.unlink()
    other.unlink()
    return found


def _same(a: Any, b: Any) -> bool:
    return (
        a.tensor_type == b.tensor_type and tuple(a.shape) == tuple(b.shape) and memoryview(a.data).cast("B") == memoryview(b.data).cast("B")
    )


def _values(reader: gguf.GGUFReader) -> dict[str, tuple[Any, bytes]]:
    """Key to types and bytes of every value, but for the counts at the head of the file."""
    return {
        key: (tuple(field.types), b"".join(part.tobytes() for part in field.parts[2:]))
        for key, field in reader.fields.items()
        if not key.startswith("GGUF.")
    }


# what it costs


def costs(model: Model, source: Path, scratch: Path, rounds: int) -> list[Row]:
    """The large model to f16 and on to Q4_K_M by both, in turn: each step, and both steps together."""
    full, small = scratch / "timed.gguf", scratch / "timed-small.gguf"
    found: dict[str, dict[str, list[Cost]]] = {step: {"ours": [], "theirs": []} for step in ("convert", "quantize", "both")}
    quantizer = Path(sysconfig.get_path("purelib")) / "bin" / "llama-quantize"
    quantize = [sys.executable, "-m", "phase3_quantize", "quantize", "--in", str(full), "--out", str(small), "--type", KIND]
    for _ in range(rounds):
        for side in ("theirs", "ours"):
            first = (
                theirs(source, model, SCRIPT, model.folder, full, "f16")
                if side == "theirs"
                else ours("convert", full, "f16", "--model", model.folder)
            )
            second = measured([str(quantizer), str(full), str(small), KIND, str(THREADS)] if side == "theirs" else quantize)
            together = Cost(first.seconds + second.seconds, max(first.peak_mb, second.peak_mb))
            for step, cost in zip(found, (first, second, together), strict=True):
                found[step][side].append(cost)
            full.unlink()
            small.unlink()
    return [{"model": model.name, "step": step, **_ratios(runs)} for step, runs in found.items()]


def merge_cost(model: Model, scratch: Path) -> Row:
    """An adapter merged onto the large model rounded to NF4: does the memory stay below the model's size on disk?"""
    adapter = make_adapter(scratch / "adapter", SHAPES[LARGE].config)
    params, out = scratch / "params.yaml", scratch / "out" / "merge"
    params.write_text("profile: bench\nbench:\n  merge: {adapter: dpo, onto: nf4, rows: 1}\n", encoding="utf-8")
    given = ["--base", model.folder, "--adapter", adapter, "--out", out, "--params", params]
    cost = measured([sys.executable, "-m", "phase3_quantize", "merge", *map(str, given)])
    sizes = {"base_mb": (model.folder / WEIGHTS).stat().st_size / 1e6, "merged_mb": (out / WEIGHTS).stat().st_size / 1e6}
    shutil.rmtree(out)
    return {**cost._asdict(), **sizes}


def _ratios(runs: dict[str, list[Cost]]) -> Row:
    """Seconds and peak memory of both sides, and ours by theirs of each round."""
    figures: Row = {}
    for part in Cost._fields:
        values = {side: [getattr(cost, part) for cost in costs] for side, costs in runs.items()}
        figures[part] = {**values, "ratio": [mine / other for mine, other in zip(values["ours"], values["theirs"], strict=True)]}
    return figures


def lines(figures: Row) -> Iterator[str]:
    """The figures as Markdown."""
    yield "| model | type | tensors | identical | keys of the peer | missing | different | added |"
    yield "|---" * 8 + "|"
    for row in figures["models"]:
        lacks = [", ".join(row[key]) or "none" for key in ("missing", "different")]
        cells = [row["model"], row["outtype"], row["tensors"], row["identical"], row["keys"], *lacks, len(row["added"])]
        yield f"| {' | '.join(map(str, cells))} |"
    added = sorted({key for row in figures["models"] for key in row["added"]})
    yield ""
    yield f"Added: {', '.join(added)}."
    if figures["cost"]:
        yield ""
        yield "| step | seconds, ours | theirs | ours / theirs | peak MB, ours | theirs | ours / theirs |"
        yield "|---" * 7 + "|"
        for row in figures["cost"]:
            cells = [_spread(row[part][side], digits) for part, digits in (("seconds", 1), ("peak_mb", 0)) for side in ("ours", "theirs")]
            ratios = [_spread(row[part]["ratio"], 2) for part in ("seconds", "peak_mb")]
            yield f"| {row['step']} | {cells[0]} | {cells[1]} | {ratios[0]} | {cells[2]} | {cells[3]} | {ratios[1]} |"
        yield ""
        yield (
            f"{figures['cost'][0]['model']} shape, bfloat16 to f16, then {KIND} with {THREADS} threads; {figures['rounds']} rounds in "
            "turn, median (lowest to highest); memory of both steps is the larger one."
        )
    if figures["merge"]:
        found = figures["merge"]
        yield (
            f"merge onto NF4 weights: {found['seconds']:.1f} s, peak {found['peak_mb']:,.0f} MB; weights of the base "
            f"{found['base_mb']:,.0f} MB on disk, of the merged model {found['merged_mb']:,.0f} MB."
        )
    yield ", ".join(f"{package} {version}" for package, version in figures["versions"].items()) + f"; {figures['cpus']} CPUs"


def _spread(values: list[float], digits: int = 1) -> str:
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"


def check(figures: Row) -> None:
    """Every tensor identical, no key missing, none different.

    Raises:
        CheckFailed: names the first model that is not.
    """
    for row in figures["models"]:
        if row["identical"] < row["tensors"] or row["extra"] or row["missing"] or row["different"]:
            raise CheckFailed(f"{row['model']} as {row['outtype']} is not what llama.cpp's converter writes: see the table")
