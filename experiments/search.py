"""Ablations for nailseg-b0: short trainings from random weights with one difference each; validation Dice.

    python experiments/search.py ROOT OUT [--seeds 0 1] [--trials baseline mosaic ...]
        (ROOT: the photographs; OUT: a folder; an existing one is resumed)

Six epochs at 128 px, evaluated at 192 px, everything else as in `scratch_b0.yaml`. A short run underfits,
so it shows what makes learning faster, but not what prevents overfitting in a long run. Compare differences
with the spread of the baseline's seeds.
"""

import argparse
import csv
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from monai.losses import FocalLoss, TverskyLoss
from torch import Tensor
from torch.nn import functional as F

from nailseg.checkpoints.model_folder import open_network
from nailseg.cli.main import main as nailseg
from nailseg.training import task
from nailseg.training.losses import cross_entropy, lovasz_loss, segmentation_loss, soft_dice_loss
from nailseg.types import IGNORE_INDEX, Batch

SPLIT = Path(__file__).parent / "nailseg_b0_split.csv"
# the split of the shipped weights is kept; the pair (train 3/1389.jpg, val 4/7_1.jpg) is not in the test part
ALLOW = "[near-duplicate-split]"
EPOCHS = 6

Pair = tuple[Tensor, Tensor]  # images uint8 (N, 3, H, W) and masks int64 (N, H, W)


def one_hot(target: Tensor) -> Tensor:
    """Returns float (N, 2, H, W); ignored pixels are in neither class."""
    return torch.stack([target == 0, target == 1], 1).float()


def lovasz_over_batch(logits: Tensor, target: Tensor) -> Tensor:
    """The Lovász loss of the batch as one large image."""
    return lovasz_loss(logits.movedim(0, 1).flatten(1, 2)[None], target.flatten(0, 1)[None])


def focal(logits: Tensor, target: Tensor) -> Tensor:
    return 4 * FocalLoss(use_softmax=True, gamma=2.0)(logits, one_hot(target))


def tversky(logits: Tensor, target: Tensor) -> Tensor:
    """The Tversky loss with weight 0.7 for misses and 0.3 for false alarms."""
    probability = logits.softmax(1) * (target != IGNORE_INDEX)[:, None]
    return TverskyLoss(include_background=False, alpha=0.3, beta=0.7, batch=True)(
        probability, one_hot(target)
    )


def mosaic(images: Tensor, masks: Tensor) -> Pair:
    """Replaces three quarters of every other image by quarters of the following images, without resizing."""
    half = images.shape[-1] // 2
    images_of, masks_of = images.clone(), masks.clone()
    for number in range(0, len(images), 2):
        for quarter in range(1, 4):
            other = (number + quarter) % len(images)
            rows = slice(half * (quarter // 2), half * (quarter // 2 + 1))
            columns = slice(half * (quarter % 2), half * (quarter % 2 + 1))
            images_of[number, :, rows, columns] = images[other, :, rows, columns]
            masks_of[number, rows, columns] = masks[other, rows, columns]
    return images_of, masks_of


def copy_paste(images: Tensor, masks: Tensor) -> Pair:
    """Pastes the previous image's nails into every other image, at the same positions."""
    nails = masks.roll(1, 0) == 1
    nails[1::2] = False
    return images.where(~nails[:, None], images.roll(1, 0)), masks.where(~nails, 1)


def negatives(images: Tensor, masks: Tensor) -> Pair:
    """Replaces up to two images of the batch by one of their quarters without nails, upsampled."""
    half, left = images.shape[-1] // 2, 2
    images, masks = images.clone(), masks.clone()
    for number in range(len(images)):
        for rows in (slice(half), slice(half, None)):
            for columns in (slice(half), slice(half, None)):
                if left and (masks[number] == 1).any() and not (masks[number, rows, columns] == 1).any():
                    quarter = images[number : number + 1, :, rows, columns].float()
                    images[number] = F.interpolate(quarter, scale_factor=2, mode="bilinear")[0].to(
                        torch.uint8
                    )
                    known = masks[number, rows, columns].repeat_interleave(2, 0)
                    masks[number] = known.repeat_interleave(2, 1)
                    left -= 1
    return images, masks


class Distillation:
    """A distillation loss: cross-entropy with the probabilities of a trained model."""

    def __init__(self, folder: Path) -> None:
        self.teacher = open_network(str(folder), None, 0.0, "segformer").eval()

    def __call__(self, logits: Tensor, images: Tensor) -> Tensor:
        with torch.inference_mode():
            probability = self.teacher(images).float().softmax(1)
        return F.cross_entropy(logits, probability.clone())


class Trial:
    """The difference of a trial: options of the command line, loss, or change of the batches."""

    def __init__(
        self,
        *options: str,
        losses: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (cross_entropy, soft_dice_loss),
        change: Callable[[Tensor, Tensor], Pair] | None = None,
        start: str | None = None,
        teacher: str | None = None,
    ) -> None:
        self.options, self.losses, self.change = options, losses, change
        self.start, self.teacher = start, teacher


TRIALS = {
    "baseline": Trial(),
    "cross-entropy alone": Trial(losses=(cross_entropy,)),
    "cross-entropy and Lovász": Trial(losses=(cross_entropy, lovasz_loss)),
    "cross-entropy and Lovász over the batch": Trial(losses=(cross_entropy, lovasz_over_batch)),
    "cross-entropy, Dice and Lovász": Trial(losses=(cross_entropy, soft_dice_loss, lovasz_loss)),
    "focal and Dice": Trial(losses=(focal, soft_dice_loss)),
    "cross-entropy and Tversky": Trial(losses=(cross_entropy, tversky)),
    "mosaic": Trial(change=mosaic),
    "copy-paste": Trial(change=copy_paste),
    "background-only negatives": Trial(change=negatives),
    "drawn hands first": Trial(start="drawn"),
    # the same number of steps as drawn hands first, all on photographs
    "twice as long": Trial(
        f"trainer.max_epochs={2 * EPOCHS}", f"trainer.check_val_every_n_epoch={2 * EPOCHS}"
    ),
    "self-distillation": Trial(teacher="baseline-0"),
    "learning rate 1.2e-3": Trial("model.lr=1.2e-3"),
    "warm-up over a fifth": Trial("model.warmup=0.2"),
    "drop path 0.1": Trial("model.drop_path=0.1"),
    "averaging 0.99": Trial("ema_decay=0.99"),
    "scale 0.4 to 2": Trial("data.augmentation.scale=[0.4,2.0]"),
    "no change of colour and light": Trial("data.augmentation.light=0", "data.augmentation.color=0"),
}


def fit(out: Path, name: str, **options: object) -> None:
    """Runs `nailseg fit`."""
    values = {
        "config": "scratch_b0.yaml",
        "data.size": 128,
        "trainer.max_epochs": EPOCHS,
        "trainer.check_val_every_n_epoch": EPOCHS,
        "trainer.logger": "false",
        "runs": out / "runs",
        "name": name,
    } | options
    args = [f"--{option}={value}" for option, value in values.items()]
    assert nailseg(["fit", *args]) == 0


def train(trial: Trial, root: Path, out: Path, name: str, seed: int) -> float:
    """Runs a trial; returns validation Dice of the averaged weights after the last epoch."""
    run = out / "runs" / name
    if not (run / "model").exists():
        weights = "b0-random" if trial.start is None else out / "runs" / trial.start / "model"
        distillation = trial.teacher and Distillation(out / "runs" / trial.teacher / "model")
        current: dict[str, Tensor] = {}  # images of the batch, for the loss

        def step(self: task.SegmentationTask, batch: Batch, batch_idx: int) -> Tensor:
            if trial.change:
                batch["image"], batch["mask"] = trial.change(batch["image"], batch["mask"])
            current["image"] = batch["image"]
            return training_step(self, batch, batch_idx)

        def loss(logits: Tensor, target: Tensor, *weights: float) -> dict[str, Tensor]:
            if not torch.is_grad_enabled():  # the validation loss is the same for all trials
                return segmentation_loss(logits, target, *weights)
            parts = [each(logits, target) for each in trial.losses]
            if distillation:
                parts.append(distillation(logits, current["image"]))
            return {"loss": torch.stack(parts).sum()}

        training_step = task.SegmentationTask.training_step
        task.SegmentationTask.training_step, task.segmentation_loss = step, loss
        own = dict(option.split("=") for option in trial.options)
        try:
            data = {"data.csv": SPLIT, "data.root": root, "data.allow": ALLOW, "data.eval_size": 192}
            fit(out, name, **data, **{"model.weights": weights, "seed_everything": seed, **own})
        finally:
            task.SegmentationTask.training_step, task.segmentation_loss = training_step, segmentation_loss
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row["val/dice_nail"]) for row in csv.DictReader(file) if row.get("val/dice_nail")][-1]


def draw_first(out: Path) -> None:
    """Trains a network on the same number of drawn hands and steps, for the trial `drawn hands first`."""
    drawn = out / "sample"
    if not drawn.exists():
        assert nailseg(["sample", str(drawn), "--count", "2156"]) == 0
        assert nailseg(["index", str(drawn), "--val", "0.05", "--test", "0", "--no-near-duplicates"]) == 0
    if not (out / "runs" / "drawn" / "model").exists():
        fit(out, "drawn", **{"data.csv": drawn / "dataset.csv"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--trials", nargs="+", default=list(TRIALS), choices=list(TRIALS), metavar="NAME")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.trials:
        trial, results = TRIALS[name], []
        if trial.start:
            draw_first(options.out)
        for seed in options.seeds:
            run = f"{name.replace(' ', '-').lower()}-{seed}"
            results.append(train(trial, options.root, options.out, run, seed))
        print(
            f"| {name} | {', '.join(f'{dice:.3f}' for dice in results)} | {statistics.mean(results):.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
