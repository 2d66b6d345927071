"""The merge is peft's, exactly; and what it cannot merge it refuses by name and leaves nothing behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from core.errors import CheckFailed, InputError
from core.manifest import sha256_of
from core.nf4 import as_trained
from core.records import write_json
from phase3_quantize import merge
from phase3_quantize.params import MergeParams
from tests.phase3_quantize.conftest import make_model

PARAMS = MergeParams(adapter="dpo", onto="full", rows=4)


def make_adapter(base: Path, folder: Path, seed: int = 5, **settings: Any) -> Path:
    """A peft adapter with random A and B on every linear layer."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **settings})
    adapted = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05
    adapted.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(model_256: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(model_256, tmp_path_factory.mktemp("adapter") / "dpo" / "adapter")


@pytest.fixture
def own(adapter: Path, tmp_path: Path) -> Path:
    """A copy of the adapter to damage."""
    return Path(shutil.copytree(adapter, tmp_path / "dpo" / "adapter"))


def edit(file: Path, **values: Any) -> None:
    write_json(file, {**json.loads(file.read_text()), **values})


@pytest.mark.parametrize(
    "settings",
    [{}, {"use_rslora": True}, {"r": 3, "lora_alpha": 7}, {"rank_pattern": {"q_proj": 2}, "target_modules": ["q_proj", "down_proj"]}],
)
def test_merged_weights_are_what_peft_merges(model_256: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    made = make_adapter(model_256, tmp_path / "adapter", **settings)
    merge.run(model_256, made, tmp_path / "out" / "merge", PARAMS)
    ours = load_file(tmp_path / "out" / "merge" / "model.safetensors")
    peer = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_256, dtype=torch.float32), made).merge_and_unload(
        safe_merge=True
    )
    theirs = peer.state_dict()
    assert ours.keys() == theirs.keys() - {"lm_head.weight"}
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_merged_model_answers_like_base_with_adapter(model_256: Path, adapter: Path, tmp_path: Path) -> None:
    counts = merge.run(model_256, adapter, tmp_path / "out" / "merge", PARAMS)
    assert counts["merged"] == 14  # seven matrices in each of two layers
    ids = torch.arange(40)[None]
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "merge")
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_256, dtype=torch.float32), adapter)
    assert merged.dtype == torch.float32
    with torch.inference_mode():
        assert torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-4)


def test_embeddings_stay_tied_and_tokenizer_and_licence_come_along(model_256: Path, adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "merge"
    merge.run(model_256, adapter, out, PARAMS)
    with safe_open(out / "model.safetensors", framework="pt") as stored:
        assert "lm_head.weight" not in stored.keys()  # noqa: SIM118
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "LICENSE"):
        assert (out / name).read_bytes() == (model_256 / name).read_bytes()
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["parent"] == sha256_of(model_256)
    assert manifest["counts"]["provenance"]["license"] == "apache-2.0"


def test_without_an_adapter_the_base_is_written_in_float32(tmp_path: Path) -> None:
    half = make_model(tmp_path / "half", dtype=torch.bfloat16)
    merge.run(half, None, tmp_path / "out" / "merge", MergeParams(adapter="none", onto="full", rows=4))
    before, after = load_file(half / "model.safetensors"), load_file(tmp_path / "out" / "merge" / "model.safetensors")
    assert all(after[name].dtype == torch.float32 and torch.equal(after[name], before[name].float()) for name in after)


def test_sharded_base_is_read_like_a_whole_one(model_256: Path, adapter: Path, tmp_path: Path) -> None:
    sharded = Path(shutil.copytree(model_256, tmp_path / "base", ignore=shutil.ignore_patterns("*.safetensors")))
    AutoModelForCausalLM.from_pretrained(model_256).save_pretrained(sharded, max_shard_size="2MB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    merge.run(sharded, adapter, tmp_path / "a" / "merge", PARAMS)
    merge.run(model_256, adapter, tmp_path / "b" / "merge", PARAMS)
    assert sha256_of(tmp_path / "a" / "merge" / "model.safetensors") == sha256_of(tmp_path / "b" / "merge" / "model.safetensors")
    next(iter(sorted(sharded.glob("*.safetensors")))).unlink()
    with pytest.raises(InputError, match="phase2_train base"):
        merge.run(sharded, adapter, tmp_path / "c" / "merge", PARAMS)


def test_same_inputs_give_the_same_bytes(model_256: Path, adapter: Path, tmp_path: Path) -> None:
    for name in ("a", "b", "a"):  # over an earlier output too
        merge.run(model_256, adapter, tmp_path / name / "merge", PARAMS)
    assert sha256_of(tmp_path / "a" / "merge") == sha256_of(tmp_path / "b" / "merge")
    assert (tmp_path / "a" / "merge" / "manifest.json").read_bytes() == (tmp_path / "b" / "merge" / "manifest.json").read_bytes()


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"peft_type": "LOHA"}, "LOHA"),
        ({"use_dora": True}, "use_dora"),
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"alpha_pattern": {"q_proj": 2}}, "alpha_pattern"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"use_qalora": True}, "use_qalora"),
    ],
)
def test_other_adapters_are_refused_by_name(base: Path, own: Path, tmp_path: Path, setting: dict[str, Any], named: str) -> None:
    edit(own / "adapter_config.json", **setting)
    with pytest.raises(InputError, match=named):
        merge.run(base, own, tmp_path / "out" / "merge", PARAMS)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def rewrite(file: Path, change: Any) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t[f"{Q}.lora_A.weight"].fill_(float("nan")), "non-finite"),
        (lambda t: t[f"{Q}.lora_B.weight"].__setitem__((0, 0), float("inf")), "non-finite"),
        (lambda t: t.pop(f"{Q}.lora_B.weight"), "matching lora_A and lora_B"),
        (lambda t: t.update({f"{Q}.lora_magnitude_vector": torch.ones(4)}), "lora_magnitude_vector"),
        (lambda t: t.update({"base_model.model.lm_head.weight": torch.ones(4)}), "lm_head"),
        (lambda t: t.update({"base_model.model.model.embed_tokens.lora_embedding_A": torch.ones(4, 4)}), "lora_embedding_A"),
        (lambda t: t.update({f"{Q}.lora_A.weight": torch.ones(4, 99)}), "another base"),
        (
            lambda t: t.update(
                {"base_model.model.lm_head.lora_A.weight": torch.ones(4, 256), "base_model.model.lm_head.lora_B.weight": torch.ones(9, 4)}
            ),
            "untie",
        ),
        (lambda t: t.clear(), "no LoRA matrices"),
    ],
)
def test_damaged_or_foreign_adapter_tensors_are_refused_by_name(base: Path, own: Path, tmp_path: Path, change: Any, says: str) -> None:
    rewrite(own / "adapter_model.safetensors", change)
    with pytest.raises(InputError, match=says):
        merge.run(base, own, tmp_path / "out" / "merge", PARAMS)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}), InputError, "tied"),
        (lambda t: t.pop("model.layers.1.mlp.up_proj.weight"), InputError, "model.layers.1.mlp.up_proj.weight"),
        (lambda t: t.update({"model.layers.1.mlp.gate.weight": torch.ones(3)}), InputError, "mlp.gate.weight"),
        (lambda t: t.update({"model.norm.weight": torch.ones(3)}), InputError, "model.norm.weight"),
        (lambda t: t["model.norm.weight"].fill_(float("nan")), CheckFailed, "model.norm.weight is not finite"),
    ],
)
def test_damaged_bases_are_refused_by_name_and_the_old_output_stays(
    base: Path, adapter: Path, tmp_path: Path, change: Any, error: type[Exception], says: str
) -> None:
    out = tmp_path / "out" / "merge"
    merge.run(base, adapter, out, PARAMS)
    before = sha256_of(out)
    rewrite(base / "model.safetensors", change)
    with pytest.raises(error, match=says):
        merge.run(base, adapter, out, PARAMS)
    assert sha256_of(out) == before
    assert not list(out.parent.glob("*.partial"))


def test_cut_files_and_missing_files_name_the_command_that_makes_them(base: Path, own: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="phase2_train dpo"):
        merge.run(base, tmp_path / "none", tmp_path / "out" / "merge", PARAMS)
    whole = (own / "adapter_model.safetensors").read_bytes()
    (own / "adapter_model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cut short"):
        merge.run(base, own, tmp_path / "out" / "merge", PARAMS)
    (base / "model.safetensors").unlink()
    with pytest.raises(InputError, match="phase2_train base"):
        merge.run(base, None, tmp_path / "out" / "merge", PARAMS)
    with pytest.raises(InputError, match="phase2_train base"):
        merge.run(tmp_path / "none", None, tmp_path / "out" / "merge", PARAMS)


def test_adapter_of_another_base_is_refused_where_its_manifests_say_so(base: Path, own: Path, tmp_path: Path) -> None:
    manifest, out = own.parent / "manifest.json", tmp_path / "out" / "merge"
    write_json(manifest, {"parent": "0" * 64})
    with pytest.raises(InputError, match="another base"):
        merge.run(base, own, out, PARAMS)
    write_json(manifest, {"parent": sha256_of(base)})
    merge.run(base, own, out, PARAMS)
    provenance = json.loads((out / "manifest.json").read_text())["counts"]["provenance"]
    assert provenance["training_sha256"] == sha256_of(manifest)


def test_dpo_adapter_is_traced_to_the_base_through_the_sft_adapter_beside_it(base: Path, own: Path, tmp_path: Path) -> None:
    sft = make_adapter(base, tmp_path / "sft" / "adapter", seed=9)
    write_json(own.parent / "manifest.json", {"parent": sha256_of(sft)})
    write_json(sft.parent / "manifest.json", {"parent": sha256_of(base)})
    merge.run(base, own, tmp_path / "out" / "merge", PARAMS)
    write_json(sft.parent / "manifest.json", {"parent": "0" * 64})
    with pytest.raises(InputError, match="another base"):
        merge.run(base, own, tmp_path / "out" / "merge", PARAMS)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"model_type": "llama"}, "llama"),
        ({"use_sliding_window": True}, "sliding-window"),
        ({"quantization_config": {"load_in_4bit": True}}, "quantized weights"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6}}, "yarn"),
        ({"hidden_act": "gelu"}, "gelu"),
    ],
)
def test_other_architectures_are_refused_by_name(base: Path, tmp_path: Path, setting: dict[str, Any], says: str) -> None:
    edit(base / "config.json", **setting)
    with pytest.raises(InputError, match=says):
        merge.run(base, None, tmp_path / "out" / "merge", PARAMS)


def test_onto_nf4_is_what_a_4_bit_model_computes():
    """The rounding of the merge is that of bitsandbytes' layer, so that the merged model is the one that was trained."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(1)) * 0.05
    layer = Linear4bit(256, 64, bias=False, compute_dtype=torch.float32, quant_type="nf4", compress_statistics=True)
    layer.weight = Params4bit(weight.clone(), requires_grad=False, quant_type="nf4", compress_statistics=True)
    layer.to("cpu")
    layer.support_avx512bf16_for_cpu = False
    inputs = torch.randn(5, 256, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(layer(inputs), inputs @ as_trained(weight).T, atol=1e-5)
    assert not torch.allclose(as_trained(weight), weight, atol=1e-3)


# ---- what ships


def gated(folder: Path, source: Path, ships: str, parent: str) -> Path:
    """A folder as a gate leaves it."""
    shutil.copytree(source, folder / "adapter")
    write_json(folder / "gate.json", {"ships": ships})
    write_json(folder / "manifest.json", {"parent": parent})
    return folder / "adapter"


@pytest.mark.parametrize("ships", ["dpo", "sft"])
def test_the_manifest_says_what_the_gates_shipped(model_256: Path, adapter: Path, tmp_path: Path, ships: str) -> None:
    chosen = gated(tmp_path / "dpo_gate", adapter, ships, sha256_of(model_256))
    counts = merge.run(model_256, chosen, tmp_path / "out" / "merge", MergeParams(adapter="shipped", onto="nf4", rows=4))
    assert counts["shipped"] == ships and counts["merged"] == 14
    assert json.loads((tmp_path / "out" / "merge" / "manifest.json").read_text())["counts"]["shipped"] == ships


def test_a_shipped_base_is_written_as_it_is_and_not_rounded(model_256: Path, adapter: Path, tmp_path: Path) -> None:
    """The gate's adapter changes nothing; NF4 was for training."""
    chosen = gated(tmp_path / "dpo_gate", adapter, "base", sha256_of(model_256))
    weights = load_file(chosen / "adapter_model.safetensors")
    save_file({name: tensor * ("lora_A" in name) for name, tensor in weights.items()}, chosen / "adapter_model.safetensors")
    counts = merge.run(model_256, chosen, tmp_path / "out" / "merge", MergeParams(adapter="shipped", onto="nf4", rows=4))
    assert (counts["shipped"], counts["merged"]) == ("base", 0) and "training_sha256" not in counts["provenance"]
    before, after = load_file(model_256 / "model.safetensors"), load_file(tmp_path / "out" / "merge" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in after)


def test_an_adapter_without_a_verdict_is_the_one_the_params_name(model_256: Path, adapter: Path, tmp_path: Path) -> None:
    for named, step in (("sft", "sft"), ("dpo", "dpo"), ("shipped", "dpo")):
        assert merge.run(model_256, adapter, tmp_path / "out" / "merge", MergeParams(adapter=named, onto="full", rows=4))["shipped"] == step


def test_the_chain_of_gates_leads_to_the_base_and_no_further(model_256: Path, adapter: Path, tmp_path: Path) -> None:
    """Manifests as sft, sft-gate, dpo and dpo-gate leave them, DPO shipped or its parent."""
    base_sha, sft_sha = sha256_of(model_256), sha256_of(adapter)
    for name, parent in (("sft", base_sha), ("sft_gate", sft_sha)):
        shutil.copytree(adapter, tmp_path / name / "adapter")
        write_json(tmp_path / name / "manifest.json", {"parent": parent})
    dpo = make_adapter(model_256, tmp_path / "dpo" / "adapter", seed=6)
    write_json(tmp_path / "dpo" / "manifest.json", {"parent": sft_sha})
    for ships, source in (("dpo", dpo), ("sft", adapter)):
        shutil.rmtree(tmp_path / "dpo_gate", ignore_errors=True)
        merge.check_belongs(gated(tmp_path / "dpo_gate", source, ships, sha256_of(source)), model_256, base_sha)
        with pytest.raises(InputError, match="another base"):
            merge.check_belongs(tmp_path / "dpo_gate" / "adapter", model_256, "0" * 64)
