"""Sees preference training go wrong, stops it, and keeps the adapter from before.

In:  the trainer's log events; a few held-out holes that the model completes every so many steps
Out: one line that says what went wrong; the last good adapter back in the model; figures for metrics.json and the plots

DPO lowers the likelihood of both answers where that is the easiest way to tell them apart, and learns "shorter" or "never
ending" where that separates the pairs (trl#2382; CodeAlign's DPO reached a reward accuracy of 1.00 and lost 46 points of
HumanEval). Three signs, each by itself a collapse:

    chosen      the log-probability of the chosen answers, on the pairs of the last log events, fell by a share of what the
                reference gives the same pairs
    accuracy    of the rewards, above a bound at every one of the last log events: there is nothing left to learn but noise
    length      of greedy completions, over that of the truth, outside of bounds (around the start's, where that is further out)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from core.completion import compare
from core.decode import Network, Question, TorchBatch, answer
from core.fim import Codec
from core.records import Row
from phase2_train.params import MonitorParams
from phase2_train.resume import trained
from phase2_train.rows import hole_of

BATCH = 32  # holes decoded together


class Look(NamedTuple):
    """How the model completes the held-out holes."""

    length_ratio: float  # tokens written over tokens of the truth, both summed
    end_in_time: float  # share that ended within the limit
    overrun: float  # share that ran past the hole or into the suffix (core.completion)
    exact: float


class Holes:
    """Held-out holes in the served order, always the same ones, chosen by hash.

    Args:
        samples: rows of the validation split (core.records.SAMPLE).
        room: tokens that a prompt and its answer may have; longer holes are passed over.
    """

    def __init__(
        self, samples: Sequence[Row], codec: Codec, decode: Callable[[list[int]], str], count: int, max_new_tokens: int, room: int
    ) -> None:
        fit = [row for row in samples if row["order"] != "ltr" and row["middle"].strip() and row["suffix"].strip()]
        self.codec, self.decode, self.max_new_tokens = codec, decode, max_new_tokens
        self.rows, self.questions = list[Row](), list[Question]()
        for row in sorted(fit, key=lambda row: hashlib.sha256(row["sample_id"].encode()).digest()):
            question = Question(codec.prompt(hole_of(row), "spm"), codec.plain(row["middle"]))
            if len(self.rows) < count and len(question.prompt) + max(max_new_tokens, len(question.middle) + 1) <= room:
                self.rows.append(row)
                self.questions.append(question)

    def look(self, model: Any) -> Look:
        """Complete them all, greedily; the model is left as it was."""
        inner, training = model.get_base_model(), model.training
        attention, stops = inner.config._attn_implementation, set(self.codec.tokens)
        try:
            network = Network.of(model)
            answers = []
            for at in range(0, len(self.questions), BATCH):
                asked = self.questions[at : at + BATCH]
                batch = TorchBatch(network, asked, self.max_new_tokens)
                answers += answer(batch, asked, self.codec.tokens.end, stops, self.max_new_tokens)
        finally:
            inner.set_attn_implementation(attention)
            model.train(training)
        compared = [compare(self.decode(one.ids), row["middle"], row["suffix"]) for one, row in zip(answers, self.rows, strict=True)]
        count = len(answers)
        return Look(
            sum(len(one.ids) for one in answers) / max(1, sum(len(question.middle) for question in self.questions)),
            sum(one.stop != "limit" for one in answers) / count,
            sum(one.overrun for one in compared) / count,
            sum(one.exact_stripped for one in compared) / count,
        )


class Collapse(TrainerCallback):  # type: ignore[misc]
    """The monitor; `stopped_by` says what it stopped for, `kept_step` whose adapter is in the model then.

    Args:
        beta: of the loss; a reward is beta times the difference of log-probabilities to the reference.
        holes: to complete; None where there are none.
    """

    def __init__(self, params: MonitorParams, beta: float, holes: Holes | None) -> None:
        self.params, self.beta = params, beta
        self.holes = holes if holes and holes.questions else None
        self.recent = list[list[float]]()  # per log event: by the reference, difference to it, accuracy, the step before
        self.start: Look | None = None
        self.latest: Look | None = None
        self.kept = dict[int, dict[str, torch.Tensor]]()  # by step: the newest, and back to one from before the last log events
        self.kept_step = 0  # whose adapter is in the model when training ends
        self.stopped_by = ""
        self.unlogged = dict[str, float]()

    # what the signs say

    def bounds(self) -> tuple[float, float]:
        """Between which the length ratio may move."""
        low, high = self.params.length_ratio
        start = self.start.length_ratio if self.start else 1.0
        return low * min(1.0, start), high * max(1.0, start)

    def fall(self) -> float:
        """Share of its log-probability that the chosen answer lost on the pairs of the last log events; below 0 it gained."""
        reference, difference = (sum(event[place] for event in self.recent) for place in (0, 1))
        return -difference / abs(reference) if reference else 0.0

    def sign(self) -> str:
        """The first sign of collapse, in words; empty where there is none."""
        params, full = self.params, len(self.recent) >= self.params.patience
        if full and self.fall() > params.max_chosen_fall:
            return f"the chosen answers lost {self.fall():.0%} of their log-probability (bound {params.max_chosen_fall:.0%})"
        if full and all(event[2] > params.max_accuracy for event in self.recent):
            return f"reward accuracy above {params.max_accuracy} at {params.patience} log events in a row"
        if self.latest is not None:
            low, high = self.bounds()
            if not low <= self.latest.length_ratio <= high:
                return f"completions are {self.latest.length_ratio:.2f} times as long as the truth (bounds {low:.2f} to {high:.2f})"
        return ""

    # what the trainer calls

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Look once before the first step; a run that goes on remembers."""
        if not self.kept:
            self._look(state, kwargs["model"])
            self.start = self.latest
            self._keep(state, kwargs["model"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> TrainerControl:
        """Every so many steps: look, and keep the adapter if all is well."""
        if state.global_step % self.params.every == 0:
            self._look(state, kwargs["model"])
            if not self._stop_if_collapsed(state, control, kwargs["model"]):
                self._keep(state, kwargs["model"])
        return control

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> TrainerControl:
        """Note the rewards, and stop where they say so."""
        logs = kwargs["logs"]
        if "rewards/accuracies" in logs and not self.stopped_by:
            difference = logs["rewards/chosen"] / self.beta
            before = float(state.global_step - args.logging_steps)
            event = [logs["logps/chosen"] - difference, difference, logs["rewards/accuracies"], before]
            self.recent = [*self.recent, event][-self.params.patience :]
            self._stop_if_collapsed(state, control, kwargs["model"])
        return control

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A last look, if the last step had none."""
        if not self.stopped_by and state.global_step % self.params.every and state.global_step >= state.max_steps:
            self._look(state, kwargs["model"])
            if not self._stop_if_collapsed(state, control, kwargs["model"]):
                self._keep(state, kwargs["model"])

    def _look(self, state: TrainerState, model: Any) -> None:
        if self.holes is None:
            return
        self.latest = look = self.holes.look(model)
        self.unlogged = {f"held_out/{name}": value for name, value in look._asdict().items()}
        if state.is_world_process_zero:
            print(
                f"dpo: step {state.global_step}: completions {look.length_ratio:.2f} times as long as the truth, "
                f"{look.end_in_time:.0%} end in time, {look.overrun:.0%} run over, {look.exact:.0%} exact",
                flush=True,
            )

    def _keep(self, state: TrainerState, model: Any) -> None:
        before = max((step for step in self.kept if step <= self._began()), default=0)
        self.kept = {step: weights for step, weights in self.kept.items() if step >= before}
        self.kept[state.global_step] = {name: parameter.detach().to("cpu", copy=True) for name, parameter in trained(model).items()}
        self.kept_step = state.global_step

    def _began(self) -> float:
        """The step before the last log events."""
        return self.recent[0][3] if self.recent else 0.0

    def _stop_if_collapsed(self, state: TrainerState, control: TrainerControl, model: Any) -> bool:
        sign = self.sign()
        if not sign or self.stopped_by:
            return bool(sign)
        self.stopped_by = f"{sign} at step {state.global_step}"
        of_rewards = not sign.startswith("completions")  # those were seen over several log events: all of them are suspect
        self.kept_step = max(step for step in self.kept if not of_rewards or step <= max(0.0, self._began()))
        with torch.no_grad():
            for name, parameter in trained(model).items():
                parameter.copy_(self.kept[self.kept_step][name])
        control.should_training_stop = True
        if state.is_world_process_zero:
            kept = f"the adapter of step {self.kept_step}" if self.kept_step else "the adapter that went in"
            print(f"dpo: collapse: {self.stopped_by}; stopped, keeping {kept}", flush=True)
        return True

    # for checkpoints and reports

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must remember."""
        looks = [list(look) if look else [] for look in (self.start, self.latest)]
        return {"recent": self.recent, "looks": looks, "kept": self.kept, "kept_step": self.kept_step, "stopped_by": self.stopped_by}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what a checkpoint remembers."""
        self.recent, self.kept, self.kept_step, self.stopped_by = (state[name] for name in ("recent", "kept", "kept_step", "stopped_by"))
        self.start, self.latest = (Look(*look) if look else None for look in state["looks"])

    def figures(self) -> dict[str, Any]:
        """For metrics.json: what it was stopped by (null if by nothing), and the signs as they were at the end."""
        looks = {"start": self.start, "end": self.latest}
        figures = {f"{when}_{name}": round(value, 4) for when, look in looks.items() if look for name, value in look._asdict().items()}
        return {"stopped_by": self.stopped_by or None, "kept_step": self.kept_step, "chosen_fall": round(self.fall(), 4), **figures}
