"""Letters and words, and the things that are named with them.

In:  a random generator
Out: drawn characters, words, names of hosts, dates, numbers

All functions that draw take the generator and an argument, "" where they need none, so that `values.KINDS` can list them.
"""

from __future__ import annotations

import random
import re
import string
import uuid as uuids

LOWER, UPPER, DIGITS = string.ascii_lowercase, string.ascii_uppercase, string.digits
ALPHABETS = {
    "w": LOWER + UPPER + DIGITS,
    "l": LOWER + DIGITS,
    "u": UPPER + DIGITS,
    "a": LOWER + UPPER,
    "z": LOWER,
    "Z": UPPER,
    "d": DIGITS,
    "h": "0123456789abcdef",
    "H": "0123456789ABCDEF",
    "b": LOWER + UPPER + DIGITS + "+/",
    "s": LOWER + UPPER + DIGITS + "-_",
    "2": UPPER + "234567",
    "q": "QPZRY9X8GF2TVDW0" + "S3JN54KHCE6MUA7L",  # the 32 characters of bech32 (BIP 173)
}
DRAWN = re.compile(r"([a-zA-Z2])(\d+)(?:-(\d+))?")


def listed(text: str) -> list[str]:
    return text.split()


WORDS = listed(
    "amber anchor apron badger barley basil beacon birch bramble bridge bucket cactus candle canyon carbon cedar cobalt comet copper "
    "coral cricket dagger daisy delta denim ember falcon fennel ferry flint garnet ginger glacier goblin granite hammer harbor hazel "
    "heron hollow indigo ivory jasper juniper kettle lagoon lantern lemon linen lobster maple marble meadow mellow mitten monsoon "
    "mustard nectar nickel nutmeg oasis onyx orchid otter oyster paddle pebble pepper pigeon pillow plume pocket poplar prairie quartz "
    "quiver rabbit raven ribbon rocket saddle saffron salmon sapphire shadow silver sparrow spruce summer sunset tango teapot thistle "
    "thunder timber topaz tulip tundra turtle umber velvet violet walnut willow winter yonder zebra zephyr"
)
NOUNS = listed(
    "account batch billing cache catalog cluster customer event export gateway import index inventory invoice job ledger mail order "
    "payment profile queue quote report search session shipment store stream ticket upload user warehouse worker"
)
HEADS = listed("al an be bo ca da do el fa ga ha il jo ka le lu ma me mi na ni or pa qu ra ro sa si ta to ul va vi we ya zo")
TAILS = listed("bert brick dan dra fred gard gen jana kov lena lin mar mir nell nik rik rina sten stin tev thea vic vin wyn zar")
ENDS = listed("berg czyk dotter escu ez feld hara ic ide ini ković land man mäki nen oglu ova quist sen son strand vik wala")
TLDS = listed("com net org io dev de fr nl se ch at co.uk com.br jp it pl cz eu us ca com.au in")
RARE = listed("museum photography technology engineering swiss berlin tokyo amsterdam africa travel xyz рф moe ninja systems")


def characters(rng: random.Random, kind: str) -> str:
    """A letter of ALPHABETS and a length, or the least and the greatest: `h40`, `w20-40`. "" for another kind."""
    if not (found := DRAWN.fullmatch(kind)):
        return ""
    low = int(found[2])
    return "".join(rng.choices(ALPHABETS[found[1]], k=rng.randint(low, int(found[3] or low))))


def word(rng: random.Random, _: str = "") -> str:
    return rng.choice(WORDS)


def noun(rng: random.Random, _: str = "") -> str:
    return rng.choice(NOUNS)


def number(rng: random.Random, bounds: str) -> str:
    low, _, high = bounds.partition(",")
    return str(rng.randint(int(low), int(high)))


def date(rng: random.Random, _: str = "") -> str:
    return f"{rng.randint(2012, 2025)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def time(rng: random.Random, _: str = "") -> str:
    return f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}"


def uuid(rng: random.Random, _: str = "") -> str:
    return str(uuids.UUID(int=rng.getrandbits(128), version=4))


def host(rng: random.Random, _: str = "") -> str:
    return f"{rng.choice(NOUNS)}-{rng.choice(WORDS)}.{rng.choice(WORDS)}.{rng.choice(TLDS[:6])}"
