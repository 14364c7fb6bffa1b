"""Several looks at one image, merged: tiles of a large photograph, its mirror image, other sizes.

Probabilities are merged, never masks: their mean over mirrored and resized views, and over tiles their mean
weighted by the distance to the tile's edge, so that no seam shows.
"""

from __future__ import annotations

import functools
import itertools
import logging
from numbers import Integral
from typing import TYPE_CHECKING, Literal

import numpy as np
from tqdm import tqdm

from nailseg.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nailseg.inference.backends.base import Backend

log = logging.getLogger("nailseg")

SCALES = (0.75, 1.0, 1.25)
"""Sizes of test-time augmentation, as shares of the network's own."""

OVERLAP = 1 / 4
"""Share of a tile that its neighbour sees too; what a network says near a tile's edge lacks context."""

SMALLEST_TILE = 32


def look(
    backend: Backend, image: np.ndarray, tta: bool = False, tile: int | Literal["auto"] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Segments one image by as many views as asked for.

    Args:
        backend: what runs the network.
        image: uint8 (H, W, 3), RGB.
        tta: also mirrored, and at the `SCALES` if the backend takes sizes.
        tile: side of a tile in the image's pixels; "auto" is the network's own size, so that a tile is
            neither enlarged nor reduced; None sees the whole image at once. An image no larger than one
            tile is seen whole, with the same result to the last bit.

    Returns:
        Mask uint8 (H, W), class index (the first of equally probable ones), and probability float32
        (C, H, W).

    Raises:
        ConfigError: a tile smaller than `SMALLEST_TILE`.
    """
    if tile == "auto":
        tile = backend.info.image_size
    if tile is not None and (not isinstance(tile, Integral) or tile < SMALLEST_TILE):
        raise ConfigError(f"--tile {tile}: expected auto, or {SMALLEST_TILE} pixels or more. Give more.")
    height, width = image.shape[:2]
    if tile is None or max(height, width) <= tile:
        return _augmented(backend, image, tta)
    if max(height, width) >= 2 * tile:
        _say_once(
            f"--tile: in tiles of {tile} pixels things look far larger than in the whole image. That helps "
            f"where they then look as in training; if not, leave it out"
        )
    probability = np.zeros((len(backend.info.class_names), height, width), np.float32)
    grid = list(itertools.product(tiles(height, tile), tiles(width, tile)))
    # a large photograph takes minutes, a server's log wants no bar
    for (rows, row_weights), (columns, column_weights) in tqdm(
        grid, unit="tile", delay=3, leave=False, disable=None
    ):
        part = _augmented(backend, image[rows, columns], tta)[1]
        probability[:, rows, columns] += part * (row_weights[:, None] * column_weights)
    return _most_probable(probability), probability


def tiles(length: int, tile: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Cuts one side of an image into tiles that overlap by `OVERLAP`, the last one shifted inside.

    Args:
        length: of the side, in pixels.
        tile: pixels of a tile; a shorter side is one tile.

    Yields:
        Where each tile lies, and float32 weights (tile,) that fall linearly over the overlap; those of all
        tiles add up to 1 at each pixel.
    """
    tile = min(tile, length)
    overlap = int(tile * OVERLAP)
    starts = [*range(0, length - tile, tile - overlap), length - tile]
    from_edge = np.minimum(np.arange(tile), np.arange(tile)[::-1]) + 0.5
    weights = np.minimum(from_edge / max(overlap, 1), 1)
    total = np.zeros(length)
    for start in starts:
        total[start : start + tile] += weights
    for start in starts:
        place = slice(start, start + tile)
        yield place, (weights / total[place]).astype(np.float32)


def _augmented(backend: Backend, image: np.ndarray, tta: bool) -> tuple[np.ndarray, np.ndarray]:
    """One view, or the mean of those of test-time augmentation: mask (H, W), probability (C, H, W)."""
    if not tta:
        masks, probabilities = backend(image[None])
        return masks[0], probabilities[0]
    total, count = 0.0, 0
    for scale in SCALES:
        size = None if scale == 1 else round(scale * backend.info.image_size)
        for step in (1, -1):  # as it is, mirrored
            view = np.ascontiguousarray(image[None, :, ::step])
            try:
                found = backend(view, size)[1][0]
            except ConfigError:
                if size is None:
                    raise
                _say_once("--tta: the model has one size; the views are the image and its mirror image")
                break
            total, count = total + found[..., ::step], count + 1
    probability = np.asarray(total / count, np.float32)
    return _most_probable(probability), probability


def _most_probable(probability: np.ndarray) -> np.ndarray:
    return probability.argmax(0).astype(np.uint8)


@functools.cache
def _say_once(text: str) -> None:
    log.info(text)
