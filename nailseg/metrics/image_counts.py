"""Counts of single images, the ratios of any weighting of the images, and bootstrap intervals.

Each image is reduced to integer counts. The numbers of a set, of a slice, of a bootstrap resample and of
`nailseg compare` come from the same formulas (`class_ratios`), and no order of images, batches or processes
changes them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nailseg.errors import WeightsError
from nailseg.metrics.boundary import count_boundary, count_surface
from nailseg.metrics.calibration import probability_histogram
from nailseg.metrics.confusion import class_index, confusion_matrix, dice, iou, none_if_nan
from nailseg.metrics.instances import Instances, average_precisions, best_f1, match_instances
from nailseg.types import IGNORE_INDEX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

SURFACE_TOLERANCE = 2.0
"""Pixels an outline may be off for the surface Dice, at the masks' own size."""
RESAMPLES = 1000
"""Bootstrap samples of every interval."""
CHUNK = 100  # resamples at a time: memory stays small however many images there are
CLASS_COUNTS = ("hits", "false_alarms", "misses", "boundary_hits", "boundary_union")
CLASS_COUNTS += ("surface_hits", "surface_total", "objects", "objects_found", "objects_wrong")
"""The counts of each foreground class of an image, which are columns of per_image.csv."""
COUNTED_PIXELS = ("row", "matrix", "boundary", "surface")  # the tensors of ImageCounts with one row per image


@dataclass(frozen=True)
class ImageCounts:
    """The counts of each image of a set, in the manifest's order.

    Attributes:
        row: int64 (N,), position of the image among the split's rows.
        matrix: int64 (N, C, C), as `confusion_matrix`.
        boundary: int64 (N, C, 2), as `count_boundary`.
        surface: int64 (N, C, 2), as `count_surface`.
        instances: per image a list with one `Instances` for each foreground class.
        histogram: int64 (C - 1, 256, 2), as `probability_histogram`, summed over the images; zeros for a part
            of a set.
    """

    row: Tensor
    matrix: Tensor
    boundary: Tensor
    surface: Tensor
    instances: list[list[Instances]]
    histogram: Tensor

    @classmethod
    def concatenate(cls, parts: Sequence[ImageCounts]) -> ImageCounts:
        """Joins the parts of batches or processes and sorts them by row."""
        joined = cls(
            *(torch.cat([getattr(part, name) for part in parts]) for name in COUNTED_PIXELS),
            [image for part in parts for image in part.instances],
            torch.stack([part.histogram for part in parts]).sum(0),
        )
        return replace(joined.select(joined.row.argsort()), histogram=joined.histogram)

    def select(self, positions: Sequence[int]) -> ImageCounts:
        """The images at some positions, in that order."""
        chosen = torch.as_tensor(positions, dtype=torch.int64)
        return ImageCounts(
            *(getattr(self, name)[chosen] for name in COUNTED_PIXELS),
            [self.instances[n] for n in chosen.tolist()],
            torch.zeros_like(self.histogram),
        )


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
    masks, probabilities, truth = (
        tensor.cpu().numpy() for tensor in (prediction, probability, target.byte())
    )
    instances: list[list[Instances]] = [[] for _ in truth]
    histograms = []
    for c in range(1, n_classes):
        histograms.append(probability_histogram(probability[:, c - 1], target, c).cpu())
        region = np.where(truth == IGNORE_INDEX, IGNORE_INDEX, truth == c)
        for n, image in enumerate(instances):
            image.append(match_instances(masks[n] == c, probabilities[n, c - 1], region[n]))
    return ImageCounts(
        row.cpu(),
        confusion_matrix(prediction, target, n_classes).cpu(),
        count_boundary(prediction, target, n_classes),
        count_surface(prediction, target, n_classes, tolerance),
        instances,
        torch.stack(histograms),
    )


def class_counts(counts: ImageCounts, c: int) -> Tensor:
    """The counts of one foreground class in each image, int64 (N, 10), columns as in `CLASS_COUNTS`.

    Objects are connected components; found and wrong ones are those with and without a match at IoU 0.5.
    """
    matrix, hits = counts.matrix, counts.matrix[:, c, c]
    instances = [image[c - 1] for image in counts.instances]
    objects = [(len(i.truth_area), int(i.hit[:, 0].sum()), int((~i.hit[:, 0]).sum())) for i in instances]
    columns = [hits, matrix[:, :, c].sum(1) - hits, matrix[:, c].sum(1) - hits]
    columns += [*counts.boundary[:, c].T, *counts.surface[:, c].T, *torch.tensor(objects).T]
    return torch.stack(columns, 1)


def class_ratios(counts: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """The ratios of one class that follow from `class_counts`, for each weighting of the images.

    Args:
        counts: (N, 10), as `class_counts`; nan in a column that is unknown.
        weight: float64 (R, N), how often each image counts.

    Returns:
        float64 (R,) by name: iou, dice, precision, recall, dice_per_image, boundary_iou, surface_dice,
        instance_precision, instance_recall. nan where the denominator is zero or a count is unknown.
    """
    total = dict(zip(CLASS_COUNTS, (weight @ counts.double()).T, strict=True))
    matrix = _class_against_rest(*(total[name] for name in CLASS_COUNTS[:3]))
    hits, found = total["hits"], total["objects_found"]
    per_image = dice_per_image(counts)
    present = weight * ~per_image.isnan()
    return {
        "iou": iou(matrix)[:, 1],
        "dice": dice(matrix)[:, 1],
        "precision": hits / (hits + total["false_alarms"]),
        "recall": hits / (hits + total["misses"]),
        "dice_per_image": present @ per_image.nan_to_num() / present.sum(-1),
        "boundary_iou": total["boundary_hits"] / total["boundary_union"],
        "surface_dice": total["surface_hits"] / total["surface_total"],
        "instance_precision": found / (found + total["objects_wrong"]),
        "instance_recall": found / total["objects"],
    }


def dice_per_image(counts: Tensor) -> Tensor:
    """Dice of one class in each image, float64 (N,), from `class_counts`; nan where the truth lacks it."""
    hits, false_alarms, misses = counts[:, :3].T
    scores = dice(_class_against_rest(hits, false_alarms, misses))[:, 1]
    return torch.where(hits + misses > 0, scores, np.nan)


def _class_against_rest(hits: Tensor, false_alarms: Tensor, misses: Tensor) -> Tensor:
    """Confusion matrices (..., 2, 2) without the true negatives, which no ratio of the class needs."""
    return torch.stack([torch.zeros_like(hits), false_alarms, misses, hits], -1).unflatten(-1, (2, 2))


def ratios(counts: ImageCounts, class_names: Sequence[str], weights: np.ndarray) -> dict[str, np.ndarray]:
    """Every ratio of the summary, for each weighting of the images.

    Args:
        counts: of N images.
        class_names: C names, the first is the background.
        weights: int64 (R, N), how often each image counts; ones give the numbers of the set.

    Returns:
        float64 (R,) by name; nan where a number is undefined (the README's table has the rules).
    """
    weight, n_classes = torch.from_numpy(weights).double(), len(class_names)
    total = (weight @ counts.matrix.flatten(1).double()).view(-1, n_classes, n_classes)
    values = {
        "miou": iou(total).nanmean(-1).numpy(),
        "pixel_accuracy": (total.diagonal(dim1=-2, dim2=-1).sum(-1) / total.sum((-1, -2))).numpy(),
    }
    instance_values = {}
    for c, name in enumerate(class_names[1:], start=1):
        of_instances = average_precisions([image[c - 1] for image in counts.instances], weights)
        instance_values |= dict(zip((f"ap50_{name}", f"map50_95_{name}"), of_instances, strict=True))
        for number, value in class_ratios(class_counts(counts, c), weight).items():
            kind = instance_values if number.startswith("instance_") else values
            kind[f"{number}_{name}"] = value.numpy()
    return values | instance_values  # metrics.json lists the numbers of pixels first


def summarize(counts: ImageCounts, class_names: Sequence[str]) -> dict[str, Any]:
    """Turns counts into the numbers of metrics.json, which the README defines.

    Args:
        counts: of every image of the set, once each.
        class_names: C names, the first is the background.

    Returns:
        The counts `n_images`, `n_images_with_NAME`, `n_false_alarms_NAME` (images without the class in which
        it was predicted) and the ratios; None where a number is undefined.
    """
    values = ratios(counts, class_names, np.ones((1, len(counts.row)), np.int64))
    summary: dict[str, Any] = {"n_images": len(counts.row), "classes": list(class_names)}
    summary |= {name: none_if_nan(value[0]) for name, value in values.items()}
    for c, name in enumerate(class_names[1:], 1):
        present = counts.matrix[:, c, :].sum(-1) > 0
        predicted = counts.matrix[:, :, c].sum(-1) > 0
        summary |= {
            f"n_images_with_{name}": int(present.sum()),
            f"n_false_alarms_{name}": int((predicted & ~present).sum()),
        }
    return summary


def summarize_instances(counts: ImageCounts, class_names: Sequence[str]) -> dict[str, Any]:
    """By class, `score`, `precision` and `recall` of the components at the best F1."""
    found = {}
    for c, name in enumerate(class_names[1:]):
        images = [image[c] for image in counts.instances]
        score, hit = np.concatenate([i.score for i in images]), np.concatenate([i.hit for i in images])
        found[name] = best_f1(score, hit, sum(len(i.truth_area) for i in images))
    return found


def bootstrap_intervals(
    counts: ImageCounts, class_names: Sequence[str], order: Sequence[int], seed: int = 0
) -> dict[str, list[float] | None]:
    """Bootstrap 95 % intervals of the ratios over images.

    Args:
        counts: of every image of the set.
        class_names: C names, the first is the background.
        order: positions of the images sorted by path: the same images give the same interval in any order of
            the CSV's rows.
        seed: of the resampling.

    Returns:
        [low, high] by name; None where the number is undefined.
    """
    weights = resample_weights(len(counts.row), seed=seed)
    ordered = counts.select(order)
    chunks = [
        ratios(ordered, class_names, weights[start : start + CHUNK]) for start in range(0, RESAMPLES, CHUNK)
    ]
    values = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    ends = {name: percentile_interval(value) for name, value in values.items()}
    return {name: None if np.isnan(low) else [low, high] for name, (low, high) in ends.items()}


def resample_weights(n_images: int, n: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each image is drawn in each of `n` bootstrap samples (Efron 1979) of the set's own size.

    Pixels of one image are not independent, so whole images are resampled. Weights replace copies of the
    images by decision: scipy.stats.bootstrap and torchmetrics' BootStrapper hold every resampled set.

    Args:
        n_images: N, at least 1. The caller fixes the order, by path: the weights belong to positions.
        n: number of samples.
        seed: of NumPy's generator; the same weights on every machine.

    Returns:
        int64 (n, N), each row sums to N.

    >>> resample_weights(4, n=2).sum(1).tolist()
    [4, 4]
    """
    return np.random.default_rng(seed).multinomial(n_images, np.full(n_images, 1 / n_images), size=n)


def percentile_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of bootstrap values.

    Args:
        values: float (n,), one number per sample; nan (undefined in that sample) is left out.
        level: share of the values between the two ends, 0..1.

    Returns:
        Lower and upper end; nan when no value is left.
    """
    if np.isnan(values).all():
        return np.nan, np.nan
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
