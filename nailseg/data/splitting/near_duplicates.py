"""Finds images that show the same photograph: mirrored, rotated, re-compressed, or slightly cropped.

The search has two steps. A perceptual hash (the signs of 64 low DCT frequencies, as `imagehash.phash` takes
them; a test compares the two) selects candidate pairs: the hashes of all eight flips and rotations of each
image are compared with the hash of every other image. Then each candidate pair is aligned on small grey
thumbnails, and the details must agree nearly everywhere. The hash alone is not enough: all hands on white
paper have similar hashes, and so have images that an augmentation has rotated within a black frame.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import ArrayLike

SIDE = 96
"""Pixels of a thumbnail's sides. The aspect ratio is not kept: cropping changes it anyway."""
FREQUENCIES = 8
"""DCT frequencies per axis in the hash."""
MAX_DISTANCE = 16
"""Candidates differ in at most this many of 63 bits; unrelated images differ in 31 +- 4."""
MIN_CONTRAST = 4.0
"""Thumbnails with a lower standard deviation (grey levels) are skipped: they match any empty image."""
BLOCK = 12
"""Pixels of a side of the blocks in which details are compared."""
MIN_TEXTURE = 2.0
"""Standard deviation (grey levels) from which a block has details to compare."""
MIN_ALIGNMENT = 0.5
"""Smallest correlation of two aligned thumbnails; below it, the alignment has failed."""
MIN_CORRELATION = 0.75
"""Correlation that three quarters of the blocks must reach in near-duplicates; chosen by inspecting pairs.
Random crops of up to 5 % a side, light, scale and JPEG 30-90 leave 0.88 in 99 of 100 cases."""


def make_thumbnail(image: np.ndarray) -> np.ndarray:
    """Reduces an image, uint8 (H, W, 3) RGB, to a grey uint8 (96, 96)."""
    # resizing first makes the conversion to grey nearly free
    return cv2.cvtColor(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)


def find_near_duplicates(thumbnails: np.ndarray) -> np.ndarray:
    """Finds pairs of thumbnails that show one photograph; enough pairs to connect every cluster.

    The alignment of a candidate pair takes a millisecond; photographs of hands have about 5 for each image.

    Args:
        thumbnails: uint8 (N, 96, 96), from `make_thumbnail`.

    Returns:
        int64 (P, 2), sorted, the smaller index first. Equal thumbnails are paired with the first one only.

    Example:
        >>> image = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        >>> image = cv2.resize(image, (128, 128), interpolation=cv2.INTER_CUBIC)
        >>> copies = [image, image[::-1], image[2:, 3:]]
        >>> find_near_duplicates(np.stack([make_thumbnail(copy) for copy in copies])).tolist()
        [[0, 1], [0, 2], [1, 2]]
    """
    flat = thumbnails.reshape(len(thumbnails), SIDE * SIDE)
    textured = np.flatnonzero(flat.std(axis=1) >= MIN_CONTRAST)
    _, first, kind = np.unique(flat[textured], axis=0, return_index=True, return_inverse=True)
    equal = np.stack([textured[first[kind.ravel()]], textured], axis=1)
    unique = textured[np.sort(first)]
    images = thumbnails[unique]
    coarse = [_reduce(image) for image in images]

    def is_near_duplicate(candidate: np.ndarray) -> bool:
        one, other, symmetry = candidate
        warp = align(coarse[one], apply_symmetry(coarse[other], symmetry))
        if warp is None:
            return False
        return correlate_blocks(images[one], apply_symmetry(images[other], symmetry), warp) >= MIN_CORRELATION

    candidates = find_candidates(hash_symmetries(images))
    with ThreadPoolExecutor(2) as pool:
        verified = np.fromiter(pool.map(is_near_duplicate, candidates), bool, len(candidates))
    near = unique[candidates[verified, :2]]
    return np.unique(np.concatenate([equal[equal[:, 0] != equal[:, 1]], near]), axis=0)


def label_clusters(count: int, pairs: ArrayLike) -> np.ndarray:
    """Labels each of `count` items with the smallest index it is connected to.

    Args:
        count: number of items.
        pairs: int (P, 2), indices of connected items; may be empty.

    Returns:
        int64 (count,).

    Example:
        >>> label_clusters(5, [(0, 2), (2, 4)]).tolist()
        [0, 1, 0, 3, 0]
    """
    from scipy.sparse import coo_array  # imported here: only index and check need it
    from scipy.sparse.csgraph import connected_components

    one, other = np.asarray(pairs, np.int64).reshape(-1, 2).T
    links = coo_array((np.ones(len(one)), (one, other)), (count, count))
    labels = connected_components(links, directed=False)[1]
    return np.unique(labels, return_index=True)[1][labels]


def hash_symmetries(thumbnails: np.ndarray) -> np.ndarray:
    """Computes perceptual hashes of the eight flips and rotations of uint8 (N, 96, 96).

    Returns:
        uint64 (N, 8): each of the 64 bits says whether one DCT coefficient lies above their median. The
        second axis is numbered as in `apply_symmetry`.
    """
    small = thumbnails.reshape(-1, 32, 3, 32, 3).mean(axis=(2, 4))
    frequency, position = np.mgrid[0:FREQUENCIES, 0:32]
    basis = np.cos(np.pi * frequency * (2 * position + 1) / 64)
    low = basis @ small @ basis.T
    # flips of the image change signs of its coefficients, a transposition transposes them
    sign = (-1.0) ** np.arange(FREQUENCIES)
    symmetries = [
        (low.swapaxes(1, 2) if symmetry & 4 else low)
        * np.outer(sign ** (symmetry & 1), sign ** (symmetry >> 1 & 1))
        for symmetry in range(8)
    ]
    coefficients = np.stack(symmetries, axis=1).reshape(len(low), 8, FREQUENCIES**2)
    bits = coefficients > np.median(coefficients, axis=2, keepdims=True)
    return np.packbits(bits, axis=2).view(np.uint64)[..., 0]


def apply_symmetry(image: np.ndarray, symmetry: int) -> np.ndarray:
    """Flips or rotates (H, W): bit 4 of `symmetry` transposes, then bit 1 flips rows and bit 2 columns."""
    image = image.T if symmetry & 4 else image
    return np.ascontiguousarray(image[:: -1 if symmetry & 1 else 1, :: -1 if symmetry & 2 else 1])


def find_candidates(hashes: np.ndarray) -> np.ndarray:
    """Finds all pairs whose hashes, uint64 (N, 8), differ in at most 16 bits in one of the symmetries.

    Every pair is compared, so that the time grows with the square of N: 0.1 s for 2,700 images, 1 s for
    10,800, about 90 s for 100,000.

    Returns:
        int64 (P, 3): first index < second index, and the symmetry of the second image that is nearest.
    """
    found = [np.empty((0, 3), np.int64)]
    for second in range(1, len(hashes)):
        # one image at a time: its 8 hashes against those of all images before it, (8, second)
        distance = np.bitwise_count(hashes[second, :, None] ^ hashes[:second, 0])
        first = np.flatnonzero(distance.min(axis=0) <= MAX_DISTANCE)
        symmetry = distance[:, first].argmin(axis=0)
        found.append(np.stack([first, np.full_like(first, second), symmetry], axis=1))
    return np.concatenate(found)


def align(one: np.ndarray, other: np.ndarray) -> np.ndarray | None:
    """Finds the affine transformation between two reduced thumbnails, float32 (48, 48), of one photograph.

    Returns:
        float32 (2, 3), from pixels of `one` to pixels of `other`, both at full size; None if nothing fits.
    """
    warp = np.eye(2, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)
    try:
        correlation = cv2.findTransformECC(one, other, warp, cv2.MOTION_AFFINE, stop, None, 3)[0]
    except cv2.error:  # no convergence
        return None
    # x' = A x + t between pixel centres at half size, so t' = 2 t + (A 1 - 1) / 2 at full size
    warp[:, 2] = 2 * warp[:, 2] + (warp[:, :2].sum(axis=1) - 1) / 2
    return warp if correlation >= MIN_ALIGNMENT else None


def correlate_blocks(one: np.ndarray, other: np.ndarray, warp: np.ndarray) -> float:
    """Measures how well the details of two thumbnails, uint8 (96, 96), agree after an alignment.

    Returns:
        The correlation that three quarters of the blocks with details in either image reach, -1..1. Each
        block has the same weight: a strong outline that both share does not hide what differs.
    """
    one, other = one.astype(np.float32), other.astype(np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(other, warp, (SIDE, SIDE), flags=flags)
    inside = _split_blocks(cv2.warpAffine(np.ones_like(other), warp, (SIDE, SIDE), flags=flags))
    # a band-pass filter: compression noise and shifts of half a pixel must not count
    first, second = (
        _split_blocks(cv2.GaussianBlur(each, (0, 0), 0.7) - cv2.GaussianBlur(each, (0, 0), 2))
        for each in (one, moved)
    )
    first, second = (each - each.mean(axis=1, keepdims=True) for each in (first, second))
    power = np.stack([(first**2).mean(axis=1), (second**2).mean(axis=1)])
    compared = (power.max(axis=0) >= MIN_TEXTURE**2) & (inside.min(axis=1) > 0.99)
    if compared.mean() < 0.1:
        return -1.0
    correlation = (first * second).mean(axis=1) / np.sqrt(np.maximum(power, 1e-3).prod(axis=0))
    return float(np.quantile(correlation[compared], 0.25))


def _reduce(thumbnail: np.ndarray) -> np.ndarray:
    """Removes slow variations (light, a plain background) and halves the size: float32 (48, 48)."""
    image = thumbnail.astype(np.float32)
    image -= cv2.GaussianBlur(image, (0, 0), SIDE / 8)
    return cv2.resize(image, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA)


def _split_blocks(image: np.ndarray) -> np.ndarray:
    """(96, 96) -> (64, 144): one block per row."""
    count = SIDE // BLOCK
    return image.reshape(count, BLOCK, count, BLOCK).swapaxes(1, 2).reshape(count * count, -1)
