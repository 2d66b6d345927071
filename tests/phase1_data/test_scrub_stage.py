from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from core.errors import CheckFailed, InputError
from core.records import FILE, read_parquet, write_parquet
from core.scrub import find
from phase1_data import scrub
from phase1_data.params import ScrubParams

TOKEN = "gh" + "p_" + "aB3dE5fG7hI9jK1lM2nO4pQ6rS8tU0vW1xY2"
BODY = "\n".join(f"def f{n}(x):\n    return x + {n}\n" for n in range(40))
FILES = {
    "plain.py": BODY,
    "token.py": f'{BODY}\nTOKEN = "{TOKEN}"\n',
    "people.py": f"# Signed-off-by: Maria Lind <maria@lind.se>\n{BODY}\nHOST = '93.184.216.34'\n",
    "all_secret.py": f'x = "{TOKEN}"\n',
    "breaks.py": f"{BODY}\nDB_PASSWORD=a1b2c3d4e5f6g7h8i9\n",
}
PARAMS = ScrubParams(max_masked_share=0.05, engine="local", workers=1)


def a_file(path: str, content: str) -> dict[str, Any]:
    return {
        "file_id": hashlib.sha256(content.encode()).hexdigest(), "content": content, "path": path, "repo": "acme/app", "lang": "python",
        "n_bytes": len(content.encode()), "parses": True, "split": "", "redactions": [],
    }  # fmt: skip


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    rows = [a_file(path, content) for path, content in FILES.items()] + [
        a_file(f"more{n}.py", f"{BODY}\n# {n} joe{n}@acme.org\n") for n in range(80)
    ]
    write_parquet(tmp_path / "clean" / "files.parquet", rows, FILE)
    return tmp_path / "clean"


def by_path(out: Path) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in read_parquet(out / "files.parquet", "scrub")}


def test_what_goes_out_holds_nothing_and_says_where_it_was_masked(clean: Path, tmp_path: Path):
    counts = scrub.run(clean, tmp_path / "scrub", PARAMS)
    files = by_path(tmp_path / "scrub")
    assert all(find(row["content"]) == [] for row in files.values())
    assert files["plain.py"]["content"] == BODY and files["plain.py"]["redactions"] == []
    (redaction,) = files["token.py"]["redactions"]
    assert files["token.py"]["content"][redaction["start"] : redaction["end"]] == "<SECRET_1>" and redaction["kind"] == "secret"
    assert {r["kind"] for r in files["people.py"]["redactions"]} == {"person", "email", "ipv4"}
    assert files["people.py"]["max_line"] == max(map(len, files["people.py"]["content"].split("\n")))
    assert counts["files_in"] == len(FILES) + 80 == counts["files"] + 2


def test_dropped_files_are_counted_with_their_reason(clean: Path, tmp_path: Path):
    counts = scrub.run(clean, tmp_path / "scrub", PARAMS)
    rejects = {row["path"]: (row["stage"], row["reason"]) for row in read_parquet(tmp_path / "scrub" / "rejects.parquet", "scrub")}
    assert rejects == {"acme/app/all_secret.py": ("scrub", "masked_share"), "acme/app/breaks.py": ("scrub", "redaction_broke_syntax")}
    assert counts["dropped_masked_share"] == counts["dropped_redaction_broke_syntax"] == 1
    manifest = json.loads((tmp_path / "scrub" / "manifest.json").read_text())
    assert manifest["counts"]["residual"] == 0 and manifest["counts"]["kind_email"] == 81
    assert manifest["counts"]["per_mb"]["email"] == round(81e6 / manifest["counts"]["bytes_in"], 3)


def test_no_output_and_no_line_on_the_screen_holds_a_value(clean: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    scrub.run(clean, tmp_path / "scrub", PARAMS)
    shown = "".join(capfd.readouterr())
    written = "".join(str(pq.read_table(path).to_pylist()) for path in (tmp_path / "scrub").glob("*.parquet"))
    written += (tmp_path / "scrub" / "manifest.json").read_text()
    assert not any(value in shown + written for value in (TOKEN, "maria", "Lind", "93.184", "a1b2c3d4", "joe1@"))


def test_the_number_of_workers_changes_no_byte(clean: Path, tmp_path: Path):
    for workers in (1, 2):
        scrub.run(clean, tmp_path / str(workers) / "scrub", PARAMS.model_copy(update={"workers": workers}))
    for name in ("files.parquet", "rejects.parquet"):
        assert (tmp_path / "1/scrub" / name).read_bytes() == (tmp_path / "2/scrub" / name).read_bytes()


def test_a_finding_in_the_output_fails_the_stage_and_is_named_without_its_value(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scrub, "mask", lambda text: (text, []))
    with pytest.raises(CheckFailed) as failure:
        scrub.run(clean, tmp_path / "scrub", PARAMS)
    line = FILES["token.py"].count("\n")
    assert f"acme/app/token.py:{line} (secret" in str(failure.value)
    assert TOKEN not in str(failure.value) and "maria" not in str(failure.value)
    assert not (tmp_path / "scrub" / "files.parquet").exists() and not (tmp_path / ".work").exists()


def test_missing_input_names_the_command_that_makes_it(tmp_path: Path):
    with pytest.raises(InputError, match="python -m phase1_data clean"):
        scrub.run(tmp_path / "clean", tmp_path / "scrub", PARAMS)
