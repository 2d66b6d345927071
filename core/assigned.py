"""Secrets by their name: `password = "..."` and its relatives in code, configuration, SQL, shells, URLs and headers.

In:  a Source
Out: Findings that cover the value alone

Names come in two strengths. After `password` or `api_key` a value with a digit or a symbol is enough; after `token`, `key` or
`auth`, which name many harmless things, it must look generated. A value that is a template, a placeholder, a look-up, an
identifier, words or a digest is nobody's secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from core.findings import Finding, Source
from core.secret_values import is_digest, is_placeholder, is_public_example, is_random, is_uuid, is_wordy

_KEYWORDS = (b"pass", b"pwd", b"secret", b"token", b"key", b"auth", b"cred", b"bearer", b"basic ", b"identified", b"pw")
_LONGEST_NAME = 64  # characters; beyond it is no name but a blob
_NAME_BEFORE = re.compile(r"[A-Za-z0-9_\-.]{0,48}\Z")
_NAME_AFTER = re.compile(r"[A-Za-z0-9_\-]{0,40}")

_STRONG = re.compile(
    r"""(?xi)
    pass(?:wor[dt]|wd|phrase|code) | (?<![a-z])pwd | pwd(?![a-z]) | (?:^|[_\-.])pass(?:$|[_\-.\d]) | (?-i:(?<=[a-z])Pass$)
    | secret | cred(?:s|ential)
    | (?:api|access|auth|priv(?:ate)?|encrypt(?:ion)?|decrypt(?:ion)?|sign(?:ing)?|account|master|client|service|app|consumer|storage|shared
        |license|deploy|db|database|admin|security|webhook|hmac|aes|jwt|session|crypto|cipher|server|subscription|functions?|host|bot
      )[_\-. ]?key(?![a-z])
    | (?:api|access|auth|refresh|bearer|bot|id|session|deploy|client|private|personal|user|oauth|github|gitlab|slack|npm|pypi|csrf|app
        |service|push|admin|security|x)[_\-. ]?token(?![a-z])
    | auth[_\-]?code | dsn$ | ^identified$ | (?:^|[_\-.])pw$"""
)
_WEAK = re.compile(
    r"(?i)token(?![a-z])|key(?![a-z])|(?<![a-z])auth(?!or)|authorization|(?:^|[_\-])cred|bearer|basic|(?<![a-z])pass(?![a-z])"
)
_HARMLESS_NAME = re.compile(
    r"""(?xi)
    (?:^|[_\-.])(?:pad|eos|bos|unk|sep|cls|mask|image|special|stop|start|end|next|prev|page|continuation|sync|primary|foreign|sort|partition|group
        |row|cache|dict|index|column|object|hot|short|map|translation|i18n|parent|routing|hash|config|metric|event|order)[_\-]?(?:token|key)s?
    | pub(?:lic)?[_\-]?key | keyword | keyboard | monkey | turkey | hockey | keyframe | keystroke | author(?!iz) | tokeniz | secretar
    | compass | passenger | passive | bypass | passed | passing | passes | passthr | encompass
    | (?:path|file|files|filename|dir|url|uri|endpoint|host|name|type|kind|field|fields|label|header|env|envvar|var|variable|length|len|size
        |count|regex|pattern|prefix|suffix|format|class|id|ids|policy|hint|message|msg|error|err|help|text|title|description|placeholder|validator|form
        |input|reset|expiry|expires?|ttl|timeout|version|algorithm|alg|method|provider|scope|scopes|hasher|hashers|manager|store|arn|ref|selector
        |schema|usage|fingerprint|digest|checksum|sha\d*|md5|attr|attribute|column|getter|callback|handler|function|backend|service|status|state
        |info|strategy|mode|index|tag|xpath|css|element|locator|page|link|button)s?$"""
)

# What stands between name and value: closing quotes and brackets, perhaps a type, then an operator, perhaps a string prefix.
_TYPE = r"(?:\s{0,4}:\s{0,4}[A-Za-z_][\w.\[\]|, *&]{0,48}?)?"
_QUOTED = re.compile(
    r"(?:\\?[\"'`]|\]|\)|\[\w{0,6}\]){0,3}" + _TYPE + r"\s{0,12}"
    r"(?P<op>===?|!==?|:=|=>|\+=|=|:|,|!?\(|\||\?\?)\s{0,12}"
    r"(?:(?:str|String|SecretStr|Secret|bytes|quote|Some|new \w{1,16})?\(\s{0,4})?(?:[rbfuRBFULN@$]{0,2})"
    r"(?P<quote>\\?[\"'`]|\\u0022|&quot;)(?P<value>[^\n\"'`]{6,512}?)(?P=quote)"
)
_QUOTED_OTHER = re.compile(  # a value that holds the other kind of quote
    r"(?:\\?[\"'`]|\])?\s{0,4}(?P<op>:=|=>|=|:)\s{0,4}(?P<quote>[\"'])(?P<value>(?:(?!(?P=quote))[^\n\\ ]|\\.){6,512}?)(?P=quote)"
)
_BARE = re.compile(
    r"[\"'`\]]{0,2}(?P<gap>[ \t]{0,8})(?P<op>:=|=>|=|:)(?P<after>[ \t]{0,8})(?P<value>[^\s\"'`,;()<>\[\]{}|\\&]{6,512})(?P<next>.?)"
)
_OPTION = re.compile(r"[ \t=]{1,4}(?P<value>[^\s\"'`,;()<>\[\]{}|\\]{6,256})")
_SQL = re.compile(r"(?i)\s{1,4}(?:(?:=|by|with)\s{0,4})?(?P<quote>['\"])(?P<value>[^\n'\"]{4,256})(?P=quote)")
_XML = re.compile(r"[^<>\n\"']{0,40}>(?P<value>[^<>\s\"'&]{6,512})</")
_VALUE_NEXT = re.compile(  # `name: X, value: Y` in YAML, JSON and XML
    r"[\"']?(?:,\s{0,40}|\s{1,40})[\"']?value[\"']?\s?[=:]\s?"
    r"(?:(?P<quote>[\"'])(?P<value>[^\n\"'<>]{6,512})(?P=quote)|(?P<bare>[^\s\"'<>]{6,512}))"
)
_PAIR = re.compile(  # `auth=("user", "...")`, `HTTPBasicAuth("user", "...")`, `user, password = "user", "..."`
    r"\w{0,16}\s?(?:[=:]\s?)?[(\[]?\s?[\"'][^\"'\n]{1,64}[\"']\s?,\s?(?P<quote>[\"'])(?P<value>[^\n\"']{6,128})(?P=quote)"
)
_SCHEME = re.compile(r"(?i)(?:bearer|basic|token|digest)\s{1,3}(?P<value>[A-Za-z0-9_\-.=+/~]{12,2048})")
_TYPE_NAME = re.compile(
    r"(?i)(?:u?int|float|bytes|str|string|sha|md|utf|base|rsa|aes|es|rs|hs|ps|ed|ecdsa|pbkdf|oauth|http|x)[_\-]?\d+[\w\-]*\Z"
)
_NAMED_AFTER = re.compile(r"(?i)(?:key|token|secret|password|passwd|credentials?)s?\Z")  # an identifier that speaks of a secret is not one
_MIXED_DIGITS = re.compile(r"\d{2}|[a-z]\d[a-z]")
_CALL = re.compile(r"\w\(|\(.*\)\Z")
_ONE_SYMBOL = re.compile(r"[\w.\-]+[=?:;!]\Z")  # an exclamation or a query, without a digit
_OPERATORS = re.compile(r"[!=]=.|->|&&|\|\||\+\+")
_IDENTIFIER = re.compile(r"[A-Za-z_$][\w$]*(?:(?:\.|->|::|\?\.)[A-Za-z_$][\w$]*)*\Z")
_SYMBOL = re.compile(r"[!@#$%^&*+?~|;{}]")
_DIGIT = re.compile(r"\d")
_STRUCTURE = re.compile(
    r"^(?:[a-z][a-z0-9+.\-]*://|\.{0,2}/|~/|[A-Za-z]:[\\/]|--?[a-z]|#[0-9a-fA-F]{3,8}$|arn:|application/|text/|[\w.\-]+:\d{1,5}$|\d{1,4}[-/.:]\d{1,2}(?:[-/.:T]\d{1,4})?$)"
    r"|\.(?:py|js|ts|json|ya?ml|pem|key|crt|txt|html?|md|png|env|conf|cfg|xml|sh)$"
    r"|^[\d.,:+\-eE_]+$|^0x[0-9a-fA-F]{1,16}$|\\[nt]$"
)


def find_assigned(source: Source) -> Iterator[Finding]:
    """Every value that its name gives away."""
    text = source.text
    for keyword in _KEYWORDS:
        last = -1
        for at in source.any_case(keyword):
            if at < last:
                continue
            head = _NAME_BEFORE.search(text[max(0, at - 48) : at])
            tail = _NAME_AFTER.match(text, at)
            start = at - (len(head.group()) if head else 0)
            end = last = tail.end() if tail else at
            name = text[start:end]
            if len(name) > _LONGEST_NAME:
                continue
            if keyword in (b"bearer", b"basic ", b"token", b"auth"):
                yield from _after_scheme(text, at)
            strength = 0 if text[max(0, start - 2) : start] == "::" else _strength(name)
            if strength:
                yield from _values(source, start, end, strength == 2)


def _strength(name: str) -> int:
    """2 for a name that only secrets bear, 1 for one that many do, 0 for harmless ones."""
    if _HARMLESS_NAME.search(name):
        return 0
    return 2 if _STRONG.search(name) else 1 if _WEAK.search(name) else 0


def _after_scheme(text: str, at: int) -> Iterator[Finding]:
    match = _SCHEME.match(text, at)
    if match and is_random(match["value"]) and not is_public_example(match["value"]):
        yield Finding(*match.span("value"), "secret", "auth_header")


def _values(source: Source, start: int, end: int, strong: bool) -> Iterator[Finding]:
    text = source.text
    for pattern in (_QUOTED, _QUOTED_OTHER):
        match = pattern.match(text, end)
        # neighbours in a list are no pair unless the value tells
        weak = match is not None and match["op"] == "," and match["value"].isidentifier()
        if weak and match and (match["value"].isupper() or len(_DIGIT.findall(match["value"])) < 2):
            continue
        if match and _is_secret(source, match.start("value"), match["value"], strong and not weak, quoted=True):
            yield Finding(*match.span("value"), "secret", "assigned")
            return
    for pattern in (_XML, _VALUE_NEXT, _SQL) if strong else (_XML, _VALUE_NEXT):
        match = pattern.match(text, end)
        group = "bare" if match and pattern is _VALUE_NEXT and match["bare"] else "value"
        if match and _is_secret(source, match.start(group), match[group], strong, quoted=True):
            yield Finding(*match.span(group), "secret", "assigned")
            return
    match = _PAIR.match(text, end)
    if (
        match
        and (strong or text[start:end].lower().endswith("auth"))
        and not match["value"].islower()
        and _is_secret(source, match.start("value"), match["value"], True, quoted=True)
    ):
        yield Finding(*match.span("value"), "secret", "assigned")
        return
    line_start = source.line_around(start)[0]
    option = text[max(0, start - 1) : start + 2]
    netrc = text[start:end] in ("password", "passwd") and "login " in text[max(0, start - 80) : start]
    match = _OPTION.match(text, end) if "--" in option or netrc or text[line_start:start].strip() == "ENV" else None
    if match and _is_secret(source, match.start("value"), match["value"], strong, quoted=False):
        yield Finding(*match.span("value"), "secret", "assigned")
        return
    match = _BARE.match(text, end)
    if match and _is_bare_secret(source, match, start, strong):
        left, right = match.span("value")
        yield Finding(left, left + len(text[left:right].rstrip(".:")), "secret", "assigned")


def _is_bare_secret(source: Source, match: re.Match[str], start: int, strong: bool) -> bool:
    """An unquoted value is a secret where a line is `NAME=value` or `name: value`; in code it is an expression."""
    value, text = match["value"], source.text
    if value.count(":") > 3 or ("=" in value.rstrip("=") and not is_random(value)):
        return False  # a chain of pairs, not a value
    if match["next"] in ("(", "[", "{", "<", "\\", "|") or _TYPE_NAME.match(value) or _OPERATORS.search(value):
        return False
    line_start = source.line_around(start)[0]
    lead = text[line_start:start].strip(" \t-\"'")
    ended = match["next"] in ("", "\n", "\r", " ", "#", '"', "'")
    configuration = ended and lead in ("", "export", "ENV", "ARG", "set", "SET", "env", "+", "environment", "#", "//")
    query = text[start - 1 : start] in ("?", "&", ";") and match["op"] == "="
    query = query or (match["next"] == "}" and match["op"] == ":" and "${" in text[max(0, start - 32) : start])  # the default of a template
    if _IDENTIFIER.match(value) and not (query or (configuration and _looks_like_configuration(text[start : match.end()], match))):
        return is_random(value) and _is_secret(source, match.start("value"), value, strong, quoted=False)
    return _is_secret(source, match.start("value"), value, strong, quoted=False)


def _looks_like_configuration(pair: str, match: re.Match[str]) -> bool:
    name = pair[: match.start("op") - match.start() + len(pair) - (match.end() - match.start())]
    return (match["op"] == "=" and not match["gap"] and not match["after"]) or match["op"] == ":" or name.isupper()


def _is_secret(source: Source, at: int, value: str, strong: bool, quoted: bool) -> bool:
    core = value.strip()
    digit = bool(_DIGIT.search(core))
    if len(core) < 6 or not (digit or (strong and _SYMBOL.search(core))) or any(map(str.isspace, core)):
        return False
    if is_placeholder(core) or is_public_example(core) or _STRUCTURE.search(core):
        return False
    before = source.text[max(source.line_around(at)[0], at - 120) : at]
    if is_digest(core, before) or (_IDENTIFIER.match(core) and _NAMED_AFTER.search(core)):
        return False
    if not strong:
        return is_random(core) and not is_uuid(core)
    name_like = is_wordy(core, 0.75) and not _SYMBOL.search(core)
    if _TYPE_NAME.match(core) or (name_like and (len(core) > 24 or not _MIXED_DIGITS.search(core))):
        return False
    if not any(map(str.isalpha, core)) or (not quoted and not digit and _IDENTIFIER.match(core)):
        return False
    if _CALL.search(core) and not is_random(core):
        return False
    return digit or not _ONE_SYMBOL.match(core)
