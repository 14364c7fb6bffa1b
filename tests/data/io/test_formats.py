"""GIF, AVIF and HEIC, and images without a suffix."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pillow_heif
import pytest
from PIL import Image

import nailseg
from nailseg.cli.main import main
from nailseg.data.io.images import read_image, read_image_size
from nailseg.errors import DataError


@pytest.fixture
def smooth() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    return cv2.resize(coarse, (84, 60), interpolation=cv2.INTER_CUBIC)


def test_avif(smooth: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(smooth).save(tmp_path / "a.avif", quality=95)
    assert np.abs(read_image(tmp_path / "a.avif").astype(int) - smooth).mean() < 4


def test_heic_upright(smooth: np.ndarray, tmp_path: Path) -> None:
    image = pillow_heif.from_pillow(Image.fromarray(smooth))
    image.save(tmp_path / "a.heic", quality=95)
    assert np.abs(read_image(tmp_path / "a.heic").astype(int) - smooth).mean() < 4
    assert read_image_size(tmp_path / "a.heic") == (60, 84)
    segment = nailseg.load("nailseg-b0", device="cpu")
    assert segment(tmp_path / "a.heic").mask.shape == (60, 84)


def test_heic_without_its_package_names_the_extra(smooth, tmp_path: Path, monkeypatch) -> None:
    pillow_heif.from_pillow(Image.fromarray(smooth)).save(tmp_path / "a.heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        DataError, match=r"found HEIC, as iPhones write it. Run: pip install 'nailseg\[heif\]'"
    ):
        read_image(tmp_path / "a.heic")


def test_gif_and_an_animation(smooth: np.ndarray, tmp_path: Path) -> None:
    image = Image.fromarray(smooth).quantize(64)
    image.save(tmp_path / "a.gif")
    assert np.array_equal(read_image(tmp_path / "a.gif"), np.array(image.convert("RGB")))
    image.save(tmp_path / "b.gif", save_all=True, append_images=[Image.fromarray(255 - smooth).quantize(64)])
    with pytest.raises(DataError, match="found 2 frames or pages"):
        read_image(tmp_path / "b.gif")


def test_predict_finds_images_by_header_and_names_what_it_skips(
    smooth: np.ndarray, tmp_path: Path, capsys
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), smooth)
    (folder / "IMG_0001").write_bytes((folder / "a.png").read_bytes())
    out = ["--model", "nailseg-b0", "--device", "cpu", "--out"]
    assert main(["predict", str(folder), *out, str(tmp_path / "one")]) == 0
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["IMG_0001.png", "a.png"]
    (folder / "movie.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    assert main(["predict", str(folder), *out, str(tmp_path / "two")]) == 1
    assert "movie.mp4" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["IMG_0001.png", "a.png"]
