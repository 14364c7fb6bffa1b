"""Near twins: hashes against the library, tables against every pair, the verdict on known copies."""

from __future__ import annotations

import time

import cv2
import imagehash
import numpy as np
import pytest
from PIL import Image

from nailseg.data.splitting import near_duplicates
from nailseg.data.splitting.near_duplicates import (
    clusters,
    find_candidates,
    find_near_duplicates,
    hash_bits,
    propose,
    thumbnail,
    turned,
)
from tests.data.planted import draw_image


def thumbs(*images: np.ndarray) -> np.ndarray:
    return np.stack([thumbnail(each) for each in images])


def test_hashes_are_the_librarys_within_two_bits() -> None:
    apart = []
    for seed in range(40):
        expected = imagehash.phash(Image.fromarray(draw_image(seed))).hash.ravel()
        apart.append(int((hash_bits(thumbs(draw_image(seed)))[0, 0] != expected).sum()))
    assert np.mean(apart) < 2  # another filter reduces the image
    assert max(apart) <= 8


@pytest.mark.parametrize("turn", range(8))
def test_hashes_of_turned_pictures_come_from_the_same_numbers(turn: int) -> None:
    small = thumbs(*(draw_image(seed) for seed in range(20)))
    other = np.stack([turned(each, turn) for each in small])
    assert (hash_bits(small)[:, turn] != hash_bits(other)[:, 0]).sum() == 0


def test_the_tables_find_what_comparing_all_finds() -> None:
    rng = np.random.default_rng(0)
    small = thumbs(*(draw_image(seed) for seed in range(150)))
    noisy = np.clip(small + rng.normal(0, 12, small.shape), 0, 255).astype(np.uint8)
    bits = hash_bits(np.concatenate([small, noisy]))
    found = {(a, b) for a, b, _ in propose(bits).tolist()}
    apart = (bits[:, 0][:, None, None] != bits[None]).sum(-1).min(-1)
    near = {(int(a), int(b)) for a, b in np.argwhere(apart <= 10) if a < b}
    assert len(near) > 100
    assert len(near - found) <= 0.02 * len(near)
    assert all(apart[a, b] <= near_duplicates.MAX_BITS for a, b in found)


def test_comparing_all_pairs_finds_what_the_tables_find() -> None:
    rng = np.random.default_rng(0)
    small = thumbs(*(draw_image(seed) for seed in range(150)))
    noisy = np.clip(small + rng.normal(0, 12, small.shape), 0, 255).astype(np.uint8)
    bits = hash_bits(np.concatenate([small, noisy]))
    by_tables = {(a, b) for a, b, _ in propose(bits).tolist()}
    by_all = {(a, b) for a, b, _ in find_candidates(bits).tolist()}
    assert by_tables <= by_all
    apart = (bits[:, 0][:, None, None] != bits[None]).sum(-1).min(-1)
    near = {(int(a), int(b)) for a, b in np.argwhere(apart <= near_duplicates.MAX_BITS) if a < b}
    assert by_all == near


def copy(image: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    top, left, bottom, right = rng.integers(0, 5, 4)
    made = {
        "same": lambda x: x,
        "cropped": lambda x: x[top : 96 - bottom, left : 128 - right],
        "darker": lambda x: (x * 0.8 + 10).astype(np.uint8),
        "mirrored": lambda x: x[:, ::-1],
        "rotated": np.rot90,
        "compressed": lambda x: cv2.imdecode(cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 1),
    }
    for name in made if kind == "all" else [kind]:
        image = np.ascontiguousarray(made[name](image))
    return image


@pytest.mark.parametrize("kind", ["same", "mirrored", "rotated", "compressed", "cropped", "darker", "all"])
def test_copies_are_found_and_strangers_are_not(kind: str) -> None:
    rng = np.random.default_rng(3)
    originals = [draw_image(seed) for seed in range(30)]
    copies = [copy(image, kind, rng) for image in originals]
    pairs = find_near_duplicates(thumbs(*originals, *copies)).tolist()
    assert all(b == a + 30 for a, b in pairs)
    assert len(pairs) >= (28 if kind == "all" else 29)


def test_empty_pictures_say_nothing_and_many_equal_ones_are_no_trouble() -> None:
    assert find_near_duplicates(np.zeros((50, 96, 96), np.uint8)).shape == (0, 2)
    assert find_near_duplicates(np.zeros((0, 96, 96), np.uint8)).shape == (0, 2)
    equal = np.repeat(thumbs(draw_image(0)), 500, axis=0)
    assert find_near_duplicates(equal).tolist() == [[0, k] for k in range(1, 500)]


def test_clusters_connect() -> None:
    assert clusters(6, np.array([(4, 5), (1, 3), (3, 4)])).tolist() == [0, 1, 2, 1, 1, 1]
    assert clusters(2, np.empty((0, 2), int)).tolist() == [0, 1]


def test_proposals_do_not_take_the_square_of_the_pictures() -> None:
    rng = np.random.default_rng(0)
    spent = []
    for count in (2000, 16000):
        bits = hash_bits(rng.integers(0, 256, (count, 96, 96), dtype=np.uint8))
        start = time.process_time()
        propose(bits)
        spent.append(time.process_time() - start)
    assert spent[1] < 24 * spent[0]  # eight times the images; the square would be 64
