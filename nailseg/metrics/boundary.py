"""Boundary metrics: how accurate the outlines are, which counts of whole regions do not show.

Boundary IoU compares bands inside the outlines, surface Dice the outlines themselves at a tolerance. Both are
counted in pixels for each image and foreground class; `image_counts.class_ratios` takes ratios of their sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from nailseg.types import IGNORE_INDEX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

BOUNDARY_SHARE = 0.02  # width of the boundary band as a share of the image diagonal, Cheng et al. 2021


def boundary_band(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels of a region that lie within `width` pixels of its outline.

    As the reference code of Boundary IoU (Cheng et al. 2021): the region minus its erosion by `width` steps
    of a 3x3 square; what lies outside the image counts as outside the region.

    Args:
        mask: bool or uint8 0/1 (H, W).
        width: in pixels, at least 1.

    Returns:
        uint8 0/1 (H, W).

    >>> boundary_band(np.ones((5, 5), bool), width=1).sum().item()
    16
    """
    # one square of 2w+1 is w steps of 3x3
    return _outline(mask, np.ones((2 * width + 1, 2 * width + 1), np.uint8))


def count_boundary(prediction: Tensor, target: Tensor, n_classes: int) -> Tensor:
    """Counts intersection and union of the boundary bands, per image and foreground class.

    Args:
        prediction: integer (N, H, W), class index 0..C-1.
        target: integer (N, H, W), class index or 255; ignored pixels are taken out of both bands.
        n_classes: C.

    Returns:
        int64 (N, C, 2): intersection and union in pixels; zeros for the background.
    """
    width = max(1, round(BOUNDARY_SHARE * float(np.hypot(*target.shape[-2:]))))
    counts = np.zeros((len(target), n_classes, 2), np.int64)
    for n, c, predicted, true, counted in _regions(prediction, target, n_classes):
        a, b = boundary_band(predicted, width) & counted, boundary_band(true, width) & counted
        counts[n, c] = np.count_nonzero(a & b), np.count_nonzero(a | b)
    return torch.from_numpy(counts)


def count_surface(prediction: Tensor, target: Tensor, n_classes: int, tolerance: float) -> Tensor:
    """Counts for the surface Dice (Nikolov et al. 2021), per image and foreground class.

    The contour of a region is its pixels with one of their four neighbours outside, as in MONAI's
    `compute_surface_dice`; what lies outside the image counts as outside the region.

    Args:
        prediction: integer (N, H, W), class index 0..C-1.
        target: integer (N, H, W), class index or 255; ignored pixels are taken out of both regions first.
        n_classes: C.
        tolerance: in pixels, at least 0; the time grows with its square.

    Returns:
        int64 (N, C, 2): contour pixels of either mask that lie within the tolerance (Euclidean) of the
        other's contour, and all contour pixels of both; zeros for the background.
    """
    reach = np.arange(-int(tolerance), int(tolerance) + 1)
    # dilating a contour by this disc gives all pixels within the tolerance, without a distance transform
    disc = (reach**2 + reach[:, None] ** 2 <= tolerance**2).astype(np.uint8)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    counts = np.zeros((len(target), n_classes, 2), np.int64)
    for n, c, predicted, true, counted in _regions(prediction, target, n_classes):
        a, b = _outline(predicted & counted, cross), _outline(true, cross)
        near = np.count_nonzero(a & cv2.dilate(b, disc)) + np.count_nonzero(b & cv2.dilate(a, disc))
        counts[n, c] = near, np.count_nonzero(a) + np.count_nonzero(b)
    return torch.from_numpy(counts)


def _outline(mask: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """A region minus its erosion, uint8 0/1 (H, W); zeros around it make the image border an outline."""
    mask = np.ascontiguousarray(mask, dtype=np.uint8)
    return mask - cv2.erode(mask, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)


def _regions(
    prediction: Tensor, target: Tensor, n_classes: int
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray, np.ndarray]]:
    """Yields image, class, predicted region, true region, counted pixels: uint8 0/1, the box of both regions.

    Outside the box there is no region, just as outside the image: the crop changes no outline.
    """
    predictions, targets = prediction.byte().cpu().numpy(), target.byte().cpu().numpy()
    for n, (predicted, true) in enumerate(zip(predictions, targets, strict=True)):
        for c in range(1, n_classes):
            masks = [(predicted == c).view(np.uint8), (true == c).view(np.uint8)]
            x, y, width, height = cv2.boundingRect(masks[0] | masks[1])
            if width:
                box = slice(y, y + height), slice(x, x + width)
                yield n, c, masks[0][box], masks[1][box], (true[box] != IGNORE_INDEX).view(np.uint8)
