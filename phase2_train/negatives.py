"""In which way a completion is wrong, judged by the whole file it would stand in.

In:  the hole with its truth, the text of its file, a completion
Out: Verdict: the kind of mistake and what shows it; or why it is no mistake

A window of 300 tokens nearly never parses: it starts inside a block (27 of 600 windows of the default corpus parse, 600 of
600 files do). So a completion is put into the file. Python is judged by `ast` and `symtable`, on the top-level statements
that hold the hole where those suffice; other languages by core.syntax, as far as it goes.
"""

from __future__ import annotations

import ast
import builtins
import functools
import re
import symtable
import warnings
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

from rapidfuzz.distance import Indel

from core.completion import LEAD_CHARS, overruns, repeats_suffix, squeeze
from core.syntax import parse_python, parses

KINDS = (
    "overrun", "suffix_repeat", "prefix_repeat", "underrun", "syntax", "undefined_name", "test_fail", "near_miss", "wrong", "user_reject"
)  # fmt: skip
MANNERS = ("overrun", "suffix_repeat", "underrun")  # mistakes about where to end, not about what to write
LINES_BEFORE = 3  # lines of the prefix that a completion may not write again
NEAR = (0.5, 0.9)  # similarity of a near miss
NAMES = frozenset(dir(builtins)) | {
    "__file__", "__name__", "__doc__", "__spec__", "__path__", "__package__", "__loader__", "__builtins__", "__annotations__", "__debug__",
}  # fmt: skip
WORD = re.compile(r"[^\W\d]\w*")


class Verdict(NamedTuple):
    """What is wrong with a completion (one of KINDS), and what shows it; kind is None where nothing is."""

    kind: str | None
    evidence: dict[str, Any]
    reason: str = ""  # why there is no kind: right | same_syntax


def similarity(a: str, b: str) -> float:
    """Normalized Indel similarity, 0 to 1 (rapidfuzz's ratio over 100)."""
    return float(Indel.normalized_similarity(a, b))


def repeats_prefix(completion: str, truth: str, prefix: str) -> bool:
    """Whether it starts with what already stands left of the cursor, or writes one of the last lines before it again."""
    *lines, cursor = prefix.split("\n")
    begun = squeeze(cursor)
    if len(begun) >= LEAD_CHARS and squeeze(completion).startswith(begun) and not squeeze(truth).startswith(begun):
        return True
    before = {line.strip() for line in [line for line in lines if line.strip()][-LINES_BEFORE:] if len(squeeze(line)) >= LEAD_CHARS}
    again = [line.strip() for line in completion.split("\n")]
    return any(again.count(line) > [own.strip() for own in truth.split("\n")].count(line) for line in before if line in again)


def wrong_words(completion: str, truth: str) -> list[str]:
    """Names and words of the completion that the truth does not have, in their order."""
    known = set(WORD.findall(truth))
    return list(dict.fromkeys(word for word in WORD.findall(completion) if word not in known))


def _words(text: str) -> set[str]:
    """Names, numbers and words outside comments: where they differ, so does the syntax tree."""
    return set(re.findall(r"\w+", re.sub(r"#.*", "", text)))


class Place:
    """The file around a hole, and what of it must be read to judge a completion.

    Args:
        text: of the whole file; where the window does not stand in it, the window is all there is.
    """

    def __init__(self, prefix: str, truth: str, suffix: str, text: str, lang: str) -> None:
        at = text.find(prefix + truth + suffix)
        self.in_file = at >= 0
        if not self.in_file:
            text, at = prefix + truth + suffix, 0
        self.truth, self.lang, self.text = truth, lang, text
        self.head, self.tail = text[: at + len(prefix)], text[at + len(prefix) + len(truth) :]

    def whole(self, completion: str) -> str:
        """The file with the completion in it."""
        return self.head + completion + self.tail

    @cached_property
    def _block(self) -> tuple[str, str, str, str]:
        """The file cut at top-level statements: what stands before, head and tail of the piece with the hole, what stands after."""
        first = self.head.count("\n") + 1
        last = first + self.truth.count("\n")
        for start, end in _statements(self.text):
            if end >= first and start <= last:
                first, last = min(first, start), max(last, end)
        lines = self.text.split("\n")
        begin = sum(len(line) + 1 for line in lines[: first - 1])
        stop = min(len(self.text), begin + sum(len(line) + 1 for line in lines[first - 1 : last]))
        return self.text[:begin], self.head[begin:], self.text[len(self.head) + len(self.truth) : stop], self.text[stop:]

    def parses(self, completion: str) -> bool | None:
        """Whether the file is one of its language with the completion in it; None where that cannot be judged."""
        if self.lang != "python":
            return parses(self.whole(completion), self.lang)
        _, head, tail, _ = self._block
        return _compiles(head + completion + tail) or _compiles(self.whole(completion))

    @cached_property
    def judges_syntax(self) -> bool:
        """Whether the file parses with its truth: only then does a failure say something."""
        return self.parses(self.truth) is True

    def same_syntax(self, completion: str) -> bool:
        """Whether Python reads the same from the completion as from the truth."""
        if self.lang != "python" or not self.judges_syntax or _words(completion) != _words(self.truth):
            return False
        _, head, tail, _ = self._block
        mine = parse_python(head + completion + tail)
        return mine is not None and ast.dump(mine) == self._truth_tree

    @cached_property
    def _truth_tree(self) -> str:
        _, head, tail, _ = self._block
        tree = parse_python(head + self.truth + tail)
        return ast.dump(tree) if tree else ""

    @cached_property
    def _names_around(self) -> frozenset[str] | None:
        """Names bound at the module level outside the piece with the hole; None where a star import may bind any."""
        before, _, _, after = self._block
        names = [_names(text) for text in (before, after)]
        return None if None in names else frozenset().union(*(found.bound for found in names if found))

    def undefined_names(self, completion: str) -> list[str]:
        """Names that the file with the completion uses and nothing in it, nor a builtin, defines; those of the truth left out."""
        if self.lang != "python" or not self.in_file or self._names_around is None:
            return []
        _, head, tail, _ = self._block
        mine, true = _names(head + completion + tail), _names(head + self.truth + tail)
        if mine is None or true is None:
            return []
        unknown = mine.used - mine.bound - self._names_around - NAMES
        return sorted(unknown - (true.used - true.bound - self._names_around))


@functools.lru_cache(maxsize=64)
def _statements(text: str) -> list[tuple[int, int]]:
    """First and last line, from 1, of the statements at the top level; none where it is no Python."""
    tree = parse_python(text)
    first = ((node, min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])) for node in (tree.body if tree else ()))
    return [(line, node.end_lineno or node.lineno) for node, line in first]


def _compiles(text: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(text, "<file>", "exec", dont_inherit=True)  # `return` outside a function parses and is none
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


class _Names(NamedTuple):
    """Of one piece of Python: names bound at its top level, and names it takes from there or from the builtins."""

    bound: frozenset[str]
    used: frozenset[str]


def _names(text: str) -> _Names | None:
    """None where it is no Python, or a star import may bind anything."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = symtable.symtable(text, "<file>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if re.search(r"^\s*from\s.+\simport\s+\*", text, re.MULTILINE):
        return None
    bound, used = set[str](), set[str]()
    for scope in _scopes(table):
        for symbol in scope.get_symbols():
            binds = symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()
            if binds and (scope is table or symbol.is_declared_global()):
                bound.add(symbol.get_name())
            if symbol.is_referenced() and (scope is table or symbol.is_global()):
                used.add(symbol.get_name())
    return _Names(frozenset(bound), frozenset(used))


def _scopes(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _scopes(child)


def judge(place: Place, completion: str, ended: bool, prefix: str, suffix: str) -> Verdict:
    """How a completion is wrong. Where several kinds fit, the first of this list names it:

    suffix_repeat   writes again what stands behind the hole
    overrun         the truth and then more; its first line right and more lines than it has; or no end within the limit
    prefix_repeat   writes again what stands before the hole
    underrun        a beginning of the truth, ended
    syntax          the file is Python with the truth and is not with the completion
    undefined_name  uses a name that nothing defines, which the truth does not
    near_miss       alike (NEAR), with a name or word that the truth does not have
    wrong           none of these
    """
    truth, evidence = place.truth, {"ended": ended}
    mine, true = completion.strip(), truth.strip()
    if mine == true:
        return Verdict(None, {}, "right")
    if repeats_suffix(completion, truth, suffix):
        return Verdict("suffix_repeat", evidence)
    if runs_over(completion, truth) or not ended:
        return Verdict("overrun", {**evidence, "extra_chars": len(mine) - len(true)})
    if repeats_prefix(completion, truth, prefix):
        return Verdict("prefix_repeat", evidence)
    if true.startswith(mine):
        return Verdict("underrun", {**evidence, "missing_chars": len(true) - len(mine)})
    if place.judges_syntax:
        if not place.parses(completion):
            return Verdict("syntax", {**evidence, "parses_with_truth": True, "whole_file": place.in_file})
        if place.same_syntax(completion):
            return Verdict(None, {}, "same_syntax")
        if unknown := place.undefined_names(completion):
            return Verdict("undefined_name", {**evidence, "names": unknown})
    alike, others = similarity(mine, true), wrong_words(mine, true)
    if NEAR[0] <= alike <= NEAR[1] and others:
        return Verdict("near_miss", {**evidence, "names": others})
    return Verdict("wrong", evidence)


def runs_over(completion: str, truth: str) -> bool:
    """Whether a completion is the truth and more, or gets the first line right and has more lines."""
    lines, own = completion.strip().split("\n"), truth.strip().split("\n")
    return overruns(completion, truth) or (lines[0].strip() == own[0].strip() and len(lines) > len(own))
