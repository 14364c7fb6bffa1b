"""The first reduction of large photographs: the same in every epoch, hence worth keeping."""

from __future__ import annotations

import math

import cv2
import numpy as np

from nailseg.imaging.geometry import Resize, network_size

WORTHWHILE = 0.5
"""Images are left alone that would keep more than this share of their sides: a second resampling blurs a
little, and saves little there."""


def downscaled_size(height: int, width: int, size: int, resize: Resize, largest: float) -> tuple[int, int]:
    """Height and width that training needs of an image.

    Args:
        height: The image's height in pixels.
        width: The image's width in pixels.
        size: Pixels of the network's input.
        resize: What scale 1 means.
        largest: Largest factor on that by which training enlarges.

    Returns:
        Height and width at the image's own aspect ratio, large enough that training never enlarges what was
        reduced; the image's own where the reduction is not worthwhile.
    """
    base_height, base_width = network_size(height, width, size, resize)
    share = largest * max(base_height / height, base_width / width)
    if share > WORTHWHILE:
        return height, width
    return math.ceil(height * share), math.ceil(width * share)


def shrink(
    image: np.ndarray, mask: np.ndarray, size: int, resize: Resize, largest: float
) -> tuple[np.ndarray, np.ndarray]:
    """Reduces a large photograph to what training needs of it.

    Args:
        image: uint8 (H, W, 3).
        mask: uint8 (H, W), class index or 255.
        size: Pixels of the network's input.
        resize: What scale 1 means.
        largest: Largest factor on that by which training enlarges.

    Returns:
        Image uint8 (h, w, 3) and mask uint8 (h, w), `downscaled_size` large; the very arrays if they stay.
    """
    height, width = downscaled_size(*mask.shape, size, resize, largest)
    if (height, width) == mask.shape:
        return image, mask
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), _vote(mask, height, width)


def _vote(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Each pixel gets the class that covers most of it: the transform reads the mask by nearest neighbour
    later, and two such passes would fray its edges."""
    counts = cv2.calcHist([mask], [0], None, [256], [0, 256])
    classes = np.flatnonzero(counts).astype(np.uint8)
    best, winner = None, np.full((height, width), classes[0], np.uint8)
    for index in classes:
        covered = cv2.compare(mask, int(index), cv2.CMP_EQ)
        share = cv2.resize(covered, (width, height), interpolation=cv2.INTER_AREA)
        if best is None:
            best = share
            continue
        wins = share > best
        winner[wins] = index
        best = np.maximum(best, share)
    return winner
