"""Finds images that a data set contains twice: equal files, and nearly the same photograph.

Near-duplicates are mirrored, rotated, re-compressed or slightly cropped. A perceptual hash (the signs of 64
low DCT frequencies, as `imagehash.phash` takes them; a test compares the two) selects candidate pairs: the
hashes of all eight flips and rotations of each image are compared with the hash of every other image. Then
each pair is aligned on small grey thumbnails, and the details must agree nearly everywhere. The hash alone is
not enough: all hands on white paper have similar hashes, and so have images rotated within a black frame.
"""

import hashlib
from collections.abc import Mapping
from itertools import compress

import cv2
import numpy as np

from nailseg.data.threads import map_threads

SIDE = 96  # pixels of a thumbnail's sides; the aspect ratio is not kept: cropping changes it anyway
FREQUENCIES = 8  # DCT frequencies per axis in the hash
MAX_DISTANCE = 16  # candidates differ in at most this many of 63 bits; unrelated images differ in 31 +- 4
MIN_CONTRAST = 4.0  # standard deviation (grey levels); thumbnails below it match any empty image
BLOCK = 12  # pixels of a side of the blocks in which details are compared
MIN_TEXTURE = 2.0  # standard deviation (grey levels) from which a block has details to compare
MIN_ALIGNMENT = 0.5  # smallest correlation of two aligned thumbnails; below it, the alignment has failed
# Correlation that three quarters of the blocks must reach in near-duplicates; chosen by inspecting pairs.
# Random crops of up to 5 % a side, light, scale and JPEG 30-90 leave 0.88 in 99 of 100 cases.
MIN_CORRELATION = 0.75

Signature = tuple[bytes, np.ndarray]  # what is kept of an image to compare it with others
DuplicatePair = tuple[str, str, bool]  # the names of two images, and whether their files have the same bytes


def compute_signature(data: bytes, image: np.ndarray) -> Signature:
    """Hashes a file's bytes, and reduces its decoded image, uint8 (H, W, 3) RGB, to a grey uint8 (96, 96)."""
    # resizing first makes the conversion to grey nearly free
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return hashlib.blake2b(data, digest_size=16).digest(), cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)


def find_duplicates(signatures: Mapping[str, Signature]) -> list[DuplicatePair]:
    """Compares all images of a data set, given by name; finds enough pairs to connect every cluster.

    The alignment of a candidate pair takes a millisecond; photographs of hands have about 5 for each image.

    Returns:
        Pairs of equal files, then of near-duplicates; of several equal ones, each is paired with the first.

    Example:
        >>> image = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        >>> image = cv2.resize(image, (128, 128), interpolation=cv2.INTER_CUBIC)
        >>> copies = {"a": image, "flipped": image[::-1], "cropped": image[2:, 3:]}
        >>> pairs = find_duplicates({k: compute_signature(k.encode(), v) for k, v in copies.items()})
        >>> [(first, second) for first, second, exact in pairs if not exact]
        [('a', 'flipped'), ('a', 'cropped'), ('flipped', 'cropped')]
    """
    names = list(signatures)
    files, thumbnails = {}, {}  # content -> number of the first image that has it
    exact, near = [], set()  # a first image is paired with itself here; those pairs are removed at the end
    for number, (digest, thumbnail) in enumerate(signatures.values()):
        exact.append((files.setdefault(digest, number), number))
        if thumbnail.std() >= MIN_CONTRAST:
            near.add((thumbnails.setdefault(thumbnail.tobytes(), number), number))
    unique = list(thumbnails.values())
    images = np.array([signatures[names[number]][1] for number in unique]).reshape(-1, SIDE, SIDE)
    coarse = [_reduce(image) for image in images]

    def is_near_duplicate(candidate: tuple[int, int, int]) -> bool:
        one, other, symmetry = candidate
        warp = _align(coarse[one], apply_symmetry(coarse[other], symmetry))
        turned = apply_symmetry(images[other], symmetry)
        return warp is not None and _correlate_blocks(images[one], turned, warp) >= MIN_CORRELATION

    candidates = find_candidates(hash_symmetries(images)).tolist()
    verified = map_threads(is_near_duplicate, candidates, "comparing images")
    near |= {(unique[one], unique[other]) for one, other, _ in compress(candidates, verified)}
    found = [(pair, True) for pair in exact] + [(pair, False) for pair in sorted(near.difference(exact))]
    return [(names[one], names[other], same_file) for (one, other), same_file in found if one != other]


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
    signs = [np.outer(sign**rows, sign**columns) for columns in (0, 1) for rows in (0, 1)]
    symmetries = [each * flip for each in (low, low.swapaxes(1, 2)) for flip in signs]
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


def _align(one: np.ndarray, other: np.ndarray) -> np.ndarray | None:
    """The affine transformation, float32 (2, 3), from full-size pixels of `one` to `other`, if one fits."""
    warp = np.eye(2, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)
    try:
        correlation = cv2.findTransformECC(one, other, warp, cv2.MOTION_AFFINE, stop, None, 3)[0]
    except cv2.error:  # no convergence
        return None
    # x' = A x + t between pixel centres at half size, so t' = 2 t + (A 1 - 1) / 2 at full size
    warp[:, 2] = 2 * warp[:, 2] + (warp[:, :2].sum(axis=1) - 1) / 2
    return warp if correlation >= MIN_ALIGNMENT else None


def _correlate_blocks(one: np.ndarray, other: np.ndarray, warp: np.ndarray) -> float:
    """The correlation, -1..1, that three quarters of the blocks with details in either thumbnail reach."""
    one, other = one.astype(np.float32), other.astype(np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(other, warp, (SIDE, SIDE), flags=flags)
    inside = _split_blocks(cv2.warpAffine(np.ones_like(other), warp, (SIDE, SIDE), flags=flags))
    # a band-pass filter: compression noise and shifts of half a pixel must not count
    first, second = (
        _split_blocks(cv2.GaussianBlur(each, (0, 0), 0.7) - cv2.GaussianBlur(each, (0, 0), 2))
        for each in (one, moved)
    )
    # each block has the same weight: a strong outline that both share does not hide what differs
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
