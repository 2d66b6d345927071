"""The gates: the rule, what ships, and the commands on a real model."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from core.errors import CheckFailed, InputError
from core.manifest import sha256_of
from core.records import SAMPLE, read_parquet, write_json, write_parquet
from phase2_train import base as base_model
from phase2_train import gate, gate_table, heldout
from phase2_train.gate import compare, judge
from phase2_train.machine import machine
from phase2_train.params import GateParams
from phase2_train.rows import load_codec, token_rows
from tests.phase2_train.conftest import sample_rows

ROOT = Path(__file__).parents[2]
SHIPPED, TRAINED, SAMPLES = ROOT / "phase2_train" / "tiny_base", ROOT / "phase2_train" / "out", ROOT / "phase1_data" / "out" / "samples"
PARAMS = GateParams(
    rows=40, order="spm", max_new_tokens=8, batch=16, max_loss_rise=0.02, confidence=0.95, bootstrap=200, seed=3
)  # fmt: skip


def row(at: int, exact: bool, similarity: float, overrun: bool, nats: float) -> dict:
    return {
        "key": "k", "sample_id": f"s{at}", "file_id": f"f{at % 15}", "span_kind": "lines", "stop": "end", "n_written": 5, "nats": nats,
        "n_tokens": 6, "exact": exact, "first_line": exact, "similarity": similarity, "overrun": overrun, "suffix_repeat": False,
    }  # fmt: skip


ROW = st.tuples(st.booleans(), st.floats(0, 100), st.booleans(), st.floats(0.1, 60))
MANY = st.lists(st.tuples(ROW, ROW), min_size=1, max_size=60)


def both(pairs):
    return [row(at, *mine) for at, (mine, _) in enumerate(pairs)], [row(at, *other) for at, (_, other) in enumerate(pairs)]


# ---- the rule


@settings(deadline=None, max_examples=40)
@given(st.lists(ROW, min_size=1, max_size=60))
def test_equal_rows_are_never_refused_after_sft_and_show_no_gain_after_dpo(rows):
    mine = [row(at, *one) for at, one in enumerate(rows)]
    differences = compare(mine, mine, PARAMS)
    assert judge("sft", differences, PARAMS) == gate.Judgement(True, [], [])
    assert judge("dpo", differences, PARAMS) == gate.Judgement(False, [], [])


@settings(deadline=None, max_examples=40)
@given(MANY)
def test_what_is_a_harm_one_way_is_a_gain_the_other_way(pairs):
    mine, other = both(pairs)
    forth, back = (judge("dpo", compare(*sides, PARAMS), PARAMS) for sides in ((mine, other), (other, mine)))
    assert forth.harms == back.gains and forth.gains == back.harms
    assert not (forth.child and back.child)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(ROW, min_size=20, max_size=60), st.sampled_from(["exact", "similarity", "overrun", "nats"]), st.sampled_from(["sft", "dpo"])
)
def test_rows_strictly_worse_in_one_thing_are_refused(rows, what, step):
    """Every hole worse in one figure, equal in the others."""
    worst = {"exact": (True, False), "similarity": (50.0, 30.0), "overrun": (False, True), "nats": (10.0, 11.0)}[what]
    old = [row(at, *one) | {what: worst[0]} for at, one in enumerate(rows)]
    new = [one | {what: worst[1]} for one in old]
    name = {"exact": "exact_match", "similarity": "edit_similarity", "overrun": "overrun_rate", "nats": "loss"}[what]
    refused = judge(step, compare(new, old, PARAMS), PARAMS)
    assert not refused.child and refused.harms == [name]
    welcome = judge(step, compare(old, new, PARAMS), PARAMS)
    assert welcome.child == (step == "sft" or what != "nats"), "a loss that no completion shows is no gain of DPO's kind"


@pytest.mark.parametrize(("rise", "refused"), [(0.0, False), (0.015, False), (0.021, True)])
def test_the_loss_may_rise_up_to_its_bound(rise, refused):
    """Nats per token, on every hole alike, so that the interval is a point."""
    old = [row(at, False, 30.0, False, 12.0) for at in range(40)]
    new = [one | {"nats": 12.0 + rise * one["n_tokens"]} for one in old]
    assert judge("sft", compare(new, old, PARAMS), PARAMS).child is not refused


def test_a_child_that_does_the_same_ships_after_sft_and_says_so():
    rows = [row(at, False, 30.0, False, 12.0) for at in range(40)]
    found = judge("sft", compare(rows, rows, PARAMS), PARAMS)
    assert found.child and not found.harms and not found.gains


def test_a_gain_does_not_pay_for_a_harm():
    old = [row(at, False, 30.0, True, 12.0) for at in range(60)]
    new = [one | {"overrun": False, "similarity": 20.0} for one in old]
    found = judge("dpo", compare(new, old, PARAMS), PARAMS)
    assert (found.child, found.harms, found.gains) == (False, ["edit_similarity"], ["overrun_rate"])


def test_more_confidence_asks_for_more():
    old = [row(at, False, 30.0, False, 12.0) for at in range(40)]
    new = [one | {"overrun": at < 7} for at, one in enumerate(old)]  # 7 of 7: McNemar p 0.016
    for confidence, harms in ((0.95, ["overrun_rate"]), (0.99, [])):
        asked = PARAMS.model_copy(update={"confidence": confidence})
        assert judge("sft", compare(new, old, asked), asked).harms == harms


def test_rows_of_other_holes_are_not_compared():
    with pytest.raises(ValueError, match="not of the same holes"):
        compare([row(1, True, 1.0, False, 1.0)], [row(2, True, 1.0, False, 1.0)], PARAMS)


# ---- what ships, on a real model


def add_adapter(base: Path, folder: Path, scale: float, parent: str, seed: int = 5) -> Path:
    """A peft adapter whose B matrices are `scale` times noise, with a manifest that names what it was trained from."""
    model = base_model.load(base, 16, machine())
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.data = scale * torch.randn(parameter.shape)
    adapted.save_pretrained(folder / "adapter")
    write_json(folder / "manifest.json", {"parent": parent})
    return folder / "adapter"


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer_folder) -> Path:
    """A base that has learned which tokens are common, so that there is something to unlearn: 16 steps on as many rows."""
    folder, codec = tmp_path_factory.mktemp("learned"), load_codec(tokenizer_folder)
    base_model.random_model(tokenizer_folder, folder, 3)
    model = base_model.load(folder, 16, machine())
    rows = list(token_rows(sample_rows(64, 4), codec, 512))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(16):
        ids = torch.tensor([row.ids[-80:] for row in rows[4 * step : 4 * step + 4]])
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def valid(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("valid")
    write_parquet(folder / "valid.parquet", sample_rows(40, 9), SAMPLE)
    return folder / "valid.parquet"


@pytest.fixture(scope="module")
def out(tmp_path_factory, base, valid) -> Path:
    """sft is a little off, dpo is the same again, collapsed is noise; the gate after sft was run."""
    folder = tmp_path_factory.mktemp("out")
    sft = add_adapter(base, folder / "sft", 1e-5, sha256_of(base))
    record = gate.run("sft", valid, base, sft, None, folder / "sft_gate", PARAMS, 4)
    assert record["verdict"] == "ship child" and not record["harms"]  # rounding to NF4 may show on 40 holes, the adapter does not
    shutil.copytree(sft, folder / "dpo" / "adapter")
    write_json(folder / "dpo" / "manifest.json", {"parent": sha256_of(folder / "sft_gate" / "adapter")})
    add_adapter(base, folder / "collapsed", 3.0, sha256_of(base))
    return folder


def test_the_child_ships_as_it_is(out, base):
    assert sha256_of(out / "sft_gate" / "adapter") == sha256_of(out / "sft" / "adapter")
    record, manifest = (json.loads((out / "sft_gate" / name).read_text()) for name in ("gate.json", "manifest.json"))
    assert record["adapter_sha256"] == sha256_of(out / "sft" / "adapter") and record["ships"] == "sft"
    assert manifest["parent"] == sha256_of(out / "sft" / "adapter") and manifest["counts"]["verdict"] == "ship child"
    assert set(record["figures"]) == {metric.name for metric in gate.METRICS} and record["n"] == 40
    assert not list(out.glob("*.partial"))


def test_dpo_without_a_gain_ships_its_parent_whose_rows_are_not_asked_again(out, base, valid, tmp_path, monkeypatch):
    asked, keep = [], heldout.answers
    monkeypatch.setattr(heldout, "answers", lambda one, *rest: (asked.append(one.name), keep(one, *rest))[1])
    record = gate.run("dpo", valid, base, out / "dpo" / "adapter", out / "sft_gate" / "adapter", tmp_path / "dpo_gate", PARAMS, 4)
    assert asked == []  # equal adapters: both are known
    assert record["verdict"] == "ship parent" and record["ships"] == "sft" and "no measurable gain" in record["reasons"][0]
    with pytest.raises(CheckFailed, match="no measurable gain"):
        gate.enforce(record, tmp_path)


def test_a_collapsed_child_ships_the_bare_base_in_the_childs_shapes(out, base, valid, tmp_path):
    record = gate.run("sft", valid, base, out / "collapsed" / "adapter", None, tmp_path / "sft_gate", PARAMS, 4)
    assert record["verdict"] == "ship parent" and record["ships"] == "base" and "loss" in record["harms"]
    bare, child = (
        load_file(folder / "adapter_model.safetensors") for folder in (tmp_path / "sft_gate" / "adapter", out / "collapsed" / "adapter")
    )
    assert {name: tensor.shape for name, tensor in bare.items()} == {name: tensor.shape for name, tensor in child.items()}
    assert all((tensor == 0).all() == (".lora_B." in name) for name, tensor in bare.items())
    model = base_model.load(base, 16, machine())
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        before = model(ids).logits
        after = PeftModel.from_pretrained(model, tmp_path / "sft_gate" / "adapter")(ids).logits
    assert torch.equal(before, after)
    # DPO from the bare base: the gate asks the base bare, takes its rows from the gate before, and ships it again
    child = add_adapter(base, tmp_path / "dpo", 3.0, sha256_of(tmp_path / "sft_gate" / "adapter"), seed=6)
    again = gate.run("dpo", valid, base, child, tmp_path / "sft_gate" / "adapter", tmp_path / "dpo_gate", PARAMS, 4)
    assert (again["parent"], again["ships"]) == ("base", "base")
    assert again["adapter_sha256"] == record["adapter_sha256"]
    keys = [{one["key"] for one in read_parquet(tmp_path / name / "rows.parquet", "")} for name in ("sft_gate", "dpo_gate")]
    assert len(keys[0] & keys[1]) == 1


def test_the_same_twice_is_the_same_bytes(out, base, valid, tmp_path):
    gate.run("sft", valid, base, out / "sft" / "adapter", None, tmp_path / "sft_gate", PARAMS, 4)
    for name in ("rows.parquet", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "sft_gate" / name).read_bytes() == (out / "sft_gate" / name).read_bytes()
    mine, first = (json.loads((folder / "sft_gate" / "gate.json").read_text()) for folder in (tmp_path, out))
    assert mine == first


def test_a_cpu_asks_the_weights_that_training_saw(out, base):
    """bitsandbytes' layers as training runs them (dequantized, float32), against the rounded and merged weights."""
    chosen, ids = machine(), torch.arange(60)[None]
    if chosen.device != "cpu":
        pytest.skip("needs a machine without CUDA")
    trained = PeftModel.from_pretrained(base_model.load(base, 4, chosen), out / "collapsed" / "adapter")
    with torch.inference_mode():
        theirs = trained(ids).logits
        ours = heldout.load(heldout.Contestant("sft", out / "collapsed" / "adapter", 4), base, chosen)(ids).logits
    assert torch.allclose(theirs, ours, atol=1e-3 * theirs.abs().max())


def test_what_does_not_belong_together_is_named(out, base, valid, tmp_path):
    with pytest.raises(InputError, match="python -m phase2_train sft`"):
        gate.run("sft", valid, base, tmp_path / "none", None, tmp_path / "g", PARAMS, 4)
    with pytest.raises(InputError, match="python -m phase2_train sft-gate`"):
        gate.run("dpo", valid, base, out / "dpo" / "adapter", tmp_path / "none", tmp_path / "g", PARAMS, 4)
    with pytest.raises(InputError, match="was not trained from"):
        gate.run("dpo", valid, base, out / "collapsed" / "adapter", out / "sft_gate" / "adapter", tmp_path / "g", PARAMS, 4)
    with pytest.raises(InputError, match="python -m phase1_data samples`"):
        gate.run("sft", tmp_path / "no.parquet", base, out / "sft" / "adapter", None, tmp_path / "g", PARAMS, 4)
    write_parquet(tmp_path / "empty.parquet", [], SAMPLE)
    with pytest.raises(InputError, match="holds no hole"):
        gate.run("sft", tmp_path / "empty.parquet", base, out / "sft" / "adapter", None, tmp_path / "g", PARAMS, 4)
    assert not (tmp_path / "g").exists()


def test_a_gate_that_fails_midway_leaves_the_last_verdict(out, base, valid, tmp_path, monkeypatch):
    kept = Path(shutil.copytree(out / "sft_gate", tmp_path / "sft_gate"))
    monkeypatch.setattr(gate, "write_parquet", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        gate.run("sft", valid, base, out / "collapsed" / "adapter", None, kept, PARAMS, 4)
    assert sha256_of(kept) == sha256_of(out / "sft_gate") and not list(tmp_path.glob("*.partial"))


def test_the_table_says_it_all(out, capsys):
    record = json.loads((out / "sft_gate" / "gate.json").read_text())
    gate_table.show(record)
    text = capsys.readouterr().out
    assert text.startswith(f"sft gate: ship child (sft)\n  {record['reasons'][0]}")
    assert "would not have shown (95%)" in text and "\x1b" not in text
    for metric in gate.METRICS:
        assert metric.label in text


def test_the_command_fails_only_when_asked_to_and_after_writing(out, base, valid, tmp_path):
    sections = yaml.safe_load((ROOT / "params.yaml").read_text())["test"]
    sections["gate"] = PARAMS.model_dump()
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"profile": "x", "x": sections}))
    options = ["--samples", valid.parent, "--base", base, "--child", out / "collapsed" / "adapter", "--out", tmp_path / "sft_gate"]
    done = subprocess.run(
        [sys.executable, "-m", "phase2_train", "sft-gate", *map(str, options), "--params", str(tmp_path / "params.yaml"), "--gate", "fail"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert done.stdout.startswith("sft gate: ship parent (the bare base)")
    assert done.stderr.splitlines()[-1].startswith("error: the sft gate ships its parent (base): ")
    assert json.loads((tmp_path / "sft_gate" / "gate.json").read_text())["ships"] == "base"


# ---- the shipped base


@pytest.mark.slow
@pytest.mark.skipif(not (SAMPLES / "valid.parquet").is_file() or not (TRAINED / "sft" / "adapter").is_dir(), reason="needs `dvc repro`")
def test_a_planted_collapse_of_the_tiny_profile_ships_the_parent(tmp_path):
    """The SFT adapter with its B matrices blown up, as a preference step with too high a learning rate leaves them."""
    base, sft = TRAINED / "base", TRAINED / "sft" / "adapter"
    bad = Path(shutil.copytree(sft, tmp_path / "dpo" / "adapter"))
    weights = load_file(bad / gate.WEIGHTS)
    save_file(
        {name: 3 * tensor if ".lora_B." in name else tensor for name, tensor in weights.items()},
        bad / gate.WEIGHTS,
        metadata={"format": "pt"},
    )
    write_json(tmp_path / "dpo" / "manifest.json", {"parent": sha256_of(sft)})
    params = PARAMS.model_copy(update={"rows": 200, "max_new_tokens": 48, "batch": 64, "bootstrap": 2000})
    record = gate.run("dpo", SAMPLES / "valid.parquet", base, bad, sft, tmp_path / "dpo_gate", params, 4)
    assert record["verdict"] == "ship parent" and record["ships"] == "sft" and {"edit_similarity", "loss"} & set(record["harms"])
    assert sha256_of(tmp_path / "dpo_gate" / "adapter") == sha256_of(sft)
