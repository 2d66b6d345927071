"""The judge gives the verdict that running text and test in one process gives, whatever values pass between them."""

from __future__ import annotations

import json
import subprocess
import sys

import psutil
import pytest

from eval.sandbox.pool import KINDS, ROOT, Pool, Program, Settings, Verdict
from eval.sandbox.wire import OPERATIONS, Peer

# name: (text that defines f, test of f)
AGREE = {
    "numbers": ("def f(x): return [x, -0.0, 1e308 * 10, 2**200, 3 + 4j, True]", "assert f(1) == [1, 0.0, float('inf'), 2**200, 3 + 4j, 1]"),
    "not a number": ("def f(): return float('nan')", "assert f() != f()"),
    "a sign of zero": ("def f(): return -0.0", "import math; assert math.copysign(1, f()) == -1"),
    "text": ("def f(x): return x + '\\ud800\\x00é'", "assert f('ä') == 'ä\\ud800\\x00é'"),
    "bytes": ("def f(x): return x + b'\\xff', bytearray(x)", "assert f(b'a') == (b'a\\xff', bytearray(b'a'))"),
    "a tuple is no list": ("def f(): return (1, 2)", "assert f() == [1, 2]"),
    "an inner tuple is no list": ("def f(): return [(1, 2)]", "assert f() == [[1, 2]]"),
    "keys of every kind": ("def f(): return {1: 'a', (2, 3): {4}, None: frozenset([5])}", "assert f() == {1: 'a', (2, 3): {4}, None: {5}}"),
    "True is True": ("def f(): return 1 == 1", "assert f() is True"),
    "1 is not True": ("def f(): return 1", "assert f() is True"),
    "None": ("def f(): pass", "assert f() is None"),
    "a range": ("def f(): return range(0, 10, 3)", "assert f() == range(0, 11, 3) and f() != [0, 3, 6, 9]"),
    "a map": ("def f(): return map(str, [1, 2])", "assert f() == ['1', '2']"),
    "a map made a list": ("def f(): return map(str, [1, 2])", "assert list(f()) == ['1', '2'] and tuple(f()) and sorted(f())"),
    "a generator without an end": (
        "def f():\n    n = 0\n    while True:\n        yield n\n        n += 1",
        "import itertools; assert list(itertools.islice(f(), 3)) == [0, 1, 2]",
    ),
    "views": ("def f(): return {'a': 1}", "assert f().keys() == {'a'}"),
    "keys": ("def f(): return {'a': 1}.keys()", "assert f() == {'a'} and 'a' in f() and len(f()) == 1"),
    "items": ("def f(): return {'a': 1}.items()", "assert f() == {('a', 1)}"),
    "values": ("def f(): return {'a': 1}.values()", "assert f() == [1]"),
    "values summed": ("def f(): return {'a': 1, 'b': 1}.values()", "assert sum(f()) == 2"),
    "a set's order": ("def f(): return set('hello world')", "assert ''.join(sorted(f())) == ' dehlorw'"),
    "a counter": ("from collections import Counter\ndef f(): return Counter('aab')", "assert f() == {'a': 2, 'b': 1}"),
    "a defaultdict": ("from collections import defaultdict\ndef f(): return defaultdict(list, a=[1])", "assert f() == {'a': [1]}"),
    "a deque": ("from collections import deque\ndef f(): return deque([1])", "assert f() == [1]"),
    "a named tuple": ("from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(): return P(1, 2)", "assert f() == (1, 2)"),
    "an enum": ("import enum\nclass E(enum.IntEnum):\n    A = 3\ndef f(): return E.A", "assert f() == 3"),
    "an enum of text": (
        "import enum\nclass E(str, enum.Enum):\n    A = 'a'\ndef f(): return E.A",
        "assert f() == 'a' and f() + 'b' == 'ab'",
    ),
    "a decimal": ("from decimal import Decimal\ndef f(): return Decimal('0.1') * 3", "assert f() * 10 == 3"),
    "a fraction": ("from fractions import Fraction\ndef f(): return Fraction(1, 3)", "assert f() * 3 == 1"),
    "numpy's numbers": ("import numpy as np\ndef f(): return np.int64(3)", "assert f() == 3 and abs(f() - 2.5) < 1"),
    "numpy's truth": ("import numpy as np\ndef f(): return np.bool_(True)", "assert f() == True"),
    "numpy's truth is not True": ("import numpy as np\ndef f(): return np.bool_(True)", "assert f() is True"),
    "an argument changed": ("def f(x): x.sort(); x.append(9)", "a = [3, 1]; f(a); assert a == [1, 3, 9]"),
    "an argument not changed": ("def f(x): return sorted(x)", "a = [3, 1]; assert f(a) == [1, 3] and a == [3, 1]"),
    "a dict changed": ("def f(x): x['b'] = 2; del x['a']", "a = {'a': 1}; f(a); assert a == {'b': 2}"),
    "arguments by name": ("def f(a, *, b=2, **c): return a, b, c", "assert f(1, b=3, d=4) == (1, 3, {'d': 4})"),
    "state between calls": ("seen = []\ndef f(x):\n    seen.append(x)\n    return len(seen)", "assert f(1) == 1 and f(1) == 2"),
    "a function handed over": ("def f(g, x): return g(g(x))", "assert f(lambda x: x + 1, 1) == 3"),
    "a function given back": ("def f(n): return lambda x: x + n", "assert f(2)(3) == 5"),
    "an object": (
        "class P:\n    def __init__(self, x): self.x = x\n    def double(self): return self.x * 2\ndef f(x): return P(x)",
        "assert f(4).x == 4 and f(4).double() == 8 and f(4)",
    ),
    "an object without truth": ("class P:\n    def __bool__(self): return False\ndef f(): return P()", "assert f()"),
    "an exception that the test waits for": (
        "def f(x):\n    if x < 0: raise ValueError('no')\n    return x",
        "\n    try: f(-1)\n    except ValueError as error: assert str(error) == 'no'\n    else: assert False",
    ),
    "an exception of its own": (
        "class E(Exception): pass\ndef f(): raise E",
        "\n    try: f()\n    except Exception: pass\n    else: assert False",
    ),
    "a key error": ("def f(): return {}[1]", "\n    try: f()\n    except KeyError: pass"),
    "a wrong number of arguments": ("def f(x): return x", "assert f() == 1"),
    "it is not run as a script": ("def f(): return 1\nif __name__ == '__main__':\n    raise ValueError", "assert f() == 1"),
    "input": ("def f(): return input()", "assert f() == ''"),
    "prints": ("import sys\ndef f():\n    print('x', file=sys.stderr)\n    return sys.stdout.write('abc')", "assert f() == 3"),
    "what the evaluator takes away": ("import os\ndef f(): return os.getcwd()", "assert f()"),
    "exit": ("def f(): exit()", "f()"),
    "no function": ("g = 1", "assert f() == 1"),
    "a last line that goes on": ("def f(): return 1\nx = 1 \\", "assert f() == 1"),
    "a comment without a line end": ("def f(): return 1\n# x", "assert f() == 1"),
    "a bracket left open": ("def f(): return (1", "assert f() == 1"),
    "a NUL": ("def f(): return 1 \0", "assert f() == 1"),
    "half a surrogate pair": ("def f(): return '\ud800'", "assert f() == '\ud800'"),
    "an expression as entry": ("class S:\n    def f(self, x): return x", "assert f(1) == 1", "S().f"),
    "the future": ("from __future__ import annotations\ndef f(x: Nothing): return x", "assert f(1) == 1"),
    "deep in frames": ("def f(n): return 0 if n == 0 else 1 + f(n - 1)", "assert f(900) == 900"),
    "too deep": ("def f(n): return 0 if n == 0 else 1 + f(n - 1)", "assert f(1100) == 1100"),
    "a file of its own": ("def f():\n    open('x', 'w').write('y')\n    return open('x').read()", "assert f() == 'y'"),
    "asyncio": ("import asyncio\nasync def g(): return 3\ndef f(): return asyncio.run(g())", "assert f() == 3"),
    "a thread": (
        "import threading\ndef f():\n    a = []\n    t = threading.Thread(target=a.sort)\n    t.start(); t.join()\n    return a",
        "assert f() == []",
    ),
}  # fmt: skip


def program(row: tuple[str, ...]) -> Program:
    text, test, entry = (*row, "f")[:3]
    return Program("", text, "", f"\n\ndef check(f):\n    {test}\n", entry)


@pytest.fixture(scope="module")
def pool():
    with Pool(Settings(workers=4)) as pool:
        yield pool


@pytest.fixture(scope="module")
def short():
    with Pool(Settings(seconds=0.5, workers=1)) as pool:
        yield pool


@pytest.fixture(scope="module")
def verdicts(pool) -> dict[str, Verdict]:
    return dict(zip(AGREE, pool.run(map(program, AGREE.values())), strict=True))


TOGETHER = """
import io, json, sys
rows = json.load(sys.stdin)
import os, builtins, signal
real = sys.stdout
class Swallow(io.StringIO):
    def readline(self, *a): raise OSError
sys.stdin = sys.stdout = sys.stderr = Swallow()
os.getcwd = builtins.exit = None
found = []
for _, text, _, test, entry in rows:
    try:
        exec(text + "\\n" + test + "\\ncheck(" + entry + ")", {})
        found.append(True)
    except BaseException:
        found.append(False)
print(json.dumps(found), file=real)
"""


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> dict[str, bool]:
    """Whether text and test pass in one process, as the published evaluator runs them."""
    rows = json.dumps([program(row) for row in AGREE.values()])
    run = subprocess.run([sys.executable, "-c", TOGETHER], input=rows, capture_output=True, text=True, cwd=tmp_path_factory.mktemp("own"))
    return dict(zip(AGREE, json.loads(run.stdout), strict=True))


@pytest.mark.parametrize("name", AGREE)
def test_the_verdict_is_that_of_one_process(verdicts, together, name):
    assert verdicts[name].passed == together[name], verdicts[name]


def test_both_outcomes_are_among_them(together):
    assert 10 < sum(together.values()) < len(together) - 10


DIFFER = {  # passes in one process; the text claims it instead of earning it
    "equal to everything": ("class A:\n    def __eq__(self, o): return True\ndef f(): return A()", "assert f() == 3", "assertion"),
    "builtins of its own": ("import builtins\nbuiltins.abs = lambda x: 0\ndef f(): return 7", "assert abs(f()) == 0", "assertion"),
    "a builtin's name": ("abs = lambda x: 0\ndef f(): return 7", "assert abs(f()) == 0", "assertion"),
    "modules of its own": (
        "import math\nmath.fabs = lambda x: 0\ndef f(): return 7",
        "import math; assert math.fabs(f()) == 0",
        "assertion",
    ),
}


@pytest.mark.parametrize("name", DIFFER)
def test_a_claim_is_no_pass(pool, name):
    text, test, kind = DIFFER[name]
    assert pool.judge(program((text, test))).kind == kind


def test_the_problems_own_helper_counts_and_not_the_completions(pool):
    prompt = "def helper(x):\n    return x + 1\n\n\ndef f(x):\n    return "
    test = "def check(f):\n    assert helper(f(1)) == 2\n"
    assert pool.judge(Program(prompt, "x", "\n", test, "f")).passed
    assert pool.judge(Program(prompt, "9\ndef helper(x): return 2", "\n", test, "f")).kind == "assertion"


def test_a_helper_with_the_hole_is_the_completions(pool):
    prompt, suffix = "def helper(x):\n    return ", "\n\n\ndef f(x):\n    return helper(x)\n"
    test = "def check(f):\n    assert helper(1) == f(1) == 2\n"
    assert pool.judge(Program(prompt, "x + 1", suffix, test, "f")).passed
    assert pool.judge(Program(prompt, "x", suffix, test, "f")).kind == "assertion"


def test_programs_share_nothing(pool):
    text = (
        "import math, builtins\nleft = getattr(math, 'mark', 0)\nmath.mark = builtins.mark = 1\n"
        "open('mark', 'x').close()\ndef f(): return left"
    )
    assert [pool.judge(program((text, "assert f() == 0"))).kind for _ in range(12)] == ["passed"] * 12


def test_numpy_is_there_without_namespaces_too():
    with Pool(Settings(workers=1, without=("namespaces",))) as pool:
        verdict = pool.judge(program(AGREE["numpy's numbers"]))
        assert verdict.passed, verdict
        assert "landlock" not in pool.levels.held or not pool.levels.open


def test_random_numbers_differ_from_program_to_program(pool):
    text = "import random, os\ndef f(): raise RuntimeError(random.random())"
    assert len({pool.judge(program((text, "f()"))).detail for _ in range(6)}) == 6


@pytest.mark.parametrize(
    ("text", "kind", "error"),
    [
        ("def f(): return 1", "assertion", "AssertionError"),
        ("def f(): return x", "exception", "NameError"),
        ("def f(:", "syntax", "SyntaxError"),
        ("def f():\n    while True: pass", "timeout", ""),
        ("import ctypes\ndef f(): ctypes.string_at(0)", "limit", ""),
        ("def f(): return bytearray(2**40)", "limit", "MemoryError"),
        ("import os\ndef f(): os._exit(3)", "left", ""),
    ],
)
def test_kinds(short, text, kind, error):
    assert kind in KINDS
    verdict = short.judge(program((text, "assert f() == 2")))
    assert (verdict.kind, verdict.error) == (kind, error)


def test_a_dead_worker_is_replaced(pool):
    worker = pool.alive[0]
    worker.process.kill()
    worker.process.wait()
    assert [verdict.kind for verdict in pool.run([program(("def f(): return 2", "assert f() == 2"))] * 12)] == ["passed"] * 12
    assert len(pool.alive) == 4 and worker not in pool.alive


def test_the_workers_end_with_the_judge(tmp_path):
    """A judge that is killed leaves no process behind."""
    source = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r})\n"
        "from eval.sandbox.pool import *\n"
        "with Pool(Settings(workers=2)) as pool:\n    print('ready', flush=True)\n    time.sleep(60)\n"
    )
    judge = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE)
    assert judge.stdout is not None and judge.stdout.readline() == b"ready\n"
    family = psutil.Process(judge.pid).children(recursive=True)
    assert len(family) >= 4
    judge.kill()
    judge.wait()
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []


def test_a_worker_imports_the_standard_library_only():
    source = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import eval.sandbox.worker; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-S", "-c", source], capture_output=True, text=True, check=True).stdout.split()
    others = {name.split(".")[0] for name in loaded} - set(sys.stdlib_module_names)
    assert others == {"eval", "__main__"}
    assert "eval.sandbox.worker" in loaded and "eval.sandbox.pool" not in loaded


def test_what_is_packed_is_unpacked_equal():
    peer = Peer(-1, OPERATIONS)
    for value in (None, True, 3, 2**70, -(2**63), "é\ud800", [1, (2, {3})], {1: {2: b"x"}}, frozenset({1}), 1.5, range(3), bytearray(b"a")):
        again = peer.unpack(peer.pack(value))
        assert again == value and type(again) is type(value)
