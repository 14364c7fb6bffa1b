"""EXIF orientation: read from the block, applied to the array. One rule for images and masks.

TIFF is the exception: both decoders turn it themselves, whatever they are told (a test holds them to it).
"""

from __future__ import annotations

import struct

import numpy as np


def exif_orientation(exif: bytes) -> int | None:
    """Orientation 1..8 from an EXIF block (a small TIFF file), None where it says nothing valid."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(exif[:2]))
    try:
        if order is None:
            return None
        (start,) = struct.unpack(order + "I", exif[4:8])
        (count,) = struct.unpack(order + "H", exif[start : start + 2])
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack(order + "HH", exif[entry : entry + 4])
            if tag == 0x0112:
                form = {1: "B", 3: "H", 4: "I"}[kind]
                (value,) = struct.unpack_from(order + form, exif, entry + 8)
                return value if 1 <= value <= 8 else None
    except (struct.error, KeyError):
        return None
    return None


def apply_orientation(array: np.ndarray, orientation: int) -> np.ndarray:
    """Applies EXIF orientation 1..8 to (H, W[, C])."""
    if orientation == 1:
        return array
    turned = array.swapaxes(0, 1) if orientation >= 5 else array
    # after the transposition, 5..8 differ by flips alone
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(turned[::rows, ::columns])
