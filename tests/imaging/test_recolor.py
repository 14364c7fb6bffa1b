"""Recoloured regions keep their shading, and the rest of the image stays."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from nailseg.errors import ConfigError
from nailseg.imaging.recolor import compute_coverage, parse_color, recolor, recolor_randomly
from nailseg.types import IGNORE_INDEX


def test_random_color_in_the_foreground_only_with_its_shading() -> None:
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


def test_random_color_without_foreground() -> None:
    image, mask = np.full((20, 20, 3), 90, np.uint8), np.zeros((20, 20), np.uint8)
    assert np.array_equal(recolor_randomly(image, mask, np.random.default_rng(0)), image)


def test_parse_color() -> None:
    assert parse_color("#c2185b") == (194, 24, 91)
    assert parse_color("crimson") == (220, 20, 60)
    assert parse_color("rgb(300, 0, 0)") == (255, 0, 0)
    with pytest.raises(ConfigError, match="expected a colour"):
        parse_color("nail")


def test_recolor_keeps_shading_and_the_rest_of_the_image() -> None:
    image = np.full((40, 60, 3), (210, 170, 150), np.uint8)
    image[10:30, 20:40] = np.linspace(220, 150, 20)[None, :, None] * np.array([1, 0.8, 0.7])
    coverage = np.zeros((40, 60), np.float32)
    coverage[10:30, 20:40] = 1
    painted = recolor(image, coverage, (160, 60, 80))
    assert np.array_equal(painted[coverage == 0], image[coverage == 0])
    assert np.abs(painted[10:30, 20:40].reshape(-1, 3).mean(0) - (160, 60, 80)).max() < 12
    light = cv2.cvtColor(painted, cv2.COLOR_RGB2LAB)[20, 20:40, 0].astype(int)
    was = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)[20, 20:40, 0].astype(int)
    assert np.abs((light - light.mean()) - (was - was.mean())).max() <= 3


def test_half_coverage_is_half_way() -> None:
    image = np.full((8, 8, 3), 120, np.uint8)
    whole, half = (recolor(image, np.full((8, 8), c, np.float32), (200, 120, 120)) for c in (1.0, 0.5))
    assert image[0, 0, 0] < half[0, 0, 0] < whole[0, 0, 0]


def test_recolor_without_coverage() -> None:
    image = np.full((8, 8, 3), 90, np.uint8)
    assert np.array_equal(recolor(image, np.zeros((8, 8), np.float32), (1, 2, 3)), image)


def test_coverage_has_soft_edges_and_is_limited_to_the_mask() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[20:40, 20:40] = 1
    probability = np.full((100, 100), 0.2, np.float32)
    probability[mask > 0] = 0.9
    coverage = compute_coverage(mask, probability)
    assert (coverage[30, 30], coverage[30, 41]) == (pytest.approx(0.9), pytest.approx(0.2))
    assert not coverage[60:, 60:].any()
