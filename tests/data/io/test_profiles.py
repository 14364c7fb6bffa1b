"""ICC profiles become sRGB; alpha and fourth bands; against values computed by hand."""

from __future__ import annotations

import io
import logging
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin

import nailseg
from nailseg.data.io.images import decode_image, decode_pillow_image, read_image

# primaries of Display P3 adapted to D50, as in Apple's profile (columns: red, green, blue); and sRGB's
P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])


def make_profile(matrix: np.ndarray, gamma: float = 2.2) -> bytes:
    """A minimal ICC v2 profile: three primaries and one gamma."""

    def xyz(values) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(gamma * 256), 0)
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + b"\0" * 78
    tags = {
        b"desc": text + b"\0" * (-len(text) % 4),
        b"wtpt": xyz((0.9642, 1, 0.8249)),
        b"cprt": b"text\0\0\0\0x\0\0\0",
    }
    for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), matrix.T, strict=True):
        tags[name] = xyz(column)
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(content))
        body += content
    header = struct.pack(">I4sI4s4s4s", offset + len(body), b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    header += struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1, 0.8249)))
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def to_srgb_by_hand(pixels: np.ndarray, matrix: np.ndarray, gamma: float = 2.2) -> np.ndarray:
    linear = (pixels / 255.0) ** gamma @ matrix.T @ np.linalg.inv(SRGB).T
    linear = linear.clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * encoded)


@pytest.fixture
def rgb() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(30, 220, (4, 6, 3)).astype(np.uint8)
    return np.kron(coarse, np.ones((16, 16, 1), np.uint8))


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_wide_gamut_becomes_srgb(ending: str, rgb: np.ndarray, tmp_path: Path) -> None:
    path, options = tmp_path / f"a.{ending}", {"webp": {"lossless": True}, "jpg": {"quality": 100}}
    options = options.get(ending, {}) | ({"subsampling": 0} if ending == "jpg" else {})
    Image.fromarray(rgb).save(path, icc_profile=make_profile(P3), **options)
    expected = to_srgb_by_hand(rgb, P3)
    assert np.abs(expected - rgb).max() > 10
    assert np.abs(read_image(path) - expected).mean() < 1.5
    with Image.open(path) as image:
        assert np.array_equal(decode_pillow_image(image).pixels, read_image(path))
    segment = nailseg.load("nailseg-b0", device="cpu")
    assert np.array_equal(segment(path).image, read_image(path))


def test_srgb_profiles_cost_nothing(rgb: np.ndarray, tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(rgb).save(tmp_path / "a.png", icc_profile=srgb)
    assert np.array_equal(read_image(tmp_path / "a.png"), rgb)


def test_16_bits_with_a_profile(rgb: np.ndarray, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "plain.png"), rgb[..., ::-1].astype(np.uint16) * 257)
    data = (tmp_path / "plain.png").read_bytes()
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG", icc_profile=make_profile(P3))
    start = buffer.getvalue().index(b"iCCP") - 4
    (length,) = struct.unpack(">I", buffer.getvalue()[start : start + 4])
    chunk = buffer.getvalue()[start : start + length + 12]
    data = data[:33] + chunk + data[33:]  # after the signature and IHDR
    assert np.abs(decode_image(data, "a").pixels - to_srgb_by_hand(rgb, P3)).mean() < 1.5


def test_gray_and_cmyk_profiles(rgb: np.ndarray, tmp_path: Path) -> None:
    gray = rgb[..., 0]
    Image.fromarray(gray).save(tmp_path / "g.png", icc_profile=make_profile(SRGB, gamma=1.0))
    linear = gray / 255.0
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    found = read_image(tmp_path / "g.png")
    assert np.abs(found - np.rint(255 * encoded)[..., None]).max() <= 2


@pytest.mark.parametrize("profile", [b"no profile" * 20, make_profile(P3)[:200]])
def test_a_damaged_profile_is_a_warning(profile: bytes, rgb: np.ndarray, tmp_path: Path, caplog) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(rgb).save(path, icc_profile=profile)
    decoded = decode_image(path.read_bytes(), "a.png")
    assert np.array_equal(decoded.pixels, rgb)
    assert [issue.code for issue in decoded.issues] == ["image-profile"]
    with caplog.at_level(logging.WARNING, "nailseg"):
        nailseg.load("nailseg-b0", device="cpu")(path)
    assert "expected a color profile that can be applied" in caplog.text


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("tagged", [True, False])
def test_a_fourth_band_is_alpha_only_if_the_file_says_so(
    depth, tagged: bool, rgb: np.ndarray, tmp_path: Path
) -> None:
    infrared = np.full((*rgb.shape[:2], 1), 100, np.uint8)
    bands = np.concatenate([rgb, infrared], axis=2).astype(depth) * (257 if depth == np.uint16 else 1)
    path = tmp_path / "a.tif"
    write_tiff(path, bands.astype(depth), extra=2 if tagged else None)
    over_white = np.rint((rgb * 100.0 + 255 * 155) / 255) if tagged else rgb
    found = decode_image(path.read_bytes(), "a.tif")
    assert np.abs(found.pixels - over_white).max() <= 1
    assert [issue.code for issue in found.issues] == (["image-alpha"] if tagged else [])


def test_unspecified_extra_samples_are_no_alpha(rgb: np.ndarray, tmp_path: Path) -> None:
    bands = np.concatenate([rgb, np.full((*rgb.shape[:2], 1), 100, np.uint8)], axis=2)
    write_tiff(tmp_path / "a.tif", bands, extra=0)
    assert np.array_equal(read_image(tmp_path / "a.tif"), rgb)


def write_tiff(path: Path, bands: np.ndarray, extra: int | None) -> None:
    """An uncompressed little-endian TIFF, with or without the ExtraSamples tag."""
    height, width, count = bands.shape
    bits = bands.dtype.itemsize * 8
    entries = {256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * count), 259: (3, [1]), 262: (3, [2])}
    entries |= {273: (4, [0]), 277: (3, [count]), 278: (4, [height]), 279: (4, [bands.nbytes]), 284: (3, [1])}
    if extra is not None:
        entries[338] = (3, [extra])
    start = 8 + 2 + 12 * len(entries) + 4
    bits_at, pixels_at = start, start + 2 * count
    entries[273] = (4, [pixels_at])
    directory = struct.pack("<H", len(entries))
    for tag, (kind, values) in sorted(entries.items()):
        value = struct.pack("<I", bits_at) if len(values) > 1 else struct.pack("<I", values[0])
        directory += struct.pack("<HHI", tag, kind, len(values)) + value
    content = b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 0)
    content += struct.pack(f"<{count}H", *[bits] * count) + bands.tobytes()
    path.write_bytes(content)
    assert TiffImagePlugin.EXTRASAMPLES == 338
