"""Stops a training within one step after a signal, and lets it continue exactly where it stopped.

The checkpoint that is written then lies in the middle of an epoch. Besides what Lightning keeps, it has each
process's random state and sums of training losses; the data's order and augmentation need no state, because
they follow from seed, epoch and row (`data.samplers`).
"""

import math
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from nailseg.training.callbacks import AveragedWeights
from nailseg.training.task import SegmentationTask
from nailseg.types import STOP_SIGNALS

REPEATED = 1.0
"""Seconds within which a second signal is the first again: scheduler and parent process may both send it."""
STATE_KEY = "nailseg_processes"
"""Of a checkpoint: the state of each process, by rank."""


class StopOnSignal(Callback):
    """Ends a training with exit code 128 + signal, after a step and a checkpoint; a second signal at once.

    In an epoch's validation the checkpoint is that of the epoch's last step, and validation begins again;
    with several processes the validation is finished first. While gradients accumulate nothing is saved,
    because they are no part of a checkpoint.

    Args:
        path: the checkpoint to write.

    Attributes:
        has_begun: whether the first batch is near: the checkpoint to continue, if any, was restored.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._number, self._received, self._step = 0, 0.0, 0
        self.has_begun = False
        self._states: list[dict[str, Any]] = []

    def _receive(self, number: int, _: object) -> None:
        if self._number and time.monotonic() - self._received > REPEATED:
            sys.exit(128 + number)
        if not self._number:
            self._number, self._received = number, time.monotonic()

    def _take_over(self) -> None:
        """Takes the signals over from Lightning, which registers its own when the training begins."""
        self.has_begun = True
        for number in STOP_SIGNALS:
            signal.signal(number, self._receive)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: SegmentationTask) -> None:
        """Takes the signals over before the first validation batches."""
        self._take_over()

    def on_train_start(self, trainer: Trainer, pl_module: SegmentationTask) -> None:
        """Takes the signals over, and restores the state of the checkpoint that is continued."""
        self._take_over()
        self._step = trainer.global_step
        if self._states:
            state, device = self._states[trainer.global_rank], trainer.strategy.root_device
            torch.set_rng_state(state["cpu"])
            if "cuda" in state and device.type == "cuda":
                torch.cuda.set_rng_state(state["cuda"], device)
            pl_module.train_sums = {name: total.to(device) for name, total in state["sums"].items()}
            self._states = []

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: SegmentationTask, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the state of each process, which all take part."""
        sums = {name: total.cpu() for name, total in pl_module.train_sums.items()}
        own, device = {"cpu": torch.get_rng_state(), "sums": sums}, trainer.strategy.root_device
        if device.type == "cuda":
            own["cuda"] = torch.cuda.get_rng_state(device)
        checkpoint[STATE_KEY] = [own] * trainer.world_size
        if trainer.world_size > 1:
            dist.all_gather_object(checkpoint[STATE_KEY], own)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: SegmentationTask, checkpoint: dict[str, Any]
    ) -> None:
        """Keeps the states for `on_train_start`; another number of processes cannot continue exactly."""
        states = checkpoint.get(STATE_KEY, [])
        self._states = states if len(states) == trainer.world_size else []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: SegmentationTask) -> None:
        """Stops between two epochs, where last.ckpt was just written."""
        if number := self._agreed(trainer):
            sys.exit(128 + number)

    def on_train_end(self, trainer: Trainer, pl_module: SegmentationTask) -> None:
        """Stops after the last epoch, as between two."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: SegmentationTask, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves and stops after an optimizer step, unless validation or the epoch's end comes next."""
        has_stepped, self._step = trainer.global_step > self._step, trainer.global_step
        interval = trainer.val_check_batch or math.inf
        precedes_validation = interval < math.inf and (batch_idx + 1) % interval == 0
        number = self._agreed(trainer)
        if number and has_stepped and not precedes_validation and not trainer.is_last_batch:
            trainer.save_checkpoint(self.path)
            sys.exit(128 + number)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: SegmentationTask, *_: Any) -> None:
        """Stops in a validation; the checkpoint is that of the step before it."""
        if not self._number or trainer.world_size > 1 or trainer.state.fn != TrainerFn.FITTING:
            return
        if not trainer.sanity_checking:
            for callback in trainer.callbacks:
                if isinstance(callback, AveragedWeights):
                    callback.on_validation_epoch_end(trainer, pl_module)  # the training's weights are back
            progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
            for tracker in (progress.current, progress.total):
                tracker.reset()
                tracker.ready = tracker.started = 1  # Lightning's mark of a validation that begins again
            trainer.save_checkpoint(self.path)
        sys.exit(128 + self._number)

    def _agreed(self, trainer: Trainer) -> int:
        """The signal that any of the processes has received, or 0."""
        if trainer.world_size == 1:
            return self._number
        number = torch.tensor(self._number, device=trainer.strategy.root_device)
        dist.all_reduce(number, dist.ReduceOp.MAX)
        return int(number)
