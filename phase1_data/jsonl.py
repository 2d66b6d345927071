"""Lines of a JSONL file, whatever it comes in: UTF-8, UTF-16, UTF-32, Windows-1252; with or without a byte order mark; gzip or plain.

In:  a file or a stream (stdin)
Out: `Line`s, one in memory at a time; `decoded` and `row_of` make text and a row of one, or say what is wrong with it

A line ends at \\n and nowhere else (JSON strings may hold U+2028 and the like). What a line holds is never part of an error.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from core.errors import InputError

BLANK = b" \t\r\n"
WESTERN = "cp1252"  # what a line is read as that is not UTF-8: Latin-1 with the quotes and dashes that Windows put into its gap
_CHUNK = 1 << 20  # bytes
_MARKS = (  # byte order marks; the longer first
    (b"\xff\xfe\0\0", "utf-32-le"),
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
    (b"\xef\xbb\xbf", "utf-8"),
)
_ZEROS: dict[
    tuple[bool, ...], str
] = {  # which of the first four bytes are zero, as JSON begins with two ASCII characters (RFC 4627 section 3)
    (False, True, True, True): "utf-32-le",
    (True, True, True, False): "utf-32-be",
    (False, True, False, True): "utf-16-le",
    (True, False, True, False): "utf-16-be",
}
_OTHERS = (  # (first bytes, what it is, how to get JSONL from it)
    (b"\x28\xb5\x2f\xfd", "zstd", "zstd -dc"),
    (b"BZh", "bzip2", "bzip2 -dc"),
    (b"\xfd7zXZ", "xz", "xz -dc"),
    (b"PK\x03\x04", "zip", "unzip -p"),
    (b"PAR1", "Parquet", "`python -m phase1_data ingest` with a source of kind hub, not"),
)


class Line(NamedTuple):
    """One line without its line break."""

    number: int  # from 1
    data: bytes  # UTF-8, or whatever it is if nobody said; empty if the line was too long
    size: int  # bytes, with the line break
    ended: bool  # by a line break; the last line of a file may not be
    too_long: bool = False


class BadLine(Exception):
    """A line that is no row: the reason, and details that hold nothing of its content."""

    def __init__(self, reason: str, value: str = "") -> None:
        self.reason, self.value = reason, value


class Damaged(InputError):
    """A file that cannot be read to its end."""


def lines(stream: BinaryIO, name: str, limit: int, encoding: str | None = None) -> Iterator[Line]:
    """Lines of a stream.

    Args:
        name: of the file, for errors.
        limit: bytes of the longest line that is held in memory; longer ones come with their size only.
        encoding: of the whole stream; None finds out.

    Raises:
        Damaged: a gzip or UTF-16 stream that breaks off. InputError: another kind of file.
    """
    number, wide = 0, False
    try:
        opened, found = _opened(stream, name)
        wide = (encoding or found).lower().replace("_", "-").startswith(("utf-16", "utf-32"))
        source = _Wide(opened, encoding or found) if wide else opened
        while True:
            data = source.readline(limit + 1)
            if not data:
                return
            number += 1
            size, ended = len(data), data.endswith(b"\n")
            too_long = size > limit and not ended
            while too_long and not ended and (more := source.readline(_CHUNK)):
                size, ended = size + len(more), more.endswith(b"\n")
            if encoding and not wide:
                data = data.decode(encoding).encode()
            yield Line(number, b"" if too_long else data.rstrip(b"\r\n"), size, ended, too_long)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Damaged(f"{name} is damaged after line {number}: gzip: {str(error)[:80]}: fetch or make it again") from None
    except UnicodeDecodeError as error:
        where = f"{name} after line {number}" if wide else f"{name}:{number}"
        raise Damaged(f"{where}: not {error.encoding}: {error.reason}: mend the file or name its --encoding") from None


class _Rejoined(io.RawIOBase):
    """A stream whose first bytes were read to look at them; a pipe cannot be wound back."""

    def __init__(self, head: bytes, rest: io.BufferedIOBase) -> None:
        self.head, self.rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self.head:
            return self.rest.readinto1(buffer)
        size = min(len(buffer), len(self.head))
        buffer[:size], self.head = self.head[:size], self.head[size:]
        return size


def _opened(stream: BinaryIO, name: str) -> tuple[io.BufferedReader, str]:
    """The stream without gzip and byte order mark, and its encoding."""
    head = stream.read(6)
    if head[:2] == b"\x1f\x8b":
        stream = gzip.GzipFile(fileobj=io.BufferedReader(_Rejoined(head, stream), _CHUNK))  # type: ignore[arg-type,assignment]
        head = stream.read(6)
    for magic, kind, how in _OTHERS:
        if head.startswith(magic):
            raise InputError(f"{name} is {kind}, not JSONL: use {how} {name}")
    mark, encoding = next(((mark, encoding) for mark, encoding in _MARKS if head.startswith(mark)), (b"", ""))
    encoding = encoding or _ZEROS.get(tuple(byte == 0 for byte in head[:4]), "utf-8")
    return io.BufferedReader(_Rejoined(head[len(mark) :], stream), _CHUNK), encoding  # type: ignore[arg-type]


class _Wide:
    """Lines of an encoding in which a line break is not one byte, as UTF-8."""

    def __init__(self, stream: io.BufferedReader, encoding: str) -> None:
        self.text = io.TextIOWrapper(stream, encoding, errors="surrogatepass", newline="\n")

    def readline(self, limit: int) -> bytes:
        return self.text.readline(limit).encode("utf-8", "surrogatepass")


def decoded(data: bytes) -> tuple[str, str]:
    """The text of a line, and how it was read: "utf8", "damaged" UTF-8 with U+FFFD for what is none, or "cp1252"."""
    try:
        return data.decode(), "utf8"
    except UnicodeDecodeError:
        pass
    try:
        return paired(data.decode("utf-8", "surrogatepass")), "utf8"  # surrogates, as some writers of UTF-8 leave them
    except UnicodeDecodeError:
        pass
    text = data.decode("utf-8", "replace")
    if any(character > "\x7f" and character != "\ufffd" for character in text):
        return text, "damaged"  # a text in Windows-1252 never has what makes a character in UTF-8, or hardly ever
    return western(data), WESTERN


def paired(text: str) -> str:
    """The text with surrogates that make a pair as the one character they are; lone ones stay."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def western(data: bytes) -> str:
    """Bytes as Windows-1252, the five that it leaves undefined as Latin-1."""
    try:
        return data.decode(WESTERN)
    except UnicodeDecodeError:
        return "".join(bytes([byte]).decode(WESTERN, "ignore") or chr(byte) for byte in data)


def _integer(digits: str) -> int | str:
    """A number of more than 4,300 digits is JSON, but int() refuses it."""
    return int(digits) if len(digits) < 4000 else digits


_DECODER = json.JSONDecoder(parse_int=_integer)


def row_of(line: Line) -> tuple[dict[str, Any], str]:
    """The object on a line, and how the line was read (as `decoded`).

    Raises:
        BadLine: torn_line (the last one, without its end), bad_json, not_object or row_bytes.
    """
    if line.too_long:
        raise BadLine("row_bytes", str(line.size))
    text, read_as = decoded(line.data)
    try:
        row = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise BadLine(*bad_json(line, error)) from None
    except RecursionError:
        raise BadLine("bad_json", "nested too deeply") from None
    if not isinstance(row, dict):
        raise BadLine("not_object", type(row).__name__)
    return row, read_as


def bad_json(line: Line, error: json.JSONDecodeError) -> tuple[str, str]:
    """Reason and details of a line that is no JSON; `error.msg` is one of a few sentences and quotes nothing."""
    if b"\0" in line.data:
        return "bad_json", "NUL bytes"
    return ("bad_json" if line.ended else "torn_line"), f"{error.msg} (character {error.pos + 1} of {len(error.doc)})"
