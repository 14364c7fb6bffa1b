"""Reads image files: JPEG, PNG, WebP, BMP and TIFF to uint8 RGB arrays.

Rules, the same for the mask files that `nailseg.data.io.masks` reads:

- The header comes first; more than `max_pixels` pixels are an error before anything is decoded.
- Bytes are decoded, not files: `cv2.imread` of a truncated JPEG gives an array of rubbish, `imdecode` none.
- The file's own EXIF orientation is applied (JPEG, PNG, WebP, TIFF); the decoders differ in it.

Gray becomes RGB; 16 bits are scaled by 1/257; CMYK JPEG is converted; transparent parts are composited over
white, as in nearly every viewer. Color profiles are not applied. Of several images in one JPEG (MPO, motion
photos) the first is read.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageOps

from nailseg.data.io.headers import (
    Header,
    apply_orientation,
    open_image,
    read_header,
    reported_damage,
    unsupported_format,
)
from nailseg.data.issues import IssueError

MAX_PIXELS = 200_000_000
"""Default limit on height times width: above any camera, below what a 2-core machine's memory stands."""

_OPAQUE = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr")
_TRANSPARENT = ("LA", "PA", "RGBA", "La", "RGBa")
"""Pillow's modes of 8 bits per channel, which have one conversion to RGB."""


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads an image of at most `max_pixels`, height times width.

    Returns:
        uint8 (H, W, 3), RGB, upright.

    Raises:
        IssueError: (a `DataError`) a file that cannot be read unambiguously.
    """
    return decode_image(read_bytes(path), str(path), max_pixels)


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes the bytes of an image file as `read_image` does; `name` is what errors call them."""
    header = check_header(data, name, max_pixels)
    plain_png = header.format == "png" and header.channels in ("gray", "color") and not header.transparent
    if header.bits > 8:
        image = _scale_to_8_bits(decode_16_bits(data, header, name), name)
    elif plain_png or (header.format == "jpeg" and header.channels != "other"):
        image = decode_with_cv2(data, cv2.IMREAD_COLOR_RGB, name)
    else:
        image = _convert_to_rgb(decode_with_pillow(data, name), name)
    return apply_orientation(image, header.orientation)


def convert_pillow_image(image: Image.Image) -> np.ndarray:
    """Converts an image that Pillow has open to what `read_image` gives for its file; raises the same."""
    return _convert_to_rgb(ImageOps.exif_transpose(image), "the PIL image")


def read_image_size(path: str | Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Reads the height and width of the upright image from its header alone; raises `IssueError`."""
    with _open_file(path) as file:
        return check_header(file, str(path), max_pixels).size


def read_bytes(path: str | Path) -> bytes:
    """Reads a file; raises `IssueError` (`missing-file`, `not-a-file`)."""
    with _open_file(path) as file:
        return file.read()


def check_header(data: bytes | BinaryIO, name: str, max_pixels: int) -> Header:
    """Reads the header of one image of at most `max_pixels`; of bytes, PNG's checksums are verified too."""
    header = read_header(data, name, verify=isinstance(data, bytes))
    if header.height * header.width > max_pixels:
        message = f"expected at most {max_pixels:,} pixels, found {header.width} x {header.height}"
        fix = "Make it smaller; for training and check, --data.max_pixels and --max-pixels raise the limit."
        raise IssueError("too-large", name, message, fix)
    if header.frames > 1:
        message = f"expected one image, found {header.frames} frames or pages"
        raise IssueError("multi-frame", name, message, "Save the one you mean as PNG or JPEG.")
    return header


def decode_with_cv2(data: bytes, flags: int, name: str) -> np.ndarray:
    """Decodes JPEG or PNG with cv2, the fastest decoder, to gray, RGB or RGBA."""
    with reported_damage(name):
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
        if decoded is None:
            raise ValueError("it is cut off, or its content is damaged")
    if flags == cv2.IMREAD_UNCHANGED and decoded.ndim == 3:
        return cv2.cvtColor(decoded, cv2.COLOR_BGRA2RGBA if decoded.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    return decoded


def decode_with_pillow(data: bytes, name: str) -> Image.Image:
    """Decodes with Pillow, for the forms that cv2 does not support or changes."""
    image = open_image(io.BytesIO(data), name)
    with reported_damage(name):
        image.load()
    return image


def decode_16_bits(data: bytes, header: Header, name: str) -> np.ndarray:
    """16-bit PNG and TIFF -> uint16 (H, W) or (H, W, 3 or 4) RGB as stored; Pillow would halve the bits."""
    if header.bits == 16 and header.channels != "other":
        if header.format == "tiff" and header.channels == "gray":
            return np.asarray(decode_with_pillow(data, name)).astype(np.uint16)
        raw = decode_with_cv2(data, cv2.IMREAD_UNCHANGED, name)
        if raw.dtype == np.uint16:
            return raw
    raise unsupported_format(f"{header.bits}-bit {header.format} in another form", name)


def _scale_to_8_bits(raw: np.ndarray, name: str) -> np.ndarray:
    """uint16 (H, W[, C]) -> uint8 (H, W, 3)."""
    brightest = int(raw.max() if raw.ndim == 2 else raw[..., :3].max())
    if 0 < brightest < 4096:
        # 10- and 12-bit camera data in a 16-bit file would become nearly black without any message
        message = f"expected 16-bit values up to 65535, found {brightest} as the brightest"
        fix = "Stretch it to 8 bits the way you want it seen, and save that."
        raise IssueError("image-format", name, message, fix)
    scaled = ((raw.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if scaled.ndim == 2:
        return cv2.cvtColor(scaled, cv2.COLOR_GRAY2RGB)
    return _composite_over_white(scaled) if scaled.shape[2] == 4 else scaled


def _composite_over_white(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 4) -> (H, W, 3): the colors beneath transparent pixels are arbitrary, often black."""
    alpha = image[..., 3:].astype(np.uint16)
    if alpha.min() == 255:
        return np.ascontiguousarray(image[..., :3])
    return ((image[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _convert_to_rgb(image: Image.Image, name: str) -> np.ndarray:
    if image.mode.startswith("I;16"):
        return _scale_to_8_bits(np.asarray(image).astype(np.uint16), name)
    if image.mode not in (*_OPAQUE, *_TRANSPARENT):
        raise unsupported_format(f"Pillow's mode {image.mode}", name)
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        return _composite_over_white(np.array(image.convert("RGBA")))
    return np.array(image.convert("RGB"))


@contextlib.contextmanager
def _open_file(path: str | Path) -> Iterator[BinaryIO]:
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        code, found = "missing-file", error.strerror or error
        if Path(path).is_dir():
            code, found = "not-a-file", "a folder"
        elif isinstance(error, FileNotFoundError):
            found = "nothing"
        fix = "Put it there, check its permissions, or correct the CSV or the data root."
        raise IssueError(code, path, f"expected a file, found {found}", fix) from None
