"""Duplicates: hashes against imagehash, candidates against every pair, the result on known copies."""

from __future__ import annotations

import cv2
import imagehash
import numpy as np
import pytest
from PIL import Image

from nailseg.data.splitting.near_duplicates import (
    MAX_DISTANCE,
    apply_symmetry,
    compute_signature,
    find_candidates,
    find_duplicates,
    hash_symmetries,
)
from tests.data.planted import draw_image


def find_pairs(*images: np.ndarray) -> list[tuple[int, int]]:
    """The near-duplicates among images of different files, by position."""
    signatures = {str(k): compute_signature(b"%d" % k, image) for k, image in enumerate(images)}
    pairs = find_duplicates(signatures)
    assert not any(exact for _, _, exact in pairs)
    return [(int(first), int(second)) for first, second, _ in pairs]


def make_thumbnails(*images: np.ndarray) -> np.ndarray:
    return np.stack([compute_signature(b"", image)[1] for image in images])


def test_hashes_match_imagehash_within_two_bits() -> None:
    distances = []
    for seed in range(40):
        expected = np.packbits(imagehash.phash(Image.fromarray(draw_image(seed))).hash).view(np.uint64)
        found = hash_symmetries(make_thumbnails(draw_image(seed)))[0, 0]
        distances.append(int(np.bitwise_count(found ^ expected)[0]))
    assert np.mean(distances) < 2  # imagehash reduces the image with another filter
    assert max(distances) <= 8


@pytest.mark.parametrize("symmetry", range(8))
def test_hash_of_a_flipped_image_equals_the_derived_hash(symmetry: int) -> None:
    original = make_thumbnails(*(draw_image(seed) for seed in range(20)))
    flipped = np.stack([apply_symmetry(each, symmetry) for each in original])
    assert np.array_equal(hash_symmetries(original)[:, symmetry], hash_symmetries(flipped)[:, 0])


def test_candidates_are_all_pairs_within_the_distance() -> None:
    rng = np.random.default_rng(0)
    original = make_thumbnails(*(draw_image(seed) for seed in range(150)))
    noisy = np.clip(original + rng.normal(0, 12, original.shape), 0, 255).astype(np.uint8)
    hashes = hash_symmetries(np.concatenate([original, noisy]))
    distance = np.bitwise_count(hashes[:, 0, None, None] ^ hashes).min(-1)
    expected = {(int(a), int(b)) for a, b in np.argwhere(distance <= MAX_DISTANCE) if a < b}
    assert len(expected) > 100
    candidates = find_candidates(hashes)
    assert {(a, b) for a, b, _ in candidates.tolist()} == expected
    for first, second, symmetry in candidates.tolist():
        assert np.bitwise_count(hashes[first, 0] ^ hashes[second, symmetry]) == distance[first, second]


def copy_image(image: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    top, left, bottom, right = rng.integers(0, 5, 4)
    copies = {
        "same": lambda x: x,
        "cropped": lambda x: x[top : 96 - bottom, left : 128 - right],
        "darker": lambda x: (x * 0.8 + 10).astype(np.uint8),
        "mirrored": lambda x: x[:, ::-1],
        "rotated": np.rot90,
        "compressed": lambda x: cv2.imdecode(cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 1),
    }
    for name in copies if kind == "all" else [kind]:
        image = np.ascontiguousarray(copies[name](image))
    return image


@pytest.mark.parametrize("kind", ["same", "mirrored", "rotated", "compressed", "cropped", "darker", "all"])
def test_copies_are_found_and_unrelated_images_are_not(kind: str) -> None:
    rng = np.random.default_rng(3)
    originals = [draw_image(seed) for seed in range(30)]
    copies = [copy_image(image, kind, rng) for image in originals]
    pairs = find_pairs(*originals, *copies)
    assert all(b == a + 30 for a, b in pairs)
    assert len(pairs) >= (28 if kind == "all" else 29)


def test_empty_images_match_nothing_and_equal_images_match_the_first() -> None:
    assert find_pairs(*np.zeros((50, 96, 96, 3), np.uint8)) == []
    assert find_pairs(*[draw_image(0)] * 500) == [(0, k) for k in range(1, 500)]


def test_equal_files_are_exact_and_copies_are_near_duplicates() -> None:
    image, other = draw_image(0), draw_image(1)
    mirrored = np.ascontiguousarray(image[:, ::-1])
    files = {"a": (b"1", image), "b": (b"2", other), "c": (b"1", image), "d": (b"3", mirrored)}
    signatures = {name: compute_signature(data, pixels) for name, (data, pixels) in files.items()}
    assert find_duplicates(signatures) == [("a", "c", True), ("a", "d", False)]


def test_fewer_than_two_images_have_no_duplicates() -> None:
    assert find_duplicates({}) == []
    assert find_duplicates({"a": compute_signature(b"1", draw_image(0))}) == []
