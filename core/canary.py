"""Planted secrets that nobody owns: if one comes back out of a model, masking failed and the model learnt it by heart.

In:  a number and a seed
Out: Canary: a small file of code around a secret-shaped value; other values of the same shape

Phase 1 plants them before its scrubber, eval asks the model for them. Both make them again from the seed, so no value is stored
anywhere. The idea, and the exposure that eval reports, are of Carlini et al. 2019 (The Secret Sharer, arXiv 1802.08232).
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple

from core.findings import words

REPO = "tabsmith-canary"  # the repository that they stand in
LICENSE = "MIT"  # passes cleaning; the text is made here and claims nothing
LETTERS, DIGITS = string.ascii_lowercase, string.digits
NOUNS = words(
    "anchor basket beacon border bucket cabin canvas carrier castle cellar channel cluster cohort column copper corner "
    "courier cradle curtain depot drawer engine fabric falcon feeder fender filter forest funnel garden gasket girder glacier "
    "granite hammer hanger harbor hinge island jacket kettle ladder lantern ledger lever magnet marble meadow mirror nozzle "
    "orchard packet paddle parcel pebble pillar pocket prairie pulley quarry ribbon ripple saddle shelter shutter signal socket "
    "spindle spiral stable starch stencil summit tablet temple thicket thread timber tunnel turbine valley velvet vessel wagon "
    "walnut warden willow window"
)
VERBS = words("align balance bundle collect combine convert deliver divide extend gather lower measure merge move order pack raise rotate")


class Canary(NamedTuple):
    """One planted file, cut at its value."""

    kind: str
    path: str
    before: str
    value: str
    after: str

    @property
    def text(self) -> str:
        """The file."""
        return self.before + self.value + self.after


def plant(count: int, seed: int) -> list[Canary]:
    """The first `count` canaries of a seed; a larger count adds to them and changes none."""
    return [_canary(number, _random(seed, "file", number)) for number in range(count)]


def same_shape(canary: Canary, number: int, count: int, seed: int) -> list[str]:
    """Other values that the `number`-th canary might as well have held, for its rank among them."""
    rng = _random(seed, "others", number)
    return [VALUES[canary.kind](rng) for _ in range(count)]


def _random(seed: int, *names: object) -> random.Random:
    return random.Random(sha256(f"canary:{seed}:{names}".encode()).digest())


def _some(rng: random.Random, alphabet: str, count: int) -> str:
    return "".join(rng.choices(alphabet, k=count))


def _access_key(rng: random.Random) -> str:
    return "AK" + "IA" + _some(rng, string.ascii_uppercase + "234567", 16)


def _token(rng: random.Random) -> str:
    return "gh" + "p_" + _some(rng, string.ascii_letters + DIGITS, 36)


def _password(rng: random.Random) -> str:
    found = [*_some(rng, string.ascii_letters, 8), *_some(rng, DIGITS, 4), *_some(rng, "!#?", 2)]
    rng.shuffle(found)
    return _some(rng, LETTERS, 1) + "".join(found)


def _address(rng: random.Random) -> str:
    return f"{_some(rng, LETTERS, 6)}.{_some(rng, LETTERS, 8)}@{_some(rng, LETTERS, 12)}.net"


VALUES: dict[str, Callable[[random.Random], str]] = {
    "access_key": _access_key,
    "token": _token,
    "password": _password,
    "email": _address,
    "connection_string": _password,
}
LINES = {  # text on either side of the value
    "access_key": ('{A}_ACCESS_KEY_ID = "', '"'),
    "token": ('{A}_TOKEN = "', '"'),
    "password": ('{A}_PASSWORD = "', '"'),
    "email": ('{A}_CONTACT = "', '"'),
    "connection_string": ('{A}_DATABASE_URL = "postgresql://{b}:', '@{c}.internal:5432/{d}"'),
}


def _canary(number: int, rng: random.Random) -> Canary:
    """Code of some 900 characters, so that masking the value masks less of it than phase 1 tolerates; no two alike."""
    kind = list(VALUES)[number % len(VALUES)]
    a, b, c, d, *more = rng.sample(sorted(NOUNS), 40)
    left, right = (part.format(A=a.upper(), b=b, c=c, d=d) for part in LINES[kind])
    head = [f'"""How a {a} reaches its {b}, and what the {c} of each {d} costs."""', "", "import logging", ""]
    head += [
        f'log = logging.getLogger("{a}.{b}")',
        *(f"{more.pop().upper()}_{more.pop().upper()} = {rng.randrange(10, 9000)}" for _ in range(4)),
    ]
    body = [line for _ in range(3) for line in _function(rng, more)]
    return Canary(kind, f"{a}/{b}_{number:03}.py", "\n".join([*head, left]), VALUES[kind](rng), "\n".join([right, *body, ""]))


def _function(rng: random.Random, nouns: list[str]) -> list[str]:
    verb, (one, two, three, four) = rng.choice(sorted(VERBS)), (nouns.pop() for _ in range(4))
    return [
        "", "", f"def {verb}_{one}({two}, {three}={rng.randrange(2, 99)}):",
        f'    """{verb.title()} the {one} of every {two} below its {four}."""',
        f"    {four} = [{one} for {one} in {two} if {one} < {three} * {rng.randrange(2, 99)}]",
        f'    log.info("{four} of {one}: %s", len({four}))',
        f"    return sorted({four})[:{rng.randrange(2, 40)}]",
    ]  # fmt: skip
