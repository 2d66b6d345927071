"""Supervised fine-tuning keeps its promises: loss on middles only, the best weights written, noise left out, a NaN ends the run."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from core.errors import CheckFailed, InputError
from core.records import SAMPLE, read_parquet, write_parquet
from phase2_train import loss_filter, sft
from phase2_train.machine import machine
from phase2_train.params import FilterParams, LoraParams, SftParams
from phase2_train.row_loss import Loss, breakdown, mean, row_losses
from phase2_train.rows import TokenRow, load_codec, load_tokenizer, read_rows
from phase2_train.watch import Sight

from .conftest import sample_rows

OFF = FilterParams(top_share=0.0, bottom_share=0.0, max_nats=0.0, rows_per_file=2)
SFT = SftParams(
    bits=16, engine="trl", lora=LoraParams(r=4, alpha=8, dropout=0.0), lr=0.01, warmup_share=0.1, epochs=1, max_steps=4, batch=4,
    accumulate=1, eval_rows=8, eval_steps=2, patience=0, save_steps=0, filter=OFF, max_row_tokens=512, seed=5,
)  # fmt: skip


def changed(**keys) -> SftParams:
    return SFT.model_copy(update=keys)


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Path:
    """Short rows, so that many runs are quick."""
    folder = tmp_path_factory.mktemp("short")
    for name, count, seed in (("train", 24, 1), ("valid", 6, 2)):
        write_parquet(folder / f"{name}.parquet", short(sample_rows(count, seed)), SAMPLE)
    return folder


def short(rows: list[dict]) -> list[dict]:
    return [{**row, "prefix": row["prefix"][-60:], "suffix": row["suffix"][:40]} for row in rows]


@pytest.fixture(scope="module")
def model(base):
    return sft.load_trainable(base, SFT, machine())


def series(out, name: str) -> list[float]:
    lines = (out / f"dvclive/plots/metrics/{name}.tsv").read_text().splitlines()[1:]
    return [float(line.split("\t")[1]) for line in lines]


def test_the_loss_is_that_of_middles_and_end_tokens_only(model, base, samples):
    codec = load_codec(base)
    rows = read_rows(samples / "valid.parquet", codec, 512)
    ours = row_losses(model, rows, codec.tokens, batch=3)
    for row, loss in zip(rows, ours, strict=True):
        ids = torch.tensor([row.ids])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, row.start - 1 : -1]
        assert loss.tokens == len(row.ids) - row.start
        assert loss.nats == pytest.approx(torch.nn.functional.cross_entropy(logits, ids[0, row.start :], reduction="sum").item(), rel=1e-5)


def test_losses_by_order_and_kind_add_up():
    rows = [TokenRow("a", "spm", "node:call", [], 0), TokenRow("b", "psm", "chars", [], 0), TokenRow("c", "ltr", "none", [], 0)]
    parts = breakdown(rows, [Loss(4.0, 2), Loss(3.0, 3), Loss(1.0, 5)], "eval_")
    kinds = {"eval_loss_node": 2.0, "eval_loss_chars": 1.0}
    assert parts == {"eval_loss": 0.8, "eval_loss_spm": 2.0, "eval_loss_psm": 1.0, "eval_loss_ltr": 0.2} | kinds
    assert mean([Loss(4.0, 2), Loss(3.0, 3)]) == pytest.approx(1.4)


def test_two_rows_in_four_passes_are_eight_in_one(base, samples, tmp_path, monkeypatch):
    monkeypatch.setattr(sft, "LOG_STEPS", 1)
    for name, batch, accumulate in (("whole", 8, 1), ("cut", 2, 4)):
        sft.run(samples, base, tmp_path / name, changed(batch=batch, accumulate=accumulate, max_steps=3, eval_steps=3, eval_rows=2))
    whole, cut = (series(tmp_path / name, "loss") for name in ("whole", "cut"))
    assert len(whole) == 3 and cut == pytest.approx(whole, abs=1e-5)
    assert series(tmp_path / "cut", "eval_loss") == pytest.approx(series(tmp_path / "whole", "eval_loss"), abs=1e-5)


def test_a_run_that_gets_worse_stops_early_and_the_best_step_is_written(base, samples, tmp_path, capsys):
    for lr in (3.0, 6.0, 8.0, 16.0):  # too high, each; at which of them the loss falls first and then rises depends on the rows
        out = tmp_path / f"sft-{lr:.0f}"
        metrics = sft.run(samples, base, out, changed(lr=lr, max_steps=12, eval_steps=1, patience=2, eval_rows=4, warmup_share=0))
        losses = series(out, "eval_loss")
        if metrics["steps"] < 12 and metrics["best_step"] > 0:
            break
    assert metrics["steps"] < 12 and len(losses) == metrics["steps"] + 1 == metrics["best_step"] + 3
    assert metrics["best_step"] > 0 and min(losses[-2:]) > min(losses)  # it got worse, and did not just stand still
    assert metrics["valid_loss"] == min(losses) == losses[int(metrics["best_step"])]
    assert f"best at step {metrics['best_step']} of {metrics['steps']}" in capsys.readouterr().out
    codec = load_codec(base)
    written = PeftModel.from_pretrained(sft.base_model.load(base, 16, machine()), out / "adapter")
    judged = sft.read(samples, base, changed(eval_rows=4)).valid
    assert mean(row_losses(written, judged, codec.tokens, 4)) == pytest.approx(metrics["valid_loss"], rel=1e-5)


def test_a_loss_that_is_no_number_ends_the_run_and_names_the_step(base, samples, tmp_path):
    with pytest.raises(CheckFailed, match=r"not a number at step [2-4]; the checkpoint of step 1 is kept: lower sft\.lr"):
        sft.run(samples, base, tmp_path / "sft", changed(lr=1e38, warmup_share=0, save_steps=1))
    assert not (tmp_path / "sft/adapter").exists()


SCORES = {f"f{n:02}": float(n) for n in range(20)}


@pytest.mark.parametrize(
    ("keys", "gone"),
    [
        ({}, {}),
        ({"top_share": 0.1}, {"f18": "loss_in_top_share", "f19": "loss_in_top_share"}),
        ({"bottom_share": 0.05}, {"f00": "loss_in_bottom_share"}),
        ({"top_share": 0.05, "max_nats": 18.0}, {"f18": "loss_above_bound", "f19": "loss_above_bound"}),
        ({"top_share": 0.04}, {}),  # rounded down: less than one file
    ],
)
def test_the_filter_takes_both_tails_and_what_is_above_the_bound(keys, gone):
    assert loss_filter.verdicts(SCORES, OFF.model_copy(update=keys)) == gone


def test_files_left_out_are_counted_by_reason_and_scored_once(base, samples, tmp_path, monkeypatch):
    params = changed(filter=OFF.model_copy(update={"top_share": 0.1, "bottom_share": 0.1}), max_steps=1, eval_steps=1, eval_rows=2)
    sft.run(samples, base, tmp_path / "sft", params)
    rejects = list(read_parquet(tmp_path / "sft/rejects.parquet", "sft"))
    counts = json.loads((tmp_path / "sft/manifest.json").read_text())["counts"]["files_left_out"]
    files = {row["path"] for row in read_parquet(samples / "train.parquet", "samples")}
    assert counts == {"loss_in_bottom_share": int(0.1 * len(files)), "loss_in_top_share": int(0.1 * len(files))}
    assert len(rejects) == sum(counts.values()) and all(row["path"].startswith("core/") and "nats/token" in row["value"] for row in rejects)
    cache = tmp_path / "cache/file_losses.jsonl"
    cache.write_bytes(cache.read_bytes()[:-20])  # a kill in the middle of a line
    scored = []

    def counted(model, rows, *args, **keys):
        scored.append(len(rows))
        return row_losses(model, rows, *args, **keys)

    monkeypatch.setattr(loss_filter, "row_losses", counted)
    sft.run(samples, base, tmp_path / "sft", params)
    assert sum(scored) <= 2, "only the file of the torn line"
    assert list(read_parquet(tmp_path / "sft/rejects.parquet", "sft")) == rejects


def test_the_holes_that_are_shown_are_always_the_same_and_hide_what_the_scrubber_hides(model, base):
    samples, codec, decode = sample_rows(30, seed=4), load_codec(base), load_tokenizer(base).decode
    first, second = Sight(samples, codec, decode), Sight(samples[::-1], codec, decode)
    assert len(first.holes) == 3 and first.holes == second.holes
    assert all(" | " in line and "\n" not in line for line in first.lines(model))
    mail = "ada" + "@" + "lovelace.org"
    first.decode = lambda ids: f"write to {mail}\nnow"
    assert all(mail not in line and "⏎" in line for line in first.lines(model))


def rows_file(folder, rows):
    for name in ("train", "valid"):
        write_parquet(folder / f"{name}.parquet", rows, SAMPLE)
    return folder


@pytest.mark.parametrize(
    ("rows", "change", "words"),
    [
        (sample_rows(1), {}, "has 1 rows, fewer than one batch of 4: lower sft.batch"),
        (sample_rows(4), {"max_row_tokens": 20}, "sample 0-000. has .* tokens and the model takes 20"),
        ([{**row, "middle": ""} for row in sample_rows(4)], {}, "sample 0-000. has an empty middle"),
        ([], {}, "train.parquet holds no samples"),
    ],
)
def test_rows_that_cannot_be_trained_on_are_named(tmp_path, base, rows, change, words):
    with pytest.raises(InputError, match=words):
        sft.read(rows_file(tmp_path, rows), base, changed(**change))


def test_a_control_token_inside_a_middle_is_named(tmp_path, base, monkeypatch):
    rows = rows_file(tmp_path, sample_rows(4))
    assert sft.read(rows_file(tmp_path, [{**row, "middle": "x = '<|fim_pad|>'"} for row in sample_rows(4)]), base, SFT), "text stays text"
    monkeypatch.setattr(sft, "CONTROL", (load_tokenizer(base).id_to_token(load_codec(base).plain("import")[0]),))
    monkeypatch.setattr(sft, "read_rows", lambda *_: [TokenRow("7", "spm", "chars", [1, 2, *load_codec(base).plain("import"), 0], 2)] * 4)
    with pytest.raises(InputError, match="sample 7 has a control token inside its middle"):
        sft.read(rows, base, SFT)
