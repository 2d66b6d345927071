"""The kinds of values that fill a row: drawn at run time, so that none of them stands in a file of this repository.

In:  a random generator and the kind of value
Out: a string

A kind is a letter and a length (`h40`: 40 hex digits; `w20-40`: 20 to 40 letters and digits), or a key of KINDS with an
optional argument behind a colon (`base64:32`: base64 of 32 bytes).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from phase1_data.labelled import encoded, passwords, people, words

SHAPES = {  # values with a shape, in the language of `template`
    "slack_hook": "T{~u10}/B{~u10}/{~w24}",
    "AA_token": "A¦A{~s33}",
    "telegram": "{~d10}:A¦A{~s33}",
    "wa_number": "49151{~d7}",
    "zapier": "{~d7}/{~l7}",
    "vault": "hv¦s.{~s24}",
    "apr1": "$ap¦r1${~w8}${~w22}",
    "django_hash": "{~w12}${~base64:32}",
}

KINDS: dict[str, Callable[[random.Random, str], str]] = {
    "word": words.word,
    "noun": words.noun,
    "n": words.number,
    "date": words.date,
    "time": words.time,
    "uuid": words.uuid,
    "host": words.host,
    "UUID": lambda rng, _: words.uuid(rng).upper(),
    "Word": lambda rng, _: words.word(rng).capitalize(),
    "WORD": lambda rng, _: words.word(rng).upper(),
    "pw": passwords.pw,
    "pw_digits": passwords.pw_digits,
    "pw_mixed": passwords.pw_mixed,
    "pw_symbols": passwords.pw_symbols,
    "leet": passwords.leet,
    "short": passwords.short,
    "letters": passwords.letters,
    "passphrase": passwords.passphrase,
    "phrase": passwords.phrase,
    "pw_world": passwords.pw_world,
    "pw_url": passwords.pw_url,
    "pw_escaped": passwords.pw_escaped,
    "base64": encoded.base64_of,
    "b64_pw": encoded.b64_pw,
    "b64_text": encoded.b64_text,
    "basic": encoded.basic,
    "jwt": encoded.jwt,
    "pem": encoded.pem,
    "bcrypt": encoded.bcrypt,
    "crypt": encoded.crypt,
    "byte_list": encoded.byte_list,
    "byte_escapes": encoded.byte_escapes,
    "digest": encoded.digest,
    "sri": encoded.sri,
    "login": people.login,
    "person": people.person,
    "email": people.email,
    "ipv4": people.ipv4,
    "ipv6": people.ipv6,
    "phone": people.phone,
    "obfuscated_at": people.obfuscated_at,
    "obfuscated_words": people.obfuscated_words,
    "obfuscated_brackets": people.obfuscated_brackets,
}


def draw(rng: random.Random, kind: str) -> str:
    """A value of the kind. Raises KeyError for a kind that is none."""
    name, _, argument = kind.partition(":")
    return words.characters(rng, kind) or KINDS[name](rng, argument)
