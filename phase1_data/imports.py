"""Which files of a repository a file imports.

In:  the paths of a repository; a file's path and text
Out: paths of others, in the order in which the text names them

By what the text says, without a build file: a name is looked for beside the file, then as the end of any path.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from core.syntax import lang_of

FOLDER_FILES = frozenset({"__init__.py", "index.js", "index.ts", "index.tsx", "mod.rs"})  # stand for their folder
RUST_ROOTS = frozenset({"lib", "main", "mod"})  # their modules lie beside them, those of others in a folder of their name
SCRIPT = re.compile(r"""\b(?:from|import|require)\b[ \t]*+\(?[ \t]*+["']([^"'\n]{1,200})["']""")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*(?:include|import)[ \t]*"([^"\n]{1,200})"', re.MULTILINE)
IMPORT = {
    "python": re.compile(r"^[ \t]*(?:from[ \t]+([.\w]+)[ \t]+import[ \t]+\(?([\w, \t]*)|import[ \t]+([.\w]+))", re.MULTILINE),
    "javascript": SCRIPT,
    "typescript": SCRIPT,
    "java": re.compile(r"^[ \t]*import[ \t]+(?:static[ \t]+)?([\w.]+)", re.MULTILINE),
    "go": re.compile(r'^[ \t]*(?:import[ \t]+)?(?:[\w.]+[ \t]+)?"([^"\s]{1,200})"[ \t]*(?://[^\n]*)?$', re.MULTILINE),
    "rust": re.compile(
        r"^[ \t]*(?:pub(?:\([^)\n]{0,40}\))?[ \t]+)?"
        r"(?:mod[ \t]+(\w+)[ \t]*;|use[ \t]+((?:crate|super|self)(?:::\w+)*)(?:::\{([^}]{0,500})\})?)",
        re.MULTILINE,
    ),
    "c": INCLUDE,
    "cpp": INCLUDE,
}


class Modules:
    """The files of a repository by what they can be imported as."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.by_module: dict[str, str] = {}
        self.by_name: dict[str, list[str]] = {}
        self.by_folder: dict[PurePosixPath, list[str]] = {}
        modules: list[tuple[Sequence[str], str]] = []
        for path in sorted(paths):
            place = PurePosixPath(path)
            modules.append((place.parent.parts if place.name in FOLDER_FILES else place.with_suffix("").parts, path))
            self.by_module.setdefault("/".join(modules[-1][0]), path)
            self.by_name.setdefault(place.name, []).append(path)
            self.by_folder.setdefault(place.parent, []).append(path)
        for parts, path in modules:  # `src/pkg/mod.py` is imported as pkg.mod, too, where no whole path is
            for first in range(1, len(parts)):
                self.by_module.setdefault("/".join(parts[first:]), path)

    def imported(self, path: str, text: str) -> Iterator[str]:
        """Paths that a file's imports name; some may come twice, or be the file itself."""
        lang = lang_of(path) or ""
        if lang not in IMPORT:
            return
        place = PurePosixPath(path)
        for found in IMPORT[lang].finditer(text):
            match lang:
                case "python":
                    yield from self._python(place, found)
                case "javascript" | "typescript":
                    yield from self._script(place, found[1])
                case "java":
                    yield from self._java(found[1])
                case "go":
                    yield from self._go(found[1])
                case "rust":
                    yield from self._rust(place, found)
                case _:
                    yield from self._included(place, found[1])

    def _modules(self, *names: Iterable[str]) -> Iterator[str]:
        """The file of each name that is one."""
        return (self.by_module[key] for name in names if (key := "/".join(name)) in self.by_module)

    def _python(self, place: PurePosixPath, found: re.Match[str]) -> Iterator[str]:
        module = found[1] or found[3]
        dots = len(module) - len(module.lstrip("."))
        base = place.parts[:-dots] if dots else ()
        parts = [*base, *[part for part in module.lstrip(".").split(".") if part]]
        names = [name.strip() for name in (found[2] or "").split(",") if name.strip()]
        return self._modules(*([*parts, name] for name in names), parts)

    def _script(self, place: PurePosixPath, name: str) -> Iterator[str]:
        """`./x`, `../x/index.js`, and `@/x` or `src/x` as the end of a path; a package of others is found nowhere."""
        parts = _walked(place.parent.parts if name.startswith(".") else (), name.removeprefix("@/").removeprefix("~/"))
        if "/" not in name:
            return iter(())
        plain = [*parts[:-1], re.sub(r"\.(?:[cm]?[jt]sx?)$", "", parts[-1])] if parts else []
        plain = plain[:-1] if plain[-1:] == ["index"] else plain
        return self._modules(plain)

    def _java(self, name: str) -> Iterator[str]:
        """A class, the class of a static member, or with `.*` all of a package."""
        parts = name.rstrip(".").split(".")
        if name.endswith("."):
            return itertools.chain.from_iterable(
                files for folder, files in self.by_folder.items() if folder.parts[-len(parts) :] == tuple(parts)
            )
        return itertools.islice(self._modules(parts, parts[:-1]), 1)

    def _go(self, name: str) -> Iterator[str]:
        """The files of the folder whose whole path is the longest end of the import's."""
        parts = name.split("/")
        folders = (PurePosixPath(*parts[first:]) for first in range(len(parts)))
        files = next((self.by_folder[folder] for folder in folders if folder in self.by_folder), [])
        return (file for file in files if file.endswith(".go") and not file.endswith("_test.go"))

    def _rust(self, place: PurePosixPath, found: re.Match[str]) -> Iterator[str]:
        """`mod x;`, and `use crate::a::{b, c}` as far down as there are files."""
        inside = place.parent.parts if place.stem in RUST_ROOTS else place.with_suffix("").parts
        if found[1]:
            return self._modules([*inside, found[1]])
        head, *rest = found[2].split("::")
        root = place.parts[: place.parts.index("src") + 1] if "src" in place.parts else ()
        base = {"crate": root, "self": inside, "super": inside[:-1]}[head]
        names = [re.split(r"::|\s", name.strip())[0] for name in (found[3] or "").split(",")]
        deepest = itertools.islice(self._modules(*([*base, *rest[:length]] for length in range(len(rest), -1, -1))), 1)
        return itertools.chain(self._modules(*([*base, *rest, name] for name in names if name)), deepest)

    def _included(self, place: PurePosixPath, name: str) -> Iterator[str]:
        beside = "/".join(_walked(place.parent.parts, name))
        files = self.by_name.get(PurePosixPath(name).name, [])
        ends = [file for file in files if file == beside] or [file for file in files if f"/{file}".endswith(f"/{name}")]
        return iter(ends[:1])


def _walked(parts: Iterable[str], name: str) -> list[str]:
    """The parts of a path after following `name` from there."""
    at = list(parts)
    for part in name.split("/"):
        if part == "..":
            del at[-1:]
        elif part not in ("", "."):
            at.append(part)
    return at
