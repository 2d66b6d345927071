"""Does retrieval find the definition of what is about to be called? Over the call sites of real repositories.

In:  installed packages, folders of other languages; a GGUF for the dense vectors
Out: MRR@10 and recall@3 of the defining piece by method, with intervals and paired differences

A site is a call of a function or class that one piece of another file defines. The question is the text around the cursor,
which stands before the name (`before`), before a name whose import is not written yet (`unimported`), or after the opening
bracket (`arguments`); the rest of the call's lines is not shown.
"""

from __future__ import annotations

import ast
import hashlib
import shutil
import sysconfig
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from core import grammars
from core.errors import InputError
from core.statistics import difference_of_ratios, ratio
from core.syntax import parse_python
from phase4_serve import definitions, retrieve
from phase4_serve.index import Hit, Index, Piece, pieces, put_all
from phase4_serve.retrieve import Around
from phase4_serve.vectors import Embedding, of_model
from phase4_serve.workspace import Source, Workspace

PREFIX, SUFFIX = 2000, 700  # characters of a window, some 512 and 192 tokens
KINDS = ("before", "unimported", "arguments")
TOP, FIRST = 10, 3  # MRR@10, recall@3
RESAMPLES, SEED = 1000, 7
PER_TARGET = 2  # sites of one definition in one file
BASE = "bm25"
DECLARATION = frozenset({
    "function_declaration", "class_declaration", "function_definition", "function_item", "struct_item", "method_declaration",
    "class_specifier", "struct_specifier", "method_definition", "type_spec", "interface_declaration", "generator_function_declaration",
})  # fmt: skip
CALL = frozenset({"call_expression", "new_expression", "method_invocation", "object_creation_expression"})


PACKAGES = ("fastapi", "httpx", "rich", "networkx", "trl", "dvc", "datasets")
OTHERS = ("/usr/lib/node_modules/npm/lib",)  # JavaScript, where there is any


class Site(NamedTuple):
    """A call whose definition is known."""

    path: str
    name: str
    start: int  # of the name, characters
    opened: int  # after the bracket
    end: int  # of the call
    target: str  # path of the file that defines it


class HidingIndex(Index):
    """An index that can be told to know nothing of the import of one name."""

    hidden = ""

    def imports(self, path: str) -> dict[str, str]:
        return {name: module for name, module in super().imports(path).items() if name != self.hidden}


Methods = dict[str, Callable[[HidingIndex, Around], Iterable[Piece]]]


def methods(dense: bool) -> Methods:
    """How pieces are looked for, by name."""

    def in_mode(mode: Any) -> Callable[[HidingIndex, Around], Iterable[Piece]]:
        def find(index: HidingIndex, around: Around) -> Iterator[Piece]:
            index.mode = mode
            return retrieve.candidates(index, around)

        return find

    def of(hits: Callable[[HidingIndex, Around], list[Hit]]) -> Callable[[HidingIndex, Around], Iterable[Piece]]:
        def find(index: HidingIndex, around: Around) -> Iterator[Piece]:
            near = retrieve.line_set(around.prefix) | retrieve.line_set(around.suffix)
            return retrieve._distinct((hit.piece for hit in hits(index, around)), around.path, near)

        return find

    def likeness(index: HidingIndex, around: Around) -> list[Hit]:
        return index.like(retrieve.likeness_of(around), retrieve.CANDIDATES, around.path)

    def words_and_likeness(index: HidingIndex, around: Around) -> list[Hit]:
        words = retrieve.strong(index.search(retrieve.words_around(around), retrieve.CANDIDATES, around.path))
        return retrieve.fused([words, likeness(index, around)])

    found: Methods = {"bm25": in_mode("bm25"), "definitions alone": of(retrieve.by_definition), "definitions": in_mode("definitions")}
    if dense:
        found |= {"dense alone": of(likeness), "bm25 + dense": of(words_and_likeness), "hybrid": in_mode("hybrid")}
    return found


def installed() -> list[Path]:
    """Repositories that this machine has."""
    packages = Path(sysconfig.get_paths()["purelib"])
    return [folder for folder in (*(packages / name for name in PACKAGES), *map(Path, OTHERS)) if folder.is_dir()]


def run(folders: Sequence[Path], sites: int, model: Path | None) -> dict[str, Any]:
    """Ranks of every method at every site of every folder, and what they come to.

    Raises:
        InputError: a folder is missing, or none holds a site.
    """
    embedding = of_model(model) if model else None
    rows: list[dict[str, Any]] = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder: name repositories with --repo")
        with tempfile.TemporaryDirectory() as copy:  # an installed package lies under folders that git ignores
            shutil.copytree(folder, Path(copy) / folder.name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.so*", ".*"))
            rows += _repository(Path(copy) / folder.name, sites, embedding)
    if not rows:
        raise InputError("no call of a definition in another file: name other repositories with --repo")
    names = list(methods(embedding is not None))
    figures = {"sites": len(rows) // len(KINDS), "repositories": [folder.name for folder in folders], "model": str(model or "")}
    kinds = {kind: {name: _figures([row for row in rows if row["kind"] == kind], name) for name in names} for kind in KINDS}
    return {**figures, "kinds": kinds, "by_repository": _by_repository(rows, names)}


def _repository(folder: Path, many: int, embedding: Embedding | None) -> list[dict[str, Any]]:
    sources = list(Workspace(folder, 400_000).sources())
    index = HidingIndex(24, "definitions", embedding)
    put_all(index, sources)
    texts = {source.path: source for source in sources}
    rows = []
    for site in sample(sites_of(sources), many):
        relevant = _defining(index, texts[site.target], site.name)
        if relevant:
            rows += [_row(index, site, kind, texts[site.path], relevant, folder.name, embedding is not None) for kind in KINDS]
    return rows


def _row(index: HidingIndex, site: Site, kind: str, source: Source, relevant: set[Piece], repository: str, dense: bool) -> dict[str, Any]:
    asked = around(site, kind, source)
    index.hidden = site.name if kind == "unimported" else ""
    row: dict[str, Any] = {"kind": kind, "repository": repository, "path": f"{repository}/{site.path}"}
    for name, method in methods(dense).items():
        started = time.perf_counter()
        found = [piece for _, piece in zip(range(TOP), method(index, asked), strict=False)]
        row[f"{name} ms"] = 1000 * (time.perf_counter() - started)
        row[name] = next((rank for rank, piece in enumerate(found, 1) if piece in relevant), 0)
    return row


def around(site: Site, kind: str, source: Source) -> Around:
    """The window of a site; of `unimported` without the lines that import the name."""
    cursor = site.opened if kind == "arguments" else site.start
    prefix = source.text[max(0, cursor - PREFIX) : cursor]
    prefix = prefix[prefix.find("\n") + 1 :] if cursor > PREFIX else prefix
    line_end = source.text.find("\n", site.end)
    suffix = "" if line_end == -1 else source.text[line_end : line_end + SUFFIX]
    if kind == "unimported":
        prefix = "".join(line for line in prefix.splitlines(True) if site.name not in definitions.imported(line, source.lang))
    return Around(prefix, suffix, site.path)


def _defining(index: Index, source: Source, name: str) -> set[Piece]:
    """The piece of a file in which a name's declaration begins, by syntax and not by our own patterns."""
    found = set()
    for declared, line in declarations(source):
        if declared == name:
            found |= {p for p in pieces(source, index.max_lines) if p.line <= line < p.line + p.text.count("\n")}
    return found


def declarations(source: Source) -> Iterator[tuple[str, int]]:
    """Names of functions, methods, classes and types with the line of the name, from 0."""
    if source.lang == "python":
        for node in ast.walk(parse_python(source.text) or ast.Module([], [])):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield node.name, node.lineno - 1
        return
    tree = grammars.parse(source.text, source.lang)
    for node in _walk(tree):
        if node.type in DECLARATION:
            name = node.child_by_field_name("name") or node.child_by_field_name("declarator")
            while name is not None and name.type.endswith("declarator"):
                name = name.child_by_field_name("declarator")
            if name is not None and (node.child_by_field_name("body") or node.type == "type_spec"):
                yield name.text.decode().rsplit("::", 1)[-1], name.start_point.row


def _walk(tree: grammars.Tree | None) -> Iterator[Any]:
    waiting = [tree._tree.root_node] if tree else []
    while waiting:
        node = waiting.pop()
        yield node
        waiting += node.children


def calls(source: Source) -> Iterator[tuple[str, int, int, int]]:
    """Name of what is called, where it begins, the offset after the bracket, the end of the call; ASCII files only."""
    text = source.text
    if not text.isascii():
        return
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    if source.lang == "python":
        for node in ast.walk(parse_python(text) or ast.Module([], [])):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                behind = starts[(node.func.end_lineno or 1) - 1] + (node.func.end_col_offset or 0)
                end = starts[(node.end_lineno or 1) - 1] + (node.end_col_offset or 0)
                yield name, behind - len(name), text.find("(", behind) + 1, end
        return
    for node in _walk(grammars.parse(text, source.lang)):
        if node.type in CALL:
            called = next((c for f in ("function", "constructor", "name", "type") if (c := node.child_by_field_name(f))), None)
            if called is not None:
                name = called.text.decode().replace("::", ".").replace("->", ".").rsplit(".", 1)[-1]
                if name.isidentifier():
                    yield name, called.end_byte - len(name), text.find("(", called.end_byte) + 1, node.end_byte


def sites_of(sources: Sequence[Source]) -> list[Site]:
    """Calls of names that one file defines once, another than the caller's; of Python also those an import tells apart."""
    where: dict[str, list[str]] = defaultdict(list)
    for source in sources:
        for name, _ in declarations(source):
            where[name].append(source.path)
    found = []
    for source in sources:
        imports = definitions.imported(source.text, source.lang)
        for name, start, opened, end in calls(source):
            files = [path for path in where.get(name, []) if len(name) >= definitions.SHORTEST]
            if name in imports and len(files) > 1:
                files = [path for path in files if retrieve.comes_from(path, imports[name])]
            if len(files) == 1 and files[0] != source.path and opened:
                found.append(Site(source.path, name, start, opened, end, files[0]))
    return found


def sample(sites: list[Site], many: int) -> list[Site]:
    """Some of them, by hash, few of one definition in one file."""
    taken: list[Site] = []
    seen: dict[tuple[str, str], int] = defaultdict(int)
    for site in sorted(sites, key=lambda s: hashlib.sha256(f"{s.path} {s.start}".encode()).digest()):
        if seen[site.path, site.name] < PER_TARGET and len(taken) < many:
            seen[site.path, site.name] += 1
            taken.append(site)
    return taken


def _scores(rows: list[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    return [1 / row[name] if row[name] else 0.0 for row in rows], [float(0 < row[name] <= FIRST) for row in rows]


def _figures(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    groups, ones = [row["path"] for row in rows], [1.0] * len(rows)
    figures: dict[str, Any] = {"p95_ms": sorted(row[f"{name} ms"] for row in rows)[int(0.95 * (len(rows) - 1))]}
    for measure, mine, base in zip(("mrr", "recall"), _scores(rows, name), _scores(rows, BASE), strict=True):
        figures[measure] = ratio(mine, ones, groups, RESAMPLES, SEED)._asdict()
        figures[f"{measure}_more"] = difference_of_ratios(mine, base, ones, groups, RESAMPLES, SEED)._asdict()
    if name == "hybrid":
        mine, base = _scores(rows, name)[0], _scores(rows, "definitions")[0]
        figures["over_definitions"] = difference_of_ratios(mine, base, ones, groups, RESAMPLES, SEED)._asdict()
    return figures


def _by_repository(rows: list[dict[str, Any]], names: list[str]) -> dict[str, dict[str, float]]:
    """MRR@10 of every method where the cursor stands before the name."""
    found: dict[str, dict[str, float]] = {}
    for repository in dict.fromkeys(row["repository"] for row in rows):
        mine = [row for row in rows if row["repository"] == repository and row["kind"] == KINDS[0]]
        found[repository] = {"sites": len(mine)} | {name: sum(_scores(mine, name)[0]) / len(mine) for name in names}
    return found


def show(figures: dict[str, Any]) -> None:
    """Print the tables."""
    console = Console(width=150)
    for kind, by_method in figures["kinds"].items():
        table = Table("method", f"MRR@{TOP}", f"recall@{FIRST}", "MRR over bm25 (95%)", "p95 ms", title=f"cursor: {kind}")
        for name, one in by_method.items():
            mrr, recall, more = one["mrr"], one["recall"], one["mrr_more"]
            table.add_row(
                name,
                f"{mrr['value']:.3f} [{mrr['low']:.3f}, {mrr['high']:.3f}]",
                f"{recall['value']:.1%} [{recall['low']:.1%}, {recall['high']:.1%}]",
                f"{more['value']:+.3f} [{more['low']:+.3f}, {more['high']:+.3f}]" if name != BASE else "",
                f"{one['p95_ms']:.1f}",
            )
        console.print(table)
        if "hybrid" in by_method:
            over = by_method["hybrid"]["over_definitions"]
            console.print(f"hybrid over definitions: {over['value']:+.3f} [{over['low']:+.3f}, {over['high']:+.3f}]", highlight=False)
    table = Table("repository", *next(iter(figures["by_repository"].values())), title=f"MRR@{TOP}, cursor before the name")
    for repository, values in figures["by_repository"].items():
        table.add_row(repository, *(f"{value:.3f}" if name != "sites" else str(value) for name, value in values.items()))
    console.print(table)
    console.print(f"{figures['sites']:,} sites of {len(figures['repositories'])} repositories", highlight=False)
