"""Calibration error and the best threshold, from one histogram of probabilities.

A `histogram` here is int64 (256, 2), from `probability_histogram` or a sum of such. Each probability is
rounded to one of 256 codes, an error of at most 1/510. torchmetrics' calibration error and scikit-learn's
curves are not used: they store the probability of every pixel of the set.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nailseg.metrics.confusion import none_if_nan
from nailseg.types import IGNORE_INDEX

BINS = 256
TOP = BINS - 1  # code 0 is the probability 0, code 255 is 1


def probability_histogram(probability: Tensor, truth: Tensor, index: int = 1) -> Tensor:
    """Counts pixels by the probability of one foreground class, that class against the rest.

    Args:
        probability: float (...), 0..1, of the class.
        truth: integer (...), class index or 255 (not counted).
        index: of the class.

    Returns:
        int64 (256, 2): pixels of other classes and of this one, by probability.
    """
    code = (probability.float() * TOP + 0.5).to(torch.uint8)  # rounds; 0.5 itself goes up
    # one code for both counts; ignored pixels go to a cell of their own
    cell = torch.where(truth != IGNORE_INDEX, 2 * code.int() + (truth == index), 2 * BINS)
    return torch.bincount(cell.flatten(), minlength=2 * BINS + 1)[: 2 * BINS].view(BINS, 2)


def reliability_curve(histogram: Tensor, bins: int = 10) -> Tensor:
    """The points of a reliability diagram: predicted probability against observed frequency.

    The bins, at most 255, are equal and [low, high), the last one with 1.

    Returns:
        float64 (bins, 3): mean probability (0..1), share of the bin's pixels that are of the class, and share
        of all pixels that are in the bin. The first two are nan in an empty bin, all in an empty histogram.
    """
    code = torch.arange(BINS, device=histogram.device)
    # in integers, so that no bin's edge depends on rounding
    number = (code * bins // TOP).clamp(max=bins - 1)
    sums = torch.zeros(bins, 3, dtype=torch.int64, device=histogram.device)
    n = histogram.sum(1)
    sums.index_add_(0, number, torch.stack([n * code, histogram[:, 1], n], 1))
    confidence, positive, pixels = sums.double().T
    return torch.stack([confidence / TOP / pixels, positive / pixels, pixels / pixels.sum()], 1)


def expected_calibration_error(histogram: Tensor, bins: int = 15) -> float:
    """Expected calibration error (Naeini et al. 2015), 15 bins as in Guo et al. 2017, of one class.

    It is computed from the rounded probabilities. torchmetrics' BinaryCalibrationError of the exact ones
    differs by 1/510 at most, plus the share of pixels that rounding moves into the neighbouring bin; it also
    gives pixels of exactly 1 a bin of their own, which here are in the last one.

    Returns:
        0..1; nan without a pixel.
    """
    confidence, frequency, share = reliability_curve(histogram, bins).T
    return ((confidence - frequency).abs() * share)[share != 0].sum().item()


def dice_by_code(histogram: Tensor) -> Tensor:
    """Dice over all pixels with each code as threshold, float64 (256,); nan without pixels of the class."""
    negative, positive = histogram.flip(0).cumsum(0).flip(0).double().T  # at or above each code
    return torch.where(positive[0] > 0, 2 * positive / (positive + negative + positive[0]), torch.nan)


def best_threshold(histogram: Tensor) -> tuple[float, float] | None:
    """The probability threshold with the best Dice over all pixels.

    Returns:
        The threshold, which lies between two codes, and its Dice; of several equally good ones the nearest to
        0.5. None when there are no pixels of the class.

    >>> probability = torch.tensor([0.1, 0.3, 0.8, 0.9])
    >>> threshold, dice = best_threshold(probability_histogram(probability, torch.tensor([0, 0, 1, 1])))
    >>> 0.3 < threshold < 0.8, dice
    (True, 1.0)
    """
    dice = dice_by_code(histogram)
    candidates = torch.nonzero(dice == dice.max()).flatten()
    if len(candidates) == 0:
        return None
    code = candidates[(candidates - BINS / 2).abs().argmin()].item()
    return max(0.0, (code - 0.5) / TOP), dice[code].item()


def summarize_calibration(
    histograms: Tensor, class_names: Sequence[str], threshold: float | None
) -> dict[str, Any]:
    """Calibration of the probabilities of each foreground class, one against the rest.

    Args:
        histograms: one for each foreground class, of the whole set.
        class_names: C names, the first is the background.
        threshold: chosen on the validation part; its Dice on this set is reported.

    Returns:
        By class: `ece` (15 bins), `reliability` (those of 10 bins that hold pixels: mean `confidence`,
        `frequency` of the class, `share` of all pixels), `best_threshold` and `best_threshold_dice` of this
        set, and `threshold` with `threshold_dice` if one was chosen before.
    """
    found = {}
    for name, histogram in zip(class_names[1:], histograms, strict=True):
        best, best_dice = best_threshold(histogram) or (None, None)
        names = ("confidence", "frequency", "share")
        points = (dict(zip(names, point, strict=True)) for point in reliability_curve(histogram).tolist())
        bins = [point for point in points if point["share"] > 0]
        ece = none_if_nan(expected_calibration_error(histogram))
        found[name] = {"ece": ece, "reliability": bins}
        found[name] |= {"best_threshold": best, "best_threshold_dice": best_dice}
        if threshold is not None:
            dice = dice_by_code(histogram)[math.ceil(threshold * TOP)].item()
            found[name] |= {"threshold": threshold, "threshold_dice": none_if_nan(dice)}
    return found
