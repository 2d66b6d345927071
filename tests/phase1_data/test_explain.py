"""Promises of explain: every masked place is told, its value is not, and the text cannot speak to the terminal."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from core.scrub import Finding, Redaction, mask
from core.scrub import explain as scrub_explain
from phase1_data import explain_page
from phase1_data.cli import app
from phase1_data.explain import Place, explained, places_of, shown_path
from phase1_data.labelled import harmless_rows, impersonal_rows, personal_rows, secret_rows

TOKEN = "gh" + "p_" + "b7Qx2LmZ9kR4tVw8Yc1NdP6sHf3JgA5uEe0K"
PASSWORD = "Tr4" + "ub9!xQ"
PEM = "-----BEGIN " + "RSA PRIVATE KEY-----\n" + ("MIIEpAIBAAKCAQEAxT7Q" * 3 + "\n") * 6 + "-----END " + "RSA PRIVATE KEY-----"


def command(*arguments: str, stdin: bytes | None = None):
    return CliRunner().invoke(app, ["explain", *arguments], input=stdin)


def told(text: str, name: str = "a.py") -> tuple[dict, str]:
    result = explained(name, text)
    return result, "\n".join(explain_page.page(result))


def test_a_finding_has_its_place_rule_placeholder_and_line():
    result, page = told(f"import os\nmail = 'x'; token = '{TOKEN}'  # from carol@corp.org\n")
    token, mail = result["found"]
    assert (token["line"], token["column"], token["kind"], token["starts"], token["length"]) == (2, 22, "secret", "gh", len(TOKEN))
    assert (mail["line"], mail["column"], mail["kind"], mail["placeholder"]) == (2, 72, "email", "user1@example.com")
    assert token["shown"] == "mail = 'x'; token = '<SECRET_1>'  # from user1@example.com" and "'<SECRET_1>'  # from user1@" in mail["shown"]
    assert "2:22" in page and f"gh… ({len(TOKEN)} characters) -> <SECRET_1>" in page and "carol" not in page


def test_a_look_alike_has_its_reason_and_is_not_shown_either():
    digest = "d41d8cd98f00b204e9800998ecf8427e"
    result, page = told(f'password = "{PASSWORD}"; md5 = "{digest}"\nhost = "10.0.0.1"\n')
    assert {(one["line"], one["column"]) for one in result["stayed"]} >= {(1, 32), (2, 9)}
    assert all(one["why"] for one in result["stayed"]) and digest[2:] not in page and "10.0.0.1" not in page


@pytest.mark.parametrize("rows", [secret_rows, personal_rows, harmless_rows, impersonal_rows])
def test_no_masked_value_of_the_labelled_rows_is_printed(rows):
    for number, row in enumerate(rows(3)):
        if number % 4:
            continue
        text, redactions = mask(row.text)
        result, page = told(row.text)
        assert len(result["found"]) == len(redactions)
        if row.value and len(row.value) >= 6 and row.value not in text:
            assert row.value not in page and row.value not in json.dumps(result, ensure_ascii=False), row.family


def test_every_place_leads_back_to_the_text():
    for row in (*secret_rows(3), *personal_rows(3)):
        masked, redactions = mask(row.text)
        places = places_of(row.text, scrub_explain(row.text)[0], masked, redactions)
        assert_whole(row.text, masked, places)


@pytest.mark.parametrize(
    ("masked", "spans", "originals"),
    [
        ("a=<S> c", [(2, 5)], ["xx yy b"]),  # a later round took more
        ("a=<S> yy <T> c", [(2, 5), (9, 12)], ["xx", "b"]),  # or something else
        ("<T>=<S> yy b <T>", [(0, 3), (4, 7), (13, 16)], ["a", "xx", "c"]),
    ],
)
def test_places_are_right_also_where_masking_took_several_rounds(masked, spans, originals):
    text, findings = "a=xx yy b c", [Finding(2, 4, "secret", "rule")]
    places = places_of(text, findings, masked, [Redaction("secret", *span, "rule") for span in spans])
    assert [text[place.start : place.end] for place in places] == originals
    assert_whole(text, masked, places)


def assert_whole(text: str, masked: str, places: list[Place]) -> None:
    """Putting every placeholder in its place gives the masked text."""
    pieces, at = [], 0
    for start, end, redaction in places:
        assert at <= start < end
        pieces += [text[at:start], masked[redaction.start : redaction.end]]
        at = end
    assert "".join([*pieces, text[at:]]) == masked


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"token = '{TOKEN}' or '{TOKEN}'\n", TOKEN),
        (f"password = '{PASSWORD}'  # {PASSWORD}\n", PASSWORD),
        ("password = 'k9#Qz7'  # k9#Qz7 and xk9#Qz7x\n", "k9#Qz7"),
        (f"url = 'https://bob:{PASSWORD}@db.corp.org/x?token={TOKEN}'\n", PASSWORD),
        (f"url = 'https://bob:{PASSWORD}@db.corp.org/x?token={TOKEN}'\n", TOKEN),
        (f"key = '''{PEM}'''\nx = 1\n", "MIIEpAIBAAKCAQEAxT7Q"),
        ("x = 1; " * 8_000 + f"t = '{TOKEN}'; " + "y = 2; " * 8_000, TOKEN),
        (f"t = '{TOKEN}'\x1b[2J\x1b]0;title\x07\n", TOKEN),
    ],
)
def test_nothing_secret_is_printed(tmp_path, text, secret):
    file = tmp_path / "a.py"
    file.write_text(text)
    for more in ((), ("--json",)):
        done = command(str(file), *more)
        assert done.exit_code == 0 and secret not in done.output and "<SECRET_1>" in done.stdout
        assert max(map(len, done.stdout.splitlines())) < 400


def test_a_value_in_the_path_is_not_printed(tmp_path):
    short = "k9#Qz7"
    for name in (f"{TOKEN}.py", f"backup {short}.py"):
        (tmp_path / name).write_text(f"password = '{short}'\n")
        done = command(str(tmp_path / name), "--json")
        assert done.exit_code == 0 and TOKEN not in done.output and short not in done.output
        gone = command(str(tmp_path / name) + "x")
        assert gone.exit_code == 2 and TOKEN not in gone.output
    assert shown_path("/home/carolsmith/\x1b[31m\nx.py") == "/home/user/\\x1b[31m\\nx.py"


def test_the_text_cannot_speak_to_the_terminal(tmp_path):
    file = tmp_path / "a.py"
    file.write_text(
        f"[bold]x[/bold] \x1b[31m\u202e\x9b\x07\r\n\ttoken = '{TOKEN}' [red]\x1b]8;;http://x\x07\u2028\n", encoding="utf-8", newline=""
    )
    done = command(str(file))
    assert done.exit_code == 0 and all(line.isprintable() for line in done.stdout.splitlines())
    assert "[red]\\x1b]8;;http://x\\x07" in done.stdout


def test_a_long_line_with_many_findings_is_cut_and_quick():
    started = time.process_time()
    result, page = told("; ".join(f"a{n} = 'carol{n}@corp{n}.org'" for n in range(3_000)))
    assert len(result["found"]) == 3_000 and time.process_time() - started < 6
    assert "carol" not in page and max(len(one["shown"]) for one in result["found"]) < 150


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "shift-jis", "koi8-r"])
def test_any_encoding(tmp_path, encoding):
    head = {"shift-jis": "# 日本語のコメント", "koi8-r": "# комментарий к коду"}.get(encoding, "# café")
    file = tmp_path / "a.py"
    file.write_bytes(f"{head}\r\ntoken = '{TOKEN}'\r\n".encode(encoding))
    found = json.loads(command(str(file), "--json").stdout)[0]["found"]
    assert [(one["line"], one["column"]) for one in found] == [(2, 10)]


def test_stdin_and_several_files(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "empty.py").write_text("")
    done = command(str(tmp_path / "a.py"), str(tmp_path / "empty.py"), "-", stdin=f"t = '{TOKEN}'\n".encode())
    assert done.exit_code == 0 and "-: 1 masked" in done.stdout and "3 files: 1 masked" in done.stdout


def test_what_cannot_be_read_is_one_line_and_the_rest_is_explained(tmp_path):
    binary, good = tmp_path / "b.bin", tmp_path / "a.py"
    binary.write_bytes(b"\x7fELF\0\0\1\2" * 50)
    good.write_text(f"t = '{TOKEN}'\n")
    for bad, word in ((tmp_path / "none", "missing"), (tmp_path, "a folder"), (binary, "binary"), (Path("/dev/null"), "no plain file")):
        done = command(str(bad), str(good))
        assert done.exit_code == 2 and done.stderr.count("\n") == 1 and word in done.stderr and "1 masked" in done.stdout
