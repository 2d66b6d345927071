"""Completions: the same from every engine, none asked for twice, and every failure one clear line."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from typer.testing import CliRunner

from core.errors import AccessError, InputError, MachineError
from core.fim import Chunk, Hole
from core.records import write_json
from eval import backends, generate, llama_server, server_model
from eval.cli import app
from eval.prompts import digest, prompt_of, prompts_of
from eval.server_model import Address
from eval.words import Written, words_of_folder, words_of_gguf, written
from tests.eval.conftest import ROOT, sample_rows

LIMIT = 8


@pytest.fixture(scope="module")
def holes():
    rows = [*sample_rows(12, "test_file", 5), *sample_rows(10, "test_repo", 6)]
    chunks = [[Chunk(one["path"], one["text"]) for one in row["context"]] for row in rows]
    return [
        Hole(row["prefix"], row["suffix"], row["middle"], row["path"], row["repo"], context)
        for row, context in zip(rows, chunks, strict=True)
    ]


@pytest.fixture(scope="module")
def words(base):
    return words_of_folder(base)


@pytest.fixture(scope="module")
def from_hf(base, holes):
    return dict(generate.answers(generate.ask(f"hf:{base}", holes, LIMIT, "spm"), "hf"))


@pytest.fixture(scope="module")
def url(gguf, tmp_path_factory):
    """A llama-server on loopback, as somebody else would have started it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("server") / "log").open("wb")
    flags = ["--host", "127.0.0.1", "--port", str(port), *llama_server.flags(3, 512, 1)]
    process = subprocess.Popen([str(llama_server.find_binary()), "--model", str(gguf), *flags], stdout=log, stderr=log)
    address = Address(f"http://127.0.0.1:{port}")
    llama_server._until_ready(process, address, log)
    yield address.url
    process.terminate()
    process.wait()


# --- prompts


def test_prompts_are_the_same_whoever_holds_the_vocabulary(holes, words, gguf, url):
    address = Address(url)
    theirs = [words_of_gguf(gguf), server_model.words_of_server(address, server_model.look(address))]
    hard = [*holes, Hole("x = '<|endoftext|> é\t  \r\n   ", "漢字 🙂\n\n\n", "", "a b.py", "r", [Chunk("ü.py", "1234567")])]
    for order in ("spm", "psm"):
        ours = prompts_of(hard, order, words, LIMIT)
        for other in theirs:
            assert digest(prompts_of(hard, order, other, LIMIT)) == digest(ours)
            assert other.stops == words.stops and other.codec.tokens == words.codec.tokens
            assert other.decode(ours[-1].ids[2:9]) == words.decode(ours[-1].ids[2:9])
    assert theirs[0].context == words.context == 512


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 900), st.integers(0, 900), st.integers(0, 3), st.sampled_from(["spm", "psm"]), st.integers(1, 300))
def test_what_is_too_long_is_cut_where_it_matters_least(words, before, after, chunks, order, limit):
    prefix, suffix = "".join(f"a{n} = {n}\n" for n in range(before)) + "x = ", "".join(f"\nb{n} = {n}" for n in range(after))
    hole = Hole(prefix, suffix, "1", "a.py", "r", [Chunk(f"{n}.py", "value\n" * 20) for n in range(chunks)])
    found = prompt_of(hole, order, words, limit)
    assert len(found.ids) + limit <= words.context
    assert prefix.endswith(found.hole.prefix) and suffix.startswith(found.hole.suffix)
    assert list(found.hole.context) == list(hole.context)[: len(found.hole.context)]
    shorter = [name for name in ("prefix", "suffix", "context") if getattr(found.hole, name) != getattr(hole, name)]
    assert list(found.cut) == shorter and (found.cut in ((), ("context",)) or len(found.ids) + limit > words.context * 0.6)
    assert found.hole.prefix.endswith("x = ")


def test_no_room_is_one_line(words, holes):
    with pytest.raises(InputError, match="lower --limit"):
        prompt_of(holes[0], "spm", words, words.context)
    with pytest.raises(InputError, match="--limit"):
        generate.ask("hf:x", holes, 0, "spm")


def test_a_completion_ends_at_the_first_stop_whatever_the_engine_does(words):
    end, pad = words.codec.tokens.end, words.codec.tokens.pad
    assert written([70, 71, end, 72], words) == Written(words.decode([70, 71]), 2, "end")
    assert written([70, pad], words).stop == "marker" and written([70, 71], words).stop == "limit"
    assert written([70, 71], words, ended=True) == Written(words.decode([70]), 1, "marker")  # a stop of the engine's own
    assert written([end], words) == Written("", 0, "end") and written([], words, ended=True).n_tokens == 0


# --- engines


def test_every_engine_writes_the_same(from_hf, holes, gguf, url):
    assert len({one.stop for one in from_hf.values()}) > 1
    for model in (f"gguf:{gguf}", f"server:{gguf}", f"server:{url}"):
        assert dict(generate.complete(model, holes, LIMIT)) == {at: one.text for at, one in from_hf.items()}, model


def test_servers_share_the_rows(from_hf, holes, gguf, words):
    prompts = prompts_of(holes, "spm", words, LIMIT)
    with llama_server.fleet(gguf, 3, 512, 2, 2) as addresses:
        kind = server_model.look(addresses[0])
        assert (len(addresses), kind.slots) == (2, 2)
        assert dict(server_model.ask_llama(addresses, kind, words, prompts, LIMIT)) == from_hf


def test_the_bench_counts_the_same_work_for_both(gguf, samples, tmp_path):
    options = ["--gguf", str(gguf), "--samples", str(samples), "--rows", "6", "--slots", "2", "--threads", "1", "--rounds", "1"]
    done = CliRunner().invoke(app, ["server-bench", *options, "--limit", "4", "--json", str(tmp_path / "bench.json")])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["rows"] == 6 and found["ours"][0]["tokens"] == found["read"] + found["written"] and found["ratio"] > 0
    assert found["peer"][0]["tokens"] == pytest.approx(found["ours"][0]["tokens"], rel=0.05)


def test_a_draft_of_the_truth_changes_nothing(from_hf, base, holes):
    blind = [Hole(one.prefix, one.suffix, "", one.path, one.repo, one.context) for one in holes]
    told = [Hole(one.prefix, one.suffix, from_hf[at].text, one.path, one.repo, one.context) for at, one in enumerate(holes)]
    for others in (blind, told):
        assert dict(generate.answers(generate.ask(f"hf:{base}", others, LIMIT, "spm"), "hf")) == from_hf


def test_a_server_that_composes_itself_gets_text(gguf, tmp_path, holes):
    """The gateway of phase 4: OpenAI's completions, prompt and suffix."""
    command = [sys.executable, "-m", "phase4_serve", "up", "--model", str(gguf), "--port", "0", "--socket", str(tmp_path / "l.sock")]
    log = tmp_path / "log"
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        while " ready after " not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        url = "http" + log.read_text().split(" on http")[1].split()[0]
        asked = generate.ask(f"server:{url}/v1", holes[:4], LIMIT, "spm")
        found = dict(generate.answers(asked, "gateway", tmp_path / "rows.jsonl"))
        assert sorted(found) == [0, 1, 2, 3] and asked.stops == ["the server's own"]
        assert dict(generate.answers(asked, "gateway", tmp_path / "rows.jsonl")) == found
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


# --- resume


class Counted:
    """A backend that says how many prompts it was asked for, and may be killed."""

    def __init__(self, inner, dies_after=None):
        self.inner, self.asked, self.dies_after = inner, 0, dies_after

    def answer(self, prompts, limit):
        for number, one in enumerate(self.inner.answer(prompts, limit)):
            if number == self.dies_after:
                raise KeyboardInterrupt
            self.asked += 1
            yield one

    def __getattr__(self, name):
        return getattr(self.inner, name)


def test_a_stopped_run_goes_on_row_by_row(base, holes, from_hf, tmp_path):
    out = tmp_path / "deep" / "rows.jsonl"
    asked = generate.ask(f"hf:{base}", holes, LIMIT, "spm")
    first = Counted(asked.backend, dies_after=5)
    with pytest.raises(KeyboardInterrupt):
        dict(generate.answers(asked._replace(backend=first), "hf", out))
    with out.open("ab") as sink:
        sink.write('{"key": "torn", "completion": "é'.encode()[:-1])
    second = Counted(asked.backend)
    assert dict(generate.answers(asked._replace(backend=second), "hf", out)) == from_hf
    assert (first.asked, second.asked) == (5, len({one.key for one in asked.prompts}) - 5)
    before = out.read_bytes()
    third = Counted(asked.backend, dies_after=0)  # whoever asks fails
    assert dict(generate.answers(asked._replace(backend=third), "hf", out)) == from_hf and out.read_bytes() == before
    fewer = generate.ask(f"hf:{base}", holes[3:9], LIMIT, "spm")._replace(backend=third)
    assert dict(generate.answers(fewer, "hf", out)) == {at: from_hf[at + 3] for at in range(6)}
    assert all(json.loads(line) for line in before.splitlines())


def test_another_config_starts_over_and_says_what_changed(base, holes, tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    dict(generate.complete(f"hf:{base}", holes[:3], 4, "spm", out))
    assert len(out.read_text().splitlines()) == 4
    dict(generate.complete(f"hf:{base}", holes[:2], 5, "psm", out))
    assert f"{out}: limit, order changed; starting over" in capsys.readouterr().err and len(out.read_text().splitlines()) == 3
    out.write_text("my notes\n")
    with pytest.raises(InputError, match="no completions of ours"):
        dict(generate.complete(f"hf:{base}", holes[:2], 5, "psm", out))
    assert out.read_text() == "my notes\n"
    out.write_text("")  # a kill between opening and writing
    assert len(dict(generate.complete(f"hf:{base}", holes[:2], 5, "psm", out))) == 2


def test_a_secret_is_kept_masked_and_asked_for_again(base, holes, tmp_path):
    key = "gh" + "p_" + "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"
    out = tmp_path / "rows.jsonl"

    class Leaky(Counted):
        def answer(self, prompts, limit):
            for at in range(len(prompts)):
                self.asked += 1
                yield at, Written(f'token = "{key}"\n' if at == 0 else "x", 1, "end")

    asked = generate.ask(f"hf:{base}", holes[:3], LIMIT, "spm")
    first, second = Leaky(asked.backend), Leaky(asked.backend)
    assert key in dict(generate.answers(asked._replace(backend=first), "hf", out))[0].text
    assert key not in out.read_text() and json.loads(out.read_text().splitlines()[1])["leaks"]
    assert key in dict(generate.answers(asked._replace(backend=second), "hf", out))[0].text
    assert (first.asked, second.asked) == (3, 1)


# --- what goes wrong


@pytest.mark.parametrize(
    ("model", "error", "says"),
    [
        ("base", InputError, "hf:FOLDER, gguf:FILE"), ("hf:", InputError, "hf:FOLDER"),
        ("gguf:gone.gguf", InputError, "gone.gguf is missing"),
        ("hf:gone", InputError, "gone is no folder"), ("server:gone.gguf", InputError, "gone.gguf is missing"),
        ("server:http://127.0.0.1:9", AccessError, "does not answer"),
    ],
)  # fmt: skip
def test_a_model_that_is_not_there_is_one_line(model, error, says, holes):
    with pytest.raises(error, match=says):
        generate.ask(model, holes, LIMIT, "spm")


def test_a_tokenizer_without_markers_and_a_torn_model(base, gguf, tmp_path, holes):
    folder = Path(shutil.copytree(base, tmp_path / "plain"))
    Tokenizer(models.BPE({"a": 0}, [])).save(str(folder / "tokenizer.json"))
    with pytest.raises(InputError, match=r"tokenizer.json: the tokenizer has no <\|endoftext\|>"):
        generate.ask(f"hf:{folder}", holes, LIMIT, "spm")
    (tmp_path / "torn.gguf").write_bytes(gguf.read_bytes()[:3000])
    for form in ("gguf", "server"):
        with pytest.raises(InputError, match=r"llama\.cpp cannot load"):
            generate.ask(f"{form}:{tmp_path / 'torn.gguf'}", holes, LIMIT, "spm")
    write_json(tmp_path / "no" / "config.json", {})
    with pytest.raises(InputError, match=r"no \*\.safetensors"):
        backends.find(f"hf:{tmp_path / 'no'}")


def test_a_prompt_longer_than_a_slot_is_one_line(gguf, words, holes):
    long = prompts_of([Hole("a = 1\n" * 80, "")], "spm", words, LIMIT)
    with pytest.raises(InputError, match="--ctx-size"), llama_server.served(gguf, 1, 256, 1) as address:
        list(server_model.ask_llama([address], server_model.look(address), words, long, LIMIT))


def test_a_server_that_dies_is_one_line_and_leaves_nothing(gguf, words, holes, monkeypatch):
    prompts, pids = prompts_of(holes, "spm", words, LIMIT), []
    start = subprocess.Popen

    def kept(*args, **options):
        pids.append(start(*args, **options))
        return pids[-1]

    monkeypatch.setattr(llama_server.subprocess, "Popen", kept)

    def ask_and_kill():
        with llama_server.served(gguf, 2, 512, 1) as address:
            kind = server_model.look(address)
            os.kill(pids[0].pid, signal.SIGKILL)
            list(server_model.ask_llama([address], kind, words, prompts, LIMIT))

    with pytest.raises(MachineError, match=r"llama-server ended while it was asked \(SIGKILL\)"):
        ask_and_kill()
    monkeypatch.setenv("LLAMA_SERVER", "/bin/false")
    with pytest.raises(MachineError, match="llama-server ended at its start"), llama_server.served(gguf, 2, 512, 1):
        pass
    assert all(process.poll() is not None for process in pids)
    monkeypatch.setenv("LLAMA_SERVER", "/gone")
    with pytest.raises(MachineError, match="/gone"), llama_server.served(gguf, 2, 512, 1):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal")
@pytest.mark.parametrize("ends", [signal.SIGKILL, signal.SIGTERM])
def test_our_server_ends_with_us_however_we_end(gguf, tmp_path, ends):
    program = f"""
import os, subprocess, sys
from pathlib import Path
from eval import llama_server
start = subprocess.Popen
def kept(*args, **options):
    process = start(*args, **options)
    print(process.pid, flush=True)
    return process
llama_server.subprocess.Popen = kept
with llama_server.served(Path({str(gguf)!r}), 2, 512, 1):
    os.kill(os.getpid(), {int(ends)})
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0, done.stderr
    assert ends == signal.SIGKILL or not list(tmp_path.iterdir())  # the folder of the socket too
    pid, deadline = int(done.stdout), time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.02)
