"""Values in a coding: keys, hashes, tokens of three parts, base64 of whatever.

In:  a random generator and what to encode
Out: the coded value
"""

from __future__ import annotations

import base64
import hashlib
import json
import random

from phase1_data.labelled.passwords import letters, passphrase, phrase, pw, pw_mixed, pw_symbols
from phase1_data.labelled.words import ALPHABETS, WORDS, characters, host, noun


def base64_of(rng: random.Random, count: str) -> str:
    return base64.b64encode(rng.randbytes(int(count))).decode()


def b64_pw(rng: random.Random, _: str = "") -> str:
    return base64.b64encode(rng.choice([pw_mixed, pw_symbols, letters, passphrase])(rng).encode()).decode()


def b64_text(rng: random.Random, _: str = "") -> str:
    return base64.b64encode(phrase(rng).encode()).decode()


def basic(rng: random.Random, _: str = "") -> str:
    """What stands behind `Basic ` in a header."""
    return base64.b64encode(f"{rng.choice(WORDS)}:{pw(rng)}".encode()).decode()


def url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwt(rng: random.Random, algorithm: str = "") -> str:
    algorithm = algorithm or rng.choice(["HS256", "HS512", "RS256", "ES256"])
    claims = {"sub": characters(rng, "d10"), "iss": host(rng), "role": noun(rng), "iat": rng.randint(1_500_000_000, 1_750_000_000)}
    head, body = (json.dumps(part, separators=(",", ":")).encode() for part in ({"alg": algorithm, "typ": "JWT"}, claims))
    return ".".join([url64(head), url64(body), url64(rng.randbytes(32))])


def pem(rng: random.Random, argument: str) -> str:
    """The body of a key: `kind,lines,joint`; joint `n` is a newline, `e` an escaped one, `s` a space, a digit an indent."""
    kind, lines, joint = argument.split(",")
    heads = {
        "rsa": bytes.fromhex("308204a40201000282010100"),
        "ec": bytes.fromhex("30770201010420"),
        "pkcs8": bytes.fromhex("308204be020100300d06092a864886f70d0101010500"),
        "openssh": b"openssh-key-" + bytes.fromhex("763100000000046e6f6e65"),
        "pgp": bytes.fromhex("9501d8045f"),
        "cert": bytes.fromhex("3082037b30820263a0030201020214"),
        "public": bytes.fromhex("30820122300d06092a864886f70d01010105000382010f00"),
        "none": b"",
    }
    head = heads[kind]
    whole = base64.b64encode(head + rng.randbytes(int(lines) * 48 - len(head) - rng.randint(2, 20))).decode()
    between = {"n": "\n", "e": "\\n", "s": " "}.get(joint) or "\n" + " " * int(joint)
    return between.join(whole[at : at + 64] for at in range(0, len(whole), 64))


def bcrypt(rng: random.Random, _: str = "") -> str:
    return f"$2{rng.choice('aby')}${rng.choice(['10', '11', '12'])}$" + "".join(rng.choices("./" + ALPHABETS["w"], k=53))


def crypt(rng: random.Random, method: str) -> str:
    """sha512crypt (6), sha256crypt (5), md5crypt (1)."""
    length = {"6": 86, "5": 43, "1": 22}[method]
    return f"${method}${characters(rng, 'w8')}$" + "".join(rng.choices("./" + ALPHABETS["w"], k=length))


def byte_list(rng: random.Random, _: str = "") -> str:
    return ", ".join(f"0x{one:02x}" for one in rng.randbytes(16))


def byte_escapes(rng: random.Random, _: str = "") -> str:
    return "".join(f"\\x{one:02x}" for one in rng.randbytes(16))


def digest(rng: random.Random, name: str) -> str:
    return hashlib.new(name, rng.randbytes(16)).hexdigest()


def sri(rng: random.Random, name: str) -> str:
    return f"{name}-" + base64.b64encode(hashlib.new(name, rng.randbytes(16)).digest()).decode()
