"""Method in the report: how to read the figures, and how to make them again.

In:  the evaluation's manifest, the manifests of the other stages
Out: blocks
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core.records import read_json
from eval.document import Block, Code, Folded, Heading, Table, Text
from eval.report_words import DASH, NAMES, megabytes

ROOMS = ("core", "phase1_data", "phase2_train", "phase3_quantize", "phase4_serve", "eval")


def method(manifest: Mapping[str, Any]) -> Iterator[Block]:
    """How to read the figures."""
    yield Heading("How this was measured")
    left_out = {reason: n for reason, n in manifest["counts"]["left_out"].items() if n}
    yield Text(
        "Every model gets the same prompts, token for token, and writes greedily; nothing is cut from what it writes before it is judged, "
        "but for the token that ended it. Exact match compares the whole middle, character by character. Edit similarity is "
        "`rapidfuzz.fuzz.ratio`, 0 to 100. Loss is measured on the truth and its end token, so it moves even where no completion "
        "changes. SFT and DPO are asked as they were trained, whether their gate let them through or not: with the base in NF4 where "
        "`sft.bits` is 4, on a CPU as float32 weights with the adapter merged in. The GGUF runs in process through llama.cpp."
    )
    yield Text(
        "**The verdict.** What a user sees decides: exact match, edit similarity, and running past the hole. Each is tested against the "
        "parent on the same holes (McNemar's exact test; a bootstrap over files for edit similarity), and Holm's method holds the three "
        "together: the chance that a step of no effect is called better, worse or mixed is at most 5%. It is not corrected over the steps "
        "of the chain: of five steps without effect one in four chains would show something. A step is better where one of the three "
        "is visibly so and none is visibly worse, mixed where they contradict each other. Loss decides nothing: it moves visibly where "
        "nobody would see a change. Alone it makes a step better or worse by loss only (at 5% of its own); against the others it is told."
    )
    yield Text(
        "Rates have Wilson's interval, differences of rates that of Bonett and Price; means have a percentile bootstrap over files, "
        "because the holes of one file are alike. Splits are by file and by repository; near-duplicates never stand on two sides."
    )
    yield Text("Left out: " + (", ".join(f"{reason.replace('_', ' ')} {n:,}" for reason, n in left_out.items()) or "nothing") + ".")


def again(manifest: Mapping[str, Any], root: Path) -> Iterator[Block]:
    """Commands, versions, hashes and params of everything that led here."""
    yield Heading("Again")
    yield Text(
        "`dvc repro` makes everything; `python -m eval run` asks the models again; `python -m eval report` writes these pages again; "
        "`python -m eval compare A B` sets two runs side by side."
    )
    versions = dict(manifest["versions"])
    others = manifests(root)
    for one in others.values():
        versions |= one.get("versions") or {}
    yield Text(f"Versions: {', '.join(f'{name} {version}' for name, version in sorted(versions.items()))}.")
    yield Text(f"Code: sha256 {code_sha256()[:16]} over the Python files of {', '.join(f'`{room}/`' for room in ROOMS)}.")
    models = manifest["counts"]["models"]
    yield Table(
        ["model", "from", "weights", "sha256"],
        [[NAMES[m["name"]], NAMES.get(m["parent"], DASH), megabytes(m["bytes"]), m["sha256"][:16]] for m in models],
        words=(1, 3),
    )
    yield Table(["held-out rows", "sha256"], [[name, sha[:16]] for name, sha in sorted(manifest["inputs"].items())], words=(1,))
    yield Code(section("evaluate", manifest["params"]["evaluate"]))
    sections = {name: params for one in others.values() for name, params in (one.get("params") or {}).items() if name != "evaluate"}
    if sections:
        text = "\n\n".join(section(name, params) for name, params in sorted(sections.items()))
        yield Folded(f"Params of the other stages ({', '.join(sorted(sections))})", Code(text))


def section(name: str, params: Mapping[str, Any]) -> str:
    """A section as it stands in params.yaml."""
    return f"{name}:\n" + "\n".join(f"  {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in params.items())


def manifests(root: Path) -> dict[str, dict[str, Any]]:
    """Manifests of the stages by `phase/stage`, as they lie under the phases' folders.

    Raises:
        InputError: one is damaged.
    """
    found = {}
    for file in sorted(root.glob("*/out/*/manifest.json")):
        one = read_json(file, "the stage that wrote it")
        if isinstance(one, dict) and file.parent.name != "rows":
            found[f"{file.parts[-4]}/{file.parent.name}"] = one
    return found


def code_sha256() -> str:
    """sha256 of every module, so that a report names its code whatever the commit."""
    total, top = hashlib.sha256(), Path(__file__).parents[1]
    for file in sorted(file for room in ROOMS for file in (top / room).rglob("*.py") if "out" not in file.parts):
        total.update(f"{file.relative_to(top).as_posix()}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()
