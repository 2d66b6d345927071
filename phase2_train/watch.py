"""What a person sees of a training run, and what DVC plots.

In:  the trainer's log events
Out: lines with loss, tokens/s and ETA; <out>/dvclive (metrics.json, plots/metrics/*.tsv)
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

from dvclive import Live
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from core.errors import CheckFailed

SHOWN = ("loss", "eval_loss", "rewards/accuracies", "rewards/margins", "logps/chosen")


class Watch(TrainerCallback):  # type: ignore[misc]
    """Prints progress at every log event and passes the figures to dvclive; stops a run whose loss is not a number."""

    def __init__(self, label: str, out: Path, tokens_per_step: float) -> None:
        self.label, self.tokens_per_step = label, tokens_per_step
        self.live = Live(str(out / "dvclive"), save_dvc_exp=False, dvcyaml=None, report=None, cache_images=False)
        self.started = time.monotonic()
        self.history: list[dict[str, float]] = []

    @property
    def seconds(self) -> float:
        """Since training began."""
        return time.monotonic() - self.started

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Start the clock; what came before was loading."""
        self.started = time.monotonic()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """One line and one dvclive step per log event.

        Raises:
            CheckFailed: the loss is not a number.
        """
        logs: dict[str, float] = {key: value for key, value in kwargs["logs"].items() if isinstance(value, int | float)}
        if any(math.isnan(logs.get(key, 0.0)) for key in ("loss", "eval_loss")):
            raise CheckFailed(f"{self.label}: the loss is not a number at step {state.global_step}: lower its lr in params.yaml and rerun")
        self.history.append({"step": state.global_step, **logs})
        self.live.step = state.global_step
        for key, value in logs.items():
            if not key.endswith(("runtime", "per_second", "flos")):
                self.live.log_metric(key, value, timestamp=False)
        self.live.make_summary()
        shown = ", ".join(f"{key} {logs[key]:.4g}" for key in SHOWN if key in logs)
        if shown:
            rate = state.global_step * self.tokens_per_step / self.seconds
            left = (state.max_steps - state.global_step) * self.seconds / max(1, state.global_step)
            print(
                f"{self.label}: step {state.global_step}/{state.max_steps}, {shown}, {rate:,.0f} tokens/s, {left:,.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Close the dvclive files."""
        self.live.end()
