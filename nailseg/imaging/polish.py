"""Nails in other colours, as an augmentation: polish varies more than any data set of bare nails shows."""

from __future__ import annotations

import cv2
import numpy as np

from nailseg.imaging.recolor import paint
from nailseg.types import IGNORE_INDEX


def recolor(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Paints the foreground in one random colour and keeps its light and shade.

    Args:
        image: uint8 (H, W, 3), RGB.
        mask: uint8 (H, W), class index or 255; every class but 0 is painted.
        rng: Source of chance.

    Returns:
        uint8 (H, W, 3).
    """
    foreground = (mask != 0) & (mask != IGNORE_INDEX)
    if not foreground.any():
        return image
    polish = np.array([[[rng.uniform(0, 180), rng.uniform(60, 255), rng.uniform(40, 255)]]]).astype(np.uint8)
    red, green, blue = cv2.cvtColor(polish, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    # a soft brush: a mask's hard edge must not become something to learn
    cover = cv2.GaussianBlur(foreground.astype(np.float32), (3, 3), 0) * rng.uniform(0.7, 1.0)
    return paint(image, cover, (red, green, blue))
