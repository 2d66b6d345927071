"""Secrets by their place: options of commands, arguments of a login, fields of credential files.

In:  a Source
Out: Findings that cover the value alone

A word that takes credentials must stand in front, and the value must have a digit or a symbol: by place alone a word is an
argument like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from core.findings import Finding, Source
from core.secret_names import Strength
from core.secret_words import is_mixed, why_not_assigned


class _Form(NamedTuple):
    """A literal that leads to the value, what must stand before it on the line, and the value's place."""

    literal: bytes
    before: re.Pattern[str] | None
    pattern: re.Pattern[str]


_CURL = re.compile(r"(?i)(?:curl|http|https|wget|lftp|svn|mosquitto_\w+)\b[^\n]{0,200}?\Z")
_CLIENTS = re.compile(
    r"(?i)(?:mysql\w*|mysqldump|mariadb\w*|sshpass|mongo\w*|redis-cli|psql|sqlcmd|sqlplus|docker login|podman login|ldap\w+"
    r"|htpasswd|7z|zip|unzip|openssl"
    r"|az login|helm|smbclient|rdesktop|xfreerdp|influx|impdp|expdp|plink|pscp|psftp|net use|winexe|psexec|ssh)\b[^\n]{0,200}?\Z"
)
_VALUE = r"[\"']?(?P<value>[^\s\"'`]{4,128})"
_ARGUMENTS = re.compile(r"\s{0,4}\(((?:[^\"'()\n]{0,64}(?:Some\()?(?:\"[^\"\n]{0,160}\"|'[^'\n]{0,160}')){1,6}[^\"'()\n]{0,64})[),]")
_STRINGS = re.compile(r"\"([^\"\n]{0,160})\"|'([^'\n]{0,160})'")
_CALLS = (
    b"login", b"connect", b"authenticate", b"credential", b"auth", b"signin", b"sign_in", b"logon", b"setauth", b"createuser",
    b"create_user",
    b"mysqli", b"bind", b"authorize", b"adduser", b"add_user", b"pdo", b"jwt.sign", b"jwt.verify", b"jwt.encode", b"jwt.decode",
    b"createhmac", b"hmac.new", b"cookieparser", b"ftp",
)  # fmt: skip
_SINGLE = (b"jwt.sign", b"jwt.verify", b"jwt.encode", b"jwt.decode", b"createhmac", b"hmac.new", b"cookieparser")  # no user before the key
_LETTERS_TOO = re.compile(r"(?i)auth|credential|create_?user|login\Z")  # calls whose last string is a password whatever it looks like
_CALL_NAME = re.compile(r"(?i)\w{0,24}")
_FORMS = (
    _Form(b" -u", _CURL, re.compile(r" -u ?[\"']?[\w.@\\\-]{1,64}:(?P<value>[^\s\"'`]{4,128})")),
    _Form(b"--user", _CURL, re.compile(r"--user[ =]?[\"']?[\w.@\\\-]{1,64}:(?P<value>[^\s\"'`]{4,128})")),
    _Form(b" -p", _CLIENTS, re.compile(r" -p ?" + _VALUE)),
    _Form(b" -a ", re.compile(r"redis-cli\b[^\n]{0,200}?\Z"), re.compile(r" -a " + _VALUE)),
    _Form(b" -w ", re.compile(r"ldap\w+\b[^\n]{0,200}?\Z"), re.compile(r" -w " + _VALUE)),
    _Form(b" -P ", re.compile(r"(?:sqlcmd|bcp|mosquitto_\w+|isql|unzip|zip)\b[^\n]{0,200}?\Z"), re.compile(r" -P " + _VALUE)),
    _Form(b" -pw ", None, re.compile(r" -pw " + _VALUE)),
    _Form(b"/user:", None, re.compile(r"/user:[\w.\\@\-]{1,64} " + _VALUE)),
    _Form(b"pass:", re.compile(r"(?:openssl|keytool|-pass(?:in|out)?)\b[^\n]{0,200}?\Z"), re.compile(r"pass:" + _VALUE)),
    _Form(b"htpasswd", None, re.compile(r"htpasswd [^\n]{0,40}-\w{0,4}b\w{0,4} [^\s]{1,64} [^\s]{1,64} " + _VALUE)),
    _Form(b"net user ", None, re.compile(r"(?i)net user [^\s]{1,64} " + _VALUE + r"(?= /add)")),
    _Form(b"chpasswd", re.compile(r"echo [\"']?[\w.\-]{1,32}:(?P<value>[^\s\"'`|]{4,128})[\"']? ?\| ?(?:sudo )?\Z"), re.compile("")),
    _Form(b"passwd --stdin", re.compile(r"echo [\"']?(?P<value>[^\s\"'`|]{4,128})[\"']? ?\| ?(?:sudo )?\Z"), re.compile("")),
    _Form(b"convertto-securestring", None, re.compile(r"(?i)ConvertTo-SecureString (?:-String )?[\"'](?P<value>[^\s\"']{4,128})[\"']")),
    _Form(b"identified by ", None, re.compile(r"(?i)identified by (?:values )?(?P<value>[^\s\"';,()]{6,128})")),
    _Form(b"| sudo -s", re.compile(r"echo [\"']?(?P<value>[^\s\"'`|]{4,128})[\"']? \Z"), re.compile(r"(?i)\| sudo -S")),
    _Form(b" -k ", re.compile(r"openssl enc\b[^\n]{0,200}?\Z"), re.compile(r" -k " + _VALUE)),
    _Form(b" -U ", None, re.compile(r" -U [\w.\\/@\-]{1,64}%" + _VALUE)),
    _Form(b"password-stdin", re.compile(r"echo (?:-n )?[\"']?(?P<value>[^\s\"'`|$]{8,128})[\"']? \|[^\n]{0,120}--?\Z"), re.compile("")),
    _Form(b"assword:", None, re.compile(r"assword:? ?[\"'\])}]{0,3}\s{1,40}send(?:line)? (?:-- )?[\"'{](?P<value>[^\s\"'}\\]{4,128})")),
    _Form(b"PASS ", None, re.compile(r"(?<![\w ])PASS (?P<value>[^\s\"'`<$]{5,64})(?=\s|\Z)")),
    _Form(b"login ", None, re.compile(r"(?m)^[ \t]{0,8}login [\w.@\-]{2,64} " + _VALUE + r"[ \t]*$")),
    _Form(b"login with ", None, re.compile(r"(?i)log ?in with [\w.@\-]{2,64}[:/ ]{1,3}(?:and )?(?P<value>[^\s\"'`,;]{5,64})")),
    _Form(b"$apr1$", None, re.compile(r"(?P<value>\$apr1\$[\w./]{1,16}\$[\w./]{20,24})")),
    _Form(b":5432:", None, re.compile(r":\d{2,5}:[\w.*\-]{1,64}:[\w.*\-]{1,64}:(?P<value>[^\s:\"']{4,128})[ \t]*(?=\n|\Z)")),
    _Form(
        b" * ", re.compile(r"(?m)^[\w.\-]{1,64}\Z"), re.compile(r"(?<=\w) \* (?P<value>[^\s\"'*]{6,64}) \*[ \t]*(?=\n|\Z)")
    ),  # chap-secrets
    _Form(b"net use ", None, re.compile(r"(?i)net use [^\s]{1,16} [^\s]{1,128} (?P<value>[^\s/\"'*][^\s\"']{3,64})(?= |\Z)")),
    _Form(b"/rp ", None, re.compile(r"/rp " + _VALUE)),
    _Form(b"rootpw ", None, re.compile(r"rootpw (?:--\w+ )?(?P<value>[^\s\"'\-{][^\s\"']{4,128})")),
    _Form(b"oracle:thin:", None, re.compile(r"oracle:thin:[\w.\-]{1,64}/(?P<value>[^\s@/]{4,128})@")),
    _Form(b"bindpw ", None, re.compile(r"bindpw " + _VALUE)),
    _Form(b"@tcp(", re.compile(r"[\w.\-]{1,32}:(?P<value>[^\s\"'@:/]{4,128})\Z"), re.compile("")),
    _Form(b"requirepass ", None, re.compile(r"requirepass " + _VALUE)),
)


def find_in_commands(source: Source) -> Iterator[Finding]:
    """Values of options and positional arguments that are passwords."""
    for form in _FORMS:
        looked = 0  # up to here the line has no command
        for at in source.any_case(form.literal) if form.literal.islower() else source.everywhere(form.literal):
            match = form.pattern.match(source.text, at)
            if match is None:
                continue
            lead = form.before.search(source.text, max(source.line_around(at)[0], at - 240, looked), at) if form.before else None
            if form.before and lead is None:
                looked = at
                continue
            taken = match if "value" in match.re.groupindex else lead
            if taken is not None and _is_value(source, *taken.span("value")):
                yield Finding(*taken.span("value"), "secret", "command_option")
    yield from _in_calls(source)
    yield from _in_inserts(source)


_INSERT = re.compile(r"(?is)\(([^()]{1,400})\)\s{0,8}values\s{0,8}\(((?:[^()'\"]{0,64}|'[^'\n]{0,200}'|\"[^\"\n]{0,200}\"){1,24})\)")
_COLUMN = re.compile(r"(?i)pass(?:word|wd)?|pwd|secret|token|api_?key")


def _in_inserts(source: Source) -> Iterator[Finding]:
    """`INSERT INTO t (name, password) VALUES ('x', '...')`: the value that stands in the column's place."""
    for at in source.any_case(b"insert into"):
        match = _INSERT.search(source.text, at, at + 1200)
        columns = match[1].split(",") if match else []
        values = [found.span(found.lastindex or 0) for found in _STRINGS.finditer(source.text, *match.span(2))] if match else []
        for place, column in enumerate(columns):
            back = len(columns) - place  # numbers are no strings: count from the end where that fits better
            spans = values[place : place + 1] if len(values) == len(columns) else values[-back : len(values) - back + 1]
            if _COLUMN.search(column) and spans and _is_value(source, *spans[0]):
                yield Finding(*spans[0], "secret", "insert")


def _in_calls(source: Source) -> Iterator[Finding]:
    """The strings of `login("host", "user", "password")` that are passwords: never the first, unless the call takes a key alone."""
    text = source.text
    for call in _CALLS:
        for at in source.any_case(call):
            name = _CALL_NAME.match(text, at + len(call))
            open_at = name.end() if name else at + len(call)
            match = _ARGUMENTS.match(text, open_at)
            if match is None:
                continue
            strings = [found.span(found.lastindex or 0) for found in _STRINGS.finditer(text, *match.span(1))]
            known = strings if call in _SINGLE or not text.startswith(('"', "'"), match.start(1)) else strings[1:]
            letters = len(strings) == 2 and bool(_LETTERS_TOO.search(text[at:open_at]))
            yield from (Finding(*span, "secret", "login_call") for span in known if _is_value(source, *span, letters))


_PLACE = re.compile(r"[\w\-]+(?:\.[\w\-]+)+(?::\d+)?\Z|[\w.+\-]+@[\w.\-]+\Z|\w+:[\w./]+=")  # a host, an address, a data source


def _is_value(source: Source, start: int, end: int, letters: bool = False) -> bool:
    value = source.text[start:end]
    if len(value) < 5 or any(map(str.isspace, value)) or (_PLACE.match(value) and not is_mixed(value.replace("@", "").replace(".", ""))):
        return False
    if letters and not is_mixed(value):
        return len(value) > 7 and not why_not_assigned(source, start, end, Strength.PASSWORD, quoted=True, placed=True)
    return is_mixed(value) and not _MAIL.match(value) and not why_not_assigned(source, start, end, Strength.STRONG, quoted=True)


_MAIL = re.compile(r"[\w.+\-]+@[\w\-]+\.[\w.\-]+\Z")
