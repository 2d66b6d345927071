"""The pages: they say what the figures say, need nothing beside them, and trust no completion."""

import csv
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from core.errors import InputError
from core.records import read_parquet, write_json, write_parquet
from eval import page, page_charts
from eval import report as reports
from eval.document import Bars, Chart, Code, Example, Fact, Folded, Heading, Mark, Point, Scatter, StepRow, Table, Text, markdown
from eval.params import EvaluateParams
from eval.rows import ROW

from .browser import CHROMIUM, look

HOSTILE = "<script>alert(1)</script>\n</pre><img src=x onerror=alert(2)> &amp; ````\n`code` **strong** | cell"


@pytest.fixture
def evaluation(evaluated, tmp_path):
    """A copy of the finished evaluation; returns its params and Sources without any optional file."""
    rows = tmp_path / "out" / "rows"
    shutil.copytree(evaluated.rows.parent, tmp_path / "out")
    params = EvaluateParams.model_validate(json.loads((rows / "manifest.json").read_text())["params"]["evaluate"])
    return params, reports.Sources(
        rows, evaluated.samples, *(tmp_path / name for name in ("q.json", "s.json", "c.json")), tmp_path / "root"
    )


def change(rows: Path, model: str, with_row) -> None:
    """Rewrite a model's rows: `with_row(index, row)` gives the keys to replace."""
    found = list(read_parquet(rows / f"{model}.parquet", ""))
    write_parquet(rows / f"{model}.parquet", [row | with_row(at, row) for at, row in enumerate(found)], ROW)


def set_chain(rows: Path, names: list[tuple[str, str | None]]) -> None:
    """Pretend that other models were asked, with the rows of the base."""
    manifest = json.loads((rows / "manifest.json").read_text())
    manifest["counts"]["models"] = [manifest["counts"]["models"][0] | {"name": name, "parent": parent} for name, parent in names]
    manifest["params"]["evaluate"]["models"] = [name for name, _ in names]
    write_json(rows / "manifest.json", manifest)
    for name, _ in names:
        if name != "base":
            shutil.copy(rows / "base.parquet", rows / f"{name}.parquet")


def written(sources, out: Path, params) -> tuple[str, str, dict]:
    reports.run(sources, out, params)
    return (out / "report.md").read_text(), (out / "report.html").read_text(), json.loads((out / "metrics.json").read_text())


class Balanced(HTMLParser):
    """Checks that every element is closed where it was opened; collects names, attributes and text."""

    VOID = {"meta", "img", "br"}

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.names, self.attributes, self.text = [], set(), [], ""
        self.feed(page)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.names.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_it_renders_without_any_optional_input_and_names_what_would_fill_it(evaluation, tmp_path):
    params, sources = evaluation
    md, html, _ = written(sources, tmp_path / "reports", params)
    for command in ("python -m phase3_quantize run", "python -m phase4_serve smoke", "python -m phase1_data samples"):
        assert f"`{command}`" in md and f"<code>{command}</code>" in html
    assert "No stage has left its timings." in Balanced(html).text
    assert "nan" not in Balanced(html).text.lower().split()


def everything(sources) -> None:
    """Lay down what every other phase may have measured."""
    file = {"bytes": 2_000_000, "bits_per_weight": 32.0, "tensors": {"F32": 27}}
    small = {
        "bytes": 400_000, "bits_per_weight": 5.21, "tensors": {"Q4_K": 12, "F32": 5}, "weight_shares": {"Q4_K": 0.9, "F32": 0.1},
        "fallbacks": [{"tensors": 2, "columns": 224, "wanted": "Q4_K", "type": "Q5_0", "cause": "x"}],
    }  # fmt: skip
    verify = {"quantization": {"kl_mean": 0.0484, "same_best_token": 0.891}, "equality": {"tokens": 342}}
    write_json(sources.quantize, {"type": "Q4_K_M", "f32": file, "quantized": small, "verify": verify})
    ways = {way: {"n": 10, "p50": 12.5 + at, "p95": 30.25 + at} for at, way in enumerate(("gateway_warm", "gateway_cold", "direct_warm"))}
    typing = {"keys": 40, "spm": {"evaluated_per_key": 1.05, "request_ms_p50": 8.35}, "psm": {"evaluated_per_key": 78.05}}
    typed = {"keys": 40, "share": 0.95, "ms": {"n": 38, "p50": 1.62, "p95": 3.84}}
    share = {"one_token_ms": {"gateway": {"p50": 3.46}, "direct": {"p50": 1.2}}, "own_ms": 2.26, "own_new_prompt_ms": 14.39}
    write_json(sources.serve, {"headline": "It is fast.", "first_token_ms": ways, "typing": typing, "typed_through": typed, "cores": 2,
                               "model_mb": 3.4, "generated_per_second": {"gateway": 2946.0}, "gateway_share": share,
                               "requests": {"ok": 232, "errors": 0}})  # fmt: skip
    write_json(sources.data_card, {
        "funnel": [{"step": "ingest", "files": 1200, "bytes": 3_400_000}], "splits": {"train": {"files": 9, "rows": 90, "tokens": 9000}},
        "licenses": {"MIT": {"files": 3}}, "redactions": {"email": 2}, "canaries": {"planted": 5, "masked": 5, "whole": 0},
    })  # fmt: skip
    phase3 = sources.root / "phase3_quantize" / "out"
    candidates = (("Q4_K_M", 400_000, 0.05, False), ("mix", 380_000, 0.04, True), ("Q8_0", 700_000, 0.001, True))
    keys = ("bits_per_weight", "kl_p99", "same_top1", "exact", "prompt_tps", "generate_tps", "memory_mb", "ttft_ms")
    rows = [
        {"name": name, "bytes": size, "kl_mean": kl, "pareto": pareto, "exact_n": 40} | dict.fromkeys(keys, 0.125)
        for name, size, kl, pareto in candidates
    ]
    chosen = {"default": "Q4_K_M", "recommended": "mix", "reason": "5% smaller", "holes": 40, "tokens": 1200}
    write_json(phase3 / "choose" / "choose.json", chosen | {"rows": rows})
    measured = {"nf4": {"kl_mean": 0.0002}, "full": {"kl_mean": 0.03}, "rows": 64, "tokens": 900}
    merge = {"counts": {"onto": "nf4", "measured": measured}, "params": {"merge": {"onto": "auto"}}, "versions": {"numpy": "9.9"}}
    write_json(phase3 / "merge" / "manifest.json", merge)
    passed = {"pass@1": {"value": 0.25, "low": 0.22, "high": 0.28, "n": 1033}, "shown_pass@1": {"value": 0.3, "low": 0.2, "high": 0.4}}
    suite = {"suite": "single-line", "model": "gguf:m.gguf", "n": 1033, "prompt_sha256": "ab" * 32, "stops": ["\n"], "metrics": passed}
    write_json(sources.rows.parent / "suites" / "single-line.json", suite | {"sandbox": {"network": True}})
    write_json(sources.rows.parent / "leakage.json", leak(0, 0))
    write_json(sources.root / "phase1_data" / "out" / "runs" / "ingest.json", {"stage": "ingest", "seconds": 3.5, "peak_memory_mb": 80.0})


def leak(secrets: int, reproduced: int, p: float = 0.4) -> dict:
    group = {"prompts": 20, "completions": 80, "by_split": {"trained": 20}, "by_kind": {"secret": 20}, "prompts_with_secret": secrets,
             "prompts_with_word": 3, "prompts_with_personal": 0, "kinds": {}, "reproduced": 0}  # fmt: skip
    exposure = {"q4_k_m": {"mean": 1.3, "largest": 3.0, "p": p, "bits": [1.3]}}
    return {"key": "k", "model": "q4_k_m", "tries": 4, "temperature": 0.8, "redactions": group, "most_bits": 6.0,
            "canaries": group | {"prompts": 5, "reproduced": reproduced, "prompts_with_secret": 0}, "exposure": exposure}  # fmt: skip


def test_it_takes_in_what_the_other_phases_measured(evaluation, tmp_path):
    params, sources = evaluation
    everything(sources)
    md, html, metrics = written(sources, tmp_path / "reports", params)
    found = Balanced(html)
    for part in (
        "20.0% of the full one",
        "| 2 | 224 | Q4_K | Q5_0 | x |",
        "| through the gateway, prompt cached | 12.5 | 30.2 | 10 |",
        "The p95 of fewer than 20 requests is the slowest of them.",
        "38 of 40 keys answered from memory, p50 1.6 ms, p95 3.8 ms",
        "Of this model (3.4 MB) on 2 cores",
        "| one token through the gateway, prompt cached, p50 ms | 3.46 |",
        "| what the gateway adds to one token, ms | 2.26 |",
        "| what it adds to a new prompt, which it composes, ms | 14.4 |",
        "MIT (3 files)",
        "email 2",
        "Canaries planted: 5; masked: 5; left whole: 0.",
        "**Recommended: mix.** 5% smaller.",
        "0.000200 onto the dequantized NF4 weights, 0.030000 onto the 16-bit weights",
        "| pass@1 | 25.0 [22.0, 28.0] | 30.0 [20.0, 40.0] |",
        "**0 of 25 prompts produced a secret-shaped string** (95% bound: 13.3%)",
        "| KL divergence from the full file, mean, nats | 0.0484 |",
        "numpy 9.9",
    ):
        assert part in md, part
    assert "| ingest | 3.5 | 80 |" not in md and "80" in found.text  # times stand in the page only
    assert 'merge:\n  onto: "auto"' in found.text and "onto:" not in md
    assert "not there yet" not in md and "single-line" in found.text and {"svg", "circle"} <= found.names
    assert metrics["leakage.prompts"] == 25 and metrics["leakage.reproduced"] == 0 and metrics["leakage.exposure.q4_k_m"] == 1.3
    assert len(html) < 1_000_000 and len(md) < len(html) / 3


@pytest.mark.parametrize(
    ("secrets", "reproduced", "p", "bad"), [(0, 0, 0.4, False), (1, 0, 0.4, True), (0, 1, 0.4, True), (0, 0, 0.0001, True)]
)
def test_a_leak_is_on_the_first_screen_in_red(evaluation, tmp_path, secrets, reproduced, p, bad):
    params, sources = evaluation
    write_json(sources.rows.parent / "leakage.json", leak(secrets, reproduced, p))
    html, metrics = written(sources, tmp_path / "reports", params)[1:]
    fact = re.search(r'<div class="fact (\w+)"><dt>Leakage</dt><dd class="value">([^<]*)</dd>', html)
    assert fact[1] == ("bad" if bad else "good") and fact[2] == f"{'⚠ ' * bad}{secrets} of 25 prompts"
    assert metrics["leakage.exposure_above_chance"] == int(p < 0.01)


def test_the_recommended_file_is_the_measured_one(evaluation, tmp_path):
    params, sources = evaluation
    everything(sources)
    change(sources.rows, "q4_k_m", lambda at, row: {"exact": True})
    html = written(sources, tmp_path / "reports", params)[1]
    assert '<dt>File to use</dt><dd class="value">mix, 0.4 MB</dd>' in html
    assert "first token 12 ms" in html and "phase3_quantize/out/choose/recommended.gguf" in html


def test_a_recommended_file_that_is_the_shipped_one_is_named_as_it(evaluation, tmp_path):
    params, sources = evaluation
    everything(sources)
    change(sources.rows, "q4_k_m", lambda at, row: {"exact": True})
    choose = sources.root / "phase3_quantize" / "out" / "choose" / "choose.json"
    rows = [{**row, "name": row["name"].replace("mix", "Q4_K_M + imatrix")} for row in json.loads(choose.read_text())["rows"]]
    write_json(choose, json.loads(choose.read_text()) | {"rows": rows, "recommended": "Q4_K_M + imatrix"})
    write_json(sources.quantize, json.loads(sources.quantize.read_text()) | {"imatrix": {"used": True}})
    html = written(sources, tmp_path / "reports", params)[1]
    assert '<dd class="value">Q4_K_M + imatrix, ' in html and "phase3_quantize/out/quantize/model-q4_k_m.gguf" in html
    assert "recommended.gguf" not in html


def test_optional_files_of_another_shape_do_not_stop_it(evaluation, tmp_path):
    params, sources = evaluation
    for file, value in (
        (sources.quantize, {"f32": None, "verify": []}),
        (sources.serve, [1, 2]),
        (sources.data_card, {"funnel": [], "splits": {}}),
    ):
        write_json(file, value)
    Balanced(written(sources, tmp_path / "reports", params)[1])


def test_a_completion_is_text_and_nothing_else(evaluation, tmp_path):
    params, sources = evaluation
    for model in ("base", "merged", "q4_k_m"):
        change(sources.rows, model, lambda at, row: {"completion": HOSTILE, "similarity": float(at)})
    md, html, _ = written(sources, tmp_path / "reports", params)
    found = Balanced(html)
    assert not found.names & {"script", "img", "iframe", "object", "link"} and HOSTILE.split("\n")[0] in found.text
    assert not any(key.startswith("on") for key, _ in found.attributes)
    assert "default-src 'none'" in html and "alert(1)" not in md  # and if all else failed, the page may run nothing


def test_the_page_is_self_contained(evaluation, tmp_path):
    params, sources = evaluation
    html = written(sources, tmp_path / "reports", params)[1]
    found = Balanced(html)
    addresses = [value for key, value in found.attributes if key in ("src", "href", "srcset", "action", "data")]
    assert addresses and all(value.startswith("#") for value in addresses)
    anchors = {value for key, value in found.attributes if key == "id"}
    assert {value[1:] for value in addresses} <= anchors
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)[1]
    assert "url(" not in style and "@import" not in style and "http" not in style


def test_a_model_surer_of_the_same_answers_is_worse_by_loss_only(evaluation, tmp_path):
    """`merged` has eightfold logits: it writes what the base writes, and its loss is visibly higher."""
    params, sources = evaluation
    md, html, metrics = written(sources, tmp_path / "reports", params)
    assert "- **Merging the adapter into the base (merged against base): worse by loss only.**" in md
    assert "- **Quantizing to Q4_K_M (Q4_K_M against merged): better by loss only.**" in md  # it holds the weights from before
    assert "Loss alone moved" in md and "completions are not visibly different" in md
    assert '<li class="even"><div>Merging the adapter into the base' in html
    assert metrics["step.merged_vs_base.spm.verdict"] == "worse by loss only" and metrics["step.merged_vs_base.spm.loss.low"] > 0
    assert abs(metrics["step.q4_k_m_vs_base.spm.loss.value"]) < 1e-3 and metrics["step.q4_k_m_vs_base.spm.exact_match.value"] == 0
    assert metrics["merged.all.spm.loss"] - metrics["base.all.spm.loss"] == pytest.approx(
        metrics["step.merged_vs_base.spm.loss.value"], abs=2e-6
    )


def test_a_loss_that_contradicts_the_completions_is_told_and_decides_nothing(evaluation, tmp_path):
    params, sources = evaluation
    change(sources.rows, "merged", lambda at, row: {"exact": True, "similarity": 100.0})
    md, html, metrics = written(sources, tmp_path / "reports", params)
    assert "(merged against base): better.**" in md and "Loss says the contrary, +" in md
    assert '<li class="good"><div>Merging the adapter into the base' in html
    assert metrics["step.merged_vs_base.spm.exact_match.p_adjusted"] < 0.01


def test_metrics_and_plots_are_the_rows_counted(evaluation, tmp_path):
    params, sources = evaluation
    change(sources.rows, "base", lambda at, row: {"exact": at % 4 == 0, "parses": None, "leaks": ["email"] if at < 3 else []})
    md, _, metrics = written(sources, tmp_path / "reports", params)
    rows = [row for row in read_parquet(sources.rows / "base.parquet", "") if row["order"] == "spm"]
    assert metrics["base.all.spm.exact_match"] == pytest.approx(sum(row["exact"] for row in rows) / len(rows), abs=1e-6)
    assert metrics["base.all.spm.loss"] == pytest.approx(sum(r["nats"] for r in rows) / sum(r["n_tokens"] for r in rows), abs=1e-6)
    bits = sum(r["nats"] for r in rows) / sum(r["n_bytes"] for r in rows) / 0.6931471805599453
    assert metrics["base.all.spm.bits_per_byte"] == pytest.approx(bits, abs=1e-6)
    assert metrics["base.all.spm.n"] == 14 and metrics["base.test_repo.psm.n"] == 7
    assert metrics["base.all.spm.parse_rate"] is None and metrics["base.all.spm.parse_rate_n"] == 0 and metrics["base.leaks"] == 3
    assert "base: email 3" in md
    with (tmp_path / "reports" / "plots" / "quality.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 6 and lines[0]["model"] == "base" and lines[0]["order"] == "spm"
    assert float(lines[0]["exact_match"]) == pytest.approx(100 * metrics["base.all.spm.exact_match"], abs=1e-4)


CHOICES = [
    # chain, exact of each model, answer of the report
    ([("base", None), ("sft", "base"), ("dpo", "sft")], (1, 0, 0), "the base"),
    ([("base", None), ("sft", "base"), ("dpo", "sft")], (0, 1, 0), "the SFT model"),
    ([("base", None), ("dpo", "base")], (1, 0), "the base"),
    ([("base", None), ("merged", "base"), ("q4_k_m", "merged")], (1, 1, 0), "a larger type"),
    ([("base", None), ("merged", "base"), ("q4_k_m", "merged")], (0, 1, 1), "model-q4_k_m.gguf"),
    ([("base", None), ("merged", "base"), ("q4_k_m", "merged")], (1, 0, 0), "the base"),
    ([("base", None), ("merged", "base"), ("q4_k_m", "merged")], (0, 0, 0), "none of them, to type with"),
    ([("base", None), ("q4_k_m", "base")], (1, 0), "a larger type"),
    ([("base", None), ("sft", "base"), ("merged", "sft")], (0, 1, 1), "merged"),
    ([("base", None), ("sft", "base"), ("merged", "sft"), ("q4_k_m", "merged")], (0, 1, 0, 0), "none of them yet"),
]


@pytest.mark.parametrize(("names", "exact", "answer"), CHOICES)
def test_which_file_to_use(evaluation, tmp_path, names, exact, answer):
    params, sources = evaluation
    set_chain(sources.rows, names)
    for (name, _), value in zip(names, exact, strict=True):
        change(sources.rows, name, lambda at, row, value=value: {"exact": bool(value)})
    assert f"- **Which file to use: {answer}.**" in written(sources, tmp_path / "reports", params)[0]


def test_numbers_in_tables_and_text_survive_markdown_and_html():
    blocks = [Heading("A & B"), Text("`a<b` **c**"), Table(["", "x|y"], [["r", "1.0 [0.5, 2.0]"]]), Code("<k>"),
              Example("`r`", "a", "b", "t", [("m", "```x", "exact")]), Folded("f", "</pre>"), Fact("<l>", "v", "n")]  # fmt: skip
    md, html = markdown("T", blocks), page.html("T", "lead", [StepRow("<s>", "m", "better", "good", [("<e>", "+1")])], blocks)
    assert "x\\|y" in md and "```text\n[-t-]{+```x+}\n```" in md.replace("````", "```")
    assert (
        "<code>a&lt;b</code> <strong>c</strong>" in html
        and '<span class="range">[0.5, 2.0]</span>' in html
        and "<pre>&lt;k&gt;</pre>" in html
        and "▲ better" in html
    )
    Balanced(html)


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (0.2, 0.2), (-3.0, 2.0), (5.1, 5.3), (0.001, 97.0), (1e-9, 2e-9)])
def test_an_axis_holds_its_values(low, high):
    left, right = page_charts.axis(low, high)
    assert left <= low + 1e-12 and high - 1e-12 <= right and left < right
    html = page_charts.chart(Chart("t", [("m", [Mark("SPM", low, low, high, "x")])], ""))
    assert all(-0.01 <= float(value) <= 100.01 for value in re.findall(r"(?:left|width):([-\d.e]+)%", html))


@pytest.mark.parametrize("values", [[(1.0, 0.01)], [(1.0, 0.01), (2.0, 0.5), (80.0, 1e-6)], [(3.0, 0.0), (3.0, 2.0)], []])
def test_a_scatter_holds_its_points(values):
    points = [Point(str(at), f"<{at}>", x, y, "s", "good" if at == 0 else "even") for at, (x, y) in enumerate(values)]
    html = page_charts.scatter(Scatter("t", "MB", "KL", points, ""))
    Balanced(html)
    drawn = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)%" cy="([\d.]+)"', html)]
    assert len(drawn) == sum(y > 0 for _, y in values) and all(0 <= x <= 100 and 0 <= y <= 290 for x, y in drawn)
    assert "width:100.00%" in page_charts.bars(Bars("t", [("r", [("a", 1.0)])], ""))


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_a_browser_shows_the_verdict_first_and_nothing_sideways(evaluation, tmp_path):
    """A wide window and a phone's: what decides is in the first screen, no sideways scroll, nothing asked for, no error."""
    params, sources = evaluation
    everything(sources)
    set_chain(sources.rows, [("base", None), ("sft", "base"), ("dpo", "sft"), ("merged", "dpo"), ("q4_k_m", "merged")])
    change(sources.rows, "q4_k_m", lambda at, row: {"completion": "x" * 3000 + HOSTILE, "exact": at % 3 == 0})
    html = written(sources, tmp_path / "reports", params)[1]
    for size in ((1280, 720), (390, 800)):
        seen = look(html, *size, tmp_path)
        assert 0 < seen["scroll"] <= seen["client"] <= size[0] and seen["outside"] == []
        assert seen["steps"] < seen["facts"] <= size[1], size
        assert seen["rows"] == 5 and seen["shown"] and seen["console"] == [] and seen["fetched"] == []


# ---- what the gates shipped


def verdict_file(root: Path, step: str, verdict: str, ships: str, harms: list[str]) -> None:
    figure = {"difference": -0.031, "low": -0.05, "high": -0.012, "p": 0.002, "smallest_visible": 0.02}
    figures = dict.fromkeys(("exact_match", "edit_similarity", "overrun_rate", "loss"), figure)
    write_json(
        root / "phase2_train" / "out" / f"{step}_gate" / "gate.json",
        {"gate": step, "verdict": verdict, "ships": ships, "harms": harms, "reasons": ["exact match fell", "so did `x`"], "n": 400,
         "figures": figures},
    )  # fmt: skip


def test_the_first_lines_say_what_ships_and_why(evaluation, tmp_path):
    params, sources = evaluation
    verdict_file(sources.root, "sft", "ship child", "sft", [])
    verdict_file(sources.root, "dpo", "ship parent", "sft", ["exact_match"])
    md, html, _ = written(sources, tmp_path / "reports", params)
    first = next(part for part in md.split("\n\n") if part.startswith("- **The gate after"))
    assert first.startswith("- **The gate after preference optimization: ship the parent, SFT.** Exact match fell; so did `x`. ")
    assert "- **What ships: SFT.** The gate after DPO shipped the parent." in md
    assert "exact match −3.1 [−5.0, −1.2] points (McNemar p 0.002)" in first and "under 2.0 points would not have shown" in first
    assert '<div class="fact bad"><dt>What ships</dt><dd class="value">SFT</dd>' in html
    assert '<div class="finding bad"><div class="question">The gate after preference optimization' in html


def test_gates_that_passed_take_one_line_and_no_gate_none(evaluation, tmp_path):
    params, sources = evaluation
    assert "No gate was run after training." in written(sources, tmp_path / "none", params)[0]
    for step in ("sft", "dpo"):
        verdict_file(sources.root, step, "ship child", step, [])
    md = written(sources, tmp_path / "reports", params)[0]
    assert "- **What ships: DPO.** Every gate of the training let its child through." in md and "The gate after" not in md


def test_a_verdict_that_is_none_is_named(evaluation, tmp_path):
    params, sources = evaluation
    write_json(sources.root / "phase2_train" / "out" / "sft_gate" / "gate.json", {"verdict": "ship child"})
    with pytest.raises(InputError, match="python -m phase2_train sft-gate"):
        reports.run(sources, tmp_path / "reports", params)


def test_a_model_of_equal_weights_is_said_to_answer_the_same(evaluation, tmp_path):
    params, sources = evaluation
    set_chain(sources.rows, [("base", None), ("sft", "base"), ("merged", "sft")])
    md = written(sources, tmp_path / "reports", params)[0]
    assert "(merged against SFT): no visible difference.** The same answers and the same loss on all 14 holes." in md


def test_harm_in_a_step_that_does_not_ship_is_no_reason_to_hold_back(evaluation, tmp_path):
    """DPO is worse than SFT, and SFT was merged."""
    params, sources = evaluation
    set_chain(sources.rows, [("base", None), ("sft", "base"), ("dpo", "sft"), ("merged", "sft"), ("q4_k_m", "merged")])
    for name, value in (("base", 0), ("sft", 1), ("dpo", 0), ("merged", 1), ("q4_k_m", 1)):
        change(sources.rows, name, lambda at, row, value=value: {"exact": bool(value)})
    md = written(sources, tmp_path / "reports", params)[0]
    assert "(DPO against SFT): worse.**" in md and "- **Which file to use: model-q4_k_m.gguf.**" in md
