"""Bytes of a source file to text.

In:  bytes, and the language (Python may declare its encoding)
Out: text without a byte order mark, line breaks as \\n; and how it was read

Tried in this order: a byte order mark; UTF-8; UTF-16 without a mark; what a Python file declares (PEP 263); Windows-1252 where
the bytes look like a Western European text, as files of the time before UTF-8 do. Everything else is refused: code in the wrong
letters would be learnt.
"""

from __future__ import annotations

import codecs
import io
import re
import tokenize

from phase1_data.sources import Refused

_MARKS = (  # the longer first
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NO_TEXT = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "utf_7", "undefined"})  # codecs that rewrite ASCII
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f\x81\x8d\x8f\x90\x9d]")  # not in a text; the last five not in Windows-1252
_HIGH = re.compile(rb"[\x80-\xff]+")
_SYMBOLS = re.compile(rb"[\x82-\x84\x86-\x89\x8b\x8e\x98\x9b\x9e\xd7\xf7]")  # of Windows-1252, rare in any text that is one
_RARE = 0.1  # share of the bytes above 127
_MIN_WIDE = 0.7  # share of characters below 256 in UTF-16 without a mark: code is mostly ASCII


def text_of(data: bytes | str, lang: str | None) -> tuple[str, str]:
    """The file's text, normalised, and how it was read: utf8 | utf16 | declared | cp1252.

    Raises:
        Refused: binary (a NUL character) or undecodable.
    """
    text, how = (data, "utf8") if isinstance(data, str) else _decoded(data, lang)
    if "\0" in text:
        raise Refused("binary")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refused("undecodable", "lone surrogate") from None
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n"), how


def _decoded(data: bytes, lang: str | None) -> tuple[str, str]:
    marked = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)
    if marked:
        try:
            return data.decode(marked), "utf16"
        except UnicodeDecodeError as error:
            raise Refused("undecodable", f"{marked}, byte {error.start}") from None
    if b"\0" in data:
        return _wide(data), "utf16"
    try:
        return data.decode("utf-8-sig"), "utf8"
    except UnicodeDecodeError as error:
        at = error.start
    declared = _declared(data) if lang == "python" else None
    if declared is not None:
        return declared, "declared"
    if looks_western(data):
        return data.decode("cp1252"), "cp1252"
    raise Refused("undecodable", f"byte {at}")


def _wide(data: bytes) -> str:
    """UTF-16 that has no mark: every other byte is zero, and those between never are."""
    characters = len(data) // 2
    for encoding, high, low in (("utf-16-le", data[1::2], data[::2]), ("utf-16-be", data[::2], data[1::2])):
        if low.count(0) == 0 and high.count(0) > _MIN_WIDE * characters:
            try:
                return data.decode(encoding)
            except UnicodeDecodeError:
                break
    raise Refused("binary")


def _declared(data: bytes) -> str | None:
    try:
        codec = codecs.lookup(tokenize.detect_encoding(io.BytesIO(data).readline)[0])
        return None if codec.name.replace("-", "_") in _NO_TEXT else data.decode(codec.name)
    except (SyntaxError, ValueError, LookupError):
        return None


def looks_western(data: bytes) -> bool:
    """Whether bytes that are no UTF-8 can be Latin-1 or Windows-1252.

    Western letters beyond ASCII stand alone or in twos; in Cyrillic, Greek and most of the double-byte sets they come in runs,
    and Shift-JIS uses bytes that are rare symbols here.
    """
    if _CONTROL.search(data):
        return False
    runs = _HIGH.findall(data)
    high = sum(map(len, runs))
    in_runs = sum(len(run) for run in runs if len(run) > 2)
    return in_runs <= _RARE * high and len(_SYMBOLS.findall(data)) <= _RARE * high
