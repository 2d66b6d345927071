"""Our scrubber against two others: the figures are there, ours are better, and nothing secret is printed or sent."""

from __future__ import annotations

import json
import random
import socket
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from core.records import FILE, Row, write_jsonl, write_parquet
from eval.bench import bigcode_rules, detect_secrets_peer, scrub_bench, scrub_scaling
from eval.bench.masking import Case, System, covered, everywhere, merged, replaced
from eval.bench.scrub_input import placed
from eval.cli import app

RNG = random.Random(5)
NAMES = ("tabsmith", "detect-secrets 1.5.0", "BigCode's rules")


def letters(count: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    return "".join(RNG.choices(alphabet, k=count))


def made_rows() -> Iterator[Row]:
    """Twenty rows of every kind; token-like strings are put together here, so that no scanner takes this file for a leak."""
    secrets = [
        ("vendor_prefix", "GITHUB = '{}'\n", "gh" + "p_" + letters(36)),
        ("vendor_prefix", "aws_access_key_id = {}\n", "AK" + "IA" + letters(16, string.ascii_uppercase + "234567")),
        ("vendor_prefix", "token: {}\n", "glp" + "at-" + letters(20)),
        ("url", "db = 'postgres://app:{}@db.corp.io/app'\n", letters(14)),
        ("shell", "mysql -u root -p{} shop\n", letters(12)),
        ("keyword_config", "DB_PASSWORD={}\n", letters(14)),
        ("header", "Authorization: Bearer {}\n", letters(40)),
    ]
    personal = [
        ("email", "__author__ = 'Ada <{}>'\n", "ada.lovelace@" + "analytical.org"),
        ("ipv4", "HOST = '{}'\n", "93.184." + "216.34"),
        ("ipv6", "HOST = '{}'\n", "2606:2800:220:" + "1:248:1893:25c8:1946"),
        ("home_directory", "root = '/home/{}/src'\n", "jkowalski"),
    ]
    harmless = [f"sha256 = '{letters(64, '0123456789abcdef')}'\n", "password = os.environ['DB_PASSWORD']\n", "token = next(tokens)\n"]
    impersonal = ["version = '1.2.3.4'\n", "@decorator\nx @ y\n", "bind('127.0.0.1')\n"]
    for kind, rows in (("secret", secrets), ("personal", personal)):
        for family, text, value in rows:
            yield {"kind": kind, "family": family, "text": text.format(value), "value": value, "path": "app/.env"}
    for kind, texts in (("harmless", harmless), ("impersonal", impersonal)):
        for text in texts:
            yield {"kind": kind, "family": "any", "text": text, "value": "", "path": "app/main.py"}


ROWS = [{"id": str(number), **row} for number, row in enumerate(made_rows())]


@pytest.fixture(autouse=True, scope="module")
def offline() -> Iterator[None]:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    with pytest.MonkeyPatch.context() as patched:
        for name in ("socket", "create_connection", "getaddrinfo"):
            patched.setattr(socket, name, refuse)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """rows.jsonl and three files of code, one with secrets."""
    found = tmp_path_factory.mktemp("bench")
    write_jsonl(found / "rows.jsonl", ROWS)
    (found / "code").mkdir()
    (found / "code/plain.py").write_text("def double(x: int) -> int:\n    return 2 * x\n" * 30)
    (found / "code/app.py").write_text(f"import os\n\nKEY = '{ROWS[0]['value']}'\nMAIL = b'{ROWS[7]['value']}'\n")
    (found / "code/app.js").write_text("export const one = () => 1;\n" * 30)
    (found / "code/notes.bin").write_bytes(b"\xff\xfe\0")
    return found


def bench(folder: Path, *arguments: str) -> Result:
    given = ["scrub-bench", "--rows", str(folder / "rows.jsonl"), "--files", str(folder / "code"), *arguments]
    return CliRunner().invoke(app, given)


@pytest.fixture(scope="module")
def shown(folder: Path) -> str:
    done = bench(folder, "--every-file", "--json", str(folder / "figures.json"))
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def figures(folder: Path, shown: str) -> Row:
    found: Row = json.loads((folder / "figures.json").read_text())
    return found


def share(figures: Row, name: str, kind: str) -> float:
    counts = figures["systems"][name]["families"][kind].values()
    return sum(hits for hits, _ in counts) / sum(total for _, total in counts)


def test_every_system_has_a_figure_in_every_line(shown: str):
    table = [line.split("|")[1:-1] for line in shown.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in table[0][1:]] == list(NAMES)
    labels = [line[0].strip() for line in table[2:]]
    for wanted in (
        "secrets masked (of 7)", "secrets masked, no vendor's prefix (of 4)", "harmless rows changed (of 3)", "email masked (of 1)",
        "ipv6 masked (of 1)", "home directory masked (of 1)", "impersonal rows changed (of 3)", "left after masking, files",
        "Python files that still parse", "MB/s per core", "times detect-secrets",
    ):  # fmt: skip
        assert wanted in labels
    assert all(any(map(str.isdigit, cell)) for line in table[2:] for cell in line[1:])


def test_ours_masks_all_of_these_rows_and_the_others_do_not(figures: Row):
    ours, *others = NAMES
    assert share(figures, ours, "secret") == share(figures, ours, "personal") == 1
    assert share(figures, ours, "harmless") == share(figures, ours, "impersonal") == 0
    assert all(share(figures, other, "secret") < 1 and share(figures, other, "personal") < 1 for other in others)
    assert figures["systems"][ours]["left_in_rows"] == figures["systems"][ours]["left_in_files"] == 0
    assert figures["systems"][ours]["parsed"] == [2, 2]


def test_the_files_are_all_read_and_what_is_no_code_is_not(folder: Path, figures: Row):
    assert figures["files"]["count"] == 3
    size = sum((folder / "code" / name).stat().st_size for name in ("plain.py", "app.py", "app.js"))
    assert figures["every_file"] == {"files": 3, "bytes": size, "changed": 1, "left": 0, "broken": 0}
    assert all(len(system["seconds"]) == 3 and system["mb_per_s"] > 0 for system in figures["systems"].values())
    assert set(figures["scaling"]["seconds"]) == {"1", "2"}


def test_no_value_is_printed_or_written(folder: Path, shown: str, figures: Row):
    for row in ROWS:
        assert not row["value"] or row["value"] not in shown + json.dumps(figures)


def test_a_parquet_file_of_phase_1_is_read_in_fair_order_up_to_the_limit(folder: Path, tmp_path: Path):
    blank = dict.fromkeys(FILE.names)
    rows = [{**blank, "repo": "r", "path": f"f{at}.py", "content": "x = 1\n" * 100, "n_bytes": 600} for at in range(9)]
    write_parquet(tmp_path / "files.parquet", rows, FILE)
    done = bench(folder, "--files", str(tmp_path / "files.parquet"), "--mb", "0.0015", "--json", str(tmp_path / "figures.json"))
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "figures.json").read_text())["files"]["count"] == 3


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "python -m phase1_data labelled --output"),
        ("", "holds no rows"),
        ("{", ":1: not JSON"),
        ('{"kind": "secret"}', "row 1: no text under `family`"),
        ('{"kind": "?", "family": "", "text": "", "value": "", "path": ""}', "`kind` is none of"),
        ('{"kind": "secret", "family": "", "text": "a", "value": "b", "path": ""}', "`value` is not in `text`"),
    ],
)
def test_bad_rows_are_one_line_that_names_what_to_do(tmp_path: Path, content: str | None, named: str):
    if content is not None:
        (tmp_path / "rows.jsonl").write_text(content)
    done = bench(tmp_path)
    assert done.exit_code == 2 and named in done.stderr and done.stderr.count("\n") == 1


def test_missing_or_empty_files_are_one_line(folder: Path, tmp_path: Path):
    for files, named in ((tmp_path / "no", "is missing"), (tmp_path, "no code to read"), (folder / "rows.jsonl", "no Parquet file")):
        done = bench(folder, "--files", str(files))
        errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
        assert done.exit_code == 2 and len(errors) == 1 and named in errors[0]


def found_by(system: System, text: str, folder: Path, name: str = "a.py") -> list[str]:
    case = placed(text, name, folder / str(len(list(folder.iterdir()))))
    with system.ready():
        return [text[finding.start : finding.end] for finding in system.find(case)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("mail jo.li@corp.io now", ["jo.li@corp.io"]),
        ("HOST = '93.184.216.34'", ["93.184.216.34"]),
        ("HOST = '2606:2800:220:1::1946'", ["2606:2800:220:1::1946"]),
        ("HOST = '192.168.1.77', '10.20.30.140'", []),  # private
        ("dns 8.8.8.8, 1.1.1.1", []),  # public resolvers
        ("version = '2.3.4.5'", []),
        ("dns = '2.3.4.5'", ["2.3.4.5"]),  # the same, and the word says what it is
        ("at 12.11.19.5 ", []),  # a date first
        ("a::b and ::", []),
    ],
)
def test_bigcodes_rules_for_addresses(tmp_path: Path, text: str, found: list[str]):
    assert found_by(bigcode_rules.SYSTEM, text, tmp_path) == found


def test_bigcodes_rules_for_keys(tmp_path: Path):
    key, digest = letters(40), letters(64, "0123456789abcdef")
    assert found_by(bigcode_rules.SYSTEM, f"a = '{key}'\nb = '{key}'\n", tmp_path) == [key, key]
    assert found_by(bigcode_rules.SYSTEM, f"a = '{key}'\nhash = 1\n", tmp_path) == []  # the file speaks of hashes: all its keys stay
    code = "x = 1\n" * 120
    assert found_by(bigcode_rules.SYSTEM, f"{code}md5 = '{digest}'\n", tmp_path) == []
    assert found_by(bigcode_rules.SYSTEM, f"{code}a = '{digest}'\n", tmp_path) == [digest]


def test_detect_secrets_is_taken_at_its_word(tmp_path: Path):
    token, body = "gh" + "p_" + letters(36), letters(64)
    stock = detect_secrets_peer.system()
    assert found_by(stock, f"a = {token}\n", tmp_path) == [token[:3]]
    assert found_by(stock, f"-----BEGIN RSA PRIVATE {'KEY'}-----\n{body}\n", tmp_path) == ["BEGIN RSA PRIVATE " + "KEY"]


def test_settings_do_not_leak_from_one_system_to_the_next(tmp_path: Path):
    text = f"password = '{letters(8)}'\n"  # only the keyword plugin, which BigCode left out, sees it
    stock = detect_secrets_peer.system()
    counts = [len(found_by(system, text, tmp_path)) for system in (stock, bigcode_rules.SYSTEM, stock)]
    assert counts == [1, 0, 1]


def test_masking_by_spans():
    text = "a=XX b=XXY c=XX"
    findings = merged([*everywhere(text, "XX", "key", ""), *everywhere(text, "XXY", "key", "")])
    assert replaced(text, findings, "<{}_{}>".format) == ("a=<key_1> b=<key_2> c=<key_1>", 3)
    assert covered(text, "XX", findings) == 1 and covered(text, "b=XXY", findings) == 0.6 and covered(text, "no", findings) == 0


def test_chunks_hold_every_text_once():
    texts = [letters(size) for size in (10, 150_000, 60_000, 60_000, 1)]
    made = list(scrub_scaling.chunks(texts))
    assert [text for chunk in made for text in chunk] == texts and len(made) == 4


def test_a_row_keeps_its_name_and_nothing_of_its_folder(tmp_path: Path):
    named = [("a/.env", ".env"), ("../../x.py", "x.py"), ("", "row.txt"), ("/", "row.txt"), ("..", "row.txt"), ("\ud800\0" * 99, "?" * 60)]
    for number, (path, name) in enumerate(named):
        case = placed("x", path, tmp_path / str(number))
        assert case == Case("x", tmp_path / str(number) / name) and case.file.read_text() == "x"


def test_ours_needs_no_file(tmp_path: Path):
    assert scrub_bench.OURS.mask(Case("x = 1\n", tmp_path / "none.py")) == ("x = 1\n", 0)
