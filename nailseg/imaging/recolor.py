"""Recolours a region, such as nails, and keeps its light and shade: for try-on and as an augmentation."""

import cv2
import numpy as np
from PIL import ImageColor

from nailseg.errors import ConfigError
from nailseg.types import IGNORE_INDEX

RELIEF = np.array([1.0, 0.2, 0.2], np.float32)
"""Share of the variation in L*, a* and b* within the region that is kept: little of the old hue."""


def parse_color(color: str) -> tuple[int, int, int]:
    """Parses a colour into red, green and blue, 0..255; values outside are clipped, as in CSS.

    Args:
        color: `#rrggbb`, `rgb(200, 30, 60)` or a CSS name such as `crimson`.

    Raises:
        ConfigError: The text is no colour.

    >>> parse_color("crimson")
    (220, 20, 60)
    """
    try:
        return tuple(np.clip(ImageColor.getrgb(color)[:3], 0, 255).tolist())
    except ValueError as error:
        raise ConfigError(
            f"--color {color}: expected a colour such as '#c2185b', 'rgb(194, 24, 91)' or crimson."
        ) from error


def compute_coverage(mask: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Computes the opacity of the new colour: the foreground's probability, 0 far from the mask.

    Args:
        mask: Integer (H, W), 0 is background.
        probability: float32 (H, W), 0..1, of the foreground.

    Returns:
        float32 (H, W), 0..1.
    """
    margin = 1 + min(mask.shape) // 100  # pixels
    distance = cv2.distanceTransform((mask == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return probability * (distance <= margin)


def recolor(image: np.ndarray, coverage: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Recolours a region and keeps its light and shade.

    Args:
        image: uint8 (H, W, 3), RGB.
        coverage: float32 (H, W), 0..1, opacity of the new colour, for example from `compute_coverage`.
        color: Red, green and blue, 0..255.

    Returns:
        uint8 (H, W, 3); pixels where `coverage` is 0 are unchanged.
    """
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
    target = cv2.cvtColor(np.array([[color]], np.uint8), cv2.COLOR_RGB2LAB)[0, 0].astype(np.float32)
    mean = lab[coverage >= 0.5 * coverage.max()].mean(axis=0)
    recolored = np.clip(target + (lab - mean) * RELIEF, 0, 255)
    mixed = np.rint(np.clip(lab + (recolored - lab) * coverage[..., None], 0, 255)).astype(np.uint8)
    result = cv2.cvtColor(mixed, cv2.COLOR_LAB2RGB)
    outside = coverage <= 0
    result[outside] = image[outside]  # the conversion to L*a*b* and back rounds
    return result


def recolor_randomly(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Recolours the foreground in a random colour: nail polish varies more than the images of a data set.

    Args:
        image: uint8 (H, W, 3), RGB.
        mask: uint8 (H, W), class index or 255 (ignored); every class but 0 is recoloured.
        rng: Random number generator.

    Returns:
        uint8 (H, W, 3).
    """
    foreground = (mask != 0) & (mask != IGNORE_INDEX)
    if not foreground.any():
        return image
    hsv = np.array([[[rng.uniform(0, 180), rng.uniform(60, 255), rng.uniform(40, 255)]]]).astype(np.uint8)
    red, green, blue = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    # soft edges: the network must not learn the hard edge of a mask
    coverage = cv2.GaussianBlur(foreground.astype(np.float32), (3, 3), 0) * rng.uniform(0.7, 1.0)
    return recolor(image, coverage, (red, green, blue))
