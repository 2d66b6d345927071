"""Promises of scrub-jsonl: the same rows in the same order, everything but the masked text as it was, and a name for all that is wrong."""

from __future__ import annotations

import contextlib
import functools
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from core.scrub import find, mask
from phase1_data.cli import app
from phase1_data.jsonl import BadLine, Line
from phase1_data.scrub_jsonl import Job, run, scrub_batch
from phase1_data.scrub_row import members, scrub

ROOT = Path(__file__).parents[2]
TOKEN = "gh" + "p_" + "aB3dE5gH7jK9mN1pQ3sT5vX7zA9bC1dE3fG5"
MAIL = "maria.lind" + "@" + "acme-corp.se"


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "phase1_data", "scrub-jsonl", *map(str, args)]


def cli(*args: object, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command(*args), cwd=ROOT, env=os.environ | environment, input=stdin, capture_output=True, timeout=120, check=False
    )


def scrubbed(tmp_path: Path, data: bytes, **changed: object) -> list[dict]:
    (tmp_path / "in.jsonl").write_bytes(data)
    run(str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"), Job(**changed))  # type: ignore[arg-type]
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]


def test_rows_come_out_as_they_went_in_with_the_text_masked(tmp_path):
    rows = [{"id": number, "text": f"row {number}", "path": "yarn.lock"} for number in range(5)]
    rows[1]["text"] = f"token = '{TOKEN}'\nmail {MAIL}"
    rows[3]["text"] = f"{TOKEN} again, and {TOKEN}"
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = cli("--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl")
    assert done.returncode == 0, done.stderr
    out = [json.loads(line) for line in (tmp_path / "out.jsonl").open()]
    assert [(row["id"], row["path"], list(row)) for row in out] == [
        (n, "yarn.lock", ["id", "text", "path", "redactions"]) for n in range(5)
    ]
    assert [row["text"] for row in out] == [mask(row["text"])[0] for row in rows]
    assert [row["redactions"] for row in out] == [[found._asdict() for found in mask(row["text"])[1]] for row in rows]
    assert {entry["kind"] for entry in out[1]["redactions"]} == {"secret", "email"}
    assert TOKEN not in str(out) and MAIL not in str(out)
    shown = (done.stdout + done.stderr).decode()
    assert "5 rows, 2 masked: email 1, secret" in shown and "residual 0" in shown and "MB/s" in shown
    assert TOKEN not in shown and MAIL not in shown


@pytest.mark.parametrize(
    ("row", "after"),
    [
        (f'{{"b":1,"text":"{MAIL}","a":2}}', '{"b":1,"text":"user1@example.com","a":2, "redactions": %s}'),
        (f'  {{ "text" : "{MAIL}" , "n" : 1e400 }}\t', '  { "text" : "user1@example.com" , "n" : 1e400, "redactions": %s }\t'),
        (f'{{"n": {"9" * 5000}, "f": 0.10, "e": 1E+2, "text": "{MAIL}"}}', None),
        (f'{{"n": [NaN, -Infinity, -0], "u": "\\u00e9\\/", "text": "{MAIL}"}}', None),
        (f'{{"same": 1, "same": 2, "text": "{MAIL}"}}', None),
        (f'{{"deep": {"[" * 500}{"]" * 500}, "text": "{MAIL}"}}', None),
        (f'{{"lone": "\\ud800", "te\\u0078t": "{MAIL}"}}', None),
        (f'{{"mail": "{MAIL}", "text": "{MAIL}"}}', f'{{"mail": "{MAIL}", "text": "user1@example.com", "redactions": %s}}'),
        ('{"text": "nothing\\/\\u00e9 here"}', '{"text": "nothing\\/\\u00e9 here", "redactions": []}'),
        ('{"text": null}', '{"text": null, "redactions": []}'),
        ('{"text": ""}', '{"text": "", "redactions": []}'),
    ],
)
def test_everything_but_the_text_keeps_its_bytes(row, after):
    out = scrub(Line(1, row.encode(), 0, True), "text", "redactions")
    spans = json.dumps([found._asdict() for found in out.redactions])
    last = row.rstrip().rfind("}")
    want = after or row[:last].rstrip().replace(MAIL, "user1@example.com") + ', "redactions": %s' + row[last:]
    assert out.data.decode() == want.replace("%s", spans)


def test_letters_of_every_kind_survive_and_offsets_count_characters(tmp_path):
    texts = [f"é日😀\u2028\x85\x00 {MAIL} \ud800", f"\\ud83d\\ude00 {TOKEN}", f"{MAIL}\udfff"]
    data = "\n".join(json.dumps({"text": text}) for text in texts[:2]) + "\n" + json.dumps({"text": texts[2]})
    data += "\n" + json.dumps({"text": f"é日😀\u2028 {MAIL}", "ö": 1}, ensure_ascii=False)
    rows = scrubbed(tmp_path, data.encode())
    assert rows[0]["text"] == "é日😀\u2028\x85\x00 user1@example.com \ud800" and rows[2]["text"] == "user1@example.com\udfff"
    assert rows[3]["text"].startswith("é日😀\u2028 user1") and rows[3]["ö"] == 1
    for row in rows:
        for entry in row["redactions"]:
            assert row["text"][entry["start"] : entry["end"]].strip("<>").startswith(("user1@", "SECRET"))


PLAIN = json.dumps({"id": "ö", "text": f"Größe {MAIL} café"}, ensure_ascii=False) + "\n"


@pytest.mark.parametrize(
    ("data", "western"),
    [
        (PLAIN.encode(), 0),
        (b"\xef\xbb\xbf" + PLAIN.encode(), 0),
        (PLAIN.encode("latin-1"), 1),
        (PLAIN.encode("utf-16"), 0),
        (PLAIN.encode("utf-16-be"), 0),
        (b"\xfe\xff" + PLAIN.encode("utf-16-be"), 0),
        (PLAIN.encode("utf-16-le"), 0),
        (PLAIN.encode("utf-32"), 0),
        (PLAIN.encode("utf-32-le"), 0),
        (PLAIN.replace("\n", "\r\n").encode(), 0),
        (("\n\n \n" + PLAIN + "\t\n").encode(), 0),
        (PLAIN.rstrip().encode(), 0),
        (gzip.compress(PLAIN.encode(), mtime=0), 0),
        (gzip.compress(PLAIN[:9].encode(), mtime=0) + gzip.compress(PLAIN[9:].encode("utf-8"), mtime=0), 0),
        (gzip.compress(PLAIN.encode("utf-16"), mtime=0), 0),
    ],
)
def test_the_result_does_not_depend_on_encoding_or_packing(tmp_path, data, western):
    (row,) = scrubbed(tmp_path, data)
    assert (row["id"], row["text"]) == ("ö", "Größe user1@example.com café")
    summary = run(str(tmp_path / "in.jsonl"), str(tmp_path / "again.jsonl"), Job())
    assert ("read as Windows-1252" in summary) is bool(western)
    assert ("blank lines" in summary) is (b" \n" in data)


def test_a_character_that_is_cut_costs_no_other(tmp_path):
    (row,) = scrubbed(tmp_path, f'{{"text": "Größe {MAIL} caf'.encode() + b'\xc3"}\n')
    assert row["text"] == "Größe user1@example.com caf\ufffd"
    assert "1 lines were damaged UTF-8" in run(str(tmp_path / "in.jsonl"), str(tmp_path / "again.jsonl"), Job())


def test_lone_surrogates_of_utf16_and_of_careless_utf8_become_escapes(tmp_path):
    wide = '{"text": "a\ud800 b", "k": "\udfff"}\n'.encode("utf-16", "surrogatepass")
    assert scrubbed(tmp_path, wide)[0] == {"text": "a\ud800 b", "k": "\udfff", "redactions": []}
    (row,) = scrubbed(tmp_path, f'{{"text": "\ud83d\ude00 {MAIL}"}}'.encode("utf-8", "surrogatepass"))
    assert row["text"] == "😀 user1@example.com" and row["redactions"][0]["start"] == 2


BAD = [
    (b'{"text": "x"', "torn_line", "breaks off"),
    (b'{"text": "x"\n', "bad_json", "not JSON (Expecting ',' delimiter (character 13 of 12))"),
    (b'{"text": "x", }\n', "bad_json", "property name"),
    (b'{"text": "x"} {"text": "y"}\n', "bad_json", "Extra data"),
    (b'{"text": "a\tb"}\n', "bad_json", "Invalid control character"),
    (b"{'text': 'x'}\n", "bad_json", "property name"),
    (b'{"text" "x"}\n', "bad_json", "':' delimiter"),
    (b'{"text": }\n', "bad_json", "Expecting value"),
    (b"\0\0\0\0\0\n", "bad_json", "NUL bytes"),
    (b"maria\n", "bad_json", "Expecting value"),
    (b'[{"text": "x"}]\n', "not_object", "not a JSON object (list)"),
    (b'"text"\n', "not_object", "not a JSON object (str)"),
    (b"{}\n", "no_text", "'text': no such key (it has no keys)"),
    (b'{"body": "x", "maria.lind@acme-corp.se": 1}\n', "no_text", "(it has 'body', 'user1@example.com'): name the key"),
    (b'{"text": 5}\n', "text_not_string", "'text': neither a string nor null (a number)"),
    (b'{"text": {"a": "x"}}\n', "text_not_string", "(an object)"),
    (b'{"text": NaN}\n', "text_not_string", "(a number)"),
    (b'{"text": "a", "text": "b"}\n', "duplicate_key", "stands twice"),
    (b'{"text": "a", "redactions": 5}\n', "redactions_taken", "name another with --redactions-key"),
    (b'{"text": "a", "b": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "bad_json", "nested too deeply"),
]


@pytest.mark.parametrize(("line", "reason", "says"), BAD, ids=[f"{number}-{reason}" for number, (_, reason, _) in enumerate(BAD)])
def test_a_bad_line_is_an_error_that_names_it_or_is_skipped_with_a_note(tmp_path, line, reason, says):
    good = json.dumps({"text": f"mail {MAIL}"}).encode() + b"\n"
    (tmp_path / "in.jsonl").write_bytes(good + b"\n" + line)
    with pytest.raises(Exception, match=r"in\.jsonl:3") as failure:
        run(str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"), Job())
    assert says in str(failure.value) and failure.value.exit_code == 2 and "maria" not in str(failure.value)  # type: ignore[attr-defined]
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    summary = run(str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"), Job(skip=True))
    assert f"1 bad lines left out ({reason} 1)" in summary
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1
    noted = (tmp_path / "out.jsonl.rejects.jsonl").read_text()
    assert json.loads(noted).items() >= {"line": 3, "reason": reason}.items() and "maria" not in noted


def test_a_row_that_is_too_long_is_named_and_never_held(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(b'{"text": "a"}\n{"text": "' + b"a" * 3_000_000 + b'"}\n{"text": "b"}')
    done = cli("--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl", "--max-row-mb", 1)
    assert done.returncode == 2 and b"in.jsonl:2: longer than --max-row-mb (3000013)" in done.stderr
    done = cli("--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl", "--max-row-mb", 1, "--on-error", "skip")
    assert done.returncode == 0 and len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


def test_a_long_line_takes_time_in_proportion_to_its_length(tmp_path):
    (tmp_path / "in.jsonl").write_text(json.dumps({"text": f"{MAIL} x = compute(a, b); " * 60_000}))
    started = time.monotonic()
    run(str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"), Job())
    assert time.monotonic() - started < 30  # 2.6 MB in one line


@pytest.mark.parametrize(
    ("data", "name", "args", "says"),
    [
        (None, "in.jsonl", [], "in.jsonl is missing"),
        (b'{"text": "a"}\n', ".", [], "is a folder"),
        (b'{"text": "a"}\n', "in.jsonl", ["--output", "in.jsonl"], "is the input"),
        (b'{"text": "a"}\n', "in.jsonl", ["--output", "link.jsonl"], "is the input"),
        (b'{"text": "a"}\n', "in.jsonl", ["--output", "hard.jsonl"], "is the input"),
        (b'{"text": "a"}\n', "x.jsonl.partial", ["--output", "x.jsonl"], "is the input"),
        (b'{"text": "a"}\n', "in.jsonl", ["--on-error", "skip", "--rejects", "in.jsonl"], "is the input"),
        (b'{"text": "a"}\n', "in.jsonl", ["--on-error", "skip", "--rejects", "out.jsonl"], "are the same file"),
        (b'{"text": "a"}\n', "in.jsonl", ["--output", "/dev/null"], "no plain file"),
        (b'{"text": "a"}\n', "in.jsonl", ["--output", "-", "--on-error", "skip"], "--rejects"),
        (b'{"text": "a"}\n', "in.jsonl", ["--text-key", "redactions"], "both 'redactions'"),
        (b'{"text": "a"}\n', "in.jsonl", ["--encoding", "klingon"], "is no encoding"),
        (b'{"text": "\xe9"}\n', "in.jsonl", ["--encoding", "utf-8"], "in.jsonl:1: not utf-8"),
        ('{"text": "a"}\n'.encode("utf-16")[:-1], "in.jsonl", [], "in.jsonl after line 0: not utf-16"),
        (gzip.compress(b'{"text": "a"}\n' * 999, mtime=0)[:-10], "in.jsonl", [], "in.jsonl is damaged after line"),
        (gzip.compress(b'{"text": "a"}\n', mtime=0)[:12] + b"\xff" * 20, "in.jsonl", [], "in.jsonl is damaged after line 0"),
        (b"PAR1....", "in.jsonl", [], "is Parquet, not JSONL"),
        (b"\x28\xb5\x2f\xfd....", "in.jsonl", [], "zstd -dc"),
        (b'{"a": 1}\n{"a": 2}\n', "in.jsonl", ["--on-error", "skip"], "no line is a row: no_text 2: check --text-key text"),
    ],
)
def test_a_mistake_is_one_line_with_exit_code_2_and_leaves_everything_as_it_was(tmp_path, monkeypatch, data, name, args, says):
    monkeypatch.chdir(tmp_path)
    if data is not None:
        (tmp_path / ("in.jsonl" if name == "." else name)).write_bytes(data)
        (tmp_path / "link.jsonl").symlink_to("in.jsonl")
        if name == "in.jsonl":
            os.link(tmp_path / "in.jsonl", tmp_path / "hard.jsonl")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    given_out = [] if "--output" in args else ["--output", "out.jsonl"]
    done = CliRunner().invoke(app, ["scrub-jsonl", "--input", name, *args, *given_out])
    assert done.exit_code == 2 and says in done.stderr and done.stderr.count("error:") == 1, done.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_a_finding_that_is_left_fails_the_run_and_is_named_without_its_value(tmp_path, monkeypatch):
    monkeypatch.setattr("phase1_data.scrub_row.mask", lambda text: (text, mask(text)[1]))
    with pytest.raises(Exception, match=r"in\.jsonl:1: a finding is left") as failure:
        scrubbed(tmp_path, json.dumps({"text": f"key = '{TOKEN}'"}).encode())
    assert failure.value.exit_code == 4 and TOKEN not in str(failure.value)  # type: ignore[attr-defined]
    assert not (tmp_path / "out.jsonl").exists()


def test_pipes_and_gzip_go_in_and_out_and_empty_stays_empty(tmp_path):
    data = json.dumps({"message": MAIL}).encode() + b"\n"
    done = cli("--input", "-", "--output", "-", "--text-key", "message", "--redactions-key", "spans", stdin=gzip.compress(data))
    assert done.returncode == 0 and json.loads(done.stdout)["message"] == "user1@example.com" and b"residual 0" in done.stderr
    assert list(json.loads(done.stdout)) == ["message", "spans"]
    (tmp_path / "in.jsonl").write_bytes(data)
    packed = []
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        run(str(tmp_path / "in.jsonl"), str(tmp_path / name), Job(key="message", noted="spans"))
        packed.append((tmp_path / name).read_bytes())
    assert packed[0] == packed[1] and gzip.decompress(packed[0]) == done.stdout
    empty = cli("--input", "-", "--output", "-")
    assert empty.returncode == 0 and empty.stdout == b""


def test_a_reader_that_goes_away_is_no_traceback(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(b'{"text": "%s"}\n' % (b"a b " * 2_000) * 600)
    with subprocess.Popen(
        command("--input", tmp_path / "in.jsonl", "--output", "-"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.readline()
        process.stdout.close()
        shown = process.stderr.read()
        assert process.wait(60) == 75 and b"Traceback" not in shown and b"stdout was closed" in shown


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """5,000 rows, 5 MB: several messages to the workers."""
    file = tmp_path / "many.jsonl"
    with file.open("w") as sink:
        for n in range(5_000):
            mail = f"mail user{n}.{MAIL}" if n % 50 == 0 else ""
            sink.write(json.dumps({"id": n, "text": f"line {n} " + "x = compute(a, b) " * 60 + mail}) + "\n")
    return file


def test_the_number_of_workers_changes_no_byte(tmp_path, many):
    for workers in (1, 3):
        done = cli("--input", many, "--output", tmp_path / f"{workers}.jsonl", "--workers", workers)
        assert done.returncode == 0 and b"5,000 rows, 100 masked: email 100; residual 0" in done.stdout, done.stderr
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "3.jsonl").read_bytes()


def test_the_first_bad_line_is_named_whatever_the_number_of_workers(tmp_path, many):
    lines = many.read_bytes().splitlines()
    lines[1_800] = lines[4_000] = b"{"
    many.write_bytes(b"\n".join(lines))
    done = cli("--input", many, "--output", tmp_path / "out.jsonl", "--workers", 2)
    assert done.returncode == 2 and b"many.jsonl:1801: " in done.stderr and not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 75), (signal.SIGINT, 75)])
def test_a_run_that_is_stopped_leaves_no_output_and_no_worker(tmp_path, many, stop, code):
    fifo = tmp_path / "in.fifo"
    os.mkfifo(fifo)
    whole = command("--input", fifo, "--output", tmp_path / "out.jsonl", "--workers", 2)
    listen = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # in the background of a shell it is ignored
    with subprocess.Popen(whole, cwd=ROOT, stderr=subprocess.PIPE, preexec_fn=listen) as process:
        with fifo.open("wb") as writer:
            writer.write(many.read_bytes())  # all but what stands in the pipe was read, and the end has not come
            writer.flush()
            workers = wait_for(lambda: children_of(process.pid), more_than=1)
            time.sleep(1)
            process.send_signal(stop)
            assert process.wait(30) == code
        assert process.stderr and b"Traceback" not in process.stderr.read()
        assert not (tmp_path / "out.jsonl").exists()
        assert not wait_for(lambda: [pid for pid in workers if "multiprocessing" in command_of(pid)], less_than=1)
    assert stop == signal.SIGKILL or not list(tmp_path.glob("*.partial"))
    assert run(str(many), str(tmp_path / "out.jsonl"), Job()).startswith(str(tmp_path / "out.jsonl"))
    assert not list(tmp_path.glob("*.partial"))


def wait_for(look: Callable[[], list[str]], more_than: int = -1, less_than: int = 1 << 30) -> list[str]:
    """What `look` sees, once there is enough or little enough of it, or after 15 seconds."""
    for _ in range(300):
        if more_than < len(look()) < less_than:
            break
        time.sleep(0.05)
    return look()


def children_of(pid: int) -> list[str]:
    return [entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit() and parent_of(entry) == pid]


def parent_of(process: Path) -> int:
    with contextlib.suppress(OSError):
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    return 0


def command_of(pid: str) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def test_memory_does_not_grow_with_the_input(tmp_path):
    peaks = []
    for copies in (1, 4):
        row = json.dumps({"text": "x = compute(a, b) " * 200}) + "\n"
        (tmp_path / "in.jsonl").write_text(row * 1_000 * copies)
        script = "import sys; from phase1_data.scrub_jsonl import Job, run; run(sys.argv[1], sys.argv[2], Job());"
        # not ru_maxrss, which a child takes over from a large parent
        script += "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
        whole = [sys.executable, "-c", script, str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")]
        peaks.append(int(subprocess.run(whole, cwd=ROOT, capture_output=True, check=True, timeout=120).stdout))
    assert peaks[1] < 1.1 * peaks[0]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
TEXT = st.lists(
    st.text(st.characters(codec=None), max_size=12)
    | st.sampled_from([TOKEN, MAIL, "password = 'hX7!kq92Lz'", "93.184.216.34", "\n", "/home/maria/x"]),
    max_size=6,
).map(" ".join)
ROW = st.dictionaries(st.text(max_size=6).filter(lambda key: key not in ("text", "redactions")), JSON, max_size=4)


@given(before=ROW, text=TEXT, after=ROW, ascii_only=st.booleans())
def test_rows_keep_their_keys_and_offsets_are_right_and_a_second_run_changes_nothing(before, text, after, ascii_only):
    row = before | {"text": text} | {key: value for key, value in after.items() if key not in before}
    line = json.dumps(row, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    out = scrub_batch([Line(1, line, len(line), True)], "text", "redactions")
    assert not out.bad and out.data.count(b"\n") == 1
    done = json.loads(out.data)
    read = json.loads(json.dumps(row))  # two halves of a pair, side by side, are one character in JSON
    assert list(done) == [*read, "redactions"]
    assert {key: done[key] for key in row if key != "text"} == {key: read[key] for key in row if key != "text"}
    assert not find(done["text"])
    at, pieces = 0, []
    for entry in done["redactions"]:
        assert at <= entry["start"] < entry["end"] <= len(done["text"])
        pieces.append(done["text"][at : entry["start"]])
        at = entry["end"]
    rest = read["text"]
    for piece in [*pieces, done["text"][at:]]:  # what stands between the placeholders stood in the text, in this order
        assert piece in rest
        rest = rest[rest.index(piece) + len(piece) :]
    again = scrub_batch([Line(1, out.data.rstrip(b"\n"), len(out.data), True)], "text", "redactions")
    assert again.data == out.data


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_bytes_at_random_are_a_row_or_a_named_bad_line(data):
    with contextlib.suppress(BadLine):
        assert json.loads(scrub(Line(1, data.replace(b"\n", b""), len(data), True), "text", "redactions").data)["redactions"] == []


@given(st.dictionaries(st.text(), JSON))
def test_members_of_an_object_are_found_as_json_finds_them(row):
    line = json.dumps(row)
    assert {member.key: json.loads(line[member.start : member.end]) for member in members(line)} == json.loads(line)
