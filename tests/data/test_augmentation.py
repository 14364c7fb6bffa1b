"""Augmentation is repeatable, aligned with the mask, and never labels padding as background."""

from __future__ import annotations

import pickle
import re
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import nailseg
from nailseg.data.augmentation import Augmentation, TrainingTransform, appearance_transform
from nailseg.errors import ConfigError
from nailseg.imaging.geometry import PAD_VALUE
from nailseg.types import IGNORE_INDEX

NOTHING = Augmentation(
    scale=(1.0, 1.0),
    **{field.name: 0.0 for field in fields(Augmentation) if field.name != "scale"},
)
EVERYTHING = Augmentation(vertical_flip=0.5, blur=1, noise=1, compression=1, shadow=1, clahe=1, recolor=1)


def drawn(height: int = 120, width: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """An image whose red channel shows its mask: 240 on the shapes, 20 elsewhere."""
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, (width // 3, height // 2), (width // 6, height // 4), 20, 0, 360, 1, -1)
    cv2.rectangle(mask, (width * 2 // 3, height // 8), (width * 4 // 5, height // 2), 1, -1)
    image = np.full((height, width, 3), 20, np.uint8)
    image[mask == 1] = 240
    return image, mask


@pytest.mark.parametrize(("height", "width"), [(120, 160), (40, 37), (900, 1200), (1, 1)])
@pytest.mark.parametrize("augmentation", [Augmentation(), EVERYTHING, NOTHING], ids=["some", "all", "none"])
def test_shapes_and_types(height: int, width: int, augmentation: Augmentation) -> None:
    image, mask = drawn(height, width)
    kept = image.copy(), mask.copy()
    for seed in range(3):
        crop, labels = TrainingTransform(64, augmentation=augmentation)(image, mask, seed)
        assert crop.shape == (64, 64, 3)
        assert labels.shape == (64, 64)
        assert crop.dtype == labels.dtype == np.uint8
        assert crop.flags["C_CONTIGUOUS"]
        assert set(np.unique(labels)) <= {0, 1, IGNORE_INDEX}
    assert np.array_equal(image, kept[0])
    assert np.array_equal(mask, kept[1])


def test_the_result_depends_on_the_seed_alone() -> None:
    image, mask = drawn()
    fresh, used = (
        TrainingTransform(64, augmentation=EVERYTHING),
        TrainingTransform(64, augmentation=EVERYTHING),
    )
    for seed in range(7):
        used(image, mask, seed)
    copied = pickle.loads(pickle.dumps(used))
    expected = fresh(image, mask, 42)
    for transform in (used, copied):
        np.random.seed(5)  # the global state must not matter
        for found, expected_array in zip(transform(image, mask, 42), expected, strict=True):
            assert np.array_equal(found, expected_array)


def test_seeds_differ() -> None:
    image, mask = drawn()
    transform = TrainingTransform(64)
    assert len({transform(image, mask, seed)[0].tobytes() for seed in range(20)}) == 20


def test_appearance_depends_on_the_seed_too() -> None:
    image, mask = drawn(100, 100)
    transform = TrainingTransform(64, augmentation=replace(NOTHING, light=1.0, color=1.0, noise=1.0))
    assert len({transform(image, mask, seed)[0].tobytes() for seed in range(20)}) == 20
    assert len({transform(image, mask, seed)[1].tobytes() for seed in range(20)}) == 1


def test_without_augmentation_it_is_a_plain_resize() -> None:
    image, mask = drawn(64, 64)
    crop, labels = TrainingTransform(128, augmentation=NOTHING)(image, mask, 0)
    assert np.abs(crop.astype(int) - cv2.resize(image, (128, 128))).max() <= 1
    assert np.array_equal(labels, mask.repeat(2, axis=0).repeat(2, axis=1))


def test_padding_lies_at_varying_places() -> None:
    image, mask = drawn(60, 120)
    tops = set()
    for seed in range(10):
        crop, labels = TrainingTransform(128, augmentation=NOTHING)(image, mask, seed)
        inside = np.flatnonzero((labels != IGNORE_INDEX).all(axis=1))
        assert len(inside) in (63, 64, 65)
        assert (labels[: inside[0]] == IGNORE_INDEX).all()
        assert (labels[inside[-1] + 1 :] == IGNORE_INDEX).all()
        assert (crop[: max(0, inside[0] - 1)] == PAD_VALUE).all()
        assert (crop[inside[-1] + 2 :] == PAD_VALUE).all()
        tops.add(inside[0])
    assert len(tops) > 5


def test_squash_fills_the_square() -> None:
    image, mask = drawn(60, 120)
    _, labels = TrainingTransform(128, "squash", NOTHING)(image, mask, 0)
    assert (labels != IGNORE_INDEX).all()


@pytest.mark.parametrize("size", [64, 96, 256])
def test_image_and_mask_stay_aligned(size: int) -> None:
    image, mask = drawn(180, 240)
    geometric = replace(NOTHING, scale=(0.5, 1.6), stretch=0.3, rotate=45, flip=0.5, vertical_flip=0.5)
    transform = TrainingTransform(size, augmentation=geometric)
    agreement = []
    for seed in range(30):
        crop, labels = transform(image, mask, seed)
        inside = labels != IGNORE_INDEX
        shown, labeled = (crop[..., 0] > 130) & inside, (labels == 1) & inside
        if labeled.sum() > 50:
            agreement.append((shown & labeled).sum() / (shown | labeled).sum())
    assert len(agreement) > 20
    # half a pixel of shift would cost 5 % at the smallest size
    assert np.mean(agreement) > 0.97
    assert min(agreement) > 0.9


def test_padding_is_never_background() -> None:
    image = np.full((80, 100, 3), 250, np.uint8)
    mask = np.zeros((80, 100), np.uint8)
    geometric = replace(NOTHING, scale=(0.4, 0.8), rotate=30)
    lit = replace(geometric, light=1.0, color=1.0, noise=1.0)
    for seed in range(20):
        crop, labels = TrainingTransform(64, augmentation=geometric)(image, mask, seed)
        outside = labels == IGNORE_INDEX
        assert outside.any()
        # a border pixel may be a mixture of both
        deep = cv2.erode(outside.astype(np.uint8), np.ones((3, 3)), borderValue=0).astype(bool)
        assert (crop[deep] == PAD_VALUE).all()
        far = ~cv2.dilate(outside.astype(np.uint8), np.ones((3, 3)), borderValue=1).astype(bool)
        assert (crop[far] == 250).all()
        crop, labels = TrainingTransform(64, augmentation=lit)(image, mask, seed)
        assert (crop[labels == IGNORE_INDEX] == PAD_VALUE).all()


def test_ignored_pixels_of_the_mask_stay_ignored() -> None:
    image, _ = drawn()
    mask = np.full(image.shape[:2], IGNORE_INDEX, np.uint8)
    crop, labels = TrainingTransform(64, augmentation=EVERYTHING)(image, mask, 3)
    assert (labels == IGNORE_INDEX).all()
    # not padding: the image is still there
    assert (crop != PAD_VALUE).any()


def test_downscaling_averages_by_area() -> None:
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    crop, _ = TrainingTransform(64, augmentation=NOTHING)(stripes, np.zeros((512, 512), np.uint8), 0)
    assert np.abs(crop.astype(int) - 128).max() <= 1


def test_flip_mirrors_half_of_the_images() -> None:
    image, mask = drawn(64, 64)
    image[:, :32] = 0
    image[:, 32:] = 255
    transform = TrainingTransform(64, augmentation=replace(NOTHING, flip=0.5))
    bright_left = [transform(image, mask, seed)[0][:, :16].mean() > 128 for seed in range(60)]
    assert 15 < sum(bright_left) < 45


def test_scale_covers_its_range() -> None:
    image, mask = drawn(64, 64)
    transform = TrainingTransform(64, augmentation=replace(NOTHING, scale=(0.5, 2.0)))
    shares = [(transform(image, mask, seed)[1] != IGNORE_INDEX).mean() for seed in range(60)]
    assert min(shares) < 0.35
    # as often enlarged (nothing padded) as reduced
    assert 15 < sum(share == 1 for share in shares) < 45


def test_every_strength_has_an_effect() -> None:
    image, mask = drawn()
    plain = TrainingTransform(64, augmentation=NOTHING)
    for field in fields(Augmentation):
        strong = (0.5, 0.6) if field.name == "scale" else 1.0
        varied = TrainingTransform(64, augmentation=replace(NOTHING, **{field.name: strong}))
        before = [plain(image, mask, seed)[0].tobytes() for seed in range(10)]
        after = [varied(image, mask, seed)[0].tobytes() for seed in range(10)]
        assert before != after, field.name


def test_without_strengths_the_appearance_is_unchanged() -> None:
    image, _ = drawn()
    assert np.array_equal(appearance_transform(NOTHING)(image=image)["image"], image)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("scale", (0.0, 1.0), r"--data.augmentation.scale: expected two factors.*found \[0.0, 1.0\]"),
        ("scale", (1.5, 1.0), "smallest <= largest"),
        ("rotate", 200, "rotate: expected a number from 0 to 180, found 200"),
        ("flip", 1.5, "flip: expected a number from 0 to 1, found 1.5. 0 turns it off"),
        ("recolor", -0.1, "recolor: expected a number from 0 to 1"),
    ],
)
def test_strengths_out_of_range(name: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Augmentation(**{name: value})


def test_only_augmentation_imports_albumentations() -> None:
    """The last MIT release gets no more updates: one module must be enough to replace it."""
    package = Path(nailseg.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"^\s*(import|from) albumentations\b", path.read_text(), re.MULTILINE)
    }
    assert found == {"data/augmentation.py"}
