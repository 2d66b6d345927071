"""Do completions end where they should? Real files with a hole, and a model that writes the truth and then goes on with the file.

In:  folders of source files; a cutter, and the peer that goes by indentation alone
Out: per language and kind of hole: share ended exactly at the truth's end, too early, too late; microseconds; and how often the truth
     holds a line that is almost the next one, which is what a rule that ended completions before such lines would spoil

    line         the rest of a begun line
    statement    one statement on an empty line, others behind it
    body         what stands between the braces, the closing one is there already
    open         the same, and the closing brace is missing
    end          the same at the end of the file: nothing stands behind the cursor
    declaration  a function or class on an empty line at top level or in a class
"""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rapidfuzz.distance import Levenshtein
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from core import stops
from core.errors import InputError
from core.fim import Hole
from core.progress import track
from core.syntax import lang_of, nodes, parses
from eval.bench import stops_peer

LANGUAGES = ("python", "javascript", "typescript", "java", "go", "rust", "c", "cpp")
KINDS = ("line", "statement", "body", "open", "end", "declaration")
PER_FILE = 2  # holes of each kind
SMALLEST, LARGEST = 600, 60_000  # characters of a file
LONGEST_TRUTH = 1500  # characters
ALMOST = 0.1  # of a line's length: changes that make it almost another (Continue), where both have more than SHORT characters
SHORT = 4
WRITTEN = 1200  # characters that the model goes on for
STATEMENT = ("statement", "declaration", "expression_statement", "Assign", "Expr", "If", "For", "While", "Return", "With", "Try")
DECLARED = ("function_declaration", "function_definition", "method_declaration", "method_definition", "function_item", "class_declaration",
            "interface_declaration", "struct_item", "impl_item", "enum_item", "type_declaration", "FunctionDef", "ClassDef")  # fmt: skip
GOES_ON = re.compile(r"\s*(?:else|catch|finally|while|[)\].,;:?])")  # the closing brace ends no statement
Cut = Callable[[str, str, str, str], str]
CUTTERS: dict[str, Cut] = {"tabsmith": stops.shown, "indentation": stops_peer.shown}


class Case(NamedTuple):
    """A hole as an editor has it, and what the model writes."""

    lang: str
    kind: str
    hole: Hole
    written: str


def cases(folders: Sequence[Path], per_language: int, seed: int) -> list[Case]:
    """Holes of every kind and language, as many of each as asked for if the files hold them.

    Raises:
        InputError: a folder is not there, or holds no file of the languages.
    """
    files: dict[str, list[Path]] = defaultdict(list)
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"--code {folder}: no such folder")
        for path in sorted(folder.rglob("*.*")):
            lang = lang_of(path.name)
            if lang in LANGUAGES and path.is_file() and not path.name.endswith((".min.js", ".d.ts")):
                files[lang].append(path)
    if not files:
        raise InputError(f"no file of {', '.join(LANGUAGES)} under {', '.join(map(str, folders))}: name folders of source with --code")
    found = []
    for lang, paths in sorted(files.items()):
        paths.sort(key=lambda path: hashlib.sha256(f"{seed} {path}".encode()).digest())
        kinds: dict[str, list[Case]] = {kind: [] for kind in KINDS}
        for path in track(paths, lang, unit="files"):
            for case in _of_file(path, lang, seed):
                if len(kinds[case.kind]) < per_language:
                    kinds[case.kind].append(case)
            if all(len(kinds[kind]) >= per_language for kind in KINDS if lang != "python" or kind not in ("open", "end")):
                break
        found += [case for some in kinds.values() for case in some]
    return found


def _of_file(path: Path, lang: str, seed: int) -> Iterator[Case]:
    try:
        text = path.read_text("utf-8").replace("\r\n", "\n").replace("\t", "    " if lang != "go" else "\t")
    except (OSError, UnicodeDecodeError):
        return
    if not SMALLEST <= len(text) <= LARGEST or max(map(len, text.split("\n"))) > 300 or parses(text, lang) is False:
        return
    chance = random.Random(f"{seed} {path.name} {len(text)}")
    spans = list(nodes(text, lang))
    chance.shuffle(spans)
    yield from _lines(text, lang, chance)
    seen: Counter[str] = Counter()
    for start, end, kind in spans:
        begin, stop = text.rfind("\n", 0, start) + 1, text.find("\n", end)
        if text[begin:start].strip() or stop == -1 or end - start > LONGEST_TRUTH:
            continue
        name = "body" if kind == "body" else "declaration" if kind in DECLARED else "statement" if kind.endswith(STATEMENT) else ""
        if not name or seen[name] >= PER_FILE:
            continue
        made = list(_holes(text, lang, name, start, end))
        seen[name] += bool(made)
        yield from made


def _lines(text: str, lang: str, chance: random.Random) -> Iterator[Case]:
    """Rests of lines that end a word or bracket."""
    starts = [at for at in range(1, len(text) - 1) if text[at - 1] in " (.,=" and text[at].isalnum()]
    for at in chance.sample(starts, min(PER_FILE, len(starts))):
        end = text.find("\n", at)
        if end != -1 and text[text.rfind("\n", 0, at) + 1 : at].strip():
            yield Case(lang, "line", Hole(text[:at], text[end:], text[at:end]), text[at : end + WRITTEN])


def _holes(text: str, lang: str, name: str, start: int, end: int) -> Iterator[Case]:
    stop = text.find("\n", end)
    rest = text[end:stop]
    if rest.strip() in ("", ";", ",") and not rest.startswith(" "):
        end = stop
        yield Case(lang, name, Hole(text[:start], text[end:], text[start:end]), text[start : end + WRITTEN])
    if name == "body" and lang != "python" and "\n" in text[:start] and not rest.strip():
        close = text.find("\n", stop + 1)
        if close != -1 and text[stop:close].strip() == "}" and not GOES_ON.match(text[close:]):
            for kind, behind in (("open", text[close:]), ("end", "")):
                yield Case(lang, kind, Hole(text[:start], behind, text[start:close]), text[start : close + WRITTEN])


def judge(case: Case, cut: Cut) -> str:
    """exact, early, late or other."""
    truth, seen = case.hole.middle.rstrip(), cut(case.hole.prefix, case.hole.suffix, case.lang, case.written).rstrip()
    if seen == truth:
        return "exact"
    return "early" if truth.startswith(seen) else "late" if seen.startswith(truth) else "other"


def run(folders: Sequence[Path], per_language: int, seed: int) -> dict[str, Any]:
    """Judge every case with every cutter; figures by language and kind."""
    found = cases(folders, per_language, seed)
    figures: dict[str, Any] = {"per_language": per_language, "seed": seed, "n": len(found), "shares": {}, "cost": cost(found)}
    figures["almost"] = almost(found)
    for name, cut in CUTTERS.items():
        tally: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
        for case in found:
            verdict = judge(case, cut)
            kept = cut(case.hole.prefix, case.hole.suffix, case.lang, case.hole.middle).rstrip() == case.hole.middle.rstrip()
            for kind in (case.kind, "all"):
                tally[case.lang][kind][verdict] += 1
                tally[case.lang][kind]["kept"] += kept  # of a model that ends by itself
                tally[case.lang][kind]["n"] += 1
        figures["shares"][name] = {lang: {kind: dict(counts) for kind, counts in kinds.items()} for lang, kinds in tally.items()}
    return figures


def almost(found: Sequence[Case]) -> dict[str, float]:
    """By language the share of truths, of those followed by a line, that hold one almost but not quite like it."""
    tally: dict[str, Counter[bool]] = defaultdict(Counter)
    for case in found:
        known = stops.Place.of(case.hole.prefix, case.hole.suffix, case.lang).next_line.strip()
        if case.kind != "line" and len(known) > SHORT:
            tally[case.lang][any(_almost(line.strip(), known) for line in case.hole.middle.split("\n"))] += 1
    return {lang: counts[True] / counts.total() for lang, counts in tally.items()}


def _almost(line: str, known: str) -> bool:
    return len(line) > SHORT and line != known and Levenshtein.distance(line, known) < ALMOST * len(known)


def cost(found: Sequence[Case]) -> dict[str, float]:
    """Median and 99th percentile of microseconds: to look at a place, again at the next key, to take a piece of four characters."""
    places, keys, pieces = [], [], []
    for case in found[:: max(1, len(found) // 500)]:
        started = time.thread_time()
        place = stops.Place.of(case.hole.prefix, case.hole.suffix, case.lang)
        places.append(time.thread_time() - started)
        if "\n" not in (key := case.hole.middle[:1]):
            started = time.thread_time()
            stops.Place.of(case.hole.prefix + key, case.hole.suffix, case.lang)
            keys.append(time.thread_time() - started)
        cutter = stops.Cutter(place)
        for at in range(0, len(case.hole.middle), 4):
            started = time.thread_time()
            cutter.feed(case.hole.middle[at : at + 4])
            pieces.append(time.thread_time() - started)
    found_in = {"place": sorted(places), "key": sorted(keys), "piece": sorted(pieces)}
    return {f"{name}_{p}_us": round(1e6 * times[int(len(times) * p / 100)], 1) for name, times in found_in.items() for p in (50, 99)}


def show(figures: dict[str, Any]) -> None:
    """Print the shares side by side."""
    verdicts = ("exact", "early", "late", "kept")
    table = Table("language", "hole", "n", *(f"{name} {what}" for name in CUTTERS for what in verdicts), box=SIMPLE)
    for lang in figures["shares"]["tabsmith"]:
        for kind in (*KINDS, "all"):
            rows = [figures["shares"][name][lang].get(kind) for name in CUTTERS]
            if rows[0]:
                cells = [f"{100 * row.get(what, 0) / row['n']:.1f}%" for row in rows for what in verdicts]
                table.add_row(lang if kind == "line" else "", kind, str(rows[0]["n"]), *cells, end_section=kind == "all")
    console = Console(width=150)
    console.print(table)
    console.print("exact, early, late: ended at, before, behind the truth's end when the model goes on")
    console.print("kept: the truth left whole when the model stops there")
    shares = ", ".join(f"{lang} {100 * share:.1f}%" for lang, share in figures["almost"].items())
    console.print(f"truths with a line at least {1 - ALMOST:.0%} like the next of the file: {shares}")
    console.print(", ".join(f"{name.replace('_', ' ', 1)} {value}" for name, value in figures["cost"].items()))
