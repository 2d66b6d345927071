"""Training on a CPU with the real libraries: what comes out, that it is the same twice, and that a stopped run goes on."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from core.errors import InputError, MachineError
from core.records import write_jsonl
from phase2_train import base as base_model
from phase2_train import dpo, sft
from phase2_train.machine import machine
from phase2_train.params import BaseParams, DpoParams, FilterParams, LoraParams, SftParams
from phase2_train.rows import load_codec, load_tokenizer

from .conftest import MONITOR

SFT = SftParams(
    bits=4, engine="trl", lora=LoraParams(r=4, alpha=8, dropout=0.0), lr=0.01, warmup_share=0.1, epochs=1, max_steps=6, batch=4,
    accumulate=1, eval_rows=8, eval_steps=3, patience=0, save_steps=100,
    filter=FilterParams(top_share=0.0, bottom_share=0.0, max_nats=0.0, rows_per_file=1), max_row_tokens=512, seed=5,
)  # fmt: skip
DPO = DpoParams(
    beta=0.2, loss=["sigmoid"], loss_weights=[1.0], lr=0.001, warmup_share=0.0, epochs=1, max_steps=5, batch=2,
    accumulate=1, save_steps=100, monitor=MONITOR, seed=5,
)  # fmt: skip


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, base, samples):
    out = tmp_path_factory.mktemp("sft")
    return out, sft.run(samples, base, out, SFT)


def test_sft_learns_and_leaves_an_adapter_metrics_and_plots(adapter, base):
    out, metrics = adapter
    assert metrics["valid_loss"] < metrics["valid_loss_before"]
    weights = load_file(out / "adapter" / "adapter_model.safetensors")
    assert all("lora_" in name for name in weights)
    assert not any("embed" in name or "lm_head" in name for name in weights)
    assert (out / "dvclive" / "plots" / "metrics" / "loss.tsv").exists()
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["params"]["sft"]["bits"] == 4 and manifest["counts"]["steps"] == 6


def test_sft_is_the_same_twice(adapter, base, samples, tmp_path):
    sft.run(samples, base, tmp_path / "again", SFT)
    first, second = (load_file(out / "adapter" / "adapter_model.safetensors") for out in (adapter[0], tmp_path / "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_dpo_starts_at_ln_2_and_is_its_own_reference(adapter, base, tmp_path):
    rows = [
        {
            "prefix": f"x{n} = ",
            "suffix": "\n",
            "chosen": f"{n}",
            "rejected": f"{n}\nprint(x{n})",
            "order": order,
            "evidence": {"ended": n % 2 == 0},
        }
        for n in range(6)
        for order in ("psm", "spm")
    ]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    metrics = dpo.run(tmp_path / "pairs.jsonl", base, adapter[0] / "adapter", tmp_path / "dpo", DPO.model_copy(update={"lr": 1e-9}), SFT)
    assert metrics["first_loss"] == pytest.approx(math.log(2), abs=1e-4)
    written = load_file(tmp_path / "dpo" / "adapter" / "adapter_model.safetensors")
    sft_weights = load_file(adapter[0] / "adapter" / "adapter_model.safetensors")
    assert written.keys() == sft_weights.keys(), "the frozen reference must not be saved"
    assert all(torch.allclose(written[name], sft_weights[name], atol=1e-6) for name in written)


def test_dpo_prefers_the_chosen(adapter, base, tmp_path):
    rows = [{"prefix": f"x{n} = ", "suffix": "\n", "chosen": f"{n}", "rejected": f"{n}\nprint(x{n})"} for n in range(12)]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    metrics = dpo.run(tmp_path / "pairs.jsonl", base, adapter[0] / "adapter", tmp_path / "dpo", DPO, SFT)
    assert metrics["rewards_margins"] > 0


@pytest.mark.parametrize(("model", "words"), [("no/such/folder", "is no folder"), ("./x", "is no folder"), ("core", "is no model folder")])
def test_a_base_that_is_none_is_named(tmp_path, model, words):
    with pytest.raises(InputError, match=words):
        base_model.run(tmp_path / "base", BaseParams(model=model, revision=None, seed=1, device="any"))
    assert not (tmp_path / "base").exists()


def test_a_base_of_another_architecture_or_without_markers_is_refused(base, tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    for file in base.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    with pytest.raises(InputError, match="Qwen2 architecture"):
        base_model.check(folder)
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 10}))
    with pytest.raises(InputError, match="disagree"):
        base_model.check(folder)


def test_a_local_folder_is_a_base(base, tmp_path):
    base_model.run(tmp_path / "base", BaseParams(model=str(base), revision=None, seed=1, device="any"))
    assert load_codec(tmp_path / "base").tokens == load_codec(base).tokens
    assert load_tokenizer(tmp_path / "base").get_vocab_size() == load_tokenizer(base).get_vocab_size()


@pytest.mark.skipif(torch.cuda.is_available(), reason="the refusal is for machines without CUDA")
def test_cuda_asked_for_and_absent_says_what_to_set(base):
    with pytest.raises(MachineError, match="profile: tiny"):
        machine("cuda")
    with pytest.raises(MachineError, match=r"sft\.engine to trl"):
        sft.load_trainable(base, SFT.model_copy(update={"engine": "unsloth"}), machine())
