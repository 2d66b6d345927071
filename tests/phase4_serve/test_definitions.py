# ruff: noqa: E501  rows of text to look at as they stand
"""Names that code defines and imports, in eight languages, whatever a line holds."""

from __future__ import annotations

import time

import pytest

from phase4_serve.definitions import PATTERNS, defined, imported, opened, used

DEFINED = [
    ("python", "@decorated\nclass Reader(Base):\n    def read_all(self): ...\n    async def close_it(self): ...\nLIMIT = 3\nNAME: str = ''\n"
     "if LIMIT == 4:\n    local = 1\n", ["Reader", "read_all", "close_it", "LIMIT", "NAME"]),
    ("javascript", "export default class Reader {\n  static async readAll(x) {\n    return 1\n  }\n}\nexport function parseIt() {}\n"
     "const makeIt = async (a) => a\nexports.other = 1\nThing.prototype.draw = function () {}\nif (parse(x)) {\n}\n",
     ["Reader", "parseIt", "makeIt", "readAll", "other", "draw"]),
    ("typescript", "export interface Shape {\n}\nexport type Point = { x: number }\nexport enum Kind { A }\nexport abstract class Base<T> {\n"
     "  protected async load(a: T): Promise<void> {\n  }\n}\ndeclare const VERSION: string\n",
     ["Shape", "Point", "Kind", "Base", "VERSION", "load"]),
    ("java", "public final class Reader<T> {\n  private static final int LIMIT = 3;\n  public <K> Map<K, T> readAll(\n      K key) throws IOException {\n"
     "    return new HashMap<>();\n  }\n}\nrecord Point(int x) {}\n", ["Reader", "Point", "readAll", "LIMIT"]),
    ("go", "type Reader struct {\n}\nfunc (r *Reader) ReadAll(p []byte) error {\n\treturn nil\n}\nfunc New() *Reader { return nil }\nvar Limit = 3\n",
     ["ReadAll", "New", "Reader", "Limit"]),
    ("rust", "pub(crate) struct Reader;\nimpl Reader {\n    pub async unsafe fn read_all(&self) {}\n}\npub trait Draw {}\nmacro_rules! make { () => {} }\n"
     "pub const LIMIT: usize = 3;\n", ["Reader", "read_all", "Draw", "LIMIT", "make"]),
    ("c", "#define LIMIT 3\ntypedef struct {\n  int x;\n} point_t;\nstatic const char * read_all(struct reader * r,\n    int n)\n{\n  return call(r);\n}\n"
     "typedef int number_t;\nint declared(int);\n", ["LIMIT", "point_t", "number_t", "read_all"]),
    ("cpp", "namespace tools {\nclass API_EXPORT Reader : public Base {\n};\nstd::vector<int> Reader::read_all(const std::string & name) const {\n"
     "  return make(name);\n}\nusing Number = int;\n}\n", ["tools", "Reader", "Number", "read_all"]),
]  # fmt: skip


@pytest.mark.parametrize(("lang", "text", "names"), DEFINED, ids=[lang for lang, _, _ in DEFINED])
def test_what_a_piece_defines(lang: str, text: str, names: list[str]) -> None:
    assert sorted(defined(text, lang)) == sorted(names)


IMPORTED = [
    ("python", "from .models import Reader, Writer as Out\nfrom pkg.sub import (\n    one,  # why\n    two,\n)\nimport numpy as np\nimport json\n",
     {"Reader": ".models", "Out": ".models", "one": "pkg.sub", "two": "pkg.sub", "np": "numpy", "json": "json"}),
    ("javascript", "import fs, { read as load } from './io.js'\nconst { a, b: c } = require('../x')\nconst path = require('path')\nimport * as all from 'y'\n",
     {"fs": "./io.js", "load": "./io.js", "a": "../x", "c": "../x", "path": "path", "all": "y"}),
    ("typescript", "import type { Shape } from './shape'\n", {"Shape": "./shape"}),
    ("java", "import java.util.List;\nimport static a.B.max;\n", {"List": "java.util", "max": "a.B"}),
    ("go", 'import (\n\t"fmt"\n\tx "example.com/lib/text"\n)\n', {"fmt": "fmt", "x": "example.com/lib/text"}),
    ("rust", "use crate::io::{Reader, Writer as Out};\nuse std::fmt;\n", {"Reader": "crate::io", "Out": "crate::io", "fmt": "std"}),
    ("c", '#include "reader.h"\n#include <stdio.h>\n', {"h": "reader.h"}),
]  # fmt: skip


@pytest.mark.parametrize(("lang", "text", "names"), IMPORTED, ids=[lang for lang, _, _ in IMPORTED])
def test_what_a_file_imports(lang: str, text: str, names: dict[str, str]) -> None:
    assert imported(text, lang) == names


def test_the_call_that_is_open_comes_first_then_imports_then_the_nearest() -> None:
    prefix = "def own(a):\n    helper(a)\n    nearer = far_away(a)\n    value = outer(first, [inner(second,"
    names = [usage.name for usage in used(prefix, "\nbelow()\n", "python", {"helper": ".tools", "unused": ".tools"})]
    assert names[:3] == ["inner", "outer", "helper"] and names[-1] == "unused" and "own" not in names
    assert names.index("second") < names.index("nearer")


def test_the_calls_that_are_open_at_the_cursor() -> None:
    assert opened("f(a, g (b), h[1](\n  x,\n  {'k': m(") == ["m", "f"]
    assert opened("f()\ng") == opened("(") == opened("") == []
    assert opened("old(\n" + "a,\n" * 20) == []


LINES = ["a ", " ", "f(", "a", "a<", "static ", "const ", "\ta", "x = ", "a* ", "import {a, ", "from a import (b, ", "a::", "use a::{", 'import "',
         "async ", "pub ", "typedef ", "struct AAA ", "public int a", "({[", "a.prototype"]  # fmt: skip


@pytest.mark.parametrize("lang", PATTERNS)
def test_no_line_takes_long(lang: str) -> None:
    for unit in LINES:
        line = (unit * 1000)[:1000]
        started = time.process_time()
        defined("\n".join([line] * 24), lang), imported("\n".join([line] * 400), lang), used(line, line, lang, {})
        assert time.process_time() - started < 0.5, unit
