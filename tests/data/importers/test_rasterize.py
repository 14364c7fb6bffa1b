"""Outlines and run lengths against pycocotools, and against an even-odd rule written here."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

from nailseg.data.importers.rasterize import Annotation, parse_ring, parse_run_lengths, rasterize

SIZE = (60, 80)
CLIPPED = "outlines clipped at the image's border"
EMPTY = "annotations too small to cover a pixel"
UNITED = "annotations with overlapping rings, united as pycocotools does"
NONE = "something else"


def paint(*rings: list[float], **more: object) -> np.ndarray:
    shape = Annotation("nail", tuple(parse_ring(numbers, SIZE[1], SIZE[0]) for numbers in rings), **more)
    return rasterize([shape], {"nail": 1}, SIZE)[0]


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
def test_random_outlines_match_pycocotools_and_the_even_odd_rule(seed: int) -> None:
    """Stars of 3 to 12 points (concave), radius 0.3 to 30 pixels, and outlines that cross themselves."""
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


def test_the_even_odd_oracle_detects_a_shift() -> None:
    points = np.array([[10, 10], [50, 12], [40, 50]], float)
    odd, near = inside(points)
    assert near[np.roll(odd, 3, axis=1) != odd].max() > 1


def test_a_slit_leaves_a_hole_and_a_ring_within_a_ring_does_not() -> None:
    outer, inner = [10, 10, 50, 10, 50, 50, 10, 50], [20, 20, 20, 40, 40, 40, 40, 20]
    slit = paint([*outer, 10, 10, *inner, 20, 20])
    assert slit[30, 30] == 0
    assert slit[15, 30] == 1
    shape = Annotation("nail", tuple(parse_ring(numbers, SIZE[1], SIZE[0]) for numbers in (outer, inner)))
    united, events = rasterize([shape], {"nail": 1}, SIZE)
    assert united[30, 30] == 1
    assert events == {UNITED: 1, EMPTY: 0, CLIPPED: 0}


def box(left: float, top: float, right: float, bottom: float, name: str, **more: object) -> Annotation:
    numbers = [left, top, right, top, right, bottom, left, bottom]
    return Annotation(name, (parse_ring(numbers, SIZE[1], SIZE[0]),), **more)


def test_smaller_annotations_are_on_top_and_crowds_below() -> None:
    finger, nail, crowd = (
        box(5, 5, 60, 50, "finger"),
        box(20, 20, 30, 30, "nail"),
        box(25, 25, 35, 35, "many", crowd=True),
    )
    small_crowd = box(21, 21, 23, 23, "many", crowd=True)
    classes = {"finger": 1, "nail": 2, "many": 3}
    for order in ([finger, nail, crowd, small_crowd], [small_crowd, crowd, nail, finger]):
        mask, _ = rasterize(order, classes, SIZE)
        assert mask[10, 10] == 1
        assert (mask[20:30, 20:30] == 2).all()
        assert mask[33, 33] == 1
    assert rasterize([finger, nail], {"nail": 1}, SIZE)[0].sum() == 100


def test_annotations_without_a_pixel_are_counted() -> None:
    assert rasterize([box(10.1, 10.1, 10.2, 10.2, "nail")], {"nail": 1}, SIZE)[1][EMPTY] == 1


def test_run_lengths_plain_and_compressed() -> None:
    blobs = cv2.blur(np.random.default_rng(0).integers(0, 256, SIZE, np.uint8), (9, 9)) > 127
    compressed = coco.encode(np.asfortranarray(blobs.astype(np.uint8)))["counts"].decode()
    changes = np.flatnonzero(np.diff(np.r_[0, blobs.T.ravel().astype(int), -1]))
    plain = np.diff(np.r_[0, changes]).tolist()
    for counts in (compressed, plain):
        mask, _ = rasterize([Annotation("nail", counts=parse_run_lengths(counts, SIZE))], {"nail": 1}, SIZE)
        np.testing.assert_array_equal(mask, blobs)


@pytest.mark.parametrize(
    ("counts", "found"),
    [("", "found 0"), ("04", "found 4"), ("zz", NONE), ("~~~", NONE), ("00000000p", NONE), (None, NONE),
     ([4800, -1, 1], NONE), ([10, 2.5], NONE), ([4801], "found 4801")],
)  # fmt: skip
def test_malformed_run_lengths(counts: object, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        parse_run_lengths(counts, SIZE)


@pytest.mark.parametrize(
    ("numbers", "found"),
    [("0.1 0.2 0.3 0.4", "4 numbers: a box"), ("0.1 0.2", "found 2 numbers"), ("", "found 0 numbers"),
     ("0.1 0.2 0.3 0.4 0.5 0.6 0.7", "found 7 numbers"), ("0.1 0.2 x 0.4 0.5 0.6", "expected numbers"),
     ("0.1 0.2 1.2 0.4 0.5 0.6", "found 1.2"), ("0.1 0.2 -0.3 0.4 0.5 0.6", "found -0.3"),
     ("0.1 0.2 nan 0.4 0.5 0.6", "found nan"), ("0.1 0.2 inf 0.4 0.5 0.6", "found inf")],
)  # fmt: skip
def test_malformed_outlines(numbers: str, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        parse_ring(numbers.split())


def test_points_just_outside_are_clipped_and_counted() -> None:
    ring = parse_ring([-0.004, 0, 1.001, 0, 1, 1, 0, 1])
    mask, events = rasterize([Annotation("nail", (ring,))], {"nail": 1}, SIZE)
    assert mask.all()
    assert events[CLIPPED] == 1
    assert rasterize([box(0, 0, 80, 60, "nail")], {"nail": 1}, SIZE)[1][CLIPPED] == 0
