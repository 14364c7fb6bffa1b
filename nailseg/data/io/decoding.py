"""From bytes to an array as stored: cv2 where it is fast and right, Pillow where it alone knows the form."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from nailseg.data.io.headers import Header, damaged, open_by_pillow
from nailseg.data.issues import IssueError


def decode_by_cv2(data: bytes, flags: int, name: str) -> np.ndarray:
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise damaged(name, error.err) from error
    if decoded is None:
        raise damaged(name, "it breaks off, or its content is damaged")
    return decoded


def decode_deep(data: bytes, header: Header, name: str) -> np.ndarray:
    """16-bit PNG and TIFF -> uint16 (H, W) or (H, W, 3 or 4) RGB as stored; Pillow would halve the bits."""
    if header.bits != 16 or header.channels == "other":
        raise unsupported_format(header, name)
    if header.kind == "tiff" and header.channels == "grey":
        return np.asarray(load_by_pillow(data, name)).astype(np.uint16)
    raw = decode_by_cv2(data, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION, name)
    if raw.dtype != np.uint16:
        raise unsupported_format(header, name)
    return to_rgb(raw)


def scale_to_8_bits(raw: np.ndarray, name: str) -> np.ndarray:
    """uint16 (H, W[, C]) -> uint8 (H, W, 3)."""
    brightest = int(raw.max() if raw.ndim == 2 else raw[..., :3].max())
    if 0 < brightest < 4096:
        # 10- and 12-bit camera data in a 16-bit file would come out all but black, and nobody would see why
        message = f"expected 16-bit values up to 65535, found {brightest} as the brightest"
        fix = "Stretch it to 8 bits the way you want it seen, and save that."
        raise IssueError("image-format", name, message, fix)
    scaled = ((raw.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if scaled.ndim == 2:
        return cv2.cvtColor(scaled, cv2.COLOR_GRAY2RGB)
    return over_white(scaled) if scaled.shape[2] == 4 else scaled


def over_white(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 4) -> (H, W, 3): the colours beneath transparent pixels are arbitrary, often black."""
    alpha = image[..., 3:].astype(np.uint16)
    if alpha.min() == 255:
        return np.ascontiguousarray(image[..., :3])
    return ((image[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def load_by_pillow(data: bytes, name: str) -> Image.Image:
    try:
        if data[:4] == b"\x89PNG":
            picture: Image.Image = PngImageFile(io.BytesIO(data))
        elif data[:2] == b"\xff\xd8":
            picture = JpegImageFile(io.BytesIO(data))
        else:
            picture = open_by_pillow(data)
        picture.load()
    except Exception as error:  # decoders break in many ways on damaged bytes, and all mean the same
        raise damaged(name, error) from error
    return picture


def unsupported_format(header: Header, name: str) -> Exception:
    message = f"expected 8- or 16-bit grey or colour, found {header.bits}-bit {header.kind} in another form"
    return IssueError("image-format", name, message, "Save it as 8-bit PNG.")


def to_rgb(raw: np.ndarray) -> np.ndarray:
    """cv2's channel order -> ours, alpha last."""
    if raw.ndim == 2:
        return raw
    return cv2.cvtColor(raw, cv2.COLOR_BGRA2RGBA if raw.shape[2] == 4 else cv2.COLOR_BGR2RGB)
