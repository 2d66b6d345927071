"""A typo, a missing section or a missing file is one line that names the key."""

import pytest
import yaml

from core.errors import InputError
from core.params import StageParams, active_profile, load_params


class Section(StageParams):
    lr: float
    steps: int


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(
        "profile: tiny\ntiny:\n  sft: {lr: 1e-3, steps: 3}\n  typo: {lr: 0.1, stepz: 3}\n  short: {lr: 0.1}\n  wrong: {lr: x, steps: 1}\n"
    )
    return path


def test_a_section_is_read_and_yaml_strings_that_are_numbers_are_numbers(file):
    assert load_params(Section, "sft", file) == Section(lr=0.001, steps=3)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("typo", "tiny.typo.stepz: no such key"),
        ("short", "tiny.short.steps: "),
        ("wrong", "tiny.wrong.lr: "),
        ("none", "no section tiny.none"),
    ],
)
def test_what_is_wrong_is_named(file, section, words):
    with pytest.raises(InputError) as error:
        load_params(Section, section, file)
    assert words in str(error.value) or "Field required" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_profile_lists_the_known_ones(file):
    with pytest.raises(InputError, match="set `profile:` to one of tiny"):
        active_profile(file, "gpu")


@pytest.mark.parametrize("content", ["", "a: [", "- 1", "\xff"])
def test_a_broken_file_is_one_line(tmp_path, content):
    path = tmp_path / "params.yaml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError):
        load_params(Section, "sft", path)


def test_every_profile_of_the_repository_is_valid_yaml_with_a_known_default():
    document = yaml.safe_load(open("params.yaml"))  # noqa: SIM115, PTH123
    assert document["profile"] in document
