"""Reads mask files: palettes, gray levels, equal channels and alpha become one array of values.

Values stay as the file has them. 1-bit is 0/255; a palette gives its indices unless it holds gray levels only
(then it stands for them); three equal channels are one; opaque alpha is dropped; where alpha alone varies,
alpha is the mask.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from nailseg.data.io import images
from nailseg.data.io.headers import Header, apply_orientation
from nailseg.data.io.images import MAX_PIXELS, read_bytes
from nailseg.data.issues import IssueError
from nailseg.data.mask_encoding import MaskEncoding


class DecodedMask(NamedTuple):
    """A mask file's content before its values become classes."""

    values: np.ndarray  # uint8 or uint16 (H, W), or uint8 (H, W, 3) RGB
    lossy: bool  # the values are approximate (JPEG, lossy WebP)
    palette: np.ndarray | None = None  # uint8 (256, 3) RGB by index, where `values` are palette indices


def read_mask(path: str | Path, encoding: MaskEncoding, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads a mask as classes.

    Returns:
        uint8 (H, W), class index, 255 where no class counts. Upright.

    Raises:
        IssueError: a file that cannot be read unambiguously, or values without a class.
    """
    mask = decode_mask_values(read_bytes(path), str(path), max_pixels, encoding.has_colors)
    return encoding.apply(mask.values, mask.lossy, str(path))


def decode_mask_values(
    data: bytes, name: str, max_pixels: int = MAX_PIXELS, colors: bool = False
) -> DecodedMask:
    """Decodes the bytes of a mask file to the values that it has.

    Args:
        data: the file's bytes.
        name: what errors call the file.
        max_pixels: limit on height times width.
        colors: expand palettes to their colors instead of their indices.

    Returns:
        Upright: uint8 (H, W) values, gray levels or palette indices; uint16 (H, W) where a 16-bit file needs
        more than 255; or uint8 (H, W, 3) for color masks.

    Raises:
        IssueError: a file that cannot be read unambiguously.
    """
    header, palette = images.check_header(data, name, max_pixels), None
    if header.bits > 8:
        raw = images.decode_16_bits(data, header, name)
    elif header.channels not in ("palette", "other") and header.format in ("png", "jpeg"):
        # GRAYSCALE for gray: it expands 1, 2 and 4 bits to 0..255 and ignores tRNS; UNCHANGED keeps alpha
        flag = cv2.IMREAD_GRAYSCALE if header.channels == "gray" else cv2.IMREAD_UNCHANGED
        raw = images.decode_with_cv2(data, flag, name)
    else:
        raw, palette = _decode_with_pillow(data, header, name, colors)
    values = apply_orientation(_reduce_channels(raw, header, name), header.orientation)
    return DecodedMask(values, header.lossy, palette)


def _decode_with_pillow(
    data: bytes, header: Header, name: str, colors: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """The values, and the palette if they are its indices."""
    image = images.decode_with_pillow(data, name)
    if image.mode == "P":
        indices, entries = np.array(image), image.getpalette("RGB") or []
        table = np.array([*entries, *[0] * (768 - len(entries))], np.uint8).reshape(256, 3)
        if (table[:, :1] == table).all():
            # an optimized 0/255 mask: the order of its indices is arbitrary
            return table[indices][..., 0], None
        return (table[indices], None) if colors else (indices, table)
    if image.mode in ("1", "L", "LA", "RGB", "RGBA"):
        return np.array(image.convert("L") if image.mode == "1" else image), None
    message = f"expected whole-number class values, found a {header.format} file of form {image.mode}"
    raise IssueError("mask-format", name, message, "Save the mask as 8-bit PNG.")


def _reduce_channels(raw: np.ndarray, header: Header, name: str) -> np.ndarray:
    """Reduces (H, W, 2..4) to (H, W) where nothing is lost, or to (H, W, 3) for colors."""
    if raw.ndim == 3 and raw.shape[2] in (2, 4):
        raw = _remove_alpha(raw, name)
    if raw.ndim == 3 and (raw[..., 0] == raw[..., 1]).all() and (raw[..., 0] == raw[..., 2]).all():
        raw = np.ascontiguousarray(raw[..., 0])
    if raw.dtype == np.uint16 and raw.max() <= 255:
        raw = raw.astype(np.uint8)
    if raw.ndim == 3 and (header.lossy or raw.dtype != np.uint8):
        lossy = "colors in a lossy file (JPEG), whose values are approximate"
        message = f"expected one channel of class values, found {lossy if header.lossy else '16-bit colors'}"
        fix = "Check that it is no photograph, and export the mask as 8-bit PNG."
        raise IssueError("mask-format", name, message, fix)
    return raw


def _remove_alpha(raw: np.ndarray, name: str) -> np.ndarray:
    color, alpha = raw[..., :-1], raw[..., -1]
    if alpha.min() == alpha.max() == np.iinfo(raw.dtype).max:
        return color[..., 0] if color.shape[2] == 1 else color
    constant = (color == color[:1, :1]).all()
    if constant or (color == alpha[..., None]).all():  # alpha alone is the mask, or both are equal
        return alpha
    message = "expected color or transparency to carry the classes, found both, and they differ"
    raise IssueError("mask-format", name, message, "Save the mask without transparency.")
