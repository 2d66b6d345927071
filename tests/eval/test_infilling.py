"""pass@k over files in human-eval-infilling's schema: the figures, what is kept, and what is refused by name."""

from __future__ import annotations

import functools
import gzip
import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from core.stops import shown_in
from eval.cli import app
from eval.pass_at_k import estimate, every
from eval.problems import MAX_CHARS, Problem, read_completions, read_problems

Row = dict[str, Any]
ROWS: list[Row] = [
    {
        "task_id": f"Add/{number}",
        "entry_point": "add",
        "prompt": "def add(x):\n",
        "suffix": "    return y\n",
        "canonical_solution": f"    y = x + {number}\n",
        "test": f"\ndef check(candidate):\n    assert candidate(1) == {number + 1}\n",
    }
    for number in range(4)
]
RIGHT = [{"task_id": row["task_id"], "completion": row["canonical_solution"]} for row in ROWS]
WRONG = [{"task_id": row["task_id"], "completion": "    y = None\n"} for row in ROWS]


def write(file: Path, rows: list[Any]) -> Path:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    file.write_bytes(
        gzip.compress(text.encode("utf-8", "surrogatepass")) if file.suffix == ".gz" else text.encode("utf-8", "surrogatepass")
    )
    return file


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    return write(tmp_path / "problems.jsonl.gz", ROWS)


def judge(problems: Path, *more: str, completions: list[Any] | None = None, packed: bool = False) -> tuple[int, str, Path]:
    """Exit code, what was said, and the result's path."""
    folder = problems.parent
    output = folder / "result.json"
    given = [] if completions is None else ["--completions", str(write(folder / f"done.jsonl{'.gz' * packed}", completions))]
    command = ["infilling", "--problems", str(problems), "--output", str(output), "--suites", str(folder / "suites"), "--workers", "2"]
    done = CliRunner().invoke(app, [*command, *given, *more])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stderr if done.exit_code else done.stdout, output


def test_the_result(problems):
    code, said, output = judge(problems, completions=[*RIGHT[:3], WRONG[3]], packed=True)
    assert code == 0 and "pass@1 75.0%" in said and "sandbox: " in said
    result = json.loads(output.read_text())
    assert result["pass@1"] == 0.75 and result["n"] == 4
    assert result["intervals"]["pass@1"]["low"] == pytest.approx(0.3006, abs=1e-4)  # Wilson, 3 of 4
    assert result["verdicts"] == {"passed": 3, "assertion": 1, "exception": 0, "syntax": 0, "timeout": 0, "limit": 0, "left": 0}
    assert "resource limits" in result["sandbox"]
    rows = [json.loads(line) for line in output.with_suffix(".rows.jsonl").read_text().splitlines()]
    assert [(row["task_id"], row["passed"], row["kind"]) for row in rows[2:]] == [("Add/2", True, "passed"), ("Add/3", False, "assertion")]
    suite = json.loads((output.parent / "suites" / "problems.json").read_text())
    assert suite["metrics"]["pass@1"] == {"value": 0.75, "n": 4, **{key: result["intervals"]["pass@1"][key] for key in ("low", "high")}}


def test_several_samples_of_a_task(problems):
    mixed = [one for _ in range(5) for one in (*RIGHT[:2], *WRONG[2:])] + [one for _ in range(5) for one in (*WRONG[:1], *RIGHT[1:])]
    result = json.loads(judge(problems, completions=mixed)[2].read_text())
    assert result["samples"] == 40 and result["n"] == 4
    assert result["pass@1"] == pytest.approx((0.5 + 1 + 0.5 + 0.5) / 4)
    assert result["pass@10"] == 1.0
    assert "pass@100" not in result
    assert result["intervals"]["pass@1"]["low"] < 0.625 < result["intervals"]["pass@1"]["high"]


def test_a_rerun_judges_nothing_again(problems):
    _, _, output = judge(problems, completions=RIGHT)
    verdicts = output.with_suffix(".verdicts.jsonl")
    first, result = verdicts.read_bytes(), output.read_bytes()
    assert judge(problems, completions=RIGHT)[0] == 0
    assert verdicts.read_bytes() == first and output.read_bytes() == result
    judge(problems, completions=[*RIGHT, WRONG[0]])  # one program more
    assert len(verdicts.read_bytes().splitlines()) == len(first.splitlines()) + 2
    judge(problems, "--seconds", "2", completions=RIGHT)  # other limits: every verdict anew
    assert len(verdicts.read_bytes().splitlines()) == len(first.splitlines()) + 2 + 5


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_it_goes_on_from_a_torn_line(problems, cut):
    _, _, output = judge(problems, completions=RIGHT)
    verdicts, result = output.with_suffix(".verdicts.jsonl"), json.loads(output.read_text())
    verdicts.write_bytes(verdicts.read_bytes()[:-cut])
    assert judge(problems, completions=RIGHT)[0] == 0
    assert {**json.loads(output.read_text()), "seconds_of_programs": 0} == {**result, "seconds_of_programs": 0}
    assert all(json.loads(line) for line in verdicts.read_text().splitlines())


def test_ctrl_c_keeps_what_was_judged(problems):
    slow = [{**row, "completion": "    import time\n    time.sleep(0.5)\n" + row["completion"]} for row in RIGHT]
    done = write(problems.parent / "slow.jsonl", slow)
    output = problems.parent / "result.json"
    given = ["--problems", problems, "--completions", done, "--output", output, "--workers", "1", "--suites", problems.parent / "suites"]
    command = [sys.executable, "-m", "eval", "infilling", *map(str, given)]
    verdicts = output.with_suffix(".verdicts.jsonl")
    listen = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # in the background of a shell it is ignored
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2], preexec_fn=listen)
    while not verdicts.exists() or len(verdicts.read_bytes().splitlines()) < 2:
        assert run.poll() is None
        time.sleep(0.02)
    family = psutil.Process(run.pid).children(recursive=True)
    run.send_signal(signal.SIGINT)
    assert "run the same command to go on" in run.communicate(timeout=20)[1]
    assert run.returncode == 75 and not output.exists()
    assert psutil.wait_procs(family, timeout=5)[1] == []
    assert judge(problems, completions=slow)[0] == 0
    assert len(verdicts.read_bytes().splitlines()) == len(RIGHT) + 2  # each judged once, in two runs with a line of config each


def broken(rows: list[Row], at: int, **changed: Any) -> list[Row]:
    """The rows with keys of one changed; None takes a key away."""
    row = {key: value for key, value in {**rows[at], **changed}.items() if value is not None}
    return [*rows[:at], row, *rows[at + 1 :]]


@pytest.mark.parametrize(
    ("completions", "said"),
    [
        ([], "has no completion of Add/0, Add/1, Add/2 and 1 more"),
        (RIGHT[:3], "has no completion of Add/3"),
        ([*RIGHT, {"task_id": "Sub/0", "completion": ""}], "done.jsonl:5: no problem has the task id 'Sub/0'"),
        (broken(RIGHT, 1, completion=None), "done.jsonl:2: no key 'completion' (it has task_id)"),
        (broken(RIGHT, 1, completion=3), "done.jsonl:2: completion is int, not text"),
        (broken(RIGHT, 2, completion="a\0b"), "done.jsonl:3: completion holds a NUL at character 1"),
        (broken(RIGHT, 2, completion="a\ud800"), "done.jsonl:3: completion holds half a surrogate pair at character 1"),
        (broken(RIGHT, 3, completion="x" * (MAX_CHARS + 1)), "done.jsonl:4: completion has 1,000,001 characters"),
        ([*RIGHT, "{"], "done.jsonl:5: not JSON"),
        ([*RIGHT, "[1]"], "done.jsonl:5: a row must be an object"),
        (["[" * 100_000, *RIGHT], "done.jsonl:1: not JSON"),
        (["\ud800", *RIGHT], "done.jsonl:1: not UTF-8"),
    ],
)
def test_wrong_completions_are_named(problems, completions, said):
    code, line, output = judge(problems, completions=completions)
    assert code == 2 and said in line and len(line.splitlines()) == 1
    assert not list(output.parent.glob("result*")) and not (output.parent / "suites").exists()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "holds no problems"),
        ([*ROWS, ROWS[1]], "problems.jsonl:5: task Add/1 is there already"),
        (broken(ROWS, 1, test=None), "problems.jsonl:2: no key 'test'"),
        (broken(ROWS, 1, test="def chekc(f): pass\n"), "problems.jsonl:2: the test of Add/1 defines no check"),
        (broken(ROWS, 0, entry_point=" "), "problems.jsonl:1: Add/0 has no entry_point"),
    ],
)
def test_wrong_problems_are_named(tmp_path, rows, said):
    code, line, output = judge(write(tmp_path / "problems.jsonl", rows), completions=RIGHT)
    assert code == 2 and said in line and not output.exists()


def test_a_gzip_file_cut_anywhere_is_named(problems):
    whole = problems.read_bytes()
    for size in [0, 1, *range(2, len(whole) - 1, 23)]:
        problems.write_bytes(whole[:size])
        code, line, output = judge(problems, completions=RIGHT)
        assert code == 2 and str(problems) in line and not output.exists(), size
    problems.write_bytes(whole[:60] + bytes([whole[60] ^ 255]) + whole[61:])
    assert judge(problems, completions=RIGHT)[0] == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "give --completions FILE or --model MODEL"),
        (("--completions", "nowhere.jsonl"), "nowhere.jsonl is missing"),
        (("--model", "hf:nowhere"), "nowhere"),
        (("--model", "magic"), "--model 'magic' is none of"),
        (("--completions", "nowhere.jsonl", "--name", "a/b"), "--name 'a/b'"),
    ],
)
def test_wrong_options_are_named(problems, more, said):
    code, line, output = judge(problems, *more)
    assert code == 2 and said in line and not output.exists()


def test_a_file_of_something_else_is_not_written_over(problems):
    other = problems.parent / "result.verdicts.jsonl"
    other.write_text('{"precious": 1}\n')
    code, line, _ = judge(problems, completions=RIGHT)
    assert code == 2 and "holds no verdicts of ours" in line and other.read_text() == '{"precious": 1}\n'


def test_a_model_completes_them(problems, base):
    code, said, output = judge(problems, "--model", f"hf:{base}", "--limit", "8")
    assert code == 0 and "post-processed: pass@1" in said
    result = json.loads(output.read_text())
    assert result["pass@1"] == 0.0 and result["n"] == 4 and result["post_processed"]["n"] == 4
    assert len(result["prompt_sha256"]) == 64 and result["stops"]
    suite = json.loads((output.parent / "suites" / "problems.json").read_text())
    assert {"pass@1", "shown_pass@1"} == set(suite["metrics"]) and suite["stops"] == result["stops"]
    forms = [json.loads(line)["form"] for line in output.with_suffix(".rows.jsonl").read_text().splitlines()]
    assert forms == ["raw"] * 4 + ["post_processed"] * 4


@pytest.mark.parametrize("number", range(4))
def test_what_an_editor_shows_of_the_truth_is_the_truth(number):
    problem = Problem(**ROWS[number])
    assert shown_in(problem.hole, "python", problem.canonical_solution) == problem.canonical_solution
    assert shown_in(problem.hole, "python", problem.canonical_solution + problem.suffix) == problem.canonical_solution


def test_pass_at_k_is_the_share_of_draws_with_a_pass():
    for samples, passed, k in itertools.product(range(1, 7), range(7), range(1, 7)):
        if passed <= samples and k <= samples:
            draws = list(itertools.combinations([True] * passed + [False] * (samples - passed), k))
            assert estimate(samples, passed, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_pass_at_k_needs_k_samples_of_every_problem():
    assert set(every([(10, 1), (9, 1)])) == {"pass@1"}
    assert set(every([(10, 1), (12, 1)])) == {"pass@1", "pass@10"}
    with pytest.raises(ValueError):
        estimate(1, 0, 2)


def test_files_are_read_packed_or_not(tmp_path):
    plain, packed = write(tmp_path / "a.jsonl", ROWS), write(tmp_path / "b.gz", ROWS)
    assert read_problems(plain) == read_problems(packed)
    done = write(tmp_path / "done", [*RIGHT, WRONG[1]])
    assert read_completions(done, read_problems(plain))["Add/1"] == ["    y = x + 1\n", "    y = None\n"]
