"""Image files of every format, complete and damaged."""

from __future__ import annotations

import contextlib
import io
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from nailseg.data.io.images import decode_image, read_image, read_image_size
from nailseg.data.issues import IssueError
from nailseg.errors import DataError
from tests.data.io.files import read_mask_values, save


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "tiff"])
def test_lossless_formats_are_read_exactly(tmp_path: Path, rgb: np.ndarray, ending: str) -> None:
    path = save(tmp_path / f"a.{ending}", rgb)
    assert np.array_equal(read_image(path), rgb)
    assert read_image_size(path) == (20, 30)


@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_lossy_formats_are_read_as_rgb(tmp_path: Path, rgb: np.ndarray, ending: str) -> None:
    found = read_image(save(tmp_path / f"a.{ending}", rgb, quality=95))
    assert np.abs(found.astype(int) - rgb).max() < 30
    assert np.abs(found.astype(int) - rgb).mean() < 4


def test_gray_becomes_rgb(tmp_path: Path, rgb: np.ndarray) -> None:
    for ending, mode in (("png", "L"), ("jpg", "L"), ("png", "1"), ("tif", "L")):
        found = read_image(save(tmp_path / f"{mode}.{ending}", rgb, mode))
        assert found.shape == (20, 30, 3)
        assert np.array_equal(found[..., 0], found[..., 2])


def test_palette_images_become_rgb(tmp_path: Path, rgb: np.ndarray) -> None:
    image = Image.fromarray(rgb).quantize(16)
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), np.array(image.convert("RGB")))


def test_cmyk_jpeg_is_converted(tmp_path: Path, rgb: np.ndarray) -> None:
    found = read_image(save(tmp_path / "a.jpg", rgb, "CMYK", quality=98))
    assert np.abs(found.astype(int) - rgb).mean() < 4


@pytest.mark.parametrize("ending", ["png", "webp", "tif"])
def test_transparent_parts_are_composited_over_white(tmp_path: Path, rgb: np.ndarray, ending: str) -> None:
    alpha = np.full((20, 30, 1), 255, np.uint8)
    alpha[:, :15] = 0
    alpha[0] = 128
    options = {"lossless": True} if ending == "webp" else {}
    found = read_image(save(tmp_path / f"a.{ending}", np.concatenate([rgb, alpha], axis=2), **options))
    assert (found[1:, :15] == 255).all()
    assert np.array_equal(found[1:, 15:], rgb[1:, 15:])
    half = (rgb[0].astype(float) * 128 + 255 * 127) / 255
    assert np.abs(found[0] - half).max() <= 1


def test_a_transparent_value_is_composited_over_white(tmp_path: Path, mask: np.ndarray) -> None:
    path = save(tmp_path / "a.png", mask * 200, transparency=0)
    assert set(np.unique(read_image(path))) == {200, 255}


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_are_scaled_by_257(tmp_path: Path, rgb: np.ndarray, ending: str, channels: int) -> None:
    deep = rgb.astype(np.uint16) * 257
    deep = deep[..., 0] if channels == 1 else deep
    cv2.imwrite(str(tmp_path / f"a.{ending}"), deep if channels == 1 else deep[..., ::-1])
    found = read_image(tmp_path / f"a.{ending}")
    assert np.array_equal(found, rgb if channels == 3 else np.repeat(rgb[..., :1], 3, axis=2))


def test_float_and_lab_tiff_are_an_error(tmp_path: Path, rgb: np.ndarray) -> None:
    Image.fromarray(rgb[..., 0].astype(np.float32)).save(tmp_path / "f.tif")
    Image.fromarray(rgb).convert("LAB").save(tmp_path / "lab.tif")
    for name in ("f.tif", "lab.tif"):
        with pytest.raises(DataError, match=r"found (32-bit tiff|Pillow's mode LAB).*Convert it to 8 bits"):
            read_image(tmp_path / name)


def test_first_image_of_mpo(tmp_path: Path, rgb: np.ndarray) -> None:
    first, second = Image.fromarray(rgb), Image.fromarray(255 - rgb)
    first.save(tmp_path / "a.mpo", format="MPO", save_all=True, append_images=[second])
    found = read_image(tmp_path / "a.mpo")
    assert np.abs(found.astype(int) - rgb).mean() < 6


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "tif"])
@pytest.mark.parametrize("keep", [-1, -3, 0.9, 0.5, 40, 12, 3])
def test_truncated_files_are_an_error(tmp_path: Path, rgb: np.ndarray, ending: str, keep: float) -> None:
    data = save(tmp_path / f"a.{ending}", rgb).read_bytes()
    if ending in ("tif", "bmp") and keep in (-1, -3):
        keep = 0.95  # the last bytes may be padding
    cut = int(len(data) * keep) if 0 < keep < 1 else int(keep)
    path = tmp_path / f"b.{ending}"
    path.write_bytes(data[:cut])
    with pytest.raises(DataError, match=rf"b\.{ending}: expected .*found"):
        read_image(path)
    with pytest.raises(DataError, match=rf"b\.{ending}: expected .*found"):
        read_mask_values(path)


def test_random_damage_raises_data_errors_only(rgb: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    for form in ("PNG", "JPEG", "WEBP", "BMP", "TIFF"):
        buffer = io.BytesIO()
        Image.fromarray(rgb).save(buffer, form)
        for _ in range(40):
            data = bytearray(buffer.getvalue())
            for position in rng.integers(0, len(data), 3):
                data[position] = rng.integers(256)
            with contextlib.suppress(DataError):
                assert decode_image(bytes(data), "x", max_pixels=10**6).pixels.dtype == np.uint8


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for read in (read_image, read_image_size):
        with pytest.raises(IssueError, match=r"no\.png: expected a file, found nothing.*data root") as caught:
            read(tmp_path / "no.png")
        assert caught.value.issue.code == "missing-file"
        with pytest.raises(IssueError, match="found a folder") as caught:
            read(tmp_path)
        assert caught.value.issue.code == "not-a-file"


def test_issue_error_survives_pickle(tmp_path: Path) -> None:
    with pytest.raises(IssueError) as caught:
        read_image(tmp_path / "no.png")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.issue) == (str(caught.value), caught.value.issue)


def test_max_pixels(tmp_path: Path, rgb: np.ndarray) -> None:
    path = save(tmp_path / "a.png", rgb)
    assert read_image(path, max_pixels=600).shape == (20, 30, 3)
    with pytest.raises(DataError, match="at most 599 pixels, found 30 x 20"):
        read_image(path, max_pixels=599)
