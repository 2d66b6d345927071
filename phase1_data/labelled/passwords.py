"""Passwords that people choose: made of words, digits and symbols, mostly guessable.

In:  a random generator
Out: a password
"""

from __future__ import annotations

import random

from phase1_data.labelled.words import ALPHABETS, DIGITS, LOWER, UPPER, WORDS, characters


def pw(rng: random.Random, _: str = "") -> str:
    """Any of the kinds below that needs no quotes."""
    return rng.choice([pw_digits, pw_digits, pw_mixed, pw_mixed, leet, short, letters, passphrase])(rng)


def pw_digits(rng: random.Random, _: str = "") -> str:
    year = rng.choice([str(rng.randint(1970, 2025)), f"{rng.randint(0, 999):03}", str(rng.randint(10, 99))])
    return rng.choice(WORDS).capitalize() + rng.choice(["", "", "_", "-", "."]) + year + rng.choice(["", "", "!"])


def pw_mixed(rng: random.Random, _: str = "") -> str:
    """Letters of both cases and digits, 9 to 16 of them."""
    drawn = [rng.choice(LOWER), rng.choice(UPPER), rng.choice(DIGITS), *rng.choices(ALPHABETS["w"], k=rng.randint(6, 13))]
    rng.shuffle(drawn)
    return "".join(drawn)


def pw_symbols(rng: random.Random, _: str = "") -> str:
    """With symbols that stand inside quotes without an escape."""
    head = rng.choice([pw_digits, pw_mixed, leet])(rng)
    at = rng.randint(2, len(head) - 1)
    return head[:at] + "".join(rng.choices("!@#%^&*()+=?~;:,|[]{}/", k=rng.randint(1, 3))) + head[at:] + rng.choice("!#*?+9")


def leet(rng: random.Random, _: str = "") -> str:
    changed = str.maketrans({"a": "4", "e": "3", "i": "1", "o": "0", "s": "5", "t": "7"})
    drawn = rng.choice([one for one in WORDS if set(one) & set("aeiost")]).translate(changed)
    return rng.choice([drawn, drawn.capitalize()]) + rng.choice(["", rng.choice(WORDS)[:4], str(rng.randint(1, 99))])


def short(rng: random.Random, _: str = "") -> str:
    """6 to 8 characters."""
    return rng.choice(
        [rng.choice(WORDS)[:5] + str(rng.randint(1, 999)), characters(rng, "l6-8"), characters(rng, "z3") + characters(rng, "d3-4")]
    )


def letters(rng: random.Random, _: str = "") -> str:
    """Two to four words run together."""
    drawn = rng.sample(WORDS, rng.randint(2, 4))
    return rng.choice(["".join(drawn), "".join(one.capitalize() for one in drawn)])


def passphrase(rng: random.Random, joint: str = "") -> str:
    return rng.choice(["-", "-", "_", "."] if not joint else [joint]).join(rng.sample(WORDS, rng.randint(3, 5)))


def phrase(rng: random.Random, _: str = "") -> str:
    return " ".join(rng.sample(WORDS, rng.randint(3, 5)))


def pw_world(rng: random.Random, _: str = "") -> str:
    """With letters that are not ASCII."""
    drawn = rng.choice(["ключ", "тайна", "пароль", "密码", "秘密", "contraseña", "geheimnisträger", "motdepassé", "şifre", "hasło"])
    return drawn + rng.choice(WORDS)[:5] + str(rng.randint(10, 9999))


def pw_url(rng: random.Random, _: str = "") -> str:
    """As it stands in an address, escaped where it must be."""
    drawn = rng.choice([pw_digits, pw_mixed, letters])(rng)
    return drawn[:4] + rng.choice(["", "%40", "%21", "%2F"]) + drawn[4:]


def pw_escaped(rng: random.Random, _: str = "") -> str:
    """With an escaped quote or backslash inside."""
    drawn = rng.choice([pw_digits, pw_mixed])(rng)
    return drawn[:4] + rng.choice(['\\"', "\\\\", "\\'"]) + drawn[4:]
