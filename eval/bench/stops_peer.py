"""The peer of core.stops: where a completion ends by indentation alone, whatever the language.

In:  what stands around the cursor; a completion
Out: what is shown of it

These were our rules until the syntax came to decide; editors' plugins that send `n_indent`, or stop at less indentation, do the same.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from core.fim import Hole

TAB = 4  # columns, for comparing indentation only
OPENERS, CLOSERS, QUOTES = "([{", ")]}", "\"'`"
CLOSING = frozenset(CLOSERS + QUOTES + ":;,")  # a partial repetition of these is cut; of letters it is a coincidence

# A top-level block ends where the next one begins with one of these
TOP_LEVEL = {
    "python": ("def ", "class ", "async def ", "@", "if __name__", "import ", "from "),
    "javascript": ("function ", "class ", "export ", "import ", "const ", "async function "),
    "typescript": ("function ", "class ", "export ", "import ", "interface ", "type ", "const ", "async function "),
    "go": ("func ", "type ", "import ", "package ", "var ", "const "),
    "rust": ("fn ", "pub ", "impl ", "struct ", "enum ", "trait ", "mod ", "use "),
    "java": ("public ", "private ", "class ", "interface ", "import ", "package "),
}


def columns(line: str) -> int:
    """Width of a line's indentation."""
    expanded = line.expandtabs(TAB)
    return len(expanded) - len(expanded.lstrip())


class Place(NamedTuple):
    """What the rules need to know of where the cursor stands."""

    mode: Literal["line", "block"]
    before: str  # the cursor's line up to the cursor
    rest: str  # the same line after it, blanks stripped
    next_line: str  # the next line of the file that is not blank, right end stripped
    keywords: tuple[str, ...]

    @classmethod
    def of(cls, prefix: str, suffix: str, lang: str | None) -> Place:
        """Look at the text around a cursor; `lang` is a name of core.syntax or None."""
        before = prefix[prefix.rfind("\n") + 1 :]
        first, _, others = suffix.partition("\n")
        next_line = next((line.rstrip() for line in others.splitlines() if line.strip()), "")
        mode: Literal["line", "block"] = "line" if before.strip() or first.strip() else "block"
        return cls(mode, before, first.strip(), next_line, TOP_LEVEL.get(lang or "", ()))

    @property
    def stop(self) -> list[str]:
        """Texts at which llama-server can stop by itself."""
        return ["\n"] if self.rest else []


def shown(prefix: str, suffix: str, lang: str | None, written: str) -> str:
    """What an editor shows of a whole completion: what the evaluation judges is what the server serves."""
    cutter = Cutter(Place.of(prefix, suffix, lang))
    return cutter.feed(written) + cutter.finish()


def shown_in(hole: Hole, lang: str | None, written: str) -> str:
    """What an editor shows of a completion of a hole whose truth is known.

    A hole of whole lines is an empty line to an editor: what follows it begins on the next line, and its end is a line's end.
    """
    whole = hole.middle.endswith("\n") and (not hole.prefix or hole.prefix.endswith("\n"))
    if not whole:
        return shown(hole.prefix, hole.suffix, lang, written)
    return shown(hole.prefix, "\n" + hole.suffix, lang, written) + "\n"


class _Scan(NamedTuple):
    end: int  # characters that stay, as far as is known
    settled: int  # characters that stay whatever follows
    done: bool  # nothing that follows can be shown


class Cutter:
    """Takes a completion piece by piece and gives back what may be shown."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.text = ""  # as generated
        self.shown = 0
        self.done = False  # a rule ended it: generate no more

    def feed(self, piece: str) -> str:
        """What can be shown after this piece; "" once done."""
        if self.done:
            return ""
        self.text += piece
        scan = _scan(self.text, self.place, final=False)
        if scan.done:
            return self.finish()
        return self._show(_unheld(self.text[: scan.settled], self.place))

    def finish(self) -> str:
        """The rest that is shown, once nothing more is generated."""
        if self.done:
            return ""
        self.done = True
        return self._show(_clean(self.text[: _scan(self.text, self.place, final=True).end], self.place))

    def _show(self, end: int) -> str:
        piece = self.text[self.shown : end]
        self.shown = max(self.shown, end)
        return piece


def _scan(text: str, place: Place, final: bool) -> _Scan:
    """Go through the lines and apply the rules that end a completion."""
    start = settled = 0
    blank_before = False
    lines = text.split("\n")
    for number, line in enumerate(lines):
        complete = final or number < len(lines) - 1
        whole = place.before + line if number == 0 else line
        fresh = number > 0 or not place.before.strip()  # the line was empty before the completion
        if number > 0 and _ends_before(whole, text[:start], place, blank_before, complete):
            return _Scan(max(0, start - 1), 0, True)
        if fresh and line.strip() and place.next_line:
            if complete and whole.rstrip() == place.next_line:
                return _Scan(max(0, start - 1), 0, True)
            if not complete and place.next_line.startswith(whole.rstrip()):
                break  # it may become the next line
        if number > 0 and not complete and any(keyword.startswith(whole) for keyword in place.keywords):
            break  # it may become the next definition
        if line.strip():
            settled = start + len(line)
        blank_before = not whole.strip()
        start += len(line) + 1
    return _Scan(len(text), settled, False)


def _ends_before(line: str, written: str, place: Place, blank_before: bool, complete: bool) -> bool:
    """Whether a completion ends before this line, which is not its first."""
    if place.mode == "line":
        return bool(place.rest or written.strip())
    if not line.strip():
        return False
    indent, base = columns(line), columns(place.before)
    if base:
        return indent < base
    return indent == 0 and bool(written.strip()) and (blank_before or line.startswith(place.keywords))


def _overlap(text: str, rest: str) -> int:
    """Length of the longest end of a text that begins the rest of the line."""
    return next((size for size in range(min(len(text), len(rest)), 0, -1) if text.endswith(rest[:size])), 0)


def _unheld(text: str, place: Place) -> int:
    """Characters of settled text that its own end does not put in doubt."""
    return len(text) - _overlap(text, place.rest) if place.rest else len(text.rstrip())


def _clean(text: str, place: Place) -> int:
    """Characters left of an ended completion without trailing blanks and without a repetition of the rest of the line."""
    if not place.rest:
        return len(text.rstrip())
    text = text.rstrip("\n")
    for size in range(_overlap(text, place.rest), 0, -1):
        piece = place.rest[:size]
        if text.endswith(piece) and (piece == place.rest or CLOSING.issuperset(piece)) and _spare(piece, text, place):
            return len(text) - size
    return len(text)


def _spare(piece: str, text: str, place: Place) -> bool:
    """Whether the line is better closed without the repetition; a repetition that closes nothing is always spare."""
    if not set(piece) & set(OPENERS + CLOSERS + QUOTES):
        return True
    without = place.before + text[: -len(piece)] + place.rest
    return unclosed(without) < unclosed(place.before + text + place.rest)


def unclosed(line: str) -> int:
    """How far brackets and quotes of a line are from balanced."""
    opened, astray = 0, 0
    for character in line:
        if character in OPENERS:
            opened += 1
        elif character in CLOSERS:
            opened, astray = (opened - 1, astray) if opened else (0, astray + 1)
    return opened + astray + sum(line.count(quote) % 2 for quote in QUOTES)
