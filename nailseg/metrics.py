"""Counts first, ratios last: every number is computed from integers counted over pixels.

Averaging is said in the names. `iou` and `dice` are over all pixels of a set (as in the SegFormer paper's
mIoU); `*_per_image` is the mean over images. A class that occurs neither in the truth nor in the prediction
has no
IoU: the functions return nan for it and the summary leaves it out (None), it never becomes 0 or 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torchmetrics import Metric

from nailseg.types import IGNORE_INDEX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def class_index(logits: Tensor) -> Tensor:
    """The class with the largest logit, the first one on a tie: `logits.argmax(1)`, many times faster on a
    CPU.

    Args:
        logits: (N, C, H, W), C at most 255.

    Returns:
        uint8 (N, H, W).
    """
    if logits.shape[1] == 2:
        return (logits[:, 1] > logits[:, 0]).byte()
    best = logits[:, 0]
    index = torch.zeros_like(best, dtype=torch.uint8)
    for c in range(1, logits.shape[1]):
        better = logits[:, c] > best
        index.masked_fill_(better, c)
        best = torch.where(better, logits[:, c], best)
    return index


def confusion_matrix(prediction: Tensor, target: Tensor, n_classes: int) -> Tensor:
    """Counts pixels by (true class, predicted class), each image by itself.

    Args:
        prediction: integer (N, H, W), class index 0..C-1.
        target: integer (N, H, W), class index or 255 (not counted).
        n_classes: C, at most 255.

    Returns:
        int64 (N, C, C); [n, t, p] is the number of pixels of class t that were predicted as p.
    """
    n = len(target)
    if n_classes == 2:
        # four counts of booleans per image give all four cells, several times faster than a histogram
        predicted, target = prediction == 1, target.byte()
        negative, positive = target == 0, target == 1
        n_negative, false_positive, n_positive, true_positive = (
            torch.stack([image.count_nonzero() for image in mask])
            for mask in (negative, negative & predicted, positive, positive & predicted)
        )
        cells = [n_negative - false_positive, false_positive, n_positive - true_positive, true_positive]
        return torch.stack(cells, 1).view(n, 2, 2)
    # one code per pair of classes, the last one for ignored pixels
    code = torch.where(target == IGNORE_INDEX, n_classes**2, target.long() * n_classes + prediction.long())
    codes = [torch.bincount(c, minlength=n_classes**2 + 1)[: n_classes**2] for c in code.flatten(1)]
    return torch.stack(codes).view(n, n_classes, n_classes)


def iou(matrix: Tensor) -> Tensor:
    """IoU of each class, float64 (..., C) from counts int64 (..., C, C); nan where absent."""
    hit = matrix.diagonal(dim1=-2, dim2=-1).double()
    return hit / (matrix.sum(-1) + matrix.sum(-2) - hit)


def dice(matrix: Tensor) -> Tensor:
    """Dice (F1) of each class, float64 (..., C) from counts int64 (..., C, C); nan where absent."""
    hit = matrix.diagonal(dim1=-2, dim2=-1).double()
    return 2 * hit / (matrix.sum(-1) + matrix.sum(-2))


def mean_defined(values: Tensor) -> float:
    """Mean of the values that are not nan; 0.0 when all of them are."""
    defined = values[~values.isnan()]
    return defined.mean().item() if len(defined) else 0.0


class ConfusionMatrix(Metric):
    """The confusion matrix of a whole set, exact (int64) and summed over processes.

    `update` takes what `confusion_matrix` takes; `compute` returns int64 (C, C).
    """

    full_state_update = False
    matrix: Tensor

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.add_state("matrix", torch.zeros(n_classes, n_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds a batch: prediction (N, H, W) class index, target (N, H, W) class index or 255."""
        self.matrix += confusion_matrix(prediction, target, self.n_classes).sum(0)

    def compute(self) -> Tensor:
        """Returns the counts, int64 (C, C)."""
        return self.matrix


@dataclass(frozen=True)
class ImageCounts:
    """What was counted on each image of a set, in the manifest's order.

    Attributes:
        row: int64 (N,), position of the image among the split's rows.
        matrix: int64 (N, C, C), as `confusion_matrix`.
        boundary: int64 (N, C, 2), as `contours.boundary_counts`.
    """

    row: Tensor
    matrix: Tensor
    boundary: Tensor

    @classmethod
    def concatenate(cls, parts: Sequence[ImageCounts]) -> ImageCounts:
        """Joins the parts of batches or processes and sorts them by row."""
        row = torch.cat([p.row for p in parts])
        order = row.argsort()
        return cls(
            row[order],
            torch.cat([p.matrix for p in parts])[order],
            torch.cat([p.boundary for p in parts])[order],
        )


def summarise(counts: ImageCounts, class_names: Sequence[str]) -> dict[str, object]:
    """Turns counts into the numbers of metrics.json.

    Args:
        counts: of every image of the set, once each.
        class_names: C names, the first is the background.

    Returns:
        `n_images`, `classes`, `miou` (mean over all classes that occur, background included),
        `pixel_accuracy`, and for every foreground class `iou_`, `dice_` (over all pixels of the set),
        `dice_per_image_` (mean over the images that have the class in their truth), `boundary_iou_` (over all
        boundary pixels of the set), `n_images_with_` (the class in their truth) and `n_false_alarms_` (images
        without it in which it was predicted). None where nothing can be said because the class is absent.
    """
    total = counts.matrix.sum(0)
    ious, dices, image_dice = iou(total), dice(total), dice(counts.matrix)
    bands = counts.boundary.sum(0).double()
    summary: dict[str, object] = {
        "n_images": len(counts.row),
        "classes": list(class_names),
        "miou": _defined(ious[~ious.isnan()].mean()),
        "pixel_accuracy": _defined(total.diagonal().sum() / total.sum().double()),
    }
    for c, name in enumerate(class_names):
        if c == 0:
            continue
        present = counts.matrix[:, c, :].sum(-1) > 0
        predicted = counts.matrix[:, :, c].sum(-1) > 0
        summary |= {
            f"iou_{name}": _defined(ious[c]),
            f"dice_{name}": _defined(dices[c]),
            f"dice_per_image_{name}": _defined(image_dice[present, c].mean()),
            f"boundary_iou_{name}": _defined(bands[c, 0] / bands[c, 1]),
            f"n_images_with_{name}": int(present.sum()),
            f"n_false_alarms_{name}": int((predicted & ~present).sum()),
        }
    return summary


def _defined(value: Tensor) -> float | None:
    return None if value.isnan() else value.item()
