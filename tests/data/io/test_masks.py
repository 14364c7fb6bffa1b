"""Mask files of every format, complete and damaged."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from nailseg.data.io.masks import read_mask
from nailseg.data.mask_encoding import MaskEncoding
from nailseg.errors import DataError
from tests.data.io.files import read_mask_values, save

BINARY = MaskEncoding(((0, 0), (255, 1)), ("background", "nail"))


def test_exif_orientation_of_masks(tmp_path: Path, mask: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.png"
    Image.fromarray(mask * 255).save(path, exif=exif)
    assert np.array_equal(read_mask(path, BINARY), np.rot90(mask, -1))
    Image.fromarray(mask * 255).convert("1").save(path, exif=exif)
    assert np.array_equal(read_mask(path, BINARY), np.rot90(mask, -1))


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_truncated_masks_are_an_error(tmp_path: Path, mask: np.ndarray, mode: str) -> None:
    data = save(tmp_path / "a.png", mask * 255, mode).read_bytes()
    for cut in (-1, -13, len(data) // 2):
        (tmp_path / "b.png").write_bytes(data[:cut])
        with pytest.raises(DataError, match="truncated or damaged"):
            read_mask_values(tmp_path / "b.png")


FORMATS = ["1 png", "L png", "RGB png", "RGBA png", "L bmp", "1 bmp", "1 tif", "L tif"]


@pytest.mark.parametrize("form", FORMATS)
def test_0_and_255_in_every_format(tmp_path: Path, mask: np.ndarray, form: str) -> None:
    mode, ending = form.split()
    raw = read_mask_values(save(tmp_path / f"a.{ending}", mask * 255, mode))
    assert raw.dtype == np.uint8
    assert np.array_equal(raw, mask * 255)


def test_0_and_1_stay_0_and_1(tmp_path: Path, mask: np.ndarray) -> None:
    assert np.array_equal(read_mask_values(save(tmp_path / "a.png", mask)), mask)


def test_color_palettes_give_indices(tmp_path: Path, mask: np.ndarray) -> None:
    image = Image.fromarray(mask).convert("P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_mask_values(tmp_path / "a.png"), mask)
    red = read_mask_values(tmp_path / "a.png", colors=True)
    assert np.array_equal(red[..., 0], mask * 128)


def test_gray_palettes_give_gray_levels(tmp_path: Path, mask: np.ndarray) -> None:
    image = Image.fromarray(1 - mask).convert("P")
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_mask_values(tmp_path / "a.png"), mask * 255)


def test_16_bit_masks_keep_their_values(tmp_path: Path, mask: np.ndarray) -> None:
    for scale, dtype in ((1, np.uint8), (255, np.uint8), (300, np.uint16), (65535, np.uint16)):
        for ending in ("png", "tif"):
            cv2.imwrite(str(tmp_path / f"a.{ending}"), mask.astype(np.uint16) * scale)
            raw = read_mask_values(tmp_path / f"a.{ending}")
            assert raw.dtype == dtype
            assert np.array_equal(raw, mask.astype(np.uint16) * scale)


def test_alpha_alone_is_the_mask(tmp_path: Path, mask: np.ndarray) -> None:
    flat = np.zeros((20, 30, 4), np.uint8)
    flat[..., 3] = mask * 255
    assert np.array_equal(read_mask_values(save(tmp_path / "a.png", flat)), mask * 255)
    flat[..., :3] = flat[..., 3:]  # white nails on transparent ground: color and alpha agree
    assert np.array_equal(read_mask_values(save(tmp_path / "a.png", flat)), mask * 255)


def test_alpha_that_contradicts_color_is_an_error(tmp_path: Path, mask: np.ndarray) -> None:
    both = np.zeros((20, 30, 4), np.uint8)
    both[..., 0] = mask * 255
    both[:10, :, 3] = 255
    with pytest.raises(DataError, match="color or transparency to carry the classes, found both"):
        read_mask_values(save(tmp_path / "a.png", both))


def test_color_masks_are_rgb(tmp_path: Path, mask: np.ndarray) -> None:
    colors = np.zeros((20, 30, 3), np.uint8)
    colors[mask == 1] = (255, 0, 0)
    raw = read_mask_values(save(tmp_path / "a.png", colors))
    assert np.array_equal(raw, colors)
    red = MaskEncoding.from_mapping({"#000000": "background", "#ff0000": "nail"}, ["background", "nail"])
    assert np.array_equal(read_mask(tmp_path / "a.png", red), mask)


def test_jpeg_masks_are_thresholded_at_127(tmp_path: Path, mask: np.ndarray) -> None:
    for mode in ("L", "RGB"):
        path = save(tmp_path / "a.jpg", mask * 255, mode, quality=75)
        assert len(np.unique(read_mask_values(path))) > 2  # or this shows nothing
        assert np.array_equal(read_mask(path, BINARY), mask)


def test_a_photograph_is_not_a_mask(tmp_path: Path, rgb: np.ndarray) -> None:
    with pytest.raises(DataError, match="found colors in a lossy file"):
        read_mask_values(save(tmp_path / "a.jpg", rgb))


def test_unknown_values_are_an_error(tmp_path: Path, mask: np.ndarray) -> None:
    with pytest.raises(
        DataError, match=r"a\.png: expected mask values 0, 255, found also 7.*--data\.mask_values"
    ):
        read_mask(save(tmp_path / "a.png", mask * 7), BINARY)
