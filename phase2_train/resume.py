"""Checkpoints from which a killed training run goes on exactly, and the signals that ask for one.

In:  a trainer of transformers or trl, what the run is made of (params, hashes of data, base, adapter), a folder
Out: <folder>/step-00000120/: trainable weights, optimizer, scheduler, random states, what was logged, manifest.json with sha256s

Only what is trained is saved: neither the quantized base nor DPO's frozen reference, which are loaded again from files whose
hashes are part of the run's identity. A checkpoint is filled under another name and renamed, verified before it is used, and
the one before it is kept. What is restored beyond transformers' own state: the random state at the start of the epoch (length-
grouped order is drawn from it), losses and metrics summed since the last log line, and any callback with `state_dict` and
`load_state_dict` (values that torch.load takes with weights_only).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from core.errors import CheckFailed, InputError, MachineError, Stopped, one_line
from core.manifest import MANIFEST, sha256_of
from core.params import StageParams
from core.records import write_json

KEPT = 2
NOT_PART = {"save_steps"}  # keys that change when a run is saved, not what comes out
WEIGHTS, LOOP, STATE = "trainable.safetensors", "loop-{}.pt", "trainer_state.json"
COPIES = 4  # of the trained weights in a checkpoint: themselves, the best so far, Adam's two moments


class StopSignals(contextlib.ContextDecorator):
    """SIGTERM, Ctrl-C and a closed terminal: noted while a step runs, an exception everywhere else.

    Installed also where SIGINT is inherited ignored, as in a shell's background jobs; a SIGHUP ignored by nohup stays so.
    """

    def __init__(self) -> None:
        self.in_steps = self.requested = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        self.in_steps = self.requested = False
        if threading.current_thread() is threading.main_thread():  # nobody else may install a handler
            wanted = [signal.SIGINT, signal.SIGTERM]
            if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
                wanted.append(signal.SIGHUP)
            self.before = {number: signal.signal(number, self._asked) for number in wanted}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def _asked(self, number: int, _: object) -> None:
        if self.requested or not self.in_steps:
            raise Stopped("stopped: run the same command to go on")
        self.requested = True
        os.write(2, b"stopping at the end of this step, with a checkpoint; ask again to stop at once\n")  # print may not be reentered


STOP = StopSignals()  # signals belong to the process, so there is one


def identity(sections: Mapping[str, StageParams], inputs: Mapping[str, Path], **more: Any) -> dict[str, Any]:
    """What a run is made of, flat: `sft.lora.r`, `train rows`, ...; two runs with the same values have the same result.

    Rows per step count, not how they are cut into forward passes: 2 x 4 is 8 x 1.

    Args:
        sections: name to section of params.
        inputs: what it is to a file or folder, taken by its sha256.
        more: further values, such as the bits of the base.
    """
    flat: dict[str, Any] = {}
    for name, section in sections.items():
        values = section.model_dump(mode="json", exclude=NOT_PART)
        if {"batch", "accumulate"} <= values.keys():
            values["batch * accumulate"] = values.pop("batch") * values.pop("accumulate")
        flat |= dict(_flat(name, values))
    return flat | {what: f"sha256 {sha256_of(path)[:16]}" for what, path in inputs.items()} | more


def _flat(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(f"{prefix}.{key}", value)
        else:
            yield f"{prefix}.{key}", value


def damage(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be used; None where every file is what it was when it was written."""
    try:
        files: dict[str, str] = json.loads((checkpoint / MANIFEST).read_text())["files"]
        wrong = sorted(
            name for name, digest in files.items() if not (checkpoint / name).is_file() or sha256_of(checkpoint / name) != digest
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return f"{MANIFEST} is missing or damaged"
    return f"{', '.join(wrong)} is missing or damaged" if wrong else None


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def trained(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The parameters that are trained, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


class Checkpoints(TrainerCallback):  # type: ignore[misc]
    """The checkpoints of one run; `train` in place of the trainer's own, `clear` when everything is written.

    Args:
        label: of the stage, for messages and the names of params.
        folder: where checkpoints lie; must outlive a killed run.
        run: see `identity`.
        save_steps: steps between checkpoints; 0: only when asked to stop.
        fresh: forget what is there.
    """

    def __init__(self, label: str, folder: Path, run: dict[str, Any], save_steps: int, fresh: bool) -> None:
        self.label, self.folder, self.run, self.save_steps, self.fresh = label, folder, run, save_steps, fresh
        self.trainer: Any = None
        self.loop: dict[str, Any] | None = None
        self.epoch_rng = torch.get_rng_state()
        self.stopping = False

    def found(self) -> list[Path]:
        """Finished checkpoints, the newest first; whether they are whole is another question."""
        return sorted(self.folder.glob("step-*"), reverse=True)

    def newest(self) -> Path | None:
        """The newest whole checkpoint; says which damaged ones it passed over."""
        for checkpoint in self.found():
            broken = damage(checkpoint)
            if broken is None:
                return checkpoint
            print(f"{self.label}: {checkpoint}: {broken}; going back to the one before", flush=True)
        return None

    def check(self) -> None:
        """Refuse to go on from another run; `train` does, and a stage that has much to do before may ask earlier.

        Raises:
            InputError: the newest whole checkpoint has other params, data, base or adapter; names them.
        """
        checkpoint = None if self.fresh else next((path for path in self.found() if damage(path) is None), None)
        if checkpoint is None:
            return
        theirs: dict[str, Any] = json.loads((checkpoint / MANIFEST).read_text())["run"]
        keys = [key for key in {**theirs, **self.run} if theirs.get(key) != self.run.get(key)]
        if keys:
            changed = "; ".join(f"{key} was {theirs.get(key, 'absent')} and is {self.run.get(key, 'absent')}" for key in keys)
            raise InputError(
                f"{self.folder} holds step {_step(checkpoint)} of another run ({changed}): "
                f"change it back to go on, or start over with --fresh (or delete that folder)"
            )

    def train(self, trainer: Any) -> int:
        """Train to the end, from the newest checkpoint where there is one; return the step it began at.

        Raises:
            InputError: the checkpoint is of another run.
            Stopped: a signal came; a checkpoint of the step was written.
            MachineError: no room for checkpoints.
            CheckFailed: the loss is not a number.
        """
        self.trainer, trainer.checkpoints = trainer, self
        self.run["processes"] = trainer.args.world_size
        self.check()
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            print(
                f"{self.label}: no checkpoints under FSDP or DeepSpeed, whose weights lie in pieces: a killed run starts over", flush=True
            )
            trainer.train()
            return 0
        if trainer.args.should_save:
            self._tidy()
        trainer.accelerator.wait_for_everyone()
        checkpoint = self.newest()
        self._need_room()
        if checkpoint:
            print(f"{self.label}: going on from step {_step(checkpoint)}", flush=True)
            trainer.args.eval_on_start = False
        trainer.callback_handler.callbacks.insert(0, self)  # what the others remember is there when they begin
        STOP.in_steps = True
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        finally:
            STOP.in_steps = False
        return _step(checkpoint) if checkpoint else 0

    def _tidy(self) -> None:
        if self.fresh:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        for left_over in self.folder.glob(".partial-*"):
            shutil.rmtree(left_over)

    def _need_room(self) -> None:
        size = COPIES * sum(4 * parameter.numel() for parameter in trained(self.trainer.model).values())
        free, wanted = shutil.disk_usage(self.folder).free, size * (KEPT + 1 - len(self.found()[:KEPT]))
        if free < wanted:
            raise MachineError(
                f"{self.folder} needs {wanted / 1e6:,.0f} MB for checkpoints and its disk has {free / 1e6:,.0f} MB free: "
                f"free some and run the same command, or name another --out"
            )

    def clear(self, **facts: Any) -> None:
        """Remove the checkpoints of a finished run, so that the next one trains; leave one small file that says so."""
        for checkpoint in self.found():
            shutil.rmtree(checkpoint)
        write_json(self.folder / "finished.json", facts)

    # what the trainer calls

    def save(self) -> None:
        """Write the checkpoint of this step, whole or not at all; none where a callback has just ended the run.

        One that goes on from an earlier step ends where this one did.

        Raises:
            MachineError: the disk is full; the checkpoint before stays.
            Stopped: it was asked for by a signal.
        """
        trainer, step = self.trainer, self.trainer.state.global_step
        if trainer.control.should_training_stop:
            return
        partial, target = self.folder / f".partial-{step:08}", self.folder / f"step-{step:08}"
        with self._naming_a_full_disk(partial, step):
            partial.mkdir(parents=True, exist_ok=True)
            self._fill(partial)
            trainer.accelerator.wait_for_everyone()
            if trainer.args.should_save:
                self._seal(partial, target)
        trainer.accelerator.wait_for_everyone()
        if self.stopping:
            raise Stopped(f"{self.label} stopped at step {step}: run the same command to go on")

    def _fill(self, partial: Path) -> None:
        trainer = self.trainer
        trainer._save_rng_state(str(partial))
        torch.save(self._loop_state(), partial / LOOP.format(trainer.args.process_index))
        if trainer.args.should_save:
            save_file({name: weight.detach().cpu().contiguous() for name, weight in trained(trainer.model).items()}, partial / WEIGHTS)
            trainer._save_optimizer_and_scheduler(str(partial))
            trainer._save_scaler(str(partial))
            trainer.state.save_to_json(str(partial / STATE))

    def _loop_state(self) -> dict[str, Any]:
        trainer = self.trainer
        return {
            "epoch_rng": self.epoch_rng,
            "rng": torch.get_rng_state(),
            "tr_loss": trainer._tr_loss.cpu(),
            "total_loss": trainer._total_loss_scalar,
            "last_logged": trainer._globalstep_last_logged,
            "metrics": {name: list(values) for name, values in trainer._metrics["train"].items()},
            "tokens": trainer._total_train_tokens,
            "callbacks": {type(c).__name__: c.state_dict() for c in trainer.callback_handler.callbacks if hasattr(c, "state_dict")},
        }

    def _seal(self, partial: Path, target: Path) -> None:
        files = sorted(path for path in partial.iterdir() if path.name != MANIFEST)
        write_json(partial / MANIFEST, {"step": _step(target), "run": self.run, "files": {path.name: sha256_of(path) for path in files}})
        for path in (*files, partial / MANIFEST, partial):
            _to_disk(path)
        shutil.rmtree(target, ignore_errors=True)
        partial.replace(target)
        _to_disk(self.folder)
        for old in [path for path in self.found() if _step(path) > _step(target)] + self.found()[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)

    @contextlib.contextmanager
    def _naming_a_full_disk(self, partial: Path, step: int) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            if isinstance(error, RuntimeError) and "unexpected pos" not in str(error) and "PytorchStreamWriter" not in str(error):
                raise  # torch's writer names a full disk so; anything else is no matter of the disk
            before = next((f"; step {_step(path)} is there whole" for path in self.found() if damage(path) is None), "")
            raise MachineError(
                f"{self.label}: cannot write the checkpoint of step {step} in {self.folder} ({one_line(error)[:120]}){before}: "
                f"free some space and run the same command to go on"
            ) from None

    def load_weights(self, checkpoint: Path, model: torch.nn.Module) -> None:
        """Put the trained weights of a checkpoint into the model, and keep the rest for `on_train_begin`."""
        mine, theirs = trained(model), load_file(checkpoint / WEIGHTS)
        if mine.keys() != theirs.keys():
            raise InputError(f"{checkpoint} trains other matrices than this model has: start over with --fresh")
        with torch.no_grad():
            for name, weight in theirs.items():
                mine[name].copy_(weight)
        self.loop = torch.load(checkpoint / LOOP.format(self.trainer.args.process_index), weights_only=True)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Take up the sums since the last log line, and the callbacks' states."""
        if self.loop is None:
            return
        trainer = self.trainer
        trainer._tr_loss += self.loop["tr_loss"].to(trainer._tr_loss.device)
        trainer._total_loss_scalar, trainer._globalstep_last_logged = self.loop["total_loss"], self.loop["last_logged"]
        trainer._metrics["train"].update(self.loop["metrics"])
        trainer._total_train_tokens = self.loop["tokens"]
        for callback in trainer.callback_handler.callbacks:
            if type(callback).__name__ in self.loop["callbacks"]:
                callback.load_state_dict(self.loop["callbacks"][type(callback).__name__])

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Draw the order of a broken epoch again from the state it was drawn from; the state of the step itself comes after.

        At the border of two epochs the trainer draws the next one's order from the state of the step.
        """
        if self.loop is not None:
            at_border = abs((state.epoch or 0) - round(state.epoch or 0)) < 1e-9
            torch.set_rng_state(self.loop["rng" if at_border else "epoch_rng"])
            self.loop = None
        self.epoch_rng = torch.get_rng_state()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> TrainerControl:
        """Ask for a checkpoint: at intervals, and when a signal came."""
        self.stopping = self._anyone_asked()
        control.should_save = self.stopping or (self.save_steps > 0 and state.global_step % self.save_steps == 0)
        return control

    def _anyone_asked(self) -> bool:
        if self.trainer.args.world_size <= 1:
            return STOP.requested
        asked = torch.tensor(float(STOP.requested), device=self.trainer.args.device)
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
        return bool(asked.item())


class Resumable:
    """Mixed in before a Trainer: checkpoints are those of `Checkpoints`, and a loss that is not a number ends the run at once."""

    checkpoints: Checkpoints

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.checkpoints.save()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self.checkpoints.load_weights(Path(resume_from_checkpoint), self.model)  # type: ignore[attr-defined]

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One forward and backward pass.

        Raises:
            CheckFailed: the loss is not a number; the last checkpoint stays.
        """
        loss: torch.Tensor = super().training_step(*args, **kwargs)  # type: ignore[misc]
        if not torch.isfinite(loss).all():
            label, step = self.checkpoints.label, self.state.global_step + 1  # type: ignore[attr-defined]
            kept = next((f"; the checkpoint of step {_step(path)} is kept" for path in self.checkpoints.found()), "")
            raise CheckFailed(
                f"{label}: the loss is not a number at step {step}{kept}: lower {label}.lr in params.yaml and rerun with --fresh"
            )
        return loss


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
