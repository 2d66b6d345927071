"""What is asked of the engine and what comes of it.

In:  how a client wants a completion sampled
Out: what is known of a request on its way, and how it ended
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from phase4_serve.compose import Draft
from phase4_serve.heal import Lead
from phase4_serve.scheduler import Superseded
from phase4_serve.typed import Generation


class Declined(Exception):
    """The trigger says that a completion makes no sense here."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Sampling(NamedTuple):
    """How tokens are chosen; a server for typing is greedy unless asked otherwise."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    floor: float | None = None  # least probability of what is shown; None: the server's


class Done(NamedTuple):
    """How a completion ended."""

    finish_reason: str  # stop | length
    stop_type: str  # llama-server's word: eos | limit | word; "rule" where one of ours ended it
    timings: dict[str, float]
    reason: str = ""  # superseded | late | unsure | why the trigger declined; "" where it is an answer
    source: str = "model"  # model | typed (out of the type-through cache) | resumed (in part)

    @property
    def prompt_tokens(self) -> int:
        return int(self.timings.get("prompt_n", 0) + self.timings.get("cache_n", 0))

    @property
    def cached_tokens(self) -> int:
        return int(self.timings.get("cache_n", 0))

    @property
    def generated_tokens(self) -> int:
        return int(self.timings.get("predicted_n", 0))


class Turn:
    """A session's request that is being answered; the next one ends it."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.superseded = self.lingers = False  # lingers: what is being written goes on behind the answer
        self._wake = wake

    def end(self) -> None:
        """A newer request came."""
        self.superseded = True
        self._wake()

    def check(self) -> None:
        """Raises: Superseded."""
        if self.superseded:
            raise Superseded


class Request:
    """What is known of one request on its way."""

    def __init__(self, draft: Draft, sampling: Sampling, started: float) -> None:
        self.draft, self.sampling, self.started = draft, sampling, started
        self.settings: dict[str, Any] = {}
        self.lead: Lead | None = None  # what its first generation begins with
        self.key: Hashable | None = None
        self.source = "model"
        self.generation: Generation | None = None  # that it has started
        self.heard = 0.0  # when llama-server was heard last; 0: it was not asked
