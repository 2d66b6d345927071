"""Names that a piece of code defines, and names that stand near a cursor and may be defined elsewhere.

In:  text and its language
Out: `defined`: names; `imported`: names and where they come from; `used`: names near a cursor, likeliest first

Line by line with regular expressions, not by syntax tree: a piece is a cut-out, and the text at a cursor rarely parses.
For Python, JavaScript, TypeScript, Java, Go, Rust, C and C++; other languages define nothing here.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

from core import grammars

MOST = 64  # names that one piece defines; a table of constants would answer everything
SHORTEST = 3  # characters of a name worth asking for
LONGEST = 64  # the same bound as the index's terms
NAMES = 32  # asked for at a cursor
LINES = 24  # before the cursor; Refact takes the 20 nearest usages
CALL_LINES = 8  # that the arguments of a call may have before the cursor
HEAD = 20_000  # characters of a file in which imports are looked for
IDENTIFIER = re.compile(r"[A-Za-z_$][\w$]*")
CALL = re.compile(r"([A-Za-z_$][\w$]*)\s*\Z")

# No quantifier stands beside another that takes the same characters, unless it is possessive: a line of blanks costs what it is long
_JS = (
    r"^[ \t]*+(?:export[ \t]+)?(?:default[ \t]+)?(?:declare[ \t]+)?(?:abstract[ \t]+)?(?:async[ \t]+)?"
    r"(?:function\*?|class|interface|type|enum|namespace)[ \t]+([A-Za-z_$][\w$]*)",
    r"^(?:export[ \t]+)?(?:declare[ \t]+)?(?:const|let|var)[ \t]+([A-Za-z_$][\w$]*)",
    r"^[ \t]++(?:(?:public|private|protected|static|readonly|async|get|set|override)[ \t]+)*+\*?#?([A-Za-z_$][\w$]*)[ \t]*"
    r"\([^;\n]*\)[^;\n=]*\{[ \t]*$",
    r"^[ \t]*+(?:module\.)?exports\.([A-Za-z_$][\w$]*)[ \t]*=",
    r"^[ \t]*+[A-Za-z_$][\w$.]*\.prototype\.([A-Za-z_$][\w$]*)[ \t]*=",
    r"^[ \t]*+([A-Za-z_$][\w$]*)[ \t]*[:=][ \t]*(?:async[ \t]+)?(?:function\b|\([^()\n]*\)[ \t]*=>|[A-Za-z_$][\w$]*[ \t]*=>)",
)
_C = (
    r"^[ \t]*+#[ \t]*define[ \t]+(\w+)",
    r"^[ \t]*+(?:typedef[ \t]+)?(?:struct|class|union|enum(?:[ \t]+class)?|namespace)[ \t]+"
    r"(?:\w+\([^()\n]*\)[ \t]+|[A-Z_]{3,}[ \t]+)?(\w+)[^;(\n]*$",
    r"^[ \t]*+using[ \t]+(\w+)[ \t]*=",
    r"^\}[ \t]*(\w+)[ \t]*;",
    r"^typedef[ \t][^;\n]*?\b(\w+)[ \t]*;",
    r"^[ \t]*+(?!(?:return|else|if|for|while|switch|case|goto|delete|new|throw|using)\b)(?=\w)[\w:<>,*&~\[\] \t]*?[\w>*&\]][ \t*&]+"
    r"(?:\w+::)*(~?\w+)[ \t]*\([^;{}]{0,600}?\)[^;{}()]{0,200}(?:\{|$)",
)
_JAVA = r"^[ \t]*+(?:(?:public|private|protected|static|final|abstract|synchronized|native|default|sealed|strictfp)[ \t]+)*+"
PATTERNS = {
    "python": (r"^[ \t]*+(?:async[ \t]+)?(?:def|class)[ \t]+(\w+)", r"^([A-Za-z_]\w*)[ \t]*(?::[^=\n]+)?=(?!=)"),
    "javascript": _JS,
    "typescript": _JS,
    "java": (
        _JAVA + r"(?:class|interface|enum|record|@interface)[ \t]+(\w+)",
        _JAVA + r"(?!(?:return|new|else|throw)\b)(?=[\w<])(?:<[^<>\n]*>[ \t]+)?[\w.<>\[\],? \t]*?[\w>\]][ \t]+(\w+)[ \t]*"
        r"\([^;{}()]{0,600}\)[^;{}()]{0,200}\{",
        _JAVA + r"(?=\w)[\w.<>\[\],]+[ \t]+([A-Z_0-9]{3,})[ \t]*=",
    ),
    "go": (
        r"^func[ \t]+(?:\([^()\n]*\)[ \t]*)?(\w+)",
        r"^[ \t]*+type[ \t]+(\w+)",
        r"^(?:var|const)[ \t]+(\w+)",
        r"^\t(\w+)[ \t]+(?:struct|interface)[ \t]*\{",
    ),
    "rust": (
        r"^[ \t]*+(?:pub(?:\([^()\n]*\))?[ \t]+)?(?:(?:const|async|unsafe|default|extern(?:[ \t]+\"[^\"\n]*\")?)[ \t]+)*"
        r"(?:fn|struct|enum|union|trait|type|mod|const|static(?:[ \t]+mut)?)[ \t]+(\w+)",
        r"^[ \t]*+macro_rules![ \t]*(\w+)",
    ),
    "c": _C,
    "cpp": _C,
}

# What an import says: the groups are the module and the names; `as` and braces are taken apart afterwards
_JS_IMPORTS = (
    r"^[ \t]*+(?:import|export)[ \t]+(?:type[ \t]+)?(?P<names>[^;'\"()]{0,1500}?)[ \t]*from[ \t]*['\"](?P<module>[^'\"\n]+)['\"]",
    r"^[ \t]*+(?:const|let|var)[ \t]+(?P<names>\{[^{}]{0,1500}\}|[\w$]+)[ \t]*=[ \t]*require\([ \t]*['\"](?P<module>[^'\"\n]+)['\"]",
)
IMPORTS = {
    "python": (
        r"^[ \t]*+from[ \t]+(?P<module>[.\w]+)[ \t]+import[ \t]+(?:\((?P<names>[^()]{0,3000})\)|(?P<names2>[^\n(;#]+))",
        r"^[ \t]*+import[ \t]+(?P<module>[\w.]+)(?:[ \t]+as[ \t]+(?P<names>\w+))?",
    ),
    "javascript": _JS_IMPORTS,
    "typescript": _JS_IMPORTS,
    "java": (r"^[ \t]*+import[ \t]+(?:static[ \t]+)?(?P<module>[\w.]+)\.(?P<names>\w+|\*)[ \t]*;",),
    "go": (r"^[ \t]*+(?:import[ \t]+)?(?P<names>\w+[ \t]+)?\"(?P<module>[\w./-]+)\"[ \t]*$",),
    "rust": (
        r"^[ \t]*+(?:pub[ \t]+)?use[ \t]+(?P<module>[\w:]+)::"
        r"(?:\{(?P<names>[^;]{0,1500})\}|(?P<names2>\w+(?:[ \t]+as[ \t]+\w+)?))[ \t]*;",
    ),
    "c": (r"^[ \t]*+#[ \t]*include[ \t]*\"(?P<module>[^\"\n]+)\"",),
    "cpp": (r"^[ \t]*+#[ \t]*include[ \t]*\"(?P<module>[^\"\n]+)\"",),
}
COMMON = frozenset({
    "self", "cls", "this", "super", "None", "True", "False", "null", "true", "false", "undefined", "print", "len", "str",
    "int", "float", "bool", "list", "dict", "set", "tuple", "object", "type", "range", "isinstance", "getattr", "setattr",
    "hasattr", "open", "sorted", "enumerate", "zip", "map", "filter", "min", "max", "sum", "any", "all", "repr", "Exception",
    "ValueError", "TypeError", "KeyError", "String", "Integer", "Object", "System", "console", "Math", "JSON", "Array",
    "Promise", "require", "module", "exports", "std", "string", "vector", "void", "char", "long", "short", "unsigned",
    "double", "size_t", "uint32_t", "int32_t", "uint64_t", "int64_t", "Some", "Ok", "Err", "Option", "Result", "Vec",
    "Box", "println", "err", "nil", "error"
})  # fmt: skip


class Usage(NamedTuple):
    """A name near a cursor."""

    name: str
    imported: bool
    module: str  # what the import says it comes from; "" where nothing does


@cache
def _compiled(lang: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern, re.MULTILINE) for pattern in PATTERNS.get(lang, ()))


@cache
def _imports(lang: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern, re.MULTILINE) for pattern in IMPORTS.get(lang, ()))


@cache
def keywords(lang: str) -> frozenset[str]:
    """Words that are no names."""
    import keyword

    return COMMON | (frozenset(keyword.kwlist) if lang == "python" else grammars.keywords(lang))


def defined(text: str, lang: str) -> list[str]:
    """Names of functions, methods, classes, types and constants that the text defines, in order, each once."""
    found: dict[str, None] = {}
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    for pattern in _compiled(lang):
        for match in pattern.finditer(text):
            found.setdefault(match[1])
    leave = keywords(lang)
    return [name for name in found if SHORTEST <= len(name) <= LONGEST and name not in leave and not name.startswith("__")][:MOST]


def imported(text: str, lang: str) -> dict[str, str]:
    """Names that the text imports, and the module each comes from. Of C and C++ the included files, each under its own name."""
    found: dict[str, str] = {}
    head = "\n".join(line.rstrip() for line in text[:HEAD].split("\n"))
    for pattern in _imports(lang):
        for match in pattern.finditer(head):
            groups = match.groupdict()
            module = groups["module"]
            names = groups.get("names") or groups.get("names2")
            last = re.split(r"[./:]+", module.strip("./"))[-1]
            for name in _names(names) if names else [last]:
                found[name] = module
    return found


def _names(text: str) -> Iterator[str]:
    """The local names of `{ a, b as c }, d`."""
    for part in re.split(r"[{},\n]", re.sub(r"#[^\n]*", "", text)):
        words = re.findall(r"[A-Za-z_$][\w$]*", part.replace(" type ", " "))
        if words and words[-1] != "as":
            yield words[-1]


def used(prefix: str, suffix: str, lang: str, imports: dict[str, str]) -> list[Usage]:
    """Names near the cursor that may be defined in another file, likeliest first.

    First the call that the cursor stands in, then imported names by nearness, then the others by nearness, at last what
    is imported and not used here yet. What the text around defines itself is left out.
    """
    before = prefix.split("\n")[-LINES:]
    own = set(defined(prefix + "\n" + suffix, lang))
    leave = keywords(lang) | own
    called = [name for name in opened(prefix) if name not in leave]
    near = _by_nearness(before, suffix.split("\n", LINES)[:LINES])
    ranked = [*called, *(n for n in near if n in imports), *(n for n in near if n not in imports), *imports]
    names = [name for name in dict.fromkeys(ranked) if SHORTEST <= len(name) <= LONGEST and name not in leave]
    return [Usage(name, name in imports, imports.get(name, "")) for name in names[:NAMES]]


def opened(prefix: str) -> list[str]:
    """Names of the calls whose brackets are open at the cursor, innermost first."""
    text = "\n".join(prefix.split("\n")[-CALL_LINES:])
    depth, found = 0, list[str]()
    for at in range(len(text) - 1, -1, -1):
        if text[at] in ")]}":
            depth += 1
        elif text[at] in "([{":
            if depth:
                depth -= 1
            elif text[at] == "(" and (match := CALL.search(text[max(0, at - LONGEST - 2) : at])):
                found.append(match[1])
    return found


def _by_nearness(before: list[str], after: Iterable[str]) -> list[str]:
    """Identifiers, those of the cursor's line from right to left, then line by line above and below in turn."""
    lines = itertools.chain.from_iterable(itertools.zip_longest(reversed(before), after, fillvalue=""))
    found: dict[str, None] = {}
    for line in lines:
        for name in reversed(IDENTIFIER.findall(line)):
            found.setdefault(name)
    return list(found)
