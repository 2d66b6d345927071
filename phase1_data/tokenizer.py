"""The tokenizer that rows are measured with.

In:  samples.tokenizer: a folder with tokenizer.json, that file, or a Hub id with its revision
Out: the file's path; a Codec and the ends of tokens in a text
"""

from __future__ import annotations

import os
from pathlib import Path

from tokenizers import Tokenizer

from core.errors import AccessError, InputError
from core.fim import Codec, codec_of

MADE_HERE = {  # folders that look like Hub ids, and the command that makes each
    "phase2_train/tiny_base": "python -m phase2_train pretrain --profile base",
    "phase2_train/out/base": "python -m phase2_train base",
}
TIMEOUT = 10  # seconds until the Hub counts as out of reach


def locate(name: str, revision: str | None) -> Path:
    """The tokenizer.json that `name` means.

    Raises:
        InputError: nothing there. AccessError: a Hub id that cannot be fetched.
    """
    path = Path(name)
    file = path / "tokenizer.json" if path.is_dir() else path
    if file.is_file():
        return file
    if command := MADE_HERE.get(path.as_posix()):
        raise InputError(f"{path / 'tokenizer.json'} is missing: run `{command}` first")
    if path.exists() or path.is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise InputError(f"{file} is missing: mend samples.tokenizer in params.yaml")
    return _fetch(name, revision)


def _fetch(name: str, revision: str | None) -> Path:
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(TIMEOUT))
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", str(TIMEOUT))
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise InputError(f"{name} is on the Hub and huggingface_hub is not installed: run `pip install huggingface_hub`") from None
    try:
        return Path(hf_hub_download(name, "tokenizer.json", revision=revision, etag_timeout=TIMEOUT))
    except Exception as error:  # noqa: BLE001  # the transport's own errors differ between versions of huggingface_hub
        why = f"cannot be fetched from the Hub ({type(error).__name__})"
        raise AccessError(f"the tokenizer {name} {why}: go online, or name a folder in samples.tokenizer of params.yaml") from None


class Ruler:
    """Measures text in tokens of one vocabulary.

    Raises:
        InputError: the file is no tokenizer, or one without fill-in-the-middle markers.
    """

    def __init__(self, file: Path) -> None:
        try:
            self.tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # noqa: BLE001  # the library raises bare Exception
            raise InputError(f"{file} is no tokenizer ({error}): mend samples.tokenizer in params.yaml") from None
        try:
            self.codec: Codec = codec_of(self.tokenizer)
        except ValueError as error:
            raise InputError(f"{file}: {error}") from None

    def token_starts(self, text: str) -> list[int]:
        """Offset in characters at which each token of the text begins."""
        return [start for start, _ in self.tokenizer.encode(text, add_special_tokens=False).offsets]

    def count(self, text: str) -> int:
        """Tokens of the text."""
        return len(self.codec.plain(text))
