"""The small base: packed rows, Muon, a run that goes on where it was, a card whose losses can be had again."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from core.errors import InputError
from core.params import load_params
from phase2_train import packed, pretrain, probe
from phase2_train.cli import app
from phase2_train.muon import Muon
from phase2_train.params import PretrainParams
from phase2_train.rows import TokenRow, load_codec, read_rows

TINY = PretrainParams(
    start=None,
    vocab=600, hidden=64, ffn=64, layers=1, heads=2, kv_heads=1, context=512, row_tokens=512, batch=4, steps=12, warmup=2, decay_share=0.25,
    muon_lr=0.02, adamw_lr=0.01, weight_decay=0.01, middle_weight=3.0, compile=False, eval_every=6, save_every=1, seed=1,
)  # fmt: skip


def test_muon_moves_as_torchs_does():
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in ((64, 64), (32, 64), (96, 64), (64, 96), (64, 64))]
    theirs = [torch.nn.Parameter(one.detach().clone()) for one in ours]
    optims = Muon(ours, 0.02, 0.1), torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1)
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape)
            other.grad = one.grad.clone()
        for optim in optims:
            optim.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3)  # bfloat16 iterations; elements are about 1


rows_of_lengths = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 10), st.sampled_from(["psm", "ltr"])), min_size=1, max_size=30)


@given(rows_of_lengths)
def test_packing_loses_no_token_and_tears_no_sample(lengths):
    rows = [TokenRow(str(i), order, "lines", [i + 1] * (a + b), a) for i, (a, b, order) in enumerate(lengths)]
    groups = list(packed.together(rows, 32))
    assert [row for group in groups for row in group] == rows
    assert all(sum(len(row.ids) for row in group) <= 32 for group in groups)
    arrays = packed.as_arrays(groups, 32, 0)
    assert arrays.tokens.sum() == sum(len(row.ids) for row in rows)
    assert (arrays.role == packed.MIDDLE).sum() == sum(b for _, b, order in lengths if order != "ltr")


def test_middles_weigh_more_and_padding_nothing(tokenizer_folder, samples):
    codec = load_codec(tokenizer_folder)
    row = read_rows(samples / "train.parquet", codec, 512)[0]
    arrays = packed.as_arrays([[row]], 512, codec.tokens.pad)
    inputs, targets, weights = packed.tensors(arrays, np.array([0]), 3.0)
    n = len(row.ids)
    assert inputs[0, : n - 1].tolist() == row.ids[:-1] and targets[0, : n - 1].tolist() == row.ids[1:]
    assert weights[0].tolist() == [1.0] * (row.start - 1) + [3.0] * (n - row.start) + [0.0] * (512 - n)
    assert set(targets[0, n - 1 :].tolist()) == {packed.IGNORE}


def test_every_row_comes_once_per_epoch():
    steps = packed.batches(48, 8, 1, 0)
    assert sorted(int(i) for _ in range(6) for i in next(steps)) == list(range(48))


@settings(max_examples=20)
@given(st.integers(0, 40))
def test_order_of_rows_does_not_depend_on_where_a_run_was_stopped(step):
    def first(source, n):
        return [next(source).tolist() for _ in range(n)]

    assert first(packed.batches(37, 4, 5, 0), step + 3)[step:] == first(packed.batches(37, 4, 5, step), 3)


def losses(folder: Path) -> list[float]:
    by_step = {entry["step"]: entry["loss"] for entry in map(json.loads, (folder / "log.jsonl").read_text().splitlines())}
    return [by_step[step] for step in sorted(by_step)]


@pytest.fixture
def unbroken(tmp_path, samples, tokenizer_folder):
    model, seen = pretrain.train(samples, tokenizer_folder, tmp_path / "whole", TINY, fresh=False)
    return model.state_dict(), seen, losses(tmp_path / "whole")


def test_a_stopped_run_ends_as_the_unbroken_one(tmp_path, samples, tokenizer_folder, unbroken, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(pretrain.Learner, "step", stop_after(pretrain.Learner.step, 5))
        with pytest.raises(KeyboardInterrupt):
            pretrain.train(samples, tokenizer_folder, tmp_path / "run", TINY, fresh=False)
    model, seen = pretrain.train(samples, tokenizer_folder, tmp_path / "run", TINY, fresh=False)
    weights, all_seen, series = unbroken
    assert seen == all_seen and losses(tmp_path / "run") == series
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def stop_after(step, steps):
    count = iter(range(steps))

    def limited(self, batch, share):
        if next(count, None) is None:
            raise KeyboardInterrupt
        return step(self, batch, share)

    return limited


def test_a_longer_run_goes_on_from_before_the_decay(tmp_path, samples, tokenizer_folder):
    pretrain.train(samples, tokenizer_folder, tmp_path, TINY, fresh=False)
    longer = TINY.model_copy(update={"steps": 16})
    pretrain.train(samples, tokenizer_folder, tmp_path, longer, fresh=False)
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == [*range(1, 13), *range(10, 17)]  # 9 steps at the peak, then again from there
    assert entries[12]["lr"] == 1.0


def test_another_recipe_is_refused_by_name(tmp_path, samples, tokenizer_folder):
    pretrain.train(samples, tokenizer_folder, tmp_path, TINY, fresh=False)
    with pytest.raises(InputError, match=r"muon_lr.*--fresh"):
        pretrain.train(samples, tokenizer_folder, tmp_path, TINY.model_copy(update={"muon_lr": 0.03}), fresh=False)


def test_probe_asks_for_the_rest_of_a_line_only(samples, base, tmp_path):
    rows = list(probe.read_parquet(samples / "train.parquet", ""))
    chosen = probe.mid_line(rows, 0)
    assert chosen and all(row["prefix"].rpartition("\n")[2].strip() and "\n" not in row["middle"] for row in chosen)
    assert [row["sample_id"] for row in probe.mid_line(reversed(rows), 5)] == [row["sample_id"] for row in chosen[:5]]
    (tmp_path / "test_repo.parquet").write_bytes((samples / "train.parquet").read_bytes())
    found = CliRunner().invoke(app, ["probe", "--model", str(base), "--samples", str(tmp_path), "--limit", "4"])
    assert found.exit_code == 0 and "4 mid-line holes" in found.output


SHIPPED = Path(__file__).parents[2] / "phase2_train" / "tiny_base"


@pytest.mark.slow
def test_the_shipped_base_can_be_begun_again(tmp_path):
    """Needs `make base` to have cut the samples; the first 50 losses are those of the card."""
    card, cut = json.loads((SHIPPED / "card.json").read_text()), SHIPPED.parents[1] / "phase1_data" / "out-base" / "samples"
    if not (cut / "train.parquet").is_file() or pretrain.sha256_of(cut / "train.parquet") != card["samples_sha256"]:
        pytest.skip("phase1_data/out-base/samples are not those of the card: make the corpus with the first lines of `make base`")
    params = load_params(PretrainParams, "pretrain", SHIPPED.parents[1] / "params.yaml", "base")
    stopped = params.model_copy(update={"steps": 50, "decay_share": 0.0})
    pretrain.train(cut, SHIPPED, tmp_path, stopped, fresh=False)
    assert losses(tmp_path)[:50] == pytest.approx(card["first_losses"], abs=0.02)  # bfloat16 sums differ between processors
