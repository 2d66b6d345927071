"""Languages that tree-sitter reads: nodes are places of the text, chunks are its definitions, and no text takes long."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import grammars
from core.errors import InputError
from core.syntax import chunks, nodes, parses

SNIPPETS = {
    "javascript": """// é
import { a } from "./a";

/** Adds 日本. */
export function add(x, y = 2) {
  // before
  const sum = x + y; // 𝒳
  if (sum > 10) { return cap(sum, "ü"); }
  return sum;
  // after
}
""",
    "typescript": """interface Box<T> {
  value: T;
  open(): void;
}

export class Crate implements Box<string> {
  constructor(readonly value: string) {}
  open(): void {
    const view = <Part é="ü">{this.value}</Part>;
    render(view, 3);
  }
}
""",
    "java": """package a.b;

import java.util.List;

/** Eine Kiste für 日本. */
class Crate {
  private final List<String> names;

  int count(String name) {
    int found = 0;
    for (String each : names) {
      if (each.equals(name)) { found += 1; }
    }
    return found; // ü
  }
}
""",
    "go": """package crate

import "fmt"

// Count the 日本.
func Count(names []string, name string) int {
	found := 0
	for _, each := range names {
		if each == name {
			found += 1
		}
	}
	fmt.Println("ü", found)
	return found
}
""",
    "rust": """use crate::part::Part;

/// Counts the 日本.
#[inline]
pub fn count(names: &[String], name: &str) -> usize {
    let mut found = 0;
    for each in names {
        if each == name { found += 1; }
    }
    println!("ü {}", found);
    found
}
""",
    "c": """#include "crate.h"

/* Counts the 日本. */
int count(const char **names, int n, const char *name) {
  int found = 0;
  for (int i = 0; i < n; i++) {
    if (strcmp(names[i], name) == 0) { found += 1; }
  }
  printf("ü %d", found);
  return found;
}
""",
    "cpp": """#include "crate.h"

namespace crate {
// Counts the 日本.
template <typename T>
class Counter {
 public:
  int count(const std::vector<T>& names, const T& name) {
    int found = 0;
    for (auto& each : names) {
      if (each == name) { found += 1; }
    }
    return found;  // ü
  }
};
}  // namespace crate
""",
}
EXPECTED = {  # a node type, and the text of one
    "javascript": [("parenthesized_expression", "(sum > 10)"), ("arguments", '(sum, "ü")'), ("call_expression", 'cap(sum, "ü")')],
    "typescript": [("jsx_attribute", 'é="ü"'), ("body", "value: T;\n  open(): void;"), ("arguments", "(view, 3)")],
    "java": [("method_invocation", "each.equals(name)"), ("body", "found += 1;"), ("return_statement", "return found;")],
    "go": [("argument_list", '("ü", found)'), ("body", "found += 1"), ("binary_expression", "each == name")],
    "rust": [("token_tree", '("ü {}", found)'), ("body", "found += 1;"), ("reference_type", "&[String]")],
    "c": [("argument_list", '("ü %d", found)'), ("binary_expression", "i < n"), ("body", "found += 1;")],
    "cpp": [("condition_clause", "(each == name)"), ("body", "found += 1;"), ("return_statement", "return found;")],
}
each_language = pytest.mark.parametrize("lang", sorted(SNIPPETS))


def test_every_language_with_a_grammar_is_tested():
    assert SNIPPETS.keys() == EXPECTED.keys() == grammars.LANGUAGES


@each_language
def test_nodes_are_what_the_grammar_calls_them(lang):
    text = SNIPPETS[lang]
    assert parses(text, lang) is True
    found = {(span.kind, text[span.start : span.end]) for span in nodes(text, lang)}
    assert set(EXPECTED[lang]) <= found
    assert {text for kind, text in found if kind == "comment"} == {*re.findall(r"//.*|/\*.*?\*/", text)}


@each_language
def test_a_body_is_what_stands_between_the_braces(lang):
    text = SNIPPETS[lang]
    bodies = [span for span in nodes(text, lang) if span.kind == "body"]
    assert len(bodies) >= 2
    for span in bodies:
        before = re.sub(r"//.*|/\*.*?\*/", "", text[: span.start]).rstrip()
        after = re.sub(r"//.*|/\*.*?\*/", "", text[span.end :]).lstrip()
        assert before.endswith("{") and after.startswith("}")
        assert parses(text[: span.start] + text[span.end :], lang) is not False  # an empty block


def test_chunks_are_definitions_with_what_stands_above_them():
    text = SNIPPETS["rust"]
    assert [(span.kind, text[span.start : span.end].split("\n")[0]) for span in chunks(text, "rust")] == [
        ("module", "use crate::part::Part;"),
        ("function_item", "/// Counts the 日本."),
    ]


def test_a_long_class_is_cut_at_its_methods():
    text = SNIPPETS["java"]
    found = [(span.kind, text[span.start : span.end].strip().split("\n")[0].strip()) for span in chunks(text, "java", max_lines=9)]
    assert found == [
        ("module", "package a.b;"),
        ("class_declaration", "/** Eine Kiste für 日本. */"),
        ("method_declaration", "int count(String name) {"),
    ]
    assert text[chunks(text, "java", max_lines=9)[-1].end :] == ""  # the closing brace goes with the last method


LINES = [line for text in SNIPPETS.values() for line in text.split("\n")]
BROKEN = st.lists(st.sampled_from([*LINES, "\0", "\ud800", "{{{", '"', "/*", "é" * 9, "}"]), max_size=30).map("\n".join)


@settings(deadline=None, max_examples=60)
@given(text=BROKEN, lang=st.sampled_from(sorted(SNIPPETS)), max_lines=st.integers(1, 12))
def test_spans_of_any_text_lie_in_it_and_chunks_cover_it(text, lang, max_lines):
    for span in nodes(text, lang):
        assert 0 <= span.start < span.end <= len(text)
        assert not text[span.end - 1].isspace()
        assert span.kind != "comment" or text[span.start] in "/<#"
    at = 0
    for span in chunks(text, lang, max_lines):
        assert span.start >= at and not text[at : span.start].strip()
        at = span.end
    assert not text[at:].strip()


@settings(deadline=None, max_examples=60)
@given(prefix=st.text("aé日𝒳 \n", max_size=20), lang=st.sampled_from(sorted(SNIPPETS)))
def test_offsets_are_characters_whatever_stands_before(prefix, lang):
    comment = f"/* {prefix} */\n"
    text = SNIPPETS[lang]
    there = {(span.start + len(comment), span.end + len(comment), span.kind) for span in nodes(text, lang)}
    assert there <= set(nodes(comment + text, lang))


@each_language
def test_no_two_nodes_overlap_but_one_in_the_other(lang):
    ends: list[int] = []
    for span in sorted(nodes(SNIPPETS[lang], lang), key=lambda span: (span.start, -span.end)):
        while ends and ends[-1] <= span.start:
            ends.pop()
        assert not ends or span.end <= ends[-1]
        ends.append(span.end)


def test_errors_are_said_where_they_mean_something():
    assert parses("func f( {", "go") is False
    assert parses("int f( {", "c") is None  # it may be a macro
    assert parses("x = 1", "ruby") is None
    assert parses("class A { public: int x; };", "c") is True  # a header of C++ by another name
    text = "function good() { return add(1, 2); }\nfunction bad( { return add(3, 4); }\n"
    found = [text[span.start : span.end] for span in nodes(text, "javascript")]
    assert "add(1, 2)" in found and text.strip() not in found


BOMBS = {
    "one_line": "x" * 1_000_000,
    "brackets": "(" * 100_000,
    "closed": "(" * 50_000 + ")" * 50_000,
    "objects": "{" * 100_000,
    "nul": "\0" * 200_000,
    "quotes": '"' * 300_000,
    "arrows": "=>" * 20_000,
    "calls": "f(" * 300_000,
    "less": "a<" * 300_000,
    "commas": "a,\n" * 200_000,
    "comments": "/*" * 300_000,
    "unary": "-" * 300_000,
    "directives": "#if x\n" * 100_000,
    "questions": "a?" * 300_000,
}


@each_language
def test_no_text_takes_long_or_much_memory(lang):
    code = f"""
import time
from core.syntax import nodes
from tests.core.test_grammars import BOMBS
for name, text in BOMBS.items():
    started = time.thread_time()
    assert sum(1 for _ in nodes(text, {lang!r})) >= 0
    peak_kb = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(name, time.thread_time() - started, int(peak_kb) // 1024)
"""  # not ru_maxrss, which a child takes over from a large parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    for line in done.stdout.splitlines():
        name, seconds, peak_mb = line.split()
        assert float(seconds) < 3, name
        assert int(peak_mb) < 1000, name


def test_a_grammar_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(grammars.GRAMMARS, "go", ("tree_sitter_missing", "language"))
    grammars._language.cache_clear()
    with pytest.raises(InputError, match="tree-sitter-missing"):
        parses("x", "go")
    grammars._language.cache_clear()


def test_parsing_does_not_grow_memory():
    text = SNIPPETS["typescript"] * 50
    before = None
    for round_ in range(300):
        list(nodes(text, "typescript"))
        if round_ == 100:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_reading_is_fast():
    text = SNIPPETS["rust"] * 1000

    def seconds() -> float:
        started = time.thread_time()
        assert sum(1 for _ in nodes(text, "rust")) > 20_000
        return time.thread_time() - started

    assert len(text) / min(seconds() for _ in range(3)) > 1.5e6  # 5 MB/s measured, alone


def test_a_grammar_is_loaded_when_its_language_is_met():
    code = """
import sys
from core.syntax import parses
parses("x = 1", "go")
print([name for name in sys.modules if name.startswith("tree_sitter_") and "." not in name])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['tree_sitter_go']"
