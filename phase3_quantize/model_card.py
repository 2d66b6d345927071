"""What a GGUF says of a model beside its numbers: name, licence, where it comes from, how its authors sample.

In:  a model or adapter folder (README.md, generation_config.json, config.json), provenance
Out: the `general.*` metadata, as llama.cpp's converter reads it from the same folder, and ours
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import yaml

from core.errors import InputError


def add_general(writer: gguf.GGUFWriter, folder: Path | None, parameters: int, said: Mapping[str, str]) -> None:
    """Write the `general.*` keys, and `tabsmith.*` for what was hashed.

    Args:
        folder: None for a model without a folder.
        parameters: how many; negative for an adapter, whose base has more.
        said: name, license, base_model, base_revision, and *_sha256; goes before what the folder says.

    Raises:
        InputError: the card or the generation config is damaged.
    """
    card = _card(folder, parameters)
    card.name = said.get("name") or card.name or (folder.name if folder else "model")
    card.license = card.license or said.get("license")
    if card.size_label is None and parameters > 0:
        card.size_label = gguf.size_label(parameters, 0, 0, 0)
    if "base_model" in said and not card.base_models:
        card.base_models = [{"name": said["base_model"], "version": said.get("base_revision", "")}]
    card.set_gguf_meta_model(writer)
    for key, value in sorted(said.items()):
        if key.endswith("_sha256"):
            writer.add_string(f"tabsmith.{key}", value)


def _card(folder: Path | None, parameters: int) -> gguf.Metadata:
    try:
        card = gguf.Metadata.load(None, folder, None, parameters)
        settings = gguf.Metadata.load_generation_config(folder)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise InputError(f"{folder}: README.md or config.json is damaged ({error}): mend it or remove README.md") from None
    if card.sampling_penalty_repeat is None:  # the gguf package of 0.19 does not know transformers' name for it
        card.sampling_penalty_repeat = settings.get("repetition_penalty")
    return card
