"""Whether the value of a telling name is a secret, or what people write there instead.

In:  a value in its Source, and how strongly its name speaks
Out: why it is no secret, "" where it is one
"""

from __future__ import annotations

import re

from core.findings import Source, words
from core.secret_names import Strength
from core.secret_values import is_digest, is_placeholder, is_public_example, is_random, is_stand_in, is_uuid, is_wordy, looks_generated

_SYMBOL = re.compile(r"[!@#$%^&*+?~|;{}]")
_DIGIT = re.compile(r"\d")
_NAMED_AFTER = re.compile(r"(?i)(?:key|token|secret|password|passwd|credentials?)s?\Z")  # an identifier that speaks of a secret is not one
_MIXED_DIGITS = re.compile(r"\d{2}|[a-z]\d[a-z]")
_CALL = re.compile(r"^[A-Za-z_][\w.]*\(.*\)\Z|^[A-Za-z_][\w.]*\(\d*$")
_ONE_SYMBOL = re.compile(r"[\w.\-]+[=?:;!]\Z")  # an exclamation or a query, without a digit
_IDENTIFIER = re.compile(r"[A-Za-z_$][\w$]*(?:(?:\.|->|::|\?\.)[A-Za-z_$][\w$]*)*\Z")
_TYPE_NAME = re.compile(
    r"(?i)(?:u?int|float|bytes|str|string|sha|md|utf|base|rsa|aes|es|rs|hs|ps|ed|ecdsa|pbkdf|oauth|http|x(?=509|86"
    r"|64))[_\-]?\d+[\w\-]{0,12}\Z"
)
_STRUCTURE = re.compile(
    r"^(?:[a-z][a-z0-9+.\-]*://|\.{0,2}/|~/|[A-Za-z]:[\\/]|--?[a-z]|#[0-9a-fA-F]{3,8}$|arn:|application/|text/"
    r"|[\w.\-]+:\d{1,5}$|\d{1,4}[-/.:]\d{1,2}(?:[-/.:T]\d{1,4})?$)"
    r"|\.(?:py|js|ts|json|ya?ml|pem|key|crt|txt|html?|md|png|env|conf|cfg|xml|sh)$"
    r"|^[\d.,:+\-eE_]+$|^0x[0-9a-fA-F]{1,16}$|\\[nt]$"
)
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}\Z")
_LETTERS = re.compile(r"[^\W\d_]{6,48}\Z")
_PHRASE = re.compile(r"[A-Za-z]{2,16}(?:[\-_.][A-Za-z]{2,16}){1,7}\Z")
_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_NUMBER_OR_DATE = re.compile(r"[\d.,:/+\-() ]+\Z")
_STOCK = words(  # what stands in a password's place in forms, schemas, messages and examples, in any case
    """password passwd passphrase passcode pass secret string hidden visible text input field required optional disabled enabled
    username userpass default basic bearer digest plain plaintext cleartext encrypted hashed masked clear none null true false
    undefined unknown invalid missing wrong incorrect correct empty blank change changed reset forgot forgotten forget update
    confirm confirmation verify verification login logout signin signup register server client prompt stdin environment keyring
    vault store external internal random generate generated automatic manual varchar nvarchar number integer boolean object array
    password_hash credentials credential account message label value values option options config configuration setting settings
    production development staging testing private public current existing minimum maximum strong medium strength
    passwort hash digest salt bcrypt argon scrypt kennwort
    contrasena senha motdepasse wachtwoord losenord authentication authorization authenticate provided supplied interactive"""
)
_CODE = words(  # parts of identifiers and types
    """field form widget view model controller service handler manager factory builder provider repository entity dto request response
    context component props state event listener callback filter validator encoder decoder hasher policy type name id key node class
    buffer uint8 array list map set dict tuple any void char object str bytes int float bool double long self this my get set is has
    user admin url uri path file dir host port db database table column schema query param params args arg env var const test tests"""
)
_SPEECH = words(  # a phrase with one of them is said to a person
    """the your you is are must be a an to for please enter and or of in not with invalid required this that new old confirm current
    wrong no at has have can cannot should will if when from does do did it its we our my incorrect use using"""
)


def why_not_assigned(source: Source, start: int, end: int, said: Strength, quoted: bool, placed: bool = False) -> str:
    """Why source.text[start:end], the value of a name that says so much, is no secret; "" if it is one.

    Args:
        quoted: it is a string, not an expression.
        placed: its place says that it is a value, whatever stands before it.
    """
    value = source.text[start:end].strip()
    if any(map(str.isspace, value)):
        return "" if said >= Strength.STRONG and quoted and _is_passphrase(value) else "words"
    if len(value) < 4:
        return "too short"
    digit, symbol = bool(_DIGIT.search(value)), bool(_SYMBOL.search(value))
    shown = is_stand_in(value) if said is Strength.PASSWORD else is_placeholder(value)
    if shown or is_public_example(value):
        return "a placeholder or public example"
    if _STRUCTURE.search(value):
        return "a path, address, date or number"
    before = source.text[max(source.line_around(start)[0], start - 120) : start]
    if is_digest(value, before):
        return "a digest"
    if said >= Strength.STRONG and quoted and len(value) > 11 and "b64" in before.lower().replace("base64", "b64") and _BASE64.match(value):
        return ""
    if _IDENTIFIER.match(value) and _NAMED_AFTER.search(value):
        return "an identifier"
    if said is Strength.WEAK and re.fullmatch("[0-9A-F]{40}", value):
        return "a fingerprint"
    if said is Strength.WEAK:
        return "" if looks_generated(value) and not is_uuid(value) else "its name may be harmless, and it does not look generated"
    if not (digit or symbol):
        return _why_not_letters(value, "=" if placed else before, said, quoted)
    if quoted and not is_mixed(value):
        return "a number or an exclamation"
    return _why_not_mixed(value, digit, quoted)


_IN_CODE = re.compile(r"\b(?:import|class|def|as|not|in|is|new|extends|instanceof|isinstance\(\w+,)\s{1,4}\(?\Z")


_IS_BOUND = re.compile(r" = \S")


def reads_as_code(text: str, start: int, end: int) -> bool:
    """Whether text[start:end] is a name in code: an identifier without quotes that is called, listed, annotated or imported."""
    value = text[start:end]
    if not _IDENTIFIER.match(value) or text[start - 1 : start] in ('"', "'", "`"):
        return False
    if text[end : end + 1] in ("(", "[", ".", ",", ":", ")", "]", "}") or _IS_BOUND.match(text, end):
        return True
    return bool(_IN_CODE.search(text, max(0, start - 24), start))


def has_no_code_words(value: str) -> bool:
    """Whether none of its words is one of those that types, forms and messages are made of."""
    return {part.lower() for part in _PARTS.findall(value)}.isdisjoint(_STOCK | _SPEECH | _CODE)


def is_mixed(value: str) -> bool:
    """A digit beside letters, or a symbol beside either: what a place alone needs to make a secret."""
    digit, letter, symbol = bool(_DIGIT.search(value)), any(map(str.isalpha, value)), bool(_SYMBOL.search(value))
    return digit + letter + symbol > 1 and (digit or not _ONE_SYMBOL.match(value))


def _why_not_mixed(value: str, digit: bool, quoted: bool) -> str:
    """Of a value with a digit or a symbol."""
    name_like = is_wordy(value, 0.75) and not _SYMBOL.search(value)
    if _TYPE_NAME.match(value) or (name_like and (len(value) > 32 or not _MIXED_DIGITS.search(value))):
        return "an identifier"
    if not any(map(str.isalpha, value)) and (not quoted or _NUMBER_OR_DATE.match(value)):
        return "a number or an expression"
    if not quoted and not digit and _IDENTIFIER.match(value):
        return "an expression"
    if _CALL.search(value) and not is_random(value):
        return "a call"
    return "" if digit or not _ONE_SYMBOL.match(value) else "words"


def _why_not_letters(value: str, before: str, said: Strength, quoted: bool) -> str:
    """Of a value of letters: words that somebody took for a password."""
    if said is Strength.STRONG and quoted and _SECRET_IS.search(before) and value.count("-") > 1:
        said = Strength.PASSWORD  # `secret: "three-or-more-words"`
    if said is not Strength.PASSWORD or not quoted:
        return "letters only"
    if looks_generated(value):
        return ""
    if not (_LETTERS.match(value) or _PHRASE.match(value)) or not has_no_code_words(value) or value.lower() in _STOCK:
        return "an identifier, a type or a stock word"
    if value.isupper() or (value[0].isupper() and len(_PARTS.findall(value)) == 1):
        return "a word"
    return "" if before == "=" or _IS_ASSIGNED.search(before) else "a word"


_SECRET_IS = re.compile(r"(?i)secret[\"']?\s?[:=]\s?[\"'`]\Z")
_IS_ASSIGNED = re.compile(  # what precedes gives a value, and does not name, type or compare one
    r"(?ix)(?:[\"'\]\w)\s]\s?(?:=|:=|=>|<-|[!=]==?|\.equals\()\s?|[\"'\w]:\s{0,4}|(?:password|by|with)\s|pass(?:word|wd"
    r"|phrase)[\"'],\s?|setpassword\()[@(\s]{0,8}[\"'`]?\Z"
    r"|--?[\w\-]{2,32}[ =][\"']?\Z|pass(?:word|wd|phrase)[\"']?>\s{0,16}\Z|<(?:string|value)>\s{0,8}\Z|;\s?(?:password"
    r"|pwd)=\Z|\bis:? [\"'`]?\Z"
)


def _is_passphrase(value: str) -> bool:
    parts = value.rstrip("!0123456789").split()
    plain = all(part.isalpha() and part.islower() for part in parts)
    return len(parts) >= 3 and plain and (_SPEECH | _STOCK | _CODE).isdisjoint(parts)
