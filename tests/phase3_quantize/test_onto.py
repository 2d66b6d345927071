"""The merge goes onto the weights that keep it closest to what was trained, and the figures for that are exact."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from core.errors import InputError
from core.fim import codec_of
from core.nf4 import round_layers
from core.records import SAMPLE, write_json, write_parquet
from phase3_quantize import merge
from phase3_quantize.holes import hole_of, read_rows
from phase3_quantize.params import MergeParams
from tests.phase3_quantize.conftest import make_model
from tests.phase3_quantize.test_merge import make_adapter

MEASURED = MergeParams(adapter="dpo", onto="measured", rows=4)


@pytest.fixture(scope="module")
def adapter(model_256: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(model_256, tmp_path_factory.mktemp("trained") / "sft" / "adapter", use_rslora=True)


def log_probabilities(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)


def direct(base: Path, adapter: Path, merged: Path, samples: Path, rounded: bool) -> tuple[float, float]:
    """Mean KL over all tokens and over middles, by peft and transformers on whole models."""
    codec = codec_of(Tokenizer.from_file(str(base / "tokenizer.json")))
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if rounded:
        round_layers(plain)
    trained = PeftModel.from_pretrained(plain, adapter).eval()
    other = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).eval()
    everywhere, middles = [], []
    for row in read_rows(samples, 4):
        ids, start = codec.row(hole_of(row), row["order"])
        p, q = log_probabilities(trained, ids), log_probabilities(other, ids)
        kl = (p.exp() * (p - q)).sum(-1)
        everywhere.append(kl)
        middles.append(kl[start - 1 :])
    return float(torch.cat(everywhere).mean()), float(torch.cat(middles).mean())


@pytest.mark.parametrize("rounded", [True, False])
def test_figures_are_those_of_whole_models(model_256: Path, adapter: Path, samples: Path, tmp_path: Path, rounded: bool) -> None:
    write_json(adapter.parent / "manifest.json", {"params": {"sft": {"bits": 4 if rounded else 16}}})
    found = {}
    for onto in ("nf4", "full"):
        merge.run(model_256, adapter, tmp_path / onto / "merge", MergeParams(adapter="dpo", onto=onto, rows=4), samples)
        found[onto] = direct(model_256, adapter, tmp_path / onto / "merge", samples, rounded)
    counts = merge.run(model_256, adapter, tmp_path / "out" / "merge", MEASURED, samples)
    measured, trained_on, other = counts["measured"], *(("nf4", "full") if rounded else ("full", "nf4"))
    assert counts["onto"] == trained_on and measured["bits"] == (4 if rounded else 16)
    for onto, (mean, middle) in found.items():
        assert measured[onto]["kl_mean"] == pytest.approx(mean, rel=1e-3, abs=2e-6)
        assert measured[onto]["kl_middle"] == pytest.approx(middle, rel=1e-3, abs=2e-6)
    assert measured[trained_on]["kl_mean"] <= 2e-6 < 1e-4 < measured[other]["kl_mean"]
    assert measured["rows"] == 4 and measured["middle_tokens"] < measured["tokens"]
    shipped, wanted = (tmp_path / name / "merge" / "model.safetensors" for name in ("out", trained_on))
    assert shipped.read_bytes() == wanted.read_bytes()


def test_figures_are_in_the_manifest_and_the_same_again(model_256: Path, adapter: Path, samples: Path, tmp_path: Path) -> None:
    for name in "ab":
        merge.run(model_256, adapter, tmp_path / name / "merge", MEASURED, samples)
    a, b = ((tmp_path / name / "merge" / "manifest.json").read_bytes() for name in "ab")
    assert a == b
    manifest = json.loads(a)
    assert manifest["counts"]["onto"] in ("nf4", "full") and samples.as_posix() in manifest["inputs"]


def test_without_an_adapter_nothing_is_measured(model_256: Path, tmp_path: Path) -> None:
    counts = merge.run(model_256, None, tmp_path / "merge", MergeParams(adapter="none", onto="measured", rows=4), tmp_path / "gone")
    assert (counts["onto"], counts["measured"]) == (None, None)


def test_of_equals_the_one_on_the_trained_weights_ships() -> None:
    def figures(nf4: float, full: float) -> dict[str, dict[str, float]]:
        return {"nf4": {"kl_mean": nf4}, "full": {"kl_mean": full}}

    assert [merge.closer(figures(0.1, 0.1), rounded) for rounded in (True, False)] == ["nf4", "full"]
    assert [merge.closer(figures(0.2, 0.1), rounded) for rounded in (True, False)] == ["full", "full"]
    assert [merge.closer(figures(0.1, 0.2), rounded) for rounded in (True, False)] == ["nf4", "nf4"]


def test_samples_without_a_middle_or_missing_are_named(model_256: Path, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="phase1_data samples"):
        merge.run(model_256, adapter, tmp_path / "out" / "merge", MEASURED, tmp_path / "gone.parquet")
    write_parquet(tmp_path / "empty.parquet", [], SAMPLE)
    with pytest.raises(InputError, match="no holes"):
        merge.run(model_256, adapter, tmp_path / "out" / "merge", MEASURED, tmp_path / "empty.parquet")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
def test_an_adapter_on_the_output_matrix_is_measured_too(samples: Path, tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", tied=False)
    adapter = make_adapter(base, tmp_path / "adapter", target_modules=["lm_head", "q_proj"])
    file = adapter / "adapter_model.safetensors"  # as with save_embedding_layers=False: without a copy of the output matrix
    save_file({name: tensor for name, tensor in load_file(file).items() if "base_layer" not in name}, file)
    counts = merge.run(base, adapter, tmp_path / "out" / "merge", MEASURED, samples)
    merge.run(base, adapter, tmp_path / "full" / "merge", MergeParams(adapter="dpo", onto="full", rows=4))
    mean, _ = direct(base, adapter, tmp_path / "full" / "merge", samples, rounded=True)
    assert counts["merged"] == 3 and counts["measured"]["full"]["kl_mean"] == pytest.approx(mean, rel=1e-3)
