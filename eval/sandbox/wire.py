"""Plain values between the check and the program, over a socket that either may find lying.

In:  Python values
Out: JSON frames; on the other side equal values of the builtin types, made by nothing but the builtin types' own constructors

Numbers, text, bytes, ranges and containers are carried. Anything else (a generator, an object, a function) stays where it is; the other
side gets a Far: it can call it, iterate it, index it, ask its length, truth and text, and read attributes, each through a message, but
it equals only itself. A subclass of a builtin goes as that builtin, since that is what a test compares it with.
"""

from __future__ import annotations

import builtins
import json
import os
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

FRAME_BYTES = 64 << 20  # a longer frame is a lie or a flood
ANSWERS = ("value", "raised", "syntax")
_PLAIN_INT = 1 << 63
_VIEWS: dict[type, str] = {type({}.keys()): "keys", type({}.values()): "values", type({}.items()): "items"}


class Broken(Exception):  # a state, not a mistake
    """The other side is gone or does not keep to the protocol."""


class Raised(Exception):
    """The other side raised what we do not rebuild; `kind` is the name of its class."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class Far:
    """Something that stayed on the other side."""

    __slots__ = ("_handle", "_peer", "_type")

    def __init__(self, peer: Peer, handle: int, kind: str) -> None:
        self._peer, self._handle, self._type = peer, handle, kind

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._peer.ask("call", self._handle, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        return self._peer.ask("getattr", self._handle, (name,))

    def __iter__(self) -> Any:
        return self._peer.ask("iter", self._handle)

    def __next__(self) -> Any:
        return self._peer.ask("next", self._handle)

    def __len__(self) -> int:
        return int(self._peer.ask("len", self._handle))

    def __getitem__(self, key: Any) -> Any:
        return self._peer.ask("getitem", self._handle, (key,))

    def __contains__(self, item: Any) -> bool:
        return bool(self._peer.ask("contains", self._handle, (item,)))

    def __bool__(self) -> bool:
        return bool(self._peer.ask("bool", self._handle))

    def __str__(self) -> str:
        return str(self._peer.ask("str", self._handle))

    def __eq__(self, other: object) -> bool:
        if self is not other:
            self._peer.compared.add(self._type)  # said beside the verdict: the program's own idea of equality does not count
        return self is other

    __hash__ = object.__hash__


OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda it, *args, **kwargs: it(*args, **kwargs),
    "getattr": getattr,
    "iter": iter,
    "next": next,
    "len": len,
    "getitem": lambda it, key: it[key],
    "contains": lambda it, item: item in it,
    "bool": bool,
    "str": str,
}
CALL_ONLY = {"call": OPERATIONS["call"]}


class Peer:
    """One end of the socket.

    Args:
        operations: what the other side may do to the things that stay here.
    """

    def __init__(self, descriptor: int, operations: dict[str, Callable[..., Any]]) -> None:
        self.descriptor, self.operations = descriptor, operations
        self.kept: list[Any] = []  # what stayed here, by handle
        self.compared: set[str] = set()  # classes of Far things that were compared
        self.broken = False

    # ----- frames

    def send(self, message: Any) -> None:
        """Write one frame."""
        body = json.dumps(message).encode("ascii")
        data = memoryview(len(body).to_bytes(4, "big") + body)
        try:
            while data:
                data = data[os.write(self.descriptor, data) :]
        except OSError as error:
            raise Broken("the other side is gone") from error

    def receive(self) -> Any:
        """Read one frame."""
        size = int.from_bytes(self._exactly(4), "big")
        if size > FRAME_BYTES:
            raise Broken(f"a frame of {size:,} bytes")
        try:
            return json.loads(self._exactly(size))
        except (ValueError, RecursionError) as error:
            raise Broken("a frame that is not JSON") from error

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            try:
                part = os.read(self.descriptor, min(size, 1 << 20))
            except OSError as error:
                raise Broken("the other side is gone") from error
            if not part:
                raise Broken("the other side is gone")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    # ----- questions and answers

    def ask(self, operation: str, handle: int, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Do something on the other side and return, or raise, what came of it; serve what it asks meanwhile.

        Raises:
            Broken: the other side is gone, or what it sent is no answer; `broken` stays set then.
        """
        try:
            named = {key: self.pack(value) for key, value in (kwargs or {}).items()}
            self.send([operation, handle, [self.pack(arg) for arg in args], named])
            return self.value(self.serve(), args)
        except Broken:
            self.broken = True  # a test that catches exceptions must not take this for one
            raise

    def value(self, answer: list[Any], args: tuple[Any, ...] = ()) -> Any:
        """What an answer says; arguments that the other side changed change here too."""
        kind, content, changed = [*answer, None, None][:3]
        if kind == "raised":
            raise rebuilt(str(content), str(changed))
        try:
            for arg, now in zip(args, changed, strict=True) if changed else ():
                if now is not None:
                    _overwrite(arg, self.unpack(now))
            return self.unpack(content)
        except (LookupError, TypeError, AttributeError, ArithmeticError, ValueError, RecursionError) as error:
            raise Broken("an answer that is none") from error

    def serve(self) -> Any:
        """Do what the other side asks until it answers; return the answer."""
        while True:
            message = self.receive()
            if not isinstance(message, list) or not message:
                raise Broken("a message that is none")
            if message[0] in ANSWERS:
                return message
            self.send(self._done(message))

    def _done(self, message: list[Any]) -> list[Any]:
        try:
            operation, handle, packed, kwargs = message
            args = [self.unpack(one) for one in packed]
            found = self.operations[operation](self.kept[handle], *args, **{key: self.unpack(value) for key, value in kwargs.items()})
            after = [self._changed(arg, before) for arg, before in zip(args, packed, strict=True)]
            return ["value", self.pack(found), after if any(one is not None for one in after) else None]
        except Broken:
            raise
        except BaseException as error:  # noqa: BLE001  # the test decides what it means, SystemExit too
            return ["raised", *described(error)]

    def _changed(self, arg: Any, before: Any) -> Any:
        """The argument again, if it is one that a callee can change and did."""
        if type(arg) not in (list, dict, set, bytearray):
            return None
        now = self.pack(arg)
        return None if now == before else now

    # ----- values

    def pack(self, value: Any) -> Any:
        """A value as JSON. A list is a list; everything that JSON lacks is an object with one key, its tag."""
        kind = type(value)
        if value is None or kind in (bool, str, float) or (kind is int and -_PLAIN_INT < value < _PLAIN_INT):
            return value
        if kind is list:
            return [self.pack(one) for one in value]
        if kind in _VIEWS:
            pairs = value.mapping.items() if kind is not type({}.values()) else enumerate(value)
            return {"view": [_VIEWS[kind], [[self.pack(one), self.pack(other)] for one, other in pairs]]}
        if kind.__module__ == "numpy" and getattr(value, "ndim", None) == 0:  # a numpy scalar; its truth values are no bool
            return self.pack(int(value) if kind.__name__.startswith("bool") else value.item())
        for base, tag, shape in _CARRIED:
            if isinstance(value, base):
                return {tag: shape(self, value)} if tag else shape(self, value)
        self.kept.append(value)
        return {"far": [len(self.kept) - 1, kind.__name__]}

    def unpack(self, packed: Any) -> Any:
        """The value of some JSON.

        Raises:
            LookupError, TypeError, ValueError and the like: nothing that `pack` writes.
        """
        if isinstance(packed, list):
            return [self.unpack(one) for one in packed]
        if not isinstance(packed, dict):
            return packed
        ((tag, content),) = packed.items()
        return _MADE[tag](self, content)

    def _all(self, values: Any) -> list[Any]:
        return [self.pack(one) for one in values]

    def _each(self, content: list[Any]) -> Iterator[Any]:
        return (self.unpack(one) for one in content)

    def _pairs(self, content: list[Any]) -> dict[Any, Any]:
        return {self.unpack(key): self.unpack(value) for key, value in content}


# type, tag, how it is written; a subclass goes as the first base that fits
_CARRIED: list[tuple[Any, str, Callable[[Peer, Any], Any]]] = [
    (int, "int", lambda peer, value: hex(int(value))),
    (str, "", lambda peer, value: str.__str__(value)),
    (float, "", lambda peer, value: float(value)),
    (list, "", lambda peer, value: peer._all(value)),
    (tuple, "tuple", lambda peer, value: peer._all(value)),
    (dict, "dict", lambda peer, value: [[peer.pack(key), peer.pack(one)] for key, one in value.items()]),
    (set, "set", lambda peer, value: peer._all(value)),
    (frozenset, "frozenset", lambda peer, value: peer._all(value)),
    (bytes, "bytes", lambda peer, value: value.hex()),
    (bytearray, "bytearray", lambda peer, value: value.hex()),
    (complex, "complex", lambda peer, value: [value.real, value.imag]),
    (range, "range", lambda peer, value: [hex(one) for one in (value.start, value.stop, value.step)]),
    (Decimal, "decimal", lambda peer, value: str(value)),
    (Fraction, "fraction", lambda peer, value: [hex(value.numerator), hex(value.denominator)]),
]
_MADE: dict[str, Callable[[Peer, Any], Any]] = {
    "int": lambda peer, content: int(content, 16),
    "tuple": lambda peer, content: tuple(peer._each(content)),
    "dict": lambda peer, content: peer._pairs(content),
    "set": lambda peer, content: set(peer._each(content)),
    "frozenset": lambda peer, content: frozenset(peer._each(content)),
    "bytes": lambda peer, content: bytes.fromhex(content),
    "bytearray": lambda peer, content: bytearray.fromhex(content),
    "complex": lambda peer, content: complex(*content),
    "range": lambda peer, content: range(*(int(one, 16) for one in content)),
    "decimal": lambda peer, content: Decimal(content),
    "fraction": lambda peer, content: Fraction(int(content[0], 16), int(content[1], 16)),
    "view": lambda peer, content: {"keys": dict.keys, "values": dict.values, "items": dict.items}[content[0]](peer._pairs(content[1])),
    "far": lambda peer, content: Far(peer, int(content[0]), str(content[1])[:60]),
}


def _overwrite(target: Any, value: Any) -> None:
    """Give a list, dict, set or bytearray the content it has on the other side."""
    if type(target) is not type(value):
        raise TypeError("an argument changed its type")
    if isinstance(target, list | bytearray):
        target[:] = value
    else:
        target.clear()
        target.update(value)


def described(error: BaseException) -> tuple[str, str]:
    """Class and text of an exception, short, whatever its methods do."""
    kind = type.__dict__["__name__"].__get__(type(error))[:60]
    try:
        return kind, str(str(error))[:200]
    except BaseException:  # noqa: BLE001  # an exception whose text raises
        return kind, ""


def rebuilt(kind: str, text: str) -> BaseException:
    """The builtin exception of this name, so that a test can catch it; Raised for any other."""
    found = getattr(builtins, kind, None)
    if isinstance(found, type) and issubclass(found, BaseException):
        try:
            return found(text)
        except TypeError:
            pass
    return Raised(kind, text)
