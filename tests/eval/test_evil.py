"""Programs that attack: every one is scored as a failure, the judge goes on, and nothing of them is left.

The table is evil_programs.txt: each is a whole `double(x)` with whatever follows it. The check wants 4 for 2 and 10 for 5.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path

import psutil
import pytest

from eval.sandbox.pool import Pool, Program, Settings, Verdict

HERE = Path(__file__).parent
TEST = """
def check(candidate):
    assert candidate(2) == 4
    assert candidate(5) == 10
"""
GOOD = "def double(x):\n    return 2 * x\n"
MARK = "tabsmith-evil-mark"  # in the name of every file that an attack makes
TABLE = re.split(r"^==== (.+)\n", (HERE / "evil_programs.txt").read_text(), flags=re.MULTILINE)[1:]
EVIL = dict(zip(TABLE[::2], (text.replace("CHECKOUT", str(HERE / "test_evil.py")) for text in TABLE[1::2]), strict=True)) | {
    "nesting that the compiler gives up on": "def double(x):\n    return " + "(" * 5_000 + ")" * 5_000 + "\n",
    "nesting of operators": "def double(x):\n    return " + "-" * 200_000 + "x\n",
    "a constant that the compiler folds": "def double(x):\n    return " + "*".join(["(10**1000)"] * 20_000) + "\n",
}
LAYERS = {"all layers": (), "no namespaces": ("namespaces",)}


def programs() -> list[Program]:
    return [Program("", text, "", TEST, "double") for text in EVIL.values()]


def marks() -> set[Path]:
    """What attacks may have left, where they may have reached."""
    return {
        path
        for place in (tempfile.gettempdir(), Path.cwd(), HERE)
        for path in [*Path(place).glob("tabsmith-judge-*"), *Path(place).glob(f"{MARK}*")]
    }


def _ours() -> list[int]:
    """Processes of the sandbox, forked ones too: each carries the settings in its command line, with our process id."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # gone meanwhile
            if f'"judge": {os.getpid()},' in " ".join(process.cmdline()):
                found.append(process.pid)
    return found


@pytest.fixture(scope="module", params=LAYERS.values(), ids=LAYERS)
def after(request: pytest.FixtureRequest) -> tuple[dict[str, Verdict], list[Verdict], set[Path], list[int]]:
    """Verdicts on the evil, on good programs after them, and what is left when the pool is gone."""
    before = marks()
    with Pool(Settings(seconds=0.6, memory=512 << 20, workers=4, without=request.param)) as pool:
        verdicts = dict(zip(EVIL, pool.run(programs()), strict=True))
        good = list(pool.run([Program("", GOOD, "", TEST, "double")] * 8))
        assert len(_ours()) > 4
    return verdicts, good, marks() - before, _ours()


@pytest.mark.parametrize("name", EVIL)
def test_evil_fails(after, name):
    assert after[0][name].kind != "passed"


def test_the_judge_goes_on(after):
    assert [verdict.kind for verdict in after[1]] == ["passed"] * 8


def test_nothing_is_left(after):
    assert after[2] == set()
    assert after[3] == []
