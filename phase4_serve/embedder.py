"""Vectors from a service that speaks OpenAI's `/embeddings`: Triton, TEI, Ollama, llama-server.

In:  the service's URL, `http://127.0.0.1:11434/v1#nomic-embed-text`: what follows # is the model's name
Out: vectors of texts, or none where it does not answer: whoever asks goes on without

Nothing connects anywhere unless somebody set the URL (serve.embedder). Then masked pieces of the workspace, and masked text around the
cursor, go to that host: no redirect is followed to another, and on this machine no proxy is asked. A question waits
for the service no longer than PATIENCE; what comes later serves the next one.
"""

from __future__ import annotations

import ipaddress
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from urllib.parse import urlsplit

import httpx
import numpy as np

from core import scrub
from core.errors import InputError
from phase4_serve.vectors import DIM, Floats

KEY_VARIABLE = "TABSMITH_EMBEDDER_KEY"
PATIENCE = 0.03  # seconds that a completion waits for the vector of its question
TIMEOUT = httpx.Timeout(10.0, connect=2.0)  # seconds, of a batch
BATCH = 16  # texts of a request
LONGEST = 4000  # characters of a text that are sent
REST = (1.0, 60.0)  # seconds without a question after a failure, doubled up to the second
REMEMBERED = 256  # vectors of questions
MOST_DIM = 16_384
SEED = 20_13  # of the projection: the same in every run


class Failed(Exception):
    """The service did not give vectors; says why without what it answered."""


class Embedder:
    """A service for vectors; used from several threads.

    Raises:
        InputError: the URL is none.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise InputError("serve.embedder is no URL of a service: set it as in http://127.0.0.1:11434/v1#nomic-embed-text")
        self.url, self.model = f"{url.partition('#')[0].rstrip('/')}/embeddings", parts.fragment
        self.host, self.local = parts.hostname, loopback(parts.hostname)
        key = os.environ.get(KEY_VARIABLE, "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(headers=headers, timeout=TIMEOUT, follow_redirects=False, trust_env=not self.local)
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="embedder")
        self._questions: OrderedDict[str, Future[Floats]] = OrderedDict()
        self._lock = threading.Lock()
        self._projection: Floats | None = None
        self.length = 0  # of the service's vectors; 0: not known yet
        self.failures = 0  # in a row
        self._rests_until = 0.0

    @property
    def dim(self) -> int:
        """Length of the vectors that are kept; 0 before the first answer."""
        return min(self.length, DIM)

    @property
    def healthy(self) -> bool:
        """Whether it answered when it was asked last."""
        return self.length > 0 and self.failures == 0

    @property
    def rests(self) -> float:
        """Seconds until it may be asked again."""
        return max(0.0, self._rests_until - time.monotonic())

    def check(self) -> bool:
        """Whether it answers now."""
        try:
            self.embed(["def f(x): return x"])
        except Failed:
            return False
        return True

    def embed(self, texts: Sequence[str]) -> Floats:
        """(n, dim) unit rows.

        Raises:
            Failed: no answer, a refusal, or no vectors; then it rests for a while.
        """
        if self.rests:
            raise Failed("rests")
        found = [self._batch([text[:LONGEST] or " " for text in texts[at : at + BATCH]]) for at in range(0, len(texts), BATCH)]
        return np.concatenate(found) if found else np.zeros((0, self.dim), np.float32)

    def query(self, text: str) -> Floats | None:
        """(dim,) of one text; None if it takes too long now. An answer that comes late is kept for the next time."""
        if self.rests or not self.length:
            return None
        with self._lock:
            asked = self._questions.get(text)
            if asked is None:
                if sum(not one.done() for one in self._questions.values()) > 1:
                    return None  # it is slower than the questions come
                asked = self._questions[text] = self._asking.submit(self._question, text)
                while len(self._questions) > REMEMBERED:
                    self._questions.popitem(last=False)
        try:
            return asked.result(PATIENCE)
        except Late:
            return None
        except Failed:
            with self._lock:
                self._questions.pop(text, None)
            return None

    def close(self) -> None:
        """Ask no more."""
        self._asking.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _question(self, text: str) -> Floats:
        try:
            masked = scrub.mask(text)[0]  # an open file may hold what a saved one does not
        except Exception:  # noqa: BLE001  what the scrubber trips over is not sent
            raise Failed("not masked") from None
        vector: Floats = self.embed([masked])[0]
        return vector

    def _batch(self, texts: list[str]) -> Floats:
        try:
            vectors = self._vectors(self._client.post(self.url, json={"input": texts, "model": self.model or "default"}), len(texts))
        except (httpx.HTTPError, RuntimeError, ValueError, TypeError, KeyError, AttributeError, RecursionError, Failed) as error:
            self.failures += 1
            self._rests_until = time.monotonic() + min(REST[1], REST[0] * 2 ** min(10, self.failures - 1))
            raise Failed(type(error).__name__) from None
        self.failures, self._rests_until = 0, 0.0
        return vectors

    def _vectors(self, response: httpx.Response, count: int) -> Floats:
        """What the service answered, projected to `dim` numbers."""
        if response.status_code != httpx.codes.OK:
            raise Failed(f"status {response.status_code}")
        rows = sorted(response.json()["data"], key=lambda one: int(one.get("index", 0)))
        found = np.array([one["embedding"] for one in rows], np.float32)
        if found.ndim != 2 or len(found) != count or not 0 < found.shape[1] <= MOST_DIM or not np.isfinite(found).all():
            raise Failed("no vectors")
        if found.shape[1] != self.length:  # the first answer, or another model
            if self.length:
                raise Failed("another model answers")
            self.length = found.shape[1]
            random = np.random.default_rng(SEED).normal(0, 1, (self.length, self.dim)).astype(np.float32)
            self._projection = random if self.length > DIM else None
        if self._projection is not None:  # Johnson and Lindenstrauss: a random projection nearly keeps angles
            found = found @ self._projection
        unit: Floats = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)
        return unit


def loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
