"""Functional correctness on problems in human-eval-infilling's schema: does the function work with the completion in its hole?

In:  problems; completions from a file, or from a model
Out: RESULT.json, `pass@1` and so on at its top; RESULT.rows.jsonl, one line per completion; RESULT.verdicts.jsonl, what a rerun
     goes on from; eval/out/suites/<name>.json

Verdicts are kept by what was run: a rerun, or a run with more samples, judges only programs that it has not seen. What a model wrote is
judged twice: raw, and as the editor would show it (core.stops); the score at the top is the raw one.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import InputError
from core.fim import Order
from core.manifest import sha256_of
from core.progress import track
from core.records import write_json, write_jsonl
from core.stops import shown_in
from eval import generate, pass_at_k
from eval.metrics import masked
from eval.problems import Problem, read_completions, read_problems
from eval.sandbox.pool import KINDS, Pool, Program, Settings, Verdict

SUITES = Path("eval/out/suites")
PROTOCOL = 1  # of the judge: a change that may change a verdict counts it up, so that no older verdict is reused


class Sample(NamedTuple):
    """One completion of one problem."""

    problem: Problem
    number: int  # of the problem's samples, from 0
    completion: str

    @property
    def program(self) -> Program:
        return self.problem.program(self.completion)


class Asked(NamedTuple):
    """Where generated completions came from."""

    model: str
    prompt_sha256: str
    stops: list[str]
    config: dict[str, Any]


def run(
    problems_file: Path,
    completions_file: Path | None,
    model: str | None,
    output: Path,
    settings: Settings,
    limit: int,
    order: Order,
    suites: Path = SUITES,
    name: str | None = None,
) -> dict[str, Any]:
    """Judge every completion and write the result; return it.

    Args:
        model: hf:FOLDER, gguf:FILE or server:URL, where there is no completions_file.
        limit: tokens of a generated completion.
        name: of the suite; default: the problems' file name.

    Raises:
        InputError: both or neither of file and model; a file is wrong, see eval/problems.py.
        MachineError: the sandbox does not start.
    """
    if (completions_file is None) == (model is None):
        raise InputError("nothing to judge: give --completions FILE or --model MODEL, one of them")
    suite = name or _name(problems_file)
    if not re.fullmatch(r"[\w.-]+", suite):
        raise InputError(f"--name {suite!r}: use letters, digits, '.', '_' and '-', it becomes a file's name")
    problems = read_problems(problems_file)
    asked = None
    if completions_file is not None:
        by_task = read_completions(completions_file, problems)
    else:
        asked, by_task = _generated(str(model), list(problems.values()), limit, order, output.with_suffix(".answers.jsonl"))
    raw = [Sample(problems[task], number, text) for task, texts in by_task.items() for number, text in enumerate(texts)]
    cut = [sample._replace(completion=shown_in(sample.problem.hole, "python", sample.completion)) for sample in raw] if asked else []
    verdicts, levels = judge([sample.program for sample in raw + cut], output.with_suffix(".verdicts.jsonl"), settings)
    rows = output.with_suffix(".rows.jsonl")
    write_jsonl(rows, (_row(sample, verdict, at < len(raw)) for at, (sample, verdict) in enumerate(zip(raw + cut, verdicts, strict=True))))
    result = {
        **_scored(raw, verdicts[: len(raw)]),
        **({"post_processed": _scored(cut, verdicts[len(raw) :])} if cut else {}),
        "suite": suite,
        "model": asked.model if asked else f"file:{completions_file.name if completions_file else ''}",
        "problems_sha256": sha256_of(problems_file),
        **({"completions_sha256": sha256_of(completions_file)} if completions_file else {}),
        **({"prompt_sha256": asked.prompt_sha256, "stops": asked.stops, "generation": asked.config} if asked else {}),
        "limits": {"seconds": settings.seconds, "memory_bytes": settings.memory},
        "sandbox": levels,
        "rows": rows.name,
    }
    write_json(output, result)
    write_json(suites / f"{result['suite']}.json", _suite(result))
    return result


def _row(sample: Sample, verdict: Verdict, raw: bool) -> dict[str, Any]:
    form = "raw" if raw else "post_processed"
    return {"task_id": sample.problem.task_id, "sample": sample.number, "form": form, "passed": verdict.passed, **verdict._asdict()}


def _name(file: Path) -> str:
    return file.name.removesuffix(".gz").removesuffix(".jsonl")


def _generated(model: str, problems: Sequence[Problem], limit: int, order: Order, out: Path) -> tuple[Asked, dict[str, list[str]]]:
    holes = [replace(problem.hole, middle="") for problem in problems]  # a generator never sees the truth
    asked = generate.ask(model, holes, limit, order)
    found = {at: written.text for at, written in generate.answers(asked, model, out)}
    by_task = {problem.task_id: [found[at]] for at, problem in enumerate(problems)}
    return Asked(model, asked.prompt_sha256, asked.stops, asked.config), by_task


def judge(programs: Sequence[Program], file: Path, settings: Settings) -> tuple[list[Verdict], str]:
    """Verdicts in the order of the programs, and what held them back; equal programs are run once.

    Args:
        file: verdicts that are there already, and where new ones go as they are found.
    """
    config = {"protocol": PROTOCOL, "python": platform.python_version(), "seconds": settings.seconds, "memory": settings.memory}
    kept, levels = _kept(file, config)
    keys = [_key(program) for program in programs]
    new = {key: program for key, program in zip(keys, programs, strict=True) if key not in kept}
    if new:
        with Pool(settings) as pool, file.open("a", encoding="utf-8") as sink:
            levels = str(pool.levels)
            _add(sink, {"config": config, "sandbox": levels})
            found = track(zip(new, pool.run(new.values()), strict=True), "judging", len(new), "programs")
            for key, verdict in found:
                kept[key] = verdict._replace(detail=masked(verdict.detail))
                _add(sink, {"key": key, **kept[key]._asdict()})
    return [kept[key] for key in keys], levels


def _add(sink: Any, row: dict[str, Any]) -> None:
    sink.write(json.dumps(row, sort_keys=True) + "\n")
    sink.flush()


def _key(program: Program) -> str:
    return hashlib.sha256(json.dumps(program).encode()).hexdigest()


def _kept(file: Path, config: dict[str, Any]) -> tuple[dict[str, Verdict], str]:
    """Verdicts found under the same config, and what held those programs back; a torn last line is cut off."""
    file.parent.mkdir(parents=True, exist_ok=True)
    kept: dict[str, Verdict] = {}
    levels, same, whole = "", False, 0
    for line, row in _whole_lines(file):
        whole += len(line)
        if "config" in row:
            same, levels = row["config"] == config, row["sandbox"] if row["config"] == config else levels
        elif same:
            kept[row["key"]] = Verdict(*(row[field] for field in Verdict._fields))
    if file.is_file() and whole < file.stat().st_size:
        with file.open("rb+") as torn:
            torn.truncate(whole)
    return kept, levels


def _whole_lines(file: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    if not file.is_file():
        return
    with file.open("rb") as lines:
        for number, line in enumerate(lines):
            try:
                row = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                row = None
            if not isinstance(row, dict) or not ("config" in row or {"key", *Verdict._fields} == row.keys()):
                if number == 0 and len(line) > 1:
                    raise InputError(f"{file} is there and holds no verdicts of ours: choose another --output, or delete it")
                return
            yield line, row


def _scored(samples: Sequence[Sample], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """pass@k with n and intervals, and how the programs ended."""
    by_task: dict[str, list[bool]] = {}
    for sample, verdict in zip(samples, verdicts, strict=True):
        by_task.setdefault(sample.problem.task_id, []).append(verdict.passed)
    found = pass_at_k.every([(len(passed), sum(passed)) for passed in by_task.values()])
    kinds = Counter(verdict.kind for verdict in verdicts)
    return {
        **{key: interval.value for key, interval in found.items()},
        "n": len(by_task),
        "samples": len(samples),
        "intervals": {key: {"low": interval.low, "high": interval.high, "n": interval.n} for key, interval in found.items()},
        "verdicts": {kind: kinds[kind] for kind in KINDS},
        "exceptions": dict(Counter(verdict.error for verdict in verdicts if verdict.kind == "exception").most_common(20)),
        "seconds_of_programs": round(sum(verdict.seconds for verdict in verdicts), 2),
    }


def _suite(result: dict[str, Any]) -> dict[str, Any]:
    """What the report shows of it."""
    metrics = {key: {"value": result[key], **interval} for key, interval in result["intervals"].items()}
    after = result.get("post_processed", {"intervals": {}})
    metrics |= {f"shown_{key}": {"value": after[key], **interval} for key, interval in after["intervals"].items()}
    return {
        "suite": result["suite"],
        "model": result["model"],
        "n": result["n"],
        "metrics": metrics,
        "prompt_sha256": result.get("prompt_sha256"),
        "stops": result.get("stops", []),
        "sandbox": result["sandbox"],
    }


def line(result: dict[str, Any]) -> str:
    """The result in one line."""

    def figures(scored: dict[str, Any]) -> str:
        ends = {key: f"{100 * one['low']:.1f} to {100 * one['high']:.1f}" for key, one in scored["intervals"].items()}
        return ", ".join(f"{key} {100 * scored[key]:.1f}% ({between})" for key, between in ends.items())

    after = f"; post-processed: {figures(result['post_processed'])}" if "post_processed" in result else ""
    return f"{result['suite']}: {figures(result)}{after}; {result['n']:,} problems, {result['samples']:,} samples"
