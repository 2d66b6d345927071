"""Where a base comes from, and what is said when it cannot be had."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from core.errors import CheckFailed, InputError
from phase2_train import dpo, pairs, sft
from phase2_train.card import markdown
from phase2_train.rows import load_codec
from phase2_train.watch import Watch

ROOT = Path(__file__).parents[2]


def command(tmp_path, section: dict, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump({"profile": "x", "x": section}))
    return subprocess.run(
        [sys.executable, "-m", "phase2_train", *arguments, "--params", str(params)],
        cwd=ROOT, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **environment},
    )  # fmt: skip


@pytest.mark.timeout(120)
def test_a_hub_that_cannot_be_reached_is_one_line_and_exit_3(tmp_path):
    started = time.monotonic()
    section = {"base": {"model": "somebody/some-model", "revision": None, "seed": 1, "device": "any"}}
    done = command(tmp_path, section, "base", "--out", str(tmp_path / "base"), HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("error: cannot fetch somebody/some-model") and done.stderr.count("\n") == 1
    assert not (tmp_path / "base").exists()
    assert time.monotonic() - started < 60


def test_a_params_typo_is_one_line_and_exit_2(tmp_path):
    done = command(
        tmp_path, {"base": {"modle": "random", "revision": None, "seed": 1, "device": "any"}}, "base", "--out", str(tmp_path / "base")
    )
    assert done.returncode == 2
    assert "x.base" in done.stderr and done.stderr.count("\n") == 1


def test_missing_adapters_and_pairs_name_the_command(tmp_path, base, samples):
    with pytest.raises(InputError, match="python -m phase2_train sft"):
        pairs.run(samples, base, tmp_path, tmp_path, None, None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="python -m phase2_train pairs"):
        dpo.read_pairs(tmp_path / "pairs.jsonl", load_codec(base), 1)


@pytest.mark.parametrize(
    ("line", "words"),
    [('{"prefix": 1', ":1: not JSON"), ('{"prefix": "a"}', "pair 1 lacks chosen, rejected, suffix"), ("", "holds 0 pairs")],
)
def test_bad_pairs_are_named(tmp_path, base, line, words):
    (tmp_path / "pairs.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=words):
        dpo.read_pairs(tmp_path / "pairs.jsonl", load_codec(base), 2)


def test_pairs_from_an_editor_are_taken(tmp_path, base):
    pair = {"pair_id": "e1", "prefix": "a = ", "suffix": "\n", "chosen": "1", "rejected": "2", "kind": "dismissed", "origin": "editor"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    codec = load_codec(base)
    (row,) = dpo.read_pairs(tmp_path / "pairs.jsonl", codec, 1)
    assert row["chosen_ids"] == [*codec.plain("1"), codec.tokens.end]


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    class State:
        global_step, max_steps = 3, 9

    with pytest.raises(CheckFailed, match=r"lower sft\.lr"):
        Watch("sft", tmp_path, 1.0).on_log(None, State(), None, logs={"loss": float("nan")})  # type: ignore[arg-type]


def test_lora_never_touches_the_tied_embedding():
    config = sft.lora_config(sft.LoraParams(r=4, alpha=8, dropout=0.0))
    assert config.target_modules == "all-linear" and not config.modules_to_save


def test_the_card_says_what_the_model_was_made_of():
    shape = {"layers": 4, "hidden": 256, "vocab": 6144}
    card = {
        "parameters": 4_700_000, "tokens": 19_000_000, "params": shape, "model_sha256": "ab" * 32,
        "packages": [{"package": "numpy", "version": "2.0", "license": "BSD-3-Clause", "files": 3, "bytes": 1000}],
        "begun_from": None, "scores": [], "curve": [{"step": 200, "tokens": 10, "valid": {"all": 3.0, "middle": 2.9}}],
    }  # fmt: skip
    text = markdown(card)
    for words in (
        "4.7M parameters",
        "19.0M tokens",
        "from scratch",
        "| numpy | 2.0 | BSD-3-Clause | 3 | 0.00 |",
        "| 200 | 10 | 3.000 | 2.900 |",
    ):
        assert words in text
