"""Every form an image or a mask may come in, and every way it may be broken."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from nailseg.data.io.headers import apply_orientation, read_header
from nailseg.data.io.images import decode_image, read_image, read_image_size
from nailseg.data.io.masks import read_mask, read_mask_values
from nailseg.data.issues import IssueError
from nailseg.data.mask_encoding import MaskEncoding
from nailseg.errors import DataError

BINARY = MaskEncoding(((0, 0), (255, 1)), ("background", "nail"))


@pytest.fixture
def picture() -> np.ndarray:
    """uint8 (20, 30, 3) without symmetry, smooth enough for JPEG."""
    rows, columns = np.mgrid[0:20, 0:30]
    return np.stack([rows * 12, columns * 8, 255 - rows * 5 - columns * 2], axis=2).astype(np.uint8)


@pytest.fixture
def mask() -> np.ndarray:
    """uint8 (20, 30), 0 and 1, without symmetry."""
    drawn = np.zeros((20, 30), np.uint8)
    drawn[3:9, 4:20] = 1
    drawn[12:15, 22:28] = 1
    return drawn


def save(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


# images


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "tiff"])
def test_lossless_images_come_back_exactly(tmp_path: Path, picture: np.ndarray, ending: str) -> None:
    path = save(tmp_path / f"a.{ending}", picture)
    assert np.array_equal(read_image(path), picture)
    assert read_image_size(path) == (20, 30)


@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_lossy_images_come_back_nearly_and_in_rgb(tmp_path: Path, picture: np.ndarray, ending: str) -> None:
    found = read_image(save(tmp_path / f"a.{ending}", picture, quality=95))
    assert np.abs(found.astype(int) - picture).max() < 30
    assert np.abs(found.astype(int) - picture).mean() < 4


def test_the_bytes_say_the_format_and_not_the_name(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "a.jpg"
    save(tmp_path / "b.png", picture).rename(path)
    assert np.array_equal(read_image(path), picture)


def test_grey_becomes_rgb(tmp_path: Path, picture: np.ndarray) -> None:
    for ending, mode in (("png", "L"), ("jpg", "L"), ("png", "1"), ("tif", "L")):
        found = read_image(save(tmp_path / f"{mode}.{ending}", picture, mode))
        assert found.shape == (20, 30, 3)
        assert np.array_equal(found[..., 0], found[..., 2])


def test_palette_images_show_their_colours(tmp_path: Path, picture: np.ndarray) -> None:
    image = Image.fromarray(picture).quantize(16)
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), np.array(image.convert("RGB")))


def test_cmyk_jpeg_is_converted(tmp_path: Path, picture: np.ndarray) -> None:
    found = read_image(save(tmp_path / "a.jpg", picture, "CMYK", quality=98))
    assert np.abs(found.astype(int) - picture).mean() < 4


@pytest.mark.parametrize("ending", ["png", "webp", "tif"])
def test_transparent_parts_are_laid_over_white(tmp_path: Path, picture: np.ndarray, ending: str) -> None:
    alpha = np.full((20, 30, 1), 255, np.uint8)
    alpha[:, :15] = 0
    alpha[0] = 128
    options = {"lossless": True} if ending == "webp" else {}
    found = read_image(save(tmp_path / f"a.{ending}", np.concatenate([picture, alpha], axis=2), **options))
    assert (found[1:, :15] == 255).all()
    assert np.array_equal(found[1:, 15:], picture[1:, 15:])
    half = (picture[0].astype(float) * 128 + 255 * 127) / 255
    assert np.abs(found[0] - half).max() <= 1


def test_a_transparent_value_is_laid_over_white(tmp_path: Path, mask: np.ndarray) -> None:
    path = save(tmp_path / "a.png", mask * 200, transparency=0)
    assert set(np.unique(read_image(path))) == {200, 255}


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_are_scaled_by_257(tmp_path: Path, picture: np.ndarray, ending: str, channels: int) -> None:
    deep = picture.astype(np.uint16) * 257
    deep = deep[..., 0] if channels == 1 else deep
    cv2.imwrite(str(tmp_path / f"a.{ending}"), deep if channels == 1 else deep[..., ::-1])
    found = read_image(tmp_path / f"a.{ending}")
    assert np.array_equal(found, picture if channels == 3 else np.repeat(picture[..., :1], 3, axis=2))


def test_12_bits_in_16_are_refused_and_not_shown_black(tmp_path: Path, picture: np.ndarray) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture.astype(np.uint16) * 16)
    with pytest.raises(DataError, match=r"a\.png: expected 16-bit values up to 65535, found \d{4} .*8 bits"):
        read_image(tmp_path / "a.png")


def test_float_and_lab_tiff_are_refused(tmp_path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture[..., 0].astype(np.float32)).save(tmp_path / "f.tif")
    Image.fromarray(picture).convert("LAB").save(tmp_path / "lab.tif")
    for name in ("f.tif", "lab.tif"):
        with pytest.raises(DataError, match=r"found (32-bit tiff|Pillow's mode LAB).*Convert it to 8 bits"):
            read_image(tmp_path / name)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_exif_orientation_as_pillow_applies_it(
    tmp_path: Path, picture: np.ndarray, orientation: int, ending: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{ending}"
    options = {"lossless": True} if ending == "webp" else {}
    Image.fromarray(picture).save(path, exif=exif, **options)
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
def test_exif_orientation_of_deep_tiff(tmp_path: Path, picture: np.ndarray, orientation: int) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(deep_tiff(picture.astype("<u2") * 257, orientation))
    assert np.array_equal(read_image(path), apply_orientation(picture, orientation))
    assert read_image_size(path) == read_image(path).shape[:2]


def test_masks_turn_by_their_own_tag_like_images(tmp_path: Path, mask: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.png"
    Image.fromarray(mask * 255).save(path, exif=exif)
    assert np.array_equal(read_mask(path, BINARY), np.rot90(mask, -1))
    Image.fromarray(mask * 255).convert("1").save(path, exif=exif)
    assert np.array_equal(read_mask(path, BINARY), np.rot90(mask, -1))


def test_damaged_exif_does_not_stop_a_good_picture(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(picture).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert read_image(path).shape == (20, 30, 3)


def test_an_exif_block_behind_the_pixels_of_a_png_counts(tmp_path: Path, picture: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = save(tmp_path / "a.png", picture).read_bytes()
    (tmp_path / "a.png").write_bytes(data[:-12] + png_chunk(b"eXIf", exif.tobytes()[6:]) + data[-12:])
    assert np.array_equal(read_image(tmp_path / "a.png"), np.rot90(picture, -1))
    assert read_image_size(tmp_path / "a.png") == (30, 20)


def test_orientation_in_xmp_alone_does_not_count(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "a.jpg"
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    Image.fromarray(picture).save(path, xmp=xmp)
    assert read_image(path).shape == (20, 30, 3)


def test_16_bit_gray_with_alpha_is_16_bits_to_the_header(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 4, 4, 16, 4, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + bytes(range(16)) for _ in range(4)))
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", content) + png_chunk(b"IEND", b"")
    found = read_header(b"\x89PNG\r\n\x1a\n" + chunks, "a.png")
    assert (found.bits, found.channels, found.size) == (16, "gray+alpha", (4, 4))


def test_a_jpeg_that_carries_more_gives_its_first_picture(tmp_path: Path, picture: np.ndarray) -> None:
    first, second = Image.fromarray(picture), Image.fromarray(255 - picture)
    first.save(tmp_path / "a.mpo", format="MPO", save_all=True, append_images=[second])
    found = read_image(tmp_path / "a.mpo")
    assert np.abs(found.astype(int) - picture).mean() < 6


# broken files


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "tif"])
@pytest.mark.parametrize("keep", [-1, -3, 0.9, 0.5, 40, 12, 3])
def test_truncated_files_are_refused(tmp_path: Path, picture: np.ndarray, ending: str, keep: float) -> None:
    data = save(tmp_path / f"a.{ending}", picture).read_bytes()
    if ending in ("tif", "bmp") and keep in (-1, -3):
        keep = 0.95  # the last bytes may be padding
    cut = int(len(data) * keep) if 0 < keep < 1 else int(keep)
    path = tmp_path / f"b.{ending}"
    path.write_bytes(data[:cut])
    with pytest.raises(DataError, match=rf"b\.{ending}: expected .*found"):
        read_image(path)
    with pytest.raises(DataError, match=rf"b\.{ending}: expected .*found"):
        read_mask_values(path)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_truncated_masks_of_every_form_are_refused(tmp_path: Path, mask: np.ndarray, mode: str) -> None:
    data = save(tmp_path / "a.png", mask * 255, mode).read_bytes()
    for cut in (-1, -13, len(data) // 2):
        (tmp_path / "b.png").write_bytes(data[:cut])
        with pytest.raises(DataError, match="truncated or damaged"):
            read_mask_values(tmp_path / "b.png")


def test_a_changed_byte_in_a_png_is_found(tmp_path: Path, mask: np.ndarray) -> None:
    data = bytearray(save(tmp_path / "a.png", mask * 255, "P").read_bytes())
    data[data.index(b"IDAT") + 8] ^= 0x10
    (tmp_path / "b.png").write_bytes(data)
    with pytest.raises(DataError, match="bad header checksum in b'IDAT'"):
        read_mask_values(tmp_path / "b.png")


def test_random_damage_never_gives_another_error(picture: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    for form in ("PNG", "JPEG", "WEBP", "BMP", "TIFF"):
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, form)
        for _ in range(40):
            data = bytearray(buffer.getvalue())
            for position in rng.integers(0, len(data), 3):
                data[position] = rng.integers(256)
            with contextlib.suppress(DataError):
                assert decode_image(bytes(data), "x", max_pixels=10**6).dtype == np.uint8


def test_what_is_no_picture_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    for content, words in (
        (b"", r"0 bytes"),
        (b"hello, this is text", r"JPEG, PNG, WebP, BMP or TIFF, found none of them"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 20, r"HEIC.*Save it as PNG or JPEG"),
        (b"GIF89a" + b"\0" * 20, r"found GIF"),
    ):
        path.write_bytes(content)
        for read in (read_image, read_mask_values, read_image_size):
            with pytest.raises(DataError, match=words):
                read(path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for read in (read_image, read_image_size):
        with pytest.raises(IssueError, match=r"no\.png: expected a file, found nothing.*data root") as caught:
            read(tmp_path / "no.png")
        assert caught.value.issue.code == "missing-file"
        with pytest.raises(IssueError, match="found Is a directory") as caught:
            read(tmp_path)
        assert caught.value.issue.code == "not-a-file"


def test_faults_come_back_from_worker_processes_whole(tmp_path: Path) -> None:
    with pytest.raises(IssueError) as caught:
        read_image(tmp_path / "no.png")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.issue) == (str(caught.value), caught.value.issue)


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 40000, 40000, 8, 0, 0, 0, 0)
    content = zlib.compress(b"\0" * 1000)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", content) + png_chunk(b"IEND", b"")
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    for read in (read_image, read_mask_values, read_image_size):
        with pytest.raises(IssueError, match="at most 200,000,000 pixels, found 40000 x 40000") as caught:
            read(path)
        assert caught.value.issue.code == "too-large"


def test_the_limit_on_pixels_can_be_set(tmp_path: Path, picture: np.ndarray) -> None:
    path = save(tmp_path / "a.png", picture)
    assert read_image(path, max_pixels=600).shape == (20, 30, 3)
    with pytest.raises(DataError, match="at most 599 pixels, found 30 x 20"):
        read_image(path, max_pixels=599)


@pytest.mark.parametrize("ending", ["png", "webp", "tif"])
def test_animations_and_pages_are_refused(tmp_path: Path, picture: np.ndarray, ending: str) -> None:
    first, second = Image.fromarray(picture), Image.fromarray(255 - picture)
    first.save(tmp_path / f"a.{ending}", save_all=True, append_images=[second])
    for read in (read_image, read_mask_values, read_image_size):
        with pytest.raises(DataError, match="expected one image, found 2 frames or pages"):
            read(tmp_path / f"a.{ending}")


# masks


FORMS = ["1 png", "L png", "RGB png", "RGBA png", "L bmp", "1 bmp", "1 tif", "L tif"]


@pytest.mark.parametrize("form", FORMS)
def test_0_and_255_in_every_form(tmp_path: Path, mask: np.ndarray, form: str) -> None:
    mode, ending = form.split()
    raw = read_mask_values(save(tmp_path / f"a.{ending}", mask * 255, mode))
    assert raw.dtype == np.uint8
    assert np.array_equal(raw, mask * 255)


def test_0_and_1_stay_0_and_1(tmp_path: Path, mask: np.ndarray) -> None:
    assert np.array_equal(read_mask_values(save(tmp_path / "a.png", mask)), mask)


def test_coloured_palettes_give_their_indices(tmp_path: Path, mask: np.ndarray) -> None:
    image = Image.fromarray(mask).convert("P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_mask_values(tmp_path / "a.png"), mask)
    red = read_mask_values(tmp_path / "a.png", colors=True)
    assert np.array_equal(red[..., 0], mask * 128)


def test_grey_palettes_stand_for_the_greys_whatever_their_order(tmp_path: Path, mask: np.ndarray) -> None:
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
    flat[..., :3] = flat[..., 3:]  # white nails on transparent ground: colour and alpha agree
    assert np.array_equal(read_mask_values(save(tmp_path / "a.png", flat)), mask * 255)


def test_alpha_against_colour_is_refused(tmp_path: Path, mask: np.ndarray) -> None:
    both = np.zeros((20, 30, 4), np.uint8)
    both[..., 0] = mask * 255
    both[:10, :, 3] = 255
    with pytest.raises(DataError, match="color or transparency to carry the classes, found both"):
        read_mask_values(save(tmp_path / "a.png", both))


def test_colour_masks_come_as_rgb(tmp_path: Path, mask: np.ndarray) -> None:
    colours = np.zeros((20, 30, 3), np.uint8)
    colours[mask == 1] = (255, 0, 0)
    raw = read_mask_values(save(tmp_path / "a.png", colours))
    assert np.array_equal(raw, colours)
    red = MaskEncoding.from_mapping({"#000000": "background", "#ff0000": "nail"}, ["background", "nail"])
    assert np.array_equal(read_mask(tmp_path / "a.png", red), mask)


def test_jpeg_masks_are_cut_at_127(tmp_path: Path, mask: np.ndarray) -> None:
    for mode in ("L", "RGB"):
        path = save(tmp_path / "a.jpg", mask * 255, mode, quality=75)
        assert len(np.unique(read_mask_values(path))) > 2  # or this shows nothing
        assert np.array_equal(read_mask(path, BINARY), mask)


def test_a_photograph_is_no_mask(tmp_path: Path, picture: np.ndarray) -> None:
    with pytest.raises(DataError, match="found colors in a lossy file"):
        read_mask_values(save(tmp_path / "a.jpg", picture))


def test_unknown_values_are_refused_with_the_file(tmp_path: Path, mask: np.ndarray) -> None:
    with pytest.raises(
        DataError, match=r"a\.png: expected mask values 0, 255, found also 7.*--data\.mask_values"
    ):
        read_mask(save(tmp_path / "a.png", mask * 7), BINARY)
