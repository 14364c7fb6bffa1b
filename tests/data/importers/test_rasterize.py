"""Outlines and run lengths against pycocotools, and against geometry worked out here."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

from nailseg.data.importers.rasterize import Shape, draw, ring, run_lengths

SIZE = (60, 80)
NONE = "something else"


def paint(*rings: list[float], **more: object) -> np.ndarray:
    shape = Shape("nail", tuple(ring(numbers, SIZE[1], SIZE[0])[0] for numbers in rings), **more)
    return draw([shape], {"nail": 1}, SIZE)[0]


def inside(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Even-odd rule at pixel centres, and their distance to the outline: an oracle without pycocotools."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    odd, near = np.zeros(SIZE, bool), np.full(SIZE, np.inf)
    for (ax, ay), (bx, by) in zip(points, np.roll(points, -1, axis=0), strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            odd ^= ((ay > y) != (by > y)) & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
        along = np.clip(
            ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / max((bx - ax) ** 2 + (by - ay) ** 2, 1e-12), 0, 1
        )
        near = np.minimum(near, np.hypot(ax + along * (bx - ax) - x, ay + along * (by - ay) - y))
    return odd, near


@pytest.mark.parametrize("seed", range(40))
def test_random_outlines_differ_at_the_boundary_alone(seed: int) -> None:
    """Stars of 3 to 12 points (concave), radius 0.3 to 30 pixels, and tangles that cross themselves."""
    rng = np.random.default_rng(seed)
    count, radius = rng.integers(3, 13), 10 ** rng.uniform(-0.5, 1.5)
    angles = np.sort(rng.uniform(0, 2 * np.pi, count)) if seed % 4 else rng.uniform(0, 2 * np.pi, count)
    reach = radius * rng.uniform(0.2, 1, count)
    points = np.stack([40 + reach * np.cos(angles), 30 + reach * np.sin(angles)], 1).clip(0, SIZE[::-1])
    mask = paint(points.ravel().tolist()).astype(bool)
    reference = coco.decode(coco.frPyObjects([points.ravel().tolist()], *SIZE))[..., 0].astype(bool)
    odd, near = inside(points)
    np.testing.assert_array_equal(mask, reference)
    assert near[mask != odd].max(initial=0) <= 1


def test_the_oracle_sees_a_shift() -> None:
    points = np.array([[10, 10], [50, 12], [40, 50]], float)
    odd, near = inside(points)
    assert near[np.roll(odd, 3, axis=1) != odd].max() > 1


def test_a_keyhole_is_a_hole_and_a_ring_within_a_ring_is_not() -> None:
    outer, inner = [10, 10, 50, 10, 50, 50, 10, 50], [20, 20, 20, 40, 40, 40, 40, 20]
    keyhole = paint([*outer, 10, 10, *inner, 20, 20])
    assert keyhole[30, 30] == 0
    assert keyhole[15, 30] == 1
    shape = Shape("nail", tuple(ring(numbers, SIZE[1], SIZE[0])[0] for numbers in (outer, inner)))
    united, events = draw([shape], {"nail": 1}, SIZE)
    assert united[30, 30] == 1
    assert events == {"united": 1, "vanished": 0}


def box(left: float, top: float, right: float, bottom: float, name: str, **more: object) -> Shape:
    numbers = [left, top, right, top, right, bottom, left, bottom]
    return Shape(name, (ring(numbers, SIZE[1], SIZE[0])[0],), **more)


def test_the_smaller_wins_whatever_the_order_and_crowds_yield() -> None:
    finger, nail, crowd = (
        box(5, 5, 60, 50, "finger"),
        box(20, 20, 30, 30, "nail"),
        box(25, 25, 35, 35, "many", crowd=True),
    )
    small_crowd = box(21, 21, 23, 23, "many", crowd=True)
    classes = {"finger": 1, "nail": 2, "many": 3}
    for order in ([finger, nail, crowd, small_crowd], [small_crowd, crowd, nail, finger]):
        mask, _ = draw(order, classes, SIZE)
        assert mask[10, 10] == 1
        assert (mask[20:30, 20:30] == 2).all()
        assert mask[33, 33] == 1
    assert draw([finger, nail], {"nail": 1}, SIZE)[0].sum() == 100


def test_what_covers_no_pixel_is_counted() -> None:
    assert draw([box(10.1, 10.1, 10.2, 10.2, "nail")], {"nail": 1}, SIZE)[1]["vanished"] == 1


def test_run_lengths_plain_and_packed() -> None:
    blobs = cv2.blur(np.random.default_rng(0).integers(0, 256, SIZE, np.uint8), (9, 9)) > 127
    packed = coco.encode(np.asfortranarray(blobs.astype(np.uint8)))["counts"]
    changes = np.flatnonzero(np.diff(np.r_[0, blobs.T.ravel().astype(int), -1]))
    plain = np.diff(np.r_[0, changes]).tolist()
    for counts in (packed, packed.decode(), plain):
        mask, _ = draw([Shape("nail", counts=run_lengths(counts, SIZE))], {"nail": 1}, SIZE)
        np.testing.assert_array_equal(mask, blobs)


@pytest.mark.parametrize(
    ("counts", "found"),
    [("", "found 0"), ("04", "found 4"), ("zz", NONE), ("~~~", NONE), ("00000000p", NONE), (None, NONE),
     ([4800, -1, 1], NONE), ([10, 2.5], NONE), ([4801], "found 4801")],
)  # fmt: skip
def test_run_lengths_that_do_not_fill_the_picture(counts: object, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        run_lengths(counts, SIZE)


@pytest.mark.parametrize(
    ("numbers", "found"),
    [("0.1 0.2 0.3 0.4", "4 numbers: a box"), ("0.1 0.2", "found 2 numbers"), ("", "found 0 numbers"),
     ("0.1 0.2 0.3 0.4 0.5 0.6 0.7", "found 7 numbers"), ("0.1 0.2 x 0.4 0.5 0.6", "expected numbers"),
     ("0.1 0.2 1.2 0.4 0.5 0.6", "found 1.2"), ("0.1 0.2 -0.3 0.4 0.5 0.6", "found -0.3"),
     ("0.1 0.2 nan 0.4 0.5 0.6", "found nan"), ("0.1 0.2 inf 0.4 0.5 0.6", "found inf")],
)  # fmt: skip
def test_outlines_that_are_none(numbers: str, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        ring(numbers.split())


def test_a_little_over_the_border_is_cut() -> None:
    points, cut = ring([-0.004, 0, 1.001, 0, 1, 1])
    assert cut
    assert points.min() == 0
    assert points.max() == 1
    assert not ring([0, 0, 1, 0, 1, 1])[1]
