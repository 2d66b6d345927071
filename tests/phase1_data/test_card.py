"""Promises of the data card: true to the data, nothing secret, one page that needs nothing beside it."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from core import canary
from core.records import read_json, read_parquet
from phase1_data import card
from phase1_data.card_recall import covered, detection
from phase1_data.cli import app

from .conftest import code

TOKEN = "gh" + "p_" + "aB3dE5fG7hI9jK1lM2nO4pQ6rS8tU0vW1xY2"
ADDRESS = "ada.byron@analytical-engine.org"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path) -> Path:
    """The outputs of a run whose files hold an address, a token and a near-copy, one under a name that is a secret itself."""
    from .conftest import CLEAN, MIT, SAMPLES

    root = tmp_path_factory.mktemp("card")
    pkg = root / "shop" / "pkg"
    pkg.mkdir(parents=True)
    (root / "shop" / "LICENSE").write_text(MIT)
    for number in range(24):
        (pkg / f"mod{number}.py").write_text(code(number))
    (pkg / "contact.py").write_text(code(77).replace('"""Turn', f'"""Written by {ADDRESS}. Turn', 1))
    (pkg / "client.py").write_text(code(78, 30) + f'\ntoken = "{TOKEN}"\n')
    (pkg / "near.py").write_text(code(3, 12) + "\nx = 1\n")
    (pkg / "nearer.py").write_text(code(3, 12) + "\ny = 2\n")
    (pkg / f"{TOKEN}.txt").write_text("not a language we take")
    profile = {
        "ingest": {
            "sources": [{"kind": "folder", "paths": [str(root / "shop")], "license": None}],
            "languages": ["python"], "max_files": 0, "max_repo_bytes": 0, "max_file_bytes": 100_000, "canaries": 3, "canary_seed": 3,
        },
        "clean": CLEAN, "scrub": {"max_masked_share": 0.05, "engine": "local", "workers": 1},
        "samples": SAMPLES | {"tokenizer": str(tokenizer_file)},
    }  # fmt: skip
    params = root / "params.yaml"
    params.write_text(json.dumps({"profile": "p", "p": profile}))
    done = CliRunner().invoke(app, ["run", "--params", str(params), "--out", str(root / "out")])
    assert done.exit_code == 0, done.output
    return root / "out"


class Seen(HTMLParser):
    """Tags, addresses and texts of a page; raises on none, so the balance is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")]
        if tag not in ("meta", "br", "link", "img", "path", "use", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open[-1] != tag:
            self.open.pop()
        if self.open:
            self.open.pop()


def test_nothing_secret_stands_in_any_form_of_the_card(made):
    for name in ("data_card.json", "data_card.md", "data_card.html"):
        text = (made / "reports" / name).read_text()
        assert TOKEN not in text and ADDRESS not in text and "analytical-engine" not in text, name
    assert "••••" in (made / "reports/data_card.html").read_text()


def test_the_figures_are_those_of_the_files(made):
    found = read_json(made / "reports/data_card.json", "")
    for step in found["funnel"]:
        rows = list(read_parquet(made / step["step"] / "files.parquet", "", ["n_bytes"]))
        assert (step["files"], step["bytes"]) == (len(rows), sum(row["n_bytes"] for row in rows))
    for name in ("ingest", "clean", "scrub", "samples"):
        reasons = Counter(row["reason"] for row in read_parquet(made / name / "rejects.parquet", ""))
        assert found["dropped"][name] == dict(reasons)
        assert set(found["examples"][name]) == set(reasons)
    redactions = Counter(r["kind"] for row in read_parquet(made / "scrub/files.parquet", "") for r in row["redactions"] or ())
    assert found["redactions"] == dict(redactions) and found["redactions"]["email"] == 1 and found["residual"] == 0
    rows = sum(row["repo"] == canary.REPO for row in read_parquet(made / "samples/train.parquet", ""))
    assert found["canaries"] == {
        "planted": 3, "seed": 3, "kept": 3, "masked": 3, "whole": 0, "rows": {"train": rows, "valid": 0, "test_file": 0, "test_repo": 0}
    } and rows  # fmt: skip
    for split in ("train", "valid", "test_file", "test_repo"):
        rows = list(read_parquet(made / f"samples/{split}.parquet", "", ["order"]))
        assert found["splits"][split]["rows"] == len(rows) and sum(found["middles"][split]) == sum(row["order"] != "ltr" for row in rows)
    cluster = found["clusters"][0]
    assert cluster["files"] == 2 and "/near" in cluster["kept"] and 0.7 <= cluster["similarity"][0] <= 1
    assert sum(found["lengths"]["ingested"]["n_lines"]) == found["funnel"][0]["files"]


def test_equal_data_gives_equal_cards_wherever_it_lies(made, tmp_path):
    shutil.copytree(made, tmp_path / "copy")
    card.run(tmp_path / "copy", tmp_path / "reports")
    for name in ("data_card.json", "data_card.md"):
        assert (tmp_path / "reports" / name).read_bytes() == (made / "reports" / name).read_bytes(), name


def test_the_page_needs_nothing_beside_it_and_is_whole(made):
    text = (made / "reports/data_card.html").read_text()
    page = Seen()
    page.feed(text)
    assert not page.open and page.tags["script"] == page.tags["link"] == page.tags["img"] == 0
    assert all(address.startswith("#") for address in page.addresses)
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org)", text)
    anchors = set(re.findall(r'<h2 id="([^"]+)"', text))
    assert {address[1:] for address in page.addresses if address[1:] in anchors} == anchors and len(anchors) == 13
    assert page.tags["svg"] >= 6 and "prefers-color-scheme: dark" in text
    for heading in ("Every threshold", "Throughput", "Duplicates", "Licences"):
        assert f">{heading}</h2>" in text


def test_a_page_without_timings_or_redactions_still_stands(made, tmp_path):
    shutil.copytree(made, tmp_path / "out")
    shutil.rmtree(tmp_path / "out/runs")
    table = pq.read_table(tmp_path / "out/scrub/files.parquet")
    empty = pa.array([[]] * table.num_rows, table.schema.field("redactions").type)
    pq.write_table(table.set_column(table.schema.get_field_index("redactions"), "redactions", empty), tmp_path / "out/scrub/files.parquet")
    card.run(tmp_path / "out", tmp_path / "reports")
    text = (tmp_path / "reports/data_card.html").read_text()
    assert "No timings beside this data" in text and "0 places in 0 of" in text


def test_a_step_that_is_missing_is_named(made, tmp_path):
    shutil.copytree(made, tmp_path / "out", ignore=shutil.ignore_patterns("properties.parquet"))
    with pytest.raises(Exception, match="python -m phase1_data clean"):
        card.run(tmp_path / "out", tmp_path / "reports")


def test_detection_counts_what_the_rules_find():
    found = detection()
    for group in ("secrets", "personal data"):
        one = found[group]
        assert one["found"] == sum(family["found"] for family in one["families"].values()) <= one["rows"]
        assert one["recall"] >= 0.95 and one["look_alikes_changed"] <= 0.01 * one["look_alikes"]
    assert covered("a b a", "a", []) == 0.0


def test_labelled_rows_are_written_for_other_tools(tmp_path):
    done = CliRunner().invoke(app, ["labelled", "--output", str(tmp_path / "rows.jsonl"), "--seed", "3"])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert {row["kind"] for row in rows} == {"secret", "harmless", "personal", "impersonal"}
    assert all((row["value"] in row["text"]) and bool(row["value"]) == (row["kind"] in ("secret", "personal")) for row in rows)
    assert len({row["id"] for row in rows}) == len(rows)
