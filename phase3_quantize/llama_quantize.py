"""The one call into llama.cpp that may abort its process, in a process of its own.

In:  python -m phase3_quantize.llama_quantize IN OUT TYPE THREADS
Out: OUT; one line per tensor on stdout, llama.cpp's errors on stderr, exit code 0 if it says it succeeded
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

import gguf
import llama_cpp

ERROR = 4  # ggml_log_level


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def show(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    """Pass on what the parent reads: errors, and the start of each tensor, `[  12/ 290] blk.0...`."""
    if level == ERROR:
        print(text.decode(errors="replace").strip(), file=sys.stderr, flush=True)
    elif text.startswith(b"["):
        try:
            print(text.split(b"-")[0].decode(errors="replace").strip(), flush=True)
        except OSError:  # nobody reads any more: the parent was killed
            os._exit(1)


def main(source: str, target: str, kind: str, threads: str) -> int:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's handler would wait for the C call to return
    llama_cpp.llama_log_set(show, ctypes.c_void_p(0))
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread, params.ftype = int(threads), int(gguf.LlamaFileType[f"MOSTLY_{kind}"])
    return int(llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
