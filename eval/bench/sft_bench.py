"""Our `sft` against a plain TRL script, and its 4-bit against its 16-bit way: same rows, order, init and threads, in turn.

In:  a base, samples of phase 1 (or code installed here, for the shape of a larger model), a profile's `sft` section
Out: figures (`show` prints them): tokens/s with the ratio to TRL, per-step losses, loss on held-out rows, peak memory, model FLOPs

Every run is a process of its own and is told apart only by its command: `python -m phase2_train sft`, or `eval.bench.plain_trl`. The
systems take turns, so that what else runs on the machine meets all of them; the ratio is the median over rounds of paired rounds.
Speed is that of the median step: neither imports, nor warm-up, nor evaluations are in it.

Model FLOPs per token, forward and backward: 6 N + 12 L h T, N parameters of the layers' matrices, L layers, h hidden, T tokens of a
row (Chowdhery et al. 2022, arXiv 2204.02311, appendix B; attention is not halved for causality). The base under an adapter is
frozen, which spares a third of 6 N: what the GPU really does is less than what is counted, here as in other reports of LoRA.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import random
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import yaml
from tokenizers import Tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM

from core.errors import CheckFailed, InputError
from core.fim import Chunk, Codec, Hole, codec_of, labels
from core.manifest import versions_of
from core.params import active_profile, read_document
from core.progress import track
from core.records import SAMPLE, Row, read_json, read_parquet, write_json, write_jsonl, write_parquet

SAMPLES_BY, BASE_BY = "python -m phase1_data samples", "python -m phase2_train base"
HELD_OUT = 48  # rows
LOG_STEPS = 5  # phase 2 logs a mean over so many steps, and so does the peer
HALF_B: dict[str, Any] = {  # Qwen/Qwen2.5-Coder-0.5B, config.json
    "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
    "vocab_size": 151936, "max_position_embeddings": 32768, "tie_word_embeddings": True,
}  # fmt: skip
HALF_B_TOKENS = 1024  # of its rows at most
PEAKS = {  # dense 16-bit FLOP/s with the GPU's name; NVIDIA's data sheets, half of the figure "with sparsity"
    "H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "T4": 65e12,
}  # fmt: skip


Bits = Literal[4, 16]


class System(NamedTuple):
    """One way to train."""

    name: str
    bits: Bits
    engine: Literal["trl", "unsloth", "plain"]


class Task(NamedTuple):
    """What all of them train."""

    name: str
    base: Path
    samples: Path  # folder with train.parquet and valid.parquet
    ids: Path  # folder with train.jsonl and valid.jsonl
    tokens_per_row: float
    section: Row  # `sft` of the profile, steps set


def widths(asked: Sequence[int]) -> list[Bits]:
    """The widths asked for.

    Raises:
        InputError: neither 4 nor 16.
    """
    if wrong := [width for width in asked if width not in (4, 16)]:
        raise InputError(f"--bits {wrong[0]} is neither 4 nor 16: name one of them")
    known: tuple[Bits, ...] = (16, 4)
    return [width for width in known if width in asked]


def systems(bits: Sequence[Bits]) -> list[System]:
    """Ours and plain TRL for each width; unsloth where it can be imported."""
    found = [
        system
        for width in bits
        for system in (System(f"plain trl, {width} bits", width, "plain"), System(f"tabsmith, {width} bits", width, "trl"))
    ]
    if torch.cuda.is_available() and importlib.util.find_spec("unsloth") is not None:
        found += [System(f"tabsmith with unsloth, {width} bits", width, "unsloth") for width in bits]
    return found


def run(
    base: Path,
    samples: Path,
    bits: Sequence[Bits],
    count: int,
    steps: int,
    rounds: int,
    shape: bool,
    params: Path,
    profile: str | None,
) -> Row:
    """All figures.

    Args:
        count: training rows.
        shape: measure the shape of Qwen2.5-Coder-0.5B too, with random weights (hours on a CPU).

    Raises:
        InputError: base or samples missing, or fewer rows than asked for.
        CheckFailed: a system did not end well; what it said is on the screen.
    """
    section = read_document(params)[active_profile(params, profile)]["sft"]
    with tempfile.TemporaryDirectory(prefix="sft-bench-") as scratch:
        tasks = [task(Path(scratch) / "given", "base", base, chosen(samples, count), section, steps)]
        if shape:
            tasks.append(half_b(Path(scratch) / "half-b", base, count, section, steps))
        measured = {one.name: measure(one, systems(bits), rounds, Path(scratch)) for one in tasks}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "tasks": measured,
        "steps": steps,
        "rounds": rounds,
        "rows": count,
        "gpu": gpu,
        "threads": os.environ.get("OMP_NUM_THREADS", str(torch.get_num_threads())),
        "versions": versions_of(("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "unsloth", "flash-attn")),
    }


# what is trained on


def chosen(samples: Path, count: int) -> list[Row]:
    """Samples of the training split, by the hash in their id.

    Raises:
        InputError: fewer than asked for.
    """
    rows = sorted(read_parquet(samples / "train.parquet", SAMPLES_BY), key=lambda row: row["sample_id"])
    if len(rows) < count + HELD_OUT:
        raise InputError(f"{samples}/train.parquet has {len(rows)} rows and {count} + {HELD_OUT} are needed: lower --rows")
    return rows[: count + HELD_OUT]


def codec_in(base: Path) -> Codec:
    """The codec of a model folder.

    Raises:
        InputError: no tokenizer there, or one without the markers.
    """
    if not (base / "tokenizer.json").is_file():
        raise InputError(f"{base}/tokenizer.json is missing: run `{BASE_BY}` first")
    try:
        return codec_of(Tokenizer.from_file(str(base / "tokenizer.json")))
    except ValueError as error:
        raise InputError(f"{base}: {error}") from None


def encoded(row: Row, codec: Codec) -> Row:
    """A sample as the peer takes it."""
    context = tuple(Chunk(chunk["path"], chunk["text"]) for chunk in row["context"] or ())
    ids, start = codec.row(Hole(row["prefix"], row["suffix"], row["middle"], row["path"], row["repo"], context), row["order"])
    return {"input_ids": ids, "labels": labels(ids, start)}


def task(folder: Path, name: str, base: Path, rows: list[Row], section: Row, steps: int) -> Task:
    """Write the rows both as samples and as ids; the last HELD_OUT are for judging."""
    codec = codec_in(base)
    ids = [encoded(row, codec) for row in rows]
    for split, part in (("train", slice(None, -HELD_OUT)), ("valid", slice(-HELD_OUT, None))):
        write_parquet(folder / "samples" / f"{split}.parquet", rows[part], SAMPLE)
        write_jsonl(folder / "ids" / f"{split}.jsonl", ids[part])
    longest = max(len(row["input_ids"]) for row in ids)
    train = [len(row["input_ids"]) for row in ids[:-HELD_OUT]]
    settings = section | {
        "max_steps": steps,
        "eval_steps": steps,
        "eval_rows": HELD_OUT,
        "patience": 0,
        "save_steps": 0,
        "filter": {**section["filter"], "top_share": 0.0, "bottom_share": 0.0, "max_nats": 0.0},
        "max_row_tokens": longest,
    }
    return Task(name, base, folder / "samples", folder / "ids", statistics.mean(train), settings)


def half_b(folder: Path, base: Path, count: int, section: Row, steps: int) -> Task:
    """The 0.5B shape with random weights, under the tokenizer at hand: weights do not change speed or memory."""
    model, codec = folder / "model", codec_in(base)
    tokens = codec.tokens
    torch.manual_seed(0)
    config = Qwen2Config(**HALF_B, bos_token_id=None, eos_token_id=tokens.end, pad_token_id=tokens.pad)
    Qwen2ForCausalLM(config).bfloat16().save_pretrained(model)
    for file in base.glob("tokenizer*.json"):
        shutil.copy(file, model)
    return task(folder, "qwen2.5-coder-0.5b shape", model, list(long_rows(count + HELD_OUT, codec)), section, steps)


def long_rows(count: int, codec: Codec) -> Iterator[Row]:
    """Rows of 0.6 to 1 times HALF_B_TOKENS, cut from the standard library."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"), key=lambda file: hashlib.sha256(file.name.encode()).digest())
    draw, made = random.Random(0), 0
    while made < count:
        file = draw.choice(files)
        with contextlib.suppress(UnicodeDecodeError):
            text = file.read_text(encoding="utf-8")
            if len(text) < 6000:
                continue
            at = draw.randrange(len(text) - 5000)
            row = {"sample_id": f"{made:08}", "file_id": file.name, "repo": "stdlib", "path": file.name, "lang": "python", "split": "train",
                   "order": draw.choice(["psm", "spm"]), "span_kind": "chars", "prefix": text[at : at + 1800],
                   "middle": text[at + 1800 : at + 1800 + draw.randrange(20, 200)], "suffix": text[at + 2000 : at + 2700],
                   "context": [], "n_tokens": 0}  # fmt: skip
            if 0.6 * HALF_B_TOKENS <= len(encoded(row, codec)["input_ids"]) <= HALF_B_TOKENS:
                made += 1
                yield row


# how it is measured


def measure(one: Task, compared: Sequence[System], rounds: int, scratch: Path) -> Row:
    """Figures of one task, by system."""
    runs: dict[str, list[Row]] = {system.name: [] for system in compared}
    turns = [(number, system) for number in range(rounds) for system in compared]
    for number, system in track(turns, f"sft-bench, {one.name}", len(turns), "runs"):
        out = scratch / f"{one.name.replace(' ', '-')}-{number}-{system.engine}-{system.bits}"
        runs[system.name].append((plain if system.engine == "plain" else ours)(one, system, out))
        shutil.rmtree(out, ignore_errors=True)
    per_step = one.section["batch"] * one.section["accumulate"] * one.tokens_per_row
    config = read_json(one.base / "config.json", BASE_BY)
    figures = {}
    for system in compared:
        rates = [per_step / result["step_s"] for result in runs[system.name]]
        peers = [per_step / result["step_s"] for result in runs[f"plain trl, {system.bits} bits"]]
        first = runs[system.name][0]
        figures[system.name] = {
            "tokens_per_s": rates,
            "ratio": [mine / theirs for mine, theirs in zip(rates, peers, strict=True)],
            "flops_per_token": flops_per_token(config, one.tokens_per_row),
            "losses": first["losses"],
            "apart": apart(first["losses"], runs[f"plain trl, {system.bits} bits"][0]["losses"]),
            **{key: first.get(key) for key in ("valid_loss", "peak_memory_mb", "peak_gpu_mb")},
        }
    return {"systems": figures, "tokens_per_row": one.tokens_per_row, "rows_per_step": one.section["batch"] * one.section["accumulate"]}


def ours(one: Task, system: System, out: Path) -> Row:
    """One run of our command."""
    params = out / "params.yaml"
    out.mkdir(parents=True)
    settings = one.section | {"bits": system.bits, "engine": system.engine}
    params.write_text(yaml.safe_dump({"profile": "bench", "bench": {"sft": settings}}))
    _execute(
        "phase2_train", "sft", "--samples", one.samples, "--base", one.base, "--out", out / "sft", "--params", params, says=out / "said.txt"
    )  # fmt: skip
    took = read_json(out / "runs" / "sft.json", "python -m phase2_train sft")
    metrics = read_json(out / "sft" / "metrics.json", "python -m phase2_train sft")
    lines = (out / "sft" / "dvclive" / "plots" / "metrics" / "loss.tsv").read_text().splitlines()[1:]
    losses = [[int(step), float(loss)] for step, loss in (line.split("\t") for line in lines)]
    return took | {"losses": losses, "valid_loss": metrics["valid_loss"]}


def plain(one: Task, system: System, out: Path) -> Row:
    """One run of the peer."""
    keys = ("lora", "lr", "warmup_share", "epochs", "batch", "accumulate", "seed")
    job: dict[str, Any] = {key: one.section[key] for key in keys} | {
        "base": str(one.base), "bits": system.bits, "steps": one.section["max_steps"], "log_steps": LOG_STEPS, "out": str(out),
        "train": str(one.ids / "train.jsonl"), "valid": str(one.ids / "valid.jsonl"),
    }  # fmt: skip
    write_json(out / "job.json", job | {"lr": float(job["lr"])})
    _execute("eval.bench.plain_trl", out / "job.json", says=out / "said.txt")
    return dict(read_json(out / "result.json", "python -m eval sft-bench"))


def _execute(module: str, *arguments: object, says: Path) -> None:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    with says.open("w") as said:
        done = subprocess.run(command, stdout=said, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        tail = says.read_text(errors="replace").strip().splitlines()[-1:]
        raise CheckFailed(f"`{' '.join(command[1:4])}` ended with {done.returncode} ({' '.join(tail)}): mend that and rerun")


def flops_per_token(config: Row, row_tokens: float) -> float:
    """Model FLOPs of one token, forward and backward: see the head of this file."""
    h, f, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    keys = h // config["num_attention_heads"] * config["num_key_value_heads"]
    return float(6 * layers * (2 * h * h + 2 * keys * h + 3 * h * f) + 12 * layers * h * row_tokens)


def apart(mine: list[list[float]], other: list[list[float]]) -> float | None:
    """The largest difference of two loss series, None where they are not of the same steps."""
    if not mine or [step for step, _ in mine] != [step for step, _ in other]:
        return None
    return max(abs(a - b) for (_, a), (_, b) in zip(mine, other, strict=True))


def peak_flops(gpu: str | None) -> tuple[str, float] | None:
    """The entry of PEAKS for a GPU, by its name."""
    return next(((name, value) for name, value in PEAKS.items() if gpu and name in gpu), None)
