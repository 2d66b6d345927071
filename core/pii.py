"""Personal data in code: e-mail and IP addresses, user names in home directories, names in git trailers.

In:  a Source
Out: Findings; version numbers, OIDs, documentation ranges, private ranges and public resolvers are nobody's data
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from core.findings import Finding, Source, words

_LOCAL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+-'")
_DOMAIN = re.compile(r"(?:[^\W_](?:[\w\-]{0,61}[^\W_])?\.){1,8}([^\W\d_]{2,24}|xn--[a-z0-9\-]{2,40})(?![^\W_]|[_(\[]|-[^\W_]|\.[^\W_])")
_TLDS = words(  # where people have mail; every two-letter code counts as a country, every one beyond ASCII too
    """com org net edu gov mil int info biz name pro aero coop museum jobs mobi travel asia cat tel xxx post app dev page cloud tech
    online site store shop blog xyz club live life world today email company agency studio design digital systems solutions services
    network software technology engineering science academy university education school institute foundation center centre community
    social media news ltd gmbh inc llc bank finance money health care legal law consulting expert guru ninja rocks space website zone
    work works team group global international ai berlin london nyc paris tokyo amsterdam wien hamburg koeln moscow africa swiss eus
    gal scot wales google amazon microsoft moe photography photo photos gallery graphics video film tv radio fm audio band music art
    arts theater dance games game play fun party events tickets tours holiday vacations hotel restaurant cafe bar pub beer wine pizza
    coffee kitchen recipes garden farm fish pet vet dog horse green eco bio earth energy solar build builders construction house homes
    estate properties property land apartments villas rent auto car cars bike taxi limo flights cruises marine boats express delivery
    supply supplies parts tools equipment industries manufacturing trade trading market markets marketing business ventures holdings
    capital fund investments exchange credit cash loans insurance tax accountant accountants attorney lawyer abogado clinic dental
    dentist doctor hospital surgery physio fitness yoga gym run football soccer golf tennis ski hockey rugby cricket racing bet casino
    poker lotto one plus top vip best cool wow lol fyi how wiki help support guide directory link click chat forum reviews report
    exposed press review ink pub icu kim red blue pink black gold codes hosting host domains servers server computer computers
    security data computer systems domains graphics camera phone mobile ist istanbul bayern saarland nrw ruhr tirol quebec vegas
    miami boston melbourne sydney osaka nagoya okinawa kyoto taipei joburg capetown durban krd lat bzh corsica alsace vlaanderen
    brussels gent frl barcelona madrid rio swiss lgbt gay dad mom kids baby family singles dating wedding church faith christmas
    charity ngo ong democrat republican vote voting navy army airforce"""
)
_FILE_TLDS = words("py js ts md sh so")  # also endings of file names: an address there needs one more dot
_BENIGN_LOCAL = re.compile(
    r"(?i)^(?:git|hg|svn|npm|no[_\-]?reply|do[_\-]?not[_\-]?reply|user\d*|username|your\W?(?:name|email)|you|me|someone|nobody|example|x+)$"
    r"|^\d+\+?.*noreply"
)
_BENIGN_DOMAIN = re.compile(
    r"(?i)(?:^|\.)(?:example\.\w+(?:\.\w+)?|example|test|invalid|localhost|local|localdomain|internal|lan|domain\.\w+"
    r"|users\.noreply\.\w+\.com"
    r"|noreply\.\w+\.\w+|email\.com|company\.com|your-?(?:domain|company)\.\w+)$"
)
_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[0-7]{3}|[A-Za-z0-9])")
_STRING_PREFIX = re.compile(r"(?i)(?:[bru]|[bf]r|r[bf]|f|return|case)'")  # an apostrophe that opens a string, not O'Brien's
_USERINFO = re.compile(r"(?<!ssh)(?<!sftp)://[^\s/?#'\"<>]*\Z")


def find_emails(source: Source) -> Iterator[Finding]:
    """Addresses of real people and hosts (RFC 5321 and 6531 in the form people write), and those spelt out with `at` and `dot`."""
    text = source.text
    for at in source.everywhere(b"@"):
        match = _DOMAIN.match(text, at + 1)
        if match is None:
            continue
        start = _local_start(text, at)
        if escape := _ESCAPE.match(text, max(0, start - 1)):
            start = escape.end()
        local = text[start:at]
        if not local or local[-1] == ".":
            continue
        if _is_address(local, match.group(), match.group(1)) and not _USERINFO.search(text[max(0, start - 128) : start]):
            yield Finding(start, match.end(), "email", "email")
        else:
            source.stay(start, match.end(), "email", "nobody's: a host's user, an example, a file or an expression")
    yield from _spelt_out(source)


def _local_start(text: str, at: int) -> int:
    """Where the part before an @ begins."""
    start, floor = at, max(0, at - 64)
    while start > floor and (text[start - 1] in _LOCAL or (text[start - 1] > "\x7f" and text[start - 1].isalnum())):
        start -= 1
    prefix = _STRING_PREFIX.match(text, start, at)
    start = prefix.end() if prefix else start
    while start < at and text[start] in ".%+-'":
        start += 1
    return start


_SPELT = (b"[at]", b"(at)", b"{at}", b"<at>", b" at ", b"_at_", b"&#64;", b"%40")
_SPELT_DOMAIN = re.compile(
    r"(?i)(?:\[at\]|\(at\)|\{at\}|<at>| at |_at_|&#64;|%40)\s?((?:[a-z0-9][a-z0-9\-]{0,62}(?P<dot>\s?(?:\[dot\]|\(dot\)"
    r"|\{dot\}|<dot>| dot |_dot_)\s?|\.)){1,5}([a-z]{2,24}))(?![\w\-(]|\.\w)"
)
_SPELT_LOCAL = re.compile(r"(?i)(?:[a-z0-9][\w.+\-]{0,40}(?: dot | ?\[dot\] ?| ?\(dot\) ?)){0,3}[a-z0-9][\w.+\-]{0,40}\s?\Z")


def _spelt_out(source: Source) -> Iterator[Finding]:
    """`name at host dot com`, `name [at] host.com`; a bare ` at ` needs a spelt dot, brackets or a colon around it to be one."""
    text = source.text
    for sign in _SPELT:
        done = 0
        for at in source.any_case(sign):
            match = _SPELT_DOMAIN.match(text, at) if at >= done else None
            local = _SPELT_LOCAL.search(text, max(0, at - 64), at) if match else None
            if match is None or local is None:
                continue
            done = match.end()
            start = max(local.start(), text.rfind("\n", local.start(), at) + 1)
            plain = sign == b" at " and " dot " not in match.group().lower() and "dot" not in match.group("dot").lower()
            if plain and not (
                text[max(0, start - 1) : start] in ("<", "(")
                or re.search(r"(?i)(?:mail|contact|author)\S{0,4}:? ?\Z|, \Z", text[max(0, start - 16) : start])
            ):
                continue
            head = (
                re.split(r"\s", text[start:at].rstrip())[-1] if plain or " dot " not in text[start:at].lower() else text[start:at].rstrip()
            )
            start = at - len(text[start:at]) + len(text[start:at].rstrip()) - len(head)
            if match[3].lower() in _TLDS or len(match[3]) == 2:
                yield Finding(start, match.end(), "email", "email_spelt_out")


def _is_address(local: str, domain: str, tld: str) -> bool:
    lower = tld.lower()
    if not (lower in _TLDS or len(lower) == 2 or not tld.isascii() or lower.startswith("xn--")) or (tld != lower and not domain.isupper()):
        return False
    if lower in _FILE_TLDS and domain.count(".") == 1 and "." not in local:
        return False
    return not (_BENIGN_LOCAL.search(local) or _BENIGN_DOMAIN.search(domain))


_IPV4 = re.compile(rb"(?<![\w.])(?<![A-Za-z0-9]-)\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\w]|\.\d|-[A-Za-z])")
_VERSION = re.compile(
    r"(?i)(?:version|\bver\b|\bv\b|release|(?<![a-z])oid(?![a-z])|build|firmware|assembly|\brev\b|revision|changelog"
    r"|section|chapter|upgrade\w*|^#{2,6} |\btable\b|\bfigure\b|\bclause\b|appendix|\binstall\w*|§"
    r"|since|\btag\b|==|>=|<=|~=|!=|\^|~>|[a-z\d_)]/)[^\n]{0,24}\Z"
)
_ADDRESS_NAME = re.compile(
    r"(?i)\bips?\b|ip_|_ip|ipv4|addr|host|server|://|@|gateway|peer|client|remote|proxy|dns|ping|ssh|port|inet|\bfrom\b"
)
_NAMED = re.compile(
    r"(?i)://\S*\Z|@\Z|ip4:\Z|(?:\bip|_ip|addr\w*|host|server)\W{1,4}\Z"
)  # right before the value: an address whatever else stands there
_PRODUCT = re.compile(r"[A-Z][A-Za-z]+ \Z")
_RESOLVERS = words(  # public name servers, dummies and the cloud metadata address
    """8.8.8.8 8.8.4.4 1.1.1.1 1.0.0.1 1.1.1.2 1.0.0.2 1.1.1.3 1.0.0.3 9.9.9.9 9.9.9.10 149.112.112.112 208.67.222.222 208.67.220.220
    208.67.222.220 64.6.64.6 64.6.65.6 4.2.2.1 4.2.2.2 4.2.2.3 4.2.2.4 4.4.4.4 2.2.2.2 3.3.3.3 77.88.8.8 77.88.8.1 94.140.14.14
    94.140.15.15 185.228.168.9 76.76.2.0 114.114.114.114 223.5.5.5 223.6.6.6 119.29.29.29 180.76.76.76 1.2.3.4 4.3.2.1 5.6.7.8
    1.2.3.0 169.254.169.254 2001:4860:4860::8888 2001:4860:4860::8844 2606:4700:4700::1111 2606:4700:4700::1001 2620:fe::fe
    2620:fe::9 2620:119:35::35 2620:119:53::53 2a10:50c0::ad1:ff 2a10:50c0::ad2:ff"""
)
_SMALL = 20  # four parts below it, without the word for an address nearby, are a version (one address in 27,000 looks so)


_DOTTED = bytes(0x31 if chr(c).isdecimal() and c < 128 else c if c == 0x2E else 0x20 for c in range(256))
_HEXED = bytes(0x31 if chr(c) in "0123456789abcdefABCDEF" else c if c == 0x3A else 0x20 for c in range(256))
_QUADS, _GROUP = re.compile(rb"1\.1{1,3}\.1{1,3}\.1"), re.compile(rb"1111:")


def _candidates(raw: bytes, classes: bytes, shape: re.Pattern[bytes], pattern: re.Pattern[bytes], back: int) -> Iterator[re.Match[bytes]]:
    """Matches of a pattern that hold a shape once every character is replaced by its class: many times faster to look for.

    Args:
        back: characters of the class 1 that a match may have before the shape.
    """
    done = 0
    for found in shape.finditer(raw.translate(classes)):
        start = found.start()
        while start > 0 and found.start() - start < back and raw[start - 1 : start].isdigit():
            start -= 1
        match = pattern.match(raw, start) if start >= done else None
        if match:
            done = match.end()
            yield match


def find_ipv4(source: Source) -> Iterator[Finding]:
    """Globally routable IPv4 addresses."""
    for match in _candidates(source.raw, _DOTTED, _QUADS, _IPV4, 3):
        value, start = match.group().decode(), match.start()
        if value in _RESOLVERS or not _is_global(value):
            source.stay(start, match.end(), "ipv4", "private, reserved, for documentation, or a public resolver")
            continue
        if source.raw.startswith(b".in-addr.", match.end()) and not _is_global(".".join(reversed(value.split(".")))):
            continue
        before = source.text[max(source.line_around(start)[0], start - 48) : start]
        if _is_version(value, before):
            source.stay(start, match.end(), "ipv4", "a version, a section or an object identifier")
        else:
            yield Finding(start, match.end(), "ipv4", "ipv4")


def _is_version(value: str, before: str) -> bool:
    """A version number or OID that happens to have the form of an address."""
    parts = [int(part) for part in value.split(".")]
    if parts[0] == 0 or parts[:3] == [1, 3, 6] or parts[:2] == [2, 5]:  # no host; the OID arcs of the Internet and of X.500
        return True
    if _NAMED.search(before):
        return False
    if not _ADDRESS_NAME.search(before) and (max(parts) < _SMALL or (parts[0] < 10 and _PRODUCT.search(before))):
        return True
    return bool(_VERSION.search(before))


_MAPPED = re.compile(rb"(?i)(?<![\w:.])(?:0{0,4}:){2,6}ffff:(\d{1,3}(?:\.\d{1,3}){3})(?![\w.])")  # RFC 4291 section 2.5.5
_IPV6 = re.compile(rb"(?<![\w:.])[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:.]{2,41}(?!\w)")


def find_ipv6(source: Source) -> Iterator[Finding]:
    """Global unicast IPv6 addresses, 2000::/3 (RFC 4291); slices, scopes, times and MAC addresses lie outside it."""
    for match in _candidates(source.raw, _HEXED, _GROUP, _IPV6, 0):
        value = match.group().decode()
        value = value[:-1] if value.endswith(".") or (value.endswith(":") and not value.endswith("::")) else value
        if value.lower() in _RESOLVERS or not _is_global(value) or value.lower().startswith(("2001:db8:", "3fff:")):
            continue
        yield Finding(match.start(), match.start() + len(value), "ipv6", "ipv6")
    mapped = (
        _MAPPED.match(source.raw, at - len(head := source.raw[max(0, at - 20) : at]) + len(head.rstrip(b"0:")))
        for at in source.any_case(b"ffff:")
    )
    for match in filter(None, mapped):
        inner = match.group(1).decode()
        if inner not in _RESOLVERS and _is_global(inner):
            yield Finding(match.start(), match.end(), "ipv6", "ipv6_mapped")


def _is_global(value: str) -> bool:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    return address.is_global and not address.is_multicast


_HOME = (
    (b"/home/", re.compile(r"([A-Za-z0-9_][\w.\-]{0,31})(?=[/\\\"'`\s:;,)\]}>]|$)")),
    (b"/users/", re.compile(r"([A-Za-z0-9_][\w.\-]{0,31}(?: [A-Z][\w.\-]{0,20}(?=/))?)(?=[/\\\"'`\s:;,)\]}>]|$)")),
    (b"\\users\\", re.compile(r"\\?([A-Za-z0-9_][\w.\-~]{0,31}(?: [\w.\-]{1,20}(?=\\)){0,2})(?=[/\\\"'`\s:;,)\]}>]|$)")),
)
_BENIGN_USER = words(  # accounts of systems, services and examples; first parts of web routes
    """user users username user_name user-name user1 userid name me you your yourname your_name your-name yourusername your_username
    myuser myname someone somebody nobody ubuntu debian centos fedora ec2-user vagrant runner runneradmin root travis circleci
    appveyor jovyan docker app admin administrator public default guest shared git www www-data nginx apache postgres mysql jenkins
    gitlab-runner build builder buildbot ci dev deploy node pi coder codespace vscode gitpod conda miniconda anaconda linuxbrew
    homebrew hadoop spark airflow hdfs oracle steam kali test tester testuser foo bar baz demo example alice bob index home about
    login logout page pages static assets images css js src api v1 v2 new edit show list search profile settings all some_user xxx
    abc username1 devuser project projects bin lib local opt etc tmp var data work workspace container container_user nonroot
    appuser sandbox"""
)
_LINK = re.compile(
    r"(?:href|src|action|to|path|route|url)=[\"'{]{1,2}\Z|(?:push|navigate|redirect|get|post|put|delete|goto|visit)\([\"'`]\Z"
)
_ANSI = re.compile(r"(?:\\x1b|\\u001b|\\033|\\e|\x1b)\[[\d;]*m\Z")  # colours of a terminal, in notebooks and logs
_FILE_NAME = re.compile(r"\.(?:html?|php|aspx?|jsp|json|js|css|png|svg|md|py)$")
_PATH_BEFORE = re.compile(r"[\w.:/\-$~{}]{0,64}\Z")
_MOUNT = re.compile(r"^/?(?:export|mnt|data|nfs|usr|vol\d*|net|media|srv|[a-z])\b|^-[A-Z]$")  # also a compiler option such as -I


def find_user_paths(source: Source) -> Iterator[Finding]:
    """The user's name in `/home/name`, `/Users/name`, `C:\\Users\\name`."""
    for head, pattern in _HOME:
        for at in source.any_case(head):
            after = at + len(head)
            match = pattern.match(source.text, after)
            if match is None or match.group(1).lower() in _BENIGN_USER or not _is_home(source.text, at, head, match):
                continue
            yield Finding(*match.span(1), "user_path", "home_directory")


def _is_home(text: str, at: int, head: bytes, match: re.Match[str]) -> bool:
    """A path in a file system, not in a web address."""
    if match.group(1).isdigit() or _FILE_NAME.search(match.group(1)):
        return False
    if head == b"\\users\\":
        return True
    lead = _ANSI.sub("", text[max(0, at - 64) : at])
    before = _PATH_BEFORE.search(lead)
    path = before.group() if before else ""
    if ("://" in path and "file://" not in path) or _LINK.search(lead):
        return False
    if head == b"/users/":  # in small letters it is a route of a web service
        followed = text[match.end() : match.end() + 1] in "/\\\"'`"
        return text.startswith("Users", at + 1) and (followed or not path) and not re.search(r"\w\.\w+$", path)
    return not re.search(r"[\w}]$", path) or bool(_MOUNT.match(path))


_TRAILER = re.compile(
    r"(?i)(?:Signed-off-by|Co-authored-by|Reviewed-by|Acked-by|Tested-by|Reported-by|Suggested-by|Committer|Author|From): {1,2}"
    r"([^\W\d_][\w.'\- ]{1,60}?) ?<[^<>\s@]{1,64}@[^<>\s]{1,128}>"
)
_TRAILERS = (b"-by: ", b"author: ", b"committer: ", b"from: ")
_PLACEHOLDER_NAME = re.compile(r"(?i)^(?:user \d+|.*\bbot\b.*|your name|name|github|gitlab|example.*|john doe|jane doe)$")


_MACHINE = re.compile(r"\[bot\]@")
_BARE_TRAILER = re.compile(r"-by: ([A-Z][\w.'\-]{1,24}(?: [A-Z][\w.'\-]{0,24}){1,3})[ \t]*(?=\n|\Z)")
_GIT_CONFIG = re.compile(r"\[user\]\s{1,8}name = ([^\W\d_][\w.'\- ]{2,60}?)[ \t]*(?=\n|\Z)")
_CHANGELOG = re.compile(r"\n -- ([^\W\d_][\w.'\- ]{1,60}?) <[^<>\s]{3,128}>  [A-Z][a-z]{2}, ")


def find_trailers(source: Source) -> Iterator[Finding]:
    """Names in git trailers and mail headers; their addresses are found as addresses."""
    for head in _TRAILERS:
        done = 0
        for at in source.any_case(head):
            if at < done:
                continue  # one to a line
            line, done = source.line_around(at)
            match = _TRAILER.search(source.text, max(line, at - 16), at + 240)
            if match and not _PLACEHOLDER_NAME.match(match.group(1)) and not _MACHINE.search(match.group()):
                yield Finding(*match.span(1), "person", "git_trailer")
    for at in source.any_case(b"-by: "):
        match = _BARE_TRAILER.match(source.text, at)
        if match and not _PLACEHOLDER_NAME.match(match.group(1)):
            yield Finding(*match.span(1), "person", "git_trailer")
    for at in source.any_case(b"name = "):
        match = _GIT_CONFIG.search(source.text, max(0, at - 24), at + 80)
        if match and not _PLACEHOLDER_NAME.match(match.group(1)):
            yield Finding(*match.span(1), "person", "git_config")
    for at in source.everywhere(b"\n -- "):
        match = _CHANGELOG.match(source.text, at)
        if match and not _PLACEHOLDER_NAME.match(match.group(1)):
            yield Finding(*match.span(1), "person", "changelog")


_AUTHOR = re.compile(  # documentation tags and file headers; copyright lines stay, because licences ask for them
    r"(?:[@\\]author[s]?:?[ \t]{1,8}|:author:[ \t]{1,4}|__author__\s?=\s?[\"']|(?:Created|Written) by[ \t:]{1,3})"
    r"(?P<name>[^\W\d_][^\W\d_.'\-]{1,24}(?:[ ][^\W\d_][\w.'\-]{0,24}){1,3}?)(?<!')(?=\s*(?:$|[<(,;\"'\n]| on | \d))",
    re.MULTILINE,
)
_AUTHOR_HEADS = (b"@author", b"\\author", b":author:", b"__author__", b"created by", b"written by")
_NOT_A_NAME = re.compile(
    r"(?i)\b(?:team|inc|ltd|gmbh|corp|foundation|project|developers?|contributors?|authors?|community|group|university|the"
    r"|and|tool|script|user)\b"
)


def find_authors(source: Source) -> Iterator[Finding]:
    """Names of people in author tags."""
    for head in _AUTHOR_HEADS:
        for at in source.any_case(head):
            match = _AUTHOR.match(source.text, at)
            if (
                match
                and match["name"][:1].isupper()
                and not _NOT_A_NAME.search(match["name"])
                and not _PLACEHOLDER_NAME.match(match["name"])
            ):
                yield Finding(*match.span("name"), "person", "author_tag")


_PHONE = re.compile(r"(?<![\w.])(?P<value>(?:\+|00)?\(?\d{1,4}\)?(?:[ .\-/]{0,2}\(?\d{1,5}\)?){1,6})(?![\w]|\.\d|-[A-Za-z])")
_ANNOUNCED = re.compile(rb"(?:[\"'`>:]|[a-z:] )\Z")
_E164 = re.compile(rb"(?<![\w.+\n])\+[1-9]\d{9,14}(?![\w.])")
_PHONE_NAMES = (b"phone", b"tel", b"mobile", b"fax", b"whatsapp", b"wa.me/", b"call ", b"cell", b"sms", b"msisdn", b"handy", b"contact")
_PHONE_BETWEEN = re.compile(
    r"(?i)(?:phone|telefon|tel|mobile|fax|whatsapp|wa\.me/|call|cell|sms|msisdn|handy|contact)(?:ephone)?[ _\-]?(?:no|nr"
    r"|num(?:ber)?|work|home|office|business)?\.?"
    r"(?:[\"'\])]{0,2}\s{0,3}(?:[:=>,(]|=>|TYPE=CELL:| at )?\s{0,3}[\"']?(?:https?://wa\.me/)?(?:tel:)?"
    r"|[^\d\n\"']{1,40}? (?:at|to|on) )\(?\Z"
)
_FICTIONAL = re.compile(r"555[ .\-]?01\d\d\Z|^\D{0,3}0{3,}|^(?:\D*1\D*2\D*3\D*4)|(\d)\1{5}")  # 555-0100 to -0199 are kept for fiction


def find_phones(source: Source) -> Iterator[Finding]:
    """Telephone numbers (ITU-T E.164: 8 to 15 digits) that a word before them announces."""
    for name in _PHONE_NAMES:
        for at in source.any_case(name):
            end = at + len(name)
            match = _PHONE.search(source.text, end, min(end + 72, source.line_around(end)[1] if end < len(source.raw) else end))
            if match is None or not _PHONE_BETWEEN.search(source.text[at : match.start()]):
                continue
            digits = sum(map(str.isdigit, match["value"]))
            spaced = not match["value"].isdigit() or name in (b"phone", b"mobile", b"wa.me/", b"msisdn", b"whatsapp")
            if 8 <= digits <= 15 and spaced and not _FICTIONAL.search(match["value"]):
                yield Finding(*match.span("value"), "phone", "phone")
    for number in filter(None, (_E164.match(source.raw, at) for at in source.everywhere(b"+"))):
        if _ANNOUNCED.search(source.raw, max(0, number.start() - 3), number.start()) and not _FICTIONAL.search(number.group().decode()):
            yield Finding(*number.span(), "phone", "phone_e164")
