"""Model and adapter folders that are wrong: each by name, before a weight is loaded."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from core.errors import InputError
from core.manifest import sha256_of
from phase2_train import base as base_model
from phase2_train import model_folder
from phase2_train.cli import app

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(base, tmp_path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "model"))


@pytest.fixture
def sharded(base, tmp_path) -> Path:
    folder = tmp_path / "sharded"
    AutoModelForCausalLM.from_pretrained(base).save_pretrained(folder, max_shard_size="700KB")
    shutil.copy(base / "tokenizer.json", folder)
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def mend(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def cut(file: Path, size: int | None = None) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size - 1000 if size is None else size])


def without(file: Path, *names: str) -> None:
    save_file({name: tensor for name, tensor in load_file(file).items() if name not in names}, file)


def renamed_marker(folder: Path) -> None:
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace("<|fim_middle|>", "<|fim_muddle|>"))


def one_token_more(folder: Path) -> None:
    document = json.loads((folder / "tokenizer.json").read_text())
    top = json.loads((folder / "config.json").read_text())["vocab_size"]
    document["added_tokens"].append({**document["added_tokens"][-1], "id": top, "content": "<|one_more|>"})
    (folder / "tokenizer.json").write_text(json.dumps(document))


WRONG = [
    (lambda f: mend(f / "config.json", model_type="llama"), "'llama' model.*Qwen2 architecture"),
    (lambda f: (f / "config.json").write_text("{"), "config.json is not valid JSON"),
    (lambda f: mend(f / "config.json", hidden_size="wide"), "describes no Qwen2 model"),
    (lambda f: mend(f / "config.json", vocab_size=10), "disagree on the vocabulary"),
    (lambda f: mend(f / "config.json", num_hidden_layers=3, layer_types=["full_attention"] * 3), r"lacks the tensor model\.layers\.2"),
    (lambda f: mend(f / "config.json", num_hidden_layers=1, layer_types=["full_attention"]), r"holds model\.layers\.1.*knows nothing of"),
    (lambda f: mend(f / "config.json", intermediate_size=256), "where config.json says"),
    (lambda f: mend(f / "config.json", tie_word_embeddings=False), r"lacks the tensor lm_head\.weight"),
    (renamed_marker, r"no <\|fim_middle\|>"),
    (one_token_more, r"'<\|one_more\|>' has id \d+ and the embedding has \d+ rows"),
    (lambda f: cut(f / "tokenizer.json"), "tokenizer.json cannot be read"),
    (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    (lambda f: cut(f / WEIGHTS), rf"{WEIGHTS} is cut off or damaged"),
    (lambda f: cut(f / WEIGHTS, 3), rf"{WEIGHTS} is cut off or damaged"),
    (lambda f: without(f / WEIGHTS, "model.norm.weight"), r"lacks the tensor model\.norm\.weight"),
    (lambda f: (f / WEIGHTS).rename(f / "pytorch.safetensors"), "neither model.safetensors nor"),
    (lambda f: (f / WEIGHTS).unlink(), "is no model folder"),
]


@pytest.mark.parametrize(("spoil", "words"), WRONG)
def test_a_wrong_model_folder_is_named(folder, spoil, words):
    spoil(folder)
    with pytest.raises(InputError, match=words):
        model_folder.check(folder)


def test_a_model_in_shards_is_taken_and_a_missing_or_cut_shard_is_named(sharded):
    assert model_folder.check(sharded)["model_type"] == "qwen2"
    second = sorted(sharded.glob("*.safetensors"))[1]
    whole = second.read_bytes()
    cut(second)
    with pytest.raises(InputError, match=rf"{second.name} is cut off"):
        model_folder.check(sharded)
    second.unlink()
    with pytest.raises(InputError, match=rf"lacks 1 of \d+ shards, the first is {second.name}"):
        model_folder.check(sharded)
    second.write_bytes(whole)
    without(second, next(iter(load_file(second))))
    with pytest.raises(InputError, match=rf"in {second.name}, which lacks it"):
        model_folder.check(sharded)


@pytest.fixture
def adapter(base, tmp_path) -> Path:
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    model_folder.save_adapter(model, tmp_path / "adapter", sha256_of(base))
    return tmp_path / "adapter"


def test_equal_adapters_are_equal_files(adapter):
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"])


def test_an_adapter_belongs_to_the_base_it_was_trained_on(adapter, base, folder):
    model_folder.check_adapter(adapter, base)
    tensors = load_file(folder / WEIGHTS)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(InputError, match=r"trained on a base of sha256 .*python -m phase2_train sft"):
        model_folder.check_adapter(adapter, folder)
    (adapter / model_folder.ORIGIN).unlink()
    model_folder.check_adapter(adapter, folder)  # shapes fit, and nothing says more


def test_the_commands_refuse_an_adapter_of_another_base(adapter, base, folder, tmp_path):
    tensors = load_file(folder / WEIGHTS)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, folder / WEIGHTS, {"format": "pt"})
    (tmp_path / "pairs.jsonl").write_text("")
    options = ["--base", str(folder), "--adapter", str(adapter), "--out", str(tmp_path / "out"), "--profile", "test"]
    for command in (["dpo", "--pairs", str(tmp_path / "pairs.jsonl")], ["pairs"]):
        done = CliRunner().invoke(app, [*command, *options])
        assert done.exit_code == 2 and "was trained on a base of sha256" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_adapter_of_other_shapes_is_refused_whatever_it_says(adapter, base, tmp_path):
    weights = adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    name = next(name for name in tensors if name.endswith("q_proj.lora_A.weight"))
    save_file({**tensors, name: torch.zeros(2, 64)}, weights)
    with pytest.raises(InputError, match=r"for another base: .*q_proj\.lora_A\.weight is \(2, 64\)"):
        model_folder.check_adapter(adapter, base)
    save_file({name.replace("layers.0", "layers.9"): tensor for name, tensor in tensors.items()}, weights)
    with pytest.raises(InputError, match=r"layers\.9.*has no such matrix"):
        model_folder.check_adapter(adapter, base)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda a: (a / "adapter_config.json").unlink(), "python -m phase2_train sft"),
        (lambda a: mend(a / "adapter_config.json", peft_type="LOHA"), "'LOHA' adapter, not LORA"),
        (lambda a: (a / "adapter_model.safetensors").unlink(), "adapter_model.safetensors is missing"),
        (lambda a: cut(a / "adapter_model.safetensors", 40), "is cut off or damaged"),
    ],
)
def test_a_wrong_adapter_folder_is_named(adapter, base, spoil, words):
    spoil(adapter)
    with pytest.raises(InputError, match=words):
        model_folder.check_adapter(adapter, base)


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (lambda f: cut(f / WEIGHTS), 2, "is cut off or damaged"),
        (lambda f: mend(f / "config.json", model_type="gpt2"), 2, "'gpt2' model"),
        (None, 5, "profile: tiny"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="one row is about a machine without CUDA")
def test_the_command_says_it_in_one_line_with_its_exit_code(folder, tmp_path, spoil, code, words):
    if spoil:
        spoil(folder)
    section = {"model": str(folder), "revision": None, "seed": 1, "device": "any" if spoil else "cuda"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"profile": "x", "x": {"base": section}}))
    arguments = ["base", "--out", str(tmp_path / "out"), "--params", str(tmp_path / "params.yaml")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == code, done.output
    assert words in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_the_device_that_the_base_was_resolved_for_is_remembered(base, tmp_path):
    from phase2_train.params import BaseParams

    assert base_model.wanted_device(base) == "any"
    base_model.run(tmp_path / "base", BaseParams(model=str(base), revision=None, seed=1, device="any"))
    assert base_model.wanted_device(tmp_path / "base") == "any"
    mend(tmp_path / "base" / "manifest.json", params={"base": {"device": "cuda"}})
    assert base_model.wanted_device(tmp_path / "base") == "cuda"
