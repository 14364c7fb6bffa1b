"""From counts on single images to the numbers of metrics.json, with intervals.

Everything is counted per image in whole numbers first, so the numbers of a set, of a part of it and of a
bootstrap resample come from one function, and no order of images, batches or processes changes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nailseg.errors import WeightsError
from nailseg.metrics.bootstrap import interval, known, resample_weights
from nailseg.metrics.boundary import boundary_counts, surface_counts
from nailseg.metrics.calibration import (
    best_threshold,
    dice_at,
    expected_calibration_error,
    probability_histogram,
    reliability,
)
from nailseg.metrics.confusion import class_index, confusion_matrix, dice, iou
from nailseg.metrics.instances import SCORED, Instances, average_precision, match_instances, precision_recall
from nailseg.types import IGNORE_INDEX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

SURFACE_TOLERANCE = 2.0
"""Pixels an outline may be off for the surface Dice, at the masks' own size."""
RESAMPLES = 1000
CHUNK = 100  # resamples at a time: memory stays small however many images there are


@dataclass(frozen=True)
class ImageCounts:
    """What was counted on each image of a set, in the manifest's order.

    Attributes:
        row: int64 (N,), position of the image among the split's rows.
        matrix: int64 (N, C, C), as `confusion_matrix`.
        boundary: int64 (N, C, 2), as `boundary_counts`.
        surface: int64 (N, C, 2), as `surface_counts`.
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
        row = torch.cat([p.row for p in parts])
        order = row.argsort()
        instances = [image for p in parts for image in p.instances]
        return cls(
            row[order],
            torch.cat([p.matrix for p in parts])[order],
            torch.cat([p.boundary for p in parts])[order],
            torch.cat([p.surface for p in parts])[order],
            [instances[n] for n in order.tolist()],
            torch.stack([p.histogram for p in parts]).sum(0),
        )

    def select(self, positions: Sequence[int]) -> ImageCounts:
        """The images at some positions, in that order."""
        chosen = torch.as_tensor(positions, dtype=torch.int64)
        return ImageCounts(
            self.row[chosen],
            self.matrix[chosen],
            self.boundary[chosen],
            self.surface[chosen],
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
        row: int64 (N,), names of the images.
        tolerance: of the surface Dice, in pixels.

    Raises:
        WeightsError: a logit is nan or infinite; its argmax would look like a prediction.
    """
    if not logits.sum().isfinite():  # nan and inf reach the sum, at a fraction of isfinite's cost
        raise WeightsError(
            f"rows {row.tolist()} of the split: expected finite logits, found nan or infinite ones. The "
            "network has diverged: test an earlier checkpoint, or train again with a lower --model.lr."
        )
    prediction, n_classes = class_index(logits), logits.shape[1]
    # two classes: the difference alone decides, at half the exponentials of a softmax
    probability = (logits[:, 1:] - logits[:, :1]).sigmoid() if n_classes == 2 else logits.softmax(1)[:, 1:]
    histogram = [probability_histogram(probability[:, c - 1], target, c).cpu() for c in range(1, n_classes)]
    found, chance, truth = prediction.cpu().numpy(), probability.cpu().numpy(), target.byte().cpu().numpy()
    return ImageCounts(
        row.cpu(),
        confusion_matrix(prediction, target, n_classes).cpu(),
        boundary_counts(prediction, target, n_classes),
        surface_counts(prediction, target, n_classes, tolerance),
        [
            [
                match_instances(found[n] == c, chance[n, c - 1], _one_against_rest(truth[n], c))
                for c in range(1, n_classes)
            ]
            for n in range(len(truth))
        ],
        torch.stack(histogram),
    )


def _one_against_rest(truth: np.ndarray, c: int) -> np.ndarray:
    return np.where(truth == IGNORE_INDEX, truth, truth == c)


def ratios(counts: ImageCounts, class_names: Sequence[str], weights: np.ndarray) -> dict[str, np.ndarray]:
    """Every ratio of the summary, for each way of weighing the images.

    Args:
        counts: of N images.
        class_names: C names, the first is the background.
        weights: int64 (R, N), how often each image counts; ones give the numbers of the set.

    Returns:
        float64 (R,) by name; nan where nothing can be said, as the README's table has it.
    """
    weight = torch.from_numpy(weights).double()
    n_classes = len(class_names)
    total = (weight @ counts.matrix.flatten(1).double()).view(-1, n_classes, n_classes)
    hits = total.diagonal(dim1=-2, dim2=-1)
    values = {
        "miou": iou(total).nanmean(-1),
        "pixel_accuracy": hits.sum(-1) / total.sum((-1, -2)),
    }
    per_image = dice(counts.matrix).nan_to_num()
    for c, name in enumerate(class_names):
        if c == 0:
            continue
        present = weight * (counts.matrix[:, c].sum(-1) > 0)
        bands, outlines = weight @ counts.boundary[:, c].double(), weight @ counts.surface[:, c].double()
        values |= {
            f"iou_{name}": iou(total)[:, c],
            f"dice_{name}": dice(total)[:, c],
            f"precision_{name}": hits[:, c] / total[:, :, c].sum(-1),
            f"recall_{name}": hits[:, c] / total[:, c].sum(-1),
            f"dice_per_image_{name}": present @ per_image[:, c] / present.sum(-1),
            f"boundary_iou_{name}": bands[:, 0] / bands[:, 1],
            f"surface_dice_{name}": outlines[:, 0] / outlines[:, 1],
        }
    arrays = {name: value.numpy() for name, value in values.items()}
    for c, name in enumerate(class_names[1:]):
        images = [instances[c] for instances in counts.instances]
        score, hit = (np.concatenate([getattr(i, f)[:SCORED] for i in images]) for f in ("score", "hit"))
        owner = np.repeat(np.arange(len(images)), [min(SCORED, len(i.score)) for i in images])
        n_truth = weights @ np.array([len(i.truth_area) for i in images])
        precision = [
            average_precision(score, hit, int(n), w[owner]) for n, w in zip(n_truth, weights, strict=True)
        ]
        arrays[f"ap50_{name}"] = np.array([p[0] for p in precision])
        arrays[f"map50_95_{name}"] = np.array([p.mean() for p in precision])
        true = weights @ np.array([i.hit[:, 0].sum() for i in images])
        with np.errstate(invalid="ignore"):
            arrays[f"instance_precision_{name}"] = true / (weights @ np.array([len(i.score) for i in images]))
            arrays[f"instance_recall_{name}"] = true / n_truth
    return arrays


def summarize(counts: ImageCounts, class_names: Sequence[str]) -> dict[str, Any]:
    """Turns counts into the numbers of metrics.json; the README defines each.

    Args:
        counts: of every image of the set, once each.
        class_names: C names, the first is the background.

    Returns:
        The counts `n_images`, `n_images_with_`, `n_false_alarms_` (images without the class in which it was
        predicted) and the ratios; None where nothing can be said.
    """
    values = ratios(counts, class_names, np.ones((1, len(counts.row)), np.int64))
    summary: dict[str, Any] = {"n_images": len(counts.row), "classes": list(class_names)}
    summary |= {name: known(value[0]) for name, value in values.items()}
    for c, name in enumerate(class_names[1:], 1):
        present = counts.matrix[:, c, :].sum(-1) > 0
        predicted = counts.matrix[:, :, c].sum(-1) > 0
        summary |= {
            f"n_images_with_{name}": int(present.sum()),
            f"n_false_alarms_{name}": int((predicted & ~present).sum()),
        }
    return summary


def intervals(
    counts: ImageCounts, class_names: Sequence[str], order: Sequence[int], seed: int = 0
) -> dict[str, list[float] | None]:
    """Bootstrap 95 % intervals of the ratios over images.

    Args:
        counts: of every image of the set.
        class_names: C names, the first is the background.
        order: positions of the images sorted by path, so that the same images give the same interval in
            whatever order the CSV lists them.
        seed: of the resampling.

    Returns:
        [low, high] by name; None where the number is absent.
    """
    weights = resample_weights(len(counts.row), RESAMPLES, seed)
    ordered = counts.select(order)
    chunks = [
        ratios(ordered, class_names, weights[start : start + CHUNK]) for start in range(0, RESAMPLES, CHUNK)
    ]
    found = {name: interval(np.concatenate([chunk[name] for chunk in chunks])) for name in chunks[0]}
    return {name: None if np.isnan(low) else [float(low), float(high)] for name, (low, high) in found.items()}


def calibration(counts: ImageCounts, class_names: Sequence[str], threshold: float | None) -> dict[str, Any]:
    """How far the probabilities can be believed, per foreground class, one against the rest.

    Args:
        counts: of the whole set.
        class_names: C names, the first is the background.
        threshold: chosen on the validation part; its Dice on this set is reported.

    Returns:
        By class: `ece` (15 bins), `reliability` (those of 10 bins that hold pixels: mean `confidence`,
        `frequency` of the class, `share` of all pixels),
        `best_threshold` and `best_threshold_dice` of this very set, and `threshold` with
        `threshold_dice` if one was chosen before.
    """
    found = {}
    for name, histogram in zip(class_names[1:], counts.histogram, strict=True):
        best = best_threshold(histogram)
        bins = [bin_ for bin_ in reliability(histogram).tolist() if bin_[2] > 0]
        found[name] = {
            "ece": known(expected_calibration_error(histogram)),
            "reliability": [dict(zip(("confidence", "frequency", "share"), b, strict=True)) for b in bins],
            "best_threshold": best and best[0],
            "best_threshold_dice": best and best[1],
        }
        if threshold is not None:
            found[name] |= {"threshold": threshold, "threshold_dice": dice_at(histogram, threshold)}
    return found


def best_f1(counts: ImageCounts, class_names: Sequence[str]) -> dict[str, Any]:
    """By class `score`, `precision`, `recall` of instances at the best F1, as instance models report."""
    found: dict[str, Any] = {}
    for c, name in enumerate(class_names[1:]):
        images = [instances[c] for instances in counts.instances]
        best = precision_recall(
            np.concatenate([i.score for i in images]),
            np.concatenate([i.hit for i in images]),
            sum(len(i.truth_area) for i in images),
        )
        numbers = {"score": best.best_score, "precision": best.best_precision, "recall": best.best_recall}
        found[name] = {key: known(value) for key, value in numbers.items()}
    return found
