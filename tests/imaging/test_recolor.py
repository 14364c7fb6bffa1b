"""Painted nails: the foreground only, with its shading."""

from __future__ import annotations

import cv2
import numpy as np

from nailseg.imaging.recolor import recolor_randomly
from nailseg.types import IGNORE_INDEX


def test_recolor_paints_the_foreground_only_and_keeps_its_shading() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((80, 80), np.uint8)
    mask[20:60, 20:60] = 1
    mask[:10, :10] = IGNORE_INDEX
    image = np.full((80, 80, 3), (200, 160, 140), np.uint8)
    # a highlight on the left, shade on the right
    image[20:60, 20:60] = np.linspace(200, 120, 40)[None, :, None] * np.array([1, 0.8, 0.7])
    painted = recolor_randomly(image, mask, rng)
    outside = ~cv2.dilate(mask * (mask == 1), np.ones((3, 3))).astype(bool)
    assert np.array_equal(painted[outside], image[outside])
    inside = painted[22:58, 22:58].astype(int)
    assert np.abs(inside - image[22:58, 22:58]).mean() > 10
    grey = cv2.cvtColor(painted, cv2.COLOR_RGB2LAB)[40, 22:58, 0].astype(int)
    assert grey[0] > grey[-1]
    colours = {tuple(recolor_randomly(image, mask, rng)[40, 40]) for _ in range(20)}
    assert len(colours) > 15


def test_recolor_without_foreground_is_harmless() -> None:
    image, mask = np.full((20, 20, 3), 90, np.uint8), np.zeros((20, 20), np.uint8)
    assert np.array_equal(recolor_randomly(image, mask, np.random.default_rng(0)), image)
