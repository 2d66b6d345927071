"""The same command line under a launcher: several processes train together, one of them speaks and writes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
SECTION = {
    "bits": 16, "engine": "trl", "lora": {"r": 4, "alpha": 8, "dropout": 0.0}, "lr": 0.01, "warmup_share": 0.1, "epochs": 1, "max_steps": 3,
    "batch": 4, "accumulate": 1, "eval_rows": 4, "eval_steps": 3, "patience": 0, "save_steps": 2,
    "filter": {"top_share": 0.0, "bottom_share": 0.0, "max_nats": 0.0, "rows_per_file": 1}, "max_row_tokens": 512, "seed": 5,
}  # fmt: skip
LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
    "accelerate": ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "{port}"],
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.timeout(300)
def test_two_processes_train_one_adapter(launcher, base, samples, tmp_path):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"profile": "x", "x": {"sft": SECTION}}))
    options = {"--samples": samples, "--base": base, "--out": tmp_path / "sft", "--params": tmp_path / "params.yaml"}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    launch = [part.format(port=port) for part in LAUNCHERS[launcher]]
    command = ["-m", *launch, "-m", "phase2_train", "sft", *(str(part) for option in options.items() for part in option)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("adapter: loss on held-out middles") == 1 and done.stdout.count("chosen for this machine") == 1
    assert done.stderr.count("step 3/3") == 1
    record = json.loads((tmp_path / "runs" / "sft.json").read_text())["choices"]
    assert record["processes"]["value"] == "2" and record["rows per step"]["value"] == "8"
    metrics = json.loads((tmp_path / "sft" / "metrics.json").read_text())
    assert metrics["valid_loss"] < metrics["valid_loss_before"]
    assert load_file(tmp_path / "sft" / "adapter" / "adapter_model.safetensors")
    assert not list((tmp_path / "sft").glob("*.partial")) and not list((tmp_path / "sft" / "checkpoints").glob("*step*"))
