"""The small language in which the rows are written, and the rows that come of it.

In:  a table (text) and a seed
Out: LabelledRow, the same for the same seed

A table is read line by line. `@@@ family` opens a family, `@ path` a row of all the lines below it, `@@ path` a row for each
line below it. In a row `{=kind}` is the value that a scrubber must hide and `{~kind}` is filler; kinds are those of
`values.draw`. A `¦` is dropped: with it inside a prefix or a keyword no line of a table looks like a secret to a scanner.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from phase1_data.labelled import surroundings, values

SLOT = re.compile(r"\{([=~])([^{}\s]+)\}")
JOINT = "¦"
DRAWS = 50  # before a template that cannot tell its value from its surroundings counts as broken


class LabelledRow(NamedTuple):
    """A text and what in it is secret or personal; `value` is "" where nothing is."""

    family: str
    text: str
    value: str
    path: str


class Template(NamedTuple):
    family: str
    path: str
    text: str


def read(table: str) -> list[Template]:
    """The templates of a table, in its order."""
    found: list[Template] = []
    family = path = ""
    lines: list[str] = []
    each = False

    def close() -> None:
        texts = [line for line in lines if line.strip()] if each else ["\n".join(lines).strip("\n")]
        found.extend(Template(family, path, text) for text in texts if text)
        lines.clear()

    for line in table.split("\n"):
        mark, _, rest = line.partition(" ")
        if mark in ("@@@", "@@", "@") and rest:
            close()
            family, path, each = (rest, "", False) if mark == "@@@" else (family, rest, mark == "@@")
        else:
            lines.append(line)
    close()
    return found


def fill(rng: random.Random, text: str, given: Mapping[str, str]) -> tuple[str, int, int]:
    """The text with every slot filled, and where its `{=...}` slot came to stand (0, 0 without one)."""
    parts: list[str] = []
    length = start = end = last = 0
    for slot in SLOT.finditer(text):
        plain = text[last : slot.start()].replace(JOINT, "")
        drawn = given[slot[2]] if slot[2] in given else _drawn(rng, slot[2])
        parts += [plain, drawn]
        length += len(plain) + len(drawn)
        if slot[1] == "=":
            start, end = length - len(drawn), length
        last = slot.end()
    parts.append(text[last:].replace(JOINT, ""))
    return "".join(parts), start, end


def _drawn(rng: random.Random, kind: str) -> str:
    return fill(rng, values.SHAPES[kind], {})[0] if kind in values.SHAPES else values.draw(rng, kind)


def row(rng: random.Random, template: Template, given: Mapping[str, str] | None = None) -> LabelledRow:
    """One row of a template; its value stands in its text exactly once.

    Raises ValueError when no draw gives such a row: the template is wrong.
    """
    for _ in range(DRAWS):
        text, start, end = fill(rng, template.text, given or {})
        path = fill(rng, template.path, given or {})[0]
        before, after = surroundings.around(rng, path, text)
        value, text = text[start:end], before + text + after
        if not value or text.count(value) == 1:
            return LabelledRow(template.family, text, value, path)
    raise ValueError(f"the value of a {template.family} row stands in it more than once: {template.text}")


def rows(seed: int, label: str, table: str, copies: int) -> Iterator[LabelledRow]:
    """`copies` rows of every template, each with values of its own; one of a template that has nothing to draw."""
    for index, template in enumerate(read(table)):
        for copy in range(copies if SLOT.search(template.text) else 1):
            yield row(random.Random(f"{seed}/{label}/{index}/{copy}"), template)
