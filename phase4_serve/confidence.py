"""Show only what the model is sure of: a floor under the probability of its tokens.

In:  pieces of a completion with the probability of each token, and the floor
Out: whether to go on

The first token decides whether anything is shown; later lines are judged where they begin, so that what is shown is never taken back.

    gate = Gate(params.min_confidence)                    # 0: off; settings get SETTINGS where it is on
    if not gate.sure(event.content, event.probability):   # before cutter.feed(event.content)
        generate no more, yield cutter.finish(); Done.reason = "unsure" if nothing was shown
"""

from __future__ import annotations

import math
from typing import Any

SETTINGS: dict[str, Any] = {"n_probs": 1}  # llama-server's fields that make it tell probabilities


class Gate:
    """Judges one completion."""

    def __init__(self, floor: float) -> None:
        self.floor = floor
        self.nats, self.tokens, self.line_begins = 0.0, 0, True

    def sure(self, content: str, probability: float | None) -> bool:
        """Whether this piece may be shown; False ends the completion."""
        if not self.floor or probability is None:
            return True
        self.nats -= math.log(max(probability, 1e-9))
        self.tokens += 1
        judged = self.line_begins
        self.line_begins = "\n" in content
        return not judged or math.exp(-self.nats / self.tokens) >= self.floor
