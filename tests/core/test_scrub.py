from __future__ import annotations

import ast
import base64
import json
import random
import re
import socket
import string
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import pii, secrets
from core.findings import Source, entropy
from core.scrub import explain, find, mask
from phase1_data import labelled

SEED = 20
SEEDS = (1, 2)
GITHUB = "gh" + "p_" + "aB3dE5fG7hI9jK1lM2nO4pQ6rS8tU0vW1xY2"
HEADS = {
    "secret": "<SECRET_", "email": "user", "user_path": "user", "person": "User ", "phone": "+1-", "key_bytes": "0x00",
    "ipv4": ("192.0.2.", "198.51.100.", "203.0.113."), "ipv6": "2001:db8::",
}  # fmt: skip
PEM_HEAD = "-----BEGIN RSA PRIV" + "ATE KEY-----"


def covered(row: labelled.LabelledRow) -> float:
    """The share of the row's value that findings cover."""
    start = row.text.index(row.value)
    end = start + len(row.value)
    return sum(max(0, min(f.end, end) - max(f.start, start)) for f in find(row.text)) / len(row.value)


def found_by_family(rows: Iterable[labelled.LabelledRow]) -> dict[str, float]:
    found, total = Counter[str](), Counter[str]()
    for row in rows:
        for family in (row.family, "all"):
            total[family] += 1
            found[family] += covered(row) > 0.9
    return {family: found[family] / total[family] for family in total}


def test_secrets_are_found_over_more_than_nine_tenths_of_their_length():
    found = found_by_family(row for seed in SEEDS for row in labelled.secret_rows(seed))
    assert found["all"] >= 0.95
    assert {family: share for family, share in found.items() if share < 0.75} == {}


def test_personal_data_is_found():
    found = found_by_family(row for seed in SEEDS for row in labelled.personal_rows(seed))
    assert {family: share for family, share in found.items() if share < 0.95} == {}


def test_harmless_rows_stay_as_they_are():
    for rows in (labelled.harmless_rows, labelled.impersonal_rows):
        texts = [row.text for seed in SEEDS for row in rows(seed)]
        changed = [text for text in texts if mask(text)[0] != text]
        assert len(changed) <= 0.01 * len(texts), changed


def test_nothing_is_found_in_a_masked_text_and_redactions_name_its_placeholders():
    everything = [*labelled.secret_rows(SEED), *labelled.personal_rows(SEED), *labelled.harmless_rows(SEED)]
    random.Random(SEED).shuffle(everything)
    text = "\n".join(row.text for row in everything)
    masked, redactions = mask(text)
    assert find(masked) == []
    assert [r.start for r in redactions] == sorted(r.start for r in redactions)
    for redaction in redactions:
        assert masked[redaction.start : redaction.end].startswith(HEADS[redaction.kind])
    assert mask(masked) == (masked, [])


PIECES = [
    *[
        '"',
        "'",
        " ",
        "\n",
        "=",
        ":",
        "@",
        "/",
        ">",
        ",",
        "\\n",
        "x",
        "é",
        "😀",
        "password",
        "key: ",
        "token",
        "://",
        "a1b2c3d4e5f6g7h8",
        "hunter2!",
    ],
    *[GITHUB, PEM_HEAD, "joe@acme.org", "93.184.216.34", "2a00:1450::1", "/home/jsmith/", "Signed-off-by: A B <"],
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
def test_masking_is_final_whatever_the_pieces(text: str):
    masked, redactions = mask(text)
    assert find(masked) == []
    assert bool(redactions) == (masked != text)
    assert all(0 <= r.start < r.end <= len(masked) for r in redactions)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_accepted(text: str):
    assert find(mask(text)[0]) == []


@pytest.mark.parametrize(
    "text",
    [
        "[user]\n  name = Maria Lindqvist\n  email = maria@lindstrom-labs.se\n",
        "\n -- Maria Lindqvist <maria@lindstrom-labs.se>  Tue, 04 Apr 2023 19:04:08 +0200\n",
        "Reviewed-by: Maria Lindqvist\nCo-authored-by: Wei Zhang <wei@orbit.io>\n",
        "@author Maria Lindqvist\n:author: Wei Zhang\n__author__ = 'Olu Okafor'\n",
        "phone: +46 70 174 06 05, fax (212) 736-5000, tel:+14155550132\n",
        "maria at lindstrom-labs dot se, wei [at] orbit [dot] io\n",
        "aes_key = { " + ", ".join(f"0x{n * 37 % 256:02x}" for n in range(16)) + " };\n",
        "host ::ffff:93.184.216.34 and 2a00:1450:4001::1 port 93.184.216.34:80\n",
        "/home/mlindqvist/a C:\\Users\\wzhang\\b /Users/okafor/c file:///home/mlindqvist/d\n",
    ],
)
def test_every_kind_of_placeholder_is_left_alone_where_it_stands(text: str):
    masked, redactions = mask(text)
    assert redactions and find(masked) == [] and mask(masked) == (masked, [])


def test_equal_values_share_a_placeholder_and_different_ones_do_not():
    masked, _ = mask("a@acme.org b@acme.org a@acme.org 93.184.216.34 93.184.216.35 93.184.216.34 /home/jsmith/a /home/jsmith/b")
    assert masked == "user1@example.com user2@example.com user1@example.com 192.0.2.1 192.0.2.2 192.0.2.1 /home/user/a /home/user/b"


def test_a_thousand_addresses_become_addresses_of_the_documentation_ranges():
    masked, redactions = mask("\n".join(f"host 93.{n // 250}.{n % 250}.7" for n in range(1000)))
    assert len(redactions) == 1000
    assert find(masked) == [] and "192.0.2.255" not in masked and "203.0.113.1" in masked


def test_every_occurrence_of_a_secret_goes_even_where_nothing_names_it():
    masked, _ = mask(f'TOKEN = "{GITHUB}"\nprint("{GITHUB}")\n# {GITHUB[:-1]}\n# see {GITHUB}\npassword = "Kx9!mmQz"\nlog("Kx9!mmQz")\n')
    assert GITHUB not in masked and "Kx9!mmQz" not in masked
    assert masked.count("<SECRET_1>") == 3


def test_an_identifier_that_equals_a_weak_secret_stays():
    assert (
        mask('password = "dragon88"\ndragon88 = 1\nlogin("dragon88")\n')[0]
        == 'password = "<SECRET_1>"\ndragon88 = 1\nlogin("<SECRET_1>")\n'
    )


def test_a_private_key_goes_whole_and_its_frame_stays():
    for kind in ("RSA ", "EC ", "", "OPENSSH "):
        body = "\n".join(BASE64[at : at + 64] for at in range(0, 800, 64))
        text = f"-----BEGIN {kind}PRIV" + f"ATE KEY-----\n{body}\n-----END {kind}PRIV" + "ATE KEY-----"
        masked, redactions = mask(text)
        assert not any(line in masked for line in body.splitlines())
        assert masked.startswith("-----BEGIN ") and masked.endswith(" KEY-----") and len(redactions) == 1


def test_an_escape_before_an_address_keeps_its_letters():
    for escape in (r"\n", r"\xe9", r"\u00e9", r"\012"):
        assert mask(f"'{escape}joe@acme.org'")[0] == f"'{escape}user1@example.com'"


def test_a_token_inside_a_blob_is_part_of_the_blob():
    assert mask('FONT = b"""\n' + "QUFB" * 12 + "AK" + "IA" + "QWERTZUIOPASDF23" + "QUFB" * 12 + '\n"""')[1] == []


def test_of_a_url_only_the_password_goes():
    assert mask("git clone https://joe:s3cr3tPw@git.acme.org/app.git")[0] == "git clone https://joe:<SECRET_1>@git.acme.org/app.git"


def test_comments_that_silence_other_scanners_silence_nothing():
    for comment in ("# pragma: allowlist secret", "# noqa", "# gitleaks:allow", "# nosec"):
        assert GITHUB not in mask(f'x = "{GITHUB}"  {comment}')[0]


def test_offsets_count_characters_also_after_text_outside_latin():
    text = f"# 日本語 😀 é\ntoken = '{GITHUB}'\n"
    (finding,) = find(text)
    assert text[finding.start : finding.end] == GITHUB


def test_masked_code_still_parses():
    blocks = [row.text for row in labelled.secret_rows(SEED) if any(row.value in string for string in _strings_of(row.text))]
    assert len(blocks) > 100
    assert [masked for masked, _ in map(mask, blocks) if not _strings_of(masked)] == []


def _strings_of(text: str) -> list[str]:
    """The string and bytes literals of Python code, nothing where it is no Python."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return []
    values = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return [value.decode(errors="replace") if isinstance(value, bytes) else value for value in values if isinstance(value, str | bytes)]


def test_the_prefilter_loses_nothing_that_a_plugin_finds_on_any_line():
    texts = [row.text for row in [*labelled.secret_rows(SEED), *labelled.harmless_rows(SEED)]]
    texts += [path.read_text(encoding="utf-8") for path in sorted(Path(secrets.__file__).parent.glob("*.py"))]
    text = "\n".join(texts)
    source = Source(text)
    found = set(secrets.find_by_plugins(source))
    at = 0
    for line in text.split("\n"):
        for entry in secrets._PLUGINS:
            missed = set(secrets._matches(entry, source, at, at + len(line))) - found
            assert not {f for f in missed if not any(o.start <= f.start and f.end <= o.end for o in found)}, (entry.rule, line)
        at += len(line) + 1


def test_our_entropy_is_the_plugins_entropy():
    for value in ("aB3+/=_-" * 3, BASE64[:64], "a" * 20):
        assert entropy(value) == pytest.approx(secrets._BASE64.calculate_shannon_entropy(value))


def test_no_rule_goes_to_the_network(monkeypatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a rule opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    for row in labelled.secret_rows(SEED):
        mask(row.text)


MB = 1_000_000
BASE64 = "".join(random.Random(1).choices(string.ascii_letters + string.digits + "+/", k=MB))
HOSTILE = {
    **{f"only {c!r}": c * MB for c in "a0'\"=:@/.- \n"},
    **{
        f"many {p!r}": (p * MB)[: MB // len(p) * len(p)]
        for p in ["a=", "'a'", "://", "a@b.", "1.", "::", "a:", "/home/", "\\Users\\", "MII", "-----BEGIN "]
    },
    "base64": BASE64,
    "quoted base64": f'"{BASE64}"',
    "base64 lines": "\n".join(f'"{BASE64[at : at + 64]}"' for at in range(0, MB, 64)),
}


CODE = Path(__file__).read_text()
PLAIN = (CODE * (MB // len(CODE) + 1))[:MB]
WORST = 10  # times as long as a megabyte of this file; base64 lines, the worst, take 7


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_megabyte_takes_no_more_than_many_times_a_plain_one(name: str):
    def seconds(text: str) -> float:
        started = time.process_time()
        find(text)
        return time.process_time() - started

    assert any(seconds(HOSTILE[name]) < WORST * seconds(PLAIN) for _ in range(4))  # a busy machine slows some runs


@pytest.mark.parametrize(
    "piece", ["password=", "token: a", "sk-", "eyJ-", "gh" + "p_", "secret(", "AccountKey=", "from: a", "xox" + "b-", '"key" : ']
)
def test_time_grows_with_length_not_with_its_square(piece: str):
    def seconds(size: int) -> float:
        text = piece * (size // len(piece))
        started = time.process_time()
        find(text)
        return time.process_time() - started

    assert seconds(200_000) < 8 * seconds(50_000) + 0.3  # 4 times the work; 16 times if it were quadratic


def test_explain_gives_what_was_found_and_why_look_alikes_stayed():
    text = f'token = "{GITHUB}"\nsha256 = "{"9f86d081884c7d65" * 4}"\npassword = "changeme"\nhost = "10.1.2.3"\nversion = "4.18.200.1"\n'
    findings, stayed = explain(text)
    assert findings == find(text) and len(findings) == 1
    reasons = {text[note.start : note.end]: note.why for note in stayed}
    assert "placeholder" in reasons["changeme"] and "private" in reasons["10.1.2.3"] and "version" in reasons["4.18.200.1"]
    assert not any(f.start < note.end and note.start < f.end for f in findings for note in stayed)


def test_a_text_is_judged_alike_first_and_later_in_a_process():
    """The literals are learnt from the first texts: what is found must not depend on which came first."""
    rows = [row.text for row in labelled.secret_rows(SEED)][:200]
    once = subprocess.run(
        [sys.executable, "-c", "import json,sys; from core.scrub import find; print(json.dumps([find(t) for t in json.load(sys.stdin)]))"],
        input=json.dumps(rows[::-1]), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert [[list(f) for f in find(text)] for text in rows] == json.loads(once.stdout)[::-1]


def test_a_secret_in_one_layer_of_base64_goes_and_other_base64_stays():
    hidden = base64.b64encode(f"token={GITHUB}".encode()).decode()
    login = base64.b64encode(b"joe:Kx9!mmQzP").decode()
    plain = base64.b64encode(b"nothing but some words of a longer sentence").decode()
    assert hidden not in mask(f"blob: {hidden}")[0]
    assert login not in mask(f"Authorization: Basic {login}")[0]
    assert mask(f'DATA = "{plain}"')[1] == []


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
def test_nothing_outside_a_redaction_changes(text: str):
    masked, redactions = mask(text)
    edges = [0, *(edge for r in redactions for edge in (r.start, r.end)), len(masked)]
    kept = [masked[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]
    pattern = ".+?".join(re.escape(piece) for piece in kept)
    assert re.fullmatch(pattern, text, re.DOTALL)


@settings(max_examples=500, deadline=None)
@given(st.text("0123456789.:abfg -\n", max_size=60))
def test_candidates_by_class_are_the_matches_of_the_whole_pattern(text: str):
    raw = text.encode()
    for classes, shape, pattern, back in ((pii._DOTTED, pii._QUADS, pii._IPV4, 3), (pii._HEXED, pii._GROUP, pii._IPV6, 0)):
        by_class = [match.span() for match in pii._candidates(raw, classes, shape, pattern, back)]
        assert by_class == [match.span() for match in pattern.finditer(raw)]


def test_a_finding_of_a_later_round_takes_the_placeholder_whole():
    text = f"{PEM_HEAD}a1b2c3d4e5f6g7h8\\njoe@acme.org"
    masked, redactions = mask(text)
    assert find(masked) == [] and "a1b2" not in masked and "joe" not in masked
    kept = masked
    for redaction in reversed(redactions):
        kept = kept[: redaction.start] + kept[redaction.end :]
    assert all(piece in text for piece in kept.split("\\n"))


def test_names_of_code_are_left_alone():
    code = """
from base64 import urlsafe_b64encode
token = base64.urlsafe_b64encode(digest)
token, value = get_atom(value[1:])
private_key = ed25519.Ed25519PrivateKey.generate()
KEYS = [ed25519.Ed25519PrivateKey, mldsa.MLDSA44PrivateKey]
class AccessKey:
    @property
    def b(self): ...
def f(pass_qs: np.ndarray | None = None, token2wav_kwargs=None) -> np.ndarray: ...
KEY_PASS = orig_val
SECRET = r'(?=[a-z]{4})'
a = +4294967296
"""
    assert mask(code)[1] == []


@pytest.mark.parametrize("name", ["COMPASS_PASSWORD", "BYPASS_PASSWORD", "KEYBOARD_API_KEY", "monkey_secret", "TokenizerPassword"])
def test_a_harmless_word_in_a_name_does_not_hide_the_telling_one(name):
    value = "zD70" + "GvBV" + "X3vp" + "2kQw"
    assert value not in mask(f'{name} = "{value}"\n')[0]
