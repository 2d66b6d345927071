"""llama.cpp's own converter, as its authors wrote it, but that it does not refuse a tokenizer it has not seen.

    python -m eval.bench.peer_converter FOLDER PRE convert_hf_to_gguf.py MODEL --outfile OUT --outtype f16

In:  a folder of llama.cpp, the name of the tokenizer's cut, a script of that folder and its arguments
Out: what the script writes

It knows a tokenizer by the hash of what it makes of a test text; where the hash is new, PRE is taken instead of an error. And it imports
sentencepiece before it looks whether the model needs it; where that is not installed, it is told what it would have found: no such file.
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path
from typing import Any


def main(folder: Path, pre: str, script: str, *arguments: str) -> None:
    """Run a script of llama.cpp's folder in this process."""
    sys.path[:0] = [str(folder), str(folder / "gguf-py")]
    from conversion import TextModel  # of llama.cpp

    known = TextModel.get_vocab_base_pre

    def named(self: Any, tokenizer: Any) -> str:
        try:
            return str(known(self, tokenizer))
        except NotImplementedError:
            return pre

    def absent(self: Any, add_to_gguf: bool = True) -> None:
        raise FileNotFoundError(self.dir_model / "tokenizer.model")

    TextModel.get_vocab_base_pre = named
    if importlib.util.find_spec("sentencepiece") is None:
        TextModel._set_vocab_sentencepiece = absent
    sys.argv = [script, *arguments]
    runpy.run_path(str(folder / script), run_name="__main__")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
