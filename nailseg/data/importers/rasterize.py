"""Draws outlines and run lengths as class masks, by the rules of pycocotools, the reference of COCO.

- A ring is filled by the even-odd rule: the slit through which YOLO files cut out a hole leaves a hole.
- Several rings of one COCO annotation are united: a ring within a ring is no hole there.
- Where annotations overlap, the smaller one is on top, whatever their order in the file. Crowd regions are
  below everything else.
- An annotation that reaches no pixel's center covers no pixel.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

MARGIN = 0.01  # share of a side that points may lie outside (rounding, inexact labels); they are clipped


@dataclass(frozen=True)
class Annotation:
    """One labelled region: `rings`, or `counts` instead."""

    category: str  # the source's name for its class
    rings: tuple[np.ndarray, ...] = ()  # float64 (N, 2), x and y as shares of the image's width and height
    counts: tuple[int, ...] | None = None  # run lengths down the columns, background first
    crowd: bool = False  # COCO's iscrowd


def parse_ring(numbers: Sequence[Any], width: float = 1, height: float = 1) -> np.ndarray:
    """Parses one outline: x1 y1 x2 y2 …, strings or numbers, x in units of `width` and y of `height`.

    Returns:
        float64 (N, 2), x and y as shares of width and height, within `MARGIN` of 0..1; else `ValueError`.

    Example:
        >>> parse_ring([0, 0, 40, 0, 40, 15], width=40, height=30).tolist()
        [[0.0, 0.0], [1.0, 0.0], [1.0, 0.5]]
    """
    try:
        values = np.array([float(number) for number in numbers])
    except (TypeError, ValueError):
        raise ValueError(f"expected numbers x1 y1 x2 y2 …, found {str(numbers)[:60]}") from None
    if len(values) % 2 or len(values) < 6:
        hint = ": a box, or 2 points" if len(values) == 4 else ""
        raise ValueError(f"expected x and y of 3 points or more, found {len(values)} numbers{hint}")
    points = values.reshape(-1, 2) / (width, height)
    outside = values[~((points >= -MARGIN) & (points <= 1 + MARGIN)).ravel()]  # nan is outside, too
    if outside.size:
        raise ValueError(f"expected x within 0..{width:g} and y within 0..{height:g}, found {outside[0]:g}")
    return points


def parse_run_lengths(counts: Any, size: tuple[int, int]) -> tuple[int, ...]:
    """Parses run lengths of a mask of `size` (H, W): a list or COCO's compressed string, else `ValueError`.

    Example:
        >>> parse_run_lengths("042", size=(3, 2))
        (0, 4, 2)
    """
    if isinstance(counts, str):
        counts = _decompress(counts)
    if not (isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts)):
        raise ValueError("expected run lengths of 0 or more, found something else")
    area = size[0] * size[1]
    if sum(counts) != area:  # pycocotools would return uninitialized memory
        found = f"{area} pixels, found {sum(counts)}"
        raise ValueError(f"expected run lengths that fill {size[1]} x {size[0]} = {found}")
    return tuple(counts)


def _decompress(text: str) -> list[int] | None:
    """Decodes as `rleFrString` of cocoapi's maskApi.c does; None if the string is malformed."""
    counts: list[int] = []
    value = shift = 0
    for bits in (ord(character) - 48 for character in text):
        if not 0 <= bits < 64 or shift > 60:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:  # the last character of this number
            value -= (bits >> 4) << shift  # its sign
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return None if shift else counts


def rasterize(
    annotations: Sequence[Annotation], classes: Mapping[str, int], size: tuple[int, int]
) -> tuple[np.ndarray, Counter[str]]:
    """Draws the annotations whose category is in `classes` (category -> class index).

    Returns:
        Mask of `size`, uint8 (H, W), class index, 0 outside annotations, and counts of what was tolerated.
    """
    from pycocotools import mask as coco  # here: a C extension that only the import needs

    events: Counter[str] = Counter()
    drawn: list[tuple[bool, int, int, dict[str, Any]]] = []
    for annotation in annotations:
        if annotation.category not in classes:
            continue
        # lists, not arrays: pycocotools takes an array for boxes
        regions = [(ring.clip(0, 1) * size[::-1]).ravel().tolist() for ring in annotation.rings]
        if annotation.counts is not None:
            regions = [{"size": list(size), "counts": list(annotation.counts)}]
        parts = coco.frPyObjects(regions, *size)
        runs = coco.merge(parts)
        area = int(coco.area(runs))
        is_clipped = any(ring.min() < 0 or ring.max() > 1 for ring in annotation.rings)
        is_united = area < sum(int(coco.area(part)) for part in parts)
        events["outlines clipped at the image's border"] += is_clipped
        events["annotations too small to cover a pixel"] += area == 0
        events["annotations with overlapping rings, united as pycocotools does"] += is_united
        drawn.append((not annotation.crowd, -area, classes[annotation.category], runs))
    drawn.sort(key=lambda entry: entry[:2])  # stable: crowds first, then large before small
    mask = np.zeros(size, np.uint8)
    for index, group in groupby(drawn, key=lambda entry: entry[2]):
        mask[coco.decode(coco.merge([runs for *_, runs in group])).astype(bool)] = index
    return mask, events
