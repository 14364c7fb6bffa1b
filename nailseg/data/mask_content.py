"""What a mask file contains: its values, counted, and where they lie."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from nailseg.data.issues import Issue
from nailseg.data.mask_encoding import Color, MaskEncoding, Value, pack_colors, unpack_colors
from nailseg.types import MAX_CLASSES

MAX_COLORS = 256
"""No color-coded mask has more colors; an image that has more is a photograph or an overlay."""


@dataclass(frozen=True)
class MaskContent:
    """The values of one mask file."""

    file: str  # its path within the data set
    counts: dict[Value, int]  # pixels by file value, or by RGB color
    lossy: bool = False  # JPEG or lossy WebP
    flat: frozenset[int] = frozenset()  # values that cover areas, see `find_flat_values`
    palette: dict[int, Color] = field(default_factory=dict)  # the colors of `counts`, if these are indices

    @classmethod
    def from_values(
        cls, file: str, values: np.ndarray, lossy: bool = False, palette: np.ndarray | None = None
    ) -> MaskContent:
        """Counts the values that `io.masks.decode_mask_values` gives, and finds those that cover areas."""
        counts = count_values(values)
        colors = {} if palette is None else {v: tuple(palette[v].tolist()) for v in counts}
        # two values are black and white, or background and a class; lossy files hold 0/255 only
        gray = values.dtype == np.uint8 and values.ndim == 2 and len(counts) > 2 and not lossy
        flat = find_flat_values(values) if gray else ()
        return cls(file, counts, lossy, frozenset(flat), colors)

    def as_colors(self) -> MaskContent:
        """The same with a palette's indices replaced by their colors."""
        counts: Counter[Value] = Counter()
        for value, count in self.counts.items():
            counts[self.palette.get(value, value)] += count
        return replace(self, counts=dict(counts), palette={})

    def issue(self, message: str, fix: str, code: str = "mask-values") -> Issue:
        """An issue of this file."""
        return Issue(code, self.file, message, fix)


def count_values(raw: np.ndarray) -> dict[Value, int]:
    """Counts pixels by value.

    Args:
        raw: uint8 or uint16 (H, W), or uint8 (H, W, 3) RGB, of which the 257 commonest colors are counted.

    Examples:
        >>> count_values(np.array([[0, 0, 255]], np.uint8))
        {0: 2, 255: 1}
    """
    if raw.ndim == 3:
        codes, counts = np.unique(pack_colors(raw), return_counts=True)
        most = np.argsort(-counts, kind="stable")[: MAX_COLORS + 1]
        return dict(zip(unpack_colors(codes[most]), counts[most].tolist(), strict=True))
    counts = np.bincount(raw.ravel())
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def find_flat_values(raw: np.ndarray) -> list[int]:
    """Finds the values that cover areas: half of their pixels or more lie in 3 x 3 blocks of one value.

    Classes do. Compression noise and antialiased edges do not; a mask that was enlarged 3, 4, 6 or 8 times
    without interpolation is reduced first.

    Args:
        raw: uint8 (H, W).

    Examples:
        >>> find_flat_values(np.kron(np.array([[0, 9], [0, 255]], np.uint8), np.ones((8, 7), np.uint8)))
        [0, 9, 255]
    """
    steps = [(np.diff(raw.astype(np.int16), axis=axis) != 0).any(1 - axis) for axis in (0, 1)]
    common = math.gcd(*(position + 1 for step in steps for position in np.flatnonzero(step).tolist()))
    factor = next((factor for factor in (4, 3) if common % factor == 0), 1)
    pixels = np.ascontiguousarray(raw[::factor, ::factor])
    block = np.ones((3, 3), np.uint8)
    centers = (cv2.dilate(pixels, block) == cv2.erode(pixels, block)).astype(np.uint8)
    inside = pixels[cv2.dilate(centers, block) > 0]
    share = np.bincount(inside, minlength=256) / np.maximum(np.bincount(pixels.ravel(), minlength=256), 1)
    return np.flatnonzero(share >= 0.5).tolist()


def count_classes(content: MaskContent, encoding: MaskEncoding) -> Counter[int]:
    """Counts pixels by class index; values without a class are left out."""
    by_class: Counter[int | None] = Counter()
    if encoding.has_colors:
        content = content.as_colors()
    for value, count in content.counts.items():
        by_class[encoding.class_of(value, content.lossy)] += count
    del by_class[None]
    return by_class


def count_foreground(by_class: Counter[int]) -> int:
    """Counts the pixels of all classes but background and ignore."""
    return sum(count for index, count in by_class.items() if 0 < index < MAX_CLASSES)
