"""What somebody types into a real file of a real repository, key by key, the same every time.

In:  an installed package with a permissive license, copied to a folder; one of its files
Out: `Key`s: the text before and after the cursor once each key has been pressed

A recording takes the bodies of two functions out of a file and types them in again: an editor's newline brings the indentation along, one
wrong character is taken back, the rest of one line arrives at once as an accepted completion does, and in the middle the cursor
jumps from the first function to the second.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from core.errors import InputError

PACKAGE = "rich"  # MIT; 100 files, 1.2 MB
LEAST_BODY = 240  # characters of a function that is worth typing
FAR = 6000  # characters from a file's start: further than a window reaches, so every prompt is full
WRONG_AT, ACCEPT_AT = 15, 25  # keys after which a slip is typed and taken back, a completion accepted


class Key(NamedTuple):
    """The buffer after one key."""

    kind: str  # open | typed | newline | backspace | accept | jump
    prefix: str
    suffix: str


class Body(NamedTuple):
    """Where a function's body stands in its file, in characters."""

    start: int  # first character of its first statement
    end: int


def copy_package(folder: Path, name: str = PACKAGE) -> Path:
    """The sources of an installed package, as a repository of their own; the folder they went to.

    Raises:
        InputError: it is not installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"the package {name} is not installed: install the project with its extras")
    root = folder / f"{name}-{importlib.metadata.version(name)}"
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "*.so")
    shutil.copytree(spec.submodule_search_locations[0], root / name, ignore=ignored)
    return root


def bodies(text: str, least: int = LEAST_BODY) -> list[Body]:
    """Bodies of functions without other functions in them, past the first FAR characters, in order; docstrings left out."""
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    lines = text.splitlines(keepends=True)

    def at(line: int, column: int) -> int:
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _holds_function(node):
            continue
        first = 1 if ast.get_docstring(node) is not None and len(node.body) > 1 else 0
        end = node.body[-1]
        body = Body(at(node.body[first].lineno, node.body[first].col_offset), at(end.end_lineno or 1, end.end_col_offset or 0))
        if body.start >= FAR and body.end - body.start >= least:
            found.append(body)
    return sorted(found)


def _holds_function(node: ast.AST) -> bool:
    return any(isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) for inner in ast.walk(node) if inner is not node)


def files(root: Path, name: str = PACKAGE) -> list[str]:
    """Files of a copied package that can be typed in, as paths in the folder, the largest first."""
    found = sorted((root / name).glob("*.py"), key=lambda path: (-path.stat().st_size, path.name))
    return [str(path.relative_to(root)) for path in found if len(bodies(path.read_text())) >= 4]


def recording(text: str, keys: int, first: int = 0) -> list[Key]:
    """So many keys after the file was opened; the first `Key` is the opening itself.

    Args:
        text: a Python file.
        first: which of its functions is typed first; the second is half the file away.

    Raises:
        InputError: its functions are too short for so many keys.
    """
    longest = sorted(bodies(text), key=lambda body: body.start - body.end)
    if len(longest) <= first:
        raise InputError("the file has too few functions to type: choose another")
    a = longest[first]
    b = max(longest, key=lambda body: (min(abs(body.start - a.start), 4 * FAR), body.end - body.start))
    buffer = _Buffer(text)
    for body in sorted((a, b), reverse=True):
        buffer.cut(body)
    taken = {body: text[body.start : body.end] for body in (a, b)}
    spots = (a.start, b.start - (len(taken[a]) if b.start > a.start else 0))
    if a.start > b.start:
        spots = (a.start - len(taken[b]), b.start)
    pressed = _press(buffer, spots, (taken[a], taken[b]), keys)
    recorded = [key for key, _ in zip(pressed, range(keys + 1), strict=False)]
    if len(recorded) <= keys:
        raise InputError(f"{len(recorded) - 1} keys are all that two functions of this file give: ask for fewer")
    return recorded


class _Buffer:
    """A file in an editor."""

    def __init__(self, text: str) -> None:
        self.text, self.cursor = text, 0

    def cut(self, body: Body) -> None:
        self.text = self.text[: body.start] + self.text[body.end :]

    def put(self, text: str) -> None:
        self.text = self.text[: self.cursor] + text + self.text[self.cursor :]
        self.cursor += len(text)

    def back(self) -> None:
        self.text = self.text[: self.cursor - 1] + self.text[self.cursor :]
        self.cursor -= 1

    def key(self, kind: str) -> Key:
        return Key(kind, self.text[: self.cursor], self.text[self.cursor :])


def _press(buffer: _Buffer, spots: tuple[int, int], bodies: tuple[str, str], keys: int) -> Iterator[Key]:
    """The keys: half of them in the first function, the others in the second."""
    buffer.cursor = spots[0]
    yield buffer.key("open")
    written = 0
    for number, (kind, text) in enumerate(_strokes(bodies[0])):
        if number == WRONG_AT:
            buffer.put("x")
            yield buffer.key("typed")
            buffer.back()
            yield buffer.key("backspace")
        buffer.put(text)
        written += len(text)
        yield buffer.key(kind)
        if number >= keys // 2:
            break
    buffer.cursor = spots[1] + (written if spots[1] > spots[0] else 0)
    yield buffer.key("jump")
    for kind, text in _strokes(bodies[1]):
        buffer.put(text)
        yield buffer.key(kind)


def _strokes(text: str) -> Iterator[tuple[str, str]]:
    """A text as keys: a line break with its indentation is one, and the rest of one line arrives as a completion."""
    at, number, accepted = 0, 0, False
    while at < len(text):
        broken = re.compile(r"\n\s*").match(text, at)
        rest = re.compile(r"[^\n]{4,}").match(text, at)
        if broken:
            stroke, kind = broken.group(), "newline"
        elif rest and number >= ACCEPT_AT and not accepted:
            stroke, kind, accepted = rest.group(), "accept", True
        else:
            stroke, kind = text[at], "typed"
        yield kind, stroke
        at, number = at + len(stroke), number + 1


def places(text: str, count: int) -> list[Key]:
    """Cursors in so many functions of a file, each far from the one before; the cursor stands at the end of a line.

    Raises:
        InputError: the file has too few functions.
    """
    found = bodies(text, least=60)
    if len(found) < count:
        raise InputError(f"the file has {len(found)} functions to jump to, {count} are asked: choose a larger one")
    half = -(-len(found) // 2)
    order = [body for pair in zip(found[:half], [*found[half:], *found[:1]], strict=False) for body in pair][:count]
    ends = [min(body.end, text.find("\n", body.start) % (len(text) + 1)) for body in order]
    return [Key("jump", text[:end], text[end:]) for end in ends]
