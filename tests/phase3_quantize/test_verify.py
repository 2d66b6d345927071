"""The f32 GGUF is the merged model, token for token; a file that is not is found out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from tokenizers import Tokenizer
from typer.testing import CliRunner

from core.errors import CheckFailed, InputError
from core.fim import codec_of
from core.records import SAMPLE, write_parquet
from phase3_quantize import convert, merge, quantize, stage, verify
from phase3_quantize.cli import app
from phase3_quantize.engine import GgufModel
from phase3_quantize.params import MergeParams, QuantizeParams
from tests.phase3_quantize.conftest import make_model

PARAMS = QuantizeParams(
    type="Q4_K_M", threads=1, verify_prompts=4, verify_tokens=32, stop_tokens=16, min_stop_share=0.0, imatrix=False, imatrix_rows=8
)


@pytest.fixture(scope="module")
def made(model_224: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with merge/ and both files of quantize/."""
    root = tmp_path_factory.mktemp("made")
    merge.run(model_224, None, root / "merge", MergeParams(adapter="none", onto="full", rows=4))
    convert.run(root / "merge", root / "quantize" / "model-f32.gguf", "f32")
    quantize.run(root / "quantize" / "model-f32.gguf", root / "quantize" / "model-q4_k_m.gguf", "Q4_K_M", 1)
    return root


def check(root: Path, samples: Path, params: QuantizeParams = PARAMS) -> dict:
    return verify.run(root / "merge", root / "quantize" / "model-f32.gguf", root / "quantize" / "model-q4_k_m.gguf", samples, params)


def test_converted_model_completes_as_the_merged_one_in_both_orders(made: Path, samples: Path) -> None:
    found = check(made, samples)
    assert found["equality"]["prompts"] == 8  # four holes, two orders
    assert found["equality"]["tokens"] > 100
    assert found["equality"]["largest_logit_difference"] < 1e-3
    assert found["tokenizer_texts"] >= 50
    assert 0 < found["quantization"]["kl_mean"] < 1
    assert found["quantization"]["middle_tokens"] > 8
    assert 0 <= found["stops_by_itself"]["share"] <= 1


def test_another_models_weights_are_found_out(made: Path, samples: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(made, tmp_path / "root"))
    other = make_model(tmp_path / "other", hidden=224, seed=4)
    convert.run(other, root / "quantize" / "model-f32.gguf", "f32")
    with pytest.raises(CheckFailed, match="8 of 8 greedy completions"):
        check(root, samples)


def test_another_tokenizer_is_found_out(made: Path, samples: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(made, tmp_path / "root"))
    file = root / "merge" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][::-1]
    file.write_text(json.dumps(tokenizer))
    with pytest.raises(CheckFailed, match="tokenizes"):
        check(root, samples)


def test_files_of_another_shape_and_cut_files_are_refused(made: Path, model_256: Path, samples: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(made, tmp_path / "root"))
    small = root / "quantize" / "model-q4_k_m.gguf"
    small.write_bytes(small.read_bytes()[:-100])
    with pytest.raises(InputError, match="phase3_quantize quantize"):
        check(root, samples)
    convert.run(model_256, root / "quantize" / "model-f32.gguf", "f32")
    with pytest.raises(InputError, match="was not made from"):
        check(root, samples)


def test_only_steps_decided_by_rounding_may_differ(made: Path, samples: Path) -> None:
    """The completion is changed to the runner-up at step 3: forgiven where the gap is tiny, an error where it is not."""
    codec = codec_of(Tokenizer.from_file(str(made / "merge" / "tokenizer.json")))
    prompt = verify.prompts_of(codec, verify.read_holes(samples, 1))[0]
    [wanted] = verify.greedy_original(made / "merge", [prompt], 4, codec.tokens.end)
    with GgufModel(made / "quantize" / "model-f32.gguf", 256, 1) as model:
        assert verify.compare(model, prompt, wanted)[:2] == (None, 0)
        wanted.tokens[3] = int(wanted.best[3][1])
        assert verify.compare(model, prompt, wanted)[:2] == (3, 0)
        wanted.gaps[3] = verify.NEAR_TIE / 2
        assert verify.compare(model, prompt, wanted)[:2] == (None, 1)


def test_a_model_that_does_not_stop_fails_where_the_params_ask_for_it(made: Path, samples: Path) -> None:
    with pytest.raises(CheckFailed, match="min_stop_share"):
        check(made, samples, PARAMS.model_copy(update={"min_stop_share": 1.0, "stop_tokens": 1}))


def test_generation_ends_at_every_marker_that_begins_something_else(made: Path) -> None:
    tokenizer = Tokenizer.from_file(str(made / "merge" / "tokenizer.json"))
    with GgufModel(made / "quantize" / "model-q4_k_m.gguf", 64, 1) as model:
        verify.check_ends(model, tokenizer)
        assert not model.ends(tokenizer.token_to_id("a"))


def test_holes_are_spread_over_the_file_and_an_empty_one_is_named(samples: Path, tmp_path: Path) -> None:
    assert [hole.middle for hole in verify.read_holes(samples, 2)] == ["a + b", "'naïve 你好'"]
    assert len(verify.read_holes(samples, 99)) == 4
    write_parquet(tmp_path / "none.parquet", [], SAMPLE)
    for file in ("none.parquet", "missing.parquet"):
        with pytest.raises(InputError, match="phase1_data samples"):
            verify.read_holes(tmp_path / file, 3)


@pytest.fixture
def params_file(tmp_path: Path) -> Path:
    file = tmp_path / "params.yaml"
    file.write_text(
        yaml.safe_dump({"profile": "t", "t": {"merge": {"adapter": "none", "onto": "full", "rows": 4}, "quantize": PARAMS.model_dump()}})
    )
    return file


def test_stage_by_command_line_is_repeatable_to_the_byte(model_256: Path, samples: Path, params_file: Path, tmp_path: Path) -> None:
    common = ["--params", str(params_file)]
    folder, out = tmp_path / "out" / "merge", tmp_path / "out" / "quantize"
    before: dict[str, bytes] = {}
    for _ in range(2):
        done = CliRunner().invoke(app, ["merge", "--base", str(model_256), "--out", str(folder), *common])
        assert done.exit_code == 0, done.output
        done = CliRunner().invoke(
            app, ["run", "--model", str(folder), "--train", str(samples), "--samples", str(samples), "--out", str(out), *common]
        )
        assert done.exit_code == 0, done.output
        assert "greedy tokens of 8 prompts equal" in done.stdout
        after = {file.name: file.read_bytes() for file in sorted(out.iterdir())}
        assert after.keys() == {"imatrix.gguf", "manifest.json", "model-f32.gguf", "model-q4_k_m.gguf", "quantize.json"}
        assert not before or after == before
        before = after
    figures = json.loads(before["quantize.json"])
    assert figures["quantized"]["bytes"] == len(before["model-q4_k_m.gguf"])
    assert (tmp_path / "out" / "runs" / "quantize.json").is_file()


def test_failed_check_is_exit_4_and_leaves_no_figures_that_vouch(model_256: Path, samples: Path, params_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "quantize"
    stage.run(model_256, samples, samples, out, PARAMS)
    strict = yaml.safe_load(params_file.read_text())
    strict["t"]["quantize"] |= {"min_stop_share": 1.0, "stop_tokens": 1}
    params_file.write_text(yaml.safe_dump(strict))
    command = [
        "run",
        "--model",
        str(model_256),
        "--train",
        str(samples),
        "--samples",
        str(samples),
        "--out",
        str(out),
        "--params",
        str(params_file),
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 4
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert not (out / "quantize.json").exists() and not (out / "manifest.json").exists()


@pytest.mark.parametrize("command", ["merge", "convert", "quantize", "verify", "run"])
def test_missing_input_names_the_command_that_makes_it(
    command: str, params_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [command, *([] if command in ("convert", "quantize") else ["--params", str(params_file)])])
    assert done.exit_code == 2
    assert "run `python -m phase" in done.stderr and done.stderr.count("\n") == 1
