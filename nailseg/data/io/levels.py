"""16-bit values to the 8 bits that a network takes: one range of values for the whole data set."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np

from nailseg.errors import ConfigError

ImageRange = Sequence[int]
"""The 16-bit values that become 0 and 255; None in its place is the full range, 0 and 65535."""
RangeOption = Literal["full", "percentile"] | tuple[int, int]
"""What `--data.image_range` takes: `percentile` measures the range of the training images."""
FULL_RANGE: ImageRange = (0, 65535)
PERCENTILES = (0.5, 99.5)
"""Of the values of a data set: the rest are hot pixels, labels burnt into the image and the like."""
MIN_LEVELS = 32
"""Least gray levels that a data set must keep: 12 bits in 16 keep 17, which is too coarse; 14 keep 65."""
SAMPLES = 1025  # values that stand for an image: its quantiles in equal steps, smallest and largest included


def scale_to_8_bits(values: np.ndarray, image_range: ImageRange | None = None) -> np.ndarray:
    """Scales uint16 of any shape to uint8; values outside the range become 0 or 255.

    >>> scale_to_8_bits(np.array([0, 257, 65535], np.uint16)).tolist()
    [0, 1, 255]
    >>> scale_to_8_bits(np.array([0, 1000, 3000, 9000], np.uint16), (1000, 5000)).tolist()
    [0, 0, 128, 255]
    """
    return _scaling_table(*(image_range or FULL_RANGE))[values]


@lru_cache(maxsize=4)
def _scaling_table(low: int, high: int) -> np.ndarray:
    share = (np.arange(65536) - low) / (high - low)
    return np.rint(255 * share.clip(0, 1)).astype(np.uint8)


def sample_values(raw: np.ndarray) -> np.ndarray:
    """Reduces an image, uint16 (H, W[, 3]), to uint16 (1025,): its quantiles in equal steps, ascending."""
    step = max(1, math.isqrt(raw.shape[0] * raw.shape[1] // 2**20))  # a million pixels are enough
    ordered = np.sort(raw[::step, ::step], axis=None)
    return ordered[np.linspace(0, ordered.size - 1, SAMPLES).round().astype(int)]


def measure_range(samples: Sequence[np.ndarray]) -> ImageRange | None:
    """Computes the range between the percentiles of images, given by `sample_values`; None without any.

    Each image counts alike, whatever its size.
    """
    if not samples:
        return None
    low, high = np.percentile(np.concatenate(samples), PERCENTILES, method="nearest").tolist()
    return (low, high) if low < high else (min(low, 65534), min(low, 65534) + 1)


def find_lost_levels(samples: Sequence[np.ndarray], image_range: ImageRange | None) -> str | None:
    """Says how many gray levels are left of 16-bit images if that is fewer than 32; else None.

    `samples` are of `sample_values`. Of images of one value nothing can be lost.
    """
    own = measure_range(samples)
    if own is None or own[1] - own[0] <= 1:
        return None
    darkest, brightest = scale_to_8_bits(np.array(own, np.uint16), image_range).tolist()
    levels = brightest - darkest + 1
    if levels >= MIN_LEVELS:
        return None
    low, high = image_range or FULL_RANGE
    where = f"their 16-bit values are from {own[0]} to {own[1]}, and {low} to {high} become 0 to 255"
    return f"expected {MIN_LEVELS} gray levels or more, found {levels}: {where}"


def check_image_range(image_range: object, option: str) -> None:
    """Raises `ConfigError` for anything but `full`, `percentile` or two values in ascending order."""
    if image_range in ("full", "percentile"):
        return
    numbers = list(image_range) if isinstance(image_range, Sequence) else []
    whole = all(isinstance(number, int) for number in numbers)
    if not (len(numbers) == 2 and whole and 0 <= numbers[0] < numbers[1] <= FULL_RANGE[1]):
        expected = "expected full, percentile or two values such as 7600 8110, from 0 to 65535 and ascending"
        raise ConfigError(f"{option}: {expected}, found {image_range!r}.")
