"""Write the small base and its card: what it was trained on, for how long, and how well it does.

In:  the trained model, the training samples and files, samples of repositories it never saw, the run's log
Out: model.safetensors (bf16), config.json, README.md, card.json in the base's folder
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import torch

from core.manifest import sha256_of, versions_of
from core.records import read_parquet, write_json, write_text
from phase2_train import probe
from phase2_train.params import PretrainParams
from phase2_train.pretrain import FIRST
from phase2_train.rows import SAMPLES_MADE_BY


def sources(samples: Path) -> list[dict[str, Any]]:
    """Packages of the training split with version, licence, files and bytes, largest first."""
    bytes_of: Counter[tuple[str, str, str]] = Counter()
    files_of: Counter[tuple[str, str, str]] = Counter()
    for row in read_parquet(samples / "files.parquet", SAMPLES_MADE_BY, ["repo", "repo_rev", "license", "split", "n_bytes"]):
        if row["split"] == "train":
            key = (row["repo"], row["repo_rev"], row["license"])
            bytes_of[key] += row["n_bytes"]
            files_of[key] += 1
    return [
        {"package": key[0], "version": key[1], "license": key[2], "files": files_of[key], "bytes": size}
        for key, size in sorted(bytes_of.items(), key=lambda item: (-item[1], item[0]))
    ]


def curve(scratch: Path) -> list[dict[str, Any]]:
    """The logged steps, the later of two where a run was resumed from an earlier checkpoint."""
    by_step: dict[int, dict[str, Any]] = {}
    for line in (scratch / "log.jsonl").read_text().splitlines():
        entry = json.loads(line)
        by_step[entry["step"]] = entry
    return [by_step[step] for step in sorted(by_step)]


def write(model: Any, tokens: int, samples: Path, unseen: Path, out: Path, scratch: Path, params: PretrainParams) -> None:
    """Write weights and card.

    Args:
        samples: what the model was trained on.
        unseen: samples of repositories that it was not; without them the card has no scores.
    """
    model.to(torch.bfloat16).save_pretrained(out)
    steps, packages = curve(scratch), sources(samples)
    scores = probe.run(unseen, out, 0) if (unseen / "test_repo.parquet").is_file() else []
    card = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": tokens,
        "begun_from": begun_from(params),
        "params": params.model_dump(),
        "packages": packages,
        "samples_sha256": sha256_of(samples / "train.parquet"),
        "first_losses": [entry["loss"] for entry in steps if entry["step"] <= FIRST],
        "curve": [entry for entry in steps if "valid" in entry],
        "scores": [one._asdict() for one in scores],
        "model_sha256": sha256_of(out / "model.safetensors"),
        "tokenizer_sha256": sha256_of(out / "tokenizer.json"),
        "versions": versions_of(("torch", "transformers", "tokenizers")),
    }
    write_json(out / "card.json", card)
    write_text(out / "README.md", markdown(card))


def begun_from(params: PretrainParams) -> dict[str, Any] | None:
    """Hash of the weights that the run began with and, where their card is there, the tokens that those had seen."""
    if params.start is None:
        return None
    folder = Path(params.start)
    known = json.loads((folder / "card.json").read_text()) if (folder / "card.json").is_file() else {}
    return {"model_sha256": sha256_of(folder / "model.safetensors"), "tokens": known.get("tokens")}


def scores(card: dict[str, Any]) -> list[str]:
    """Lines of the card on what `python -m phase2_train probe` says, none where it was not asked."""
    if not card["scores"]:
        return []
    rows = [
        f"| {s['order']} | {s['first_line']:.1%} [{s['low']:.1%}, {s['high']:.1%}] | {s['exact']:.1%} "
        f"| {s['bits_per_byte']:.3f} | {s['holes']:,} |"
        for s in card["scores"]
    ]
    return [
        "The rest of the line at the cursor in repositories that it has never seen, before fine-tuning (`python -m phase2_train probe`):",
        "",
        "| order | first line right | hole right and ended | bits per byte | holes |",
        "|---|---|---|---|---|",
        *rows,
        "",
    ]


def _begun(card: dict[str, Any]) -> str:
    before = card["begun_from"]
    if before is None:
        return "from scratch"
    seen = f", which had seen {before['tokens'] / 1e6:.1f}M" if before["tokens"] else ""
    return f"beginning with the weights of sha256 `{before['model_sha256'][:16]}`{seen}"


def markdown(card: dict[str, Any]) -> str:
    """The card for a person: what it is, what it learned from, under which licences, how the loss fell."""
    shape, last = card["params"], (card["curve"] or [{"valid": {"all": float("nan"), "middle": float("nan")}, "step": 0}])[-1]
    licenses: dict[str, int] = defaultdict(int)
    for package in card["packages"]:
        licenses[package["license"]] += package["bytes"]
    total = max(1, sum(licenses.values()))
    lines = [
        "# The small base of profile `tiny`",
        "",
        f"A Qwen2-shape code model of {card['parameters'] / 1e6:.1f}M parameters ({shape['layers']} layers, hidden {shape['hidden']}, "
        f"{shape['vocab']:,} byte-level BPE entries, tied embeddings), trained on {card['tokens'] / 1e6:.1f}M tokens "
        f"of Python in fill-in-the-middle rows (both orders) and left to right, {_begun(card)}. It exists so that the whole "
        "pipeline can be run, measured and tested on a laptop without a download; for work, use the `gpu` profile.",
        "",
        f"Loss on unseen files of the same packages, nats per token: {last['valid']['all']:.3f} over all tokens, "
        f"{last['valid']['middle']:.3f} on middles and their end tokens (step {last['step']:,}).",
        "",
        *scores(card),
        "Made by `make base`: phase 1 with profile `base`, then `python -m phase2_train pretrain`.",
        "",
        f"model.safetensors sha256 `{card['model_sha256']}`",
        "",
        "## Licences of the training code",
        "",
        "| licence | share of bytes |",
        "|---|---|",
        *(f"| {name} | {size / total:.1%} |" for name, size in sorted(licenses.items(), key=lambda item: -item[1])),
        "",
        "## Packages",
        "",
        "| package | version | licence | files | MB |",
        "|---|---|---|---|---|",
        *(f"| {p['package']} | {p['version']} | {p['license']} | {p['files']} | {p['bytes'] / 1e6:.2f} |" for p in card["packages"]),
        "",
        "## Curve",
        "",
        "| step | tokens | loss, all tokens | loss, middles |",
        "|---|---|---|---|",
        *(f"| {e['step']:,} | {e['tokens']:,} | {e['valid']['all']:.3f} | {e['valid']['middle']:.3f} |" for e in card["curve"]),
        "",
    ]
    return "\n".join(lines)
