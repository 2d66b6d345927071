"""What git ignores: by .gitignore files, by a repository's exclude file, by the user's own file.

In:  folders, names of files
Out: what the last pattern that matches a path says: ignored, or not

Patterns match as git's do (dir.c and wildmatch.c, git 2.43): byte by byte, and one that makes no sense matches nothing. A tracked file that
a pattern names is left out all the same: git's index is not read.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
import string
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

IGNORE_FILE = ".gitignore"
MOST_BYTES = 1 << 20  # of an ignore file; with a larger one nothing is read of its folder
GIT_SECONDS = 2.0  # that git may take to say where the user's own file lies
SPECIAL = re.compile(r"[*?\[\\]")
STAR, SLASH, ANY, FOLDERS = r"[^/\0]*", "/", ".*", "(?:.*/)?"
END = "\0"  # of a folder's path: no name holds one
_CLASSES = {
    "alnum": string.ascii_letters + string.digits, "alpha": string.ascii_letters, "blank": " \t", "digit": string.digits,
    "cntrl": "".join(map(chr, [*range(32), 127])), "graph": "".join(map(chr, range(33, 127))), "lower": string.ascii_lowercase,
    "print": "".join(map(chr, range(32, 127))), "punct": string.punctuation, "space": string.whitespace,
    "upper": string.ascii_uppercase, "xdigit": string.hexdigits,
}  # fmt: skip


class Patterns(NamedTuple):
    """An ignore file. Of each pair, the second is what every group of the first says, and in which line."""

    names: tuple[re.Pattern[str], list[tuple[int, bool]]]
    paths: tuple[re.Pattern[str], list[tuple[int, bool]]]

    def say(self, path: str) -> bool | None:
        """Whether a path is ignored; None where no pattern matches it. Relative to the file's folder; a folder's ends with END."""
        if not path.isascii():
            path = os.fsencode(path).decode("latin-1")
        name = path[path.rfind("/") + 1 :]
        found = [
            meaning[match.lastindex - 1]
            for (pattern, meaning), text in ((self.names, name), (self.paths, path))
            if (match := pattern.fullmatch(text)) and match.lastindex
        ]
        return max(found)[1] if found else None


class Rules(NamedTuple):
    """An ignore file and the folder that it speaks about."""

    folder: str  # ends with /
    patterns: Patterns

    def say(self, path: str) -> bool | None:
        """See Patterns.say; of an absolute path."""
        return self.patterns.say(path[len(self.folder) :])


Specs = tuple[Rules, ...]


def ignored(path: Path, specs: Specs, is_folder: bool = False) -> bool:
    """git's answer: the deepest file that says anything about the path decides."""
    text = f"{path}{END}" if is_folder else str(path)
    return next((said for rules in reversed(specs) if (said := rules.say(text)) is not None), False)


def rules_of(folder: Path, file: Path) -> Specs:
    """The rules of a file, which is no link (git follows none either); none where there is no such file."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return ()
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return ()
        with os.fdopen(handle, "rb", closefd=False) as opened:
            data = opened.read(MOST_BYTES + 1)
    except OSError:
        return ()
    finally:
        os.close(handle)
    return (Rules(f"{str(folder).rstrip('/')}/", patterns(data if len(data) <= MOST_BYTES else b"*")),)


def rules_in(folder: Path) -> Specs:
    """The rules of a folder's .gitignore."""
    return rules_of(folder, folder / IGNORE_FILE)


def is_repository(folder: Path) -> bool:
    """Whether a repository, a work tree or a submodule begins here."""
    return os.path.lexists(folder / ".git")


def exclude_rules(folder: Path) -> Specs:
    """The rules of the exclude file of the repository that begins in a folder."""
    git = folder / ".git"
    if not git.is_dir():  # a work tree or a submodule: a file that says where it is
        git = folder / _line(git).removeprefix("gitdir:").strip()
        git = git / (_line(git / "commondir") or ".")
    return rules_of(folder, git / "info" / "exclude")


def users_rules(root: Path) -> Specs:
    """The rules that the user has set for every repository, as git finds them."""
    try:
        command = ["git", "-C", str(root), "config", "--type=path", "--get", "core.excludesFile"]
        found = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=GIT_SECONDS, check=False).stdout
    except (OSError, ValueError, subprocess.SubprocessError):
        found = b""
    home = os.environ.get("XDG_CONFIG_HOME") or f"{os.environ.get('HOME', '')}/.config"
    return rules_of(root, Path(os.fsdecode(found.rstrip(b"\n")) or f"{home}/git/ignore"))


def _line(file: Path) -> str:
    """The first line of a small file; empty where there is none."""
    try:
        with file.open("rb") as opened:
            return os.fsdecode(opened.read(4096).partition(b"\n")[0].strip())
    except (OSError, ValueError):
        return ""


@lru_cache(256)
def patterns(data: bytes) -> Patterns:
    """The patterns of an ignore file."""
    names: list[tuple[str, tuple[int, bool]]] = []
    paths: list[tuple[str, tuple[int, bool]]] = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").decode("latin-1").split("\n")):
        text = "" if line.startswith("#") else _trimmed(line.removesuffix("\r").partition("\0")[0])
        kept, text = text.startswith("!"), text.removeprefix("!")
        end = r"\0" if text.endswith("/") else r"\0?"
        text = text.removesuffix("/")
        regex = _regex(text) if text else None
        if regex is not None:
            (paths if "/" in text else names).append((regex + end, (number, not kept)))
    return Patterns(_joined(names), _joined(paths))


def _joined(found: list[tuple[str, tuple[int, bool]]]) -> tuple[re.Pattern[str], list[tuple[int, bool]]]:
    """One expression in which the last line comes first."""
    return re.compile("|".join(f"({regex})" for regex, _ in reversed(found)), re.DOTALL), [meaning for _, meaning in reversed(found)]


def _trimmed(line: str) -> str:
    """Without the blanks at its end, but for one that a backslash stands before."""
    kept = line.rstrip(" ")
    slashes = len(kept) - len(kept.rstrip("\\"))
    return f"{kept} " if slashes % 2 and len(kept) < len(line) else kept


def _regex(text: str) -> str | None:
    """A pattern as a regular expression; None if it matches nothing."""
    text = text.removeprefix("/")
    special = SPECIAL.search(text)
    begin = special.start() if special and "/" in text else 0  # git compares what is no pattern first, and `**` may begin after it
    items = list(_items(text[begin:]))
    if None in items:
        return None
    return re.escape(text[:begin]) + "".join(_committed([item for item in items if item is not None]))


def _committed(items: list[str]) -> Iterator[str]:
    """The items; a star that another one follows in its segment takes the shortest that fits, for good: no name can make it try all."""
    at = 0
    while at < len(items):
        fixed = list(itertools.takewhile(lambda one: one not in (STAR, SLASH, ANY, FOLDERS), items[at + 1 :])) if items[at] == STAR else []
        after = at + 1 + len(fixed)
        if items[at] == STAR and items[after : after + 1] == [STAR]:
            yield f"(?>{STAR}?{''.join(fixed)})"
            at = after
        else:
            yield items[at]
            at += 1


def _items(text: str) -> Iterator[str | None]:
    """Expressions for what a pattern is made of, one after the other; None where it can match nothing."""
    at = 0
    while at < len(text):
        character = text[at]
        if character == "*":
            end = at + len(text[at:]) - len(text[at:].lstrip("*"))
            alone = end - at > 1 and (at == 0 or text[at - 1] == "/") and (end == len(text) or text[end:].startswith(("/", "\\/")))
            if alone and text[end : end + 1] == "/":
                yield FOLDERS
                end += 1
            else:
                yield ANY if alone else STAR
            at = end
        elif character == "?":
            yield r"[^/\0]"
            at += 1
        elif character == "[":
            found = _class(text, at + 1)
            if found is None:
                yield None
                return
            yield found[0]
            at = found[1]
        elif character == "\\":
            yield re.escape(text[at + 1]) if at + 1 < len(text) else None
            at += 2
        else:
            yield re.escape(character)
            at += 1


def _class(text: str, at: int) -> tuple[str, int] | None:
    """The expression for the bracket whose inside begins at `at`, and where it ends; None if it never does."""
    negated = text[at : at + 1] in ("!", "^")
    at += negated
    members: set[str] = set()
    before = ""  # what a range may begin with
    first = True
    while first or text[at : at + 1] != "]":
        first, character = False, text[at : at + 1]
        if character == "-" and before and text[at + 1 : at + 2] not in ("", "]"):
            at += 2 if text[at + 1] == "\\" else 1
            members.update(map(chr, range(ord(before), ord(text[at : at + 1] or "\0") + 1)))
            before = ""
        elif text.startswith("[:", at) and text.find("]", at + 2) > at + 2 and text[text.find("]", at + 2) - 1] == ":":
            end = text.find("]", at + 2)
            if text[at + 2 : end - 1] not in _CLASSES:
                return None
            members.update(_CLASSES[text[at + 2 : end - 1]])
            at, before = end, ""
        else:
            at += character == "\\"
            before = text[at : at + 1]
            members.add(before)
        if at >= len(text):
            return None
        at += 1
    shown = "".join(f"\\x{ord(member):02x}" for member in sorted(members - {"/"}))
    if negated:
        return rf"[^/\0{shown}]", at + 1
    return (f"[{shown}]" if shown else "(?!)"), at + 1
