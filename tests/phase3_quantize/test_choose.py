"""The table is complete, the recommendation follows its rule, and the files it is about are kept."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InputError
from core.records import read_json
from phase3_quantize import choose, convert, imatrix, mix
from phase3_quantize.mix import Group
from phase3_quantize.params import ChooseParams

PARAMS = ChooseParams(types=["Q4_0", "Q8_0", "MIX32_M"], holes=4, rounds=1, threads=1)
KEYS = {"name", "type", "imatrix", "bytes", "bits_per_weight", "kl_mean", "kl_p99", "same_top1", "exact", "exact_n", "prompt_tps",
        "generate_tps", "memory_mb", "ttft_ms", "pareto"}  # fmt: skip


@pytest.fixture(scope="module")
def chosen(model_224: Path, samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phase3") / "out"
    full = root / "quantize" / "model-f32.gguf"
    convert.run(model_224, full, "f32")
    imatrix.run(model_224, samples, full.with_name("imatrix.gguf"), 4)
    choose.run(full, full.with_name("imatrix.gguf"), model_224, samples, root / "choose", PARAMS)
    return root / "choose"


def test_every_type_is_measured_with_and_without_importance(chosen: Path) -> None:
    said = read_json(chosen / "choose.json", "")
    assert {row["name"] for row in said["rows"]} == {
        "Q4_K_M", "Q4_K_M + imatrix", "Q4_0", "Q4_0 + imatrix", "Q8_0", "MIX32_M", "MIX32_M + imatrix",
    }  # fmt: skip
    assert all(row.keys() == KEYS for row in said["rows"])
    assert said["default"] == "Q4_K_M"
    assert said["holes"] == 4
    by_name = {row["name"]: row for row in said["rows"]}
    assert by_name["Q8_0"]["kl_mean"] < by_name["Q4_K_M"]["kl_mean"] < by_name["Q4_0"]["kl_mean"]
    assert by_name["Q8_0"]["pareto"]
    assert all(row["prompt_tps"] > 0 and row["generate_tps"] > 0 and row["ttft_ms"] > 0 for row in said["rows"])


def test_the_recommended_file_is_kept_and_nothing_else(chosen: Path) -> None:
    said = read_json(chosen / "choose.json", "")
    assert {file.name for file in chosen.iterdir()} == {"choose.json", "pareto.csv", "recommended.gguf", "manifest.json"}
    row = next(row for row in said["rows"] if row["name"] == said["recommended"])
    assert (chosen / "recommended.gguf").stat().st_size == row["bytes"]
    points = list(csv.DictReader((chosen / "pareto.csv").open()))
    assert [float(point["megabytes"]) for point in points] == sorted(float(point["megabytes"]) for point in points)
    assert len(points) == len(said["rows"])


def row(name: str, size: int, nats: float, prompt: float = 1.0, generate: float = 1.0) -> dict[str, Any]:
    return {"name": name, "bytes": size, "kl_mean": nats, "prompt_tps": prompt, "generate_tps": generate}


RIGHT = [True] * 20


@pytest.mark.parametrize(
    ("other", "exact", "wanted"),
    [
        (row("x", 90, 0.05, 2, 2), RIGHT, "x"),
        (row("x", 110, 0.01, 2, 2), RIGHT, "Q4_K_M"),  # not smaller
        (row("x", 90, 0.05, 0.9, 2), RIGHT, "Q4_K_M"),  # reads slower
        (row("x", 90, 0.05, 2, 1), RIGHT, "Q4_K_M"),  # writes no faster
        (row("x", 90, 0.07, 2, 2), RIGHT, "Q4_K_M"),  # further from the full model
        (row("x", 90, 0.05, 2, 2), [False] * 6 + RIGHT[6:], "Q4_K_M"),  # visibly worse at exact match
        (row("x", 90, 0.05, 2, 2), [False] * 3 + RIGHT[3:], "x"),  # 3 of 20 holes are not visible
    ],
)
def test_the_default_stays_until_another_dominates_it(other: dict[str, Any], exact: list[bool], wanted: str) -> None:
    name, reason = choose.recommend([row("Q4_K_M", 100, 0.06), other], {"Q4_K_M": RIGHT, "x": exact})
    assert name == wanted
    assert "Q4_K_M" in reason


def test_importance_that_helps_is_what_another_file_has_to_dominate() -> None:
    rows = [row("Q4_K_M", 100, 0.06), row("Q4_K_M + imatrix", 100, 0.04), row("x", 90, 0.05, 2, 2), row("y", 95, 0.04, 2, 2)]
    exact = {r["name"]: RIGHT for r in rows}
    assert choose.recommend(rows, exact)[0] == "y"
    assert choose.recommend(rows[:3], exact)[0] == "Q4_K_M + imatrix"
    rows[1]["kl_mean"] = 0.07
    assert choose.recommend(rows[:3], exact)[0] == "x"


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50)), min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    rows = [row(str(i), size, nats) for i, (size, nats) in enumerate(points)]
    front = [(r["bytes"], r["kl_mean"]) for r in rows if choose.on_front(r, rows)]
    assert (min(points)) in front
    assert all(any(f[0] <= size and f[1] <= nats for f in front) for size, nats in points)
    assert not any(a != b and a[0] <= b[0] and a[1] <= b[1] for a in front for b in front)


def test_missing_importance_names_the_command_that_makes_it(model_224: Path, samples: Path, tmp_path: Path) -> None:
    (tmp_path / "full.gguf").write_bytes(b"")
    with pytest.raises(InputError, match="phase3_quantize imatrix"):
        choose.run(tmp_path / "full.gguf", tmp_path / "no.gguf", model_224, samples, tmp_path / "choose", PARAMS)


GROUPS = {"ffn_up": Group(1000, frozenset({896})), "attn_v": Group(10, frozenset({896})), "ffn_down": Group(900, frozenset({4864}))}
ADDED = {
    "ffn_up": {"Q8_0": 0.0, "Q4_0": 0.03, "IQ4_NL": 0.02, "Q5_0": 0.01},
    "attn_v": {"Q8_0": 0.0, "Q4_0": 0.05, "IQ4_NL": 0.04, "Q5_0": 0.01},
    "ffn_down": {"Q8_0": 0.0, "Q4_0": 0.06, "IQ4_NL": 0.03, "Q5_K": 0.01},
}


def test_the_cheapest_mix_pays_where_a_byte_buys_most() -> None:
    assert mix.cheapest(ADDED, GROUPS, 1.0) == {"ffn_up": "IQ4_NL", "attn_v": "IQ4_NL", "ffn_down": "IQ4_NL"}
    assert mix.cheapest(ADDED, GROUPS, 0.05) == {"ffn_up": "IQ4_NL", "attn_v": "Q8_0", "ffn_down": "IQ4_NL"}
    assert mix.cheapest(ADDED, GROUPS, 0.0) == {"ffn_up": "Q8_0", "attn_v": "Q8_0", "ffn_down": "Q8_0"}


def test_a_search_ends_at_or_below_its_target() -> None:
    read = 0

    def divergence(tried: mix.Mix) -> float:
        nonlocal read
        read += 1
        return 0.004 + 1.2 * sum(ADDED[name].get(kind, 0.02) for name, kind in tried.items())  # together worse than the sum

    found, added = mix.search(GROUPS, divergence, 0.06)
    assert divergence(found) <= 0.06
    assert set(found.values()) != {"Q8_0"}
    assert "Q4_K" not in added["ffn_up"]  # 896 columns
    assert "Q4_K" in added["ffn_down"]
    assert read < 40
