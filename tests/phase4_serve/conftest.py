"""A tiny random Qwen2 as GGUF, a workspace with a planted secret, and real servers on them.

The vocabulary is the 256 bytes and the control tokens: one character of ASCII is one token, so budgets are easy to see.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

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
from tests.phase4_serve.provider_peer import Peer, serve

ROOT = Path(__file__).parents[2]
HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, CONTEXT = 64, 128, 2, 4, 2, 1024
PARAMS = ANYWHERE.model_copy(
    update={
        "ctx": 1024, "prefix_tokens": 240, "suffix_tokens": 120, "context_tokens": 200, "max_line_tokens": 24, "max_block_tokens": 40,
        "threads": 1, "slots": 2, "queue": 2, "smoke_holes": 3, "smoke_keystrokes": 8,
    }
)  # fmt: skip
CANARY = "gh" + "p_" + "x7Kq2mWv9RtB4nLs8YcJ3hFd6ZpG1aUe5oTi"  # looks like a real token; made here so that no scanner finds one


def write_gguf(
    path: Path,
    control: tuple[str, ...] = CONTROL,
    arch: str = "qwen2",
    seed: int = 7,
    ids: bool = True,
    layers: int = LAYERS,
    wider: int = 1,
    letters: bool = False,
    words: tuple[str, ...] = (),
) -> Path:
    """A few layers of random float32 weights, tied embeddings.

    Args:
        ids: write the ids of the markers too.
        wider: times the usual width.
        letters: only letters are likely, so that nothing ends an answer but its length.
        words: tokens besides the bytes, and what they begin with.
    """
    hidden, ffn = HIDDEN * wider, FFN * wider
    written = [ByteLevel(add_prefix_space=False).pre_tokenize_str(word)[0][0] for word in words]
    longer = list(dict.fromkeys(word[:size] for word in written for size in range(2, len(word) + 1)))
    tokens = [*sorted(ByteLevel.alphabet()), *longer, *control]
    writer = gguf.GGUFWriter(path, arch)
    writer.add_name("tiny random")
    writer.add_block_count(layers)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.NORMAL] * (256 + len(longer)) + [TokenType.CONTROL] * len(control))
    writer.add_token_merges([f"{piece[:-1]} {piece[-1]}" for piece in longer] or ["ÿ ÿ"])  # never applied: two bytes 255 are no UTF-8
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
        return rng.normal(0, 0.25 / wider, shape).astype(np.float32)  # as wide as deep would be chaos: rounding alone changes words

    kv = hidden * KV_HEADS // HEADS
    likely = np.array([[1.0 if not letters or (token.isascii() and token.isalpha()) else 0.05] for token in tokens], np.float32)
    writer.add_tensor("token_embd.weight", matrix(len(tokens), hidden) * likely)
    writer.add_tensor("output_norm.weight", np.ones(hidden, np.float32))
    for i in range(layers):
        shapes = {
            "attn_q": (hidden, hidden), "attn_k": (kv, hidden), "attn_v": (kv, hidden), "attn_output": (hidden, hidden),
            "ffn_gate": (ffn, hidden), "ffn_up": (ffn, hidden), "ffn_down": (hidden, ffn),
        }  # fmt: skip
        for name, shape in shapes.items():
            writer.add_tensor(f"blk.{i}.{name}.weight", matrix(*shape))
        for name, size in {"attn_q": hidden, "attn_k": kv, "attn_v": kv}.items():
            writer.add_tensor(f"blk.{i}.{name}.bias", np.zeros(size, np.float32))
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{i}.{name}.weight", np.ones(hidden, np.float32))
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
        (child,) = (one for one in psutil.Process(self.process.pid).children() if "llama-server" in one.name())
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


def start(model: Path, folder: Path, workspace: Path | None = None, *flags: str, environment: dict[str, str] | None = None) -> Running:
    """Start `up` and wait until it is ready and has read the workspace."""
    folder.mkdir(exist_ok=True)
    (folder / "params.yaml").write_text(f"profile: t\nt:\n  serve: {PARAMS.model_dump_json()}\n")
    command = [sys.executable, "-m", "phase4_serve", "up", "--model", str(model), "--port", "0", "--socket", str(folder / "l.sock")]
    command += ["--params", str(folder / "params.yaml"), *(["--workspace", str(workspace)] if workspace else []), *flags]
    log = folder / "log"
    with log.open("w") as out:
        caches = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "XDG_STATE_HOME": str(folder / "state"), **(environment or {})}
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=caches)

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


class Guarded(NamedTuple):
    """A server with a key, an allowed page, a chat service and an events file with texts."""

    server: Running
    key: str
    chat_key: str
    origin: str
    events: Path
    peer: Peer


@pytest.fixture(scope="session")
def guarded(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """One such server; the keys come from a file and from the environment."""
    folder, peer, origin = tmp_path_factory.mktemp("g"), Peer(), "http://localhost:3000"
    service = serve(peer)
    keys = ["".join(reversed("0123456789abcdef" * 2)), "chat" + "-" * 3 + "fedcba98" * 3]  # made here so that no scanner finds one
    (folder / "key").write_text(keys[0])
    (folder / "key").chmod(0o600)
    events = folder / "state" / "told.jsonl"
    flags = ["--key-file", str(folder / "key"), "--allow-origin", origin, "--chat-url", peer.url, "--chat-model", "peer"]
    flags += ["--events", str(events), "--keep-text"]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TABSMITH_CHAT_KEY", keys[1])
        running = start(tiny, folder, make_workspace(folder / "myrepo"), *flags)
    yield Guarded(running, keys[0], keys[1], origin, events, peer)
    running.stop()
    service.shutdown()


@pytest.fixture(scope="session")
def sluggish(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose model is slow enough to be interrupted: several milliseconds a token."""
    folder = tmp_path_factory.mktemp("slow")
    model = write_gguf(folder / "slow.gguf", layers=24, wider=4, letters=True)
    running = start(model, folder / "s", None, "--max-line-tokens", "200", "--max-block-tokens", "200")
    yield running
    running.stop()


def ask(server: Running, timeout: float = 60, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    """A completion asked by hand: what the smart trigger would say is not what these tests are about."""
    return HTTP.post(f"{server.url}/v1/completions", json={"manual": True, **body}, timeout=timeout, headers=headers)


def text_of(answer: httpx.Response) -> str:
    """The text of a completion."""
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"])


def connect(server: Running, body: dict[str, Any], path: str = "/v1/completions", receive_bytes: int = 0) -> socket.socket:
    """A connection on which a request was sent; nothing of the answer is read."""
    one = socket.socket()
    if receive_bytes:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    one.settimeout(20)
    one.connect(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))
    data = json.dumps(body).encode()
    one.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
    return one
