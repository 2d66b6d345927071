"""dvc.yaml, params.yaml and the code agree: deps are imports, params sections are models, profiles are complete."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest
import yaml

from core.params import StageParams

ROOT = Path(__file__).parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
DOC = yaml.safe_load((ROOT / "params.yaml").read_text())
PROFILES = [name for name, block in DOC.items() if isinstance(block, dict)]
PACKAGES = ("core", "phase1_data", "phase2_train", "phase3_quantize", "phase4_serve", "eval")

# the module that a stage's command runs
ENTRY = {
    "base": ["phase2_train/base.py"],
    "ingest": ["phase1_data/ingest.py"],
    "clean": ["phase1_data/clean.py"],
    "scrub": ["phase1_data/scrub.py"],
    "samples": ["phase1_data/samples.py", "phase1_data/card.py"],
    "sft": ["phase2_train/sft.py"],
    "sft_gate": ["phase2_train/gate.py", "phase2_train/gate_table.py"],
    "pairs": ["phase2_train/pairs.py", "phase2_train/doctest_runner.py"],  # the second is executed, not imported
    "dpo": ["phase2_train/dpo.py"],
    "dpo_gate": ["phase2_train/gate.py", "phase2_train/gate_table.py"],
    "merge": ["phase3_quantize/merge.py"],
    "quantize": ["phase3_quantize/stage.py"],
    "choose": ["phase3_quantize/choose.py"],
    "serve": ["phase4_serve/smoke.py", "phase4_serve/launch.py", "phase4_serve/reader.py"],  # the others are executed, not imported
    "evaluate": ["eval/evaluate.py", "eval/leakage.py", "eval/report.py"],
}

# Benchmarks of what has no command and no file to be measured through
FROM_INSIDE = [
    f"eval/bench/{name}.py" for name in ("floor_bench", "heal_bench", "retrieval_bench", "retrieval_completion", "retrieval_scale")
]


def modules_of(file: Path) -> set[Path]:
    """Files of this repository that a file imports, wherever in it the import stands."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            path = ROOT / (name.replace(".", "/") + ".py")
            if name.split(".")[0] in PACKAGES and path.exists():
                found.add(path)
    return found


def closure(entries: list[str]) -> set[str]:
    """Every module that the entries import, and they themselves."""
    todo, seen = [ROOT / entry for entry in entries], set()
    while todo:
        file = todo.pop()
        if file not in seen:
            seen.add(file)
            todo += modules_of(file)
    return {file.relative_to(ROOT).as_posix() for file in seen}


def sections() -> dict[str, type[StageParams]]:
    """Section name to model, over all phases: `SftParams` is section `sft`."""
    models: dict[str, type[StageParams]] = {}
    for package in PACKAGES[1:]:
        module = importlib.import_module(f"{package}.params")
        for name, model in inspect.getmembers(module, inspect.isclass):
            if issubclass(model, StageParams) and name.endswith("Params") and model is not StageParams:
                models[name.removesuffix("Params").lower()] = model
    return models


def test_every_stage_has_an_entry_and_every_entry_a_stage():
    assert set(STAGES) == set(ENTRY)


@pytest.mark.parametrize("stage", sorted(ENTRY))
def test_deps_are_the_imported_modules(stage):
    listed = {dep for dep in STAGES[stage]["deps"] if dep.endswith(".py")}
    assert sorted(closure(ENTRY[stage])) == sorted(listed)


@pytest.mark.parametrize(
    "file",
    sorted(
        file.as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if "out" not in (file := path.relative_to(ROOT)).parts
    ),
)
def test_a_phase_imports_itself_and_core_only(file):
    allowed = {"core", file.split("/")[0]} | ({"phase4_serve"} if file in FROM_INSIDE else set())
    assert {path.relative_to(ROOT).parts[0] for path in modules_of(ROOT / file)} <= allowed


def test_no_stage_depends_on_a_benchmark():
    listed = {dep for stage in STAGES.values() for dep in stage["deps"]}
    assert not [dep for dep in listed if dep.startswith("eval/bench")]


@pytest.mark.parametrize("profile", PROFILES)
def test_every_section_is_valid_and_known(profile):
    known = sections()
    for section, values in DOC[profile].items():
        assert section in known, f"{profile}.{section} has no model"
        known[section].model_validate(values)


@pytest.mark.parametrize("profile", [name for name in PROFILES if name != "base"])
def test_a_profile_has_every_section_that_the_stages_track(profile):
    tracked = {param.split(".", 1)[1] for stage in STAGES.values() for param in stage.get("params", [])}
    assert set(DOC[profile]) == tracked


def test_models_have_no_defaults():
    for model in sections().values():
        assert all(field.is_required() for field in model.model_fields.values()), model


def test_outputs_are_made_once_and_read_later():
    made: set[str] = set()
    for stage in STAGES.values():
        outs = [out if isinstance(out, str) else next(iter(out)) for out in stage.get("outs", []) + stage.get("metrics", [])]
        assert not made & set(outs)
        made |= set(outs)
