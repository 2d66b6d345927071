"""Promises of the labelled rows: drawn from the seed alone, labelled rightly, and none of their values kept in a file."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from phase1_data import labelled
from phase1_data.labelled import harmless, harmless_rows, impersonal_rows, personal, personal_rows, secret_rows, secrets, template, vendors

LABELLED = [secret_rows, personal_rows]
UNLABELLED = [harmless_rows, impersonal_rows]
ALL = [*LABELLED, *UNLABELLED]


@pytest.mark.parametrize("rows", ALL)
def test_a_seed_gives_the_same_rows_and_another_seed_others(rows):
    first, second = list(rows(1)), list(rows(2))
    assert first == list(rows(1))
    assert [row.family for row in first] == [row.family for row in second]
    if rows in LABELLED:
        assert not {row.value for row in first if len(row.value) > 12} & {row.value for row in second}


@pytest.mark.parametrize("rows", LABELLED)
@pytest.mark.parametrize("seed", [0, 1, 2, 31])
def test_a_value_stands_in_its_text_once(rows, seed):
    for row in rows(seed):
        assert row.value and row.text.count(row.value) == 1, row


@pytest.mark.parametrize("rows", UNLABELLED)
def test_what_is_harmless_has_no_value(rows):
    assert all(row.value == "" and row.text for row in rows(1))


@pytest.mark.parametrize("rows", ALL)
def test_no_mark_of_the_language_is_left_in_a_row(rows):
    for row in rows(1):
        for text in (row.text, row.value, row.path, row.family):
            assert template.JOINT not in text and not template.SLOT.search(text), row
        assert row.path and row.text.count("\n") < 14


@pytest.mark.parametrize(("rows", "least", "most"), [(secret_rows, 850, 1000), (harmless_rows, 600, 800), (personal_rows, 300, 360)])
def test_the_fixture_is_of_the_size_it_says(rows, least, most):
    families = Counter(row.family for row in rows(1))
    assert least <= families.total() <= most
    assert min(families.values()) >= 5


def test_look_alikes_of_personal_data_are_as_many_as_they_say():
    families = Counter(row.family for row in impersonal_rows(1))
    assert 240 <= families.total() <= 300 and min(families.values()) >= 5


def test_every_vendor_is_there_with_each_of_its_tokens():
    assert len({vendor.name for vendor in vendors.VENDORS}) >= 170
    texts = Counter(row.family for row in secret_rows(1))
    assert texts["vendor_prefix"] + texts["vendor_no_prefix"] >= len(vendors.VENDORS)


def test_no_value_is_kept_in_a_source_file():
    sources = "\n".join(path.read_text("utf-8") for path in sorted(Path(labelled.__file__).parent.glob("*.py")))
    for rows in LABELLED:
        assert not [row for seed in (0, 1, 7) for row in rows(seed) if row.value in sources]


def test_all_rows_are_drawn_in_well_under_two_seconds():
    start = time.process_time()
    assert sum(1 for rows in ALL for _ in rows(3)) > 2000
    assert time.process_time() - start < 1


def test_a_table_is_read_by_its_marks():
    table = "@@@ one\n@@ a.py\nx = 1\n\ny = 2\n@ b.py\nfirst\n\nlast\n@@@ two\n@ c.py\n{=h4}\n"
    assert [(row.family, row.path, row.text) for row in template.read(table)] == [
        ("one", "a.py", "x = 1"),
        ("one", "a.py", "y = 2"),
        ("one", "b.py", "first\n\nlast"),
        ("two", "c.py", "{=h4}"),
    ]


def test_a_template_labels_one_value_or_none():
    for table in (secrets.ROWS, personal.PERSONAL, vendors.NAMED, vendors.BARE):
        assert {sum(slot[1] == "=" for slot in template.SLOT.finditer(row.text)) for row in template.read(table)} == {1}
    for table in (harmless.ROWS, personal.IMPERSONAL):
        assert {sum(slot[1] == "=" for slot in template.SLOT.finditer(row.text)) for row in template.read(table)} == {0}
