"""Reads image files: JPEG, PNG, WebP, BMP and TIFF to uint8 RGB arrays.

Rules, the same for the mask files that `nailseg.data.io.masks` reads:

- The header comes first; more than `max_pixels` pixels are an error before anything is decoded.
- Bytes are decoded, not files: `cv2.imread` of a truncated JPEG gives an array of rubbish, `imdecode` none.
- The file's own EXIF orientation is applied (JPEG, PNG, WebP, TIFF); the decoders differ in it.

Gray becomes RGB; 16 bits are scaled by 1/257, or from the range of values of the data set (`levels`); colors
of an ICC profile become sRGB (`profiles`), after that scaling; transparent parts are composited over white,
as in nearly every viewer. A TIFF's fourth band is alpha only if the file says so. Of several images in one
JPEG (MPO, motion photos) the first is read.
"""

import io
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageOps

from nailseg.data.io import headers
from nailseg.data.io.headers import Header
from nailseg.data.io.levels import ImageRange, sample_values, scale_to_8_bits
from nailseg.data.io.profiles import convert_to_srgb
from nailseg.data.issues import Issue, IssueError

MAX_PIXELS = 200_000_000
"""Default limit on height times width: above any camera, below what a 2-core machine's memory stands."""

MAX_TRANSLUCENT = 0.5
"""If more of an image is neither opaque nor fully transparent, its alpha channel probably holds data."""

_GRAY = ("1", "L", "LA", "La")
_OPAQUE = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr")
"""Pillow's modes of 8 bits per channel, which have one conversion to RGB, as those of `TRANSPARENT`."""


@dataclass(frozen=True)
class DecodedImage:
    """An image and what is known of its file."""

    pixels: np.ndarray  # uint8 (H, W, 3), RGB, upright
    values: np.ndarray | None = None  # of 16-bit files: `sample_values` of the image
    issues: tuple[Issue, ...] = ()  # warnings about alpha and profile


def read_image(
    path: str | Path, max_pixels: int = MAX_PIXELS, image_range: ImageRange | None = None
) -> np.ndarray:
    """Reads an image of at most `max_pixels`, height times width.

    Of 16-bit files, `image_range` are the values that become 0 and 255.

    Returns:
        uint8 (H, W, 3), RGB, upright.

    Raises:
        IssueError: (a `DataError`) a file that cannot be read unambiguously.
    """
    return decode_image(read_bytes(path), str(path), max_pixels, image_range).pixels


def decode_image(
    data: bytes, name: str, max_pixels: int = MAX_PIXELS, image_range: ImageRange | None = None
) -> DecodedImage:
    """Decodes the bytes of an image file as `read_image` does; `name` is what errors call them."""
    header = check_header(data, name, max_pixels)
    plain_png = header.format == "png" and header.channels in ("gray", "color") and not header.transparent
    alpha = None
    if header.bits > 8:
        colors = decode_16_bits(data, header, name)
        if colors.ndim == 3:  # in a TIFF whose tags do not say so, the fourth band is no alpha
            alpha = colors[..., 3] if header.channels == "color+alpha" else None
            colors = colors[..., :3]
    elif plain_png or (header.format == "jpeg" and header.channels != "other"):
        colors = decode_with_cv2(data, cv2.IMREAD_COLOR_RGB, name)
        if header.profile and header.channels == "gray":
            colors = colors[..., 0]
    else:
        image = decode_with_pillow(data, name)
        colors, alpha = _split_alpha(image, headers.has_alpha(image), name)
    decoded = _convert_colors(colors, alpha, header.profile, image_range, name)
    return replace(decoded, pixels=headers.apply_orientation(decoded.pixels, header.orientation))


def decode_pillow_image(image: Image.Image, image_range: ImageRange | None = None) -> DecodedImage:
    """Converts an image that Pillow has open to what `decode_image` gives for its file; raises the same."""
    name = "the PIL image"
    colors, alpha = _split_alpha(ImageOps.exif_transpose(image), headers.has_alpha(image), name)
    return _convert_colors(colors, alpha, image.info.get("icc_profile"), image_range, name)


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
    header = headers.read_header(data, name, verify=isinstance(data, bytes))
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
    with headers.reported_damage(name):
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
        if decoded is None:
            raise ValueError("it is cut off, or its content is damaged")
    if flags == cv2.IMREAD_UNCHANGED and decoded.ndim == 3:
        return cv2.cvtColor(decoded, cv2.COLOR_BGRA2RGBA if decoded.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    return decoded


def decode_with_pillow(data: bytes, name: str) -> Image.Image:
    """Decodes with Pillow, for the forms that cv2 does not support or changes."""
    image = headers.open_image(io.BytesIO(data), name)
    with headers.reported_damage(name):
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
    raise headers.unsupported_format(f"{header.bits}-bit {header.format} in another form", name)


def _split_alpha(image: Image.Image, transparent: bool, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Colors, uint8 or uint16 (H, W), uint8 (H, W, 3) RGB or (H, W, 4) CMYK; and alpha, uint8 (H, W)."""
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16), None
    if image.mode not in (*_OPAQUE, *headers.TRANSPARENT):
        raise headers.unsupported_format(f"Pillow's mode {image.mode}", name)
    if transparent:
        pixels = np.array(image.convert("RGBA"))
        return pixels[..., 0] if image.mode in _GRAY else pixels[..., :3], pixels[..., 3]
    if image.mode == "CMYK":
        return np.array(image), None
    return np.array(image.convert("L" if image.mode in _GRAY else "RGB")), None


def _convert_colors(
    colors: np.ndarray,
    alpha: np.ndarray | None,
    profile: bytes | None,
    image_range: ImageRange | None,
    name: str,
) -> DecodedImage:
    """What `_split_alpha` returns, or uint16 (H, W, 3) with uint16 alpha, becomes RGB over white."""
    values, issues = None, []
    if colors.dtype == np.uint16:
        values = sample_values(colors)
        colors = scale_to_8_bits(colors, image_range)
        alpha = None if alpha is None else scale_to_8_bits(alpha)
    if profile:
        try:
            colors = convert_to_srgb(colors, profile)
        except ValueError as error:
            message = f"expected a color profile that can be applied, found {error}; its numbers are used"
            fix = "Open it in an image editor, check its colors, and save it as sRGB."
            issues.append(Issue("image-profile", name, message, fix))
    if colors.ndim == 2:
        colors = cv2.cvtColor(colors, cv2.COLOR_GRAY2RGB)
    elif colors.shape[2] == 4:
        colors = np.array(Image.frombuffer("CMYK", colors.shape[1::-1], colors).convert("RGB"))
    if alpha is not None:
        translucent = float(((alpha > 0) & (alpha < 255)).mean())
        if translucent > MAX_TRANSLUCENT:
            message = f"expected alpha of 0 or 255, found others on {translucent:.0%} of the image, which was"
            fix = "If the fourth channel is data (infrared, depth), save the image without it."
            issues.append(Issue("image-alpha", name, f"{message} composited over white", fix))
        if alpha.min() < 255:  # over white: the colors beneath transparent pixels are arbitrary
            share = alpha[..., None].astype(np.uint16)
            colors = ((colors * share + 255 * (255 - share) + 127) // 255).astype(np.uint8)
    return DecodedImage(np.ascontiguousarray(colors), values, tuple(issues))


def _open_file(path: str | Path) -> BinaryIO:
    code, found = "missing-file", "nothing"
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode):  # to open a pipe would wait for its writer
            return open(path, "rb")
        code, found = "not-a-file", "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
    except FileNotFoundError:
        pass
    except OSError as error:
        found = error.strerror or str(error)
    except ValueError:
        path, found = repr(str(path)), "a null character in its name"
    fix = "Put it there, check its permissions, or correct the CSV or the data root."
    raise IssueError(code, path, f"expected a file, found {found}", fix)
