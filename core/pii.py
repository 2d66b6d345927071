"""Personal data in code: e-mail and IP addresses, user names in home directories, names in git trailers.

In:  a Source
Out: Findings; version numbers, OIDs, documentation ranges, private ranges and public resolvers are nobody's data
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from core.findings import Finding, Source, words

_LOCAL = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+-"
_DOMAIN = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?\.){1,8}([A-Za-z]{2,24})(?![A-Za-z0-9_(\[]|-[A-Za-z0-9]|\.[A-Za-z0-9])"
)
_TLDS = words(  # where people have mail; every two-letter code counts as a country besides
    """com org net edu gov mil int info biz name pro aero coop museum jobs mobi travel asia cat tel xxx post app dev page cloud tech
    online site store shop blog xyz club live life world today email company agency studio design digital systems solutions services
    network software technology engineering science academy university education school institute foundation center community social
    media news ltd gmbh inc llc bank finance money health care legal law consulting expert guru ninja rocks space website zone work
    works team group global international ai berlin london nyc paris tokyo amsterdam wien hamburg koeln moscow africa swiss eus gal
    scot wales google amazon microsoft"""
)
_FILE_TLDS = words("py js ts md rs sh pl so cc mm st")  # also endings of file names: an address there needs one more dot
_BENIGN_LOCAL = re.compile(
    r"(?i)^(?:git|hg|svn|npm|no[_\-]?reply|do[_\-]?not[_\-]?reply|user\d*|username|your\W?(?:name|email)|you|me|someone|nobody|example|x+)$"
    r"|^\d+\+?.*noreply"
)
_BENIGN_DOMAIN = re.compile(
    r"(?i)(?:^|\.)(?:example\.\w+(?:\.\w+)?|example|test|invalid|localhost|local|localdomain|internal|lan|domain\.\w+|users\.noreply\.\w+\.com"
    r"|noreply\.\w+\.\w+|email\.com|company\.com|your-?(?:domain|company)\.\w+)$"
)
_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[0-7]{3}|[A-Za-z0-9])")
_USERINFO = re.compile(r"://[^\s/?#'\"<>]*\Z")


def find_emails(source: Source) -> Iterator[Finding]:
    """Addresses of real people and hosts (RFC 5321 in the form people write)."""
    text = source.text
    for at in source.everywhere(b"@"):
        match = _DOMAIN.match(text, at + 1)
        if match is None:
            continue
        head = text[max(0, at - 64) : at]
        local = head[len(head.rstrip(_LOCAL)) :].lstrip(".%+-")
        if not local or local[-1] == ".":
            continue
        start = at - len(local)
        if escape := _ESCAPE.match(text, max(0, start - 1)):
            start, local = escape.end(), local[escape.end() - start :]
            if not local:
                continue
        tld = match.group(1)
        if _is_address(local, match.group(), tld) and not _USERINFO.search(text[max(0, start - 128) : start]):
            yield Finding(start, match.end(), "email", "email")


def _is_address(local: str, domain: str, tld: str) -> bool:
    lower = tld.lower()
    if not (lower in _TLDS or len(lower) == 2) or (tld != lower and not domain.isupper()):
        return False
    if lower in _FILE_TLDS and domain.count(".") == 1 and "." not in local:
        return False
    return not (_BENIGN_LOCAL.search(local) or _BENIGN_DOMAIN.search(domain))


_IPV4 = re.compile(rb"(?<![\w.])(?<![A-Za-z0-9]-)\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\w]|\.\d|-[A-Za-z])")
_VERSION = re.compile(
    r"(?i)(?:version|\bver\b|\bv\b|release|(?<![a-z])oid(?![a-z])|build|firmware|assembly|\brev\b|revision|changelog|section|chapter|upgrade\w*"
    r"|since|\btag\b|==|>=|<=|~=|!=|\^|~>|[a-z\d_)]/)[^\n]{0,24}\Z"
)
_ADDRESS_NAME = re.compile(
    r"(?i)\bips?\b|ip_|_ip|ipv4|addr|host|server|://|@|gateway|peer|client|remote|proxy|dns|ping|ssh|port|inet|\bfrom\b"
)
_NAMED = re.compile(
    r"(?i)://\S*\Z|@\Z|(?:ip|addr\w*|host|server)\W{1,4}\Z"
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


def find_ipv4(source: Source) -> Iterator[Finding]:
    """Globally routable IPv4 addresses."""
    for match in _IPV4.finditer(source.raw):
        value, start = match.group().decode(), match.start()
        if value in _RESOLVERS or not _is_global(value):
            continue
        if source.raw.startswith(b".in-addr.", match.end()) and not _is_global(".".join(reversed(value.split(".")))):
            continue
        before = source.text[max(source.line_around(start)[0], start - 48) : start]
        if not _is_version(value, before):
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


_IPV6 = re.compile(rb"(?<![\w:.])[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:.]{2,41}(?!\w)")


def find_ipv6(source: Source) -> Iterator[Finding]:
    """Global unicast IPv6 addresses, 2000::/3 (RFC 4291); slices, scopes, times and MAC addresses lie outside it."""
    for match in _IPV6.finditer(source.raw):
        value = match.group().decode()
        value = value[:-1] if value.endswith(".") or (value.endswith(":") and not value.endswith("::")) else value
        if value.lower() in _RESOLVERS or not _is_global(value) or value.lower().startswith(("2001:db8:", "3fff:")):
            continue
        yield Finding(match.start(), match.start() + len(value), "ipv6", "ipv6")


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
    before = _PATH_BEFORE.search(text[max(0, at - 64) : at])
    path = before.group() if before else ""
    if "://" in path and "file://" not in path:
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


def find_trailers(source: Source) -> Iterator[Finding]:
    """Names in git trailers and mail headers; their addresses are found as addresses."""
    for head in _TRAILERS:
        done = 0
        for at in source.any_case(head):
            if at < done:
                continue  # one to a line
            line, done = source.line_around(at)
            match = _TRAILER.search(source.text, max(line, at - 16), at + 240)
            if match and not _PLACEHOLDER_NAME.match(match.group(1)):
                yield Finding(*match.span(1), "person", "git_trailer")
