"""Where completing makes no sense: answered with a reason instead of a generation, so that simple clients profit too.

In:  text before and after the cursor, the language, what the same session asked last
Out: a reason, None where a completion may be shown

    secret_file     the file's name says that it holds secrets
    empty           there is no text at all to go on with
    backspace       characters were taken away since the last request, by backspace or undo
    word_right      the cursor stands before or inside a word
    text_right      text stands right of the cursor, and it is neither closing punctuation nor is something missing before it
    statement_end   the statement is over: `;`, or a line that only closes (languages with braces)
    comment_word    a word of a comment or docstring is being typed: prose that nobody can guess
    long_line       a line so long that nobody wrote it
    dismissed       five completions in a row were dismissed: a moment's rest (`Patience`)

Asked for automatic requests only; who presses a key for a completion gets one. Strings are completed: paths, keys and f-strings are wanted.

    reason = why_not(ask.prefix, ask.suffix or "", lang, Last(prefix, suffix) or None, ask.path)
    patience.resting(client, now)                                # then the reason is "dismissed"
    patience.event(client, "dismissed" | "accepted", now)        # from /v1/events
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import NamedTuple

from core.blocks import BRACES, CLOSERS, around
from phase4_serve.workspace import looks_secret

# Closing punctuation behind the cursor, perhaps a comment behind it; Copilot's rule for the middle of a line is close to it
CLOSING = re.compile(r"\s*(?:[)\]}>\"'`]|/>)*\s*[:{;,]?\s*(?:(?://|#|/\*).*)?\Z")
# Something is missing between the two: before the cursor an opening bracket, an operator or a word that wants more, behind it none of it
WANTING = re.compile(
    r"(?:[(\[{,=+\-*/%<>&|^~!?:.@]|(?<![\w.])(?:return|in|and|or|not|if|else|elif|while|for|import|from|as|new|await|yield|case|is|lambda"
    r"|throw|raise|assert|with|typeof|instanceof|of))[ \t]*\Z"
)
GOING_ON = re.compile(r"\s*(?:[)\]},;:=+*/%<>&|^?.-]|\s(?:if|else|for|in|and|or|is|as|from|of)\b)")
ENDED = re.compile(r"\s*[)\]}]+;?\s*\Z")
PROSE = re.compile(r"[^\W\d_]\Z")
LONG_LINE = 500  # characters left of the cursor
TEXT = 6000  # characters of it that tell whether a comment is open
DISMISSALS = 5  # in a row before it waits (Cody)
REST, LONGEST_REST = 0.5, 5.0  # seconds it waits after the fifth, more with each further one (Cody: up to 2)
FORGOTTEN = 300.0  # seconds after which dismissals are forgotten (Cody)
CLIENTS = 256  # remembered


class Last(NamedTuple):
    """What the same session asked last."""

    prefix: str
    suffix: str


def why_not(prefix: str, suffix: str, lang: str | None, last: Last | None = None, path: str = "") -> str | None:
    """The reason not to complete here, see the top of the file; None: go on. Costs some microseconds, in a comment 0.2 ms."""
    newline = suffix.find("\n")
    rest = suffix[: newline if newline != -1 else None][: LONG_LINE + 1]
    begin = prefix.rfind("\n") + 1
    line = prefix[max(begin, len(prefix) - LONG_LINE - 1) :]
    if path and looks_secret(path):
        return "secret_file"
    if not prefix.strip() and not suffix.strip():
        return "empty"
    if last is not None and _shortened(prefix, suffix, last):
        return "backspace"
    if len(line) > LONG_LINE:
        return "long_line"
    if rest[:1].isalnum() or rest[:1] == "_":
        return "word_right"
    if not CLOSING.match(rest) and not (GOING_ON.match(rest) and (WANTING.search(line) or not line.strip())):
        return "text_right"
    if not rest.strip() and lang in BRACES and _ended(line):
        return "statement_end"
    if PROSE.search(line) and _in_prose(prefix[-TEXT:], line, lang):
        return "comment_word"
    return None


def _shortened(prefix: str, suffix: str, last: Last) -> bool:
    """Whether text before the cursor was taken away, with the closing bracket or quote that an editor put behind it."""
    if len(last.prefix) <= len(prefix) or not last.prefix.startswith(prefix):
        return False
    return last.suffix == suffix or (last.suffix[1:] == suffix and last.suffix[:1] in CLOSERS + "\"'`")


def _ended(line: str) -> bool:
    """Whether a line ends a statement; `for (let i = 0;` does not."""
    return bool(ENDED.match(line)) or (line.rstrip().endswith(";") and line.count("(") <= line.count(")"))


def _in_prose(text: str, line: str, lang: str | None) -> bool:
    """Whether the text ends in a comment or docstring that is not code, as an example in it is.

    The text may begin anywhere, in the middle of a comment too: what counts is the mark nearest to the cursor.
    """
    if line.lstrip().startswith((">>>", "...")):
        return False
    seen = around(line, "", lang or "python")
    if seen.inside and seen.lead in (("#",) if lang in ("python", None) else ("//", "/*")):
        return True
    return _in_docstring(text) if lang == "python" else lang in BRACES and text.rfind("/*") > text.rfind("*/")


def _in_docstring(text: str) -> bool:
    """Whether the last triple quote opens a docstring: one begins its line; alone there it follows a colon, or nothing."""
    at = max(text.rfind('"""'), text.rfind("'''"))
    if at == -1:
        return False
    begin = text.rfind("\n", 0, at) + 1
    end = text.find("\n", at)
    before, after = text[begin:at].strip(), text[at + 3 : end if end != -1 else None].strip()
    if before.strip("brBR"):  # the end of a docstring, or a value
        return False
    above = text[:begin].rstrip()
    return bool(after) or not above or above.endswith(":")


class Patience:
    """Counts completions that a client dismissed one after the other."""

    def __init__(self) -> None:
        self._dismissed: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def event(self, client: str, kind: str, now: float) -> None:
        """Take note of what happened to a completion: `accepted` or `dismissed`; `now` in seconds."""
        count, when = self._dismissed.pop(client, (0, now))
        if kind != "dismissed":
            return
        self._dismissed[client] = (count + 1 if now - when < FORGOTTEN else 1, now)
        while len(self._dismissed) > CLIENTS:
            self._dismissed.popitem(last=False)

    def resting(self, client: str, now: float) -> bool:
        """Whether this client is left alone for the moment; `now` in seconds, as given to `event`."""
        count, when = self._dismissed.get(client, (0, now))
        return count >= DISMISSALS and now - when < min(REST * (count - DISMISSALS + 1), LONGEST_REST)
