"""The comparison of trainers: what is counted, what is compared, and that both systems really run."""

import importlib.util
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from core.errors import InputError
from core.records import SAMPLE, write_parquet
from eval.bench import sft_bench, sft_table
from eval.cli import app

ROOT = Path(__file__).parents[2]
HAS_BASE = (ROOT / "phase2_train/tiny_base/model.safetensors").is_file()


def test_flops_of_a_token_at_the_shape_of_the_half_billion_model():
    # 24 layers of 14,909,440 weights in matrices: 6 N = 2.147e9; attention adds 12 * 24 * 896 * 1024
    assert sft_bench.flops_per_token(sft_bench.HALF_B, 1024) == 6 * 357_826_560 + 12 * 24 * 896 * 1024


def test_losses_are_compared_step_by_step_or_not_at_all():
    assert sft_bench.apart([[5, 2.0], [10, 1.5]], [[5, 2.0], [10, 1.25]]) == 0.25
    assert sft_bench.apart([[5, 2.0]], [[5, 2.0], [10, 1.25]]) is None


@pytest.mark.parametrize(("gpu", "peak"), [("NVIDIA H200", 989e12), ("NVIDIA A100-SXM4-80GB", 312e12), ("Tesla T4", 65e12), (None, None)])
def test_a_peak_is_found_by_the_name_of_the_gpu(gpu, peak):
    found = sft_bench.peak_flops(gpu)
    assert (found[1] if found else None) == peak


def test_l40s_is_no_l4():
    assert sft_bench.peak_flops("NVIDIA L40S") == ("L40S", 362e12) and sft_bench.peak_flops("NVIDIA L4") == ("L4", 121e12)


def test_a_width_that_is_none_and_too_few_rows_are_named(tmp_path):
    with pytest.raises(InputError, match="--bits 8"):
        sft_bench.widths([16, 8])
    assert sft_bench.widths([4, 16, 4]) == [16, 4]
    row = {"sample_id": "1", "file_id": "f", "repo": "r", "path": "p", "lang": "python", "split": "train", "order": "spm",
           "span_kind": "lines", "prefix": "a", "middle": "b", "suffix": "c", "context": [], "n_tokens": 3}  # fmt: skip
    write_parquet(tmp_path / "train.parquet", [row], SAMPLE)
    with pytest.raises(InputError, match="lower --rows"):
        sft_bench.chosen(tmp_path, 5)
    done = CliRunner().invoke(app, ["sft-bench", "--samples", str(tmp_path / "none")])
    assert done.exit_code == 2 and "python -m phase1_data samples" in done.output


def test_every_system_has_its_peer():
    names = [system.name for system in sft_bench.systems([16, 4])]
    assert names[:4] == ["plain trl, 16 bits", "tabsmith, 16 bits", "plain trl, 4 bits", "tabsmith, 4 bits"]
    assert (len(names) == 4) or importlib.util.find_spec("unsloth")


def test_the_table_says_what_was_measured():
    one = {"tokens_per_s": [90.0, 100.0], "ratio": [0.9, 1.0], "flops_per_token": 1e12, "losses": [], "apart": 0.0, "valid_loss": 1.5,
           "peak_memory_mb": 900.0, "peak_gpu_mb": 500.0}  # fmt: skip
    figures = {
        "tasks": {"base": {"systems": {"tabsmith, 16 bits": one}, "tokens_per_row": 300.0, "rows_per_step": 8}}, "steps": 10, "rounds": 2,
        "rows": 64, "gpu": "NVIDIA H200", "threads": "1", "versions": {"torch": "2"},
    }  # fmt: skip
    text = "\n".join(sft_table.lines(figures))
    assert "| tabsmith, 16 bits | 95 | 0.95 (0.90-1.00) | 0.0e+00 | 1.5000 | 900 | 500 | 9.6% |" in text
    assert "989 TFLOP/s" in text and "model FLOPs used" not in "\n".join(sft_table.lines(figures | {"gpu": None}))


@pytest.mark.slow
@pytest.mark.skipif(not HAS_BASE, reason="the shipped base is being made")
def test_both_systems_run_and_lose_the_same(tmp_path):
    from tokenizers import Tokenizer

    from core.fim import codec_of

    base = ROOT / "phase2_train/tiny_base"
    codec = codec_of(Tokenizer.from_file(str(base / "tokenizer.json")))
    write_parquet(tmp_path / "train.parquet", sft_bench.long_rows(64, codec), SAMPLE)
    options = f"--samples {tmp_path} --base {base} --rows 16 --steps 6 --rounds 1 --bits 16 --no-shape --profile test"
    done = CliRunner().invoke(app, ["sft-bench", *options.split(), "--json", str(tmp_path / "figures.json")])
    assert done.exit_code == 0, done.output
    figures = json.loads((tmp_path / "figures.json").read_text())["tasks"]["base"]["systems"]
    assert figures["tabsmith, 16 bits"]["apart"] < 1e-5
