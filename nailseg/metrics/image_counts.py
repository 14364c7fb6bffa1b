"""Counts of single images, the ratios that follow from them, and bootstrap intervals.

Each image is reduced to integer counts. The numbers of a set, of a slice, of a bootstrap resample and of
`nailseg compare` come from the same formulas (`class_ratios`), and no order of images, batches or processes
changes them. Throughout, `class_names` are C names of which the first is the background, and `weights` are
int64 (R, N): how often each of N images counts in each of R weightings. One row of ones gives the numbers of
the set; a row of a bootstrap resample says how often each image was drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from nailseg.errors import WeightsError
from nailseg.metrics.boundary import count_outlines
from nailseg.metrics.calibration import probability_histogram
from nailseg.metrics.confusion import class_index, confusion_matrix, iou, none_if_nan
from nailseg.metrics.instances import Instances, average_precisions, best_f1, match_instances

SURFACE_TOLERANCE = 2.0  # pixels an outline may be off for the surface Dice, at the masks' own size
RESAMPLES = 1000  # bootstrap samples of every interval
LEVEL = 0.95  # share of the bootstrap values inside an interval
LEVEL_TEXT = f"{100 * LEVEL:g} %"
N_CHUNKS = 10  # equal parts of the resamples, computed one after the other to limit the memory
CLASS_COUNTS = ("hits", "false_alarms", "misses", "boundary_hits", "boundary_union")
CLASS_COUNTS += ("surface_hits", "surface_total", "objects", "objects_found", "objects_wrong")
"""The K counts of one foreground class in one image, which are columns of per_image.csv."""


@dataclass(frozen=True)
class ImageCounts:
    """The counts of each image of a set, in the manifest's order.

    Attributes:
        row: int64 (N,), position of the image among the split's rows.
        matrix: int64 (N, C, C), as `confusion_matrix`.
        outlines: int64 (N, C, 4), as `count_outlines`.
        instances: per image a list with one `Instances` for each foreground class.
        histogram: int64 (C - 1, 256, 2), as `probability_histogram`, summed over the images; zeros for a part
            of a set.
    """

    row: Tensor
    matrix: Tensor
    outlines: Tensor
    instances: list[list[Instances]]
    histogram: Tensor

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Joins the parts of batches or processes and sorts them by row."""
        joined = cls(
            torch.cat([part.row for part in parts]),
            torch.cat([part.matrix for part in parts]),
            torch.cat([part.outlines for part in parts]),
            [image for part in parts for image in part.instances],
            torch.stack([part.histogram for part in parts]).sum(0),
        )
        return replace(joined.select(joined.row.argsort()), histogram=joined.histogram)

    def select(self, positions: Sequence[int]) -> Self:
        """The images at some positions, in that order."""
        chosen = torch.as_tensor(positions, dtype=torch.int64)
        instances = [self.instances[n] for n in chosen.tolist()]
        tensors = self.row[chosen], self.matrix[chosen], self.outlines[chosen]
        return type(self)(*tensors, instances, torch.zeros_like(self.histogram))


def count_images(
    logits: Tensor, target: Tensor, row: Tensor, tolerance: float = SURFACE_TOLERANCE
) -> ImageCounts:
    """Counts a batch at the masks' original size.

    Args:
        logits: float32 (N, C, H, W), enlarged to the masks' size; argmax comes after that.
        target: integer (N, H, W), class index or 255 (not counted).
        row: int64 (N,), positions of the images among the split's rows.
        tolerance: of the surface Dice, in pixels.

    Raises:
        WeightsError: a logit is nan or infinite; its argmax would be mistaken for a prediction.

    >>> target = torch.zeros(1, 8, 8, dtype=torch.int64)
    >>> target[0, :2] = 1
    >>> logits = torch.stack([1.0 - target, target], dim=1)
    >>> summarize(count_images(logits, target, torch.arange(1)), ["background", "nail"])["iou_nail"]
    1.0
    """
    if not logits.sum().isfinite():  # nan and inf reach the sum, at a fraction of isfinite's cost
        raise WeightsError(
            f"rows {row.tolist()} of the split: expected finite logits, found nan or infinite ones. The "
            "network has diverged: test an earlier checkpoint, or train again with a lower --model.lr."
        )
    prediction, n_classes = class_index(logits), logits.shape[1]
    # two classes: the difference alone decides, at half the exponentials of a softmax
    probability = (logits[:, 1:] - logits[:, :1]).sigmoid() if n_classes == 2 else logits.softmax(1)[:, 1:]
    histograms = [probability_histogram(probability[:, c - 1], target, c) for c in range(1, n_classes)]
    arrays = (tensor.cpu().numpy() for tensor in (prediction, probability, target.byte()))
    return ImageCounts(
        row.cpu(),
        confusion_matrix(prediction, target, n_classes).cpu(),
        count_outlines(prediction, target, n_classes, tolerance),
        [
            [match_instances(mask, scores[c - 1], truth, c) for c in range(1, n_classes)]
            for mask, scores, truth in zip(*arrays, strict=True)
        ],
        torch.stack(histograms).cpu(),
    )


def class_counts(counts: ImageCounts, c: int) -> Tensor:
    """The counts of one foreground class in each image, int64 (N, K), columns as in `CLASS_COUNTS`.

    Objects are connected components: `objects` are the true ones, `objects_found` and `objects_wrong` the
    predicted ones with and without a match at IoU 0.5.
    """
    hits = counts.matrix[:, c, c]
    false_alarms = counts.matrix[:, :, c].sum(1) - hits
    misses = counts.matrix[:, c].sum(1) - hits
    instances = [image[c - 1] for image in counts.instances]
    objects = [[len(i.truth_area), i.hit[:, 0].sum(), (~i.hit[:, 0]).sum()] for i in instances]
    return torch.stack([hits, false_alarms, misses, *counts.outlines[:, c].T, *torch.tensor(objects).T], 1)


def class_ratios(counts: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """The ratios of one class, float64 (R,) by name; nan where the denominator is zero or a count unknown.

    They follow from `class_counts` (N, K), nan in a column that is unknown, and weights as float64 (R, N).
    """
    hits, false_alarms, misses, *others = (weight @ counts.double()).T  # in the order of `CLASS_COUNTS`
    boundary_hits, boundary_union, surface_hits, surface_total, objects, found, wrong = others
    per_image = dice_per_image(counts)
    present = weight * ~per_image.isnan()
    return {
        "iou": hits / (hits + false_alarms + misses),
        "dice": 2 * hits / (2 * hits + false_alarms + misses),
        "precision": hits / (hits + false_alarms),
        "recall": hits / (hits + misses),
        "dice_per_image": present @ per_image.nan_to_num() / present.sum(-1),
        "boundary_iou": boundary_hits / boundary_union,
        "surface_dice": surface_hits / surface_total,
        "instance_precision": found / (found + wrong),
        "instance_recall": found / objects,
    }


def dice_per_image(counts: Tensor) -> Tensor:
    """Dice of one class in each image, float64 (N,), from `class_counts`; nan where the truth lacks it."""
    hits, false_alarms, misses = counts[:, :3].double().T
    return torch.where(hits + misses > 0, 2 * hits / (2 * hits + false_alarms + misses), torch.nan)


def ratios(counts: ImageCounts, class_names: Sequence[str], weights: np.ndarray) -> dict[str, np.ndarray]:
    """Every ratio of the summary, for each weighting of the images.

    Returns:
        float64 (R,) by name; nan where a number is undefined (docs/evaluation.md has the rules).
    """
    weight, n_classes = torch.from_numpy(weights).double(), len(class_names)
    total = (weight @ counts.matrix.flatten(1).double()).view(-1, n_classes, n_classes)
    values = {
        "miou": iou(total).nanmean(-1).numpy(),
        "pixel_accuracy": (total.diagonal(dim1=-2, dim2=-1).sum(-1) / total.sum((-1, -2))).numpy(),
    }
    instance_values = {}
    for c, name in enumerate(class_names[1:], start=1):
        ap50, map50_95 = average_precisions([image[c - 1] for image in counts.instances], weights)
        instance_values |= {f"ap50_{name}": ap50, f"map50_95_{name}": map50_95}
        for number, value in class_ratios(class_counts(counts, c), weight).items():
            kind = instance_values if number.startswith("instance_") else values
            kind[f"{number}_{name}"] = value.numpy()
    return values | instance_values  # metrics.json lists the numbers of pixels first


def summarize(counts: ImageCounts, class_names: Sequence[str]) -> dict[str, Any]:
    """Turns the counts of a set, each image once, into the numbers of metrics.json, see docs/evaluation.md.

    Returns:
        The counts `n_images`, `n_images_with_NAME`, `n_false_alarms_NAME` (images without the class in which
        it was predicted) and the ratios; None where a number is undefined.
    """
    values = ratios(counts, class_names, np.ones((1, len(counts.row)), np.int64))
    summary: dict[str, Any] = {"n_images": len(counts.row), "classes": list(class_names)}
    summary |= {name: none_if_nan(value[0]) for name, value in values.items()}
    for c, name in enumerate(class_names[1:], 1):
        present, predicted = counts.matrix[:, c].sum(1) > 0, counts.matrix[:, :, c].sum(1) > 0
        summary[f"n_images_with_{name}"] = int(present.sum())
        summary[f"n_false_alarms_{name}"] = int((predicted & ~present).sum())
    return summary


def summarize_instances(counts: ImageCounts, class_names: Sequence[str]) -> dict[str, Any]:
    """By class, `score`, `precision` and `recall` of the components at the best F1."""
    return {name: best_f1([i[c] for i in counts.instances]) for c, name in enumerate(class_names[1:])}


def bootstrap_intervals(
    counts: ImageCounts, class_names: Sequence[str], order: Sequence[int], seed: int = 0
) -> dict[str, list[float] | None]:
    """Bootstrap intervals of the ratios over images: [low, high] by name, None where it is undefined.

    `order` holds the positions of the images sorted by path: the same images give the same interval in any
    order of the CSV's rows.
    """
    ordered, weights = counts.select(order), resample_weights(len(counts.row), seed=seed)
    chunks = [ratios(ordered, class_names, some) for some in np.split(weights, N_CHUNKS)]
    values = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    ends = {name: percentile_interval(value) for name, value in values.items()}
    return {name: None if np.isnan(low) else [low, high] for name, (low, high) in ends.items()}


def resample_weights(n_images: int, n: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each image is drawn in each of `n` bootstrap samples (Efron 1979) of the set's own size.

    Pixels of one image are not independent, so whole images are resampled. scipy.stats.bootstrap and
    torchmetrics' BootStrapper are not used: they hold every resampled set, weights need no copies.

    Args:
        n_images: N, at least 1. The caller fixes the order, by path: the weights belong to positions.
        n: number of samples.
        seed: of NumPy's generator; the same weights on every machine.

    Returns:
        Weights with R = n; each row sums to N.

    >>> resample_weights(4, n=2).sum(1).tolist()
    [4, 4]
    """
    return np.random.default_rng(seed).multinomial(n_images, np.full(n_images, 1 / n_images), size=n)


def percentile_interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Lower and upper end of the central share `level` (0..1) of bootstrap values, float (n,).

    nan, a number undefined in that sample, is left out; both ends are nan when no value is left.
    """
    if np.isnan(values).all():
        return np.nan, np.nan
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
