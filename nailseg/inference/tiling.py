"""Tiled inference and test-time augmentation: the probabilities of several predictions are averaged."""

import functools
import itertools
import logging
from collections.abc import Iterator
from numbers import Integral
from typing import Literal

import numpy as np
from tqdm import tqdm

from nailseg.errors import ConfigError
from nailseg.inference.backends.base import Backend
from nailseg.model_info import OVERLAP

_log_once = functools.cache(logging.getLogger("nailseg").info)

SCALES = (0.75, 1.0, 1.25)  # input sizes of test-time augmentation, relative to the network's own
MIN_TILE = 32


def predict_tiled(
    backend: Backend, image: np.ndarray, tta: bool = False, tile: int | Literal["auto"] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Segments one image, with tiles and test-time augmentation if asked for.

    Args:
        backend: Runs the network.
        image: uint8 (H, W, 3), RGB.
        tta: Also predict the mirrored image, and both at the `SCALES` if the backend accepts sizes.
        tile: Side of a tile in pixels of the image; "auto" is the network's own size, so that tiles are not
            resized; None predicts the whole image in one pass, as does an image no larger than one tile; for
            a model trained with `crop` it means "auto". A `ConfigError` refuses less than `MIN_TILE`.

    Returns:
        Mask uint8 (H, W), class index (the first of equals), and probability float32 (C, H, W).
    """
    crops = backend.info.resize == "crop"
    if tile == "auto" or (tile is None and crops):
        tile = backend.info.longest_side
    if tile is not None and (not isinstance(tile, Integral) or tile < MIN_TILE):
        raise ConfigError(f"--tile {tile}: expected auto, or {MIN_TILE} pixels or more. Use a larger tile.")
    height, width = image.shape[:2]
    if tile is None or max(height, width) <= tile:
        return _predict_augmented(backend, image, tta)
    if max(height, width) >= 2 * tile and not crops:
        effect = f"in tiles of {tile} pixels, objects appear at least twice as large as in the whole image"
        _log_once(f"--tile: {effect}. This helps if they had that size in training; if not, leave it out")
    probability = np.zeros((len(backend.info.class_names), height, width), np.float32)
    overlap = backend.info.overlap
    grid = list(itertools.product(*(split_into_tiles(side, tile, overlap) for side in (height, width))))
    progress = tqdm(grid, unit="tile", delay=3, leave=False, disable=None)  # None: not in log files
    for (rows, row_weights), (columns, column_weights) in progress:
        _, part = _predict_augmented(backend, image[rows, columns], tta)
        probability[:, rows, columns] += part * (row_weights[:, None] * column_weights)
    return probability.argmax(0).astype(np.uint8), probability


def split_into_tiles(length: int, tile: int, overlap: float = OVERLAP) -> Iterator[tuple[slice, np.ndarray]]:
    """Splits one side of an image into overlapping tiles; the last is shifted inside.

    Args:
        length: Length of the side in pixels.
        tile: Length of a tile in pixels; a shorter side is one tile.
        overlap: Share of a tile that its neighbour covers, too.

    Yields:
        The position of each tile, and float32 weights (tile,) that decrease linearly over the overlap, so
        that no seams appear; the weights of all tiles add up to 1 at each pixel.

    >>> [position for position, _ in split_into_tiles(100, 40)]
    [slice(0, 40, None), slice(30, 70, None), slice(60, 100, None)]
    """
    tile = min(tile, length)
    shared = int(tile * overlap)
    starts = (*range(0, length - tile, tile - shared), length - tile)
    edge_distance = np.minimum(np.arange(tile), np.arange(tile)[::-1]) + 0.5
    weights = np.minimum(edge_distance / max(shared, 1), 1)
    total = np.zeros(length)
    positions = [slice(start, start + tile) for start in starts]
    for position in positions:
        total[position] += weights
    for position in positions:
        yield position, (weights / total[position]).astype(np.float32)


def _predict_augmented(backend: Backend, image: np.ndarray, tta: bool) -> tuple[np.ndarray, np.ndarray]:
    """Predicts once, or averages over test-time augmentation: mask (H, W), probability (C, H, W)."""
    if not tta:
        (mask,), (probability,) = backend(image[None])
        return mask, probability
    total, count = 0.0, 0
    own_size = max(image.shape) if backend.info.resize in ("crop", "none") else backend.info.longest_side
    for scale, step in itertools.product(SCALES, (1, -1)):  # -1: mirrored
        size = None if scale == 1 else round(scale * own_size)
        try:
            _, (probability,) = backend(np.ascontiguousarray(image[None, :, ::step]), size)
        except ConfigError:
            if size is None:
                raise
            _log_once("--tta: the model has a fixed input size; only the mirrored image is added")
            continue
        total, count = total + probability[..., ::step], count + 1
    probability = np.asarray(total / count, np.float32)
    return probability.argmax(0).astype(np.uint8), probability
