"""Format, size, orientation and limits from the header."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from nailseg.data.io.headers import apply_orientation, read_header
from nailseg.data.io.images import read_image, read_image_size
from nailseg.data.issues import IssueError
from nailseg.errors import DataError
from tests.data.io.files import png_chunk, read_mask_values, save


def test_format_comes_from_the_bytes_not_the_name(tmp_path: Path, rgb: np.ndarray) -> None:
    path = tmp_path / "a.jpg"
    save(tmp_path / "b.png", rgb).rename(path)
    assert np.array_equal(read_image(path), rgb)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_exif_orientation_equals_pillows(
    tmp_path: Path, rgb: np.ndarray, orientation: int, ending: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{ending}"
    options = {"lossless": True} if ending == "webp" else {}
    Image.fromarray(rgb).save(path, exif=exif, **options)
    with Image.open(path) as image:
        expected = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    found = read_image(path)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= (4 if ending == "jpg" else 0)
    assert read_image_size(path) == found.shape[:2]


def deep_tiff(deep: np.ndarray, orientation: int) -> bytes:
    """A 16-bit RGB TIFF written by hand, because neither cv2 nor Pillow writes one with this tag."""
    height, width = deep.shape[:2]
    short, long, entries = 3, 4, 10
    bits_at = 8 + 2 + 12 * entries + 4
    tags = [(256, short, 1, width), (257, short, 1, height), (258, short, 3, bits_at), (259, short, 1, 1),
            (262, short, 1, 2), (273, long, 1, bits_at + 6), (274, short, 1, orientation), (277, short, 1, 3),
            (278, short, 1, height), (279, long, 1, deep.nbytes)]  # fmt: skip
    directory = struct.pack("<H", entries) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + b"\0" * 4
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<HHH", 16, 16, 16) + deep.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_16_bit_tiff(tmp_path: Path, rgb: np.ndarray, orientation: int) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(deep_tiff(rgb.astype("<u2") * 257, orientation))
    assert np.array_equal(read_image(path), apply_orientation(rgb, orientation))
    assert read_image_size(path) == read_image(path).shape[:2]


def test_damaged_exif_is_ignored(tmp_path: Path, rgb: np.ndarray) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(rgb).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert read_image(path).shape == (20, 30, 3)


def test_exif_after_the_pixels_of_a_png(tmp_path: Path, rgb: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = save(tmp_path / "a.png", rgb).read_bytes()
    (tmp_path / "a.png").write_bytes(data[:-12] + png_chunk(b"eXIf", exif.tobytes()[6:]) + data[-12:])
    assert np.array_equal(read_image(tmp_path / "a.png"), np.rot90(rgb, -1))
    assert read_image_size(tmp_path / "a.png") == (30, 20)


def test_orientation_in_xmp_is_ignored(tmp_path: Path, rgb: np.ndarray) -> None:
    path = tmp_path / "a.jpg"
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    Image.fromarray(rgb).save(path, xmp=xmp)
    assert read_image(path).shape == (20, 30, 3)


def test_header_of_16_bit_gray_with_alpha(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 4, 4, 16, 4, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + bytes(range(16)) for _ in range(4)))
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", content) + png_chunk(b"IEND", b"")
    found = read_header(b"\x89PNG\r\n\x1a\n" + chunks, "a.png")
    assert (found.bits, found.channels, found.size) == (16, "gray+alpha", (4, 4))


def test_a_wrong_checksum_in_a_png_is_an_error(tmp_path: Path, mask: np.ndarray) -> None:
    data = bytearray(save(tmp_path / "a.png", mask * 255, "P").read_bytes())
    data[data.index(b"IDAT") + 8] ^= 0x10
    (tmp_path / "b.png").write_bytes(data)
    with pytest.raises(DataError, match="bad header checksum in b'IDAT'"):
        read_mask_values(tmp_path / "b.png")


def test_damaged_text_behind_the_pixels_of_a_png_is_passed_over(tmp_path: Path, rgb: np.ndarray) -> None:
    """As in Pillow, which reads such a file; in front of the pixels it is an error there, too."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = save(tmp_path / "a.png", rgb).read_bytes()
    path, start = tmp_path / "b.png", data.index(b"IDAT") - 4
    for name, content in ((b"tEXt", b"Comment\0x"), (b"eXIf", exif.tobytes()[6:])):
        chunk = png_chunk(name, content)[:-1] + b"?"
        path.write_bytes(data[:-12] + chunk + data[-12:])
        assert np.array_equal(read_image(path), rgb), "a damaged EXIF block counts as none"
        assert read_image_size(path) == (20, 30)
        path.write_bytes(data[:start] + chunk + data[start:])
        with pytest.raises(DataError, match=f"bad header checksum in {name}"):
            read_image(path)


def test_a_full_memory_is_no_damaged_file(tmp_path: Path, rgb: np.ndarray, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(cv2, "imdecode", fail)
    with pytest.raises(MemoryError):
        read_image(save(tmp_path / "a.png", rgb))


def test_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").mkdir()
    with pytest.raises(IssueError, match="expected a file, found a folder") as caught:
        read_image(tmp_path / "a.jpg")
    assert caught.value.issue.code == "not-a-file"


def test_a_jpeg_of_12_bits_is_named(tmp_path: Path, rgb: np.ndarray) -> None:
    data = bytearray(save(tmp_path / "a.jpg", rgb).read_bytes())
    data[data.index(b"\xff\xc0") + 4] = 12
    (tmp_path / "a.jpg").write_bytes(data)
    for read in (read_image, read_mask_values, read_image_size):
        with pytest.raises(IssueError, match=r"expected 8- or 16-bit .*, found a 12-bit JPEG") as caught:
            read(tmp_path / "a.jpg")
        assert caught.value.issue.code == "image-format"


def test_other_formats_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    for content, words in (
        (b"", r"0 bytes"),
        (b"hello, this is text", r"AVIF or HEIC, found none of them"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 20, r"truncated or damaged file"),
        (b"GIF89a" + b"\0" * 20, r"truncated or damaged file"),
        (b"\0\0\0\x18ftypmp42" + b"\0" * 20, r"found a video"),
        (b"%PDF-1.7\n", r"found a PDF"),
        (b"PK\x03\x04" + b"\0" * 20, r"found an archive .*unpack it"),
        (b"\x1f\x8b\x08" + b"\0" * 20, r"found an archive"),
        (b"<!DOCTYPE html><html>", r"found a web page"),
    ):
        path.write_bytes(content)
        for read in (read_image, read_mask_values, read_image_size):
            with pytest.raises(DataError, match=words):
                read(path)


def test_too_many_pixels_are_an_error_before_decoding(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 40000, 40000, 8, 0, 0, 0, 0)
    content = zlib.compress(b"\0" * 1000)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", content) + png_chunk(b"IEND", b"")
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    for read in (read_image, read_mask_values, read_image_size):
        with pytest.raises(IssueError, match="at most 200,000,000 pixels, found 40000 x 40000") as caught:
            read(path)
        assert caught.value.issue.code == "too-large"


@pytest.mark.parametrize("ending", ["png", "webp", "tif"])
def test_animations_and_pages_are_an_error(tmp_path: Path, rgb: np.ndarray, ending: str) -> None:
    first, second = Image.fromarray(rgb), Image.fromarray(255 - rgb)
    first.save(tmp_path / f"a.{ending}", save_all=True, append_images=[second])
    for read in (read_image, read_mask_values, read_image_size):
        with pytest.raises(DataError, match="expected one image, found 2 frames or pages"):
            read(tmp_path / f"a.{ending}")
