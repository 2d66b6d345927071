"""The DVC stage `choose`: which quantization to ship, by evidence.

In:  phase3_quantize/out/quantize/{model-f32.gguf, imatrix.gguf}, phase1_data/out/samples/valid.parquet
Out: phase3_quantize/out/choose/{choose.json, pareto.csv, recommended.gguf, manifest.json}

Every candidate is made, read over the same held-out holes as the full file, and timed in rounds. Of two files the better one is smaller
and closer to the full model; those that no other beats in both are on the Pareto front. The named default stays, made with importance
weights if these bring it closer, until another file is smaller, faster at reading and at writing, no further from the full model, and not
visibly worse at exact match.
"""

from __future__ import annotations

import csv
import io
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from core.errors import InputError
from core.fim import Codec, codec_of
from core.manifest import MANIFEST, Run, sha256_of
from core.progress import track
from core.records import read_jsonl, write_json, write_text
from core.statistics import ALPHA, difference_of_rates
from phase3_quantize import kl, mix, quantize, speed
from phase3_quantize.convert import MERGED_BY
from phase3_quantize.engine import GgufModel
from phase3_quantize.holes import read_holes
from phase3_quantize.imatrix_file import MADE_BY
from phase3_quantize.mix import Group, Mix
from phase3_quantize.params import ChooseParams
from phase3_quantize.source import open_gguf
from phase3_quantize.tensor_types import is_quantized, tensor_class

DEFAULT = "Q4_K_M"
DEAF = ("Q8_0", "F16", "BF16")  # types that are the same with and without importance weights
QUANTIZED_BY = "python -m phase3_quantize run"
FIGURES, PARETO, RECOMMENDED = "choose.json", "pareto.csv", "recommended.gguf"
WEIGHED = " + imatrix"
NOISE = 1.02  # speeds closer than this are alike


class Candidate(NamedTuple):
    """A quantization to try."""

    type: str
    imatrix: bool

    @property
    def name(self) -> str:
        return self.type + WEIGHED * self.imatrix

    @property
    def file(self) -> str:
        return self.name.replace(WEIGHED, "-imatrix") + ".gguf"


def candidates(types: Sequence[str], weighed: bool) -> list[Candidate]:
    """Every type, and again with importance weights where there are some and the type heeds them; the default is always among them."""
    named = dict.fromkeys([DEFAULT, *types])
    return [Candidate(kind, imatrix) for kind in named for imatrix in (False, True) if not imatrix or (weighed and kind not in DEAF)]


def rows_of(codec: Codec, samples: Path, count: int, longest: int) -> list[kl.Scored]:
    """Held-out holes in the order they are served in, judged on their middle and its end.

    Raises:
        InputError: no samples, or none that fits.
    """
    rows = [kl.Scored(*codec.row(hole, "spm")) for hole in read_holes(samples, count)]
    rows = [row for row in rows if len(row.ids) <= longest]
    if not rows:
        raise InputError(f"{samples} holds no hole that fits into {longest} tokens: lower samples.row_tokens and rerun phase 1")
    return rows


def on_front(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> bool:
    """No other row is at least as small and as close, and better in one of the two."""
    point = (row["bytes"], row["kl_mean"])
    others = [(other["bytes"], other["kl_mean"]) for other in rows]
    return not any(size <= point[0] and nats <= point[1] and (size, nats) != point for size, nats in others)


def visibly_worse(exact: Sequence[bool], than: Sequence[bool]) -> bool:
    """Fewer holes exactly right, and McNemar's test sees it."""
    change = difference_of_rates(exact, than)
    return change.value < 0 and change.p is not None and change.p < ALPHA


def dominates(row: dict[str, Any], other: dict[str, Any], exact: dict[str, Sequence[bool]]) -> bool:
    """Smaller, faster at reading and at writing by more than NOISE, no further from the full model, not visibly worse at exact match."""
    return (
        row["bytes"] < other["bytes"]
        and row["prompt_tps"] > NOISE * other["prompt_tps"]
        and row["generate_tps"] > NOISE * other["generate_tps"]
        and row["kl_mean"] <= other["kl_mean"]
        and not visibly_worse(exact[row["name"]], exact[other["name"]])
    )


def recommend(rows: Sequence[dict[str, Any]], exact: dict[str, Sequence[bool]]) -> tuple[str, str]:
    """The name of the file to ship, and why in a sentence.

    Importance weights cost nothing but the time to measure them, so what another file has to dominate is the better of the default with
    and without them.
    """
    of = {row["name"]: row for row in rows}
    default, weighed = of[DEFAULT], of.get(DEFAULT + WEIGHED)
    helped = weighed is not None and weighed["kl_mean"] < default["kl_mean"] and not visibly_worse(exact[weighed["name"]], exact[DEFAULT])
    parent = weighed if weighed is not None and helped else default
    better = [row for row in rows if dominates(row, parent, exact)]
    if better:
        best = min(better, key=lambda row: (row["bytes"], row["kl_mean"]))
        smaller, reads, writes = (best[key] / parent[key] - 1 for key in ("bytes", "prompt_tps", "generate_tps"))
        return best["name"], (
            f"{-smaller:.0%} smaller than {parent['name']}, reads {reads:.0%} and writes {writes:.0%} faster, "
            f"KL {best['kl_mean']:.4f} against {parent['kl_mean']:.4f} nats"
        )
    why = f"no other file is smaller, faster and as close to the full model as {parent['name']}"
    if parent is not default:
        why += f", whose KL is {parent['kl_mean']:.4f} nats against {default['kl_mean']:.4f} of plain {DEFAULT} at the same size and speed"
    return parent["name"], why


def pareto_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Size against KL for `dvc plots`, smallest first."""
    sink = io.StringIO()
    table = csv.writer(sink, lineterminator="\n")
    table.writerow(["megabytes", "kl_mean", "name", "pareto"])
    for row in sorted(rows, key=lambda row: row["bytes"]):
        table.writerow([round(row["bytes"] / 1e6, 3), row["kl_mean"], row["name"], row["pareto"]])
    return sink.getvalue()


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as aligned text, smallest first; a star marks the Pareto front."""
    names = ("MB", "bits", "KL", "p99", "top-1", "exact", "read/s", "write/s", "first ms", "RAM MB")
    lines = [" " * 20 + "".join(f"{name:>9}" for name in names)]
    for row in sorted(rows, key=lambda row: row["bytes"]):
        cells = (
            f"{row['bytes'] / 1e6:.2f}", f"{row['bits_per_weight']:.2f}", f"{row['kl_mean']:.5f}", f"{row['kl_p99']:.3f}",
            f"{row['same_top1']:.1%}", f"{row['exact']:.1%}", f"{row['prompt_tps']:.0f}", f"{row['generate_tps']:.1f}",
            f"{row['ttft_ms']:.1f}", f"{row['memory_mb']:.0f}",
        )  # fmt: skip
        lines.append(f"{'*' * row['pareto']:2}{row['name']:18}" + "".join(f"{cell:>9}" for cell in cells))
    return "\n".join(lines)


def measured(
    full: Path, imatrix: Path | None, rows: Sequence[kl.Scored], types: Sequence[str], scratch: Path, threads: int, rounds: int
) -> tuple[list[dict[str, Any]], dict[str, Sequence[bool]]]:
    """A row of figures for each candidate, whose file stays in `scratch`; which holes each has exactly right."""
    tried = candidates(types, imatrix is not None)
    made = {one: quantize.run(full, scratch / one.file, one.type, threads, imatrix if one.imatrix else None) for one in tried}
    with kl.Reference(full, rows, threads, scratch) as reference:
        found = {one: reference.compare(scratch / one.file) for one in track(tried, "divergence", unit="files")}
    usual = sorted(rows, key=lambda row: row.start)[len(rows) // 2]
    fast = speed.compare({one.name: scratch / one.file for one in tried}, usual.ids[: usual.start], threads, rounds)
    figures = [
        {
            "name": one.name,
            "type": one.type,
            "imatrix": one.imatrix,
            "bytes": made[one]["bytes"],
            "bits_per_weight": made[one]["bits_per_weight"],
            "kl_mean": round(found[one].mean, 6),
            "kl_p99": round(found[one].p99, 6),
            "same_top1": round(found[one].same_top1, 4),
            "exact": round(sum(found[one].exact) / len(rows), 4),
            "exact_n": len(rows),
            "prompt_tps": round(fast[one.name].prompt_tps, 1),
            "generate_tps": round(fast[one.name].generate_tps, 1),
            "memory_mb": round(fast[one.name].memory_mb, 1),
            "ttft_ms": round(fast[one.name].ttft_ms, 2),
        }
        for one in tried
    ]
    for row in figures:
        row["pareto"] = on_front(row, figures)
    return figures, {one.name: found[one].exact for one in tried}


def search(
    full: Path, imatrix: Path | None, rows: Sequence[kl.Scored], scratch: Path, threads: int
) -> tuple[dict[str, str], dict[str, dict[str, float]]]:
    """The smallest mix that is no further from the full file than the default made with the same importance weights; see mix.search."""
    with open_gguf(full) as source:
        named = [(tensor_class(m.name), m) for m in source.matrices if is_quantized(m)]
    groups = {
        name: Group(
            sum(m.rows * m.columns for other, m in named if other == name), frozenset(m.columns for other, m in named if other == name)
        )
        for name in dict.fromkeys(name for name, _ in named)
    }
    with kl.Reference(full, rows, threads, scratch) as reference:

        def divergence(kind: str | Mix) -> float:
            quantize.run(full, scratch / "tried.gguf", kind, threads, imatrix)
            return reference.compare(scratch / "tried.gguf").mean

        return mix.search(groups, divergence, divergence(DEFAULT))


def run(full: Path, imatrix: Path, merged: Path, samples: Path, out: Path, params: ChooseParams) -> dict[str, Any]:
    """Measure all candidates and keep the recommended file; return what choose.json says.

    Raises:
        InputError: full file, importance matrix, tokenizer or samples missing or damaged.
    """
    started = Run("choose", out)
    for file, made_by in ((full, QUANTIZED_BY), (imatrix, MADE_BY), (merged / "tokenizer.json", MERGED_BY)):
        if not file.is_file():
            raise InputError(f"{file} is missing: run `{made_by}` first")
    for stale in (FIGURES, PARETO, RECOMMENDED, MANIFEST):
        (out / stale).unlink(missing_ok=True)
    codec = codec_of(Tokenizer.from_file(str(merged / "tokenizer.json")))
    with GgufModel(full, 8, params.threads) as model:
        longest = model.trained_on
    rows = rows_of(codec, samples, params.holes, longest)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".candidates-") as scratch:
        figures, exact = measured(full, imatrix, rows, params.types, Path(scratch), params.threads, params.rounds)
        name, reason = recommend(figures, exact)
        shutil.move(Path(scratch) / next(one.file for one in candidates(params.types, True) if one.name == name), out / RECOMMENDED)
    found = {
        "rows": figures,
        "default": DEFAULT,
        "recommended": name,
        "reason": reason,
        "holes": len(rows),
        "tokens": sum(row.judged for row in rows),
    }
    write_json(out / FIGURES, found)
    write_text(out / PARETO, pareto_csv(figures))
    counts = {"holes": len(rows), "tokens": found["tokens"]}  # the choice depends on this machine's speed
    chosen = {"recommended": name, "sha256": sha256_of(out / RECOMMENDED)}
    packages = ("gguf", "llama-cpp-python")
    started.finish({"choose": params}, [full, imatrix, samples], counts, packages, parent=sha256_of(full), measured=chosen)
    return found


def measure(
    full: Path, rows: Path, types: Sequence[str], imatrix: Path | None, searched: bool, threads: int, rounds: int, out: Path
) -> dict[str, Any]:
    """The table of `run` for any GGUF on any rows of ids, and a mix found for it if one is looked for; written to `out`.

    Raises:
        InputError: a file missing or damaged, no rows, a row too short, or a type that is not made here.
    """
    for kind in types:
        quantize.check_type(kind)
    scored = [kl.Scored(row["ids"], row["start"]) for row in read_jsonl(rows, "name another --rows")]
    if not scored or any(not 0 < row.start < len(row.ids) for row in scored):
        raise InputError(f"{rows}: every row needs ids and a start among them: mend it")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".candidates-") as scratch:
        found, exact = measured(full, imatrix, scored, types, Path(scratch), threads, rounds)
        name, reason = recommend(found, exact)
        said = {"rows": found, "default": DEFAULT, "recommended": name, "reason": reason, "tokens": sum(row.judged for row in scored)}
        if searched:
            said["mix"], said["sensitivity"] = search(full, imatrix, scored, Path(scratch), threads)
    write_json(out, said)
    return said
