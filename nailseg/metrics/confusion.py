"""The confusion matrix: every pixel metric is a ratio of integers counted over pixels.

The names say what is averaged over. `iou` and `dice` are over all pixels of a set (as in the SegFormer
paper's mIoU); `*_per_image` is the mean over images. A class that occurs neither in the truth nor in the
prediction has no IoU: the functions return nan for it and the summary has None, never 0 or 1.
"""

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from nailseg.types import IGNORE_INDEX


def class_index(logits: Tensor) -> Tensor:
    """The class with the largest logit of (N, C, H, W), C at most 255; the first one on a tie.

    The result, uint8 (N, H, W), is that of `logits.argmax(1)`, which is many times slower on a CPU.
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
    if n_classes == 2 and target.device.type == "cpu":
        # NumPy counts booleans at the speed of memory; a histogram is many times slower
        images = zip(prediction.numpy(), target.byte().numpy(), strict=True)
        return torch.tensor([_binary_counts(predicted == 1, true) for predicted, true in images])
    # one code per pair of classes, the last one for ignored pixels
    code = torch.where(target == IGNORE_INDEX, n_classes**2, target.long() * n_classes + prediction.long())
    codes = [torch.bincount(c, minlength=n_classes**2 + 1)[: n_classes**2] for c in code.flatten(1)]
    return torch.stack(codes).view(-1, n_classes, n_classes)


def _binary_counts(predicted: np.ndarray, true: np.ndarray) -> list[list[int]]:
    negative, positive = true == 0, true == 1
    n_negative, n_positive = np.count_nonzero(negative), np.count_nonzero(positive)
    false_positive = np.count_nonzero(np.logical_and(negative, predicted, out=negative))
    true_positive = np.count_nonzero(np.logical_and(positive, predicted, out=positive))
    return [[n_negative - false_positive, false_positive], [n_positive - true_positive, true_positive]]


def iou(matrix: Tensor) -> Tensor:
    """IoU of each class, float64 (..., C) from counts (..., C, C); nan where absent.

    >>> iou(torch.tensor([[90, 2], [3, 5]]))[1].item()
    0.5
    """
    hits = matrix.diagonal(dim1=-2, dim2=-1).double()
    return hits / (matrix.sum(-1) + matrix.sum(-2) - hits)


def dice(matrix: Tensor) -> Tensor:
    """Dice (F1) of each class, float64 (..., C) from counts (..., C, C); nan where absent."""
    hits = matrix.diagonal(dim1=-2, dim2=-1).double()
    return 2 * hits / (matrix.sum(-1) + matrix.sum(-2))


def mean_defined(values: Tensor) -> float:
    """Mean of the values that are not nan; 0.0 when all of them are."""
    defined = values[~values.isnan()]
    return defined.mean().item() if len(defined) else 0.0


def none_if_nan(value: float) -> float | None:
    """A number for JSON, which has no nan."""
    return None if np.isnan(value) else float(value)


class ConfusionMatrix(Metric):
    """The confusion matrix of a whole set, exact (int64) and summed over processes.

    torchmetrics' segmentation metrics are not used: they average over images, reject 255 and are slower
    (benchmarks/metric_update.py times them).

    Args:
        n_classes: C, at most 255.

    >>> counts = ConfusionMatrix(n_classes=2)
    >>> counts.update(torch.tensor([[[0, 1, 1, 0]]]), torch.tensor([[[0, 1, 0, 255]]]))
    >>> counts.compute().tolist()
    [[1, 1], [0, 1]]
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
        """Returns the counts, int64 (C, C); rows are the truth, columns the prediction."""
        return self.matrix
