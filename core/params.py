"""One section of params.yaml as one frozen model, so that a typo is an error and DVC sees every value.

In:  params.yaml with `profile:` and one block per profile, each a mapping of sections
Out: a validated StageParams of the section asked for

No model has defaults: what a run used is what the file says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from core.errors import InputError

PARAMS_FILE = Path("params.yaml")


class StageParams(BaseModel):
    """Base of every section: immutable, and closed to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Section = TypeVar("Section", bound=StageParams)


def read_document(file: Path = PARAMS_FILE) -> dict[str, Any]:
    """The whole params file.

    Raises:
        InputError: no such file, not YAML, or not a mapping.
    """
    if not file.is_file():
        raise InputError(f"{file} is missing: run from the repository root or name it with --params")
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not valid YAML ({error}): mend it and rerun") from None
    if not isinstance(document, dict):
        raise InputError(f"{file} holds no profiles: restore it with `git checkout {file}`")
    return document


def active_profile(file: Path = PARAMS_FILE, profile: str | None = None) -> str:
    """The profile to use: the one named, else the file's `profile:` key.

    Raises:
        InputError: the profile has no block in the file.
    """
    document = read_document(file)
    name = profile or document.get("profile")
    blocks = sorted(key for key, value in document.items() if isinstance(value, dict))
    if name not in blocks:
        raise InputError(f"{file} has no profile {name!r}: set `profile:` to one of {', '.join(blocks)}")
    return str(name)


def load_params(model: type[Section], section: str, file: Path = PARAMS_FILE, profile: str | None = None) -> Section:
    """The section of the profile in use, validated.

    Raises:
        InputError: profile or section missing, a key unknown or missing, a value of the wrong type; names the key.
    """
    name = active_profile(file, profile)
    block = read_document(file)[name]
    if section not in block:
        raise InputError(f"{file} has no section {name}.{section}: add it (profile tiny shows every key)")
    try:
        return model.model_validate(block[section])
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join([name, section, *map(str, first["loc"])])
        what = "no such key" if first["type"] == "extra_forbidden" else first["msg"]
        raise InputError(f"{file}: {key}: {what}: mend that line and rerun") from None
