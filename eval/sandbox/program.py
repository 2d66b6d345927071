"""The untrusted side: runs the text of a program and answers calls of what it defines.

In:  on descriptor 3 a ["load", text, blank, names, entry] frame, then calls; see `wire`
Out: ["ready"], then answers there. Nothing in this process is trusted: whatever it sends is only ever taken for a value

The text is all there is here: not the test, nor anything else of the problem.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from typing import Any

from eval.sandbox.wire import OPERATIONS, Broken, Peer, described
from eval.sandbox.withdrawn import withdraw

SOCKET = 3


def serve() -> None:
    """Load one program and answer until the check closes the socket."""
    peer = Peer(SOCKET, OPERATIONS)
    leave = os._exit
    try:
        peer.send(["ready"])  # from here on an end is the program's own doing
        _, text, blank, names, entry = peer.receive()
        if "numpy" in text:  # the published evaluator has imported it before it takes anything away
            with contextlib.suppress(ImportError):
                importlib.import_module("numpy")
        withdraw()
        peer.send(loaded(peer, text, blank, names, entry))
        while True:
            peer.serve()
    except Broken:
        leave(0)


def loaded(peer: Peer, text: str, blank: str, names: list[str], entry: str) -> list[Any]:
    """Run the text and return the answer with its names.

    Args:
        blank: the white space that the test begins with: the published evaluator compiles text and test as one, and the line after
            the text decides whether an open last line of it is an error.
        names: global names of the text that the test uses, given where they exist.
        entry: the expression that the test is given, under the key "".
    """
    try:
        code = compile(f"{text}\n{blank}pass\n", "<program>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError) as error:
        return ["syntax", *described(error)]
    except BaseException as error:  # noqa: BLE001  # nesting or size that the compiler gives up on
        return ["raised", *described(error)]
    space: dict[str, Any] = {}  # no __name__, as in the published evaluator
    try:
        exec(code, space)
        found = {name: space[name] for name in names if name in space}
        found[""] = eval(entry, space)
        return ["value", peer.pack(found), None]
    except BaseException as error:  # noqa: BLE001  # SystemExit and what derives from BaseException too
        return ["raised", *described(error)]
