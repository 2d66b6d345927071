"""What a person sees of a training run, and what DVC plots.

In:  the trainer's log events, a few holes of the validation split
Out: lines with loss, tokens/s and ETA, and what the model writes into those holes; <out>/dvclive (metrics.json, plots/metrics/*.tsv)

On a terminal the line is rewritten in place; elsewhere there is one every few seconds and at every evaluation. A run that goes on
from a checkpoint writes the series anew from what the checkpoint remembers: no gap, no step twice, whatever was left of the files.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from dvclive import Live
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from core.errors import CheckFailed, MachineError
from core.fim import Codec, Hole
from core.progress import INTERVAL
from core.records import Row
from core.scrub import mask
from phase2_train.rows import hole_of

SHOWN = ("loss", "rewards/accuracies", "rewards/margins", "logps/chosen")
UNPLOTTED = ("runtime", "per_second", "flos", "preparation_time", "epoch")
TAIL, WRITTEN = 48, 64  # characters shown of the prefix's last line and of the completion


class Sight:
    """A few holes whose completions are shown while the model learns: always the same ones, chosen by hash.

    Args:
        samples: rows of the validation split (core.records.SAMPLE).
        decode: of the same vocabulary as the codec.
        new_tokens: how much is written at most.
    """

    def __init__(
        self, samples: Sequence[Row], codec: Codec, decode: Callable[[list[int]], str], count: int = 3, new_tokens: int = 16
    ) -> None:
        inside = [sample for sample in samples if sample["order"] == "spm" and sample["prefix"].rsplit("\n", 1)[-1].strip()]
        chosen = sorted(inside, key=lambda sample: hashlib.sha256(sample["sample_id"].encode()).hexdigest())
        self.holes: list[Hole] = [hole_of(sample) for sample in chosen[:count]]
        self.codec, self.decode, self.new_tokens = codec, decode, new_tokens

    @torch.no_grad()
    def lines(self, model: Any) -> list[str]:
        """`prefix tail | completion` of each hole, greedy; whatever the scrubber would mask is masked."""
        if not self.holes:
            return []
        was_training, tokens = model.training, self.codec.tokens
        prompts = [self.codec.prompt(hole, "spm") for hole in self.holes]
        longest = max(map(len, prompts))
        ids = torch.tensor([[tokens.pad] * (longest - len(prompt)) + prompt for prompt in prompts])
        device = next(model.parameters()).device
        model.eval()
        out = model.generate(
            input_ids=ids.to(device),
            attention_mask=(torch.arange(longest) >= torch.tensor([[longest - len(prompt)] for prompt in prompts])).long().to(device),
            do_sample=False,
            max_new_tokens=self.new_tokens,
            eos_token_id=list(tokens),
            pad_token_id=tokens.pad,
        )
        model.train(was_training)
        written = [self.decode(list(itertools.takewhile(lambda token: token not in tokens, row))) for row in out[:, longest:].tolist()]
        tails = [hole.prefix.rsplit("\n", 1)[-1] for hole in self.holes]
        return [mask(f"{_one_line(tail)[-TAIL:]} | {_one_line(text)[:WRITTEN]}")[0] for tail, text in zip(tails, written, strict=True)]


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else "⏎" if char == "\n" else " " for char in text)


class Watch(TrainerCallback):  # type: ignore[misc]
    """Prints progress, passes the figures to dvclive, stops a run whose loss is not a number.

    Args:
        label: of the stage.
        out: folder of the stage.
        tokens_per_step: mean, for tokens/s.
        sight: holes to complete at every evaluation.
    """

    def __init__(self, label: str, out: Path, tokens_per_step: float, sight: Sight | None = None) -> None:
        self.label, self.out, self.tokens_per_step, self.sight = label, out, tokens_per_step, sight
        self.live: Live | None = None
        self.started = self.last_line = time.monotonic()
        self.began_at = 0
        self.history: list[dict[str, float]] = []
        self.latest = ""
        self.step_ends: list[float] = []

    @property
    def seconds(self) -> float:
        """Since training began in this process."""
        return time.monotonic() - self.started

    def tokens_per_s(self, step: int) -> float:
        """Over the steps that this process did, padding not counted."""
        return (step - self.began_at) * self.tokens_per_step / max(self.seconds, 1e-9)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Start the clock (what came before was loading) and the series, with what a checkpoint remembers of them."""
        self.started = self.last_line = time.monotonic()
        self.began_at = state.global_step
        if state.is_world_process_zero:
            try:
                self.live = Live(str(self.out / "dvclive"), save_dvc_exp=False, dvcyaml=None, report=None, cache_images=False)
            except sqlite3.Error as error:  # DVC's own state; on a full disk it is the first to fail
                raise MachineError(f"{self.label}: DVC cannot write its state ({error}): free some disk space and rerun") from None
        for entry in state.log_history:
            self._record(int(entry["step"]), {key: value for key, value in entry.items() if key != "step"})

    def _record(self, step: int, logs: dict[str, float]) -> None:
        self.history.append({"step": step, **logs})
        if self.live is None:
            return
        self.live.step = step
        for key, value in logs.items():
            if not key.endswith(UNPLOTTED):
                self.live.log_metric(key, value, timestamp=False)

    @property
    def step_seconds(self) -> float:
        """Median time from the end of one step to the end of the next, so that neither warm-up nor evaluations count; 0 without two."""
        return statistics.median(b - a for a, b in itertools.pairwise(self.step_ends)) if len(self.step_ends) > 1 else 0.0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Note the time."""
        self.step_ends.append(time.monotonic())

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """One dvclive step per log event.

        Raises:
            CheckFailed: the loss is not a number.
        """
        logs: dict[str, float] = {key: value for key, value in kwargs["logs"].items() if isinstance(value, int | float)}
        if not all(math.isfinite(logs.get(key, 0.0)) for key in ("loss", "eval_loss")):
            raise CheckFailed(
                f"{self.label}: the loss is not a number at step {state.global_step}: "
                f"lower {self.label}.lr in params.yaml and rerun with --fresh"
            )
        self._record(state.global_step, logs)
        if self.live is not None:
            self.live.make_summary()
        if "loss" in logs:
            self.latest = ", ".join(f"{key} {logs[key]:.4g}" for key in SHOWN if key in logs)
            self._line(state, self.latest, always=False)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A line with every loss, and one per hole."""
        metrics = {key.removeprefix("eval_"): value for key, value in kwargs["metrics"].items() if key.startswith("eval_loss")}
        self._line(state, "valid " + ", ".join(f"{key} {value:.4g}" for key, value in metrics.items()), always=True)
        if self.sight and state.is_world_process_zero:
            for line in self.sight.lines(kwargs["model"]):
                print(f"{self.label}:   {line}", file=sys.stderr, flush=True)

    def _line(self, state: TrainerState, text: str, always: bool) -> None:
        terminal = sys.stderr.isatty()
        if not state.is_world_process_zero or not (always or terminal or time.monotonic() - self.last_line >= INTERVAL):
            return
        self.last_line = time.monotonic()
        done = state.global_step - self.began_at
        pace = f", {self.tokens_per_s(state.global_step):,.0f} tokens/s" if done else ""
        left = f", {(state.max_steps - state.global_step) * self.seconds / done:,.0f} s left" if done else ""
        line = f"{self.label}: step {state.global_step}/{state.max_steps}, {text}{pace}{left}"
        print(f"\r\x1b[K{line}" if terminal else line, end="\n" if always or not terminal else "", file=sys.stderr, flush=True)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Close the dvclive files."""
        if self.live is not None:
            self.live.end()
        if sys.stderr.isatty() and state.is_world_process_zero:
            print(file=sys.stderr)
