"""Downscaling of large photographs before augmentation: the same in every epoch, so the cache keeps it."""

import math

import cv2
import numpy as np

from nailseg.imaging.geometry import Resize, network_size

MAX_RATIO = 0.5
"""Images whose sides would keep more than this share stay as they are: another resampling blurs slightly, and
saves little time there."""


def downscaled_size(height: int, width: int, size: int, resize: Resize, max_scale: float) -> tuple[int, int]:
    """Height and width in pixels that training needs of an image.

    `size` and `resize` describe the network's input, `max_scale` is the largest factor on it to which
    augmentation resizes.

    >>> downscaled_size(3000, 4000, size=512, resize="keep", max_scale=1.6)
    (615, 820)

    Returns:
        Height and width at the image's own aspect ratio, so large that augmentation never upsamples a
        downscaled image; the image's own size where downscaling is not worthwhile, and with `crop`.
    """
    base_height, base_width = network_size(height, width, size, resize)
    ratio = max_scale * max(base_height / height, base_width / width)
    if ratio > MAX_RATIO or resize == "crop":
        return height, width
    return math.ceil(height * ratio), math.ceil(width * ratio)


def downscale(
    image: np.ndarray, mask: np.ndarray, size: int, resize: Resize, max_scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Downscales a large photograph, uint8 (H, W, 3), and its mask, uint8 (H, W), class index or 255.

    Returns:
        Image uint8 (h, w, 3) and mask uint8 (h, w) of `downscaled_size`; unchanged where that is their size.
    """
    height, width = downscaled_size(*mask.shape, size, resize, max_scale)
    if (height, width) == mask.shape:
        return image, mask
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), _vote(mask, height, width)


def _vote(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Each pixel gets the class that covers most of it. Augmentation reads the mask by nearest neighbour
    later, and two such passes would fray its edges."""
    counts = cv2.calcHist([mask], [0], None, [256], [0, 256])
    winner, best = np.zeros((height, width), np.uint8), np.full((height, width), -1, np.int16)
    for index in np.flatnonzero(counts).tolist():
        covered = cv2.compare(mask, index, cv2.CMP_EQ)
        share = cv2.resize(covered, (width, height), interpolation=cv2.INTER_AREA)
        winner[share > best] = index
        best = np.maximum(best, share)
    return winner
