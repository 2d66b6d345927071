"""Pairs from a model's own mistakes: all of them counted, the same twice, and the same after a kill."""

import json
import multiprocessing
import os
import signal

import pytest

from core.errors import CheckFailed, InputError
from core.records import PAIR_KEYS, SAMPLE, read_parquet, write_parquet
from phase2_train import generate, pairs
from phase2_train.base import load
from phase2_train.machine import machine
from phase2_train.model_folder import save_adapter
from phase2_train.params import SftParams
from phase2_train.raw_samples import RawSamples
from phase2_train.sft import lora_config

from .conftest import FILTER, LORA, PAIRS

SFT = SftParams(
    bits=16, engine="trl", lora=LORA, lr=0.01, warmup_share=0.1, epochs=1, max_steps=6, batch=4, accumulate=1, eval_rows=8, eval_steps=3,
    patience=0, save_steps=100, filter=FILTER, max_row_tokens=512, seed=5,
)  # fmt: skip


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, base):
    from peft import get_peft_model

    from core.manifest import sha256_of

    folder = tmp_path_factory.mktemp("adapter")
    save_adapter(get_peft_model(load(base, 16, machine()), lora_config(LORA)), folder, sha256_of(base))
    return folder


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, base, samples, adapter):
    out = tmp_path_factory.mktemp("unbroken") / "pairs"
    return out, pairs.run(samples, base, adapter, out, PAIRS, SFT)


def rows_of(out):
    return [json.loads(line) for line in (out / "pairs.jsonl").read_text().splitlines()]


def test_pairs_report_and_manifest_agree(unbroken):
    out, kinds = unbroken
    rows, report, counts = (
        rows_of(out),
        json.loads((out / "report.json").read_text()),
        json.loads((out / "manifest.json").read_text())["counts"],
    )
    assert len(rows) == sum(kinds.values()) == report["pairs"] == counts["pairs"] > 0
    for row in rows:
        assert set(PAIR_KEYS) <= row.keys() and row["origin"] == "sample" and row["chosen"].strip() != row["rejected"].strip()
        assert row["evidence"]["how"] in ("sampled", "continued") and row["kind"] in kinds
        if row["kind"] == "overrun" and row["evidence"]["how"] == "continued":
            assert row["rejected"].startswith(row["chosen"])
    assert {kind: of["pairs"] for kind, of in report["kinds"].items()} == kinds
    assert {name: count for name, count in counts.items() if name.startswith("dropped_")} == {
        f"dropped_{reason}": count for reason, count in report["dropped"].items()
    }
    written = sum(of["pairs"] for of in report["kinds"].values()) + sum(report["dropped"].values())
    assert written >= PAIRS.prompts * PAIRS.samples, "every completion is a pair or has a reason"
    assert not (out / "checkpoints" / "samples.jsonl").exists()


def test_prompts_follow_the_share_and_end_somewhere(samples, tmp_path):
    chosen = pairs.choose_prompts(samples / "train.parquet", 12, 0.75)
    assert [row["order"] for row in chosen].count("spm") == 9
    only = [row for row in read_parquet(samples / "train.parquet", "") if row["order"] == "psm"]
    write_parquet(tmp_path / "psm.parquet", only, SAMPLE)
    assert len(pairs.choose_prompts(tmp_path / "psm.parquet", 6, 0.75)) == 6, "what is missing of one order is taken from the other"
    write_parquet(tmp_path / "open.parquet", [{**row, "suffix": " \n"} for row in only], SAMPLE)
    with pytest.raises(InputError, match="no holes with text behind them"):
        pairs.choose_prompts(tmp_path / "open.parquet", 6, 0.75)


def _killed_at(batch: int, how: int, samples, base, adapter, out):
    add, done = RawSamples.add, [0]

    def add_and_die(self, lines):
        add(self, lines)
        done[0] += 1
        if done[0] == batch:
            with self.file.open("ab") as sink:
                sink.write(b'{"sample_id": "1-0007", "wri')  # a torn line
            os.kill(os.getpid(), how)

    RawSamples.add = add_and_die
    pairs.run(samples, base, adapter, out, PAIRS, SFT)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_goes_on_to_the_same_bytes(how, unbroken, samples, base, adapter, tmp_path):
    out = tmp_path / "pairs"
    process = multiprocessing.get_context("spawn").Process(target=_killed_at, args=(2, how, samples, base, adapter, out))
    process.start()
    process.join(120)
    assert process.exitcode not in (0, None)
    file = out / "checkpoints" / "samples.jsonl"
    before = file.read_bytes()
    with pytest.raises(InputError, match=r"pairs.temperature was 1.0 and is 0.5.*--fresh"):
        pairs.run(samples, base, adapter, out, PAIRS.model_copy(update={"temperature": 0.5}), SFT)
    assert file.read_bytes() == before, "nothing is lost by asking for something else"
    asked = []
    write = generate.write
    try:
        generate.write = lambda *args: asked.append(args[-1]) or write(*args)
        pairs.run(samples, base, adapter, out, PAIRS, SFT)
    finally:
        generate.write = write
    assert asked == [2], "the first two batches are not written again"
    for name in ("pairs.jsonl", "report.json", "manifest.json"):
        assert (out / name).read_bytes() == (unbroken[0] / name).read_bytes()


def test_the_raw_file_is_cut_at_whole_batches(tmp_path):
    run, plan = {"seed": 1}, [["a", "b"], ["c"]]
    raw = RawSamples(tmp_path, run, plan, fresh=False)
    raw.add([{"sample_id": "a"}, {"sample_id": "b"}])
    whole = raw.file.read_bytes()
    for torn in (b"", b'{"sample_id": "c"', b"\xff\xfe"):
        raw.file.write_bytes(whole + torn)
        assert RawSamples(tmp_path, run, plan, fresh=False).done == 1 and raw.file.read_bytes() == whole
    raw.file.write_bytes(whole[: whole.rindex(b"{")])
    assert RawSamples(tmp_path, run, plan, fresh=False).done == 0, "half a batch is no batch"
    raw.file.write_bytes(b'{"run": {"se')
    assert RawSamples(tmp_path, run, plan, fresh=False).done == 0
    for damage, words in (
        (b"[]\n", "not a line of ours"),
        (b"{}\n", "does not say which run"),
        (whole.replace(b'"a"', b'"z"'), "other prompts"),
    ):
        raw.file.write_bytes(damage)
        with pytest.raises(InputError, match=words):
            RawSamples(tmp_path, run, plan, fresh=False)
        assert RawSamples(tmp_path, run, plan, fresh=True).done == 0


def test_pairs_from_an_editor_come_along(unbroken, samples, base, adapter, tmp_path):
    row = {"prefix": "a = ", "suffix": "\n", "chosen": "total(b)", "rejected": "total(c)", "path": "x.py", "repo": "r"}
    (tmp_path / "editor.jsonl").write_text(json.dumps(row) + "\n{broken\n")
    kinds = pairs.run(samples, base, adapter, tmp_path / "out", PAIRS, SFT, tmp_path / "editor.jsonl")
    rows = rows_of(tmp_path / "out")
    assert kinds["user_reject"] == 1 and rows[:-1] == rows_of(unbroken[0]) and rows[-1]["origin"] == "editor"
    assert json.loads((tmp_path / "out" / "report.json").read_text())["dropped"]["editor_not_json"] == 1


def test_no_pair_at_all_is_a_failed_check(samples, base, adapter, tmp_path):
    with pytest.raises(CheckFailed, match="made a pair"):
        pairs.run(samples, base, adapter, tmp_path / "out", PAIRS.model_copy(update={"kinds": {}, "prompts": 2}), SFT)
    assert not (tmp_path / "out" / "pairs.jsonl").exists()
