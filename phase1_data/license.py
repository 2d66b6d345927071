"""Which licence a file stands under, and whether a policy lets it in.

In:  a distribution's metadata, a LICENSE file's text, a column of a code set, a file's own SPDX line
Out: an SPDX expression or "unknown", and how it was found (metadata | spdx_header | license_file | column | none)

A file's own SPDX line wins over what its package says. A LICENSE text is known by the sentences that only that licence
has; the first licence in a text that holds several is taken for the project's own. This is a filter, not legal advice.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from license_expression import ExpressionError, Licensing, get_spdx_licensing

UNKNOWN = "unknown"
Found = tuple[str, str]
NOT_FOUND: Found = (UNKNOWN, "none")

PERMISSIVE = frozenset({
    "0BSD", "AFL-3.0", "Apache-2.0", "Artistic-2.0", "BlueOak-1.0.0", "BSD-1-Clause", "BSD-2-Clause", "BSD-2-Clause-Patent",
    "BSD-3-Clause", "BSD-3-Clause-Clear", "BSL-1.0", "CC0-1.0", "CNRI-Python", "FSFAP", "HPND", "ICU", "ISC", "MIT", "MIT-0", "MIT-CMU",
    "MIT-Modern-Variant", "MulanPSL-2.0", "NCSA", "PostgreSQL", "PSF-2.0", "Python-2.0", "Unicode-3.0", "Unicode-DFS-2016", "Unlicense",
    "UPL-1.0", "W3C", "WTFPL", "X11", "Zlib", "ZPL-2.1",
})  # no copyleft, not even per file: what Blue Oak Council rates bronze or better, as the-stack's own list does  # fmt: skip

LICENSE_FILES = re.compile(r"(licen[cs]e|copying|unlicense)([.-].*)?", re.IGNORECASE)
SPDX_LINE = re.compile(r"SPDX-License-Identifier:\s*([A-Za-z0-9.+() \t-]+)")
HEADER_LINES = 40  # where an SPDX line is looked for

SENTENCES = (  # (what the text says, what it must say too, what it must not say, SPDX), first come first
    ("gnu affero general public license", "version 3", "", "AGPL-3.0-only"),
    ("gnu lesser general public license", "version 3", "", "LGPL-3.0-only"),
    ("gnu lesser general public license", "", "", "LGPL-2.1-only"),
    ("gnu general public license", "version 3", "", "GPL-3.0-only"),
    ("gnu general public license", "", "", "GPL-2.0-only"),
    ("mozilla public license", "2.0", "", "MPL-2.0"),
    ("eclipse public license", "2.0", "", "EPL-2.0"),
    ("apache license", "version 2.0", "", "Apache-2.0"),
    ("boost software license", "", "", "BSL-1.0"),
    ("this is free and unencumbered software released into the public domain", "", "", "Unlicense"),
    ("cc0 1.0 universal", "", "", "CC0-1.0"),
    ("python software foundation license", "", "", "PSF-2.0"),
    ("psf license agreement", "", "", "PSF-2.0"),
    ("license agreement for matplotlib", "", "", "PSF-2.0"),
    ("redistribution and use in source and binary forms", "all advertising materials", "", "BSD-4-Clause"),
    ("redistribution and use in source and binary forms", "names? of", "", "BSD-3-Clause"),
    ("redistribution and use in source and binary forms", "", "", "BSD-2-Clause"),
    ("altered source versions must be plainly marked", "", "", "Zlib"),
    ("permission is hereby granted, free of charge, to any person obtaining a copy", "above copyright notice", "", "MIT"),
    ("permission is hereby granted, free of charge, to any person obtaining a copy", "", "", "MIT-0"),
    ("permission to use, copy, modify, and(/or)? distribute this software for any purpose", "above copyright notice", "", "ISC"),
    ("permission to use, copy, modify, and(/or)? distribute this software for any purpose", "", "", "0BSD"),
    ("permission to use, copy, modify,? and distribute this software and its documentation for any purpose", "", "", "HPND"),
)
LOOSE_NAMES = {  # what people write in metadata; the ambiguous BSD is settled by the LICENSE text where there is one
    "apache": "Apache-2.0", "apache 2": "Apache-2.0", "apache 2.0": "Apache-2.0", "apache license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0", "apache 2.0 license": "Apache-2.0", "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0", "apache software license 2.0": "Apache-2.0", "mit license": "MIT", "the mit license": "MIT",
    "new bsd": "BSD-3-Clause", "new bsd license": "BSD-3-Clause", "3-clause bsd": "BSD-3-Clause", "bsd 3-clause": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause", "simplified bsd": "BSD-2-Clause", "bsd 2-clause": "BSD-2-Clause", "isc license": "ISC",
    "isc license (iscl)": "ISC", "python software foundation license": "PSF-2.0", "psf": "PSF-2.0", "psfl": "PSF-2.0",
    "public domain": UNKNOWN, "mpl 2.0": "MPL-2.0", "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0", "zlib/libpng license": "Zlib",
    "zope public license": "ZPL-2.1", "the unlicense (unlicense)": "Unlicense",
    "cc0 1.0 universal (cc0 1.0) public domain dedication": "CC0-1.0",
    "gplv2": "GPL-2.0-only", "gplv3": "GPL-3.0-only", "gpl": "GPL-2.0-only", "lgpl": "LGPL-2.1-only",
    "historical permission notice and disclaimer (hpnd)": "HPND", "boost software license 1.0 (bsl-1.0)": "BSL-1.0",
}  # fmt: skip
SOME_BSD = frozenset({"bsd", "bsd license", "bsd-like", "bsd style", "bsd-style"})


@functools.cache
def _licensing() -> Licensing:
    return get_spdx_licensing()


@functools.lru_cache(4096)
def spdx(text: str) -> str:
    """The text as a normal SPDX expression, "unknown" where it is none."""
    name = " ".join(text.split())
    if name.lower() in LOOSE_NAMES:
        return LOOSE_NAMES[name.lower()]
    try:
        parsed = _licensing().parse(name, validate=True)
    except (ExpressionError, ValueError, AttributeError, TypeError, RecursionError):
        return UNKNOWN
    return str(parsed) if parsed is not None else UNKNOWN


@functools.lru_cache(4096)
def allowed(expression: str, policy: str | frozenset[str]) -> bool:
    """Whether a policy (permissive | any | SPDX ids) lets an expression in: OR needs one side, AND both."""
    if policy == "any":
        return True
    ids = PERMISSIVE if policy == "permissive" else frozenset(policy)
    if expression in ids:
        return True
    if expression == UNKNOWN:
        return False
    return _allows(_licensing().parse(expression), ids)


def _allows(node: object, ids: frozenset[str]) -> bool:
    licensing = _licensing()
    if isinstance(node, licensing.AND | licensing.OR):
        sides = [_allows(side, ids) for side in node.args]
        return all(sides) if isinstance(node, licensing.AND) else any(sides)
    key = getattr(getattr(node, "license_symbol", node), "key", str(node))  # `X WITH exception` grants more than X
    return key in ids or (key.endswith("-or-later") and key.removesuffix("-or-later") in ids)


def of_text(text: str) -> str:
    """The licence a LICENSE text is, by its sentences; the earliest in the text wins, then the order of SENTENCES."""
    flat = " ".join(text.lower().replace("*", " ").replace("#", " ").split())
    best, place = UNKNOWN, len(flat)
    for says, too, never, name in SENTENCES:
        hit = re.search(says, flat)
        if (
            hit
            and hit.start() < place
            and (not too or re.search(too, flat[: hit.start() + 4000]))
            and not (never and re.search(never, flat))
        ):
            best, place = name, hit.start()
    return best


def of_header(text: str) -> str:
    """The licence a source file declares in its first lines, "unknown" where it declares none."""
    at = text.find("SPDX-License-Identifier")
    if at < 0 or text.count("\n", 0, at) > HEADER_LINES:
        return UNKNOWN
    found = SPDX_LINE.match(text, at)
    return spdx(found[1].strip()) if found else UNKNOWN


def of_column(value: str | Sequence[str] | None) -> Found:
    """The licence a code set states: a text, or the list of all that were detected in the repository."""
    names = [value] if isinstance(value, str) else [name for name in value or () if isinstance(name, str) and name]
    found = [spdx(name) for name in names]
    if not found or UNKNOWN in found:
        return NOT_FOUND
    return (spdx(" AND ".join(f"({name})" for name in found)) if len(found) > 1 else found[0]), "column"


def _head(file: Path) -> str:
    """The beginning of a LICENSE file, "" if it cannot be read."""
    try:
        with file.open(encoding="utf-8", errors="replace") as text:
            return text.read(100_000)
    except OSError:
        return ""


def of_folder(folder: Path) -> Found:
    """The licence of a repository's root, by its LICENSE file."""
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if LICENSE_FILES.fullmatch(file.name) and file.is_file() and not file.is_symlink():
            name = of_text(_head(file))
            if name != UNKNOWN:
                return name, "license_file"
    return NOT_FOUND


def of_distribution(distribution: metadata.Distribution) -> Found:
    """The licence of an installed package: License-Expression, then License, then classifiers, then its LICENSE file."""
    fields = distribution.metadata
    stated = [(fields.get_all(name) or [""])[0] for name in ("License-Expression", "License")]
    classifiers = [line.split(" :: ")[-1] for line in fields.get_all("Classifier") or () if line.startswith("License :: OSI Approved :: ")]
    named = [UNKNOWN if " or " in name.lower() and "(" in name else spdx(name) for name in classifiers]
    for text in stated:
        if text and text.strip().lower() not in SOME_BSD and (name := spdx(text)) != UNKNOWN:
            return name, "metadata"
    if len(stated[1]) > 200 and (name := of_text(stated[1])) != UNKNOWN:  # the whole text in the field
        return name, "metadata"
    if named and UNKNOWN not in named:
        return (spdx(" AND ".join(sorted(set(named)))), "metadata")
    for entry in distribution.files or ():
        if LICENSE_FILES.fullmatch(entry.name) and ".dist-info" in entry.parts[0]:
            file = Path(str(distribution.locate_file(entry)))
            name = of_text(_head(file)) if file.is_file() else UNKNOWN
            if name != UNKNOWN:
                return name, "license_file"
    loose = {text.strip().lower() for text in (*stated, *classifiers)}
    return ("BSD-3-Clause", "metadata") if loose & SOME_BSD else NOT_FOUND  # of the BSDs the one most used, and the stricter
