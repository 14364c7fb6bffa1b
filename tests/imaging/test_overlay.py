import cv2
import numpy as np
import pytest

from nailseg.errors import OutputError
from nailseg.imaging import overlay


def test_background_and_ignored_pixels_are_unchanged() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    mask = np.zeros((20, 20), np.uint8)
    mask[:5] = 255
    assert (overlay.draw_overlay(image, mask) == image).all()
    mask[10:15, 10:15] = 1
    painted = overlay.draw_overlay(image, mask)
    assert (painted[:5] == image[:5]).all()
    assert (painted[12, 12] != image[12, 12]).any()


def test_classes_have_different_colours_and_the_palette_repeats() -> None:
    colors = [overlay.class_color(c) for c in range(1, 8)]
    assert len(set(colors)) == 7
    assert overlay.class_color(8) == overlay.class_color(1)


def test_write_png_keeps_the_colour_order(tmp_path) -> None:
    image = np.zeros((3, 5, 3), np.uint8)
    image[..., 0] = 200
    overlay.write_png(tmp_path / "red.png", image)
    assert cv2.imread(str(tmp_path / "red.png"))[0, 0].tolist() == [0, 0, 200]


def test_concatenated_sizes() -> None:
    tile = np.zeros((10, 8, 3), np.uint8)
    row = overlay.concat_horizontal([tile, tile], gap=2)
    assert row.shape == (10, 18, 3)
    assert overlay.concat_vertical([row, tile], gap=2).shape == (22, 18, 3)


def test_image_too_large_for_its_format() -> None:
    long = np.zeros((1, 70_000), np.uint8)
    for suffix in (".jpg", ".webp"):
        with pytest.raises(OutputError, match="fits into"):
            overlay.encode_image(long, suffix)
    assert (
        cv2.imdecode(np.frombuffer(overlay.encode_image(long, ".png"), np.uint8), cv2.IMREAD_UNCHANGED).shape
        == long.shape
    )
