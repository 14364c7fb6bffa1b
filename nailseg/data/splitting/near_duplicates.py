"""Finds images that show the same photograph: mirrored, turned, re-compressed, a little cropped.

Two steps. A perceptual hash (64 signs of low DCT frequencies, as `imagehash.phash` takes them; a test
compares) proposes pairs: hashes of all eight flips and rotations are looked up in tables of random bit
subsets (locality sensitive hashing), so the work grows with the number of images and not with its square.
Then each proposal is aligned on small grey thumbnails and must agree in its details nearly everywhere: hands
on white paper all hash alike, and so do images that an augmentation has turned within a black frame.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

SIDE = 96
"""Pixels of a thumbnail's sides; the aspect ratio is given up, which cropping changes anyway."""
LOW = 8
"""Frequencies per axis in the hash."""
TABLES = 48
"""Hash tables; two hashes that differ in 10 of 63 bits meet in one of them with probability 0.99."""
MAX_BITS = 16
"""Proposals differ in at most so many of the 63 bits; unrelated images differ in 31 +- 4."""
MIN_CONTRAST = 4.0
"""Grey levels of standard deviation: an emptier thumbnail tells nothing about where it comes from."""
BLOCK = 12
"""Pixels of a side of the blocks in which details are compared."""
TEXTURE = 2.0
"""Grey levels of standard deviation from which a block has details to compare."""
ALIGNED = 0.5
"""Correlation after the alignment, below which nothing fits."""
SAME = 0.75
"""Correlation that three quarters of the blocks must reach for two thumbnails to show one photograph; chosen
by looking. Random crops of up to 5 % a side, light, scale and JPEG 30-90 leave 0.88 in 99 of 100 cases."""


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Reduces an image, uint8 (H, W, 3) RGB, to a grey uint8 (96, 96)."""
    # the resize first: it makes the conversion nearly free
    return cv2.cvtColor(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)


def find_near_duplicates(thumbnails: np.ndarray) -> np.ndarray:
    """Finds pairs of thumbnails, uint8 (N, 96, 96), of one photograph; enough to connect every cluster.

    Returns:
        int64 (P, 2), sorted, the smaller index first. Equal thumbnails are paired with the first only.
    """
    flat = thumbnails.reshape(len(thumbnails), SIDE * SIDE)
    told = np.flatnonzero(flat.std(axis=1) >= MIN_CONTRAST)
    _, first, kind = np.unique(flat[told], axis=0, return_index=True, return_inverse=True)
    repeated = [(int(told[first[k]]), int(row)) for row, k in zip(told, kind.ravel(), strict=True)]
    told = told[np.sort(first)]
    images = thumbnails[told].astype(np.float32)

    def same(proposal: list[int]) -> bool:
        one, other, turn = proposal
        return agreement(images[one], turned(images[other], turn)) >= SAME

    proposals = propose(hash_bits(thumbnails[told])).tolist()
    with ThreadPoolExecutor(2) as pool:
        verdicts = pool.map(same, proposals)
        near = [
            (int(told[a]), int(told[b])) for (a, b, _), yes in zip(proposals, verdicts, strict=True) if yes
        ]
    return np.array(sorted({(a, b) for a, b in repeated if a != b} | set(near)), np.int64).reshape(-1, 2)


def clusters(count: int, pairs: np.ndarray) -> np.ndarray:
    """Connects `pairs`, int (P, 2): each of `count` items' smallest connected index, int64 (count,)."""
    from scipy.sparse import coo_array  # here: only index and check need it
    from scipy.sparse.csgraph import connected_components

    one, other = np.asarray(pairs, np.int64).reshape(-1, 2).T
    links = coo_array((np.ones(len(one)), (one, other)), (count, count))
    kind = connected_components(links, directed=False)[1]
    return np.unique(kind, return_index=True)[1][kind]


def hash_bits(thumbnails: np.ndarray) -> np.ndarray:
    """Perceptual hashes of the eight flips and rotations of uint8 (N, 96, 96).

    Returns:
        bool (N, 8, 64): bit (row * 8 + column) says whether that DCT coefficient lies above the median; the
        turns as `turned` counts them.
    """
    small = thumbnails.reshape(-1, 32, 3, 32, 3).mean(axis=(2, 4))
    frequency, place = np.mgrid[0:LOW, 0:32]
    basis = np.cos(np.pi * frequency * (2 * place + 1) / 64)
    low = basis @ small @ basis.T
    # flips and transposition of an image are signs and transposition of its coefficients
    sign = (-1.0) ** np.arange(LOW)
    turns = []
    for turn in range(8):
        one = low.swapaxes(1, 2) if turn & 4 else low
        one = one * sign[:, None] if turn & 1 else one
        turns.append(one * sign if turn & 2 else one)
    coefficients = np.stack(turns, axis=1).reshape(len(low), 8, LOW * LOW)
    return coefficients > np.median(coefficients, axis=2, keepdims=True)


def turned(picture: np.ndarray, turn: int) -> np.ndarray:
    """One of the eight flips and rotations of (H, W): bit 4 transposes, then 1 flips rows and 2 columns."""
    picture = picture.T if turn & 4 else picture
    return np.ascontiguousarray(picture[:: -1 if turn & 1 else 1, :: -1 if turn & 2 else 1])


def propose(bits: np.ndarray) -> np.ndarray:
    """Pairs whose hashes, bool (N, 8, 64), nearly agree, found through tables of random bit subsets.

    Returns:
        int64 (P, 3): first index < second index, and the turn of the second that brings it nearest.
    """
    count = len(bits)
    packed = np.packbits(bits, axis=2).view(np.uint64)[..., 0]
    # about as many keys as images: buckets stay small however many there are
    width = int(np.clip(np.ceil(np.log2(count + 1)) + 1, 8, 24))
    rng, found = np.random.default_rng(0), [np.empty((0, 4), np.int64)]
    for _ in range(TABLES):
        # bit 0 is the mean brightness, above the median in every image
        weights = np.zeros(LOW * LOW, np.int64)
        weights[rng.permutation(np.arange(1, LOW * LOW))[:width]] = 1 << np.arange(width)
        keys = bits @ weights
        order = np.argsort(keys[:, 0], kind="stable")
        table = keys[order, 0]
        start, stop = (np.searchsorted(table, keys.ravel(), side) for side in ("left", "right"))
        hits = stop - start
        query = np.repeat(np.arange(count * 8), hits)
        other = order[np.arange(len(query)) - np.repeat(np.cumsum(hits) - hits - start, hits)]
        # the pair comes twice, once from either side: one is enough
        query, other = query[other < query // 8], other[other < query // 8]
        apart = np.bitwise_count(packed.ravel()[query] ^ packed[other, 0])
        near = apart <= MAX_BITS
        found.append(np.stack([other, query // 8, query % 8, apart], axis=1)[near])
    rows = np.unique(np.concatenate(found), axis=0)
    rows = rows[np.lexsort((rows[:, 2], rows[:, 3], rows[:, 1], rows[:, 0]))]
    _, best = np.unique(rows[:, 0] * count + rows[:, 1], return_index=True)
    return rows[best, :3]


def find_candidates(bits: np.ndarray) -> np.ndarray:
    """Compares all pairs of hashes, bool (N, 8, 64); result as `propose`, in another order."""
    packed = np.packbits(bits, axis=2).view(np.uint64)[..., 0]
    found = [np.empty((0, 3), np.int64)]
    for second in range(1, len(packed)):
        distance = np.bitwise_count(packed[second, :, None] ^ packed[:second, 0])
        first = np.flatnonzero(distance.min(axis=0) <= MAX_BITS)
        turn = distance[:, first].argmin(axis=0)
        found.append(np.stack([first, np.full_like(first, second), turn], axis=1))
    return np.concatenate(found)


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """How well two float32 (96, 96) agree in their details after the affine alignment that suits them best.

    Returns:
        The correlation that three quarters of the blocks with details in either reach, -1..1. Each block
        counts the same: a strong outline that both share does not drown what differs.
    """
    half = (SIDE // 2, SIDE // 2)
    # without what varies slowly: light, and a plain ground
    small = [
        cv2.resize(each - cv2.GaussianBlur(each, (0, 0), SIDE / 8), half, interpolation=cv2.INTER_AREA)
        for each in (one, other)
    ]
    warp = np.eye(2, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)
    try:
        fit = cv2.findTransformECC(*small, warp, cv2.MOTION_AFFINE, stop, None, 3)[0]
    except cv2.error:  # it found no alignment
        return -1.0
    if fit < ALIGNED:
        return -1.0
    # x' = A x + t between pixel centres at half size, so t' = 2 t + (A 1 - 1) / 2 at full size
    warp[:, 2] = 2 * warp[:, 2] + (warp[:, :2].sum(axis=1) - 1) / 2
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(other, warp, (SIDE, SIDE), flags=flags)
    inside = cv2.warpAffine(np.ones_like(other), warp, (SIDE, SIDE), flags=flags)
    first, second, inside = _blocks(_fine(one)), _blocks(_fine(moved)), _blocks(inside)
    first, second = (each - each.mean(axis=1, keepdims=True) for each in (first, second))
    power = np.stack([(first**2).mean(axis=1), (second**2).mean(axis=1)])
    compared = (power.max(axis=0) >= TEXTURE**2) & (inside.min(axis=1) > 0.99)
    if compared.mean() < 0.1:
        return -1.0
    correlation = (first * second).mean(axis=1) / np.sqrt(np.maximum(power, 1e-3).prod(axis=0))
    return float(np.quantile(correlation[compared], 0.25))


def _fine(picture: np.ndarray) -> np.ndarray:
    """The details alone, a little soft: compression and half a pixel shall not count."""
    return cv2.GaussianBlur(picture, (0, 0), 0.7) - cv2.GaussianBlur(picture, (0, 0), 2)


def _blocks(picture: np.ndarray) -> np.ndarray:
    """(96, 96) -> (64, 144): one block per row."""
    count = SIDE // BLOCK
    return picture.reshape(count, BLOCK, count, BLOCK).swapaxes(1, 2).reshape(count * count, -1)
