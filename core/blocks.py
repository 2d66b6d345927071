"""The brackets, strings and comments around a cursor: which are open there, and which of them the text behind it closes.

In:  text before and after a cursor, its language
Out: `Around`: the brackets open at the cursor and those of them that nothing closes, the string or comment it stands in;
     `Lexer`: the brackets of a text that grows, those in strings and comments left out

One regular expression per language finds strings, comments and brackets. A parser would want the whole file, and a guess at what the
half-written line will be; this wants neither. A window costs it some 150 microseconds, at every further key in the same line 30. What lies
before the window is unknown, as is what a client did not send: where counting cannot tell whether a bracket is closed later, indentation
does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from typing import NamedTuple

TAB = 4  # columns, for comparing indentation only
OPENERS, CLOSERS = "([{", ")]}"
ALL_BRACKETS = frozenset(OPENERS + CLOSERS)
CLOSER_OF = dict(zip(OPENERS, CLOSERS, strict=True))
BEFORE, AFTER = 6000, 3000  # characters of either side that are looked at
DEEPEST = 24  # open brackets that are looked at
EDGES = frozenset("/\"'`#$*\\")  # characters that may begin a string or comment together with those beside them
PLACES = 16  # of which what was read is kept for the next key
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
PLAIN = r"[^()\[\]{}\"'`/#\\\n]*+"
BRACKETS = rf"\((?:{PLAIN}\))?|\[(?:{PLAIN}\])?|\{{(?:{PLAIN}\}})?|\)|\]|\}}"  # one that is closed at once is skipped with what it holds
# Every alternative begins with a character of its own: that lets the search skip all others quickly
TOKENS = {
    "python": rf"#[^\n]*+|{TRIPLE}|{TRIPLE.replace(chr(34), chr(39))}|{LINE_STRING}|{QUOTED}",
    "javascript": rf"{SLASHES}|`(?P<template>{TEMPLATE})|{LINE_STRING}|{QUOTED}|/(?P<slash>)",
    "java": rf"{SLASHES}|{TRIPLE}|{LINE_STRING}|{QUOTED}",
    "go": rf"{SLASHES}|`[^`]*+(?:`|\Z)|{LINE_STRING}|{QUOTED}",
    "rust": rf'{SLASHES}|r(?<![ac-zA-Z0-9_]r)(?P<hashes>#*)"(?:[^"]|"(?!(?P=hashes)))*+(?:"(?P=hashes)|\Z)'
    r'|"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
    r"|'(?:\\[^\n']+|\\'|[^\\'\n])'|'(?:\\[^\n']*+|[^\\'\n])?\Z|'\w+",
    "c": rf'{SLASHES}|R"(?P<mark>[^()\\\s]{{0,16}})(?:\((?:[^)]|\)(?!(?P=mark)"))*+(?:\)(?P=mark)"|\Z)|\Z)'
    rf"|#[ \t]*(?P<directive>[a-z]*)(?:\\\n|[^\n])*+|{LINE_STRING}|'(?<![0-9a-fA-F]'){QUOTED[1:]}",
    "": rf"{LINE_STRING}|{QUOTED}",
}
LIKE = {"typescript": "javascript", "cpp": "c", "csharp": "java", "kotlin": "java", "scala": "java", "swift": "java", "php": "java"}
TEMPLATE_GOES_ON = re.compile(TEMPLATE, re.DOTALL)
REGEX = re.compile(r"/(?:\\.|\[(?:\\.|[^\]\\\n])*+(?:\]|\\?(?=\n)|\\?\Z)|[^/\\\n\[])*+(?:/|\\?(?=\n)|\\?\Z)")
BEFORE_REGEX = re.compile(r"(?:[(,=:\[!&|?{};+*%~^-]|=>|\breturn|\btypeof|\bcase|\A)\s*\Z")  # there a slash begins a regular expression
OPENING = re.compile(r"(?:u8|[uUL])?R\"[^()\\\s]*\(|\"\"\"|'''|/\*|//|[\"'`#]|\bb?r#*\"")
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
HEADER = 40  # lines at most that a statement takes before its brace
DIRECTIVE = re.compile(r"^[ \t]*#(?:\\\n|[^\n])*+\n?", re.MULTILINE)
COMMENTS = re.compile(SLASHES, re.DOTALL)
TOP_OF_FILE = re.compile(r"\n(?=[A-Za-z@#/])")  # a line that belongs to nothing above it, mostly


def columns(line: str) -> int:
    """Width of a line's indentation."""
    expanded = line.expandtabs(TAB)
    return len(expanded) - len(expanded.lstrip())


@cache
def _pattern(lang: str) -> re.Pattern[str]:
    return re.compile(f"{TOKENS[lang]}|{BRACKETS}", re.DOTALL)


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

    def copy(self) -> Lexer:
        """Another that goes on from here."""
        other = Lexer.__new__(Lexer)
        other.__dict__.update(self.__dict__)
        other.braces = list(self.braces)
        return other

    def read(self, text: str, end: int, final: bool = False) -> Iterator[Bracket]:
        """The brackets before `end` that were not given yet. `final`: nothing follows."""
        self.open_at = -1
        while match := (TEMPLATE_GOES_ON.match if self.in_template else self.pattern.search)(text, self.at, end):
            start, stop = match.span()
            kind = "template" if self.in_template else match.lastgroup
            if kind is None and (bracket := text[start]) in ALL_BRACKETS:
                self.at = stop
                if stop == start + 1:
                    self._nest(bracket)
                    yield Bracket(start, bracket)
                continue
            if kind == "slash" and BEFORE_REGEX.search(text, max(0, start - TAIL), start):
                found = REGEX.match(text, start, end)
                stop = found.end() if found else stop
            if stop == end:
                self.open_at = start
                if not final:
                    self.at = start
                    return
            self.at = stop
            if kind == "template":
                self.in_template = False
                if match[0].endswith("${"):
                    self.braces.append(True)
                    yield Bracket(stop - 1, "{")
                elif stop == end:
                    return
            elif kind == "directive" and match["directive"].startswith(("if", "el", "endif")):
                yield Bracket(start, "#" + match["directive"][:2])
        self.at = max(self.at, end if final else end - TAIL)

    def _nest(self, bracket: str) -> None:
        if bracket == "{":
            self.braces.append(False)
        elif bracket == "}" and self.braces:
            self.in_template = self.braces.pop()

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
    bare: bool  # nothing but comments does
    here: bool  # it stands on the cursor's line
    loop: bool  # `do`: a `while` belongs to it
    labelled: bool  # it stands behind a label: the next label is not in it


class Around(NamedTuple):
    """What is open at a cursor, innermost first."""

    open: tuple[Opened, ...]
    missing: int  # of them, from the innermost on, that nothing behind the cursor closes
    lead: str  # what a lexer must be given before the completion: the beginning of the string or comment that the cursor stands in
    inside: bool  # it stands in a string or comment


def around(prefix: str, suffix: str, lang: str | None) -> Around:
    """Look at the brackets on both sides of a cursor. What stands above its line is read once, however much is typed in it."""
    line = max(prefix.rfind("\n") + 1, len(prefix) - BEFORE)
    begin = _window(prefix, line, lang)
    text, line = prefix[begin:], max(begin, line) - begin
    above = _above(text[:line], lang)
    lexer, stack = above.lexer.copy(), above.stack.copy()
    stack.read(lexer.read(text, len(text)))
    inside = _stands_inside(text, lexer)
    lead = text[max(lexer.at, line, len(text) - TAIL) :]
    if inside:
        lead = "`" if lexer.in_template else _lead(text, lexer.open_at)
    opened = tuple(above.known(bracket) or _opened(text, bracket) for bracket in stack.open[: -DEEPEST - 1 : -1])
    if not opened:
        return Around((), 0, lead, inside)
    missing = _missing(opened, Behind.of(suffix, lead, inside, lexer.lang), lead, begin == 0)
    return Around(opened, missing, lead, inside)


def _window(prefix: str, line: int, lang: str | None) -> int:
    """Where to begin to read: at a declaration at top level, where no string or comment is open. `line`: where the cursor's begins."""
    if line <= BEFORE:
        return _begun_before(prefix, lang)
    least = line - BEFORE if prefix[line - 1] == "\n" else line  # of a line so long only the end is read
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


def _stands_inside(text: str, lexer: Lexer) -> bool:
    """Whether the text ends in a string or comment, not just behind a string."""
    if lexer.open_at < 0:
        return False
    match = (TEMPLATE_GOES_ON if lexer.in_template else lexer.pattern).match(text + "\0", lexer.open_at)
    return match is not None and match.end() > len(text) and text[lexer.open_at :] != "/"


def _lead(text: str, at: int) -> str:
    opening = OPENING.match(text, at)
    return opening[0] if opening else text[at : at + 1]


class _Stack:
    """What is left open of the brackets read so far. Of the branches of an #if the last counts."""

    def __init__(self, brackets: Iterable[Bracket] = ()) -> None:
        self.open: list[Bracket] = []
        self.branches: list[list[Bracket]] = []  # what was open where each #if began
        self.read(brackets)

    def read(self, brackets: Iterable[Bracket]) -> None:
        for bracket in brackets:
            if bracket.kind in OPENERS:
                self.open.append(bracket)
            elif bracket.kind == "#if":
                self.branches.append(list(self.open))
            elif bracket.kind == "#el" and self.branches:
                self.open = list(self.branches[-1])
            elif bracket.kind == "#en" and self.branches:
                self.branches.pop()
            elif bracket.kind in CLOSERS:
                _close(self.open, bracket.kind)

    def copy(self) -> _Stack:
        other = _Stack()
        other.open, other.branches = list(self.open), list(self.branches)
        return other


class _Above(NamedTuple):
    """The text above the cursor's line, read: the same for every key typed in it."""

    lexer: Lexer
    stack: _Stack
    opened: dict[Bracket, Opened]

    def known(self, bracket: Bracket) -> Opened | None:
        """What is known of a bracket of an earlier line; None if the cursor's line has something to say about it."""
        one = self.opened.get(bracket)
        return None if one is None or one.bare or one.inner == one.indent + 1 else one


@lru_cache(maxsize=PLACES)
def _above(text: str, lang: str | None) -> _Above:
    lexer = Lexer(lang)
    stack = _Stack(lexer.read(text, len(text)))
    return _Above(lexer, stack, {bracket: _opened(text, bracket)._replace(here=False) for bracket in stack.open[-DEEPEST:]})


def _close(stack: list[Bracket], closer: str) -> bool:
    """Take the bracket that a closer closes off the stack, with what was left open inside it; False if there is none."""
    if stack and CLOSER_OF[stack[-1].kind] == closer:
        stack.pop()
        return True
    for index in range(len(stack) - 2, -1, -1):
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
    return Opened(
        kind=bracket.kind,
        indent=indent,
        inner=inner,
        holder=bool(HOLDER.match(head)),
        last=not behind.strip(),
        bare=not COMMENTS.sub("", behind).strip(),
        here="\n" not in behind,
        loop=head.split()[-1:] == ["do"],
        labelled=bool(LABEL.match(head)),
    )


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
    wrapped = above.partition("//")[0].rstrip()[-1:].isidentifier() and columns(above) < columns(head) and not ALONE.match(above)
    return wrapped or bool(WRAPPED.match(head)) or head.count(")") > head.count("(")


class Closer(NamedTuple):
    """A closing bracket that closes nothing behind the cursor."""

    kind: str
    indent: int | None  # columns of its line where it begins one


class Behind(NamedTuple):
    """What stands behind the cursor."""

    rest: str  # of its line, blanks stripped
    following: str  # the next line that is not blank; in C, no directive
    at_end: bool  # the text holds the end of the file, and that is a brace that is not indented
    closers: tuple[Closer, ...]
    braces: bool  # a language with braces

    @classmethod
    def of(cls, suffix: str, lead: str, inside: bool, lang: str) -> Behind:
        """Look at a window of the text behind a cursor."""
        rest, _, below = suffix[:AFTER].partition("\n")
        if lang == "c":
            below = DIRECTIVE.sub("", below)
        following = next((line for line in below.splitlines() if line.strip()), "")
        at_end = len(suffix) <= AFTER and below.rstrip().rpartition("\n")[2].startswith("}")
        closers = _closers(lead if inside or _touch(lead, rest) else "", suffix[:AFTER], lang)
        return cls(rest.strip(), following, at_end, closers, lang not in ("", "python"))

    @property
    def goes_on(self) -> bool:
        """Whether the cursor's line is at its end, and the next does not begin by closing."""
        return not self.rest and bool(self.following) and self.following.lstrip()[0] not in CLOSERS


def _missing(opened: tuple[Opened, ...], behind: Behind, lead: str, whole: bool) -> int:
    """How many of the open brackets, from the innermost on, nothing closes.

    The next line tells where it is indented less than what stands in a brace; else what closes behind the cursor. Where the window holds
    neither, a brace is closed beyond it, any other bracket not at all: those close within a few lines. `whole`: the text before the cursor
    holds the beginning of the file.
    """
    outside = _outside(opened, behind)
    if opened[0].here and (found := _missing_of_statement(opened, behind, outside, lead)) is not None:
        return found
    if outside:
        return outside
    if whole and behind.at_end and behind.following.startswith("}") and opened[0].kind == "{":
        lacking = sum(one.kind == "{" for one in opened) - sum(closer.kind == "}" for closer in behind.closers)
        if lacking > 0:
            return lacking
    return _missing_by_closer(opened, behind, whole)


def _outside(opened: tuple[Opened, ...], behind: Behind) -> int:
    """How many braces, from the innermost on, the next line is not indented enough to stand in."""
    if not behind.braces or not behind.goes_on:
        return 0
    at, label = columns(behind.following), LABEL.match(behind.following)
    stands_in = (n for n, one in enumerate(opened) if one.kind != "{" or at >= (one.indent + one.labelled if label else one.inner))
    return next(stands_in, len(opened))


def _missing_of_statement(opened: tuple[Opened, ...], behind: Behind, outside: int, lead: str) -> int | None:
    """How many of the brackets of a statement, the last of them opened on the cursor's line, nothing closes; None: that cannot be told.

    What closes behind the cursor closes what is open in its order: all from some bracket on, up to the first brace of an earlier line.
    Where nothing stands right of the cursor and the next line does not begin by closing, the line is taken to close what it opened: it
    may well open another bracket at its end, and closing that is what comes behind. Not so behind a brace that it ends in.
    """
    here = next((n for n, one in enumerate(opened) if not one.here), len(opened))
    statement = next((n for n, one in enumerate(opened) if not one.here and one.kind == "{"), len(opened))
    closers, least = behind.closers, outside
    if behind.goes_on:
        hangs = opened[0].last and not lead and opened[0].kind != "(" and not outside and closers[:1] and closers[0].indent is not None
        if hangs and _closes_in_order(opened, closers, statement):
            return 0
        least = max(here, outside)
    yet_to_open = closers[:1] and closers[0].kind == "}" and closers[0].indent in {one.indent for one in opened[:statement]}
    for some in (closers, closers[1:]) if yet_to_open else (closers,):
        for missing in range(least, statement + 1):
            if _closes_in_order(opened[missing:], some, statement - missing):
                return missing
    return least or None


def _closes_in_order(opened: tuple[Opened, ...], closers: tuple[Closer, ...], here: int) -> bool:
    """Whether closers fit what is open, one after the other, up to the first brace that is not among the first so many."""
    for number, (one, closer) in enumerate(zip(opened, closers, strict=False)):
        if CLOSER_OF[one.kind] != closer.kind:
            return False
        if closer.indent is not None and (closer.indent != one.indent if one.kind == "{" else closer.indent < one.indent):
            return False
        if number >= here and one.kind == "{":
            return True
    return len(closers) >= here and len(closers) <= len(opened)


def _missing_by_closer(opened: tuple[Opened, ...], behind: Behind, whole: bool) -> int:
    """How many of the open brackets nothing closes, by the first closer behind the cursor that can be told to close one of them."""
    for closer in behind.closers:
        fitting = [n for n, one in enumerate(opened) if CLOSER_OF[one.kind] == closer.kind]
        if not behind.rest and closer.kind == "}":  # a brace with something behind it on the cursor's line is closed on that line
            fitting = [n for n in fitting if opened[n].last or not opened[n].here]
        if closer.indent is None:
            if fitting:
                return fitting[0]
            continue
        if same := [n for n in fitting if opened[n].indent == closer.indent]:
            return same[0]
        if fitting and all(opened[n].indent > closer.indent for n in fitting):
            return fitting[0] if whole else len(opened)  # it closes what stands before the window
        fits = [n for n in fitting if opened[n].indent <= closer.indent and (closer.kind != "}" or closer.indent < opened[n].inner)]
        if not fits:  # it closes what the rest of the line has yet to open, and who knows what that closes before
            return next((n for n, one in enumerate(opened) if one.kind == "{"), len(opened))
        return fits[-1] if closer.kind == "}" else fits[0]
    if behind.braces and (behind.rest or behind.following):
        return next((n for n, one in enumerate(opened) if one.kind == "{" and (one.last or not one.here)), len(opened))
    return len(opened)


def _ends_with_completion(lead: str, suffix: str) -> bool:
    """Whether the comment that the cursor stands in ends before the text behind it: there another begins first, or none ends."""
    end, begin = suffix.find("*/"), suffix.find("/*")
    return lead == "/*" and (end == -1 or -1 < begin < end)


def _touch(lead: str, rest: str) -> bool:
    """Whether a string or comment may begin where the text before the cursor and behind it meet."""
    return rest.lstrip()[:1] in EDGES or (lead[-1:] in EDGES and bool(rest.strip()))


@lru_cache(maxsize=PLACES)
def _closers(lead: str, suffix: str, lang: str) -> tuple[Closer, ...]:
    if _ends_with_completion(lead, suffix):
        lead = ""
    text = lead + suffix
    own: list[Bracket] = []
    found: list[Closer] = []
    for bracket in Lexer(lang).read(text, len(text), final=True):
        if bracket.kind in OPENERS:
            own.append(bracket)
        elif bracket.kind in CLOSERS and not _close(own, bracket.kind):
            begin = text.rfind("\n", 0, bracket.at) + 1
            first = begin > 0 and not text[begin : bracket.at].strip()
            found.append(Closer(bracket.kind, columns(text[begin : bracket.at + 1]) if first else None))
    return tuple(found)
