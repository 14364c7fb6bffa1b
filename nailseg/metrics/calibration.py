"""Is a probability worth its name? Calibration and the best threshold, from one histogram of counts.

Histograms of images are added; everything else follows from the sum. A probability is stored as one of 256
codes, rounded, which moves it by 1/510 at most and hardly at all near 0 and 1, where nearly all pixels are.
"""

from __future__ import annotations

import torch
from torch import Tensor

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
    counted = truth != IGNORE_INDEX
    # one code for both counts; ignored pixels go to a cell of their own
    cell = torch.where(counted, 2 * code.int() + (truth == index), 2 * BINS)
    return torch.bincount(cell.flatten(), minlength=2 * BINS + 1)[: 2 * BINS].view(BINS, 2)


def reliability(histogram: Tensor, bins: int = 10) -> Tensor:
    """Confidence against truth, the points of a reliability diagram.

    Args:
        histogram: int64 (256, 2), from `probability_histogram`.
        bins: number of equal bins of probability, at most 255; [low, high), the last one with 1.

    Returns:
        float64 (bins, 3): mean probability (0..1), share of the bin's pixels that are of the class, and share
        of all pixels that are in the bin. The first two are nan in an empty bin, all in an empty histogram.
    """
    code = torch.arange(BINS, device=histogram.device)
    number = (code * bins // TOP).clamp(
        max=bins - 1
    )  # in integers, so that no bin's edge is a matter of rounding
    sums = torch.zeros(bins, 3, dtype=torch.int64, device=histogram.device)
    n = histogram.sum(1)
    sums.index_add_(0, number, torch.stack([n * code, histogram[:, 1], n], 1))
    confidence, positive, pixels = sums.double().T
    return torch.stack([confidence / TOP / pixels, positive / pixels, pixels / pixels.sum()], 1)


def expected_calibration_error(histogram: Tensor, bins: int = 15) -> float:
    """Expected calibration error (Naeini et al. 2015), 15 bins as in Guo et al. 2017, of one class.

    It is that of the rounded probabilities. torchmetrics' BinaryCalibrationError of the exact ones differs by
    1/510 at most, plus what pixels within 1/510 of a bin's edge carry into the neighbouring bin; and it gives
    pixels of exactly 1 a bin of their own, which here are in the last one.

    Args:
        histogram: int64 (256, 2), from `probability_histogram`.
        bins: number of equal bins of probability.

    Returns:
        0..1; nan without a pixel.
    """
    confidence, frequency, share = reliability(histogram, bins).T
    error = (confidence - frequency).abs() * share
    return error[share != 0].sum().item()


def best_threshold(histogram: Tensor) -> tuple[float, float] | None:
    """The probability from which on a pixel should be foreground, for the best Dice over all pixels.

    Args:
        histogram: int64 (256, 2), from `probability_histogram`.

    Returns:
        The threshold, which lies between two codes, and the Dice it gives; of several as good the nearest to
        0.5. None when there are no pixels of the class.
    """
    n_positive = int(histogram[:, 1].sum())
    if n_positive == 0:
        return None
    negative, positive = histogram.flip(0).cumsum(0).flip(0).double().T  # at or above each code
    dice = 2 * positive / (positive + negative + n_positive)
    candidates = torch.nonzero(dice == dice.max()).flatten()
    code = candidates[(candidates - BINS / 2).abs().argmin()].item()
    return max(0.0, (code - 0.5) / TOP), dice[code].item()


def dice_at(histogram: Tensor, threshold: float) -> float | None:
    """Dice over all pixels when those from a threshold on are foreground; None without pixels of the class.

    Args:
        histogram: int64 (256, 2), from `probability_histogram`.
        threshold: probability, 0..1.
    """
    n_positive = int(histogram[:, 1].sum())
    taken = torch.arange(BINS, device=histogram.device) >= threshold * TOP
    negative, positive = histogram[taken].sum(0).tolist()
    return 2 * positive / (positive + negative + n_positive) if n_positive else None
