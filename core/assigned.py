"""Secrets by their name: `password = "..."` and its relatives in code, configuration, SQL, shells, URLs and headers.

In:  a Source
Out: Findings that cover the value alone

It works forwards: from every word such as `pass`, `key` or `token` to the whole name (core.secret_names says how strong it
is), over the operator, to the value. A value that is a template, a placeholder, a look-up, an identifier, words or a digest is
nobody's secret; each one that is left is noted with its reason (`Source.stay`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from core.findings import Finding, Source
from core.secret_names import Strength, strength
from core.secret_values import is_public_example, is_random, looks_generated
from core.secret_words import has_no_code_words, is_mixed, reads_as_code, why_not_assigned

_KEYWORDS = (
    b"pass", b"pwd", b"secret", b"token", b"key", b"auth", b"cred", b"bearer", b"basic ", b"identified", b"pw", b"salt", b"nonce",
    b"contrase", b"kennwort", b"senha", b"clave", b"haslo", b"wachtwoord", b"heslo", b"jelszo", b"parola",
    b"losenord", b"mot de passe", b"cookie", b"dsn", b"pepper", b"psk", b"mnemonic", b"phrase",
)  # fmt: skip
_SCHEMES = (b"bearer", b"basic ", b"token", b"auth")
_ABROAD = ("密码", "密碼", "パスワード", "비밀번호", "пароль", "Пароль")  # beyond Latin-1, so not in the byte views
_LONGEST_NAME = 64  # characters; beyond it is no name but a blob
_NAME_BEFORE = re.compile(r"[A-Za-z0-9_\-.]{0,48}\Z")
_NAME_AFTER = re.compile(r"[\w\-]{0,40}")

# What stands between name and value: closing quotes and brackets, perhaps a type, then an operator, perhaps a string prefix.
_TYPE = r"(?:\s{0,4}:\s{0,4}[&A-Za-z_][\w.\[\]|, *&]{0,48}?|\s{1,4}(?:As )?[*\[\]A-Za-z_][\w.\[\]*]{0,30}(?=\s{0,4}:?=))?"
_OP = r"(?P<op>===?|!==?|:{1,3}=|=>|<-|[?|+]{1,2}=|->|=|:|,|\.equals\(|\.assign\(|!?\(|\{|\|\||\||\?\?|or\s|in \()"
_WRAPPED = (  # conversions whose argument is the value; any other call is a look-up
    r"(?:(?:[\w.]{1,24}(?:fromhex|unhexlify|b64decode|from_hex|decodeHex|parseHex|hex_decode|DecodeString)|str|String"
    r"|SecretStr|Secret|bytes|quote|Some|new \w{1,16}"
    r"|std::string|QString(?:Literal)?|Q(?:Latin1String|ByteArray)|Buffer\.from|atob|hex|TEXT|_T|%[qQw]|\[\]byte|value"
    r"|var)?[({\[]\s{0,40}){0,2}"
)
_PREFIX = r"(?:\w{1,32}\s?\?\s)?" + _WRAPPED + r"(?:[rbfuRBFULN@$]{0,2})"
_QUOTED = re.compile(
    r"(?:\\?[\"'`]|\]|\)|\}|\[\w{0,6}\]){0,3}(?:,\s?_)?" + _TYPE + r"\s{0,12}" + _OP + r"\s{0,40}" + _PREFIX +
    r"(?P<quote>\\?[\"'`]|\\u0022|&quot;)(?P<value>[^\n\"'`]{4,512}?)(?P=quote)"
)  # fmt: skip
_RUBY = re.compile(r"\s{0,4}=\s{0,4}%[qQ]?[(\[{](?P<value>[^\s)\]}]{4,128})[)\]}]")
_QUOTED_OTHER = re.compile(  # a value that holds the other kind of quote
    r"(?:\\?[\"'`]|\])?\s{0,4}(?P<op>:=|=>|=|:)\s{0,4}(?P<quote>[\"'`])(?P<value>(?:(?!(?P=quote))[^\n\\ ]|\\.){6,512}?)(?P=quote)"
)
_CONCATENATED = re.compile(  # "first" + "second", or a string per line in brackets: each piece counts
    r"\s{0,8}(?:\+|\.|\\\n|&)?\s{0,40}(?P<quote>[\"'])(?P<value>[^\n\"'`]{4,256})(?P=quote)"
)
_BARE = re.compile(
    r"[\"'`\]]{0,2}(?P<gap>[ \t]{0,8})(?P<op>:{1,3}=|[?+]=|=>|=|:)(?P<after>[ \t]{0,8})(?P<value>[^\s\"'`,;()<>\[\]{}"
    r"|\\&]{4,512})(?P<next>.?)"
)
_WILD = re.compile(r"[ \t]{0,8}[=:][ \t]{0,8}(?P<value>[^\s\"'`]{8,256})(?=\s|\Z)")  # to the end of the line, whatever the symbols
_BELOW = re.compile(  # YAML's block scalars, and a value alone on the next line
    r"[\"']?[ \t]{0,4}(?:[:=][ \t]{0,4}[|>]?[+\-]?|=[ \t]{0,4}\\?)[ \t]{0,4}\n[ \t]{0,40}(?P<value>[^\s\"'`,;()<>\[\]{}"
    r"|\\&:]{6,512})[ \t]{0,4}(?=\n|\Z)"
)
_OPTION = re.compile(r"[ \t=]{1,4}(?:\\\n[ \t]{0,16})?(?P<value>[^\s\"'`,;()<>\[\]{}|\\]{4,256})")
_OPTION_QUOTED = re.compile(r"[ \t=]{1,4}(?P<quote>[\"'])(?P<value>[^\n\"']{4,256})(?P=quote)")
_SQL = re.compile(r"(?i)\s{1,4}(?:(?:=|by|with|is)\s{0,4})?(?P<quote>['\"])(?P<value>[^\n'\"]{4,256})(?P=quote)")
_XML = re.compile(r"[\"']?[^<>\n\"']{0,40}>\s{0,40}(?P<value>[^<>\s\"']{6,512})\s{0,40}</")
_VALUE_NEXT = re.compile(  # `name: X, value: Y` in YAML, JSON, XML, HTML and Terraform
    r"[\"']?(?:,\s{0,40}|\s{1,40}|\s{0,4}\{\s{0,40}(?:(?:type"
    r"|sensitive)\s{0,8}=\s{0,8}\w{1,12}\s{1,40}){0,2})[\"']?\w{0,12}(?:[vV]alue|default)[\"']?\s?[=:]\s?"
    r"(?:(?P<quote>[\"'])(?P<value>[^\n\"'<>]{6,512})(?P=quote)|(?P<bare>[^\s\"'<>()\[\]]{6,512}))"
)
_XML_VALUE = re.compile(
    r"(?:[\"']?\s?/?>|</\w{1,12}>)\s{0,40}<(?P<tag>value|string|val|data)>\s{0,8}(?P<value>[^<>\n]{4,512}?)\s{0,8}</(?P=tag)>"
)
_PAIR = re.compile(  # `auth=("user", "...")`, `HTTPBasicAuth("user", "...")`, `user, password = "user", "..."`
    r"\w{0,16}\s?(?:[=:]\s?)?[(\[]?\s?[\"'][^\"'\n]{1,64}[\"']\s?,\s?(?P<quote>[\"'])(?P<value>[^\n\"']{4,128})(?P=quote)"
)
_SCHEME = re.compile(r"(?i)(?:bearer|basic|token|digest)[ \t:=]{1,3}(?P<value>[A-Za-z0-9_\-.=+/~|]{12,2048})")
_SENTENCE = re.compile(  # `the password is ...`, `Password for staging: ...`, `password ...`, `| password | ... |`, `**Password:** ...`
    r"(?i)(?:s|'s)?(?: (?:for|of|to|on|de|от) [\w.@\- ]{1,40}?)?[ \t]{0,2}"
    r"(?:\b(?:is|was|has changed to|changed to|set to|is generated|lautet|ist|est|es|é|è)\b[ \t:]{1,3}"
    r"|(?:\*\*)?:(?!:)(?:\*\*)?[ \t]{0,3}|->[ \t]{0,3}|[ \t]-[ \t]"
    r"|\|[ \t]{0,3}(?!\|)|</\w{1,12}>\s{0,8}<\w{1,12}>|[：為为是は][ \t]{0,3}|(?=[：「])|(?P<bare>[ \t]))"
    r"(?P<quote>[\"'`*「«]{0,2} ?)(?P<value>[^\s\"'`|「」«»，。<>]{6,128})"
)
_USER_SLASH = re.compile(r"(?i)s?\s?[:=]\s?[\w.@\-]{2,64}\s?/\s?(?P<value>[^\s\"'`*|]{6,128})")  # `Credentials: user / password`
_REVERSED = re.compile(  # `"value" == password`, `assertEquals("value", user.getPassword())`, `"value"  # the password`
    r"(?P<quote>[\"'])(?P<value>[^\n\"']{4,256})(?P=quote)(?:\.equals\(|\s{0,4}[!=]={1,2}\s{0,4}[\w.$>\-\[\]'\"]{0,40}"
    r"|,\s?(?:\w{1,20}\.)?(?:get)?|[,)]?\s{0,4}(?:#|//) ?(?:[a-z]{1,12} ){0,3})\Z"
)


def find_assigned(source: Source) -> Iterator[Finding]:
    """Every value that its name gives away."""
    for keyword in _KEYWORDS:
        yield from _from_keyword(source, keyword, source.any_case(keyword))
    if not source.text.isascii():
        for word in _ABROAD:
            yield from _from_keyword(source, word.encode(), _places(source.text, word))


def _places(text: str, word: str) -> Iterator[int]:
    at = text.find(word)
    while at != -1:
        yield at
        at = text.find(word, at + len(word))


def _from_keyword(source: Source, keyword: bytes, places: Iterator[int]) -> Iterator[Finding]:
    text, last = source.text, -1
    fruitless: set[tuple[int, str]] = set()  # the same words around a name get the same answer: a file may repeat them 100,000 times
    for at in places:
        if at < last:
            continue
        head = _NAME_BEFORE.search(text[max(0, at - 48) : at])
        tail = _NAME_AFTER.match(text, at + (len(keyword) if b" " in keyword else 0))
        start = at - (len(head.group()) if head else 0)
        end = last = tail.end() if tail else at
        name = text[start:end]
        around = min(start, 64), text[max(0, start - 64) : end + 192]
        if len(name) > _LONGEST_NAME or around in fruitless:
            continue
        found = list(_after_scheme(text, at)) if keyword in _SCHEMES else []
        said = Strength.NONE if text[max(0, start - 2) : start] == "::" else strength(name)
        if said:
            found += _values(source, start, end, said)
        if not found:
            fruitless.add(around)
        yield from found


def _after_scheme(text: str, at: int) -> Iterator[Finding]:
    match = _SCHEME.match(text, at)
    if match and not reads_as_code(text, *match.span("value")) and is_random(match["value"]) and not is_public_example(match["value"]):
        yield Finding(*match.span("value"), "secret", "auth_header")


def _judged(source: Source, match: re.Match[str], said: Strength, quoted: bool, group: str = "value") -> bool:
    """Whether the value is a secret; the reason is noted where it is not."""
    start, end = match.span(group)
    why = why_not_assigned(source, start, end, said, quoted)
    if why:
        source.stay(start, end, "assigned", why)
    return not why


def _values(source: Source, start: int, end: int, said: Strength) -> Iterator[Finding]:
    """The value of the name at [start, end), by the first form that has one."""
    text = source.text
    for form in (_by_quotes, _by_markup, _by_pair, _by_table, _by_option, _by_line):
        found = [Finding(left, right, "secret", "assigned") for left, right in form(source, start, end, said)]
        if found:
            yield from found
            return
    before = _REVERSED.search(text, max(source.line_around(start)[0], start - 300), start) if said >= Strength.STRONG else None
    listed = before is not None and text[before.end("value") + 1 : before.end("value") + 2] == ","
    if (
        before
        and not (listed and not _ASSERTED.search(text, max(0, before.start() - 40), before.start()))
        and _judged(source, before, said, quoted=True)
    ):
        yield Finding(*before.span("value"), "secret", "assigned")


Spans = Iterator[tuple[int, int]]
_ASSERTED = re.compile(r"(?i)(?:assert|equals?|cmp|compare|verify|check|expect)\w{0,16}[.(]\w{0,12}\(?[\w, ]{0,24}\Z")
_COMPARED = re.compile(r"(?i)(?:cmp|equals?|compare|verify|check|matches)\w{0,12}\([\w.$>\-]{0,24}\Z")


def _by_quotes(source: Source, start: int, end: int, said: Strength) -> Spans:
    """`name = "value"` in any language, and the strings it is joined with."""
    for pattern in (_QUOTED, _QUOTED_OTHER, _RUBY):
        match = pattern.match(source.text, end)
        if match is None:
            continue
        op = match["op"] if pattern is not _RUBY else "="
        if op == "," and not _is_pair(source, start, match, said):
            continue
        if len(match["value"]) < 6 and (said < Strength.PASSWORD or op in (",", "(", "|")):
            continue
        if _judged(source, match, said, quoted=True):
            yield match.span("value")
            yield from _joined(source, match.end(), said)
            return


def _is_pair(source: Source, start: int, match: re.Match[str], said: Strength) -> bool:
    """Neighbours in a list are a name and its value only if the name is in quotes itself and the value tells."""
    value = match["value"]
    if source.text[start - 1 : start] not in ('"', "'", "`"):
        compared = said is Strength.PASSWORD and _COMPARED.search(source.text, max(0, start - 40), start) is not None
        return compared or (said >= Strength.STRONG and not value.isidentifier()) or is_random(value)
    if value.isupper() and value.isalpha():
        return False
    return said is Strength.PASSWORD or not value.isidentifier() or len(_DIGIT.findall(value)) >= 2


def _joined(source: Source, at: int, said: Strength) -> Spans:
    while match := _CONCATENATED.match(source.text, at):
        if "+" not in match.group()[:12] and "\n" not in match.group()[:48]:
            return
        if why_not_assigned(source, *match.span("value"), said, True):
            return
        yield match.span("value")
        at = match.end()


def _by_markup(source: Source, start: int, end: int, said: Strength) -> Spans:
    """XML elements and attributes, `name`/`value` pairs, SQL."""
    patterns = [_XML, _VALUE_NEXT, _XML_VALUE, *([_SQL] if said >= Strength.STRONG else [])]
    for pattern in patterns:
        match = pattern.match(source.text, end)
        group = "bare" if match and pattern is _VALUE_NEXT and match["bare"] else "value"
        if match and _judged(source, match, said, True, group):
            yield match.span(group)
            return


def _by_pair(source: Source, start: int, end: int, said: Strength) -> Spans:
    match = _PAIR.match(source.text, end)
    if not match or not (said >= Strength.STRONG or source.text[start:end].lower().endswith("auth")):
        return
    if (not match["value"].islower() or _DIGIT.search(match["value"])) and _judged(source, match, Strength.STRONG, quoted=True):
        yield match.span("value")


_TABLE_HEAD = re.compile(r"[^\n|]{0,40}\|[^\n]{0,200}\n[ \t]{0,4}\|?[\-: |]{3,200}\n")


def _by_table(source: Source, start: int, end: int, said: Strength) -> Spans:
    """The cells below a head `| user | password |`."""
    text = source.text
    line = source.line_around(start)[0]
    head = _TABLE_HEAD.match(text, end) if said is Strength.PASSWORD and "|" in text[line:start] + text[end : end + 40] else None
    if head is None:
        return
    column, at = text.count("|", line, start), head.end()
    while "|" in (row := text[at : text.find("\n", at) if "\n" in text[at:] else len(text)]):
        cells = row.split("|")
        if column < len(cells):
            left = at + sum(len(cell) + 1 for cell in cells[:column]) + len(cells[column]) - len(cells[column].lstrip(" `"))
            right = left + len(cells[column].strip(" `"))
            if is_mixed(text[left:right]) and not why_not_assigned(source, left, right, Strength.STRONG, quoted=True):
                yield left, right
        at += len(row) + 1


def _by_option(source: Source, start: int, end: int, said: Strength) -> Spans:
    """`--password value`, netrc, and ENV and ARG of a Dockerfile."""
    text = source.text
    line_start = source.line_around(start)[0]
    dashes = "-" in text[max(0, start - 2) : start + 2] and text[start : start + 1] == "-"
    netrc = text[start:end] in ("password", "passwd") and "login " in text[max(0, start - 80) : start]
    if not (dashes or netrc or text[line_start:start].strip().upper() in ("ENV", "ARG", "SET", "EXPORT")):
        return
    for pattern in (_OPTION_QUOTED, _OPTION):
        match = pattern.match(text, end)
        if match and _judged(source, match, said, quoted=pattern is _OPTION_QUOTED or said is Strength.PASSWORD):
            yield match.span("value")
            return


def _by_line(source: Source, start: int, end: int, said: Strength) -> Spans:
    """`NAME=value` and `name: value` without quotes, a value on the line below, a sentence."""
    text = source.text
    match = _BARE.match(text, end)
    if match and _is_bare_secret(source, match, start, said):
        left, right = match.span("value")
        wild = (
            _WILD.match(text, end)
            if said >= Strength.STRONG and match["next"] not in ("", "\n", " ", "\r", "&", ",", '"', "'", "}")
            else None
        )
        wild = None if wild and match["next"] == ";" and "=" in text[right : wild.end()] else wild
        if (
            wild
            and wild.end() > right
            and not _CODE_CALL.match(wild["value"])
            and text[source.line_around(start)[0] : start].strip(" \t-") == ""
        ):
            right = wild.end()
        yield left, left + len(text[left:right].rstrip(".:"))
        return
    for pattern, needed in ((_BELOW, Strength.STRONG), (_SENTENCE, Strength.PASSWORD), (_USER_SLASH, Strength.STRONG)):
        match = pattern.match(text, end) if said >= needed else None
        if match is None:
            continue
        left, right = match.span("value")
        right -= len(match["value"]) - len(match["value"].rstrip(".,;:)*"))
        spaced = pattern is _SENTENCE and match["bare"]
        if spaced and (text[start:end].lower() == "pass" or not _PLAIN.match(match["value"])):
            continue  # `to pass X` and `password VARCHAR(40)` assign nothing
        code = text[left] in "@{(*&!" or reads_as_code(text, left, right) or _CODE_CALL.match(match["value"])
        if not code and is_mixed(text[left:right]) and not why_not_assigned(source, left, right, Strength.STRONG, quoted=True):
            yield left, right
            return


_PLAIN = re.compile(r"(?=\D*\d)(?=[^A-Za-z]*[A-Za-z])[\w$][^({}]*\Z")  # a digit and a letter, and no call
_CONFIGURATION = ("", "export", "ENV", "ARG", "set", "SET", "env", "+", "environment", "#", "//", ";", "$env:", "-e", "-D", "setx")
_TYPE_NAME = re.compile(
    r"(?i)(?:u?int|float|bytes|str|string|sha|md|utf|base|rsa|aes|es|rs|hs|ps|ed|ecdsa|pbkdf|oauth|http|x)[_\-]?\d+[\w\-]*\Z"
)
_CONSTANT = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\Z")
_CODE_CALL = re.compile(r"[A-Za-z_$][\w.$>\-]*\([^;\[#!@%]*\Z")
_OPERATORS = re.compile(r"[!=]=.|->|&&|\|\||\+\+")
_IDENTIFIER = re.compile(r"[A-Za-z_$][\w$]*(?:(?:\.|->|::|\?\.)[A-Za-z_$][\w$]*)*\Z")
_DIGIT = re.compile(r"\d")


def _is_bare_secret(source: Source, match: re.Match[str], start: int, said: Strength) -> bool:
    """An unquoted value is a secret where a line is `NAME=value` or `name: value`; in code it is an expression."""
    value, text = match["value"], source.text
    if value.count(":") > 3 or ("=" in value.rstrip("=") and not is_random(value)):
        return False  # a chain of pairs, not a value
    if match["next"] in ("(", "[", "{", "<", "\\", "|") or _TYPE_NAME.match(value) or _OPERATORS.search(value):
        return False
    line_start = source.line_around(start)[0]
    lead = text[line_start:start].strip(" \t-\"'")
    ended = match["next"] in ("", "\n", "\r", " ", "#", '"', "'")
    configuration = ended and lead in _CONFIGURATION
    query = text[start - 1 : start] in ("?", "&", ";") and match["op"] == "="
    query = query or (match["next"] == "}" and match["op"] == ":" and "${" in text[max(0, start - 32) : start])  # the default of a template
    query = query or (
        match["op"] == "=" and not match["gap"] and (match["next"] == ";" or text[start - 1 : start] == " ") and said is Strength.PASSWORD
    )
    if len(value) < 6 and not (configuration and said is Strength.PASSWORD and _DIGIT.search(value)):
        return False
    if not _IDENTIFIER.match(value):
        plain = configuration and said is Strength.PASSWORD and value.isascii()
        return _judged(source, match, said, quoted=plain)
    if _CONSTANT.match(value) or reads_as_code(text, *match.span("value")):
        return False
    if said >= Strength.STRONG and is_mixed(value) and (looks_generated(value, 8) or lead[:1] in ("#", "/", "*", ";", "<")):
        return _judged(source, match, said, quoted=True)
    if said is Strength.PASSWORD and configuration and not lead and len(_DIGIT.findall(value)) > 1 and has_no_code_words(value):
        return _judged(source, match, said, quoted=True)
    if not (query or (configuration and _looks_like_configuration(match))):
        return is_random(value) and _judged(source, match, said, quoted=False)
    name, ended = text[start : match.start()], match["next"] in ("", "\n", "\r")
    setting = ended and said is Strength.PASSWORD and (name.isupper() or "." in name or (match["op"] == ":" and "." not in value))
    return _judged(source, match, said, quoted=(setting and configuration and len(value) >= 8) or (query and match["next"] == ";"))


def _looks_like_configuration(match: re.Match[str]) -> bool:
    """`NAME=value` without blanks, as shells and .env files ask, or `name: value`."""
    return (match["op"] == "=" and not match["gap"] and not match["after"]) or match["op"] == ":"
