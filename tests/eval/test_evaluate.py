"""The stage with real models: it goes on after a kill, does nothing twice, and its commands say what is wrong in one line."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from core.decode import Answer
from core.errors import InputError, MachineError
from core.records import read_parquet, write_json, write_parquet
from eval import evaluate, holes, models
from eval import report as reports
from eval.cli import app
from eval.params import EvaluateParams
from eval.rows import KEY, ROW, Ledger, stored_key


@pytest.fixture(scope="module")
def params(evaluated):
    """The section that the finished evaluation ran with, one model."""
    section = json.loads((evaluated.rows / "manifest.json").read_text())["params"]["evaluate"]
    return EvaluateParams.model_validate({**section, "models": ["base"]})


def rows_in(folder: Path, model: str) -> list[dict]:
    return list(read_parquet(folder / f"{model}.parquet", ""))


def test_every_model_answers_every_hole_in_the_same_order(evaluated):
    asked = [[(row["sample_id"], row["order"]) for row in rows_in(evaluated.rows, name)] for name in ("base", "merged", "q4_k_m")]
    assert asked[0] == asked[1] == asked[2] and len(asked[0]) == len(set(asked[0])) == 28
    manifest = json.loads((evaluated.rows / "manifest.json").read_text())
    assert manifest["counts"]["holes"] == {"test_file": 7, "test_repo": 7} and manifest["counts"]["left_out"]["over_limit"] == 10
    assert [(m["name"], m["parent"]) for m in manifest["counts"]["models"]] == [("base", None), ("merged", "base"), ("q4_k_m", "merged")]
    assert sorted(path.name for path in evaluated.rows.iterdir()) == ["base.parquet", "manifest.json", "merged.parquet", "q4_k_m.parquet"]


def test_equal_weights_are_equal_figures_whatever_the_engine(evaluated):
    base, q4 = rows_in(evaluated.rows, "base"), rows_in(evaluated.rows, "q4_k_m")  # both hold the base in float32
    assert [row["completion"] for row in base] == [row["completion"] for row in q4]
    assert [row["nats"] for row in base] == pytest.approx([row["nats"] for row in q4], rel=1e-3)


def _killed(samples, places, out, params):
    """Run, and die by SIGKILL in the middle of the third write."""
    torch.set_num_threads(1)
    kept, done = Ledger.add, []

    def add(self, rows):
        if len(done) == 2:
            with self.log.open("a") as log:
                log.write('{"sample_id": "torn')
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(kept(self, rows))

    Ledger.add = add
    evaluate.run(samples, places, out, params)


def test_a_killed_evaluation_goes_on_and_ends_in_the_same_bytes(evaluated, params, tmp_path, monkeypatch):
    out = tmp_path / "out" / "rows"
    process = multiprocessing.get_context("fork").Process(target=_killed, args=(evaluated.samples, evaluated.places, out, params))
    process.start()
    process.join(90)
    assert process.exitcode == -signal.SIGKILL
    assert [path.suffix for path in out.iterdir()] == [".jsonl"]  # nothing that looks finished

    added, keep = [], Ledger.add
    monkeypatch.setattr(Ledger, "add", lambda self, rows: (added.append(len(rows)), keep(self, rows)))
    evaluate.run(evaluated.samples, evaluated.places, out, params)
    assert sum(added) == 28 - 2 * params.batch
    assert (out / "base.parquet").read_bytes() == (evaluated.rows / "base.parquet").read_bytes()
    assert not list(out.glob("*.jsonl"))


def test_a_second_run_asks_no_model_and_gives_the_same_bytes(evaluated, monkeypatch, tmp_path):
    section = EvaluateParams.model_validate(json.loads((evaluated.rows / "manifest.json").read_text())["params"]["evaluate"])
    sources = reports.Sources(evaluated.rows, evaluated.samples, *[tmp_path / "none.json"] * 3, tmp_path)
    reports.run(sources, tmp_path / "first", section)
    before = {path.name: path.read_bytes() for path in evaluated.rows.iterdir()}
    monkeypatch.setattr(models, "opened", None)  # whoever asks fails
    evaluate.run(evaluated.samples, evaluated.places, evaluated.rows, section)
    reports.run(sources, tmp_path / "second", section)
    assert {path.name: path.read_bytes() for path in evaluated.rows.iterdir()} == before
    for name in ("metrics.json", "report.md", "report.html", "plots/quality.csv", "plots/loss.csv"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name
    timing = json.loads((evaluated.rows.parent / "runs" / "evaluate.json").read_text())
    assert timing["reused"] == ["base", "merged", "q4_k_m"]


def test_what_shapes_a_row_is_in_its_key(evaluated, params, vocabulary):
    held, _ = holes.read(evaluated.samples, params.splits, params.holes)
    asked, _ = holes.ask(held, params.orders, vocabulary, params.max_new_tokens)
    base, merged = models.chain(["base", "merged"], evaluated.places)
    where = models.machine("any").reason
    key = evaluate.key_of(base, asked, params, where)
    assert stored_key(evaluated.rows / "base.parquet") == key
    others = [
        evaluate.key_of(merged, asked, params, where),
        evaluate.key_of(base._replace(bits=4), asked, params, where),
        evaluate.key_of(base, asked[1:], params, where),
        evaluate.key_of(base, asked, params, "another machine"),
        evaluate.key_of(base, asked, params.model_copy(update={"max_new_tokens": 9}), where),
    ]
    assert key not in others and len(set(others)) == 5
    assert evaluate.key_of(base, asked, params.model_copy(update={"bootstrap": 999, "gate": "fail"}), where) == key


def test_a_log_torn_twice_keeps_every_whole_row(tmp_path):
    ledger = Ledger(tmp_path, "base", "k" * 64)
    for number in range(3):
        ledger.add([{"sample_id": f"{number} naïve"}])
        with ledger.log.open("ab") as log:
            log.write('{"sample_id": "naï'.encode()[:-1])  # a kill in the middle of a character
        assert [row["sample_id"] for row in ledger.started()] == [f"{at} naïve" for at in range(number + 1)]


def test_a_damaged_file_of_rows_is_asked_again(tmp_path):
    ledger = Ledger(tmp_path, "base", "k" * 64)
    (tmp_path / "base.parquet").write_bytes(b"PAR1 torn")
    assert not ledger.finished and ledger.started() == []
    ledger.finish([])
    assert ledger.finished and not Ledger(tmp_path, "base", "other").finished


def test_a_secret_in_a_completion_is_counted_and_never_stored(evaluated, vocabulary):
    key = "gh" + "p_" + "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"
    held, _ = holes.read(evaluated.samples, ["test_file"], 1)
    (asked,), _ = holes.ask(held, ["spm"], vocabulary, 8)
    row = evaluate.row_of(asked, Answer(vocabulary.codec.plain(f'token = "{key}"\n'), "end", 1.5), vocabulary)
    assert row["leaks"] and key not in json.dumps(row) and key[4:20] not in row["completion"]
    assert set(row) == set(ROW.names)


def test_an_adapter_answers_as_the_model_it_is_merged_into(evaluated, base, tmp_path, capsys):
    """SFT runs as base and adapter; merging gives the same text and, but for rounding, the same loss."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
        adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    adapted.save_pretrained(tmp_path / "sft" / "adapter")
    adapted.merge_and_unload().save_pretrained(tmp_path / "merge")
    write_json(tmp_path / "sft" / "manifest.json", {"params": {"sft": {"bits": 16}}})
    write_json(tmp_path / "merge" / "manifest.json", {"counts": {"shipped": "sft"}})
    places = evaluated.places._replace(sft=tmp_path / "sft", merged=tmp_path / "merge")
    section = EvaluateParams.model_validate(
        json.loads((evaluated.rows / "manifest.json").read_text())["params"]["evaluate"] | {"models": ["base", "sft", "merged"], "holes": 4}
    )
    evaluate.run(evaluated.samples, places, tmp_path / "out" / "rows", section)
    if models.machine("any").device == "cpu":  # equal weights are not asked twice
        assert "merged: the weights of sft, bit for bit" in capsys.readouterr().err
    base_rows, sft, merged = (rows_in(tmp_path / "out" / "rows", name) for name in ("base", "sft", "merged"))
    assert [row["completion"] for row in sft] == [row["completion"] for row in merged]
    assert [row["nats"] for row in sft] == pytest.approx([row["nats"] for row in merged], rel=1e-4)
    with torch.no_grad():
        halved = AutoModelForCausalLM.from_pretrained(tmp_path / "merge", dtype=torch.float32)
        halved.model.layers[0].mlp.down_proj.weight[0, 0] *= 0.5
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "merge", dtype=torch.float32)
    again = models.load(base, tmp_path / "sft" / "adapter", 16, models.machine("any"))
    if models.machine("any").device == "cpu":
        assert models.weights_of(whole) == models.weights_of(again) != models.weights_of(halved)
    assert [row["nats"] for row in sft] != pytest.approx([row["nats"] for row in base_rows], rel=1e-3)
    assert [one.parent for one in models.chain(["base", "sft", "merged"], places)] == [None, "base", "sft"]
    write_json(tmp_path / "sft" / "manifest.json", {"params": {"sft": {"bits": 4}}})
    assert [one.bits for one in models.chain(["base", "sft", "merged"], places)] == [16, 4, 16]


# ---- commands


@pytest.fixture
def command(evaluated, tmp_path):
    """Run `eval <name>` on a copy of the finished evaluation, with some params changed."""
    copy = Path(shutil.copytree(evaluated.rows.parent, tmp_path / "out")) / "rows"
    section = json.loads((evaluated.rows / "manifest.json").read_text())["params"]["evaluate"]

    def run(name="run", places=evaluated.places, samples=evaluated.samples, rows=copy, options=(), **changed):
        (tmp_path / "params.yaml").write_text(yaml.safe_dump({"profile": "mine", "mine": {"evaluate": section | changed}}))
        where = {"samples": samples, "rows": rows, "out": tmp_path / "reports", "params": tmp_path / "params.yaml", "root": tmp_path}
        where |= {"quantize": tmp_path / "q.json", "serve": tmp_path / "s.json", "card": tmp_path / "c.json"}
        if name == "run":
            where |= places._asdict()
        return CliRunner().invoke(app, [name, *(part for key, value in where.items() for part in (f"--{key}", str(value))), *options])

    return run


def test_a_model_visibly_worse_fails_the_gate_if_it_is_set(command, tmp_path):
    by_loss = command(gate="fail")  # merged writes what the base writes, with a visibly higher loss
    assert by_loss.exit_code == 0 and "merged against base: worse by loss only" in by_loss.output
    for name, exact in (("base", True), ("merged", False)):
        file = tmp_path / "out" / "rows" / f"{name}.parquet"
        schema = ROW.with_metadata({KEY: stored_key(file).encode()})
        write_parquet(file, [row | {"exact": exact} for row in list(read_parquet(file, ""))], schema)
    warned, failed = command(gate="warn"), command(gate="fail")
    assert warned.exit_code == 0 and "merged against base: worse\n" in warned.output
    assert failed.exit_code == 4
    assert [line for line in failed.output.splitlines() if line.startswith("error: ")] == [
        f"error: merged is worse than base: read {tmp_path}/reports/report.md, or set evaluate.gate to warn"
    ]
    assert (tmp_path / "reports" / "report.html").is_file()  # the report is there either way


@pytest.mark.parametrize(
    ("lacks", "says"),
    [
        ({"base": "gone"}, "python -m phase2_train base"), ({"merged": "gone"}, "python -m phase3_quantize merge"),
        ({"gguf": "gone.gguf"}, "python -m phase3_quantize quantize"), ({"sft": "gone"}, "python -m phase2_train sft"),
        ({"dpo": "gone"}, "python -m phase2_train dpo"),
    ],
)  # fmt: skip
def test_a_missing_model_is_one_line_that_names_its_command(command, evaluated, tmp_path, lacks, says):
    names = ["base", "sft"] if "sft" in lacks else ["base", "dpo"] if "dpo" in lacks else ["base", "merged", "q4_k_m"]
    places = evaluated.places._replace(**{key: tmp_path / value for key, value in lacks.items()})
    _one_line(command(places=places, models=names), 2, says)


def test_missing_samples_rows_and_params_are_one_line(command, tmp_path):
    _one_line(command(samples=tmp_path / "gone"), 2, "python -m phase1_data samples")
    _one_line(command("report", rows=tmp_path / "gone"), 2, "python -m eval run")
    _one_line(command(holes=-1), 2, "mine.evaluate.holes")
    _one_line(command(typo=1), 2, "mine.evaluate.typo: no such key")
    _one_line(command(options=["--profile", "none"]), 2, "no profile 'none'")
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "manifest.json").write_text("{}")
    _one_line(command("report", rows=tmp_path / "rows"), 2, "not of this version: run `python -m eval run` again")
    (tmp_path / "q.json").write_text("{torn")
    _one_line(command("report"), 2, "q.json is not valid JSON")


def _one_line(result, code, says):
    lines = result.output.strip().splitlines()
    assert result.exit_code == code, result.output
    assert len(lines) == 1 and lines[0].startswith("error: ") and says in lines[0], result.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_where_there_is_none(command):
    with pytest.raises(MachineError, match="evaluate"):
        models.machine("cuda")
    _one_line(command(device="cuda"), 5, "evaluate.device is cuda")


def test_the_package_without_arguments_shows_its_commands():
    done = subprocess.run([sys.executable, "-m", "eval"], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert "run" in done.stdout + done.stderr and "report" in done.stdout + done.stderr and "Traceback" not in done.stderr


def test_a_chain_links_each_model_to_its_nearest_ancestor(evaluated, tmp_path):
    links = {one.name: one.parent for one in models.chain(["base", "q4_k_m"], evaluated.places)}
    assert links == {"base": None, "q4_k_m": "base"}
    with pytest.raises(InputError, match=r"take dpo out of evaluate\.models"):
        models.chain(["base", "dpo"], evaluated.places)
