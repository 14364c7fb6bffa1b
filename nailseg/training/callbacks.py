"""Callbacks of a training run: averaged weights, checkpoints, validation images, the table of the epochs."""

import io
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import (
    Callback,
    Checkpoint,
    ModelCheckpoint,
    TQDMProgressBar,
    WeightAveraging,
)
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from nailseg.files import write_atomically
from nailseg.imaging import overlay
from nailseg.training.task import SegmentationTask
from nailseg.types import Batch

MAX_SIDE = 1024
"""Longest side of a drawn validation image, in pixels."""


class AveragedWeights(WeightAveraging):
    """Exponential moving average of weights and buffers; validation, checkpoints and the model folder use it.

    The decay after n updates is min(decay, (1 + n) / (10 + n)), as in TensorFlow's ExponentialMovingAverage,
    so that a short run forgets its random start too. Lightning's EMAWeightAveraging has a constant decay.

    Args:
        decay: its final value, 0..1.
    """

    def __init__(self, decay: float = 0.999) -> None:
        self.decay = decay
        super().__init__(use_buffers=True, multi_avg_fn=self._average)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Moves the average to the network's device: Lightning creates it before it moves the network."""
        assert self._average_model is not None
        self._average_model.to(pl_module.device)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Swaps the average in during fit; afterwards the network already holds the tested weights."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Swaps the training weights back in."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_end(trainer, pl_module)

    def _average(self, averages: list[Tensor], currents: list[Tensor], n_averaged: Tensor) -> None:
        """Updates the averages in place, all tensors of a type together: single launches slow a GPU down."""
        if not averages[0].is_floating_point():
            torch._foreach_copy_(averages, currents)  # counters are copied, not averaged
            return
        n = n_averaged.item()
        torch._foreach_lerp_(averages, currents, 1 - min(self.decay, (1 + n) / (10 + n)))


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint under another name beside its target, then renames it.

    Lightning's own writes into TMPDIR first: moved to another file system, a checkpoint can be cut off.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Writes the checkpoint; raises `WriteError`, and keeps an existing one then."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_atomically(Path(path), content.getbuffer(), durable=True)


class RunCheckpoint(ModelCheckpoint):
    """One checkpoint file of a run, which also works after the run's folder was moved.

    Lightning drops the best score when the folder has another name than at the time of saving; a resumed run
    would then overwrite its best checkpoint with the first worse one. Lightning's own last.ckpt (`save_last`)
    is written only with the best one; a resumed run would begin at the best epoch.

    Args:
        folder: the run's checkpoints.
        name: file name without .ckpt.
        monitor: the logged number to follow, larger is better, saved after validation; None saves each epoch.
    """

    def __init__(self, folder: Path, name: str, monitor: str | None = None) -> None:
        super().__init__(
            folder,
            name,
            monitor,
            mode="max",
            save_on_train_epoch_end=not monitor,
            enable_version_counter=False,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the score if its file exists; a new run from another run's checkpoint has no score."""
        path = os.path.join(self.dirpath, os.path.basename(state_dict["best_model_path"]))
        if os.path.isfile(path):
            moved = {"dirpath": self.dirpath, "best_model_path": path, "kth_best_model_path": path}
            best = dict(zip([path], state_dict["best_k_models"].values(), strict=False))  # none or one
            super().load_state_dict(state_dict | moved | {"best_k_models": best})


class ValidateLastEpoch(Callback):
    """Validates after the last epoch too, which `check_val_every_n_epoch` may skip: it may be the best."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch + 1 == trainer.max_epochs and trainer.check_val_every_n_epoch is not None:
            trainer.check_val_every_n_epoch = 1


class ProgressBar(TQDMProgressBar):
    """Lightning's bar without the W&B run's id."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        return {name: value for name, value in metrics.items() if name != "v_num"}


class ValidationImages(Callback):
    """Draws the same validation images after every epoch: image, truth, prediction.

    Args:
        folder: where `epoch_000.png`, … go.
        count: how many images, spread over the validation set.
        to_wandb: also log them to W&B with masks and class names; photographs leave the machine then.
    """

    def __init__(self, folder: Path, count: int = 6, to_wandb: bool = False) -> None:
        self.folder, self.count, self.to_wandb = folder, count, to_wandb
        self._samples: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: SegmentationTask, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Keeps the first image of every chosen batch; of a large one every n-th pixel."""
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        chosen = batch_idx % max(1, int(trainer.num_val_batches[0]) // self.count) == 0
        if fitting and chosen and trainer.is_global_zero and len(self._samples) < self.count:
            height, width = batch["valid_size"][0].tolist()
            step = math.ceil(max(height, width) / MAX_SIDE)
            image = batch["image"][0, :, :height:step, :width:step].permute(1, 2, 0)
            masks = (batch["mask"][0].byte(), outputs[0])
            shown = (image, *(mask[::step, ::step] for mask in masks))
            self._samples.append(tuple(np.ascontiguousarray(array.cpu().numpy()) for array in shown))

    def on_validation_end(self, trainer: Trainer, pl_module: SegmentationTask) -> None:
        if not self._samples:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        rows, layers = [], []
        for image, truth, prediction in self._samples:
            drawn = [image, overlay.draw_overlay(image, truth), overlay.draw_overlay(image, prediction)]
            rows.append(overlay.concat_horizontal(drawn))
            layers.append(overlay.wandb_masks(pl_module.class_names, truth=truth, prediction=prediction))
        path = self.folder / f"epoch_{trainer.current_epoch:03d}.png"
        overlay.write_png(path, overlay.concat_vertical(rows))
        for logger in trainer.loggers:
            if self.to_wandb and isinstance(logger, WandbLogger):
                logger.log_image("val/images", [image for image, _, _ in self._samples], masks=layers)
        self._samples = []


class MetricsTable(Checkpoint):
    """One row per epoch in the CSV file `path`; a resumed run continues the same file.

    A `Checkpoint`, because Lightning calls these after the task has logged the epoch's means. Lightning's
    CSVLogger deletes an existing file and writes an epoch as several half-empty rows.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._validated = path, False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds the epoch's row; validation has run by now."""
        if not trainer.is_global_zero:
            return
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row["lr"] = trainer.lr_scheduler_configs[0].scheduler.get_last_lr()[0]  # of the next step
        # Lightning keeps the numbers of the last validation; an epoch without one has none here
        kept = ("train/", "val/") if self._validated else "train/"
        metrics = sorted(trainer.callback_metrics.items())
        table = pd.DataFrame([row | {key: value.item() for key, value in metrics if key.startswith(kept)}])
        self._validated = False
        if self.path.exists():
            old = pd.read_csv(self.path, dtype=str, keep_default_na=False)  # as text: no digit changes
            # an epoch that is trained again after a resume replaces its old row
            table = pd.concat([old[old["epoch"].astype(int) < trainer.current_epoch], table])
        write_atomically(self.path, table.to_csv(index=False, lineterminator="\r\n").encode())
