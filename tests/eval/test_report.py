"""The pages: they say what the figures say, need nothing beside them, and trust no completion."""

import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from core.errors import InputError
from core.records import read_parquet, write_json, write_parquet
from core.statistics import Difference
from eval import page
from eval import report as reports
from eval.document import Code, Example, Heading, Mark, Table, Text, markdown
from eval.params import EvaluateParams
from eval.rows import ROW
from eval.summary import tells, verdict_of

CHROMIUM = Path("/usr/bin/chromium")
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

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_it_renders_without_any_optional_input_and_names_what_would_fill_it(evaluation, tmp_path):
    params, sources = evaluation
    md, html, _ = written(sources, tmp_path / "reports", params)
    for command in ("python -m phase3_quantize run", "python -m phase4_serve smoke", "python -m phase1_data samples"):
        assert f"`{command}`" in md and f"<code>{command}</code>" in html
    assert "No stage has left its timings." in md
    assert "nan" not in Balanced(html).text.lower().split()


def test_it_takes_in_what_the_other_phases_measured(evaluation, tmp_path):
    params, sources = evaluation
    file = {"bytes": 2_000_000, "bits_per_weight": 32.0, "tensors": {"F32": 27}}
    small = {
        "bytes": 400_000,
        "bits_per_weight": 5.21,
        "tensors": {"Q4_K": 12},
        "fallbacks": [{"tensors": 2, "columns": 224, "type": "Q5_0", "cause": "x"}],
    }
    write_json(sources.quantize, {"type": "Q4_K_M", "f32": file, "quantized": small, "verify": {"same_tokens": True, "gap": [0.1, 0.2]}})
    write_json(
        sources.serve, {"headline": "first token p50 31 ms", "first_token": {"p50": 31.4}, "levels": [{"clients": 1}, {"clients": 4}]}
    )
    write_json(
        sources.data_card,
        {
            "funnel": [{"step": "ingest", "files": 1200, "bytes": 3_400_000}],
            "splits": {"train": {"files": 9, "rows": 90, "tokens": 9000}},
            "licenses": {"MIT": {"files": 3}}, "redactions": {"email": 2},
        },
    )  # fmt: skip
    write_json(sources.root / "phase1_data" / "out" / "runs" / "ingest.json", {"stage": "ingest", "seconds": 3.5, "peak_memory_mb": 80.0})
    md, html, _ = written(sources, tmp_path / "reports", params)
    Balanced(html)
    for part in ("5.21", "20.0% of the full one", "fell back to Q5_0", "same tokens | yes", "levels.1.clients | 4", "31.4", "1,200",
                 "MIT (3 files)", "email 2", "| ingest | 3.5 | 80 |"):  # fmt: skip
        assert part in md, part
    assert "not there yet" not in md


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
    assert "`````text\n" + HOSTILE + "\n`````" in md  # a fence longer than any in the text


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


def test_a_model_made_worse_is_called_worse(evaluation, tmp_path):
    params, sources = evaluation
    md, html, metrics = written(sources, tmp_path / "reports", params)
    assert "- **Merging the adapter into the base (merged against base): worse.**" in md
    assert "- **Quantizing to Q4_K_M (Q4_K_M against merged): better.**" in md  # it holds the weights from before
    assert "- **From the first model to the last (Q4_K_M against base): " in md
    assert abs(metrics["step.q4_k_m_vs_base.spm.loss.value"]) < 1e-3 and metrics["step.q4_k_m_vs_base.spm.exact_match.value"] == 0
    assert '<div class="finding bad"><div class="question">Merging the adapter into the base' in html
    assert metrics["step.merged_vs_base.spm.loss.low"] > 0
    assert metrics["merged.all.spm.loss"] - metrics["base.all.spm.loss"] == pytest.approx(
        metrics["step.merged_vs_base.spm.loss.value"], abs=2e-6
    )


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


@pytest.mark.parametrize(
    ("exact", "likeness", "loss", "word"),
    [(1, 0, 0, "better"), (-1, 0, 0, "worse"), (0, 0, -1, "better"), (0, 0, 1, "worse"), (0, 0, 0, "no visible difference"),
     (1, 0, 1, "mixed"), (-1, 1, 0, "mixed"), (1, 1, -1, "better")],
)  # fmt: skip
def test_verdict_words(exact, likeness, loss, word):
    def difference(sign, p):
        return Difference(sign * 2.0, *sorted((sign * 1.0, sign * 3.0)), 50, p, None, None, 1.0)

    found = {
        "exact_match": difference(exact, 0.01 if exact else 0.5),
        "edit_similarity": difference(likeness, None),
        "loss": difference(loss, None),
    }
    found["ended_rate"] = difference(-1, 0.001)  # is told, but decides nothing
    assert verdict_of(found) == word


def test_numbers_in_tables_and_text_survive_markdown_and_html():
    blocks = [Heading("A & B"), Text("`a<b` **c**"), Table(["", "x|y"], [["r", "1.0 [0.5, 2.0]"]]), Code("<k>"),
              Example("`r`", "a", "b", "t", [("m", "```x", "exact")])]  # fmt: skip
    md, html = markdown("T", blocks), page.html("T", "lead", blocks)
    assert "x\\|y" in md and "````text\n```x\n````" in md
    assert (
        "<code>a&lt;b</code> <strong>c</strong>" in html
        and '<span class="range">[0.5, 2.0]</span>' in html
        and "<pre>&lt;k&gt;</pre>" in html
    )
    Balanced(html)


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (0.2, 0.2), (-3.0, 2.0), (5.1, 5.3), (0.001, 97.0), (1e-9, 2e-9)])
def test_an_axis_holds_its_values(low, high):
    left, right = page.axis(low, high)
    assert left <= low + 1e-12 and high - 1e-12 <= right and left < right
    html = page._chart(reports.Chart("t", [("m", [Mark("SPM", low, low, high, "x")])], ""))
    assert all(-0.01 <= float(value) <= 100.01 for value in re.findall(r"(?:left|width):([-\d.e]+)%", html))


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM.is_file(), reason="no chromium")
@pytest.mark.parametrize("width", [1400, 420])
def test_a_browser_shows_it_without_a_sideways_scroll(evaluation, tmp_path, width):
    """The page in a frame of that width tells its own width; a screenshot shows that it paints."""
    params, sources = evaluation
    change(sources.rows, "q4_k_m", lambda at, row: {"completion": "x" * 3000 + HOSTILE})
    html = written(sources, tmp_path / "reports", params)[1]
    harness = tmp_path / "frame.html"
    harness.write_text(
        f'<iframe id="f" style="width:{width}px;height:900px;border:0" srcdoc="{page.escape(html)}"></iframe><script>onload = () => {{'
        "const d = document.getElementById('f').contentDocument.documentElement;"
        "document.title = d.scrollWidth + ' ' + d.clientWidth }</script>"
    )
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}"]
    chromium = [str(CHROMIUM), *options, f"--window-size={width},1600"]
    dom = subprocess.run([*chromium, "--dump-dom", harness.as_uri()], capture_output=True, text=True, timeout=120).stdout
    scroll, client = map(int, re.search(r"<title>(\d+) (\d+)</title>", dom).groups())
    assert 0 < scroll <= client <= width
    shot = tmp_path / "shot.png"
    subprocess.run([*chromium, f"--screenshot={shot}", (tmp_path / "reports" / "report.html").as_uri()], capture_output=True, timeout=120)
    assert shot.stat().st_size > 20_000


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
    first = md.split("\n\n")[1]
    assert first.startswith("- **The gate after preference optimization: ship the parent, SFT.** Exact match fell; so did `x`. ")
    assert "exact match −3.1 [−5.0, −1.2] points (McNemar p 0.002)" in first and "under 2.0 points would not have shown" in first
    found = Balanced(html)
    assert found.text.index("ship the parent, SFT") < found.text.index("models, greedy")
    assert '<div class="finding bad"><div class="question">The gate after preference optimization' in html


def test_gates_that_passed_take_one_line_and_no_gate_none(evaluation, tmp_path):
    params, sources = evaluation
    assert written(sources, tmp_path / "none", params)[0].split("\n\n")[1].startswith("3 models, greedy")
    for step in ("sft", "dpo"):
        verdict_file(sources.root, step, "ship child", step, [])
    lines = written(sources, tmp_path / "reports", params)[0].split("\n\n")
    assert lines[1] == "What ships: DPO. Every gate of the training let its child through."


def test_a_verdict_that_is_none_is_named(evaluation, tmp_path):
    params, sources = evaluation
    write_json(sources.root / "phase2_train" / "out" / "sft_gate" / "gate.json", {"verdict": "ship child"})
    with pytest.raises(InputError, match="python -m phase2_train sft-gate"):
        reports.run(sources, tmp_path / "reports", params)


@pytest.mark.parametrize(
    ("name", "value", "low", "high", "p", "sign"),
    [
        ("loss", -0.0004, -0.0006, -0.0002, None, 0),  # rounds to nothing
        ("loss", -0.0012, -0.0020, -0.0004, None, 0),  # begins at what rounds to nothing
        ("loss", -0.0012, -0.0018, -0.0006, None, 1),
        ("edit_similarity", 0.3, 0.01, 0.5, None, 0),  # +0.3 [+0.0, +0.5]
        ("edit_similarity", -0.3, -0.5, -0.1, None, -1),
        ("exact_match", 0.0004, -0.001, 0.002, 0.01, 0),  # of 20,000 holes
        ("exact_match", 0.02, -0.001, 0.04, 0.01, 1),  # the test decides, not the interval
        ("exact_match", 0.02, 0.001, 0.04, 0.06, 0),
        ("overrun_rate", 0.02, 0.001, 0.04, 0.01, -1),
    ],
)
def test_what_a_table_shows_as_nothing_is_no_difference(name, value, low, high, p, sign):
    assert tells(name, Difference(value, low, high, 1000, p, None, None, 1.0)) == sign


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
