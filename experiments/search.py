"""What makes nailseg-b0 good: short trainings from random weights that differ in one thing; validation Dice.

    python experiments/search.py ROOT OUT [--seeds 0 1] [--trials baseline mosaic ...]
        (ROOT: the photographs; OUT: a folder, resumed if there)

Six epochs at 128 px, evaluated at 192 px, all else as `scratch_b0.yaml` has it. A short run underfits: what
helps here helps a network to learn sooner, and what protects a long run from overfitting cannot show. The
spread of the baseline's seeds says which differences mean something.
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
EPOCHS = 6

Pair = tuple[Tensor, Tensor]  # images uint8 (N, 3, H, W) and masks int64 (N, H, W)


def one_hot(target: Tensor) -> Tensor:
    """float (N, 2, H, W); pixels to ignore are in neither class."""
    return torch.stack([target == 0, target == 1], 1).float()


def lovasz_over_batch(logits: Tensor, target: Tensor) -> Tensor:
    """As if the batch were one large image."""
    return lovasz_loss(logits.movedim(0, 1).flatten(1, 2)[None], target.flatten(0, 1)[None])


def focal(logits: Tensor, target: Tensor) -> Tensor:
    return 4 * FocalLoss(use_softmax=True, gamma=2.0)(logits, one_hot(target))


def tversky(logits: Tensor, target: Tensor) -> Tensor:
    """Missed nails cost 0.7, invented ones 0.3."""
    found = logits.softmax(1) * (target != IGNORE_INDEX)[:, None]
    return TverskyLoss(include_background=False, alpha=0.3, beta=0.7, batch=True)(found, one_hot(target))


def mosaic(images: Tensor, masks: Tensor) -> Pair:
    """Every other image made of quarters of four, at their own scale."""
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
    """The next image's nails pasted into every other image, at their places."""
    nails = masks.roll(1, 0) == 1
    nails[1::2] = False
    return images.where(~nails[:, None], images.roll(1, 0)), masks.where(~nails, 1)


def negatives(images: Tensor, masks: Tensor) -> Pair:
    """In two images of the batch a quarter without nails, enlarged to the whole; where there is one."""
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


class Distilled:
    """A model of the baseline's own kind says, besides the labels, how sure one may be of each pixel."""

    def __init__(self, folder: Path) -> None:
        self.teacher = open_network(str(folder), None, 0.0, "segformer").eval()

    def __call__(self, logits: Tensor, images: Tensor) -> Tensor:
        with torch.inference_mode():
            wanted = self.teacher(images).float().softmax(1)
        return F.cross_entropy(logits, wanted.clone())


class Trial:
    """What a trial does otherwise: options of the command line, another loss, other batches."""

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
    # what drawing costs: the same number of steps, all on photographs
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
    """Trains one as `nailseg fit` does."""
    asked = {
        "config": "scratch_b0.yaml",
        "data.size": 128,
        "trainer.max_epochs": EPOCHS,
        "trainer.check_val_every_n_epoch": EPOCHS,
        "trainer.logger": "false",
        "runs": out / "runs",
        "name": name,
    } | options
    args = [f"--{option}={value}" for option, value in asked.items()]
    assert nailseg(["fit", *args]) == 0


def train(trial: Trial, root: Path, out: Path, name: str, seed: int) -> float:
    """Trains one; Dice on the validation part, of the averaged weights after the last epoch."""
    run = out / "runs" / name
    if not (run / "model").exists():
        weights = "b0" if trial.start is None else out / "runs" / trial.start / "model"
        distilled = trial.teacher and Distilled(out / "runs" / trial.teacher / "model")
        seen: dict[str, Tensor] = {}

        def step(self: task.SegmentationTask, batch: Batch, batch_idx: int) -> Tensor:
            if trial.change:
                batch["image"], batch["mask"] = trial.change(batch["image"], batch["mask"])
            seen["image"] = batch["image"]
            return training_step(self, batch, batch_idx)

        def loss(logits: Tensor, target: Tensor, *weights: float) -> dict[str, Tensor]:
            if not torch.is_grad_enabled():  # validation's, the same for all
                return segmentation_loss(logits, target, *weights)
            parts = [each(logits, target) for each in trial.losses]
            if distilled:
                parts.append(distilled(logits, seen["image"]))
            return {"loss": torch.stack(parts).sum()}

        training_step = task.SegmentationTask.training_step
        task.SegmentationTask.training_step, task.segmentation_loss = step, loss
        own = dict(option.split("=") for option in trial.options)
        try:
            where = {"data.csv": SPLIT, "data.root": root, "data.eval_size": 192}
            fit(out, name, **where, **{"model.weights": weights, "seed_everything": seed, **own})
        finally:
            task.SegmentationTask.training_step, task.segmentation_loss = training_step, segmentation_loss
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row["val/dice_nail"]) for row in csv.DictReader(file) if row.get("val/dice_nail")][-1]


def draw_first(out: Path) -> None:
    """A network trained on as many drawn hands, for as long: what `drawn hands first` starts from."""
    drawn = out / "sample"
    if not drawn.exists():
        assert nailseg(["sample", str(drawn), "--count", "2156"]) == 0
        assert nailseg(["index", str(drawn), "--val", "0.05", "--test", "0", "--no-near-duplicates"]) == 0
    if not (out / "runs" / "drawn" / "model").exists():
        fit(out, "drawn", **{"data.csv": drawn / "nails.csv"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--trials", nargs="+", default=list(TRIALS), choices=list(TRIALS), metavar="NAME")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.trials:
        trial, found = TRIALS[name], []
        if trial.start:
            draw_first(options.out)
        for seed in options.seeds:
            run = f"{name.replace(' ', '-').lower()}-{seed}"
            found.append(train(trial, options.root, options.out, run, seed))
        print(
            f"| {name} | {', '.join(f'{dice:.3f}' for dice in found)} | {statistics.mean(found):.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
