"""Downscaling keeps enough pixels for every augmentation, is faithful to the mask, and skips small images."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from nailseg.data.augmentation import Augmentation, TrainingTransform
from nailseg.data.downscale import downscale, downscaled_size
from nailseg.imaging.geometry import Resize, network_size


@pytest.mark.parametrize("resize", ["keep", "squash"])
@pytest.mark.parametrize(
    ("height", "width"), [(3000, 4000), (4000, 3001), (500, 4000), (1, 9000), (999, 1001), (64, 64), (1, 1)]
)
def test_augmentation_never_upsamples_a_downscaled_image(height: int, width: int, resize: Resize) -> None:
    transform = TrainingTransform(256, resize)
    new = downscaled_size(height, width, 256, resize, transform.max_scale)
    assert new[0] <= height
    assert new[1] <= width
    if new != (height, width):
        assert max(new[0] / height, new[1] / width) < 0.51 or 1 in new
        base = network_size(*new, 256, resize)
        assert base[0] * transform.max_scale <= new[0] + 1
        assert base[1] * transform.max_scale <= new[1] + 1


def test_small_images_are_not_copied() -> None:
    image, mask = np.zeros((432, 432, 3), np.uint8), np.zeros((432, 432), np.uint8)
    found = downscale(image, mask, 192, "keep", TrainingTransform(192).max_scale)
    assert found[0] is image
    assert found[1] is mask


def test_max_scale_covers_scale_and_stretch() -> None:
    transform = TrainingTransform(64, augmentation=Augmentation(scale=(1.0, 2.0), stretch=0.21))
    assert transform.max_scale == pytest.approx(2.2)


def test_each_pixel_of_the_mask_gets_the_class_that_covers_most_of_it() -> None:
    mask = np.zeros((400, 300), np.uint8)
    cv2.ellipse(mask, (150, 200), (90, 120), 20, 0, 360, 1, -1)
    cv2.ellipse(mask, (150, 200), (40, 60), 20, 0, 360, 7, -1)
    mask[:40] = 255
    image = np.repeat(mask[..., None], 3, axis=2)
    small_image, small = downscale(image, mask, 32, "keep", 1.25)
    assert small.shape == (40, 30)
    assert small_image.shape == (40, 30, 3)
    for row, column in np.ndindex(small.shape):
        block = mask[10 * row : 10 * row + 10, 10 * column : 10 * column + 10]
        counts = np.bincount(block.ravel(), minlength=256)
        # shares are rounded to 1/255 of the block, and a tie goes to the lower class
        assert counts[small[row, column]] >= counts.max() - 1
        assert np.abs(small_image[row, column].astype(float) - block.mean()).max() <= 1


def test_image_and_mask_stay_aligned() -> None:
    mask = np.zeros((901, 700), np.uint8)
    cv2.circle(mask, (301, 402), 203, 1, -1)
    image = np.repeat(mask[..., None] * 255, 3, axis=2)
    small_image, small = downscale(image, mask, 64, "keep", 1.7)
    assert np.array_equal(small == 1, small_image[..., 0] > 127)
