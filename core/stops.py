"""Where a completion ends, and what of it may be shown before it has ended.

In:  what stands around the cursor; the completion as it grows
Out: `Place`: one line or a block; `Cutter`: text that no later rule takes back, the same whether streamed or not

One line where the cursor's line is begun or has text to its right: it ends at the line's end, or where the brackets are closed that it
opened and that nothing behind the cursor closes; where nothing is to the right the line may first be ended and one more written.
A block on an empty line, and behind a bracket or colon that opened one. What ends a block is its language's syntax (core.blocks):

    brackets      the bracket around the cursor closes. If the text behind the cursor closes it the completion ends before it, otherwise
                  behind it and what belongs to it (`else`, `catch`)
    indentation   a line is indented less than the cursor's (Python, and where the language is unknown), brackets and strings left out
    declarations  at top level and in a class, which hold declarations for themselves, a blank line or the end of one ends it

All end before a line that is the next line of the file already, before the third of three equal lines, before the line above once more and
where a line says the same over and over; and lose a tail that repeats what stands right of the cursor. A line that only resembles the next
one does not count: where `eval stops-bench` looked, 0.5 to 5% of what people wrote holds such a line. No bracket is closed that the
completion did not open, but the missing ones around the cursor.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from core.blocks import BRACES, CLOSER_OF, CLOSERS, OPENERS, TOP_LEVEL, Around, Lexer, Opened, around, columns
from core.fim import Hole

QUOTES = "\"'`"
CLOSING = frozenset(CLOSERS + QUOTES + ":;,")  # a partial repetition of these is cut; of letters it is a coincidence
LONGEST_REST = 500  # characters right of the cursor that are looked at
TELLING = 16  # letters and digits that make a line one of its kind
KNOWN = 8  # of them that make it worth not to be written again below itself
REPEATS = 3  # lines, or pairs of lines, that are the same: the last is not shown
RUN, LONGEST_UNIT, EVERY = 80, 80, 32  # characters: a line that says the same over and over for so long, three times at least

GOES_ON = re.compile(r"\s*(?:(?:else|catch|finally|where)\b|[{)\].,;:?&|+*=<>-])")  # a line that belongs to the one before it
CONTINUES = frozenset(":?.&|+=<>-")  # one of these begins it
JOINS = re.compile(r"\s*(?:(?:else|catch|finally|where)\b|[)\].,;:?]|&&|\|\|)")  # the same, behind a closing brace
LEADS = re.compile(r"\s*(?://|/\*|\*|#|@|\[\[|template\b)")  # a line that belongs to the one after it
TYPE = re.compile(r"[\w\s*]+")
WORD = re.compile(r"\s*\w*\Z")


class Place(NamedTuple):
    """What the rules need to know of where the cursor stands."""

    mode: Literal["line", "block"]
    before: str  # the cursor's line up to the cursor
    rest: str  # the same line after it, blanks stripped
    gap: bool  # it begins with a blank
    next_line: str  # the next line of the file that is not blank, right end stripped
    line_after: str  # and the one after it, where the first says too little by itself
    line_above: str  # the last before the cursor that is not blank, right end stripped; "" where it says little
    keywords: tuple[str, ...]
    lang: str | None
    around: Around

    @classmethod
    def of(cls, prefix: str, suffix: str, lang: str | None) -> Place:
        """Look at the text around a cursor; `lang` is a name of core.syntax or None. Reads a bounded window of it."""
        before = prefix[prefix.rfind("\n") + 1 :]
        newline = suffix.find("\n")
        line = suffix[: newline if newline != -1 else None][: LONGEST_REST * 2]
        first = line.strip()
        next_line, newline = _next_line(suffix, newline)
        line_after = _next_line(suffix, newline)[0] if _says_little(next_line, lang) else ""
        line_above = _line_above(prefix)
        seen = around(prefix, suffix, lang)
        empty = not before.strip() and not first
        opens = not first and _opens_block(before, next_line, lang, seen)
        mode: Literal["line", "block"] = "block" if empty or opens else "line"
        keywords = TOP_LEVEL.get(lang or "", ())
        return cls(mode, before, first[:LONGEST_REST], line[:1].isspace(), next_line, line_after, line_above, keywords, lang, seen)

    @property
    def stop(self) -> list[str]:
        """Texts at which llama-server can stop by itself."""
        return ["\n"] if self.rest else []


def _next_line(suffix: str, newline: int) -> tuple[str, int]:
    """The first line behind this line break that is not blank, and where it ends; "" and -1 if there is none."""
    while newline != -1:
        end = suffix.find("\n", newline + 1)
        line = suffix[newline + 1 : end if end != -1 else None]
        if line.strip():
            return line.rstrip(), end
        newline = end
    return "", -1


def _line_above(prefix: str) -> str:
    """The last line with something on it, if that is enough to know it by: a row of a table may well stand twice."""
    end = len(prefix)
    while end > 0:
        begin = prefix.rfind("\n", 0, end) + 1
        if line := prefix[begin:end].rstrip():
            return line if sum(map(str.isalnum, line)) >= KNOWN else ""
        end = begin - 1
    return ""


def _says_little(line: str, lang: str | None) -> bool:
    """Whether a line may well stand twice: a decorator, a type on a line of its own, the beginning of a comment or of a loop."""
    alone = lang in ("c", "cpp") and TYPE.fullmatch(line) is not None
    opens = lang in BRACES and line.endswith(tuple(OPENERS))
    leads = line.lstrip().startswith(("@", "#[", "[[", "/*", "//", "template"))
    return (alone or opens or leads) and sum(map(str.isalnum, line)) < TELLING


def _opens_block(before: str, next_line: str, lang: str | None, seen: Around) -> bool:
    """Whether the cursor's line ends by opening a block that is not there yet."""
    if seen.inside or not before.strip() or (next_line and columns(next_line) > columns(before)):
        return False
    if lang == "python" and not seen.open:
        return before.rstrip().endswith(":")
    return bool(seen.open) and seen.open[0].last and seen.open[0].kind == before.rstrip()[-1:]


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


class Cutter:
    """Takes a completion piece by piece and gives back what may be shown.

    Every rule decides at a place of the text by what stands before it, never by where a piece ended.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.text = ""  # as generated
        self.shown = 0
        self.done = False  # a rule ended it: generate no more
        self.lexer, self.lead = Lexer(place.lang), place.around.lead
        self.own: list[str] = []  # brackets that the completion opened
        self.closed = 0  # brackets around the cursor that it closed
        self.start = self.number = self.watched = 0  # of the line that is being written
        self.entered = True  # that line is known to belong to the completion
        self.wrote = self.wrote_at_once = self.blank_before = self.began = self.inside = False
        self.doubted: int | None = None  # where a line began that repeats the file if the next one does too
        self.lines: list[str] = []  # written before it, not the blank ones
        self.base = columns(place.before)
        self.braces = place.lang in BRACES
        self.rest = _Overlap(place.rest)

    def feed(self, piece: str) -> str:
        """What can be shown after this piece; "" once done."""
        if self.done:
            return ""
        self.text += piece
        end, settled = self._read(final=False)
        if end is not None:
            return self._finish(end)
        return self._show(settled)

    def finish(self) -> str:
        """The rest that is shown, once nothing more is generated."""
        if self.done:
            return ""
        end, _ = self._read(final=True)
        return self._finish(len(self.text) if end is None else end)

    def _finish(self, end: int) -> str:
        self.done = True
        return self._show(_clean(self.text[:end], self.place))

    def _show(self, end: int) -> str:
        piece = self.text[self.shown : end]
        self.shown = max(self.shown, end)
        return piece

    def _read(self, final: bool) -> tuple[int | None, int]:
        """Read on. Where the completion ends, None if not yet; how much of it stays whatever follows."""
        text, place = self.text, self.place
        settled = self.shown
        while True:
            newline = text.find("\n", self.start)
            complete = newline != -1 or final
            end = newline if newline != -1 else len(text)
            line = text[self.start : end]
            if not self.entered:
                verdict = self._enters(line, complete)
                if verdict is None:
                    return None, settled
                if not verdict:
                    return self.start - 1, 0
                self.entered = True
            cuts = [self._brackets(end + (newline != -1), final), self._runaway(end)]
            if (cut := min((at for at in cuts if at is not None), default=None)) is not None:
                begun = text[self.start : cut].rstrip()
                doubted = self.doubted is not None and place.line_after.startswith(begun)
                return max(0, min(cut, self.doubted - 1)) if doubted and self.doubted is not None else cut, 0
            repeated = self._repeats(line, complete)
            if repeated:
                return max(0, (self.start if self.doubted is None else self.doubted) - 1), 0
            if repeated is None:
                return None, settled
            self.doubted = self._doubt(line, complete)
            if place.rest:
                settled = self._unheld(end)
            elif self.doubted is None and line.strip():
                settled = self.start + len(line.rstrip())
            if newline == -1 and final and self.doubted is not None:
                return max(0, self.doubted - 1), 0
            if newline == -1:
                certain = max(0, self.lexer.settled(self.lead + text) - len(self.lead))
                return None, settled if certain >= settled else max(self.shown, _without_blanks(text, certain))
            self._end_line(line)

    def _end_line(self, line: str) -> None:
        whole = self.place.before + line if self.number == 0 else line
        if line.strip():
            self.wrote_at_once = self.wrote_at_once or (self.number == 0 and bool(self.place.before.strip()))
            self.wrote = True
            self.lines.append(whole.rstrip())
            self.began = self.began or not LEADS.match(line)
        self.blank_before = not whole.strip()
        self.inside = self.lexer.open_at >= 0
        self.start += len(line) + 1
        self.number += 1
        self.entered = False

    def _brackets(self, end: int, final: bool) -> int | None:
        """Read the brackets up to here; where the completion closes what it must not."""
        place, seen = self.place, self.place.around
        for bracket in self.lexer.read(self.lead + self.text, len(self.lead) + end, final):
            at, kind = bracket.at - len(self.lead), bracket.kind
            if kind.startswith("#") or (at < 0 and kind in CLOSERS):
                continue  # an opening one before the cursor was taken for a part of a string until now
            if kind in OPENERS:
                self.own.append(kind)
            elif self._close(kind):
                pass
            elif self.closed < seen.missing and CLOSER_OF[seen.open[self.closed].kind] == kind:
                self.closed += 1
            elif seen.open or (self.braces and kind == "}"):
                if place.rest:
                    return at - self._repeated_before(at, kind)
                begun = self.text[self.start : at]
                whole = (place.before + begun if self.number == 0 else begun).rstrip()
                repeats = place.next_line.startswith(whole) and bool(place.line_after or self._known())  # held back till now
                return self.start - 1 if self.number and (not begun.strip() or repeats) else at
        return None

    def _repeated_before(self, at: int, closer: str) -> int:
        """Characters before a closing bracket with which the rest of the line is being written again."""
        overlap = _Overlap(self.place.rest)
        size = overlap.feed(self.text[max(0, at - LONGEST_REST) : at])
        while size and self.place.rest[size : size + 1] != closer:
            size = overlap.shorter[size - 1]
        return size

    def _close(self, closer: str) -> bool:
        """Take off what the completion opened and this closes; False if it opened no such bracket."""
        for index in range(len(self.own) - 1, -1, -1):
            if CLOSER_OF[self.own[index]] == closer:
                del self.own[index:]
                return True
        return False

    def _enters(self, line: str, complete: bool) -> bool | None:
        """Whether the completion goes on with this line, which is not its first; None: more of it must be seen."""
        place = self.place
        if place.rest:
            return False
        if place.mode == "line" and (not self.wrote or not (self.own and self._unclosed_behind())):
            return not self.wrote
        if not self.braces and self.wrote_at_once and not self.own and (self.closed or not place.around.open):
            return False  # what a colon or bracket at the end of the cursor's line began
        if not line.strip():
            return True if complete else None
        indent = columns(line)
        if not self.wrote and place.before.strip():
            self.base = indent  # a block that the cursor's line opened
        if self.inside:
            return True
        if self.own and indent >= self.base:
            return True
        if not complete and any(keyword.startswith(line) for keyword in place.keywords):
            return None
        if self.own:
            return not line.startswith(place.keywords) if place.keywords else True
        if not complete and WORD.match(line) and (self.closed or self.braces or not self.base):
            return None  # its first word may go on
        if self.braces and self.closed:
            return self._joins(line)
        if self.braces:
            return self._same_declaration(line, indent)
        if self.base:
            return indent >= self.base or self._closes_missing(line)
        return not (indent == 0 and self.wrote and (self.blank_before or (self.began and line.startswith(place.keywords))))

    def _joins(self, line: str) -> bool:
        """Whether a line belongs to the braces that were closed before it."""
        if self.blank_before:
            return False
        begins = line.lstrip()[0] == "{" and not self.lines[-1].endswith("}")  # what `else` or the like began
        return begins or bool(JOINS.match(line)) or (self.place.around.open[0].loop and line.lstrip().startswith("while"))

    def _same_declaration(self, line: str, indent: int) -> bool:
        """Whether a line of a language with braces goes on with what was begun."""
        seen = self.place.around
        one_thing = seen.open and not (seen.open[0].holder and not self._holds_it_alone(seen.open[0]))
        if one_thing or not self.began or indent > self.base or GOES_ON.match(line):
            return True
        if self.blank_before or self.lines[-1].endswith(("}", "};")):
            return False
        return not line.startswith(self.place.keywords) or line.split()[0] == self.lines[-1].split()[0]

    def _holds_it_alone(self, holder: Opened) -> bool:
        """Whether nothing else stands in a class yet, but for comments above the cursor: all that comes is its content."""
        return holder.last or (holder.bare and columns(self.place.next_line) <= holder.indent)

    def _closes_missing(self, line: str) -> bool:
        """Whether a line begins with the bracket that is missing."""
        seen = self.place.around
        return self.closed < seen.missing and line.lstrip()[:1] == CLOSER_OF[seen.open[self.closed].kind]

    def _unclosed_behind(self) -> bool:
        """Whether nothing behind the cursor closes what the completion opened: the next line does not belong to it."""
        following, seen = self.place.next_line, self.place.around
        indent = seen.open[self.closed - 1].indent if self.closed else columns(self.place.before)
        if not following or columns(following) != indent:
            return columns(following) < indent or not following
        return not GOES_ON.match(following) and following.lstrip()[0] not in CLOSERS

    def _repeats(self, line: str, complete: bool) -> bool | None:
        """Whether this line stands in the file already, or was written twice before; None: it may turn out so."""
        place = self.place
        whole = (place.before + line if self.number == 0 else line).rstrip()
        if not whole.strip() or place.rest or (self.number == 0 and place.before.strip()):
            return False
        above = "" if self.wrote else place.line_above
        for known in filter(None, (self._known(), self._thrice(), above)):
            if complete and whole == known:
                return True
            if not complete and known.startswith(whole):
                return None
        return False

    def _known(self) -> str:
        """The line that would repeat the file; "" if none would, as a bracket's line is judged by its bracket."""
        place = self.place
        if place.line_after:
            return place.line_after if self.doubted is not None and self.doubted < self.start else ""
        judged = self.braces and not any(map(str.isalnum, place.next_line)) and place.next_line.lstrip()[:1] not in CONTINUES
        return "" if judged else place.next_line

    def _doubt(self, line: str, complete: bool) -> int | None:
        """Where a repetition may have begun that one line does not prove."""
        place = self.place
        whole = (place.before + line if self.number == 0 else line).rstrip()
        if not place.line_after or place.rest or (self.number == 0 and place.before.strip()):
            return None
        if not whole.strip():
            return self.doubted
        same = whole == place.next_line if complete else place.next_line.startswith(whole)
        return self.start if same else None

    def _thrice(self) -> str:
        """The line that would be the third of its kind; "" if none would."""
        lines = self.lines
        for period in (1, 2):
            wanted = period * (REPEATS - 1)
            if len(lines) >= wanted and lines[-wanted:] == lines[-period:] * (REPEATS - 1) and any(map(str.isalnum, lines[-period])):
                return lines[-period]
        return ""

    def _runaway(self, end: int) -> int | None:
        """Where a line is cut that says the same over and over; looked for at every 32nd character."""
        last = min(end, self.lexer.settled(self.lead + self.text) - len(self.lead))
        for at in range(self.start // EVERY * EVERY + EVERY, last + 1, EVERY):
            if at > self.watched:
                self.watched = at
                if _runs_away(self.text, self.start, at):
                    return at
        return None

    def _unheld(self, end: int) -> int:
        """Characters of a line with text to its right that its own end does not put in doubt."""
        end -= self.rest.feed(self.text[self.rest.fed : end])
        return _without_blanks(self.text, end) if self.place.gap else end


def _runs_away(text: str, start: int, end: int) -> bool:
    """Whether text[start:end] ends in the same characters time and again. Of 150,000 long lines of real code 8 do, tables of bytes."""
    for unit in range(1, LONGEST_UNIT + 1):
        run = max(RUN, unit * REPEATS)
        if end - run < start:
            return False
        if text[end - run + unit : end] == text[end - run : end - unit]:
            return any(map(str.isalnum, text[end - unit : end]))
    return False


class _Overlap:
    """The longest end of a growing text that begins the rest of the line (Knuth, Morris, Pratt)."""

    def __init__(self, rest: str) -> None:
        self.rest, self.size, self.fed = rest, 0, 0
        self.shorter = [0]  # for each size: the next shorter overlap of the rest's beginning with itself
        size = 0
        for at in range(1, len(rest)):
            while size and rest[at] != rest[size]:
                size = self.shorter[size - 1]
            size += rest[at] == rest[size]
            self.shorter.append(size)

    def feed(self, text: str) -> int:
        """Length of the overlap after these characters too."""
        self.fed += len(text)
        for character in text:
            while self.size and (self.size == len(self.rest) or character != self.rest[self.size]):
                self.size = self.shorter[self.size - 1]
            self.size += bool(self.rest) and character == self.rest[self.size]
        return self.size


def _clean(text: str, place: Place) -> int:
    """Characters left of an ended completion without trailing blanks and without a repetition of the rest of the line."""
    if not place.rest:
        return len(text.rstrip())
    text = text.rstrip("\n")
    end, overlap = len(text), _Overlap(place.rest)
    size = overlap.feed(text[-LONGEST_REST:])
    while size:
        piece = place.rest[:size]
        if (piece == place.rest or CLOSING.issuperset(piece)) and _spare(piece, text, place):
            end -= size
            break
        size = overlap.shorter[size - 1]
    return _without_blanks(text, end) if place.gap else end


def _without_blanks(text: str, end: int) -> int:
    while end and text[end - 1].isspace():
        end -= 1
    return end


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
