"""Parse languages other than Python with tree-sitter, in bounded time and memory whatever the text is.

In:  source text and its language
Out: a Tree: named nodes, comments and pieces worth retrieving, in characters and lines of the text; None where a bound was met

tree-sitter always gives a tree; what it could not read is an ERROR or MISSING node in it. A grammar is not the compiler:
it lacks a few things that compilers accept. Share of real files with an error in their tree: Java 0.0% (621 of the JDK),
JavaScript 0.2% (1,500 of npm packages), Go 0.6% (1,500, all of them written to be wrong or cut short), Rust 1.8% (784 of
crates, most for the `try!` of 2015), TypeScript 6% (1,499 of npm, 4 of the 6 for one package's copies of one line). For C
and C++ it says nothing, since macros stand where syntax should: 31% of the .c and 16% of the .cpp of llama.cpp, 48% to 66% of
the headers of /usr/include, torch and boost.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import re
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tree_sitter import Language, Node, Parser
from tree_sitter import Tree as Parsed

from core.errors import InputError

GRAMMARS = {  # package and the name of its function
    "javascript": ("tree_sitter_javascript", "language"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
    "tsx": ("tree_sitter_typescript", "language_tsx"),
    "java": ("tree_sitter_java", "language"),
    "go": ("tree_sitter_go", "language"),
    "rust": ("tree_sitter_rust", "language"),
    "c": ("tree_sitter_c", "language"),
    "cpp": ("tree_sitter_cpp", "language"),
}
LANGUAGES = frozenset(GRAMMARS) - {"tsx"}
MACROS = frozenset({"c", "cpp"})  # an error in the tree does not mean one in the file
# Text that another grammar reads better: JSX in TypeScript, C++ in a header that its name says is C
DIALECTS = {
    "typescript": ("tsx", re.compile(r"</|/>")),
    "c": (
        "cpp",
        re.compile(r"^[ \t]*(?:namespace\b|template[ \t]*<|class[ \t]+\w|using[ \t]|(?:public|private|protected)[ \t]*:)", re.MULTILINE),
    ),
}

# Bounds. Error recovery and ambiguity can cost more than linear time: 20 kB of `=>=>` read as Java took 51 s and 14 GB.
MAX_BYTES = 1_000_000
MAX_DEPTH = 500  # brackets open at once, counted in strings and comments too
STEPS_PER_KB = 24  # of 100 parser operations; the most seen in the files above is 19
SPARE_KB = 16
SECONDS, SECONDS_PER_MB = 0.5, 1.0  # of CPU, for what steps do not show; the files above need a quarter of it at most
READ = 4096  # bytes handed to the parser at a time

# What the walk looks at, by node type
BLOCKS = frozenset({  # that stand in braces
    "block", "class_body", "compound_statement", "constructor_body", "declaration_list", "enum_body", "enumerator_list",
    "enum_variant_list", "field_declaration_list", "interface_body", "match_block", "object_type", "statement_block",
    "switch_block", "switch_body",
})  # fmt: skip
TEXTUAL = re.compile(r"string|char_literal|character|rune|regex|escape|jsx_text")  # no syntax inside
CONTAINER = re.compile(  # cut at its members where it is too long for one piece
    r"class|interface|impl_|trait|struct|mod_item|module|namespace|export|preproc_|linkage|template|ambient|declaration_list|_body|ERROR"
)
LEADING = re.compile(r"comment|attribute_item")  # belong to what they stand above
LEAST_LINES = 3  # of a piece; smaller neighbours stay together
BRACKETS = bytes.maketrans(b"([{)]}", b"\1\1\1\xff\xff\xff")
NO_BRACKETS = bytes(set(range(256)) - set(b"([{)]}"))


class Span(NamedTuple):
    """Characters [start, end) of a text, and what they are."""

    start: int
    end: int
    kind: str


class Piece(NamedTuple):
    """Lines [first, end) of a text, from 0, and what they are."""

    first: int
    end: int
    kind: str


class Tree:
    """A text and what a grammar made of it."""

    def __init__(self, text: str, data: bytes, tree: Parsed) -> None:
        self._data, self._tree = data, tree
        self._beyond = () if text.isascii() else [run.start() for run in re.finditer(rb"[\x80-\xbf]", data)]

    @property
    def has_error(self) -> bool:
        """Whether a part could not be read."""
        return self._tree.root_node.has_error

    def nodes(self) -> Iterator[Span]:
        """Every named node with something named in it, `kind` being the grammar's node type, and every comment.

        Beside a block stands its `body`, from the first thing in the braces to the end of the last, comments at either end
        left out. Nodes with an error in them, and all that stands in an ERROR, are left out.
        """
        kinds = _kinds(self._tree.language)
        cursor = self._tree.walk()
        if cursor.node is None or cursor.node.is_error or not cursor.goto_first_child():
            return
        while True:  # not recursive: a tree may be as deep as the text is long
            node = cursor.node
            kind = kinds.get(node.kind_id)
            inside = False
            if kind == "comment":
                yield self._span(node.start_byte, node.end_byte, kind)
            elif kind is not None and node.named_child_count:
                if not node.has_error:
                    yield self._span(node.start_byte, node.end_byte, kind)
                    if kind in BLOCKS and (inner := [child for child in node.children[1:-1] if not child.is_extra]):
                        yield self._span(inner[0].start_byte, inner[-1].end_byte, "body")
                inside = cursor.goto_first_child()
            while not inside and not cursor.goto_next_sibling():
                if not cursor.goto_parent():
                    return

    def pieces(self, max_lines: int) -> Iterator[Piece]:
        """What stands at top level in three lines or more, with the comments above it; members of what is too long."""
        waiting = _below(self._tree.root_node, 0)
        while waiting:
            node, first = waiting.pop()
            end = _last_row(node) + 1
            if end - first >= LEAST_LINES:
                yield Piece(first, end, node.type)
            if end - first > max_lines and CONTAINER.search(node.type):
                waiting.extend(_below(node, first))

    def _span(self, start: int, end: int, kind: str) -> Span:
        """From bytes to characters, without the line break that some nodes end in."""
        while end > start and self._data[end - 1] in b" \t\r\n":
            end -= 1
        return Span(start - bisect_left(self._beyond, start), end - bisect_left(self._beyond, end), kind)


def _below(node: Node, begin: int) -> list[tuple[Node, int]]:
    """The children and the line from 0 where each begins, with what leads it; last first. `begin` is the parent's."""
    found: list[tuple[Node, int]] = []
    lead, lead_end, line = 0, -1, -1  # the line after the last of the leading, the last line of code
    for child in node.named_children:
        first = child.start_point.row
        if LEADING.search(child.type):
            if first > line:
                lead = lead if first <= lead_end else first
                lead_end = _last_row(child) + 1
            continue
        found.append((child, lead if first <= lead_end else begin if first == node.start_point.row else first))
        lead_end, line = -1, _last_row(child)
    return found[::-1]


def _last_row(node: Node) -> int:
    end = node.end_point
    return end.row - (end.column == 0 and end.row > node.start_point.row)


def parse(text: str, lang: str) -> Tree | None:
    """What the language's grammar, or that of a dialect the text shows signs of, makes of a text.

    Returns None where there is no grammar for `lang` or the text met a bound; an error in the text is in the tree.

    Raises:
        InputError: the package that holds the grammar is not installed.
    """
    if lang not in LANGUAGES:
        return None
    data = text.encode("utf-8", "surrogatepass")
    if len(data) > MAX_BYTES or _depth(data) > MAX_DEPTH:
        return None
    dialect, mark = DIALECTS.get(lang, (lang, None))
    names = (dialect, lang) if mark and mark.search(text) else (lang,)
    trees = []
    for name in names:
        tree = _parse(data, _language(name))
        if tree and not tree.root_node.has_error:
            return Tree(text, data, tree)
        trees.append(tree)
    return next((Tree(text, data, tree) for tree in trees if tree), None)


def _parse(data: bytes, language: Language) -> Parsed | None:
    """The tree, None where it took too many steps or too long."""
    deadline = time.thread_time() + SECONDS + SECONDS_PER_MB * len(data) / 1e6
    steps = 0

    def too_much(offset: int, _: bool) -> bool:
        nonlocal steps
        steps += 1
        return steps > STEPS_PER_KB * (offset / 1000 + SPARE_KB) or time.thread_time() > deadline

    try:
        return Parser(language).parse(lambda at, _: data[at : at + READ], progress_callback=too_much)
    except ValueError:  # "Parsing failed": it was told to stop
        return None


def _depth(data: bytes) -> int:
    """How many brackets are open at once, at most; more where they do not match."""
    open_now = [0, *itertools.accumulate(memoryview(data.translate(BRACKETS, NO_BRACKETS)).cast("b"))]
    return max(open_now) - min(open_now)


@functools.cache
def _language(name: str) -> Language:
    package, function = GRAMMARS[name]
    try:
        grammar: Callable[[], object] = getattr(importlib.import_module(package), function)
    except ImportError:
        raise InputError(f"{package} is not installed: run `pip install {package.replace('_', '-')}`") from None
    return Language(grammar())


@functools.cache
def keywords(lang: str) -> frozenset[str]:
    """The words that a language's grammar writes out: none where there is no grammar."""
    if lang not in LANGUAGES:
        return frozenset()
    grammar = _language(lang)
    written = (n for n in range(grammar.node_kind_count) if grammar.node_kind_is_visible(n) and not grammar.node_kind_is_named(n))
    return frozenset(name for number in written if (name := grammar.node_kind_for_id(number) or "").isidentifier())


@functools.cache
def _kinds(language: Language) -> dict[int, str]:
    """The node types that are looked into, by their number; all comments are one."""
    found = {}
    for number in range(language.node_kind_count):
        name = language.node_kind_for_id(number) or ""
        if language.node_kind_is_named(number) and not TEXTUAL.search(name):
            found[number] = "comment" if "comment" in name else name
    return found
