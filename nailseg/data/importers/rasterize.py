"""Outlines and run lengths -> class masks, by the rules of pycocotools, the reference of both formats.

- A ring is filled by the even-odd rule, so the keyhole cut by which YOLO files write a hole stays a hole.
- Several rings of one COCO annotation are united, as pycocotools does: a ring within a ring is no hole there
  (run lengths are COCO's way to write one).
- Where annotations overlap, the smaller one wins, whatever their order in the file: small things lie on large
  ones. Crowd regions yield to everything else.
- What is too small to reach a pixel's centre covers none; the caller is told how many did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

SLACK = 0.01
"""Outlines may leave the image by this share of its side (rounding, a hasty hand) and are cut there."""


@dataclass(frozen=True)
class Shape:
    """One annotation: `rings`, or `counts` instead."""

    category: str  # the source's name for its class
    rings: tuple[np.ndarray, ...] = ()  # float64 (N, 2), x and y as shares of the image's width and height
    counts: tuple[int, ...] | None = None  # run lengths down the columns, background first
    crowd: bool = False  # COCO's iscrowd


def ring(numbers: Sequence[Any], width: float = 1, height: float = 1) -> tuple[np.ndarray, bool]:
    """Checks one outline: x1 y1 x2 y2 …, strings or numbers, x in units of `width` and y of `height`.

    Returns:
        float64 (N, 2), x and y within 0..1, and whether it had to be cut at the border.

    Raises:
        ValueError: what was expected and found.
    """
    try:
        values = np.array([float(number) for number in numbers])
    except (TypeError, ValueError):
        raise ValueError(f"expected numbers x1 y1 x2 y2 …, found {str(numbers)[:60]}") from None
    if len(values) == 4:
        raise ValueError("expected an outline of 3 points or more, found 4 numbers: a box, or 2 points")
    if len(values) % 2 or len(values) < 6:
        raise ValueError(f"expected x and y of 3 points or more, found {len(values)} numbers")
    points = values.reshape(-1, 2) / (width, height)
    if not (np.isfinite(points).all() and points.min() >= -SLACK and points.max() <= 1 + SLACK):
        worst = values[np.nanargmax(np.abs(np.nan_to_num(points.ravel(), nan=np.inf) - 0.5))]
        raise ValueError(
            f"expected x within 0..{width:g} and y within 0..{height:g}, found {worst:g} among them"
        )
    clipped = points.clip(0, 1)
    return clipped, bool((clipped != points).any())


def run_lengths(counts: Any, size: tuple[int, int]) -> tuple[int, ...]:
    """Checks run lengths for a mask of `size` (H, W): a list, or the string COCO packs them into.

    pycocotools returns uninitialised memory for strings that end early, so the sum is checked here.

    Raises:
        ValueError: what was expected and found.
    """
    if isinstance(counts, str | bytes):
        counts = _unpack(counts.encode("latin-1", "replace") if isinstance(counts, str) else counts)
    if not (isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts)):
        raise ValueError("expected run lengths of 0 or more, found something else")
    if sum(counts) != size[0] * size[1]:
        raise ValueError(
            f"expected run lengths that fill {size[1]} x {size[0]} = {size[0] * size[1]} pixels, "
            f"found {sum(counts)}"
        )
    return tuple(counts)


def _unpack(text: bytes) -> list[int]:
    """COCO's own packing: 5 bits a character from 48 on, 32 for "more", differences to the last but one."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = character - 48
        if not 0 <= bits < 64 or shift > 60:
            return [-1]
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts if not shift else [-1]


def draw(
    shapes: Sequence[Shape], classes: Mapping[str, int], size: tuple[int, int]
) -> tuple[np.ndarray, Counter[str]]:
    """Paints those annotations whose category is in `classes` (category -> class index).

    Returns:
        The mask of `size`, uint8 (H, W), class index, 0 where there is nothing; and how many annotations were
        `vanished` (no pixel) or `united` (their rings overlap, which other tools may mean as a hole).
    """
    from pycocotools import mask as coco  # here: a C extension that only the import needs

    events: Counter[str] = Counter()
    painted: list[tuple[bool, int, int, dict[str, Any]]] = []
    for shape in (shape for shape in shapes if shape.category in classes):
        if shape.counts is not None:
            parts = [coco.frPyObjects({"size": list(size), "counts": list(shape.counts)}, *size)]
        else:
            # lists, not arrays: arrays are taken for boxes
            parts = coco.frPyObjects([(r * (size[1], size[0])).ravel().tolist() for r in shape.rings], *size)
        runs = coco.merge(parts)
        area = int(coco.area(runs))
        events["vanished"] += not area
        events["united"] += area < sum(int(coco.area(part)) for part in parts)
        painted.append((not shape.crowd, -area, classes[shape.category], runs))
    painted.sort(key=lambda entry: entry[:2])  # stable; the last one painted stays
    mask = np.zeros(size, np.uint8)
    for index, run in groupby(painted, key=lambda entry: entry[2]):
        mask[coco.decode(coco.merge([entry[3] for entry in run])).astype(bool)] = index
    return mask, events
