"""Invented people: their names, accounts, mail and network addresses, telephone numbers.

In:  a random generator
Out: a name or an address of nobody, in the form of somebody's
"""

from __future__ import annotations

import random

from phase1_data.labelled.words import ENDS, HEADS, NOUNS, RARE, TAILS, TLDS, WORDS


def login(rng: random.Random, _: str = "") -> str:
    """A name of an account, made of syllables."""
    drawn = rng.choice(HEADS) + rng.choice(TAILS)
    return rng.choice([drawn, drawn + str(rng.randint(1, 99)), drawn[0] + rng.choice(HEADS) + rng.choice(ENDS[:8])]).replace("ć", "c")


def person(rng: random.Random, _: str = "") -> str:
    first, last = (rng.choice(HEADS) + rng.choice(TAILS) for _ in range(2))
    return f"{first.capitalize()} {last.capitalize()}{rng.choice(ENDS)}"


def mail_domain(rng: random.Random, _: str = "") -> str:
    return f"{rng.choice(WORDS)}{rng.choice(['', '-'])}{rng.choice(WORDS)}.{rng.choice(TLDS)}"


def email(rng: random.Random, kind: str = "") -> str:
    """An address; kind: plus, sub, rare, world, free, dots."""
    first, last = (rng.choice(HEADS) + rng.choice(TAILS) for _ in range(2))
    local = rng.choice([f"{first}.{last}", first + last, f"{first[0]}{last}", f"{first}_{last}", f"{first}{rng.randint(1, 99)}"])
    local = {"plus": f"{local}+{rng.choice(WORDS)}", "world": f"{first}ü{last}é", "dots": f"{first[0]}.{last[0]}.{last}"}.get(kind, local)
    domain = {
        "sub": f"{rng.choice(NOUNS)}.{mail_domain(rng)}",
        "rare": f"{rng.choice(WORDS)}.{rng.choice(RARE)}",
        "free": rng.choice(["gmail.com", "outlook.com", "yahoo.co.jp", "gmx.de", "proton.me", "qq.com", "163.com", "mail.ru"]),
    }.get(kind) or mail_domain(rng)
    return f"{local}@{domain}"


def obfuscated_at(rng: random.Random, _: str = "") -> str:
    return email(rng).replace("@", rng.choice([" at ", " AT ", "_at_"]))


def obfuscated_words(rng: random.Random, _: str = "") -> str:
    return email(rng).replace("@", " at ").replace(".", " dot ")


def obfuscated_brackets(rng: random.Random, _: str = "") -> str:
    left, right = rng.choice([("[", "]"), ("(", ")"), ("{", "}")])
    return email(rng).replace("@", f"{left}at{right}").replace(".", rng.choice([f"{left}dot{right}", "."]))


def ipv4(rng: random.Random, _: str = "") -> str:
    """A public address: from blocks given to providers, none private, reserved, for documentation or a known resolver."""
    block = rng.choice([5, 23, 31, 37, 45, 51, 62, 77, 80, 81, 84, 89, 91, 93, 109, 130, 138, 141, 151, 176, 178, 185, 188, 193, 212, 217])
    return ".".join(map(str, [block, rng.randint(1, 250), rng.randint(0, 255), rng.randint(2, 253)]))


def ipv6(rng: random.Random, kind: str = "") -> str:
    """A public address; kind: full, short."""
    head = rng.choice(["2a01", "2a02", "2a03", "2a00", "2600", "2604", "2607", "2400", "240e"])
    groups = [head, *(f"{rng.randint(4096, 65535):x}" for _ in range(7))]
    if kind == "short":
        return ":".join(groups[: rng.randint(2, 4)]) + "::" + rng.choice([f"{rng.randint(2, 4095):x}", groups[-1]])
    return ":".join(groups)


def phone(rng: random.Random, kind: str = "") -> str:
    """A number that could be dialled; kind: e164, us, dots, local."""
    a, b, c = rng.randint(201, 989), rng.randint(202, 499), rng.randint(1000, 9899)
    country = rng.choice([f"+44 7{rng.randint(100, 999)} {rng.randint(100000, 999999)}", f"+49 151 {rng.randint(1000000, 9999999)}"])
    return {"e164": f"+1{a}{b}{c}", "us": f"({a}) {b}-{c}", "dots": f"{a}.{b}.{c}", "local": f"{a}-{b}-{c}"}.get(kind) or country
