"""Labelled rows to measure a scrubber with: secrets, harmless look-alikes, personal data and what resembles it.

In:  a seed
Out: rows of (family, text, value, path), about 900 secret, 700 harmless, 330 personal and 270 impersonal ones

The rows were written from public knowledge of token formats and of how people write credentials down, without a look at the
rules. The rules were then improved on what they missed here, so a figure measured on these rows is what a change is held
against, not what to expect of text that no rule has seen (eval/reports/LOG.md has both).
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from phase1_data.labelled import harmless, personal, secrets, template, vendors
from phase1_data.labelled.template import LabelledRow, Template

__all__ = ["LabelledRow", "harmless_rows", "impersonal_rows", "personal_rows", "secret_rows"]

COPIES = 2  # rows of a template


def secret_rows(seed: int) -> Iterator[LabelledRow]:
    """Rows that hold one secret each: `value`, which stands in `text` once."""
    yield from _vendor_rows(seed)
    yield from template.rows(seed, "secret", secrets.ROWS, 1)


def harmless_rows(seed: int) -> Iterator[LabelledRow]:
    """Rows without a secret, many of which look as if they had one."""
    yield from template.rows(seed, "harmless", harmless.ROWS, COPIES)


def personal_rows(seed: int) -> Iterator[LabelledRow]:
    """Rows that hold one e-mail or network address, name, login or telephone number each."""
    yield from template.rows(seed, "personal", personal.PERSONAL, COPIES)


def impersonal_rows(seed: int) -> Iterator[LabelledRow]:
    """Rows that look personal and are about nobody."""
    yield from template.rows(seed, "impersonal", personal.IMPERSONAL, COPIES)


def _vendor_rows(seed: int) -> Iterator[LabelledRow]:
    """Every kind of token under its name; every second kind once more, bare if its prefix gives it away."""
    named, bare = template.read(vendors.NAMED), template.read(vendors.BARE)
    for index, vendor in enumerate(vendors.VENDORS):
        family = "vendor_prefix" if vendor.prefixed else "vendor_no_prefix"
        for copy in range(COPIES if index % 2 else 1):
            rng = random.Random(f"{seed}/{vendor.name}/{vendor.keyword}/{copy}")
            chosen = rng.choice(bare if copy and vendor.prefixed else named)
            given = {**vendor.forms(), "value": template.fill(rng, vendor.shape, {})[0]}
            yield template.row(rng, Template(family, chosen.path, chosen.text), given)
