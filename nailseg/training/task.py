"""SegmentationTask: loss, metrics and optimizer around a network. It does not import the data."""

import io
import math
import pickle
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torchmetrics import MeanMetric

from nailseg.checkpoints import model_folder
from nailseg.errors import ConfigError
from nailseg.imaging import geometry
from nailseg.inference.backends.as_module import open_module, probability_to_logits, read_module_info
from nailseg.inference.backends.torch import create_backend
from nailseg.inference.tiling import predict_tiled
from nailseg.metrics.calibration import best_threshold
from nailseg.metrics.confusion import ConfusionMatrix, class_index, dice, iou, mean_defined
from nailseg.metrics.image_counts import SURFACE_TOLERANCE, ImageCounts, count_images, summarize
from nailseg.models.registry import Architecture
from nailseg.training.losses import segmentation_loss
from nailseg.training.optim import group_schedule, parameter_groups, step_decay, warmup_poly, warmup_steps
from nailseg.types import Batch

MONITOR = "val/iou_foreground"
"""Checkpoints and early stopping follow it: IoU over all validation pixels, mean of the foreground."""


class SegmentationTask(LightningModule):
    """Fine-tunes a segmentation network.

    Logged: `train/loss` and its parts, `lr`; `val/iou_NAME`, `val/dice_NAME` (over all pixels of the
    validation set, at network size), `val/miou`, `val/iou_foreground`, `val/loss`; `test/…` and, after
    `validate`, `validate/…` are the numbers of metrics.json, at the masks' original size.

    Args:
        weights: Initial weights: a hub name (OpenGVLab/pvt_v2_b0 … b5: Apache-2.0; nvidia/mit-b0 … b5,
            nvidia/segformer-b*-…: non-commercial), a local folder in transformers' format, a model folder, a
            checkpoint, or b0-random … b5-random. efficientnet: lite0, lite1, lite2 (ImageNet), the same with
            -random, a model folder, a checkpoint. vit: vit-pet-random, vit-small-random (or
            vit-small-192-random for another size), a model folder, a checkpoint. auto: any segmentation
            network of transformers by hub name or folder, or upernet-convnext-tiny-random,
            mobilenetv2-deeplabv3-random.
        class_names: In index order, the first is the background; linked from data.classes on the command
            line.
        image_size: Pixels of the longer side in evaluation, with crop of a tile's side, for the model folder;
            linked from data.eval_size or data.size.
        resize: Keep, squash or crop; linked from data.resize. Recorded in the model folder.
        lr: Learning rate of the encoder at its peak; 6e-5 is the paper's for batches of 16.
        head_lr_multiplier: The decode head's learning rate over the encoder's.
        weight_decay: Weight decay of AdamW, on matrices and kernels only.
        warmup: Share of the run in which the learning rate increases (at most 1500 steps).
        power: Exponent of the polynomial decay to zero at the end of the run; 1.0 is linear.
        drop_path: Stochastic depth of the last encoder block, increasing linearly from the first.
        cross_entropy_weight: Weight of the cross-entropy in the loss.
        dice_weight: Weight of the soft Dice loss in the loss.
        lovasz_weight: Weight of the Lovász loss (Berman et al. 2018) in the loss.
        focal_weight: Weight of the focal loss (Lin et al. 2017) in the loss.
        focal_gamma: Exponent of the focal loss; 0 makes it the cross-entropy.
        freeze_encoder_epochs: Epochs at the beginning in which only the head is trained.
        surface_tolerance: Pixels an outline may be off in the test's surface Dice, at the masks' own size.
        name: The architecture. mix_transformer is SegFormer written from the paper, efficientnet a CNN with
            SegFormer's head, vit a plain ViT, auto any segmentation network of transformers. By default that
            of a model folder or checkpoint, and segformer for all other weights.
        schedule: Schedule of the learning rate: poly (the paper's, with warm-up) or step.
        step_epochs: Epochs between two steps of the step schedule.
        step_factor: Factor on the learning rate at each step.

    Attributes:
        network: Images uint8 or float (N, 3, H, W), 0..255, to logits (N, C, H, W).
        threshold: Foreground probability with the best validation Dice, for the model folder; None if none
            was chosen.
        summary: Numbers of metrics.json, after a test or validate.
        image_counts: The counts behind the summary, one row per image.
    """

    summary: dict[str, Any]
    image_counts: ImageCounts

    def __init__(
        self,
        weights: str = "b0-random",
        class_names: list[str] | None = None,
        image_size: int = 512,
        resize: geometry.Resize = "keep",
        lr: float = 6e-5,
        head_lr_multiplier: float = 10.0,
        weight_decay: float = 0.01,
        warmup: float = 0.05,
        power: float = 1.0,
        drop_path: float = 0.1,
        cross_entropy_weight: float = 1.0,
        dice_weight: float = 1.0,
        lovasz_weight: float = 0.0,
        focal_weight: float = 0.0,
        focal_gamma: float = 2.0,
        freeze_encoder_epochs: int = 0,
        surface_tolerance: float = SURFACE_TOLERANCE,
        name: Architecture | None = None,
        schedule: Literal["poly", "step"] = "poly",
        step_epochs: int = 12,
        step_factor: float = 0.8,
    ) -> None:
        super().__init__()
        self.loss_weights = {
            "cross_entropy_weight": cross_entropy_weight,
            "dice_weight": dice_weight,
            "lovasz_weight": lovasz_weight,
            "focal_weight": focal_weight,
        }
        self.focal_gamma = focal_gamma
        self.class_weights: Tensor | None = None  # of the data module; for cross-entropy and focal loss
        factors = {"lr": lr, "head_lr_multiplier": head_lr_multiplier, "weight_decay": weight_decay}
        factors |= {
            "power": power,
            "focal_gamma": focal_gamma,
            "surface_tolerance": surface_tolerance,
        } | self.loss_weights
        checks = [
            (name, value, 0 <= value <= 1e6, "a number from 0 to 1e6") for name, value in factors.items()
        ]
        checks += [
            ("drop_path", drop_path, 0 <= drop_path < 1, "a rate >= 0 and < 1"),
            ("warmup", warmup, 0 <= warmup <= 1, "a share of the run from 0 to 1"),
            ("freeze_encoder_epochs", freeze_encoder_epochs, freeze_encoder_epochs >= 0, "0 or more epochs"),
            ("step_epochs", step_epochs, step_epochs >= 1, "a number of epochs >= 1"),
            ("step_factor", step_factor, 0 < step_factor <= 1, "a factor > 0 and <= 1"),
        ]
        for option, value, valid, expected in checks:
            if not valid:
                raise ConfigError(f"--model.{option}: expected {expected}, found {value}.")
        if not any(self.loss_weights.values()):
            options = ", ".join(f"--model.{option}" for option in self.loss_weights)
            raise ConfigError(f"{options}: expected a weight above 0 for one of them, found 0 for all.")
        self.network = open_module(weights, class_names, drop_path, name)
        fixed = self.network.fixed_size
        if fixed and (image_size, resize) != (fixed, "squash"):
            raise ConfigError(
                f"--model.name {self.network.architecture}: expected squashed images of {fixed} x {fixed} "
                f"pixels, because its positions are learned; found size {image_size}, resize {resize}. Give "
                f"--data.size {fixed} --data.eval_size null --data.resize squash (from Python: image_size "
                "and resize)."
            )
        self.image_size, self.resize = image_size, resize
        self.lr, self.head_lr_multiplier, self.weight_decay = lr, head_lr_multiplier, weight_decay
        self.warmup, self.power = warmup, power
        self.schedule, self.step_epochs, self.step_factor = schedule, step_epochs, step_factor
        self.freeze_encoder_epochs, self.surface_tolerance = freeze_encoder_epochs, surface_tolerance
        known = read_module_info(weights)
        self.threshold = known.threshold if known else None
        self.val_counts = ConfusionMatrix(len(self.class_names))
        # torchmetrics would leave nan out of the mean; inf stays until the check at the epoch's end
        self.val_loss = MeanMetric(nan_strategy=math.inf)
        # images, and each loss times images, of this process and epoch; not Lightning's own means, which a
        # checkpoint in the middle of an epoch would lose
        self.train_sums: dict[str, Tensor] = {}
        self.data_facts: dict[str, Any] = {}
        self._counts: io.BytesIO | None = None

    @property
    def class_names(self) -> list[str]:
        """Names in index order; the first is the background."""
        return self.network.class_names

    def info(self, **facts: Any) -> model_folder.ModelInfo:
        """The model's nailseg.json; `facts` are further fields of `ModelInfo`."""
        own = {"image_size": self.image_size, "resize": self.resize, "threshold": self.threshold}
        return model_folder.describe_network(self.network, **own, **self.data_facts | facts)

    def forward(self, image: Tensor) -> Tensor:
        """Images uint8 or float (N, 3, H, W), 0..255, to logits float (N, C, H, W)."""
        return self.network(image)

    def _step(self, batch: Batch, restore: bool) -> tuple[dict[str, Tensor], Tensor]:
        """Losses and logits (N, C, H', W') at the mask's size; one step for all stages."""
        if restore and self.resize == "crop":
            logits = self._tiled_logits(batch["image"])
        else:
            logits = self(batch["image"]).float()
            if restore:
                height, width = batch["valid_size"][0].tolist()  # equal throughout a batch
                logits = geometry.restore_logits(logits, (height, width), batch["mask"].shape[-2:])
        weights = None if self.class_weights is None else self.class_weights.to(logits.device)
        options = {"focal_gamma": self.focal_gamma, "class_weights": weights}
        return segmentation_loss(logits, batch["mask"], **self.loss_weights, **options), logits

    def _tiled_logits(self, images: Tensor) -> Tensor:
        """Logits of blended tiles, as prediction makes them: uint8 (N, 3, H, W) to float32 (N, C, H, W)."""
        backend = create_backend(self.network, self.info(), self.device)
        arrays = images.permute(0, 2, 3, 1).cpu().numpy()
        probability = np.stack([predict_tiled(backend, image)[1] for image in arrays])
        return probability_to_logits(probability).to(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch, float32 scalar."""
        losses, _ = self._step(batch, restore=False)
        interval = self.trainer.log_every_n_steps
        # not at every step, which would wait for the GPU; a nan in the weights stays there
        if self.trainer.is_last_batch or (interval and (batch_idx + 1) % interval == 0):
            self._require_finite("training", losses["loss"].item())
        for name, loss in (losses | {"images": torch.ones_like(losses["loss"])}).items():
            total = loss.detach() * len(batch["mask"])
            self.train_sums[name] = self.train_sums[name] + total if name in self.train_sums else total
        self.log("loss", losses["loss"], prog_bar=True, logger=False)  # loggers have train/loss
        self.log("lr", self.lr_schedulers().get_last_lr()[0])
        return losses["loss"]

    def on_train_start(self) -> None:
        """Reads on from where a checkpoint was written: Lightning's workers begin before it is loaded."""
        if self.trainer.fit_loop.restarting:
            iter(self.trainer.fit_loop._data_fetcher)

    def on_train_epoch_start(self) -> None:
        """Resets the sums of the losses; an epoch that continues keeps those of its checkpoint."""
        self.train_sums = {}

    def on_train_epoch_end(self) -> None:
        """Logs the means of the epoch's losses over all images and processes."""
        sums = {name: self.trainer.strategy.reduce(s, reduce_op="sum") for name, s in self.train_sums.items()}
        images = sums.pop("images", 0)
        self.log_dict({f"train/{name}": total / images for name, total in sums.items()}, sync_dist=True)

    def _require_finite(self, kind: str, loss: float) -> None:
        """Stops a run that has diverged, before a checkpoint is written."""
        if not math.isfinite(loss):
            raise ConfigError(
                f"epoch {self.current_epoch}: expected a finite {kind} loss, found {loss}. The training has "
                f"diverged, or its first weights are broken: start again with a lower --model.lr (now "
                f"{self.lr:g}) or other --model.weights. Checkpoints of earlier epochs are unchanged."
            )

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Counts at the masks' size: the network's during fit, the file's own in `validate`.

        Returns:
            During fit the predicted masks (N, H, W), class index.
        """
        if self.trainer.state.fn != TrainerFn.FITTING:
            self.test_step(batch, batch_idx)
            return None
        losses, logits = self._step(batch, restore=True)
        # Metric objects and not self.log: a process without any batch must take part in the reduction too
        self.val_loss.update(losses["loss"], len(batch["mask"]))
        prediction = class_index(logits)
        self.val_counts.update(prediction, batch["mask"])
        return prediction

    def on_validation_epoch_end(self) -> None:
        """Logs the ratios of the counts, foreground first; in `validate` the numbers of the report."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            self._log_summary("validate")  # not val/: those are measured at the network's size
            return
        loss, matrix = self.val_loss.compute(), self.val_counts.compute()
        self._require_finite("validation", loss.item())
        ious, dices = iou(matrix), dice(matrix)
        for c, name in enumerate(self.class_names[1:], start=1):
            if not ious[c].isnan():
                scores = {f"val/iou_{name}": ious[c].item(), f"val/dice_{name}": dices[c].item()}
                self.log_dict(scores, prog_bar=True, sync_dist=True)
        means = {"val/miou": mean_defined(ious), MONITOR: mean_defined(ious[1:])}
        self.log_dict(means | {"val/loss": loss}, sync_dist=True)
        self.val_counts.reset()
        self.val_loss.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Counts on each image at its mask's original size, in float32."""
        with torch.autocast(self.device.type, enabled=False):
            _, logits = self._step(batch, restore=True)
        counts = count_images(logits, batch["mask"], batch["row"], self.surface_tolerance)
        pickle.dump(counts, self._counts)

    def on_test_epoch_end(self) -> None:
        self._log_summary("test")

    def _log_summary(self, stage: str) -> None:
        parts, buffer, self._counts = [], self._counts, None
        assert buffer is not None
        buffer.seek(0)
        with suppress(EOFError):
            while True:
                parts.append(pickle.load(buffer))
        self.image_counts = gather(parts)
        self.summary = summarize(self.image_counts, self.class_names)
        ratios = {f"{stage}/{k}": value for k, value in self.summary.items() if isinstance(value, float)}
        self.log_dict(ratios, sync_dist=True)

    def on_validation_epoch_start(self) -> None:
        """Resets the counts, and lets processes validate unequal numbers of images."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            self.on_test_epoch_start()
        # DistributedDataParallel broadcasts buffers (batch norm's statistics) before every forward pass, in
        # evaluation too, where the others would wait for a process that has no images left. Here they are
        # sent once; averaged weights are already in place, so every process validates the same network.
        if isinstance(self.trainer.strategy.model, DistributedDataParallel):
            for buffer in self.buffers():
                dist.broadcast(buffer, src=0)
            self.trainer.strategy.model.require_forward_param_sync = False

    def on_validation_end(self) -> None:
        """Restores the broadcast of training."""
        if isinstance(self.trainer.strategy.model, DistributedDataParallel):
            self.trainer.strategy.model.require_forward_param_sync = True

    def on_test_epoch_start(self) -> None:
        """Resets the counts, which are kept as bytes in one buffer until the epoch's end."""
        # small arrays that stay between large ones that are freed would fragment the heap, by half a megabyte
        # an image
        self._counts = io.BytesIO()

    def choose_threshold(self) -> None:
        """Chooses the threshold with the best Dice in the last validation; two classes only."""
        best = best_threshold(self.image_counts.histogram[0]) if len(self.class_names) == 2 else None
        self.threshold = best and best[0]

    def setup(self, stage: str) -> None:
        """Compares the model with the data module: ConfigError where classes, resizing or size differ."""
        facts = [
            ("class_names", self.class_names, "class_names", "--data.classes"),
            ("resize", self.resize, "resize", "--data.resize"),
        ]
        if stage == "fit":  # a model may be measured at another size than the one it is saved for
            facts.append(("image_size", self.image_size, "eval_size", "--data.eval_size"))
        for argument, found, attribute, option in facts:
            expected = getattr(self.trainer.datamodule, attribute, found)
            if found != expected:
                raise ConfigError(
                    f"expected the same {argument} in data and model, found {expected} in the data and "
                    f"{found} in the model. From Python give the task {argument}=data.{attribute}; or change "
                    f"{option}."
                )

    def on_fit_start(self) -> None:
        """Stores the data module's facts for the model folder, without importing the data."""
        self.threshold = None  # the threshold of the first weights does not hold for the trained ones
        facts = getattr(self.trainer.datamodule, "facts", None)
        self.data_facts = facts() if facts else {}
        weights = getattr(self.trainer.datamodule, "class_weights", None)
        self.class_weights = None if weights is None else torch.tensor(weights)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW (without weight decay: Adam) with the paper's groups and a per-step schedule over the run."""
        optimizer = torch.optim.AdamW(self._parameter_groups(), lr=self.lr)
        total = self.trainer.estimated_stepping_batches
        if total == math.inf:
            raise ConfigError(
                "expected --trainer.max_epochs or --trainer.max_steps, found neither. The learning rate "
                "decays over the run, so its length must be known."
            )
        self.trainer.fit_loop.setup_data()  # the estimate creates the loader only if there is no --max_steps
        per_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        frozen = per_epoch * self.freeze_encoder_epochs
        if self.schedule == "poly":
            warmup = warmup_steps(int(total), self.warmup)
            factor = partial(warmup_poly, total=int(total), warmup=warmup, power=self.power)
        else:
            factor = partial(step_decay, period=per_epoch * self.step_epochs, factor=self.step_factor)
        # not requires_grad=False: DDP decides once which gradients it exchanges
        scheduler = group_schedule(optimizer, factor, frozen)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def save(self, folder: str | Path, **facts: Any) -> Path:
        """Writes the model folder; `facts` are further fields of `ModelInfo`.

        Raises:
            OutputError: the folder exists.
        """
        return model_folder.save_model_folder(folder, self.network, self.info(**facts))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Makes the checkpoint complete: network config, class names, preprocessing."""
        checkpoint[model_folder.CHECKPOINT_KEY] = model_folder.checkpoint_metadata(self.network, self.info())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Makes learning rate and weight decay those of this call; torch would take the checkpoint's."""
        groups = self._parameter_groups()
        for optimizer in checkpoint.get("optimizer_states", ()):
            for stored, group in zip(optimizer["param_groups"], groups, strict=True):
                if stored["initial_lr"] != group["lr"]:  # else not a bit changes
                    share = stored["lr"] / stored["initial_lr"] if stored["initial_lr"] else 1.0
                    stored["lr"] = share * group["lr"]
                stored |= {"initial_lr": group["lr"], "weight_decay": group["weight_decay"]}
        for schedule in checkpoint.get("lr_schedulers", ()):
            schedule["base_lrs"] = [group["lr"] for group in groups]

    def _parameter_groups(self) -> list[dict[str, Any]]:
        return parameter_groups(self.network, self.lr, self.weight_decay, self.head_lr_multiplier)


def gather(parts: list[ImageCounts]) -> ImageCounts:
    """Joins the counts of all processes, which may have unequal numbers, in the manifest's order."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        everyone: list[list[ImageCounts]] = [[]] * dist.get_world_size()
        dist.all_gather_object(everyone, parts)
        parts = list(chain.from_iterable(everyone))
    return ImageCounts.concatenate(parts)
