"""Boundary metrics: how accurate the outlines are, which counts of whole regions do not show.

Boundary IoU compares bands inside the outlines, surface Dice the outlines themselves at a tolerance. Both are
ratios of sums of the counts (`image_counts.class_ratios`).
"""

from itertools import product

import cv2
import numpy as np
import torch
from torch import Tensor

from nailseg.types import IGNORE_INDEX

BOUNDARY_SHARE = 0.02  # width of the boundary band as a share of the image diagonal, Cheng et al. 2021


def count_outlines(prediction: Tensor, target: Tensor, n_classes: int, tolerance: float) -> Tensor:
    """Counts for Boundary IoU and surface Dice (Nikolov et al. 2021), per image and foreground class.

    The contour of a region is its pixels with one of their four neighbours outside, as in MONAI's
    `compute_surface_dice`; what lies outside the image counts as outside the region.

    Args:
        prediction: integer (N, H, W), class index 0..C-1.
        target: integer (N, H, W), class index or 255; ignored pixels are taken out of both bands, and out of
            both regions before these get a contour.
        n_classes: C.
        tolerance: of the surface Dice, in pixels, at least 0; the time grows with its square.

    Returns:
        int64 (N, C, 4), zeros for the background: intersection and union of the boundary bands, contour
        pixels of either mask that lie within the tolerance (Euclidean) of the other's contour, and all
        contour pixels of both.
    """
    width = max(1, round(BOUNDARY_SHARE * float(np.hypot(*target.shape[-2:]))))
    reach = np.arange(-int(tolerance), int(tolerance) + 1)
    # dilating a contour by this disc gives all pixels within the tolerance, without a distance transform
    disc = (reach**2 + reach[:, None] ** 2 <= tolerance**2).astype(np.uint8)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    predictions, targets = prediction.byte().cpu().numpy(), target.byte().cpu().numpy()
    counts = np.zeros((len(targets), n_classes, 4), np.int64)
    for n, c in product(range(len(targets)), range(1, n_classes)):
        predicted, true = (predictions[n] == c).view(np.uint8), (targets[n] == c).view(np.uint8)
        left, top, columns, rows = cv2.boundingRect(predicted | true)
        if rows == 0:
            continue
        # outside the box there is no region, just as outside the image: the crop changes no outline
        box = slice(top, top + rows), slice(left, left + columns)
        predicted, true = predicted[box], true[box]
        counted = (targets[n][box] != IGNORE_INDEX).view(np.uint8)
        a, b = boundary_band(predicted, width) & counted, boundary_band(true, width) & counted
        counts[n, c, :2] = np.count_nonzero(a & b), np.count_nonzero(a | b)
        a, b = _outline(predicted & counted, cross), _outline(true, cross)
        near = np.count_nonzero(a & cv2.dilate(b, disc)) + np.count_nonzero(b & cv2.dilate(a, disc))
        counts[n, c, 2:] = near, np.count_nonzero(a) + np.count_nonzero(b)
    return torch.from_numpy(counts)


def boundary_band(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels of a region, bool or uint8 0/1 (H, W), within `width` (>= 1) pixels of its outline.

    As the reference code of Boundary IoU (Cheng et al. 2021): the region minus its erosion by `width` steps
    of a 3x3 square; what lies outside the image counts as outside the region.

    Returns:
        uint8 0/1 (H, W).

    >>> boundary_band(np.ones((5, 5), bool), width=1).sum().item()
    16
    """
    # one square of 2w+1 is w steps of 3x3
    return _outline(mask, np.ones((2 * width + 1, 2 * width + 1), np.uint8))


def _outline(mask: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """A region minus its erosion, uint8 0/1 (H, W); zeros around it make the image border an outline."""
    mask = np.ascontiguousarray(mask, dtype=np.uint8)
    return mask - cv2.erode(mask, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
