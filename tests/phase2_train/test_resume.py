"""A training run that is killed or stopped at any step goes on as if nothing had been: same losses, same adapter, byte for byte."""

import functools
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from core.errors import InputError, MachineError, Stopped, errors_in_one_line
from core.manifest import sha256_of
from core.records import SAMPLE, write_jsonl, write_parquet
from phase2_train import dpo, resume, sft, watch
from phase2_train.params import DpoParams, FilterParams, LoraParams, SftParams
from phase2_train.resume import Checkpoints, damage, identity

from .conftest import MONITOR, sample_rows

SFT = SftParams(
    bits=4, engine="trl", lora=LoraParams(r=4, alpha=8, dropout=0.1), lr=0.01, warmup_share=0.1, epochs=2, max_steps=-1, batch=4,
    accumulate=1, eval_rows=4, eval_steps=4, patience=0, save_steps=2, max_row_tokens=512, seed=5,
    filter=FilterParams(top_share=0.0, bottom_share=0.0, max_nats=0.0, rows_per_file=1),
)  # fmt: skip
DPO = DpoParams(
    beta=0.2, loss=["sigmoid", "sft"], loss_weights=[1.0, 1.0], lr=0.001, warmup_share=0.0, epochs=1, max_steps=-1, batch=2,
    accumulate=1, save_steps=4, monitor=MONITOR, seed=5,
)  # fmt: skip
SPAWN = multiprocessing.get_context("forkserver")  # libraries are imported once, every run is a process of its own
SPAWN.set_forkserver_preload(["phase2_train.sft", "phase2_train.dpo"])


def strike(at: int, number: int, limit: int = 0) -> None:
    """Have a real signal sent to this very process in step `at`, or let no file grow beyond `limit` bytes from there."""

    class Striking(watch.Watch):
        def on_optimizer_step(self, args, state, control, **kwargs):
            if state.global_step + 1 == at and limit:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            elif state.global_step + 1 == at:
                os.kill(os.getpid(), number)

    sft.Watch = dpo.Watch = Striking


def child(run, args, at, number, limit, errors) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell leaves it for jobs in the background
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    if at:
        strike(at, number, limit)
    with errors_in_one_line():
        run(*args)


def in_a_process(tmp_path: Path, run, *args, at: int = 0, number: int = 0, limit: int = 0) -> tuple[int, str]:
    """Run to the end or to the signal; return exit code and stderr."""
    process = SPAWN.Process(target=child, args=(run, args, at, number, limit, tmp_path / "errors"))
    process.start()
    process.join()  # pytest-timeout looks after it
    return process.exitcode, (tmp_path / "errors").read_text()


def outcome(out: Path) -> dict:
    """Everything that must be the same: adapter, series, figures."""
    series = {path.name: path.read_text() for path in sorted((out / "dvclive/plots/metrics").glob("*.tsv"))}
    return {"adapter": sha256_of(out / "adapter"), "series": series, "metrics": json.loads((out / "metrics.json").read_text())}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As in the processes: sums in another order end in other digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Path:
    """20 short rows: 10 steps in batches of 4 over 2 epochs, the second of which begins after step 5."""
    folder = tmp_path_factory.mktemp("few")
    for name, count, seed in (("train", 20, 1), ("valid", 4, 2)):
        rows = [{**row, "prefix": row["prefix"][-60:], "suffix": row["suffix"][:40]} for row in sample_rows(count, seed)]
        write_parquet(folder / f"{name}.parquet", rows, SAMPLE)
    return folder


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, base, samples) -> dict:
    folder = tmp_path_factory.mktemp("unbroken")
    assert in_a_process(folder, sft.run, samples, base, folder / "sft", SFT)[0] == 0
    return outcome(folder / "sft")


def test_a_run_killed_again_and_again_ends_as_if_unbroken(tmp_path, base, samples, unbroken):
    out = tmp_path / "sft"
    for at, number, kept in ((3, signal.SIGKILL, 2), (5, signal.SIGTERM, 5), (7, signal.SIGINT, 7)):  # in, at the end of, after epoch 1
        code, said = in_a_process(tmp_path, sft.run, samples, base, out, SFT, at=at, number=number)
        if number == signal.SIGKILL:
            assert code == -signal.SIGKILL
        else:
            assert code == 75 and f"stopped at step {at}: run the same command" in said
        newest = max((out / "checkpoints").glob("step-*"))
        assert newest.name == f"step-{kept:08}" and damage(newest) is None
    assert all("lora_" in name for name in resume.load_file(newest / resume.WEIGHTS)), "only what is trained"
    shutil.rmtree(out / "dvclive")  # as `dvc repro` does with every output before it runs
    assert in_a_process(tmp_path, sft.run, samples, base, out, SFT)[0] == 0
    assert outcome(out) == unbroken
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["finished.json"], "the next run trains again"


PAIRS = [
    {"prefix": f"x{n} = ", "suffix": "\n", "chosen": f"{n}", "rejected": f"{n}\nprint(x{n})", "order": ("psm", "spm")[n % 2]}
    for n in range(12)
]  # fmt: skip


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, base, samples) -> Path:
    """The folder of a run that SIGTERM stopped at step 7: checkpoints of 6 and 7."""
    out = tmp_path_factory.mktemp("stopped") / "sft"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sft, "Watch", sft.Watch)
        strike(7, signal.SIGTERM)
        with pytest.raises(Stopped, match="step 7"):
            sft.run(samples, base, out, SFT)
    return out


@pytest.fixture
def out(stopped, tmp_path) -> Path:
    return shutil.copytree(stopped, tmp_path / "sft")


def test_dpo_killed_goes_on_as_if_unbroken(tmp_path, base, stopped):
    adapter = tmp_path / "adapter"
    model = sft.load_trainable(base, SFT, sft.machine())
    model.save_pretrained(adapter)
    write_jsonl(tmp_path / "pairs.jsonl", PAIRS)
    args = (tmp_path / "pairs.jsonl", base, adapter)
    assert in_a_process(tmp_path, dpo.run, *args, tmp_path / "whole", DPO, SFT)[0] == 0
    assert in_a_process(tmp_path, dpo.run, *args, tmp_path / "cut", DPO, SFT, at=5, number=signal.SIGKILL)[0] == -signal.SIGKILL
    weights = resume.load_file(tmp_path / "cut/checkpoints/step-00000004" / resume.WEIGHTS)
    assert not any(".ref." in name for name in weights), "the frozen reference is the adapter that went in, and no part of it"
    assert in_a_process(tmp_path, dpo.run, *args, tmp_path / "cut", DPO, SFT)[0] == 0
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(out, base, samples, unbroken, capsys):
    file = out / "checkpoints/step-00000007/optimizer.pt"
    file.write_bytes(file.read_bytes()[:-100])
    sft.run(samples, base, out, SFT)
    said = capsys.readouterr().out
    assert "step-00000007: optimizer.pt is missing or damaged; going back" in said and "going on from step 6" in said
    assert outcome(out)["adapter"] == unbroken["adapter"]


@pytest.mark.parametrize("ruin", ["manifest", "file"])
def test_every_kind_of_damage_is_seen(out, ruin):
    checkpoint = out / "checkpoints/step-00000007"
    if ruin == "manifest":
        (checkpoint / "manifest.json").write_text('{"files": [')
    else:
        (checkpoint / "scheduler.pt").unlink()
    assert damage(checkpoint) is not None and damage(out / "checkpoints/step-00000006") is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr": 0.02}, "sft.lr was 0.01 and is 0.02"),
        ({"lora": LoraParams(r=4, alpha=16, dropout=0.1)}, "sft.lora.alpha was 8 and is 16"),
        ({"batch": 8}, r"sft.batch \* accumulate was 4 and is 8"),
    ],
)
def test_a_changed_param_is_refused_by_its_name(out, base, samples, change, words):
    with pytest.raises(InputError, match=f"{words}.*--fresh"):
        sft.run(samples, base, out, SFT.model_copy(update=change))


def test_changed_data_are_refused_by_name_and_what_changes_nothing_is_not(stopped, samples, base):
    inputs = {"train rows": samples / "train.parquet", "valid rows": samples / "valid.parquet", "base model": base}
    mine = identity({"sft": SFT}, inputs, processes=1)
    same = SFT.model_copy(update={"save_steps": 1, "batch": 2, "accumulate": 2})
    assert identity({"sft": same}, inputs, processes=1) == mine, "2 x 2 rows are 4 x 1, and when it is saved is nobody's business"
    other = identity({"sft": SFT}, {**inputs, "train rows": samples / "valid.parquet"}, processes=1)
    assert [key for key in mine if mine[key] != other[key]] == ["train rows"]
    checkpoints = Checkpoints("sft", stopped / "checkpoints", other, 5, fresh=False)
    with pytest.raises(InputError, match=r"train rows was sha256 \w{16} and is sha256 \w{16}"):
        checkpoints.check()


def test_fresh_starts_over(out, base, samples, capsys):
    sft.run(samples, base, out, SFT.model_copy(update={"max_steps": 2}), fresh=True)
    assert "going on" not in capsys.readouterr().out


def test_a_disk_that_fills_up_at_a_checkpoint_is_named_and_the_one_before_stays(out, tmp_path, base, samples, unbroken):
    optimizer = (out / "checkpoints/step-00000007/optimizer.pt").stat().st_size
    code, said = in_a_process(tmp_path, sft.run, samples, base, out, SFT, at=8, limit=optimizer // 2)
    assert code == 5, said
    assert "cannot write the checkpoint of step 8" in said and "step 7 is there whole" in said and "Traceback" not in said
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-00000006", "step-00000007"]
    sft.run(samples, base, out, SFT)
    assert outcome(out)["adapter"] == unbroken["adapter"]


def test_too_little_room_is_said_before_the_first_step(out, base, samples, monkeypatch):
    monkeypatch.setattr(resume, "COPIES", 10**9)
    with pytest.raises(MachineError, match="MB for checkpoints"):
        sft.run(samples, base, out, SFT)


def test_signals_outside_of_steps_stop_at_once_and_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped), resume.STOP:
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command_in_the_background_hears_ctrl_c_and_goes_on(tmp_path, base, samples, unbroken):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"profile": "x", "x": {"sft": SFT.model_dump(mode="json")}}))
    options = {"--samples": samples, "--base": base, "--out": tmp_path / "sft", "--params": tmp_path / "params.yaml"}
    command = [sys.executable, "-m", "phase2_train", "sft", *(str(part) for option in options.items() for part in option)]
    ignoring = functools.partial(signal.signal, signal.SIGINT, signal.SIG_IGN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=ignoring)
    while process.poll() is None and not list((tmp_path / "sft").glob("checkpoints/step-*")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 75 and "run the same command to go on" in said and "Traceback" not in said
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert outcome(tmp_path / "sft") == unbroken
