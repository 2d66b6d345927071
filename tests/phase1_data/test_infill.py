"""Promises of holes: windows tile the file, spans may be middles, rows fit their budget and are cut at lines."""

from __future__ import annotations

import random
import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.fim import CONTROL, Chunk, Hole
from core.syntax import parse_python
from phase1_data.budget import fit
from phase1_data.context import Neighbours, choose, holds
from phase1_data.imports import Modules
from phase1_data.infill import DULL, Scene, Window, find_span, pick, windows
from phase1_data.params import SamplesParams
from phase1_data.rows import LAST_TICKET, Cutter, draw

from .conftest import SAMPLES, code

PIECES = st.sampled_from(
    [
        "x = 1\n",
        "\n",
        "    return foo(bar)\n",
        "日本 = 'é'\n",
        "a" * 400,
        "# " + "-" * 70 + "\n",
        CONTROL[0],
        "\t",
        "  ",
        "\x0c\n",
        "𝒳 = 2\n",
    ]
)
TEXTS = st.lists(PIECES, max_size=60).map("".join)


@settings(deadline=None, max_examples=150)
@given(text=TEXTS, budget=st.integers(16, 200))
def test_windows_tile_the_file_and_fit(ruler, text, budget):
    tiles = windows(text, ruler, budget)
    assert "".join(text[tile.start : tile.end] for tile in tiles) == text
    for tile in tiles:
        piece = text[tile.start : tile.end]
        assert len(ruler.token_starts(piece)) <= budget + 8  # a cut inside a word or a character costs a few tokens
        line = text[text.rfind("\n", 0, tile.start) + 1 :].split("\n", 1)[0]
        assert tile.start == 0 or text[tile.start - 1] == "\n" or len(ruler.token_starts(line)) > budget - 8


@settings(deadline=None, max_examples=150)
@given(text=TEXTS, at=st.tuples(st.floats(0, 1), st.integers(1, 30)), budget=st.integers(24, 300), order=st.sampled_from(["psm", "spm"]))
def test_a_row_never_exceeds_its_budget_and_is_cut_at_lines(ruler, text, at, budget, order):
    start = int(at[0] * len(text))
    middle = text[start : start + at[1]]
    prefix, suffix = text[:start], text[start + at[1] :]
    context = (Chunk("other.py", "y = 2"),) if budget > 150 else ()
    fitted = fit(Hole(prefix, suffix, middle, "a.py", "repo", context), order, ruler, budget)
    if fitted is None:
        return
    hole, n_tokens = fitted
    assert n_tokens == len(ruler.codec.row(hole, order)[0]) <= budget
    assert hole.middle == middle and prefix.endswith(hole.prefix) and suffix.startswith(hole.suffix)
    cut_at = len(prefix) - len(hole.prefix)
    assert cut_at == 0 or prefix[cut_at - 1] == "\n"
    assert len(hole.suffix) == len(suffix) or hole.suffix.endswith("\n") or suffix[len(hole.suffix)] == "\n"


def test_a_long_file_fills_the_budget_on_both_sides(ruler):
    text = code(1, functions=60)
    at = text.index("return", len(text) // 2)
    end = text.index("\n", at)
    fitted = fit(Hole(text[:at], text[end:], text[at:end]), "spm", ruler, 400)
    assert fitted is not None
    hole, n_tokens = fitted
    assert 340 <= n_tokens <= 400
    assert ruler.count(hole.prefix) > ruler.count(hole.suffix) > 80


def test_a_middle_that_cannot_fit_gives_no_row(ruler):
    assert fit(Hole("", "", "word " * 200), "psm", ruler, 100) is None
    assert fit(Hole("x" * 500, "", "y"), "psm", ruler, 60) is None  # its own line does not fit


@pytest.mark.parametrize("kind", ["line_rest", "lines", "node", "chars"])
def test_spans_are_what_they_are_called(kind):
    text = code(3)
    scene, window = Scene(text, "python", []), Window(0, len(text))
    for seed in range(200):
        span = pick(scene, window, kind, random.Random(seed))
        assert span is not None
        middle, after = text[span.start : span.end], text[span.end : span.end + 1]
        if kind == "line_rest":
            assert "\n" not in middle and after in ("\n", "")
        elif kind == "lines":
            assert middle.count("\n") <= 4 and after in ("\n", "") and not text[: span.start].rpartition("\n")[2].strip()
        elif kind == "node":
            assert span.kind.startswith("node:") and span.kind.removeprefix("node:") not in DULL
            if span.kind.removeprefix("node:") in ("Call", "BinOp", "List", "IfExp"):
                assert parse_python(middle) is not None
        else:
            assert 2 <= len(middle) <= 256


def test_a_span_never_touches_a_mask_nor_is_blank(ruler, samples_params):
    text = code(4).replace("\n    for", "\n\n\n    for")
    masks = [{"start": at, "end": at + 25} for at in range(0, len(text), 60)]
    scene, params = Scene(text, "python", masks), samples_params()
    found = 0
    for seed in range(300):
        span = find_span(scene, Window(0, len(text)), params, ruler, random.Random(seed))
        if span:
            found += 1
            assert text[span.start : span.end].strip() and ruler.count(text[span.start : span.end]) <= params.max_middle_tokens
            assert all(span.end < mask["start"] or span.start > mask["end"] for mask in masks)
    assert found > 50


LINES = st.sampled_from(["def f(a):\n", "    return g(a, [1, 2])\n", "x = {'k': v}\n", "\n", '    """Doc.\n', '    """\n', "日本 = f(é)\n"])
MASKS = st.sampled_from(["key = '<secret>'\n", "# by <person> at user@example.com\n", "10.0.0.1", "<secret>\n"])


@settings(deadline=None, max_examples=150)
@given(parts=st.lists(LINES | MASKS, min_size=1, max_size=40), data=st.data())
def test_no_span_of_any_file_touches_a_placeholder(ruler, parts, data):
    text, masks, at = "", [], 0
    for part in parts:
        for found in re.finditer(r"<\w+>|user@example\.com|10\.0\.0\.1", part):
            masks.append({"kind": "secret", "rule": "r", "start": at + found.start(), "end": at + found.end()})
        text, at = text + part, at + len(part)
    mix = {data.draw(st.sampled_from(["line_rest", "lines", "node", "chars"])): 1.0}
    params = SamplesParams.model_validate(SAMPLES | {"span_mix": mix})
    tiles = windows(text, ruler, 60)
    for split in ("train", "test_file"):
        file = {"file_id": "f", "repo": "r", "path": "p.py", "lang": "python", "split": split, "content": text, "redactions": masks}
        picks = draw(split, "key", len(tiles), params, -1, LAST_TICKET)
        made = Cutter(params, ruler, np.empty(0, np.uint64)).make(file, tiles, picks, lambda: ())
        assert len(made.rows) + sum(made.lost.values()) == len(picks)
        for row in made.rows:
            hole = Hole(row["prefix"], row["suffix"], row["middle"], row["path"], row["repo"])
            assert row["n_tokens"] == len(ruler.codec.row(hole, row["order"])[0]) <= params.row_tokens
            places = [found.start() for found in re.finditer(f"(?={re.escape(row['prefix'] + row['middle'] + row['suffix'])})", text)]
            starts = [place + len(row["prefix"]) for place in places]
            assert any(all(start + len(row["middle"]) < mask["start"] or start > mask["end"] for mask in masks) for start in starts)


def test_strings_that_begin_a_line_with_three_quotes_are_prose():
    lines = [
        "def f():",
        "    '''Doc \"# not",
        '    a comment""" here.',
        "    '''",
        "    return '#', '\"\"\"'",
        "",
        "y = 1",
        "z = 2",
        "# why",
        "",
    ]
    text = "\n".join(lines)
    scene = Scene(text, "python", [])
    starts = [text.index(line) + len(line) - len(line.lstrip()) for line in lines if line]
    assert [scene.is_prose(start) for start in starts] == [False, True, True, True, False, False, False, True]
    hostile = Scene('"""' + "a\\ " * 100_000 + "'" * 9, "python", [])  # never closed
    assert not hostile.is_prose(50)  # and takes no time


def test_code_is_asked_more_than_prose(ruler, samples_params):
    text = '"""' + "some words of prose\n" * 30 + '"""\n' + "value = compute(table)\n" * 30
    scene, params = Scene(text, "python", []), samples_params(span_mix={"line_rest": 1.0})
    spans = [find_span(scene, Window(0, len(text)), params, ruler, random.Random(seed)) for seed in range(300)]
    prose = sum("prose" in text[span.start : span.end] for span in spans if span)
    assert 30 < prose < 110


CODE = {
    "typescript": """import { total } from "./total";

// Sums what is ordered, é included
export function invoice(order: Order): Price {
  if (order.lines.length === 0) {
    return { amount: 0, currency: order.currency };
  }
  const amount = total(order.lines, order.rate);
  return { amount, currency: "<SECRET>" };
}
""",
    "go": """package order

// Invoice sums what is ordered, é included
func Invoice(order Order) (Price, error) {
	if len(order.Lines) == 0 {
		return Price{Currency: order.Currency}, nil
	}
	amount := total(order.Lines, "<SECRET>")
	return Price{Amount: amount}, nil
}
""",
    "rust": """use crate::total;

/// Sums what is ordered, é included
pub fn invoice(order: &Order) -> Price {
    if order.lines.is_empty() {
        return Price { amount: 0, currency: order.currency };
    }
    let amount = total(&order.lines, "<SECRET>");
    Price { amount, currency: order.currency }
}
""",
    "c": """#include "order.h"

/* Sums what is ordered, é included */
int invoice(struct order *order) {
  if (order->lines == NULL) {
    return 0;
  }
  int amount = total(order->lines, "<SECRET>");
  return amount + order->rate;
}
""",
}


@pytest.mark.parametrize("lang", sorted(CODE))
def test_rows_of_other_languages_put_together_are_the_file_and_spare_masks(ruler, samples_params, lang):
    text = CODE[lang] * 4
    masks = [{"start": found.start(), "end": found.end()} for found in re.finditer("<SECRET>", text)]
    scene, kinds = Scene(text, lang, masks), set()
    for tile in windows(text, ruler, 120):
        for seed in range(60):
            span = find_span(scene, tile, samples_params(), ruler, random.Random(seed))
            if span is None:
                continue
            kinds.add(span.kind)
            prefix, middle, suffix = text[tile.start : span.start], text[span.start : span.end], text[span.end : tile.end]
            assert prefix + middle + suffix == text[tile.start : tile.end]
            assert middle.strip() and "SECRET" not in middle
            if span.kind.startswith("node:"):
                assert middle == middle.strip() and not middle.startswith(("//", "/*"))
    assert {"line_rest", "lines", "chars", "node:body"} < kinds
    assert len(kinds) > 10


@pytest.mark.parametrize("lang", sorted(CODE))
def test_comments_are_prose_and_directives_are_code(lang):
    text = CODE[lang]
    scene = Scene(text, lang, [])
    assert scene.is_prose(text.index("/", text.index("\n\n")))
    assert not any(scene.is_prose(text.index(word)) for word in ("return", "amount", text.split()[0]))


def test_a_language_without_a_grammar_gets_every_kind_but_nodes(ruler, samples_params):
    text = "def add(a, b)\n  return a + b\nend\n" * 20
    spans = [find_span(Scene(text, "ruby", []), Window(0, len(text)), samples_params(), ruler, random.Random(seed)) for seed in range(100)]
    assert {span.kind for span in spans if span} == {"line_rest", "lines", "chars"}


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("web/src/app.ts", 'import {\n a\n} from "./lib/math.js";\nimport x from "@/ui";', ["web/src/lib/math.ts", "web/src/ui/index.tsx"]),
        ("web/src/lib/math.ts", 'const a = require("../app"); import("./other")', ["web/src/app.ts"]),
        ("web/src/app.ts", 'import react from "react"; import z from "math"', []),
        ("java/src/com/acme/App.java", "import static com.acme.db.Store.open;\nimport com.acme.ui.*;\nimport java.util.List;",
         ["java/src/com/acme/db/Store.java", "java/src/com/acme/ui/Page.java"]),
        ("go/main.go", 'import (\n\t"fmt"\n\tst "example.org/acme/go/store" // é\n)\n', ["go/store/open.go", "go/store/shut.go"]),
        ("rs/src/main.rs", "mod store;\npub(crate) use crate::store::disk::{Disk, block};\nuse std::fs;",
         ["rs/src/store/mod.rs", "rs/src/store/disk/block.rs", "rs/src/store/disk.rs"]),
        ("rs/src/store/disk.rs", "use super::Store;\nmod block;\n", ["rs/src/store/mod.rs", "rs/src/store/disk/block.rs"]),
        ("c/src/main.c", '#include "util.h"\n#  include "db/store.h"\n#include <stdio.h>\n', ["c/src/util.h", "c/include/db/store.h"]),
    ],
)  # fmt: skip
def test_imports_are_found_in_every_language(path, text, expected):
    paths = [
        "web/src/app.ts", "web/src/lib/math.ts", "web/src/ui/index.tsx", "web/math.ts", "other/web/src/app.ts",
        "java/src/com/acme/App.java", "java/src/com/acme/db/Store.java", "java/src/com/acme/ui/Page.java",
        "go/main.go", "go/store/open.go", "go/store/shut.go", "go/store/open_test.go", "store/else.go",
        "rs/src/main.rs", "rs/src/store/mod.rs", "rs/src/store/disk.rs", "rs/src/store/disk/block.rs",
        "c/src/main.c", "c/src/util.h", "c/include/util.h", "c/include/db/store.h",
    ]  # fmt: skip
    assert [found for found in Modules(paths).imported(path, text) if found != path] == expected


@settings(deadline=None, max_examples=200)
@given(text=st.text(max_size=200), path=st.sampled_from(["a.py", "x/a.ts", "x/A.java", "a.go", "src/a.rs", "a.c", "a", "../a.ts"]))
def test_no_text_breaks_the_search_for_imports(text, path):
    for start in ("import ", "from ", 'import "', "use crate::{", '#include "../../', 'import x from "../../../', ""):
        assert set(Modules([path, "b.ts"]).imported(path, start + text + '"')) <= {path, "b.ts"}


@pytest.mark.parametrize("path", ["a.py", "a.ts", "A.java", "a.go", "a.rs", "a.c"])
def test_the_search_for_imports_is_linear(path):
    started = time.thread_time()
    for bomb in ("import ", "from ", "use crate::", "use crate::{", "#include ", "pub(", 'import "'):
        for filler in (" ", ".", "a", "::a", "(", '"', "a ", "\n"):
            list(Modules([path]).imported(path, bomb + filler * 100_000))
            list(Modules([path]).imported(path, (bomb + filler) * 10_000))
    assert time.thread_time() - started < 2


@pytest.mark.parametrize(
    ("chunk", "middle", "held"),
    [
        ("def f():\n    return  total( a )\n", "return total(a)", True),
        ("if (x) {\n  a(b);\n}", "if (x)\n{\n  a(b);\n}", True),
        ("value = compute_the_total(x)\nprint(y)\nsend_to_the_client(y)", "value = compute_the_total(x)\nsend_to_the_client(y)", True),
        ("value = compute_the_total(x)", "value = compute_the_rest(x)\nvalue = compute_the_total(x)\nsend_to_the_client(y)", False),
        ("return total(b)", "return total(a)", False),
    ],
)  # fmt: skip
def test_a_chunk_with_a_near_copy_of_the_middle_holds_it(chunk, middle, held):
    assert holds(chunk, middle) is held


def test_the_best_chunk_that_does_not_hold_the_middle_is_taken(ruler):
    other = "function best(order) {\n  return order.total;\n}\n\nfunction next(order) {\n  return 0;\n}\n"
    chosen = choose("order best total", "", "return order.total;", [("b.js", other)], "javascript", ruler, 200)
    assert [chunk.text.split("(")[0] for chunk in chosen] == ["function next"]


def test_context_is_what_the_file_imports_and_never_holds_the_middle(ruler):
    files = {
        "src/pkg/a.py": "from pkg.deep import thing\nimport pkg.other\nfrom . import near\n",
        "src/pkg/deep.py": "def thing(order):\n    return order_total(order)\n",
        "src/pkg/other.py": "def unrelated():\n    return 1\n",
        "src/pkg/near.py": "LIMIT = 3\n",
        "src/pkg/zzz.py": "ZZZ = 1\n",
        "elsewhere/far.py": "FAR = 1\n",
    }
    others = Neighbours(files).of("src/pkg/a.py", files["src/pkg/a.py"])
    assert [path for path, _ in others][:3] == ["src/pkg/deep.py", "src/pkg/other.py", "src/pkg/near.py"]
    assert "elsewhere/far.py" not in dict(others) and "src/pkg/a.py" not in dict(others)
    chosen = choose("order", "", "order_total(order)", others, "python", ruler, 200)
    assert chosen and all("order_total(order)" not in chunk.text for chunk in chosen)
    for budget in (0, 10, 30, 60):
        chosen = choose("order", "", "never there", others, "python", ruler, budget)
        assert sum(ruler.count(f"{chunk.path}\n{chunk.text}") + 1 for chunk in chosen) <= budget + 2 * len(chosen)


def test_nothing_inside_an_f_string_is_taken_for_a_node():
    text = 'def f(name):\n    return (f"one {name!r}"\n            f" two {name.upper()} {1 + 2}")\n\nx = name.upper()\n'
    scene = Scene(text, "python", [])
    for span in scene.nodes:
        middle = text[span.start : span.end]
        assert span.kind != "FormattedValue" and (span.kind != "Call" or (middle == "name.upper()" and span.start > text.index("x =")))
