"""Somebody else's code is run where it can do no harm: real programs that try, and what became of them."""

import stat

import psutil
import pytest

from phase2_train import doctests
from phase2_train.doctests import Doctests, runnable

from .test_negatives import FILE

confined = pytest.mark.skipif(doctests.confinement() is not None, reason=f"no sandbox here: {doctests.confinement()}")
DOCTEST = 'def f(x):\n    """\n    >>> f(1)\n    2\n    """\n    return x + 1\n'


def program(lines: str) -> str:
    """A file that passes its doctest if `lines` are run to their end."""
    return f"{lines}\n{DOCTEST}"


@confined
@pytest.mark.parametrize(
    ("text", "result"),
    [
        (DOCTEST, "passed"),
        (DOCTEST.replace("+ 1", "+ 2"), "failed"),
        (DOCTEST.replace("+ 1", "+ y"), "failed"),
        (DOCTEST.replace("x + 1", "x +"), "failed"),
        ("x = 1\n", "none"),
        (program("import json, re, decimal, datetime, random, asyncio, dataclasses\nassert datetime.datetime.now()"), "passed"),
        (program("@__import__('dataclasses').dataclass\nclass A:\n    x: int = 1"), "passed"),
        (program("open('own', 'w').write('x')\nassert open('own').read() == 'x'"), "passed"),
        (program("import os\nassert os.listdir('.') == []\nassert set(os.environ) <= {'LC_CTYPE'}, dict(os.environ)"), "passed"),
    ],
)
def test_verdicts(text, result):
    assert doctests.run(text).result == result


EVIL = {
    "fork bomb": "import os\nwhile True:\n    os.fork()",
    "fork, caught": "import os\ntry:\n    os.fork()\nexcept OSError:\n    raise SystemExit(1)",
    "threads": "import threading\nwhile True:\n    threading.Thread(target=print).start()",
    "another program": "import subprocess\nsubprocess.run(['/bin/true'])",
    "becomes another program": "import os\nos.execv('/bin/true', ['true'])",
    "the C library's fork": "import ctypes\nassert ctypes.CDLL(None).fork() >= 0",
    "the bare system call": "import ctypes, platform\nassert ctypes.CDLL(None).syscall(57 if platform.machine() == 'x86_64' else 220) >= 0",
    "memory": "x = [bytearray(10**7) for _ in range(10**4)]",
    "a large file": "with open('own', 'w') as f:\n    f.write('x' * 10**8)",
    "writes outside": "open({outside!r} + '/new', 'w').write('x')",
    "deletes outside": "import os\nos.unlink({secret!r})",
    "changes modes outside": "import os\nos.chmod({secret!r}, 0)",
    "changes times outside": "import os\nos.utime({secret!r}, (0, 0))",
    "links outside": "import os\nos.link({secret!r}, 'mine')",
    "reads outside": "open({secret!r}).read()",
    "lists outside": "import os\nos.listdir({outside!r})",
    "the parent's environment": "import os\nopen(f'/proc/{{os.getppid()}}/environ').read()",
    "the home folder": "import os\nos.listdir(os.path.expanduser('~root'))",
    "a socket": "import socket\nsocket.socket().connect(('127.0.0.1', 9))",
    "a name server": "import socket\nsocket.getaddrinfo('example.org', 80)",
    "kills its parent": "import os\nos.kill(os.getppid(), 9)",
    "slows its parent": "import os\nos.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
    "lifts its limits": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "sets the clock": "import time\ntime.clock_settime(time.CLOCK_REALTIME, time.time())",
    "leaves in silence": "import os\nos._exit(0)",
    "leaves politely": "raise SystemExit(0)",
    "closed stdout": "import os, sys\nsys.stdout.close()\nos.closerange(0, 200)",
    "an installed package": "import torch",
    "forges a verdict": """import os
for number in range(3, 30):
    try:
        os.write(number, b'0000 passed\\n')
    except OSError:
        pass
os._exit(0)""",
}


@confined
@pytest.mark.parametrize("name", EVIL)
def test_evil_programs_fail_and_harm_nothing(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TABSMITH_SECRET", "of the parent")
    secret = tmp_path / "secret"
    secret.write_text("x")
    before = secret.stat()
    outcome = doctests.run(program(EVIL[name].format(outside=str(tmp_path), secret=str(secret))))
    assert outcome.result in ("failed", "crashed", "timeout"), outcome
    assert [path.name for path in tmp_path.iterdir()] == ["secret"] and secret.read_text() == "x"
    assert stat.S_IMODE(secret.stat().st_mode) == stat.S_IMODE(before.st_mode) and secret.stat().st_mtime == before.st_mtime


@confined
@pytest.mark.parametrize(
    "lines", ["import time\ntime.sleep(60)", "while True: pass", "while True: print('x' * 10**6)", "import signal\nsignal.pause()"]
)
def test_endless_programs_are_ended(lines):
    outcome = doctests.run(program(lines), wall=0.7)
    assert outcome.result == "timeout" and outcome.seconds < 5


@confined
def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(doctests.tempfile, "tempdir", str(tmp_path))
    before = psutil.Process().children(recursive=True)  # of other tests
    assert doctests.run(program("open('own', 'w').write('x')\nimport time\ntime.sleep(60)"), wall=0.7).result == "timeout"
    assert list(tmp_path.iterdir()) == [] and psutil.Process().children(recursive=True) == before


def test_only_files_that_need_nothing_else_are_run():
    assert runnable(DOCTEST, "python") and runnable(program("import os.path\nfrom json import dumps"), "python")
    for line in ("import numpy", "from . import x", "from .a import b", "def g():\n    import torch"):
        assert not runnable(program(line), "python")
    assert not runnable(FILE, "python"), "no example in it"
    assert not runnable(DOCTEST + "(", "python") and not runnable(DOCTEST, "javascript")


@confined
def test_a_completion_fails_only_where_the_truth_passes():
    tests = Doctests()
    assert tests.fails(DOCTEST, "python", DOCTEST.replace("+ 1", "- 1")) == "failed"
    assert tests.fails(DOCTEST, "python", DOCTEST.replace("x + 1", "1 + x")) is None
    broken = DOCTEST.replace("    2\n", "    3\n")
    assert tests.fails(broken, "python", broken.replace("+ 1", "- 1")) is None
    assert tests.passes == {DOCTEST: True, broken: False}


def test_where_nothing_can_be_confined_nothing_is_run(monkeypatch):
    monkeypatch.setattr(doctests, "confinement", lambda: "no sandbox")
    monkeypatch.setattr(doctests, "run", lambda text: pytest.fail("was run"))
    assert Doctests().fails(DOCTEST, "python", DOCTEST.replace("+ 1", "- 1")) is None
