"""Preference pairs: the true middle against what the SFT model itself got wrong in a named way.

In:  samples/train.parquet, the base folder, the SFT adapter
Out: <out>/pairs.jsonl (core.records.PAIR_KEYS and where the hole is), manifest.json with counts per kind and drop reason

On-policy negatives teach what the model would really do (PLUM, arXiv 2406.06887); the similarity band keeps pairs
that are neither trivial nor equally right (Zeta2's rule), and a cap on the length ratio keeps "shorter" from winning.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from peft import PeftModel
from rapidfuzz.distance import Indel

from core.errors import CheckFailed, InputError
from core.manifest import Run, sha256_of
from core.progress import track
from core.records import Row, read_parquet, write_jsonl
from core.syntax import parses
from phase2_train import base as base_model
from phase2_train.generate import Written, sample
from phase2_train.params import PairsParams
from phase2_train.rows import SAMPLES_MADE_BY, hole_of, load_codec, load_tokenizer

SHORTEST_REPEAT = 4  # characters of the suffix's first line; a lone bracket is no repetition


class Verdict(NamedTuple):
    """In which way a completion is wrong, and what shows it."""

    kind: str
    evidence: dict[str, Any]


def repeats_suffix(completion: str, suffix: str) -> bool:
    """Whether a line of the completion is the first line with text of the suffix."""
    first = next((line.strip() for line in suffix.split("\n") if line.strip()), "")
    return len(first) >= SHORTEST_REPEAT and any(line.strip() == first for line in completion.split("\n"))


def judge(truth: str, completion: str, ended: bool, prefix: str, suffix: str, lang: str) -> Verdict | None:
    """How a completion is wrong; None where it is right, or wrong in no way that we name.

    overrun        the truth and then more, or no end within the limit
    suffix_repeat  writes again what stands behind the hole
    syntax         the text parses with the truth and does not with the completion
    near_miss      alike (0.5 or more) and not the same
    """
    mine, true = completion.strip(), truth.strip()
    if mine == true or not mine:
        return None
    if mine.startswith(true) or not ended:
        return Verdict("overrun", {"ended": ended, "extra_chars": len(mine) - len(true)})
    if repeats_suffix(completion, suffix) and not repeats_suffix(truth, suffix):
        return Verdict("suffix_repeat", {"ended": ended})
    if parses(prefix + truth + suffix, lang) and parses(prefix + completion + suffix, lang) is False:
        return Verdict("syntax", {"parses_with_truth": True, "parses_with_completion": False})
    return Verdict("near_miss", {"ended": ended}) if similarity(mine, true) >= 0.5 else None


def similarity(a: str, b: str) -> float:
    """Normalized Indel similarity, 0 to 1 (rapidfuzz's ratio over 100)."""
    return float(Indel.normalized_similarity(a, b))


def drop_reason(truth: str, rejected: str, params: PairsParams) -> str | None:
    """Why a wrong completion makes no good pair; None where it does."""
    alike = similarity(truth, rejected)
    shorter, longer = sorted((len(truth.strip()), len(rejected.strip())))
    if alike < params.min_similarity:
        return "too_easy"
    if alike > params.max_similarity:
        return "too_alike"
    return "length_ratio" if longer > params.max_length_ratio * max(1, shorter) else None


def build(samples: list[Row], written: Iterator[Written], decode: Any, params: PairsParams, counts: Counter[str]) -> list[Row]:
    """Pairs of every prompt, one per kind at most, in the order of the samples; `counts` gets kinds and drop reasons."""
    found: dict[tuple[int, str], Row] = {}
    for index, ids, ended in written:
        row, completion = samples[index], decode(ids)
        verdict = judge(row["middle"], completion, ended, row["prefix"], row["suffix"], row["lang"])
        reason = "right_or_unnamed" if verdict is None else drop_reason(row["middle"], completion, params)
        if reason is None and verdict is not None and (index, verdict.kind) in found:
            reason = "second_of_its_kind"
        if reason or verdict is None:
            counts[f"dropped_{reason}"] += 1
            continue
        counts[verdict.kind] += 1
        found[index, verdict.kind] = pair(row, completion, verdict)
    return [found[key] for key in sorted(found)]


def pair(row: Row, rejected: str, verdict: Verdict) -> Row:
    """One record of core.records.PAIR_KEYS, and what rebuilds the prompt."""
    identity = f"{row['sample_id']}\0{verdict.kind}\0{rejected}"
    return {
        "pair_id": hashlib.sha256(identity.encode(errors="surrogatepass")).hexdigest()[:16],
        **{key: row[key] for key in ("sample_id", "repo", "path", "lang", "order", "prefix", "suffix", "context")},
        "chosen": row["middle"],
        "rejected": rejected,
        "kind": verdict.kind,
        "similarity": round(similarity(row["middle"], rejected), 4),
        "evidence": verdict.evidence,
        "origin": "sample",
    }


def choose_prompts(file: Path, count: int) -> list[Row]:
    """`count` FIM samples of the training split, by the hash in their id, so that they do not depend on its order."""
    rows = [row for row in read_parquet(file, SAMPLES_MADE_BY) if row["order"] != "ltr"]
    if not rows:
        raise InputError(f"{file} holds no FIM samples: run `{SAMPLES_MADE_BY}`")
    return sorted(rows, key=lambda row: row["sample_id"])[:count]


def run(samples: Path, base: Path, adapter: Path, out: Path, params: PairsParams) -> Counter[str]:
    """Sample, judge and write the pairs; return the counts.

    Raises:
        InputError: samples or adapter missing.
        CheckFailed: not one pair came out.
    """
    started, chosen = Run("pairs", out), base_model.machine()
    if not (adapter / "adapter_config.json").is_file():
        raise InputError(f"{adapter} is missing: run `python -m phase2_train sft` first")
    rows, codec, counts = choose_prompts(samples / "train.parquet", params.prompts), load_codec(base), Counter[str]()
    # sampled from 16- or 32-bit weights with the adapter merged in: several times faster than NF4, and what is served in the end
    model = PeftModel.from_pretrained(base_model.load(base, 16, chosen), adapter).merge_and_unload()
    prompts = [codec.prompt(hole_of(row), row["order"]) for row in rows]
    options = params.model_dump(include={"samples", "max_new_tokens", "temperature", "top_p", "batch", "seed"})
    written = track(sample(model, prompts, codec.tokens, **options), "pairs", len(rows) * params.samples, "samples")
    tokenizer = load_tokenizer(base)
    pairs = build(rows, written, lambda ids: tokenizer.decode(ids, skip_special_tokens=False), params, counts)
    if not pairs:
        raise CheckFailed(f"no sample of {len(rows)} prompts made a pair ({dict(counts)}): raise pairs.prompts or pairs.temperature")
    write_jsonl(out / "pairs.jsonl", pairs)
    started.finish(
        {"pairs": params},
        [samples / "train.parquet"],
        dict(sorted(counts.items())),
        ("torch", "transformers", "peft"),
        seed=params.seed,
        device=chosen.reason,
        parent=sha256_of(adapter),
    )
    return counts
