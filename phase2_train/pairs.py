"""Preference pairs: the true middle against what the SFT model itself gets wrong, in a named way.

In:  samples/{train,files}.parquet, the base folder, the SFT adapter; pairs from an editor, if there are any
Out: <out>/pairs.jsonl (core.records.PAIR_KEYS and where the hole is), report.json (kinds, drop reasons, lengths), manifest.json

Negatives are the model's own (PLUM, arXiv 2406.06887): `sampled` at temperature, or `continued`, which is how it goes on
from the truth where it does not end behind it, or ends inside it. Both are judged in their whole file (negatives.py) and
chosen so that no kind drowns the others (pair_mix.py).
"""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import CheckFailed, InputError
from core.fim import Codec
from core.manifest import Run, sha256_of
from core.progress import track
from core.records import Row, read_parquet, write_json, write_jsonl
from phase2_train import base as base_model
from phase2_train import doctests, editor_pairs, generate, heldout, pair_mix, raw_samples
from phase2_train.generate import Ask, Settings
from phase2_train.machine import Machine, machine
from phase2_train.model_folder import check_adapter
from phase2_train.negatives import Place, judge
from phase2_train.pair_mix import Candidate
from phase2_train.params import PairsParams, SftParams
from phase2_train.raw_samples import RawSamples
from phase2_train.resume import STOP, identity
from phase2_train.rows import SAMPLES_MADE_BY, hole_of, load_codec, load_tokenizer

SHAPES_SAMPLES = (
    "prompts", "spm_share", "samples", "temperature", "top_p", "max_new_tokens", "extra_tokens", "continue_below", "batch", "seed",
)  # fmt: skip

TESTED = ("near_miss", "wrong")  # kinds that the doctests of the file may yet show to be failures
Decode = Callable[[list[int]], str]


class Found(NamedTuple):
    """What judging came to."""

    candidates: list[Candidate]
    dropped: Counter[str]  # completions that make no candidate, by reason
    about: Counter[str]  # of prompts: how they could be judged


def choose_prompts(file: Path, count: int, spm_share: float) -> list[Row]:
    """`count` holes of the training split, `spm_share` of them from rows in that order, by the hash in their id.

    A hole with nothing behind it is left out: there is no place at which its answer would have to end.

    Raises:
        InputError: no such file, or no such hole in it.
    """
    rows = [row for row in read_parquet(file, SAMPLES_MADE_BY) if row["order"] != "ltr" and row["suffix"].strip() and row["middle"].strip()]
    if not rows:
        raise InputError(f"{file} holds no holes with text behind them: run `{SAMPLES_MADE_BY}`")
    rows.sort(key=lambda row: row["sample_id"])
    spm, psm = ([row for row in rows if row["order"] == order] for order in ("spm", "psm"))
    of_spm = min(len(spm), max(round(count * spm_share), count - len(psm)))
    return sorted([*spm[:of_spm], *psm[: count - of_spm]], key=lambda row: row["sample_id"])


def file_texts(file: Path, rows: Iterable[Row]) -> dict[str, str]:
    """The text of every file that the rows come from, by its id."""
    wanted = {row["file_id"] for row in rows}
    return {
        row["file_id"]: row["content"] for row in read_parquet(file, SAMPLES_MADE_BY, ["file_id", "content"]) if row["file_id"] in wanted
    }


def write_samples(
    rows: list[Row],
    base: Path,
    adapter: Path,
    bits: int,
    params: PairsParams,
    chosen: Machine,
    raw: RawSamples,
    asks: list[Ask],
    codec: Codec,
) -> None:
    """Sample what is not yet in `raw`, batch by batch."""
    if raw.done == len(raw.batches):
        return
    model = heldout.load(heldout.Contestant("sft", adapter, bits), base, chosen)
    done = sum(len(batch) for batch in raw.batches[: raw.done])
    if done:
        print(f"pairs: going on behind {done} of {len(rows)} prompts in {raw.file}", flush=True)
    for batch in track(
        generate.write(model, asks, codec.tokens, settings_of(params), raw.done), "pairs", len(rows) - done, "prompts", amount=len
    ):
        raw.add([raw_samples.line_of(rows[seen.place]["sample_id"], seen) for seen in batch])


def settings_of(params: PairsParams) -> Settings:
    """The part of the section that shapes samples."""
    return Settings(**{name: getattr(params, name) for name in Settings._fields})


def find(rows: list[Row], asks: list[Ask], texts: dict[str, str], lines: Iterable[Row], decode: Decode, params: PairsParams) -> Found:
    """Judge every completion; the candidates for pairs."""
    number = {row["sample_id"]: index for index, row in enumerate(rows)}
    found = Found([], Counter(), Counter())
    tests = doctests.Doctests() if params.tests == "auto" else None
    for line in lines:
        index = number[line["sample_id"]]
        row = rows[index]
        place = Place(row["prefix"], row["middle"], row["suffix"], texts.get(row["file_id"], ""), row["lang"])
        found.about["in_their_file" if place.in_file else "window_only"] += 1
        found.about["syntax_is_judged"] += place.judges_syntax
        for candidate in _candidates(asks[index], index, row, place, line, decode, tests, found.dropped):
            reason = pair_mix.drop_reason(row["middle"], candidate.rejected, candidate.kind, params)
            if reason:
                found.dropped[reason] += 1
            else:
                found.candidates.append(candidate)
    found.about["doctests_pass_with_truth"] = sum(tests.passes.values()) if tests else 0
    return found


def _candidates(
    ask: Ask, index: int, row: Row, place: Place, line: Row, decode: Decode, tests: doctests.Doctests | None, dropped: Counter[str]
) -> Iterator[Candidate]:
    """What is wrong in the completions of one prompt; each text is judged once."""
    known = set[str]()
    for ids, ended, at in raw_samples.written_of(line):
        text, how = decode(ids), "continued" if at else "sampled"
        if text in known:
            dropped["written_before"] += 1
            continue
        known.add(text)
        if not ended and len(ids) <= len(ask.middle):
            dropped["cut_by_max_new_tokens"] += 1  # it might have ended in time
            continue
        verdict = judge(place, text, ended, row["prefix"], row["suffix"])
        kind, evidence = verdict.kind, {"how": how, **verdict.evidence}
        if kind is None:
            dropped[verdict.reason] += 1
            continue
        if at:
            evidence["end_probability"] = line["end"] if not ended or kind != "underrun" else line["early"][1]
        if tests and kind in TESTED and (outcome := tests.fails(place.text, row["lang"], place.whole(text))):
            kind, evidence = "test_fail", {**evidence, "doctests": outcome}
        yield Candidate(index, text, kind, how, evidence, pair_mix.similarity(row["middle"], text))


def pair(row: Row, chosen: Candidate) -> Row:
    """One record of core.records.PAIR_KEYS, and what rebuilds the prompt."""
    identity_text = f"{row['sample_id']}\0{chosen.kind}\0{chosen.rejected}"
    return {
        "pair_id": hashlib.sha256(identity_text.encode(errors="surrogatepass")).hexdigest()[:16],
        **{key: row[key] for key in ("sample_id", "repo", "path", "lang", "order", "prefix", "suffix", "context")},
        "chosen": row["middle"],
        "rejected": chosen.rejected,
        "kind": chosen.kind,
        "similarity": round(chosen.similarity, 4),
        "evidence": chosen.evidence,
        "origin": "sample",
    }


def summary(pairs: list[Row]) -> dict[str, Any]:
    """Per kind: pairs, by how they came about and in which order, and how long and how alike their answers are."""
    kinds: dict[str, Any] = {}
    for kind in sorted({one["kind"] for one in pairs}):
        of_kind = [one for one in pairs if one["kind"] == kind]
        ratios = [max(1, len(one["rejected"].strip())) / max(1, len(one["chosen"].strip())) for one in of_kind]
        kinds[kind] = {
            "pairs": len(of_kind),
            "share": round(len(of_kind) / len(pairs), 4),
            "how": dict(sorted(Counter(one["evidence"]["how"] for one in of_kind).items())),
            "order": dict(sorted(Counter(one["order"] for one in of_kind).items())),
            "rejected_longer": round(sum(ratio > 1 for ratio in ratios) / len(ratios), 4),
            "median_length_ratio": round(statistics.median(ratios), 3),  # rejected to chosen, in characters
            "median_similarity": round(statistics.median(one["similarity"] for one in of_kind), 3),
        }
    return kinds


def run(
    samples: Path,
    base: Path,
    adapter: Path,
    out: Path,
    params: PairsParams,
    sft: SftParams,
    editor: Path | None = None,
    fresh: bool = False,
) -> dict[str, int]:
    """Sample, judge, choose and write the pairs; return how many there are of each kind.

    Args:
        editor: pairs that a person made (editor_pairs.py), merged in.
        fresh: forget the raw samples that a killed run goes on from.

    Raises:
        InputError: samples, adapter or editor file missing or of another base; raw samples of another run.
        CheckFailed: not one pair came out.
    """
    started, chosen = Run("pairs", out), machine(base_model.wanted_device(base))
    check_adapter(adapter, base, "python -m phase2_train sft-gate")
    codec, decode = load_codec(base), load_tokenizer(base).decode
    from_editor, bad = editor_pairs.read(editor, codec, sft.max_row_tokens, params.max_length_ratio) if editor else ([], [])
    rows = choose_prompts(samples / "train.parquet", params.prompts, params.spm_share)
    asks = [Ask(row["sample_id"], codec.prompt(hole_of(row), row["order"]), codec.plain(row["middle"])) for row in rows]
    plan = [[rows[index]["sample_id"] for index in group] for group in generate.batches(asks, params.batch)]
    made_of = identity({}, {"base": base, "adapter": adapter, "train samples": samples / "train.parquet"}, bits=sft.bits)
    made_of |= {f"pairs.{name}": getattr(params, name) for name in SHAPES_SAMPLES}
    with STOP:
        raw = RawSamples(out / "checkpoints", made_of, plan, fresh)
        with started.step("sample"):
            write_samples(rows, base, adapter, sft.bits, params, chosen, raw, asks, codec)
        with started.step("judge"):
            lines = track(raw.lines(), "pairs: judge", len(rows), "prompts")
            texts = file_texts(samples / "files.parquet", rows)
            found = find(rows, asks, texts, lines, lambda ids: decode(ids, skip_special_tokens=False), params)
        taken = pair_mix.choose(found.candidates, params.kinds, params.per_prompt, found.dropped)
        pairs = sorted([pair(rows[one.prompt], one) for one in taken], key=lambda one: str(one["pair_id"])) + from_editor
        dropped = found.dropped + (
            Counter({f"editor_{k}": n for k, n in editor_pairs.report(editor, bad).items()}) if editor else Counter()
        )
        if not pairs:
            raise CheckFailed(f"no sample of {len(rows)} prompts made a pair ({dict(dropped)}): raise pairs.prompts or pairs.temperature")
        write_jsonl(out / "pairs.jsonl", pairs)
        kinds = summary(pairs)
        confined = doctests.confinement()
        tests = params.tests if params.tests == "off" or confined is None else f"not run: {confined}"
        report = {
            "pairs": len(pairs),
            "kinds": kinds,
            "dropped": dict(sorted(dropped.items())),
            "prompts": dict(sorted(found.about.items())),
        }
        write_json(out / "report.json", {**report, "doctests": tests})
        started.finish(
            {"pairs": params},
            [samples / "train.parquet", samples / "files.parquet", *([editor] if editor else [])],
            {"pairs": len(pairs), **{kind: of["pairs"] for kind, of in kinds.items()}}
            | {f"dropped_{reason}": count for reason, count in sorted(dropped.items())},
            ("torch", "transformers", "peft"),
            seed=params.seed,
            device=chosen.reason,
            parent=sha256_of(adapter),
            measured={"doctest_network": doctests.network()} if params.tests == "auto" and confined is None else None,
        )
        raw.clear()
    return {kind: of["pairs"] for kind, of in kinds.items()}
