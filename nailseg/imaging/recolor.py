"""Nails in another colour: light and shade stay, so that polish looks worn and not pasted on."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import ImageColor

from nailseg.errors import ConfigError

SHINE = np.array([1.0, 0.2, 0.2], np.float32)
"""How much of the nail's relief shows through, in L*, a* and b*: of the old hue only a trace."""


def rgb(color: str) -> tuple[int, int, int]:
    """A colour's red, green and blue, 0..255.

    Args:
        color: `#rrggbb`, `rgb(200, 30, 60)` or a name of CSS, such as `crimson`.

    Raises:
        ConfigError: not a colour.
    """
    try:
        red, green, blue = (min(max(value, 0), 255) for value in ImageColor.getrgb(color)[:3])  # as CSS does
        return red, green, blue
    except ValueError as error:
        raise ConfigError(
            f"--color {color}: expected a colour such as '#c2185b', 'rgb(194, 24, 91)' or crimson."
        ) from error


def coat(mask: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """How much paint lies on each pixel: what was found with its soft edges, and nothing far from it.

    Args:
        mask: (H, W), 0 where nothing was found.
        probability: float32 (H, W), 0..1, of the foreground.

    Returns:
        float32 (H, W), 0..1.
    """
    edge = 1 + min(mask.shape) // 100  # pixels
    far = cv2.distanceTransform((mask == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return probability * (far <= edge)


def paint(image: np.ndarray, cover: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Paints a region and keeps its light and shade.

    Args:
        image: uint8 (H, W, 3), RGB.
        cover: float32 (H, W), 0..1: how much paint lies on each pixel; `coat` gives it.
        color: red, green, blue, 0..255.

    Returns:
        uint8 (H, W, 3); where `cover` is 0, the image itself.
    """
    painted = cover > 0
    if not painted.any():
        return image.copy()
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
    target = cv2.cvtColor(np.array([[color]], np.uint8), cv2.COLOR_RGB2LAB)[0, 0].astype(np.float32)
    middle = lab[cover >= 0.5 * cover.max()].mean(axis=0)
    polish = np.clip(target + (lab - middle) * SHINE, 0, 255)
    mixed = np.rint(np.clip(lab + (polish - lab) * cover[..., None], 0, 255)).astype(np.uint8)
    result = cv2.cvtColor(mixed, cv2.COLOR_LAB2RGB)
    result[~painted] = image[~painted]  # the way through Lab and back rounds
    return result
