"""The forms masks come in (palettes, greys, equal channels, alpha) reduced to one array of values."""

from __future__ import annotations

import numpy as np

from nailseg.data.io.decoding import load_by_pillow, unsupported_format
from nailseg.data.io.headers import Header
from nailseg.data.issues import IssueError


def palette_values(data: bytes, header: Header, name: str, colors: bool) -> np.ndarray:
    image = load_by_pillow(data, name)
    if image.mode != "P":
        raise unsupported_format(header, name)
    indices = np.array(image)
    entries = image.getpalette("RGB") or []
    table = np.array([*entries, *[0] * (768 - len(entries))], np.uint8).reshape(256, 3)
    grey = (table[:, :1] == table).all()
    # grey: an optimised 0/255 mask, whose order is the optimiser's; coloured: the indices are labels
    return table[indices][..., 0] if grey else table[indices] if colors else indices


def values_by_pillow(data: bytes, header: Header, name: str) -> np.ndarray:
    image = load_by_pillow(data, name)
    if image.mode == "1":
        return np.array(image.convert("L"))
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        return np.array(image)
    message = f"expected whole-number class values, found a {header.kind} file of form {image.mode}"
    raise IssueError("mask-format", name, message, "Save the mask as 8-bit PNG.")


def one_channel(raw: np.ndarray, header: Header, name: str) -> np.ndarray:
    """Reduces (H, W, 2..4) to (H, W) where nothing is lost, or to (H, W, 3) for colours."""
    if raw.ndim == 3 and raw.shape[2] in (2, 4):
        raw = _without_alpha(raw, name)
    if raw.ndim == 3 and (raw[..., 0] == raw[..., 1]).all() and (raw[..., 0] == raw[..., 2]).all():
        raw = np.ascontiguousarray(raw[..., 0])
    if raw.dtype == np.uint16 and raw.max() <= 255:
        raw = raw.astype(np.uint8)
    if raw.ndim == 3 and (header.lossy or raw.dtype != np.uint8):
        lossy = "colours in a lossy file (JPEG), whose values are approximate"
        message = f"expected one channel of class values, found {lossy if header.lossy else '16-bit colours'}"
        fix = "Check that it is no photograph, and export the mask as 8-bit PNG."
        raise IssueError("mask-format", name, message, fix)
    return raw


def _without_alpha(raw: np.ndarray, name: str) -> np.ndarray:
    colour, alpha = raw[..., :-1], raw[..., -1]
    if alpha.min() == alpha.max() == np.iinfo(raw.dtype).max:
        return colour[..., 0] if colour.shape[2] == 1 else colour
    flat = (colour == colour[:1, :1]).all()
    if flat or (colour == alpha[..., None]).all():  # alpha alone draws the mask, or both say the same
        return alpha
    message = "expected colour or transparency to carry the classes, found both, and they differ"
    raise IssueError("mask-format", name, message, "Save the mask without transparency.")
