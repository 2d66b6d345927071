"""The brackets, strings and comments around a cursor: which are open there, and which of them the text behind it closes.

In:  text before and after a cursor, its language
Out: `Around`: the brackets open at the cursor and those of them that nothing closes, the string or comment it stands in;
     `Lexer`: the brackets of a text that grows, those in strings and comments left out

One regular expression per language finds strings, comments and brackets. A parser would want the whole file, and a guess at what the
half-written line will be; this wants neither, and a window costs it less than a millisecond. What lies before the window is unknown, as
is what a client did not send: where counting cannot tell whether a bracket is closed later, indentation does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

TAB = 4  # columns, for comparing indentation only
OPENERS, CLOSERS = "([{", ")]}"
CLOSER_OF = dict(zip(OPENERS, CLOSERS, strict=True))
BEFORE, AFTER = 6000, 3000  # characters of either side that are looked at
DEEPEST = 24  # open brackets that are looked at
TAIL = 16  # characters at the end of a growing text in which a string may have begun without showing it yet

# With one of these a declaration at top level begins
TOP_LEVEL = {
    "python": ("def ", "class ", "async def ", "@", "if __name__", "import ", "from "),
    "javascript": ("function ", "class ", "export ", "import ", "const ", "async function "),
    "typescript": ("function ", "class ", "export ", "import ", "interface ", "type ", "const ", "async function "),
    "go": ("func ", "type ", "import ", "package ", "var ", "const "),
    "rust": ("fn ", "pub ", "impl ", "struct ", "enum ", "trait ", "mod ", "use "),
    "java": ("public ", "private ", "class ", "interface ", "import ", "package "),
}
BRACES = frozenset({"javascript", "typescript", "java", "go", "rust", "c", "cpp", "csharp", "php", "kotlin", "swift", "scala"})
# `\Z` ends what is not closed yet. A string of one line ends with the line, closed or not
LINE_STRING = r'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+(?:"|(?=\n)|\\?\Z)'
QUOTED = LINE_STRING.replace('"', "'")
TRIPLE = r'"""[^"\\]*+(?:(?:\\.|"{1,2}(?!"))[^"\\]*+)*+(?:"""|"{0,2}\\?\Z)'
TEMPLATE = r"[^`\\$]*+(?:(?:\\.|\$(?!\{))[^`\\$]*+)*+(?:`|\$\{|[\\$]?\Z)"
SLASHES = r"//[^\n]*+|/\*[^*]*+(?:\*(?!/)[^*]*+)*+(?:\*/|\*?\Z)"
TOKENS = {
    "python": rf"#[^\n]*+|{TRIPLE}|{TRIPLE.replace(chr(34), chr(39))}|{LINE_STRING}|{QUOTED}",
    "javascript": rf"{SLASHES}|(?P<template>`{TEMPLATE})|{LINE_STRING}|{QUOTED}|(?P<slash>/)",
    "java": rf"{SLASHES}|{TRIPLE}|{LINE_STRING}|{QUOTED}",
    "go": rf"{SLASHES}|`[^`]*+(?:`|\Z)|{LINE_STRING}|{QUOTED}",
    "rust": rf'{SLASHES}|\bb?r(?P<hashes>#*)"(?:[^"]|"(?!(?P=hashes)))*+(?:"(?P=hashes)|\Z)|"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
    r"|'(?:\\[^\n']+|\\'|[^\\'\n])'|'(?:\\[^\n']*+|[^\\'\n])?\Z|'\w+",
    "c": rf"{SLASHES}|^[ \t]*#[ \t]*(?P<directive>[a-z]*)(?:\\\n|[^\n])*+|{LINE_STRING}|(?<![0-9a-fA-F]){QUOTED}",
    "": rf"{LINE_STRING}|{QUOTED}",
}
LIKE = {"typescript": "javascript", "cpp": "c", "csharp": "java", "kotlin": "java", "scala": "java", "swift": "java", "php": "java"}
TEMPLATE_GOES_ON = re.compile(TEMPLATE, re.DOTALL)
REGEX = re.compile(r"/(?:\\.|\[(?:\\.|[^\]\\\n])*+(?:\]|\\?(?=\n)|\\?\Z)|[^/\\\n\[])*+(?:/|\\?(?=\n)|\\?\Z)")
BEFORE_REGEX = re.compile(r"(?:[(,=:\[!&|?{};+*%~^-]|=>|\breturn|\btypeof|\bcase|\A)\s*\Z")  # there a slash begins a regular expression
OPENING = re.compile(r"\"\"\"|'''|/\*|//|[\"'`#]|\bb?r#*\"")
# What holds declarations, each for itself, rather than the steps of one thing
HOLDER = re.compile(
    r"\s*(?:(?:export|default|public|private|protected|internal|abstract|static|final|sealed|open|data|partial|unsafe|declare|inline"
    r"|pub(?:\([^)]*\))?|template\s*<[^{]*>)\s+)*+"
    r"(?:class|interface|@interface|namespace|impl|trait|mod|module|record|object|extern|enum class)\b"
)
# Not indented like its neighbours
LABEL = re.compile(r"\s*(?:case\b|default\s*:|\w+:\s*\Z|#\s*(?:if|el|endif|define|undef|include|pragma))")
WRAPPED = re.compile(r"\s*(?:throws|where|extends|implements|requires|->|:|&&|\|\|)")  # a line that goes on with a statement
ALONE = re.compile(r"\s*(?://|/\*|\*|#|@|(?:else|do|try|default)\b)")  # a line that no statement begins on
HEADER = 12  # lines at most that a statement takes before its brace
TOP_OF_FILE = re.compile(r"\n(?=[A-Za-z@#/])")  # a line that belongs to nothing above it, mostly


def columns(line: str) -> int:
    """Width of a line's indentation."""
    expanded = line.expandtabs(TAB)
    return len(expanded) - len(expanded.lstrip())


@cache
def _pattern(lang: str) -> re.Pattern[str]:
    return re.compile(rf"{TOKENS[lang]}|(?P<bracket>[()\[\]{{}}])", re.DOTALL | re.MULTILINE)


class Bracket(NamedTuple):
    """A bracket and where it stands in the text."""

    at: int
    kind: str  # one of ()[]{}; in C also #if, #else and #endif


class Lexer:
    """Finds the brackets of a text that may still grow; the same ones whatever pieces it comes in."""

    def __init__(self, lang: str | None) -> None:
        name = LIKE.get(lang or "", lang or "")
        self.lang = name if name in TOKENS else ""
        self.pattern = _pattern(self.lang)
        self.at = 0  # characters read for good
        self.open_at = -1  # where the string or comment begins that the text read last ends in or with
        self.braces: list[bool] = []  # of those open: whether a template's text goes on behind it
        self.in_template = False  # it does at `at`

    def read(self, text: str, end: int, final: bool = False) -> Iterator[Bracket]:
        """The brackets before `end` that were not given yet. `final`: nothing follows."""
        self.open_at = -1
        while match := (TEMPLATE_GOES_ON.match if self.in_template else self.pattern.search)(text, self.at, end):
            kind, stop = "template" if self.in_template else match.lastgroup, match.end()
            if kind == "slash" and BEFORE_REGEX.search(text, max(0, match.start() - TAIL), match.start()):
                found = REGEX.match(text, match.start(), end)
                stop = found.end() if found else stop
            if stop == end and kind != "bracket":
                self.open_at = match.start()
                if not final:
                    self.at = match.start()
                    return
            self.at = stop
            if kind == "bracket":
                yield self._bracket(match)
            elif kind == "template":
                self.in_template = False
                if match[0].endswith("${"):
                    self.braces.append(True)
                    yield Bracket(stop - 1, "{")
                elif stop == end:
                    return
            elif kind == "directive" and match["directive"].startswith(("if", "el", "endif")):
                yield Bracket(match.start(), "#" + match["directive"][:2])
        self.at = max(self.at, end if final else end - TAIL)

    def _bracket(self, match: re.Match[str]) -> Bracket:
        if match[0] == "{":
            self.braces.append(False)
        elif match[0] == "}" and self.braces:
            self.in_template = self.braces.pop()
        return Bracket(match.start(), match[0])

    def settled(self, text: str) -> int:
        """Characters of the text in which no further bracket can turn up."""
        if self.lang == "rust" and self.open_at >= 0 and text[self.open_at] == "'":
            return self.open_at  # ')' is a character, ') is not
        return len(text)


class Opened(NamedTuple):
    """A bracket that is open at the cursor."""

    kind: str
    indent: int  # columns of the statement that it belongs to
    inner: int  # columns of the lines in it
    holder: bool  # a class, namespace or the like
    last: bool  # nothing stands between it and the cursor
    begun: bool  # it stands on the cursor's line with something behind it
    loop: bool  # `do`: a `while` belongs to it


class Around(NamedTuple):
    """What is open at a cursor, innermost first."""

    open: tuple[Opened, ...]
    missing: int  # of them, from the innermost on, that nothing behind the cursor closes
    lead: str  # what a lexer must be given before the completion: the beginning of the string or comment that the cursor stands in
    inside: bool  # it stands in a string or comment


def around(prefix: str, suffix: str, lang: str | None) -> Around:
    """Look at the brackets on both sides of a cursor."""
    text = prefix[_window(prefix, lang) :]
    lexer = Lexer(lang)
    stack = _stack(lexer.read(text, len(text)))
    inside = _stands_inside(text, lexer, suffix)
    lead = _lead(text, lexer.open_at) if inside else text[max(lexer.at, text.rfind("\n") + 1, len(text) - TAIL) :]
    opened = tuple(_opened(text, bracket) for bracket in stack[: -DEEPEST - 1 : -1])
    return Around(opened, _missing(opened, lead, suffix, lexer, len(text) == len(prefix)) if opened else 0, lead, inside)


def _window(prefix: str, lang: str | None) -> int:
    """Where to begin to read: at a declaration at top level, where no string or comment is open."""
    if len(prefix) <= BEFORE:
        return _begun_before(prefix, lang)
    least = len(prefix) - BEFORE
    found = [at for at in (prefix.find("\n" + word, least) for word in TOP_LEVEL.get(lang or "", ())) if at != -1]
    start = None if found else TOP_OF_FILE.search(prefix, least)
    return min(found) + 1 if found else start.end() if start else prefix.find("\n", least) + 1 or least


def _begun_before(text: str, lang: str | None) -> int:
    """Offset behind a docstring or comment in which an editor's window began; 0 where it did not."""
    if lang != "python":
        end, begin = text.find("*/"), text.find("/*")
        return end + 2 if lang in BRACES and end != -1 and not -1 < begin < end else 0
    at = min((found for found in (text.find('"""'), text.find("'''")) if found != -1), default=-1)
    if at == -1:
        return 0
    begin, stop = text.rfind("\n", 0, at) + 1, text.find("\n", at)
    before = text[begin:at].strip()
    alone = not before and not text[at + 3 : stop if stop != -1 else None].strip()
    last = text[:begin].rstrip()[-1:] if alone else before.rstrip("rRbBfFuU")[-1:]  # what a string goes on from
    return 0 if not last or last in "=([{,:+%" or before.endswith("return") else at + 3


def _stands_inside(text: str, lexer: Lexer, suffix: str) -> bool:
    """Whether the text ends in a string or comment, not just behind a string."""
    if lexer.open_at < 0:
        return False
    match = lexer.pattern.match(text + "\0", lexer.open_at)
    return match is not None and match.end() > len(text) and text[lexer.open_at :] != "/"


def _lead(text: str, at: int) -> str:
    opening = OPENING.match(text, at)
    return opening[0] if opening else text[at : at + 1]


def _stack(brackets: Iterator[Bracket]) -> list[Bracket]:
    """What is left open. Of the branches of an #if the last counts."""
    stack: list[Bracket] = []
    branches: list[list[Bracket]] = []
    for bracket in brackets:
        if bracket.kind in OPENERS:
            stack.append(bracket)
        elif bracket.kind == "#if":
            branches.append(list(stack))
        elif bracket.kind == "#el" and branches:
            stack = list(branches[-1])
        elif bracket.kind == "#en" and branches:
            branches.pop()
        elif bracket.kind in CLOSERS:
            _close(stack, bracket.kind)
    return stack


def _close(stack: list[Bracket], closer: str) -> bool:
    """Take the bracket that a closer closes off the stack, with what was left open inside it; False if there is none."""
    for index in range(len(stack) - 1, -1, -1):
        if CLOSER_OF[stack[index].kind] == closer:
            del stack[index:]
            return True
    return False


def _opened(text: str, bracket: Bracket) -> Opened:
    begin = text.rfind("\n", 0, bracket.at) + 1
    head = text[begin : bracket.at]
    if bracket.kind == "{":
        head = _header(text, begin, head)
    behind = text[bracket.at + 1 :]
    same_line, _, lines = behind.partition("\n")
    first = next((line for line in lines.split("\n", HEADER) if line.strip() and not LABEL.match(line)), None)
    indent = columns(head + ".")
    inner = columns(first) if first is not None and not same_line.strip() else indent + 1
    last = not behind.strip()
    return Opened(bracket.kind, indent, inner, bool(HOLDER.match(head)), last, not last and "\n" not in behind, head.split()[-1:] == ["do"])


def _header(text: str, begin: int, head: str) -> str:
    """What stands before a brace from the line on in which its statement began."""
    alone = columns(head + ".") if not head.strip() else -1  # a brace on a line of its own stands below the beginning
    for _ in range(HEADER):
        start = text.rfind("\n", 0, max(0, begin - 1)) + 1
        above = text[start : begin - 1]
        begun = columns(above) <= alone if alone >= 0 and not head.strip() else not _goes_on(head, above)
        if begin == 0 or (head.strip() and alone < 0 and begun):
            break
        begin, head = start, above if alone >= 0 else above + "\n" + head
        if alone >= 0 and head.strip() and columns(head) <= alone and not WRAPPED.match(head):
            break
    return head if alone < 0 else " " * alone + head.lstrip()


def _goes_on(head: str, above: str) -> bool:
    """Whether a line goes on with the statement of the line above it."""
    wrapped = above.rstrip()[-1:].isidentifier() and columns(above) < columns(head) and not ALONE.match(above)
    return wrapped or bool(WRAPPED.match(head)) or head.count(")") > head.count("(")


def _missing(opened: tuple[Opened, ...], lead: str, suffix: str, before: Lexer, whole: bool) -> int:
    """How many of the open brackets, from the innermost on, nothing closes.

    The next line tells where it is indented less than what stands in a brace; else the first closer behind the cursor that nothing there
    opened. Where the window holds neither, a brace is closed beyond it, any other bracket not at all: those close within a few lines.
    """
    rest, _, behind = suffix[:AFTER].partition("\n")
    braces = before.lang not in ("", "python")
    following = next((line for line in behind.splitlines() if line.strip() and not (before.lang == "c" and line.lstrip()[0] == "#")), "")
    if braces and not rest.strip() and following and following.lstrip()[0] not in CLOSERS:
        at, label = columns(following), LABEL.match(following)
        outside = next((n for n, one in enumerate(opened) if one.kind != "{" or at >= (one.indent if label else one.inner)), len(opened))
        if outside:
            return outside
    closers = _closers(lead, suffix[:AFTER], before.lang)
    if (
        whole and len(suffix) <= AFTER and braces and following[:1] == "}" and suffix.rstrip().rpartition("\n")[2].startswith("}")
    ):  # the whole file, not indented
        lacking = sum(one.kind == "{" for one in opened) - sum(closer.kind == "}" for closer in closers)
        if lacking > 0 and opened[0].kind == "{":
            return lacking
    for closer in closers:
        fitting = [n for n, one in enumerate(opened) if CLOSER_OF[one.kind] == closer.kind]
        if not rest.strip():
            fitting = [n for n in fitting if not (opened[n].begun and closer.kind == "}")]  # it is closed on its own line
        if closer.indent is not None:
            same = [n for n in fitting if opened[n].indent == closer.indent]
            if same:
                return same[0]
            if fitting and all(opened[n].indent > closer.indent for n in fitting):
                return fitting[0] if whole else len(opened)  # it closes what stands before the window
            fits = [n for n in fitting if opened[n].indent <= closer.indent < (opened[n].inner if closer.kind == "}" else 999)]
            if not fits:  # it closes what the rest of the line has yet to open, and who knows what that closes before
                return next((n for n, one in enumerate(opened) if one.kind == "{"), len(opened))
            return fits[-1] if closer.kind == "}" else fits[0]
        if fitting:
            return fitting[0]
    if braces and (rest.strip() or following):
        return next((n for n, one in enumerate(opened) if one.kind == "{" and not one.begun), len(opened))
    return len(opened)


class Closer(NamedTuple):
    """A closing bracket that closes nothing behind the cursor."""

    kind: str
    indent: int | None  # columns of its line where it begins one


def _closers(lead: str, suffix: str, lang: str) -> list[Closer]:
    text = lead + suffix
    own: list[Bracket] = []
    found = []
    for bracket in Lexer(lang).read(text, len(text), final=True):
        if bracket.kind in OPENERS:
            own.append(bracket)
        elif bracket.kind in CLOSERS and not _close(own, bracket.kind):
            begin = text.rfind("\n", 0, bracket.at) + 1
            first = begin > 0 and not text[begin : bracket.at].strip()
            found.append(Closer(bracket.kind, columns(text[begin : bracket.at + 1]) if first else None))
    return found
