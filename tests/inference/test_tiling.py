"""Tiles and test-time augmentation; the backends compute known functions, so every number is known."""

import logging

import numpy as np
import pytest

from nailseg.errors import ConfigError
from nailseg.inference import tiling
from nailseg.inference.segmenter import Segmenter
from nailseg.model_info import ModelInfo


class Arithmetic:
    """A backend whose foreground probability is a function of the pixels and the size; notes its calls."""

    def __init__(self, foreground, one_size=False):
        self.info = ModelInfo(["background", "nail"], image_size=64)
        self.foreground, self.one_size = foreground, one_size
        self.calls = []

    def __call__(self, images, size=None):
        if size is not None and self.one_size:
            raise ConfigError("one size only")
        self.calls.append((images.shape[1:3], size))
        foreground = np.stack([self.foreground(image.astype(np.float32), size) for image in images])
        probability = np.stack([1 - foreground, foreground], 1).astype(np.float32)
        return probability.argmax(1).astype(np.uint8), probability


def grey(image, size):
    """A network without context: the pixel's own value."""
    return image[..., 0] / 255


def nearness_to_the_left(image, size):
    """A network that is biased by where a pixel lies in its tile."""
    return np.broadcast_to(1 - np.arange(image.shape[1]) / image.shape[1], image.shape[:2])


def photograph(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_tiles_computed_by_hand() -> None:
    # 100 pixels, tiles of 40, 10 shared: starts at 0, 30, and 60, which is the last one and reaches the edge
    found = list(tiling.split_into_tiles(100, 40))
    assert [(place.start, place.stop) for place, _ in found] == [(0, 40), (30, 70), (60, 100)]
    assert found[0][1][:30] == pytest.approx(np.ones(30))
    # both fall linearly over the ten shared pixels: 9.5, 8.5 … tenths against 0.5, 1.5 …
    assert found[0][1][30:] == pytest.approx((10 - np.arange(10) - 0.5) / 10)
    assert found[1][1][:10] == pytest.approx((np.arange(10) + 0.5) / 10)
    # one pixel more: the last tile is shifted inside and shares 39 with the one before
    assert [place.start for place, _ in tiling.split_into_tiles(101, 40)] == [0, 30, 60, 61]
    assert [(place.start, place.stop) for place, _ in tiling.split_into_tiles(25, 40)] == [(0, 25)]


@pytest.mark.parametrize("length", [32, 33, 41, 100, 127, 1000])
@pytest.mark.parametrize("tile", [32, 45])
def test_tile_weights_add_up_to_one_everywhere(length, tile) -> None:
    total = np.zeros(length)
    for place, weights in tiling.split_into_tiles(length, tile):
        assert 0 <= place.start < place.stop <= length
        assert (weights > 0).all()
        total[place] += weights
    assert total == pytest.approx(np.ones(length), abs=1e-6)


def test_tiles_of_a_network_without_context_equal_the_whole_image() -> None:
    image, backend = photograph(150, 97), Arithmetic(grey)
    mask, probability = tiling.predict_tiled(backend, image, tile=40)
    whole = grey(image, None)
    assert np.abs(probability[1] - whole).max() < 1e-6
    clear = np.abs(whole - 0.5) > 1e-5
    assert (mask == (whole > 0.5))[clear].all()
    # rows start at 0, 30, 60, 90, 110, columns at 0, 30, 57: 15 tiles, none larger, none padded
    assert [shape for shape, _ in backend.calls] == [(40, 40)] * 15


def test_no_seams_between_tiles() -> None:
    backend = Arithmetic(nearness_to_the_left)
    probability = tiling.predict_tiled(backend, photograph(64, 300), tile=64)[1][1]
    step = np.abs(np.diff(probability, axis=1)).max()
    # side by side without blending, the probability would jump by nearly 1 from tile to tile
    assert step < 0.08
    assert np.abs(np.diff(np.tile(nearness_to_the_left(photograph(64, 64), None), 4), axis=1)).max() > 0.9


def test_image_of_one_tile_is_predicted_whole() -> None:
    image, backend = photograph(40, 33), Arithmetic(grey)
    for tile in (40, 500, "auto"):
        mask, probability = tiling.predict_tiled(backend, image, tile=tile)
        assert (probability == tiling.predict_tiled(backend, image)[1]).all()
        assert (mask == tiling.predict_tiled(backend, image)[0]).all()
    assert {shape for shape, _ in backend.calls} == {(40, 33)}


def test_auto_is_the_networks_own_size() -> None:
    backend = Arithmetic(grey)
    tiling.predict_tiled(backend, photograph(100, 64), tile="auto")
    assert [shape for shape, _ in backend.calls] == [(64, 64)] * 2


def test_tile_too_small() -> None:
    with pytest.raises(ConfigError, match="--tile 7: expected auto, or 32 pixels or more"):
        tiling.predict_tiled(Arithmetic(grey), photograph(40, 40), tile=7)


def test_augmentation_averages_sizes_and_mirrored_images() -> None:
    image = photograph(20, 30)
    backend = Arithmetic(lambda image, size: nearness_to_the_left(image, size) * (size or 64) / 100)
    mask, probability = tiling.predict_tiled(backend, image, tta=True)
    assert [size for _, size in backend.calls] == [48, 48, None, None, 80, 80]
    ramp = 1 - np.arange(30) / 30
    expected = (ramp + ramp[::-1]) / 2 * (0.48 + 0.64 + 0.80) / 3
    assert probability[1] == pytest.approx(np.broadcast_to(expected, (20, 30)), abs=1e-6)
    assert probability.dtype == np.float32
    assert mask.dtype == np.uint8
    assert not mask.any()


def test_mirrored_probabilities_are_mirrored_back() -> None:
    image, backend = photograph(20, 30), Arithmetic(grey)
    assert np.abs(tiling.predict_tiled(backend, image, tta=True)[1][1] - grey(image, None)).max() < 1e-6


def test_model_of_a_fixed_size_is_only_mirrored(caplog) -> None:
    tiling._log_once.cache_clear()
    image, backend = photograph(20, 30), Arithmetic(grey, one_size=True)
    with caplog.at_level(logging.INFO, "nailseg"):
        for _ in range(2):
            tiling.predict_tiled(backend, image, tta=True)
    assert [size for _, size in backend.calls] == [None] * 4
    assert caplog.text.count("the model has a fixed input size") == 1


def test_augmented_tiles_and_the_threshold_work_together() -> None:
    image = photograph(100, 90)
    segment = Segmenter(Arithmetic(grey), threshold=0.8)
    result = segment(image, tta=True, tile=48)
    assert np.abs(result.probability.sum(0) - 1).max() < 1e-5
    assert (result.mask == (result.probability[1] >= 0.8)).all()
    assert 0.1 < result.mask.mean() < 0.3
