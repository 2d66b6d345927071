"""A tiny random Qwen2 as GGUF, a workspace with a planted secret, and real servers on them.

The vocabulary is the 256 bytes and the control tokens: one character of ASCII is one token, so budgets are easy to see.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"

import gguf
import httpx
import numpy as np
import psutil
import pytest
from gguf import TokenType
from tokenizers.pre_tokenizers import ByteLevel

from core.fim import CONTROL, END
from phase4_serve.params import ANYWHERE, ServeParams

ROOT = Path(__file__).parents[2]
HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, CONTEXT = 64, 128, 2, 4, 2, 1024
PARAMS = ANYWHERE.model_copy(
    update={
        "ctx": 1024, "prefix_tokens": 240, "suffix_tokens": 120, "context_tokens": 200, "max_line_tokens": 24, "max_block_tokens": 40,
        "threads": 1, "queue": 2, "smoke_holes": 3, "smoke_keystrokes": 8,
    }
)  # fmt: skip
CANARY = "gh" + "p_" + "x7Kq2mWv9RtB4nLs8YcJ3hFd6ZpG1aUe5oTi"  # looks like a real token; made here so that no scanner finds one


def write_gguf(path: Path, control: tuple[str, ...] = CONTROL, arch: str = "qwen2", seed: int = 7, ids: bool = True) -> Path:
    """Two layers of random float32 weights, tied embeddings; `ids` writes the ids of the markers too."""
    tokens = [*sorted(ByteLevel.alphabet()), *control]
    writer = gguf.GGUFWriter(path, arch)
    writer.add_name("tiny random")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.NORMAL] * 256 + [TokenType.CONTROL] * len(control))
    writer.add_token_merges(["ÿ ÿ"])  # never applied: two bytes 255 are no UTF-8
    if END in control:
        writer.add_eos_token_id(tokens.index(END))
    writer.add_add_bos_token(False)
    if ids:
        keys = gguf.Keys.Tokenizer
        names = (keys.FIM_PRE_ID, keys.FIM_MID_ID, keys.FIM_SUF_ID, keys.FIM_PAD_ID, keys.FIM_REP_ID, keys.FIM_SEP_ID)
        for key, text in zip(names, CONTROL[1:7], strict=True):
            writer.add_uint32(key, tokens.index(text))
    rng = np.random.default_rng(seed)

    def matrix(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.25, shape).astype(np.float32)

    kv = HIDDEN * KV_HEADS // HEADS
    writer.add_tensor("token_embd.weight", matrix(len(tokens), HIDDEN))
    writer.add_tensor("output_norm.weight", np.ones(HIDDEN, np.float32))
    for i in range(LAYERS):
        shapes = {
            "attn_q": (HIDDEN, HIDDEN), "attn_k": (kv, HIDDEN), "attn_v": (kv, HIDDEN), "attn_output": (HIDDEN, HIDDEN),
            "ffn_gate": (FFN, HIDDEN), "ffn_up": (FFN, HIDDEN), "ffn_down": (HIDDEN, FFN),
        }  # fmt: skip
        for name, shape in shapes.items():
            writer.add_tensor(f"blk.{i}.{name}.weight", matrix(*shape))
        for name, size in {"attn_q": HIDDEN, "attn_k": kv, "attn_v": kv}.items():
            writer.add_tensor(f"blk.{i}.{name}.bias", np.zeros(size, np.float32))
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{i}.{name}.weight", np.ones(HIDDEN, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def params() -> ServeParams:
    return ServeParams.model_validate(PARAMS.model_dump())


HELPER = "def parse_http_header(raw_header):\n    name, value = raw_header.split(':', 1)\n    return name.strip(), value.strip()\n"


def make_workspace(root: Path) -> Path:
    """A few files, with a secret in one of them."""
    root.mkdir()
    (root / "headers.py").write_text(HELPER)
    (root / "settings.py").write_text(f"GITHUB_TOKEN = '{CANARY}'\n\n\ndef github_client():\n    return connect(GITHUB_TOKEN)\n")
    (root / "geometry.py").write_text("def triangle_area(base, height):\n    return base * height / 2\n")
    return root


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return make_workspace(tmp_path / "myrepo")


HTTP = httpx.Client(verify=False, timeout=60, limits=httpx.Limits(max_keepalive_connections=0))  # made once: making one is slow


class Running(NamedTuple):
    """A server that was started as a user starts it."""

    process: subprocess.Popen[str]
    url: str
    socket: Path
    folder: Path

    def llama(self) -> psutil.Process:
        """Its llama-server."""
        (child,) = psutil.Process(self.process.pid).children()
        return child

    def slots(self) -> list[dict[str, object]]:
        """llama-server's own view."""
        with httpx.Client(transport=httpx.HTTPTransport(verify=False, uds=str(self.socket))) as client:
            return client.get("http://llama/slots").json()  # type: ignore[no-any-return]

    def metric(self, name: str) -> float:
        """A figure of /metrics; 0 where it is not there."""
        lines = HTTP.get(f"{self.url}/metrics").text.splitlines()
        return next((float(line.split()[-1]) for line in lines if line.startswith(f"{name} ")), 0.0)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it and say how it ended."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(20)


def wait_until(true: object, seconds: float = 20) -> None:
    """Wait for a condition; fail if it does not come."""
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def start(model: Path, folder: Path, workspace: Path | None = None, *flags: str) -> Running:
    """Start `up` and wait until it is ready and has read the workspace."""
    folder.mkdir(exist_ok=True)
    (folder / "params.yaml").write_text(f"profile: t\nt:\n  serve: {PARAMS.model_dump_json()}\n")
    command = [sys.executable, "-m", "phase4_serve", "up", "--model", str(model), "--port", "0", "--socket", str(folder / "l.sock")]
    command += ["--params", str(folder / "params.yaml"), *(["--workspace", str(workspace)] if workspace else []), *flags]
    log = folder / "log"
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, text=True, cwd=ROOT)

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        text = log.read_text()
        return " ready after " in text and (workspace is None or "indexed " in text)

    wait_until(ready, 60)
    url = log.read_text().split(" on http")[1].split()[0]
    return Running(process, f"http{url}", folder / "l.sock", folder)


@pytest.fixture(scope="session")
def server(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for every test that leaves it alive."""
    folder = tmp_path_factory.mktemp("s")
    running = start(tiny, folder, make_workspace(folder / "myrepo"))
    yield running
    running.stop()


@pytest.fixture
def own_server(tiny: Path, tmp_path: Path) -> Iterator[Running]:
    """A server for a test that kills it."""
    running = start(tiny, tmp_path / "s")
    yield running
    with contextlib.suppress(ProcessLookupError):
        running.process.kill()
    running.process.wait()
