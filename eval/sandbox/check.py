"""The trusted side: runs the test of a problem against a program in another process, and says how it went.

In:  on descriptor 3 a frame {"prompt", "text", "test", "entry"}; on descriptor 4 the socket to the program
Out: on descriptor 5 a byte when the clock starts, then the verdict as JSON {"kind", "error", "detail"}

The test gets the program's function as a Far. Other names that it uses come from the text before the hole where that defines them, run
here: the problem's own helpers, which a completion could replace in its process. Only what is not there is asked of the program, and no
builtin ever is.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import dis
import json
import os
import re
from collections.abc import Iterator
from types import CodeType
from typing import Any

from eval.sandbox.wire import CALL_ONLY, Broken, Peer, Raised, described
from eval.sandbox.withdrawn import withdraw

REQUEST, SOCKET, VERDICT = 3, 4, 5
START, END = b"s", b"e"
TOP_LEVEL = re.compile(r"^(?=(?:async\s+def|def|class|@)\b|@)", re.MULTILINE)


def run() -> None:
    """Read one problem, judge, write the verdict."""
    write = os.write
    try:
        problem = Peer(REQUEST, {}).receive()
    except Broken:
        write(VERDICT, END)  # the judge has no more
        return
    os.close(REQUEST)
    peer = Peer(SOCKET, CALL_ONLY)
    peer.receive()  # "ready": a program's process that does not even get there is no verdict, but an exception here
    write(VERDICT, START)
    withdraw()
    verdict = json.dumps(judged(problem, peer)).encode("ascii")
    write(VERDICT, verdict)


def judged(problem: dict[str, str], peer: Peer) -> dict[str, str]:
    """The verdict on one program."""
    try:
        _against(problem, peer)
    except SyntaxError as error:
        return _verdict("syntax", *described(error))
    except BaseException as error:  # noqa: BLE001  # whatever the test or the program raised
        return _failed(error, peer)
    return _verdict("left", "", "the program broke off") if peer.broken else _verdict("passed", "", "")


def _verdict(kind: str, error: str, detail: str) -> dict[str, str]:
    return {"kind": kind, "error": error, "detail": detail}


def _failed(error: BaseException, peer: Peer) -> dict[str, str]:
    kind, text = (error.kind, str(error)[:200]) if isinstance(error, Raised) else described(error)
    if peer.broken or isinstance(error, Broken):
        return _verdict("left", "", text)
    if peer.compared:
        text = f"{text} (compared: {', '.join(sorted(peer.compared))}, which only equals itself)".strip()
    known = {"AssertionError": "assertion", "MemoryError": "limit"}
    return _verdict(known.get(kind, "exception"), kind, text)


def _against(problem: dict[str, str], peer: Peer) -> None:
    test, entry = problem["test"], problem["entry"]
    code = compile(test, "<test>", "exec", dont_inherit=True)
    wanted = _wanted(code) - {entry}
    space = _helpers(problem["prompt"], wanted)
    asked = sorted(wanted - set(space))
    blank = test[: len(test) - len(test.lstrip())]
    peer.send(["load", problem["text"], blank, asked, entry])
    answer = peer.serve()
    if answer[0] == "syntax":
        raise SyntaxError(" ".join(map(str, answer[1:3]))[:200])
    found = peer.value(answer)
    if not isinstance(found, dict) or "" not in found:
        raise Broken("no function came")
    space.update({name: found[name] for name in asked if name in found})
    if entry.isidentifier():
        space[entry] = found[""]
    exec(code, space)
    space["check"](found[""])


def _wanted(code: CodeType) -> set[str]:
    """Global names that a test uses and neither sets at its top nor finds among the builtins."""
    own = {one.argval for one in dis.get_instructions(code) if one.opname == "STORE_NAME"}
    known = own.union(dir(builtins))
    every = list(_codes(code))
    if not set().union(*(one.co_names for one in every)) - known:  # attributes are among these names; most tests have neither
        return set()
    loads = (one for inner in every for one in dis.get_instructions(inner) if one.opname in ("LOAD_NAME", "LOAD_GLOBAL"))
    return {one.argval for one in loads if not one.argval.startswith("__")} - known


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A piece of code and all that it contains."""
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _codes(const)


def _helpers(prompt: str, wanted: set[str]) -> dict[str, Any]:
    """The globals of the complete definitions before the hole, if they define a wanted name: text that we trust, run here."""
    if not wanted:
        return {}
    cuts = [len(prompt), *(match.start() for match in reversed(list(TOP_LEVEL.finditer(prompt))))]
    for cut in cuts:  # the last definition is the one with the hole
        try:
            tree = ast.parse(prompt[:cut])
        except (SyntaxError, ValueError):
            continue
        if cut == len(prompt):
            del tree.body[-1:]  # complete by chance: the hole may go on with it
        space: dict[str, Any] = {}
        with contextlib.suppress(Exception):
            exec(compile(tree, "<prompt>", "exec", dont_inherit=True), space)
        return space if wanted & set(space) else {}
    return {}
